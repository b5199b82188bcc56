//! A look at a database without a hand on it.

use std::path::{Path, absolute};

use rusqlite::OpenFlags;

use super::{
    OpenError, Refusal,
    open::open,
    row::{lease, lease_columns},
    schema,
};
use crate::net::Lease;

const ALL: &str = concat!("SELECT ", lease_columns!(), " FROM lease");

/// The leases in the database at `path`, which is opened to be read and nothing else: for those who may not or will not
/// write. The whole file is checked first.
///
/// # Errors
/// As [`SqliteStore::open`](super::SqliteStore::open); and when there is no such file.
pub fn read_leases(path: &Path) -> Result<Vec<Lease>, OpenError> {
    peek(path).map_err(|reason| OpenError { path: path.to_owned(), reason })
}

fn peek(path: &Path) -> Result<Vec<Lease>, Refusal> {
    let path = absolute(path)?;
    // SQLite does not say why a file cannot be opened.
    drop(std::fs::File::open(&path)?);
    let mut conn = open(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let tx = conn.transaction()?;
    schema::inspect(&tx, true)?;
    match schema::version(&tx)? {
        0 => return Ok(Vec::new()),
        found if !schema::is_current(&tx)? => return Err(Refusal::Older { found }),
        _ => {}
    }
    let mut statement = tx.prepare(ALL)?;
    let mut leases = statement.query_map([], lease)?.collect::<Result<Vec<_>, _>>()?;
    leases.sort_by_key(|lease| (lease.domain, lease.address));
    Ok(leases)
}

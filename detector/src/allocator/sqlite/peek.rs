//! A look at a database without a hand on it.

use std::path::{Path, absolute};

use rusqlite::{OpenFlags, Row, Transaction, types::ValueRef};

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

/// A table's newest rows, each a JSON object of its columns.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Dumped {
    /// The table.
    pub table: String,
    /// How many rows it has.
    pub rows: i64,
    /// The newest of them, newest first.
    pub newest: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// Every table of the database at `path` as it is, with at most `most` rows of each, opened to be read and nothing else. For
/// people who look for what is wrong: nothing is understood, so that every version can be read.
///
/// # Errors
/// When it cannot be read or is no database.
pub fn dump(path: &Path, most: usize) -> Result<Vec<Dumped>, OpenError> {
    let dumped = || -> Result<_, Refusal> {
        let path = absolute(path)?;
        drop(std::fs::File::open(&path)?);
        let mut conn = open(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let tx = conn.transaction()?;
        let mut names = tx.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
        let names = names.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        names.into_iter().map(|name| Ok(dump_table(&tx, name, most)?)).collect()
    };
    dumped().map_err(|reason| OpenError { path: path.to_owned(), reason })
}

fn dump_table(tx: &Transaction<'_>, table: String, most: usize) -> rusqlite::Result<Dumped> {
    let quoted = table.replace('"', "\"\"");
    let rows = tx.query_row(&format!("SELECT count(*) FROM \"{quoted}\""), [], |row| row.get(0))?;
    // A table without row ids has its own order.
    let newest = [" ORDER BY rowid DESC", ""]
        .iter()
        .find_map(|order| tx.prepare(&format!("SELECT * FROM \"{quoted}\"{order} LIMIT {most}")).ok());
    let Some(mut newest) = newest else { return Ok(Dumped { table, rows, newest: Vec::new() }) };
    let columns: Vec<_> = newest.column_names().map(str::to_owned).collect();
    let object =
        |row: &Row<'_>| columns.iter().map(|name| Ok((name.clone(), json(row.get_ref(name.as_str())?)))).collect();
    let newest = newest.query_map([], object)?.collect::<Result<Vec<_>, _>>()?;
    Ok(Dumped { table, rows, newest })
}

/// Text that is JSON itself, as records are, stays readable.
fn json(value: ValueRef<'_>) -> serde_json::Value {
    match value {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            let is_json = text.starts_with(['{', '[']);
            let read = is_json.then(|| serde_json::from_str(&text).ok()).flatten();
            read.unwrap_or_else(|| text.into_owned().into())
        }
    }
}

//! Which files are lease databases, and how they come to be.

use std::io;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, TransactionBehavior};

use crate::allocator::StoreError;

/// "dupi", in the header of every lease database (<https://sqlite.org/fileformat2.html#application_id>).
const APPLICATION_ID: i32 = 0x6475_7069;

/// Each brings a database from the version that is its place in the list to the next.
const MIGRATIONS: [&str; 3] = [include_str!("v1.sql"), include_str!("v2.sql"), include_str!("v3.sql")];

/// How often to ask for write-ahead logging. Each refusal means that another process was about to turn it on.
const WAL_ATTEMPTS: usize = 100;

/// What is wrong with a file that should be a lease database.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It, or the directory it is in, cannot be reached or made.
    #[error("cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    /// It belongs to another program.
    #[error("is the database of another program (application id {application_id:#010x}): name another file")]
    Foreign {
        /// What the file's header says it is; 0 if it says nothing.
        application_id: i32,
    },
    /// It was written by a dupip that knows more than this one.
    #[error("has version {found}, and this dupip knows versions up to {known}: use the newer dupip")]
    Newer {
        /// The file's version.
        found: i32,
        /// The newest version that is known here.
        known: usize,
    },
    /// It was written by an older dupip, and is only to be read.
    #[error("has version {found}: whoever opens it to write, as the agent does, brings it up to date")]
    Older {
        /// The file's version.
        found: usize,
    },
    /// It is damaged.
    #[error("is damaged ({0}): move it away, and adopt what is alive before anything new is given")]
    Corrupt(String),
    /// There can be no write-ahead log, as on a network's file system.
    #[error("cannot have a write-ahead log (SQLite says `{0}`): put it on a local file system")]
    NoWriteAhead(String),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl Refusal {
    /// Whether it is for what is in the file, which no waiting mends.
    #[must_use]
    pub const fn is_for_content(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Newer { .. } | Self::Corrupt(_))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Sqlite(cause) if is_damage(cause) => Self::Corrupt(cause.to_string()),
            _ => Self::Store(error),
        }
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::from(error).into()
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Looks whether the file behind `conn` is a sound lease database, or is still empty. Writes nothing.
///
/// To be called within a transaction, so that all it reads is of one moment. Every page is read; if it is to be
/// `thorough`, every index is compared with its table besides.
pub(super) fn inspect(conn: &Connection, thorough: bool) -> Result<(), Refusal> {
    version(conn)?;
    let check = if thorough { "PRAGMA integrity_check(1)" } else { "PRAGMA quick_check(1)" };
    let verdict: String = conn.query_one(check, [], |row| row.get(0))?;
    // SQLite puts what is wrong on a line below where it is.
    let one_line = || verdict.lines().collect::<Vec<_>>().join(" ");
    if verdict == "ok" { Ok(()) } else { Err(Refusal::Corrupt(one_line())) }
}

/// Whether there is nothing to migrate.
pub(super) fn is_current(conn: &Connection) -> Result<bool, Refusal> {
    Ok(version(conn)? == MIGRATIONS.len())
}

/// The boot that the database was last opened in.
pub(super) fn boot(conn: &Connection) -> Result<Option<String>, Refusal> {
    Ok(conn.query_row("SELECT id FROM boot", [], |row| row.get(0)).optional()?)
}

/// Brings the database to the newest version.
pub(super) fn migrate(tx: &Transaction<'_>) -> Result<(), Refusal> {
    let found = version(tx)?;
    for (version, sql) in (1_i32..).zip(MIGRATIONS).skip(found) {
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", version)?;
    }
    Ok(())
}

/// Turns on write-ahead logging, if it is not on yet.
///
/// SQLite asks for the write lock here while it has the read lock, and so, lest two who do the same wait for each
/// other, does not wait at all (`sqlite3BtreeSetVersion`). To wait for one's turn to write is to wait for the other.
pub(super) fn write_ahead(conn: &Connection) -> Result<(), Refusal> {
    for _ in 0..WAL_ATTEMPTS {
        match conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => return Err(Refusal::NoWriteAhead(mode)),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?.rollback()?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::NoWriteAhead("busy".to_owned()))
}

/// The version of the database, 0 if the file is empty.
pub(super) fn version(conn: &Connection) -> Result<usize, Refusal> {
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let tables = || conn.query_one("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
    match (pragma("application_id")?, pragma("user_version")?, tables()?) {
        (0, 0, 0) => Ok(0),
        (APPLICATION_ID, found, _) => known(found),
        (application_id, ..) => Err(Refusal::Foreign { application_id }),
    }
}

fn known(found: i32) -> Result<usize, Refusal> {
    match usize::try_from(found) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => Err(Refusal::Newer { found, known: MIGRATIONS.len() }),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static WRITER: RefCell<Option<Connection>> = const { RefCell::new(None) };
    }

    #[test]
    fn write_ahead_logging_waits_for_whoever_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases.db");
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch("CREATE TABLE t (x); BEGIN IMMEDIATE").unwrap();
        WRITER.set(Some(writer));

        let mut conn = Connection::open(&path).unwrap();
        // To close the connection is to end its transaction.
        conn.busy_handler(Some(|_| WRITER.take().is_some())).unwrap();
        write_ahead(&conn).unwrap();
        assert!(WRITER.take().is_none(), "nobody waited");
    }
}

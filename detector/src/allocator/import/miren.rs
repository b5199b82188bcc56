//! The runner's table of addresses: `ips(ip TEXT PRIMARY KEY, subnet TEXT, reserved INTEGER, released_at INTEGER)`.
//!
//! SQLite cannot look at a file in WAL mode without making or changing files beside it, so a copy is looked at.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rusqlite::{Connection, types::Value};
use tempfile::TempDir;

use super::{ImportError, Row, Word, unreadable};
use crate::net::Ipv4Net;

/// Bytes that the file, and its log beside it, may have.
const LARGEST: u64 = 64 << 20;
/// Rows that the table may have: two /16.
const MOST_ROWS: usize = 1 << 17;
/// How often to copy anew what was written to meanwhile.
const ATTEMPTS: usize = 5;
/// The file itself, its write-ahead log, and the journal of a change that was not finished.
const PARTS: [&str; 3] = ["", "-wal", "-journal"];

const ROWS: &str = "SELECT ip, subnet, reserved, released_at FROM ips LIMIT 131073";

/// What stands in Miren's `net.db`, by address. Neither the file nor anything beside it is changed.
///
/// # Errors
/// When the file cannot be read or copied, is written to all the time, is damaged, has no such table, or is larger than
/// 64 MiB or 131072 rows.
pub fn miren(path: &Path) -> Result<Vec<Row>, ImportError> {
    let copy = copied(path)?;
    let not_miren = |source| ImportError::NotMiren { path: path.to_owned(), source };
    let conn = Connection::open(copy.path().join("copy")).map_err(not_miren)?;
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(not_miren)?;
    if verdict != "ok" {
        return Err(ImportError::Damaged { path: path.to_owned(), what: verdict });
    }
    let mut rows = rows(&conn).map_err(not_miren)?;
    if rows.len() > MOST_ROWS {
        return Err(ImportError::TooLarge { path: path.to_owned(), most: MOST_ROWS as u64, what: "rows" });
    }
    rows.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
    Ok(rows)
}

fn rows(conn: &Connection) -> rusqlite::Result<Vec<Row>> {
    let mut query = conn.prepare(ROWS)?;
    let rows = query.query_map([], |row| Ok(self::row(&row.get(0)?, &row.get(1)?, &row.get(2)?, &row.get(3)?)))?;
    rows.collect()
}

/// Reads one row. SQLite lets anything stand in any column.
fn row(ip: &Value, subnet: &Value, reserved: &Value, released_at: &Value) -> Row {
    let name = shown(ip);
    let unclear = |why: String| Row { name: name.clone(), address: None, word: Word::Unclear(why) };
    let Value::Text(text) = ip else { return unclear("not an address".to_owned()) };
    let Ok(address) = text.parse() else { return unclear("not an IPv4 address".to_owned()) };
    let word = match network(subnet) {
        Some(subnet) if subnet.contains(&address) => word(reserved, released_at),
        Some(subnet) => Word::Unclear(format!("not in its own subnet {subnet}")),
        None => Word::Unclear(format!("its subnet `{}` is none", shown(subnet))),
    };
    Row { name, address: Some(address), word }
}

fn network(value: &Value) -> Option<Ipv4Net> {
    match value {
        Value::Text(text) => text.parse::<Ipv4Net>().ok().map(|net| net.trunc()),
        _ => None,
    }
}

fn word(reserved: &Value, released_at: &Value) -> Word {
    match (reserved, released_at) {
        (Value::Integer(1), _) => Word::Somebody,
        (Value::Integer(0) | Value::Null, Value::Null | Value::Integer(0)) => Word::Nobody,
        (Value::Integer(0) | Value::Null, Value::Integer(_)) => Word::Released,
        _ => Word::Unclear(format!("`reserved` is {} and `released_at` {}", shown(reserved), shown(released_at))),
    }
}

/// As much of a value as a line can take.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.chars().take(64).collect(),
        Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

/// A copy of the file and of what belongs to it, all from one moment in which nobody wrote.
fn copied(path: &Path) -> Result<TempDir, ImportError> {
    let dir = tempfile::tempdir().map_err(unreadable(&std::env::temp_dir()))?;
    fs::metadata(path).map_err(unreadable(path))?;
    for _ in 0..ATTEMPTS {
        let before = state(path)?;
        for part in PARTS {
            copy(&beside(path, part), &beside(&dir.path().join("copy"), part))?;
        }
        if state(path)? == before {
            return Ok(dir);
        }
    }
    Err(ImportError::Restless(path.to_owned()))
}

/// What tells whether a file was written to.
type State = Option<(u64, u64, Option<SystemTime>, i64)>;

fn state(path: &Path) -> Result<[State; 3], ImportError> {
    let [main, wal, journal] = PARTS.map(|part| {
        let part = beside(path, part);
        let seen = |file: fs::Metadata| Some((file.ino(), file.len(), file.modified().ok(), file.ctime_nsec()));
        if_there(fs::metadata(&part)).map(|file| file.and_then(seen)).map_err(unreadable(&part))
    });
    Ok([main?, wal?, journal?])
}

fn copy(from: &Path, to: &Path) -> Result<(), ImportError> {
    let _ = fs::remove_file(to);
    let Some(file) = if_there(File::open(from)).map_err(unreadable(from))? else { return Ok(()) };
    let mut copy = File::create(to).map_err(unreadable(to))?;
    let size = io::copy(&mut file.take(LARGEST + 1), &mut copy).map_err(unreadable(from))?;
    match size > LARGEST {
        true => Err(ImportError::TooLarge { path: from.to_owned(), most: LARGEST, what: "bytes" }),
        false => Ok(()),
    }
}

fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

fn beside(path: &Path, part: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(part);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const TABLE: &str = "CREATE TABLE ips(ip TEXT PRIMARY KEY, subnet TEXT, reserved INTEGER, released_at INTEGER);";

    fn book(rows: &str) -> (TempDir, PathBuf, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net.db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(&format!("PRAGMA journal_mode = wal; {TABLE} {rows}")).unwrap();
        (dir, path, conn)
    }

    fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    #[test]
    fn rows_say_held_given_back_or_never_had_and_nothing_is_written() {
        let (dir, path, _open) = book(
            "INSERT INTO ips VALUES ('10.8.64.10', '10.8.64.0/24', 1, NULL), ('10.8.64.9', '10.8.64.0/24', 0, 1700000000),
             ('10.8.64.3', '10.8.64.1/24', 0, NULL), ('10.8.65.3', '10.8.64.0/24', 1, NULL), ('ten', '10.8.64.0/24', 1, NULL),
             (x'0a084002', '10.8.64.0/24', 1, NULL), ('10.8.64.4', NULL, 1, NULL), ('10.8.64.5', '10.8.64.0/24', 'yes', NULL);",
        );
        let before = files(dir.path());
        assert!(
            before.keys().any(|path| path.ends_with("net.db-wal")),
            "the rows stand in the log: {:?}",
            before.keys()
        );
        let rows = miren(&path).unwrap();
        assert_eq!(files(dir.path()), before, "not even a file beside it");
        let word = |name: &str| rows.iter().find(|row| row.name == name).unwrap().word.clone();
        assert_eq!(word("10.8.64.10"), Word::Somebody);
        assert_eq!(word("10.8.64.9"), Word::Released);
        assert_eq!(word("10.8.64.3"), Word::Nobody);
        for name in ["10.8.65.3", "ten", "4 bytes", "10.8.64.4", "10.8.64.5"] {
            assert!(matches!(word(name), Word::Unclear(_)), "{name}");
        }
        assert_eq!(rows.len(), 8);
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.db");
        assert!(matches!(miren(&missing), Err(ImportError::Unreadable { .. })));
        assert!(!missing.exists(), "and none is made");
        let text = dir.path().join("text.db");
        fs::write(&text, "x".repeat(8192)).unwrap();
        assert!(matches!(miren(&text), Err(ImportError::NotMiren { .. })));
        let other = dir.path().join("other.db");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE leases(ip TEXT)").unwrap();
        let error = miren(&other).unwrap_err().to_string();
        assert!(error.contains("no such table: ips"), "{error}");
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net.db");
        File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(matches!(miren(&path), Err(ImportError::TooLarge { what: "bytes", .. })));
    }
}

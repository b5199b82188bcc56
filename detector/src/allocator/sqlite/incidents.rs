//! The tables of incidents and settings.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Row, params};

use super::{
    SqliteStore,
    book::Book,
    journal::unix_ms,
    row::{Bytes, Key},
};
use crate::allocator::{
    Incidents, Kept, StoreError,
    incidents::{KEPT, KEPT_FOR, LONGEST_RECORD},
};

const KEEP: &str = "INSERT INTO incident (number, boot, domain, address, open, opened_ms, updated_ms, record)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT DO UPDATE SET boot = ?2, domain = ?3, address = ?4, open = ?5, opened_ms = ?6, updated_ms = ?7, record = ?8";
pub(super) const ONE: &str =
    "SELECT number, boot, domain, address, open, opened_ms, record FROM incident WHERE number = ?1";
pub(super) const LATELY: &str =
    "SELECT number, boot, domain, address, open, opened_ms, record FROM incident ORDER BY number DESC LIMIT ?1";
pub(super) const UNFINISHED: &str =
    "SELECT number, boot, domain, address, open, opened_ms, record FROM incident WHERE open = 1 ORDER BY number";
const LAST: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'incident'";
pub(super) const AGED: &str = "DELETE FROM incident WHERE open = 0 AND updated_ms < ?1";
pub(super) const SURPLUS: &str = "DELETE FROM incident WHERE open = 0
    AND number <= (SELECT number FROM incident WHERE open = 0 ORDER BY number DESC LIMIT 1 OFFSET ?1)";

impl Book<'_> {
    fn keep(&self, kept: &Kept) -> Result<(), StoreError> {
        self.run(
            KEEP,
            params![
                number(kept.number),
                kept.boot,
                Key(kept.domain),
                Bytes(kept.address),
                kept.is_open,
                unix_ms(kept.opened),
                unix_ms(SystemTime::now()),
                kept.record
            ],
        )
    }

    fn let_go(&self) -> Result<(), StoreError> {
        let aged = SystemTime::now().checked_sub(KEPT_FOR).unwrap_or(UNIX_EPOCH);
        self.run(AGED, [unix_ms(aged)])?;
        self.run(SURPLUS, [limit(KEPT)])
    }
}

impl Incidents for SqliteStore {
    fn keep(&self, records: &[Kept]) -> Result<(), StoreError> {
        for kept in records {
            not_too_long(&format!("the record of incident {}", kept.number), &kept.record)?;
        }
        if records.is_empty() {
            return Ok(());
        }
        self.change(|book| {
            records.iter().try_for_each(|kept| book.keep(kept))?;
            if records.iter().all(|kept| kept.is_open) { Ok(()) } else { book.let_go() }
        })
    }

    fn kept(&self, of: u64) -> Result<Option<Kept>, StoreError> {
        self.read(ONE, [number(of)], kept).map(|mut found| found.pop())
    }

    fn kept_lately(&self, most: usize) -> Result<Vec<Kept>, StoreError> {
        self.read(LATELY, [limit(most)], kept)
    }

    fn kept_open(&self) -> Result<Vec<Kept>, StoreError> {
        self.read(UNFINISHED, [], kept)
    }

    fn last_incident(&self) -> Result<u64, StoreError> {
        let last = self.read(LAST, [], |row| row.get::<_, i64>(0))?;
        Ok(last.first().map_or(0, |last| last.unsigned_abs()))
    }

    fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.read("SELECT value FROM setting WHERE name = ?1", [name], |row| row.get(0)).map(|mut found| found.pop())
    }

    fn set(&self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        let Some(value) = value else {
            return self.change(|book| book.run("DELETE FROM setting WHERE name = ?1", [name]));
        };
        not_too_long(&format!("the value of `{name}`"), value)?;
        let sql = "INSERT INTO setting VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
        self.change(|book| book.run(sql, [name, value]))
    }
}

/// An incident, from `number, boot, domain, address, open, opened_ms, record`.
fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let (Key(domain), Bytes(address)) = (row.get(2)?, row.get(3)?);
    let opened = Duration::from_millis(row.get::<_, i64>(5)?.unsigned_abs());
    Ok(Kept {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        boot: row.get(1)?,
        domain,
        address,
        is_open: row.get(4)?,
        opened: UNIX_EPOCH.checked_add(opened).unwrap_or(UNIX_EPOCH),
        record: row.get(6)?,
    })
}

/// An incident's number as a column takes it. The largest is never reached.
fn number(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

fn not_too_long(what: &str, text: &str) -> Result<(), StoreError> {
    match text.len() {
        0..=LONGEST_RECORD => Ok(()),
        len => Err(StoreError::TooLong { what: what.to_owned(), len }),
    }
}

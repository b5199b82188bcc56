//! What has to be true of a book at any time, whatever was done to it. Read from the file's own rows, so that neither
//! the store's reading nor the model has a part in it.

use std::collections::BTreeMap;

use proptest::test_runner::TestCaseError;

use super::{
    super::*,
    call::{SHORTEST, Seconds},
    pair::Verdict,
};

type Address = (String, Vec<u8>);
type Held = (String, String, String);

/// A row of the lease table.
struct Row {
    at: Address,
    owner: String,
    interface: String,
    generation: i64,
    state: String,
}

/// A change in the journal.
struct Entry {
    number: i64,
    op: String,
    at: Address,
    holder: (String, Option<String>),
    generation: i64,
    from: Option<String>,
    to: String,
}

/// What the journal says of an address: its state, since when, and whose lease it is.
struct Standing {
    state: String,
    since: Seconds,
    generation: i64,
    holder: (String, Option<String>),
}

/// The four rules, and what has to be remembered to check them.
#[derive(Default)]
pub(super) struct Rules {
    entry: i64,
    boot: String,
    newest: BTreeMap<String, i64>,
    told: BTreeMap<Address, Standing>,
    /// How many changes of each kind were seen, by their states.
    pub(super) changes: BTreeMap<(String, String), u64>,
}

fn wrong<T>(what: String) -> Result<T, TestCaseError> {
    Err(TestCaseError::fail(what))
}

fn rests(state: Option<&str>) -> bool {
    matches!(state, Some("cooldown" | "quarantined"))
}

impl Rules {
    pub(super) fn new(store: &SqliteStore) -> Self {
        Self { entry: last_entry(store), ..Self::default() }
    }

    pub(super) fn check(&mut self, store: &SqliteStore, now: Seconds) -> Verdict {
        if last_entry(store) < self.entry {
            return wrong("the journal has lost what was in it".to_owned());
        }
        self.follow_boot(store);
        for entry in entries(store, self.entry) {
            self.entry = entry.number;
            self.read(entry, now)?;
        }
        let rows = rows(store);
        one_holder(&rows)?;
        self.as_the_journal_says(&rows)
    }

    /// A new boot begins with time 0, and what rests begins anew.
    fn follow_boot(&mut self, store: &SqliteStore) {
        let conn = store.connection();
        let boot: String = conn.query_one("SELECT id FROM boot", [], |row| row.get(0)).unwrap();
        if boot != self.boot {
            self.boot = boot;
            self.told.values_mut().for_each(|told| told.since = 0);
        }
    }

    /// Rules 2 and 3: a lease's way through its states, and that it is a new one only on what is free.
    fn read(&mut self, entry: Entry, now: Seconds) -> Verdict {
        let before = self.told.get(&entry.at);
        let state = before.map(|told| told.state.clone());
        let what = format!("{}, generation {}: {:?} -> {}", entry.op, entry.generation, entry.from, entry.to);
        if state != entry.from {
            return wrong(format!("{what}, but the journal said {state:?} before"));
        }
        let goes_on = before.is_some_and(|told| told.generation == entry.generation);
        if goes_on {
            let same = before.is_some_and(|told| told.holder == entry.holder);
            if !same || !follows(&entry.op, state.as_deref(), &entry.to) {
                return wrong(format!("{what}: a lease does not go that way, or not to somebody else"));
            }
        } else {
            let newest = self.newest.insert(entry.at.0.clone(), entry.generation).unwrap_or_default();
            let rested = before.is_none_or(|told| rests(Some(&told.state)) && now >= told.since + SHORTEST);
            let free = rested || entry.op == "adopt" && rests(state.as_deref());
            if newest >= entry.generation || !free {
                return wrong(format!("{what}: generation {newest} was there, or the address was not free"));
            }
        }
        *self.changes.entry((state.clone().unwrap_or_default(), entry.to.clone())).or_default() += 1;
        let since = before.filter(|told| told.state == entry.to && goes_on).map_or(now, |told| told.since);
        let told = Standing { state: entry.to, since, generation: entry.generation, holder: entry.holder };
        self.told.insert(entry.at, told);
        Ok(())
    }

    /// Rule 4: a row is what the journal last said, no row without an entry, and none is gone.
    fn as_the_journal_says(&self, rows: &[Row]) -> Verdict {
        let told: Vec<_> = self.told.iter().map(|(at, told)| (at, told.generation, told.state.as_str())).collect();
        let found: Vec<_> = rows.iter().map(|row| (&row.at, row.generation, row.state.as_str())).collect();
        if told == found { Ok(()) } else { wrong(format!("the journal says {told:?}, the rows are {found:?}")) }
    }
}

/// Rule 1.
fn one_holder(rows: &[Row]) -> Verdict {
    let addresses: BTreeSet<_> = rows.iter().map(|row| &row.at).collect();
    let held = rows.iter().filter(|row| matches!(row.state.as_str(), "reserved" | "bound"));
    let holders: Vec<Held> = held.map(|row| (row.at.0.clone(), row.owner.clone(), row.interface.clone())).collect();
    let distinct: BTreeSet<_> = holders.iter().collect();
    match (addresses.len() == rows.len(), distinct.len() == holders.len()) {
        (true, true) => Ok(()),
        (false, _) => wrong("an address has two leases".to_owned()),
        (_, false) => wrong(format!("somebody holds two: {holders:?}")),
    }
}

/// The ways that one lease may go. Out of what drains, only a proof leads (`retire`), or an operator's force (`discard`).
fn follows(op: &str, from: Option<&str>, to: &str) -> bool {
    matches!(
        (op, from, to),
        ("allocate" | "bind" | "adopt", Some("reserved"), "bound")
            | ("reserve", Some("reserved"), "reserved")
            | ("reallocate", Some("reserved" | "bound"), "reserved" | "draining")
            | ("release", Some("reserved" | "bound"), "draining")
            | ("expire", Some("reserved"), "draining")
            | ("retire", Some("draining"), "cooldown")
            | ("discard", Some("reserved" | "bound" | "draining" | "quarantined"), "cooldown")
            | ("quarantine", Some("reserved" | "cooldown" | "quarantined"), "quarantined")
    )
}

fn last_entry(store: &SqliteStore) -> i64 {
    let conn = store.connection();
    conn.query_one("SELECT max(entry) FROM journal", [], |row| row.get(0)).unwrap()
}

fn entries(store: &SqliteStore, after: i64) -> Vec<Entry> {
    let conn = store.connection();
    let sql = "SELECT entry, op, domain, address, owner, interface, generation, from_state, to_state FROM journal
               WHERE entry > ?1 AND to_state IS NOT NULL ORDER BY entry";
    let mut entries = conn.prepare_cached(sql).unwrap();
    let entry = |row: &rusqlite::Row<'_>| {
        Ok(Entry {
            number: row.get(0)?,
            op: row.get(1)?,
            at: (row.get(2)?, row.get(3)?),
            holder: (row.get(4)?, row.get(5)?),
            generation: row.get(6)?,
            from: row.get(7)?,
            to: row.get(8)?,
        })
    };
    entries.query_map([after], entry).unwrap().collect::<Result<_, _>>().unwrap()
}

fn rows(store: &SqliteStore) -> Vec<Row> {
    let conn = store.connection();
    let sql = "SELECT domain, address, owner, interface, generation, state FROM lease ORDER BY domain, address";
    let mut rows = conn.prepare_cached(sql).unwrap();
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Row {
            at: (row.get(0)?, row.get(1)?),
            owner: row.get(2)?,
            interface: row.get(3)?,
            generation: row.get(4)?,
            state: row.get(5)?,
        })
    };
    rows.query_map([], read).unwrap().collect::<Result<_, _>>().unwrap()
}

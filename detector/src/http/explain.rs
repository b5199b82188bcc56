//! Incidents that outlived the agent's memory: out of the store, as the API shows them.

use std::collections::BTreeSet;

use super::{
    api::{Explained, Incident},
    view::{self, Wall},
};
use crate::{
    allocator::{JournalEntry, Kept, Store, StoreError},
    evidence::{Record, Unreadable},
};

/// How many of the incidents there are somebody is told of who asked for one that is not there.
const OTHERS: usize = 16;

/// Why an incident cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum Unexplained {
    /// There is none with this number.
    #[error("there is no incident {number}{}", others(.known))]
    NotThere {
        /// Which was asked for.
        number: u64,
        /// Some that are there, newest first.
        known: Vec<u64>,
    },
    /// What is kept of it cannot be read.
    #[error("incident {number}: {reason}")]
    Unreadable {
        /// Which.
        number: u64,
        /// Why.
        reason: Unreadable,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn others(known: &[u64]) -> String {
    match known {
        [] => ", and none is kept".to_owned(),
        known => {
            let listed: Vec<_> = known.iter().map(ToString::to_string).collect();
            format!("; the newest: {}", listed.join(", "))
        }
    }
}

/// Incident `number` as `store` has it, with the history of its address. Some are `remembered` elsewhere.
///
/// # Errors
/// When there is none, what is kept of it cannot be read, or the store fails.
pub fn explained(store: &dyn Store, number: u64, remembered: &[u64]) -> Result<Explained, Unexplained> {
    let Some(kept) = store.kept(number)? else { return Err(not_there(store, number, remembered)) };
    let incident = of_record(&kept).map_err(|reason| Unexplained::Unreadable { number, reason })?;
    Ok(with_history(incident, Some(&store.history(Some(kept.domain), kept.address)?)))
}

/// An incident with what became of its address, if that could be read.
pub(super) fn with_history(incident: Incident, history: Option<&[JournalEntry]>) -> Explained {
    let entries = history.unwrap_or_default().iter().map(Into::into).collect();
    Explained { incident, history: entries, history_known: history.is_some() }
}

/// That there is no incident `number`, and which there are, `remembered` or in `store`.
fn not_there(store: &dyn Store, number: u64, remembered: &[u64]) -> Unexplained {
    match store.kept_lately(OTHERS) {
        Ok(kept) => {
            let known: BTreeSet<u64> = kept.iter().map(|kept| kept.number).chain(remembered.iter().copied()).collect();
            Unexplained::NotThere { number, known: known.into_iter().rev().take(OTHERS).collect() }
        }
        Err(error) => error.into(),
    }
}

/// Its times are as the wall clock of the boot that it is of would have shown them.
fn of_record(kept: &Kept) -> Result<Incident, Unreadable> {
    let record = Record::from_json(&kept.record)?;
    Ok(view::incident(&record.incident()?, Wall::since(record.wall_offset)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        allocator::{Clock, Incidents as _, SqliteStore},
        net::Domain,
        time::Timestamp,
    };

    /// A record that stands among the seeds of the fuzzer.
    const MOVING: &str = include_str!("../../../tests/fuzz/corpus/incident_record/moving");

    fn kept(number: u64, record: &str) -> Kept {
        let (domain, address) = (Domain::untagged("rt0".parse().unwrap()), [10, 8, 64, 2].into());
        let (boot, opened) = ("7d4c".to_owned(), std::time::UNIX_EPOCH);
        Kept { number, boot, domain, address, is_open: true, opened, record: record.to_owned() }
    }

    #[test]
    fn what_is_kept_is_told_with_the_times_of_its_own_boot() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::new("another boot", || Timestamp::from_nanos(5));
        let store = SqliteStore::open(&directory.path().join("leases.db"), "test", clock).unwrap();
        assert_eq!(explained(&store, 3, &[]).unwrap_err().to_string(), "there is no incident 3, and none is kept");
        store.keep(&[kept(3, MOVING), kept(4, "{}")]).unwrap();
        let Explained { incident, history, history_known } = explained(&store, 3, &[]).unwrap();
        assert_eq!((incident.id, incident.opened.as_str()), (3, "2025-11-26T10:40:00.009Z"));
        assert_eq!((incident.parties[1].role.as_str(), incident.evictions[0].step.as_str()), ("loser", "readdress"));
        assert_eq!((history, history_known), (vec![], true));
        let garbled = explained(&store, 4, &[]).unwrap_err().to_string();
        assert!(garbled.starts_with("incident 4: this is no record of an incident: missing field"), "{garbled}");
        let missing = explained(&store, 9, &[7, 3]).unwrap_err().to_string();
        assert_eq!(missing, "there is no incident 9; the newest: 7, 4, 3");
    }
}

//! What an agent before this one has written down, told to the engine.

use std::{sync::Arc, time::SystemTime};

use super::{clock, run::Agent};
use crate::{
    allocator::{Kept, Store, StoreError},
    engine::{Incident, Input, Status},
    evidence::{Record, kept},
    time::Timestamp,
};

/// How many incidents that are over are remembered: enough to know who comes back.
const REMEMBERED: usize = 256;

/// The setting that says until when the agent is paused, by the wall clock.
pub(super) const PAUSED_UNTIL: &str = "paused_until";

impl Agent {
    /// Once; if the store cannot be read, as soon as it can.
    pub(super) fn tell_what_was_left(&mut self) {
        if self.left_told {
            return;
        }
        // A failure is told by the store itself.
        let Ok(Left { records, moves, paused }) = read(self.store.as_ref()) else { return };
        self.left_told = true;
        if paused.is_some() && !self.pause_told {
            self.tell(Input::Paused { until: paused });
        }
        records.into_iter().for_each(|record| self.tell_record(record));
        moves.into_iter().for_each(|lease| self.tell(Input::MovePending(lease)));
    }

    fn tell_record(&mut self, of: Kept) {
        let record = Record::from_json(&of.record);
        match record.and_then(|record| Ok((record.incident()?, record.wall_offset))) {
            Ok((incident, _)) if of.boot == self.boot => self.tell(Input::Restored(Box::new(incident))),
            Ok((incident, wall_offset)) if of.is_open => self.close_of_other_boot(incident, of.boot, wall_offset),
            Ok(_) => {}
            Err(error) => {
                let number = of.number;
                tracing::warn!(
                    event = "record_unreadable",
                    incident = number,
                    "incident {number} does not go on: {error}"
                );
            }
        }
    }

    /// The machine was started anew: nobody of then is there any more.
    fn close_of_other_boot(&self, incident: Incident, boot: String, wall_offset: u64) {
        let closed_at = incident.closed_at.or(Some(incident.named_at));
        let over = Incident { status: Status::Gone, closed_at, ..incident };
        let store = Arc::clone(&self.store);
        self.workers.spawn_blocking(move || {
            if let Err(error) = store.keep(&[kept(&over, &boot, wall_offset)]) {
                tracing::debug!(event = "store_unread", "an incident of an earlier boot stays open: {error}");
            }
        });
    }
}

struct Left {
    records: Vec<Kept>,
    moves: Vec<crate::net::Lease>,
    paused: Option<Timestamp>,
}

fn read(store: &dyn Store) -> Result<Left, StoreError> {
    let moves = store.pending_moves()?;
    let mut records = store.kept_lately(REMEMBERED)?;
    records.retain(|record| !record.is_open);
    records.reverse();
    records.extend(store.kept_open()?);
    let paused = store.setting(PAUSED_UNTIL)?.and_then(|until| until_of(&until));
    Ok(Left { records, moves, paused })
}

fn until_of(text: &str) -> Option<Timestamp> {
    let until = humantime::parse_rfc3339(text).ok()?;
    let left = until.duration_since(SystemTime::now()).ok()?;
    Some(clock::after(left))
}

/// The number that the first new incident comes after. If the store cannot tell which were given, one that was not: the
/// seconds since 1970.
pub(super) fn last_incident(store: &dyn Store) -> u64 {
    let seconds = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    store.last_incident().unwrap_or_else(|_| seconds())
}

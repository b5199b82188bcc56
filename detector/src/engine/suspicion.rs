//! From a contradiction to an incident.
//!
//! Before a duplicate is told, the book is asked whose the address is. A sandbox that has just been given an address may
//! find it still configured where the one before it is being taken down; as long as that one keeps silent, it harms nobody
//! and is no party to anything. When it speaks, it is.

use super::{
    Engine, Purpose,
    bindings::{Binding, Key},
    finding::{Finding, Info},
    incident::IncidentId,
    input::Evidence,
    output::ActionId,
    timers::Timer,
};
use crate::{
    net::{Lease, Station},
    time::{Span, Timestamp},
};

/// How long the book may take to answer. A duplicate is told without it rather than late.
const PATIENCE: Span = Span::from_millis(50);
/// How long whoever had an address before may linger in silence before it is asked.
const GRACE: Span = Span::from_secs(2);
/// How often whoever lingers is asked after that.
const ASK_AGAIN: Span = Span::from_secs(10);

/// A contradiction that is not an incident yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    evidence: Evidence,
    /// When the kernel saw the contradiction.
    at: Timestamp,
    stage: Stage,
}

/// What the book says of a contested address.
#[derive(Clone, Debug)]
pub(super) struct Book {
    /// The lease on it.
    pub(super) contested: Option<Lease>,
    /// The leases of those who contest it.
    pub(super) held: Vec<Lease>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The book is being asked.
    LookingUp { action: ActionId, since: Timestamp },
    /// All but the lease holder, who came at this moment, are silent.
    Lingering { since: Timestamp },
}

impl Engine {
    /// Takes in that `stations` are sure to contradict each other.
    pub(super) fn suspect(&mut self, key: Key, evidence: Evidence, at: Timestamp, now: Timestamp) {
        match self.suspicions.get(&key).map(|suspicion| suspicion.stage) {
            None => {
                let ports =
                    self.bindings.stations(key).filter_map(|(station, _)| self.topology.ports.get(&station.port));
                let owners = ports.flat_map(|known| known.sandbox.owners.clone()).collect();
                let action = self.ask_the_book(Purpose::Suspicion(key), key, owners);
                let stage = Stage::LookingUp { action, since: now };
                self.suspicions.insert(key, Suspicion { evidence, at, stage });
                self.timers.set(Timer::Suspicion(key.0, key.1), now + PATIENCE);
            }
            Some(Stage::LookingUp { .. }) => {}
            Some(Stage::Lingering { since }) if self.older_speak(key, since) || self.another_came(key, since) => {
                self.confirm(key, evidence, at, now);
            }
            Some(Stage::Lingering { .. }) => {}
        }
    }

    /// The book has answered, if it could: `None` if not.
    pub(super) fn suspicion_answered(&mut self, key: Key, action: ActionId, book: Option<Book>, now: Timestamp) {
        let Some(suspicion) = self.suspicions.get(&key).copied() else { return };
        let Stage::LookingUp { action: asked, since } = suspicion.stage else { return };
        if asked != action {
            return;
        }
        let Some(stations) = self.contradiction(key, Some(since - self.fresh())) else {
            return self.drop_suspicion(key);
        };
        let lease = book.as_ref().and_then(|book| book.contested.as_ref());
        match self.newcomer(key, &stations, lease) {
            Some(came) if !self.older_speak(key, came) => self.linger(key, came, now),
            _ => {
                self.drop_suspicion(key);
                if let Some(id) = self.open(key, &stations, suspicion.evidence, suspicion.at, now) {
                    self.judge_by(id, book, now);
                }
            }
        }
    }

    fn judge_by(&mut self, id: IncidentId, book: Option<Book>, now: Timestamp) {
        match book {
            Some(Book { contested, held }) => self.judge_contest(id, contested.as_ref(), &held, now),
            None => self.retry_contest(id, now),
        }
    }

    /// When the lease holder came, if it came after all the others and while the agent was watching.
    fn newcomer(&self, key: Key, stations: &[Station], contested: Option<&Lease>) -> Option<Timestamp> {
        let owner = &contested.filter(|lease| lease.state.is_held())?.owner;
        let came = |station: &Station| self.bindings.get(key, *station).map(|binding| binding.first_seen);
        let newest = stations.iter().max_by_key(|station| came(station))?;
        let is_holder = self.topology.ports.get(&newest.port).is_some_and(|port| port.sandbox.owners.contains(owner));
        let binding = self.bindings.get(key, *newest)?;
        // Of those that one look has found, nobody is the older.
        let is_alone = stations.iter().filter(|station| came(station) == Some(binding.first_seen)).count() == 1;
        (is_holder && is_alone && !binding.initial).then_some(binding.first_seen)
    }

    /// Whether anybody who was there before a moment has spoken since then.
    fn older_speak(&self, key: Key, came: Timestamp) -> bool {
        let spoke = |binding: &Binding| binding.first_seen < came && binding.last_frame.is_some_and(|at| at > came);
        self.bindings.stations(key).any(|(_, binding)| spoke(binding))
    }

    /// Whether somebody has come after the lease holder did.
    fn another_came(&self, key: Key, came: Timestamp) -> bool {
        self.bindings.stations(key).any(|(_, binding)| binding.first_seen > came && binding.is_plausible())
    }

    fn linger(&mut self, key: Key, came: Timestamp, now: Timestamp) {
        let Some(suspicion) = self.suspicions.get_mut(&key) else { return };
        suspicion.stage = Stage::Lingering { since: came };
        self.timers.set(Timer::Suspicion(key.0, key.1), (came + GRACE).max(now));
        let older = self.bindings.stations(key).filter(|(_, binding)| binding.first_seen < came);
        let parties = older.map(|(station, binding)| self.describe(key, station, binding)).collect();
        self.findings.push_back(Finding::Info(Info::Lingers { domain: key.0, address: key.1, parties }));
    }

    /// The book is late, or whoever lingers has had its time.
    pub(super) fn suspicion_due(&mut self, key: Key, now: Timestamp) {
        match self.suspicions.get(&key).copied() {
            Some(Suspicion { stage: Stage::LookingUp { .. }, evidence, at }) => self.confirm(key, evidence, at, now),
            Some(Suspicion { stage: Stage::Lingering { .. }, .. }) => {
                self.probe(key.0, vec![key.1]);
                self.timers.set(Timer::Suspicion(key.0, key.1), now + ASK_AGAIN);
            }
            None => {}
        }
    }

    /// Opens an incident now, and asks the book for its contest.
    fn confirm(&mut self, key: Key, evidence: Evidence, at: Timestamp, now: Timestamp) {
        self.drop_suspicion(key);
        let sure = self.contradiction(key, Some(now - self.fresh()));
        if let Some(id) = sure.and_then(|stations| self.open(key, &stations, evidence, at, now)) {
            self.hold_contest(id);
        }
    }

    pub(super) fn drop_suspicion(&mut self, key: Key) {
        if self.suspicions.remove(&key).is_some() {
            self.timers.cancel(Timer::Suspicion(key.0, key.1));
        }
    }
}

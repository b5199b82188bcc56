//! What is due when. A key has at most one deadline; setting it again moves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::incident::IncidentId;
use crate::{
    net::{BridgeName, Domain, IfIndex, Station},
    time::Timestamp,
};

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Whoever was asked because it had been silent has had the time to answer.
    Liveness(Domain, Ipv4Addr, Station),
    /// Some more of the bindings are looked at, whether any has been silent.
    Round,
    /// The book is late with its answer about a contradiction, or whoever lingers has had its time.
    Suspicion(Domain, Ipv4Addr),
    /// A shared address has had two holders for as long as it takes to hand it over.
    Hold(Domain, Ipv4Addr),
    /// An open incident may have more to tell.
    Continues(IncidentId),
    /// A port's flood may be over.
    Flood(IfIndex),
    /// A bridge's addresses are to be asked for.
    Sweep(BridgeName),
    /// A contest that could not be held or decided is tried again.
    Contest(IncidentId),
    /// The store could not write down, so many times now, whose an address is.
    Adoption(Domain, Ipv4Addr, u8),
    /// An eviction's step is tried again, or its verification has waited long enough.
    Eviction(IncidentId, IfIndex),
    /// Whoever contested an address before the agent was started has had time to be heard of again.
    Waiting,
    /// Moves that an earlier agent began, and whose owners were not here, are looked at again.
    Moves,
    /// What an earlier agent left contained, or could not be lifted, is to be lifted.
    LeftOver,
    /// What the store has not written down of a lease that an eviction has left is tried again.
    Settle,
    /// A pause is over.
    Pause,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    by_key: BTreeMap<Timer, Timestamp>,
    by_time: BTreeSet<(Timestamp, Timer)>,
}

impl Timers {
    /// At the end of time, where a span added to a moment changes nothing, nothing is due any more.
    pub(super) fn set(&mut self, timer: Timer, at: Timestamp) {
        self.cancel(timer);
        if at < Timestamp::MAX {
            self.by_key.insert(timer, at);
            self.by_time.insert((at, timer));
        }
    }

    /// Sets a timer that is not set yet.
    pub(super) fn set_first(&mut self, timer: Timer, at: Timestamp) {
        if !self.by_key.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    /// When the timer is due, if it is set.
    pub(super) fn due(&self, timer: Timer) -> Option<Timestamp> {
        self.by_key.get(&timer).copied()
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.by_key.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest timer that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Timer> {
        let (_, timer) = self.by_time.first().copied().filter(|(at, _)| *at <= now)?;
        self.cancel(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_deadline_and_the_earliest_comes_first() {
        let (a, b) = (Timer::Contest(IncidentId(1)), Timer::Contest(IncidentId(2)));
        let at = Timestamp::from_nanos;
        let mut timers = Timers::default();
        timers.set(a, at(5));
        timers.set(b, at(7));
        timers.set(a, at(9));
        assert_eq!(timers.next(), Some(at(7)));
        assert_eq!(timers.pop_due(at(6)), None);
        assert_eq!([timers.pop_due(at(9)), timers.pop_due(at(9)), timers.pop_due(at(9))], [Some(b), Some(a), None]);
        timers.set(a, Timestamp::MAX);
        assert_eq!((timers.next(), timers.pop_due(Timestamp::MAX)), (None, None));
    }
}

//! Addresses that several may have, one after the other: virtual addresses of a cluster, and those of virtual routers.

use super::{Engine, bindings::Key, policy::is_virtual_router, timers::Timer};
use crate::{
    net::Station,
    time::{Span, Timestamp},
};

/// How long a shared address may have two holders: a virtual router is replaced after three seconds and a bit without a
/// word of it (RFC 5798, section 6.1), and what it said before must have been taken in.
const HOLD: Span = Span::from_secs(5);

impl Engine {
    pub(super) fn is_shared(&self, key: Key) -> bool {
        let is_router = |(station, _): (Station, _)| is_virtual_router(station.mac);
        self.config.policy.is_shared(key.1) || self.bindings.stations(key).any(is_router)
    }

    /// A shared address has two holders: for a while that is how it is handed over.
    pub(super) fn held_by_two(&mut self, key: Key, now: Timestamp) {
        self.timers.set_first(Timer::Hold(key.0, key.1), now + HOLD);
    }

    /// Whether both still hold it: the kernel has it configured, or they spoke for it all the while.
    pub(super) fn hold_due(&mut self, key: Key, now: Timestamp) {
        let Some(stations) = self.contradiction(key, Some(now - HOLD)) else { return };
        let evidence =
            stations.iter().filter_map(|station| self.bindings.get(key, *station)).map(|it| it.evidence).max();
        let Some(evidence) = evidence.filter(|_| !self.open.contains_key(&key)) else { return };
        if let Some(id) = self.open(key, &stations, evidence, now - HOLD, now) {
            self.hold_contest(id);
        }
    }
}

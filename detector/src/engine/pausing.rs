//! Maintenance: for a while nothing new is done, and everything is told.

use super::{Engine, finding::Finding, incident::IncidentId, timers::Timer};
use crate::time::Timestamp;

impl Engine {
    /// Begins no eviction and contains nobody until then; what is under way is finished. Without a time, goes on at once.
    pub(super) fn pause(&mut self, until: Option<Timestamp>, now: Timestamp) {
        let until = until.filter(|until| *until > now);
        if self.paused_until == until {
            return;
        }
        self.paused_until = until;
        self.timers.cancel(Timer::Pause);
        match until {
            Some(until) => self.timers.set(Timer::Pause, until),
            None => self.hold_all_contests(),
        }
        self.findings.push_back(Finding::Paused { until });
    }

    /// Until when nothing new is done.
    #[must_use]
    pub const fn paused_until(&self) -> Option<Timestamp> {
        self.paused_until
    }

    pub(super) fn hold_all_contests(&mut self) {
        let open: std::collections::BTreeSet<IncidentId> = self.open.values().copied().collect();
        open.into_iter().for_each(|id| self.hold_contest(id));
    }
}

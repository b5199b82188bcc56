//! How knowledge ages. What the kernel has configured is told when it changes; what is known only from the wire is asked
//! for when it has been silent, and forgotten when it stays so.

use super::{Engine, bindings::Key, output::Action, timers::Timer};
use crate::{
    net::Station,
    time::{Span, Timestamp},
};

/// How long a station known only from the wire may be silent before it is asked.
const SILENCE: Span = Span::from_secs(60);
/// How recently a station must have spoken to count as alive beside another.
pub(super) const FRESH: Span = Span::from_secs(1);
/// How long an answer is waited for.
const PROBE_WAIT: Span = Span::from_millis(200);
/// How many probes must go unanswered: one alone may be lost.
const PROBES: u8 = 3;

impl Engine {
    pub(super) fn watch_liveness(&mut self, key: Key, station: Station, now: Timestamp) {
        let configured = self.bindings.get(key, station).is_none_or(|binding| binding.configured);
        if !configured {
            self.timers.set(Timer::Liveness(key.0, key.1, station), now + SILENCE);
        }
    }

    pub(super) fn forget_liveness(&mut self, key: Key, station: Station) {
        self.timers.cancel(Timer::Liveness(key.0, key.1, station));
    }

    /// Asks at once whether a silent station is still there, unless that is being asked already.
    pub(super) fn doubt(&mut self, key: Key, station: Station, now: Timestamp) {
        if self.bindings.get(key, station).is_some_and(|binding| binding.unanswered == 0) {
            self.check_liveness(key, station, now);
        }
    }

    pub(super) fn check_liveness(&mut self, key: Key, station: Station, now: Timestamp) {
        let Some(binding) = self.bindings.get_mut(key, station).filter(|binding| !binding.configured) else { return };
        if binding.unanswered >= PROBES {
            return self.withdraw(key, station, now);
        }
        binding.unanswered += 1;
        self.timers.set(Timer::Liveness(key.0, key.1, station), now + PROBE_WAIT);
        self.actions.push_back(Action::Probe { domain: key.0, addresses: vec![key.1] });
    }
}

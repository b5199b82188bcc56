//! How knowledge ages. What the kernel has configured is told when it changes; what is known only from the wire is asked
//! for when it has been silent, and forgotten when it stays so.

use std::net::Ipv4Addr;

use super::{Engine, bindings::Key, output::Action, timers::Timer};
use crate::{
    net::{Domain, Station},
    time::{Span, Timestamp},
};

/// How long a station known only from the wire may be silent before it is asked.
const SILENCE: Span = Span::from_secs(60);
/// How recently a station must have spoken to count as alive beside another, where it can be asked.
const FRESH: Span = Span::from_secs(1);
/// How long an answer is waited for.
const PROBE_WAIT: Span = Span::from_millis(200);
/// How many probes must go unanswered: one alone may be lost.
const PROBES: u8 = 3;
/// The time between two stations that are asked because they were silent: a flood of claims that nobody ever makes again
/// must not become a flood of questions.
const TURN: Span = Span::from_millis(2);

impl Engine {
    /// How recently a station must have spoken to count as alive beside another. Where nobody can be asked, being silent
    /// for less than that is no sign of anything.
    pub(super) const fn fresh(&self) -> Span {
        if self.config.asks { FRESH } else { SILENCE }
    }

    /// Asks for addresses at once, and has the tap report the answers.
    pub(super) fn probe(&mut self, domain: Domain, addresses: Vec<Ipv4Addr>) {
        addresses.iter().for_each(|address| self.listen_to((domain, *address)));
        self.actions.push_back(Action::Probe { domain, addresses });
    }

    /// Sees to it that the station is asked when it has been silent. It may speak often, so its timer is not moved each
    /// time: when it is due, it is looked whether it should be.
    pub(super) fn watch_liveness(&mut self, key: Key, station: Station, now: Timestamp) {
        let configured = self.bindings.get(key, station).is_none_or(|binding| binding.configured);
        if !configured {
            self.timers.set_first(Timer::Liveness(key.0, key.1, station), now + SILENCE);
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

    /// A station has been silent for long: it is asked when its turn comes.
    pub(super) fn silent(&mut self, key: Key, station: Station, now: Timestamp) {
        let Some(binding) = self.bindings.get_mut(key, station) else { return };
        let until = binding.last_seen + SILENCE;
        if binding.unanswered == 0 && !binding.queued && until > now {
            return self.timers.set(Timer::Liveness(key.0, key.1, station), until);
        }
        let waits = binding.unanswered == 0 && !std::mem::replace(&mut binding.queued, true) && self.next_turn > now;
        self.next_turn = self.next_turn.max(now) + TURN;
        if waits {
            self.timers.set(Timer::Liveness(key.0, key.1, station), self.next_turn);
        } else {
            self.check_liveness(key, station, now);
        }
    }

    fn check_liveness(&mut self, key: Key, station: Station, now: Timestamp) {
        let Some(binding) = self.bindings.get_mut(key, station).filter(|binding| !binding.configured) else { return };
        if binding.unanswered >= PROBES {
            return self.withdraw(key, station, now);
        }
        (binding.unanswered, binding.queued) = (binding.unanswered + 1, false);
        self.timers.set(Timer::Liveness(key.0, key.1, station), now + PROBE_WAIT);
        self.probe(key.0, vec![key.1]);
    }
}

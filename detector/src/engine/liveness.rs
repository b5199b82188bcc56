//! How knowledge ages. What the kernel has configured is told when it changes; what is known only from the wire is asked
//! for when it has been silent, and forgotten when it stays so.

use std::net::Ipv4Addr;

use super::{
    Engine,
    bindings::{Binding, Key},
    output::Action,
    timers::Timer,
};
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
/// How long it may take until it is known that a station has answered whose word the tap absorbs: longer than it takes until
/// what is absorbed is read.
const HEARD_OF: Span = Span::from_secs(20);
/// The time between two looks at some of the bindings, whether any was silent.
const TURN: Span = Span::from_millis(200);
/// The time between two rounds that are one turn each.
const SHORT_ROUND: Span = Span::from_secs(1);
/// How many bindings are looked at in one turn, at least. All of them are within [`SILENCE`].
const LOOKS: usize = 64;
/// In how many turns all of them are looked at, at most.
const TURNS: usize = 300;
/// How many stations are asked in one turn, at most: a flood of claims that nobody ever makes again must not become a flood
/// of questions.
const POLLS: usize = 10;

/// What is known only from the wire is looked through round by round, some of it at a time: a timer for each of very many
/// bindings would take far more room and time.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// What was looked at last.
    last: Option<(Key, Station)>,
}

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

    /// Sees to it that the station is asked when it has been silent.
    pub(super) fn watch_liveness(&mut self, key: Key, station: Station, now: Timestamp) {
        let configured = self.bindings.get(key, station).is_none_or(|binding| binding.configured);
        if !configured {
            self.timers.set_first(Timer::Round, now + SILENCE);
        }
    }

    /// Looks at some more of the bindings, and asks those that were silent for long. Each of them alone is asked, so that it
    /// costs the others on the bridge nothing, and the tap goes on to absorb what it says: that it answered is heard of.
    pub(super) fn next_in_round(&mut self, now: Timestamp) {
        let looks = LOOKS.max(self.bindings.len() / TURNS + 1);
        let (mut polled, mut looked) = (Vec::new(), 0);
        let mut rest = self.bindings.behind(self.round.last).take(looks);
        while let Some((key, station, binding)) = rest.next().filter(|_| polled.len() < POLLS) {
            self.round.last = Some((key, station));
            looked += 1;
            let is_due = !binding.configured && binding.unanswered == 0 && binding.last_seen + SILENCE <= now;
            if is_due && self.timers.due(Timer::Liveness(key.0, key.1, station)).is_none() {
                polled.push((key, station));
            }
        }
        if looked < looks && polled.len() < POLLS {
            self.round.last = None;
        }
        for ((domain, address), station) in polled {
            self.timers.set(Timer::Liveness(domain, address, station), now + HEARD_OF);
            self.actions.push_back(Action::Poll { domain, address, mac: station.mac });
        }
        if !self.bindings.is_empty() {
            let is_short = self.bindings.len() <= LOOKS;
            self.timers.set(Timer::Round, now + if is_short { SHORT_ROUND } else { TURN });
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

    /// A station that was asked has had the time to answer. Only now it is asked aloud, and its next word reported.
    pub(super) fn silent(&mut self, key: Key, station: Station, now: Timestamp) {
        let is_silent = |binding: &Binding| binding.unanswered > 0 || binding.last_seen + SILENCE <= now;
        if self.bindings.get(key, station).is_some_and(is_silent) {
            self.check_liveness(key, station, now);
        }
    }

    fn check_liveness(&mut self, key: Key, station: Station, now: Timestamp) {
        let Some(binding) = self.bindings.get_mut(key, station).filter(|binding| !binding.configured) else { return };
        if binding.unanswered >= PROBES {
            return self.withdraw(key, station, now);
        }
        binding.unanswered += 1;
        self.timers.set(Timer::Liveness(key.0, key.1, station), now + PROBE_WAIT);
        self.probe(key.0, vec![key.1]);
    }
}

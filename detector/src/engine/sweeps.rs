//! When every known address is asked for: at first, when something was missed, and every few minutes.

use std::collections::BTreeSet;

use super::{Engine, output::Action, timers::Timer};
use crate::{
    net::{BridgeName, Domain},
    time::{Span, Timestamp},
};

/// How often everything is asked for when nothing asks for it.
const EVERY: Span = Span::from_secs(300);
/// How long after one sweep for losses the next may come: a flood that goes on must not be answered by another.
const REST: Span = Span::from_secs(5);

impl Engine {
    /// Claims of the bridge were lost: what they said is asked for, but not again and again.
    pub(super) fn sweep_for_losses(&mut self, bridge: BridgeName, now: Timestamp) {
        let rested = self.swept_for_losses.get(&bridge).is_none_or(|last| now.since(*last) >= REST);
        if rested {
            self.swept_for_losses.insert(bridge, now);
            return self.sweep(bridge, now);
        }
        let next = self.swept_for_losses.get(&bridge).map_or(now, |last| *last + REST);
        if self.timers.due(Timer::Sweep(bridge)).is_none_or(|due| due > next) {
            self.timers.set(Timer::Sweep(bridge), next);
        }
    }

    /// It is time for the next sweep, whatever asked for it.
    pub(super) fn sweep_due(&mut self, bridge: BridgeName, now: Timestamp) {
        self.swept_for_losses.insert(bridge, now);
        self.sweep(bridge, now);
    }

    /// Asks for every address known on a bridge: whoever has one says so.
    pub(super) fn sweep(&mut self, bridge: BridgeName, now: Timestamp) {
        if !self.config.asks || !self.topology.bridges.contains_key(&bridge) {
            return;
        }
        let of_bridge = self.bindings.iter().map(|((domain, _), _, _)| domain).filter(|domain| domain.bridge == bridge);
        let domains: BTreeSet<Domain> = of_bridge.chain([Domain::untagged(bridge)]).collect();
        for domain in domains {
            let seen = self.bindings.addresses(domain);
            self.actions.push_back(Action::Sweep { domain, seen });
        }
        self.timers.set(Timer::Sweep(bridge), now + EVERY);
    }

    pub(super) fn forget_sweeps(&mut self, bridge: BridgeName) {
        self.timers.cancel(Timer::Sweep(bridge));
        self.swept_for_losses.remove(&bridge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Bridge, Config, Input},
        net::{IfIndex, Mac},
    };

    #[test]
    fn an_engine_whose_questions_reach_nobody_sweeps_for_nothing() {
        for asks in [true, false] {
            let (mac, networks, vlans) = (Mac::ZERO, Vec::new(), Vec::new());
            let bridge =
                Bridge { name: "rt0".parse().unwrap(), port: IfIndex::LOWEST, mac, networks, pvid: None, vlans };
            let mut engine = Engine::new(Config { asks, ..Config::default() });
            engine.handle(Input::BridgeUp(bridge), Timestamp::default());
            engine.handle(Input::InventoryDone, Timestamp::default());
            let sweeps =
                std::iter::from_fn(|| engine.next_action()).filter(|action| matches!(action, Action::Sweep { .. }));
            assert_eq!((sweeps.count(), engine.poll_timeout().is_some()), (usize::from(asks), asks));
        }
    }
}

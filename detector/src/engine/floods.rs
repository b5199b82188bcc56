//! Ports that say more that is new than they may.

use super::{
    Engine,
    finding::{Finding, Flood},
    timers::Timer,
};
use crate::{
    net::IfIndex,
    time::{Span, Timestamp},
};

/// How long a port must keep within its share before its flood is over.
const QUIET: Span = Span::from_secs(10);

impl Engine {
    /// The tap only counted this many claims of a port.
    pub(super) fn limited(&mut self, port: IfIndex, count: u64, now: Timestamp) {
        let Some(bridge) = self.topology.bridge_of(port) else { return };
        self.timers.set(Timer::Flood(port), now + QUIET);
        match self.floods.get_mut(&port) {
            Some(flood) => flood.limited += count,
            None => {
                let port_name = self.topology.name(port);
                let flood = Flood { port, port_name, bridge, limited: count };
                self.findings.push_back(Finding::Flood(flood.clone()));
                self.floods.insert(port, flood);
            }
        }
        self.sweep_for_losses(bridge, now);
    }

    pub(super) fn flood_due(&mut self, port: IfIndex) {
        if let Some(flood) = self.floods.remove(&port) {
            self.findings.push_back(Finding::FloodEnded(flood));
        }
    }

    pub(super) fn forget_flood(&mut self, port: IfIndex) {
        self.timers.cancel(Timer::Flood(port));
        self.flood_due(port);
    }
}

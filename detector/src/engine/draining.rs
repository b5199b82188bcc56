//! How a released address comes to rest: not before nothing shows it in use any more. That nothing could be seen is no
//! proof, so a port that cannot be looked behind keeps its bridge's addresses from resting.

use super::{Engine, Purpose, output::Action, topology::KnownPort};
use crate::net::{BridgeName, Lease};

/// How many probes must go unanswered, one at each telling: one alone may be lost.
const PROBES: u8 = 3;

impl Engine {
    /// Takes in which leases drain; to be told every few seconds.
    pub(super) fn draining(&mut self, leases: Vec<Lease>) {
        let before = std::mem::take(&mut self.drains);
        for lease in leases {
            let name = (lease.domain, lease.address, lease.generation);
            let silent = before.get(&name).copied().unwrap_or_default();
            let silent = if self.is_absent(&lease) { silent } else { continue };
            self.drains.insert(name, silent.saturating_add(1));
            match silent {
                PROBES.. => self.retire(lease),
                _ => self.probe(lease.domain, vec![lease.address]),
            }
        }
    }

    /// Whether everything that can show an address in use has been looked at, and none of it does.
    fn is_absent(&self, lease: &Lease) -> bool {
        let in_use = self.bindings.stations((lease.domain, lease.address)).next().is_some();
        self.inventory_done && self.sees_all(lease.domain.bridge) && !in_use
    }

    fn sees_all(&self, bridge: BridgeName) -> bool {
        let mut ports = self.topology.ports.values().filter(|known| known.port.bridge == bridge);
        let is_blind = |known: &KnownPort| known.sandbox.netns.is_some() && known.surveyed_at.is_none();
        self.topology.bridges.contains_key(&bridge) && !ports.any(is_blind)
    }

    fn retire(&mut self, lease: Lease) {
        self.act(Purpose::Store(lease.domain, lease.address), |id| Action::Retire { id, lease });
    }
}

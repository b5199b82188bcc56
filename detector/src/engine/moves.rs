//! Addresses that change hands, as they may: a sandbox is made anew elsewhere, or gets another hardware address.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Engine, Mode, Purpose,
    bindings::Key,
    finding::{Finding, Info},
    incident::Party,
    output::Action,
};
use crate::{
    net::{BridgeName, Station},
    time::{Span, Timestamp},
};

/// How long it is remembered who had an address last.
const MEMORY: Span = Span::from_secs(600);
/// How many addresses that is remembered of.
const REMEMBERED: usize = 4096;

/// Who had an address last, of those that nobody has now.
#[derive(Debug, Default)]
pub(super) struct Departures {
    by_key: BTreeMap<Key, (Timestamp, Party)>,
    oldest_first: VecDeque<(Timestamp, Key)>,
}

impl Departures {
    fn note(&mut self, key: Key, party: Party, now: Timestamp) {
        self.by_key.insert(key, (now, party));
        self.oldest_first.push_back((now, key));
        while self.oldest_first.len() > REMEMBERED {
            let Some((at, key)) = self.oldest_first.pop_front() else { return };
            // A later departure from the same address has an entry of its own.
            if self.by_key.get(&key).is_some_and(|(noted, _)| *noted == at) {
                self.by_key.remove(&key);
            }
        }
    }

    fn take(&mut self, key: Key, now: Timestamp) -> Option<Party> {
        let (at, party) = self.by_key.remove(&key)?;
        (now.since(at) <= MEMORY).then_some(party)
    }

    /// Whoever comes back to a bridge that was made anew has not moved.
    pub(super) fn forget_bridge(&mut self, bridge: BridgeName) {
        self.by_key.retain(|(domain, _), _| domain.bridge != bridge);
        self.oldest_first.retain(|(_, (domain, _))| domain.bridge != bridge);
    }
}

impl Engine {
    /// A station has come to an address.
    pub(super) fn arrived(&mut self, key: Key, station: Station, now: Timestamp) {
        let is_alone = self.bindings.stations(key).nth(1).is_none();
        if is_alone && let Some(from) = self.departures.take(key, now) {
            self.changed_hands(key, from, station);
        }
    }

    /// A party has let go of an address, or is gone.
    pub(super) fn departed(&mut self, key: Key, party: Party, now: Timestamp) {
        let left = self.bindings.stations(key).filter(|(_, binding)| binding.is_plausible());
        let left: Vec<Station> = left.map(|(station, _)| station).collect();
        match left.as_slice() {
            _ if !self.inventory_done || self.open.contains_key(&key) => {}
            [] => self.departures.note(key, party, now),
            [heir] => self.changed_hands(key, party, *heir),
            _ => {}
        }
    }

    pub(super) fn changed_hands(&mut self, key: Key, from: Party, to: Station) {
        let Some(binding) = self.bindings.get(key, to) else { return };
        let (domain, address) = key;
        let party = Box::new(self.describe(key, to, binding));
        match from.station {
            same if same == to => return,
            // A bridge has the lowest hardware address of its ports, and so another one now and then.
            Station { port, .. } if port == to.port && party.is_host => return,
            // Nor has a sandbox that had the address with this one before it said another, as virtual routers do.
            Station { port, .. } if port == to.port && binding.first_seen < from.first_seen => return,
            Station { port, mac } if port == to.port => {
                self.findings.push_back(Finding::Info(Info::MacChanged { domain, address, from: mac, party }));
            }
            _ => self.findings.push_back(Finding::Moved { domain, address, from: Box::new(from), to: party }),
        }
        if self.config.mode == Mode::Enforce {
            // Whoever still talks to the hardware address before learns the new one.
            self.act(Purpose::Caches, |id| {
                let (mac, port) = (to.mac, Some(to.port));
                Action::Announce { id, domain, address, mac, port }
            });
        }
    }
}

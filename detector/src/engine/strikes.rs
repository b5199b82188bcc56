//! Who comes back to an address that it was moved away from.

use std::collections::{BTreeMap, VecDeque};

use super::{Engine, incident::Party, topology::PartyKey};
use crate::{
    net::{IfIndex, NetnsId},
    time::{Span, Timestamp},
};

/// How long it is remembered that somebody was moved.
const REMEMBERED: Span = Span::from_secs(3600);

/// When whom was moved away, within the last hour.
#[derive(Debug, Default)]
pub(super) struct Strikes(BTreeMap<PartyKey, VecDeque<Timestamp>>);

impl Strikes {
    fn add(&mut self, party: PartyKey, at: Timestamp) {
        self.forget(at);
        self.0.entry(party).or_default().push_back(at);
    }

    pub(super) fn forget(&mut self, now: Timestamp) {
        for moved in self.0.values_mut() {
            moved.retain(|at| now.since(*at) < REMEMBERED);
        }
        self.0.retain(|_, moved| !moved.is_empty());
    }
}

impl Engine {
    /// How often a party was moved away from an address and is there again.
    pub(super) fn strikes(&self, party: &Party) -> u32 {
        let moved = self.strikes.0.get(&party.key).map_or(0, VecDeque::len);
        u32::try_from(moved).unwrap_or(u32::MAX)
    }

    /// Whoever was behind a port is gone with it, and with its last port a namespace: the kernel gives their numbers to the
    /// next ones, who are not to be blamed.
    pub(super) fn forget_strikes(&mut self, port: IfIndex, netns: Option<NetnsId>) {
        let lives = |netns: NetnsId| self.topology.ports.values().any(|known| known.sandbox.netns == Some(netns));
        let gone = netns.filter(|netns| !lives(*netns));
        self.strikes.0.retain(|party, _| match party {
            PartyKey::Netns(netns) => Some(*netns) != gone,
            PartyKey::Behind(behind) => *behind != port,
            PartyKey::Station(station) => station.port != port,
        });
    }

    pub(super) fn strike(&mut self, party: PartyKey, at: Timestamp) {
        self.strikes.add(party, at);
    }
}

//! What the tap need not report. It absorbs only what is known here, be that said or configured, and only while it
//! contradicts nobody: whatever is in doubt is heard each time.

use super::{
    Engine,
    bindings::{Absorbed, Key},
    input::{Claim, Heard, KnownClaim},
    output::Action,
};
use crate::{
    net::{Ipv4Net, MartianReason, Station, VlanId},
    time::Timestamp,
};

impl Engine {
    /// Lets the tap absorb what a station has just shown under a tag, if that was plain.
    ///
    /// What cannot be true is reported each time, because each time is counted; of IPv4 packets only the first.
    pub(super) fn absorb(&mut self, key: Key, station: Station, tag: Option<VlanId>) {
        if self.is_contested(key) || self.is_contained(key, station.port) {
            return;
        }
        let Some(binding) = self.bindings.get(key, station) else { return };
        let is_plain = binding.martian.is_none() || !binding.evidence.is_arp();
        if !is_plain || binding.absorbed.is_some_and(|absorbed| absorbed.tag == tag) {
            return;
        }
        self.stop_absorbing(key, station);
        if let Some(binding) = self.bindings.get_mut(key, station) {
            binding.absorbed = Some(Absorbed { tag, hits: 0 });
        }
        let known = KnownClaim { port: station.port, tag, mac: station.mac, address: key.1 };
        self.actions.push_back(Action::Absorb(known));
    }

    /// Has the tap report whatever is said next for an address.
    pub(super) fn listen_to(&mut self, key: Key) {
        let absorbed = self.bindings.stations(key).filter(|(_, binding)| binding.absorbed.is_some());
        let stations: Vec<Station> = absorbed.map(|(station, _)| station).collect();
        stations.into_iter().for_each(|station| self.stop_absorbing(key, station));
    }

    pub(super) fn stop_absorbing(&mut self, key: Key, station: Station) {
        let absorbed = self.bindings.get_mut(key, station).and_then(|binding| binding.absorbed.take());
        if let Some(Absorbed { tag, .. }) = absorbed {
            self.forget_known(key, station, tag);
        }
    }

    pub(super) fn forget_known(&mut self, key: Key, station: Station, tag: Option<VlanId>) {
        let known = KnownClaim { port: station.port, tag, mac: station.mac, address: key.1 };
        self.actions.push_back(Action::Forget(known));
    }

    /// Takes in what the tap has absorbed. What it absorbs and nobody here knows of must be reported again.
    pub(super) fn heard(&mut self, all: Vec<Heard>, now: Timestamp) {
        for heard in all {
            if !self.take_in(&heard, now) {
                self.actions.push_back(Action::Forget(heard.claim));
            }
        }
    }

    fn take_in(&mut self, heard: &Heard, now: Timestamp) -> bool {
        let KnownClaim { port, tag, mac, address } = heard.claim;
        let Some(domain) = self.topology.domain_of(port, tag) else { return false };
        let (key, station) = ((domain, address), Station { port, mac });
        let Some(binding) = self.bindings.get_mut(key, station) else { return false };
        let Some(absorbed) = binding.absorbed.as_mut().filter(|absorbed| absorbed.tag == tag) else { return false };
        binding.hits += heard.hits.saturating_sub(std::mem::replace(&mut absorbed.hits, heard.hits));
        let last = heard.last_arp.max(heard.last_ipv4);
        binding.last_frame = binding.last_frame.max(heard.last_arp);
        if let Some(last) = last.filter(|last| *last > binding.last_seen) {
            binding.last_seen = last;
            binding.unanswered = 0;
            self.watch_liveness(key, station, now);
        }
        true
    }

    /// The networks that are at home in a domain, with those that an operator has added.
    pub(super) fn home(&self, key: Key) -> std::borrow::Cow<'_, [Ipv4Net]> {
        let (own, added) = (self.topology.networks(key.0), &self.config.policy.networks);
        if added.is_empty() { own.into() } else { [own, added.as_slice()].concat().into() }
    }

    /// Why a station cannot have what it claims. The host may ask with any of its addresses (`arp_announce` in
    /// `Documentation/networking/ip-sysctl.rst`).
    pub(super) fn martian_reason(&self, key: Key, claim: &Claim) -> Option<MartianReason> {
        let is_host = self.topology.host(claim.port).is_some();
        if is_host { None } else { super::rules::martian(claim, &self.home(key)) }
    }
}

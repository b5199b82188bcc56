//! The live table: which stations use which address, and since when.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::input::Evidence;
use crate::{
    net::{Domain, IfIndex, MartianReason, Station},
    time::Timestamp,
};

/// How many addresses a port may claim on the wire beyond those configured behind it. Keeps a port that claims the whole
/// subnet from filling the memory; its further claims are refused and counted, and no other port is touched.
pub(super) const CLAIMS_PER_PORT: usize = 1024;

/// That a station uses an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// When it was first known.
    pub first_seen: Timestamp,
    /// When it last showed.
    pub last_seen: Timestamp,
    /// What it showed by last.
    pub evidence: Evidence,
    /// Whether the kernel has the address configured there.
    pub configured: bool,
    /// When the station last spoke for the address on the wire.
    pub last_frame: Option<Timestamp>,
    /// Why the last claim cannot be true.
    pub martian: Option<MartianReason>,
    /// The last reason that was told, so that a station which claims now this, now that, is no news each time.
    pub(super) told: Option<MartianReason>,
    /// How often it was claimed in ARP.
    pub hits: u64,
    /// Whether it was there before the agent was: then nobody knows who was first.
    pub initial: bool,
    /// Probes sent since it last spoke.
    pub(super) unanswered: u8,
}

impl Binding {
    pub(super) fn new(evidence: Evidence, at: Timestamp, initial: bool) -> Self {
        Self {
            first_seen: at,
            last_seen: at,
            evidence,
            configured: false,
            last_frame: None,
            martian: None,
            told: None,
            hits: 0,
            initial,
            unanswered: 0,
        }
    }

    /// Whether the claim is one that a station of this domain can make. A frame that names another sender than its own
    /// source is odd, but it still says who uses the address.
    pub(super) fn is_plausible(&self) -> bool {
        matches!(self.martian, None | Some(MartianReason::EtherMismatch))
    }

    /// Whether the binding is known to hold, not only remembered.
    pub(super) fn is_sure(&self, since: Timestamp) -> bool {
        self.configured || self.last_frame.is_some_and(|at| at >= since)
    }
}

pub(super) type Key = (Domain, Ipv4Addr);

#[derive(Debug, Default)]
pub(super) struct Bindings {
    by_address: BTreeMap<Key, BTreeMap<Station, Binding>>,
    by_port: BTreeMap<IfIndex, BTreeSet<(Key, Station)>>,
}

impl Bindings {
    /// The binding of `station` to the address; one is made if there is none. `None` if the port has claimed too much.
    pub(super) fn entry(
        &mut self,
        key: Key,
        station: Station,
        evidence: Evidence,
        new: impl FnOnce() -> Binding,
    ) -> Option<&mut Binding> {
        if self.get(key, station).is_none() {
            let of_port = self.by_port.entry(station.port).or_default();
            if evidence != Evidence::Configured && of_port.len() >= CLAIMS_PER_PORT {
                return None;
            }
            of_port.insert((key, station));
            self.by_address.entry(key).or_default().insert(station, new());
        }
        self.get_mut(key, station)
    }

    pub(super) fn get(&self, key: Key, station: Station) -> Option<&Binding> {
        self.by_address.get(&key)?.get(&station)
    }

    pub(super) fn get_mut(&mut self, key: Key, station: Station) -> Option<&mut Binding> {
        self.by_address.get_mut(&key)?.get_mut(&station)
    }

    pub(super) fn remove(&mut self, key: Key, station: Station) {
        if let Some(of_port) = self.by_port.get_mut(&station.port) {
            of_port.remove(&(key, station));
            if of_port.is_empty() {
                self.by_port.remove(&station.port);
            }
        }
        if let Some(stations) = self.by_address.get_mut(&key) {
            stations.remove(&station);
            if stations.is_empty() {
                self.by_address.remove(&key);
            }
        }
    }

    pub(super) fn stations(&self, key: Key) -> impl Iterator<Item = (Station, &Binding)> {
        self.by_address.get(&key).into_iter().flatten().map(|(station, binding)| (*station, binding))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, Station, &Binding)> {
        self.by_address
            .iter()
            .flat_map(|(key, stations)| stations.iter().map(|(station, binding)| (*key, *station, binding)))
    }

    /// The addresses in use in the domain by others than a port.
    pub(super) fn in_use_beside(&self, domain: Domain, port: IfIndex) -> Vec<Ipv4Addr> {
        let of_others = self.iter().filter(|(key, station, _)| key.0 == domain && station.port != port);
        let mut addresses: Vec<Ipv4Addr> = of_others.map(|((_, address), _, _)| address).collect();
        addresses.dedup();
        addresses
    }

    pub(super) fn of_port(&self, port: IfIndex) -> Vec<(Key, Station)> {
        self.by_port.get(&port).into_iter().flatten().copied().collect()
    }

    /// The addresses in use in the domain, each once, in order.
    pub(super) fn addresses(&self, domain: Domain) -> Vec<Ipv4Addr> {
        let of_domain = (domain, Ipv4Addr::UNSPECIFIED)..=(domain, Ipv4Addr::BROADCAST);
        self.by_address.range(of_domain).map(|((_, address), _)| *address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Mac;

    fn key(host: u32) -> Key {
        (Domain::untagged("rt0".parse().unwrap()), Ipv4Addr::from(0x0a08_0000 + host))
    }

    fn station(port: u32) -> Station {
        Station { port: IfIndex::new(port).unwrap(), mac: Mac([2, 0, 0, 0, 0, 1]) }
    }

    fn claim(bindings: &mut Bindings, host: u32, port: u32, evidence: Evidence) -> bool {
        let new = || Binding::new(evidence, Timestamp::from_nanos(1), false);
        bindings.entry(key(host), station(port), evidence, new).is_some()
    }

    #[test]
    fn a_port_that_claims_too_much_is_refused_and_no_other() {
        let arp = Evidence::Arp(crate::net::ClaimKind::Reply);
        let mut bindings = Bindings::default();
        let taken = (0..5000).filter(|host| claim(&mut bindings, *host, 1, arp)).count();
        assert_eq!((taken, bindings.iter().count()), (CLAIMS_PER_PORT, CLAIMS_PER_PORT));
        assert!(claim(&mut bindings, 0, 1, arp), "a known claim is never refused");
        assert!(claim(&mut bindings, 4000, 2, arp), "another port claims as before");
        assert!(claim(&mut bindings, 4001, 1, Evidence::Configured), "what the kernel says is never refused");
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let mut bindings = Bindings::default();
        claim(&mut bindings, 1, 1, Evidence::Configured);
        claim(&mut bindings, 1, 2, Evidence::Configured);
        assert_eq!(bindings.addresses(key(1).0), [key(1).1]);
        for (key, station) in [bindings.of_port(station(1).port), bindings.of_port(station(2).port)].concat() {
            bindings.remove(key, station);
        }
        assert!(bindings.by_address.is_empty() && bindings.by_port.is_empty());
    }
}

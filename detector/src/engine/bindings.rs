//! The live table: which stations use which address, and since when.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    ops::Bound,
};

use super::input::Evidence;
use crate::{
    net::{Domain, IfIndex, MartianReason, Station, VlanId},
    time::Timestamp,
};

/// How many addresses a port may claim on the wire unless an operator says otherwise.
pub(super) const CLAIMS_PER_PORT: usize = 1024;
/// How many bindings there may be in all before a port may claim no more than [`FAIR_SHARE`]: what a bridge full of ports
/// needs, many times over, and all that the tap can absorb.
const ENOUGH: usize = 128 * 1024;
/// What every port may claim, however much others do.
const FAIR_SHARE: usize = 64;

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
    /// How often it was claimed in ARP.
    pub hits: u64,
    /// Whether it was there before the agent was: then nobody knows who was first.
    pub initial: bool,
    /// The last reason that was told, so that a station which claims now this, now that, is no news each time.
    pub(super) told: Option<MartianReason>,
    /// Set while the tap absorbs the claim.
    pub(super) absorbed: Option<Absorbed>,
    /// Probes sent since it last spoke.
    pub(super) unanswered: u8,
}

/// How the tap absorbs a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Absorbed {
    pub(super) tag: Option<VlanId>,
    /// How often the tap had absorbed it when that was last read.
    pub(super) hits: u64,
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
            hits: 0,
            initial,
            told: None,
            absorbed: None,
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
        self.configured || self.spoke_since(since)
    }

    /// Whether the station spoke for the address on the wire at a moment or after.
    pub(super) fn spoke_since(&self, since: Timestamp) -> bool {
        self.last_frame.is_some_and(|at| at >= since)
    }
}

pub(super) type Key = (Domain, Ipv4Addr);

/// A flat map, because most addresses have one station, and a map for each would take far more room than what is in it.
#[derive(Debug)]
pub(super) struct Bindings {
    all: BTreeMap<(Key, Station), Binding>,
    by_port: BTreeMap<IfIndex, BTreeSet<(Key, Station)>>,
    claims_per_port: usize,
}

impl Bindings {
    pub(super) fn new(claims_per_port: usize) -> Self {
        Self { all: BTreeMap::new(), by_port: BTreeMap::new(), claims_per_port }
    }

    /// Lets every port claim so many addresses from now on; what there is already stays.
    pub(super) const fn allow(&mut self, claims_per_port: usize) {
        self.claims_per_port = claims_per_port;
    }

    /// The binding of `station` to the address; one is made if there is none. `None` if the port has claimed too much.
    pub(super) fn entry(
        &mut self,
        key: Key,
        station: Station,
        evidence: Evidence,
        new: impl FnOnce() -> Binding,
    ) -> Option<&mut Binding> {
        if !self.all.contains_key(&(key, station)) {
            if evidence != Evidence::Configured && self.has_claimed_enough(station.port) {
                return None;
            }
            self.by_port.entry(station.port).or_default().insert((key, station));
            self.all.insert((key, station), new());
        }
        self.get_mut(key, station)
    }

    fn has_claimed_enough(&self, port: IfIndex) -> bool {
        let of_port = self.by_port.get(&port).map_or(0, BTreeSet::len);
        let share = if self.all.len() < ENOUGH { self.claims_per_port } else { self.claims_per_port.min(FAIR_SHARE) };
        of_port >= share
    }

    pub(super) fn get(&self, key: Key, station: Station) -> Option<&Binding> {
        self.all.get(&(key, station))
    }

    pub(super) fn get_mut(&mut self, key: Key, station: Station) -> Option<&mut Binding> {
        self.all.get_mut(&(key, station))
    }

    pub(super) fn remove(&mut self, key: Key, station: Station) -> Option<Binding> {
        if let Some(of_port) = self.by_port.get_mut(&station.port) {
            of_port.remove(&(key, station));
            if of_port.is_empty() {
                self.by_port.remove(&station.port);
            }
        }
        self.all.remove(&(key, station))
    }

    pub(super) fn stations(&self, key: Key) -> impl Iterator<Item = (Station, &Binding)> {
        let of_key = (key, Station::FIRST)..=(key, Station::LAST);
        self.all.range(of_key).map(|((_, station), binding)| (*station, binding))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, Station, &Binding)> {
        self.all.iter().map(|((key, station), binding)| (*key, *station, binding))
    }

    /// All that come after an address, or all there are.
    pub(super) fn after(&self, key: Option<Key>) -> impl Iterator<Item = (Key, Station, &Binding)> {
        let from = key.map_or(Bound::Unbounded, |key| Bound::Excluded((key, Station::LAST)));
        self.all.range((from, Bound::Unbounded)).map(|((key, station), binding)| (*key, *station, binding))
    }

    /// All that come after one of them, or all there are.
    pub(super) fn behind(&self, last: Option<(Key, Station)>) -> impl Iterator<Item = (Key, Station, &Binding)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.all.range((from, Bound::Unbounded)).map(|((key, station), binding)| (*key, *station, binding))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The addresses in use in the domain by others than a port.
    pub(super) fn in_use_beside(&self, domain: Domain, port: IfIndex) -> Vec<Ipv4Addr> {
        let of_others = self.of_domain(domain).filter(|(_, station)| station.port != port);
        let mut addresses: Vec<Ipv4Addr> = of_others.map(|(address, _)| address).collect();
        addresses.dedup();
        addresses
    }

    /// What is claimed or configured at a port.
    pub(super) fn at(&self, port: IfIndex) -> impl ExactSizeIterator<Item = &(Key, Station)> {
        static NOTHING: BTreeSet<(Key, Station)> = BTreeSet::new();
        self.by_port.get(&port).unwrap_or(&NOTHING).iter()
    }

    /// Whether anybody uses the address.
    pub(super) fn is_used(&self, key: Key) -> bool {
        self.stations(key).next().is_some()
    }

    pub(super) fn of_port(&self, port: IfIndex) -> Vec<(Key, Station)> {
        self.at(port).copied().collect()
    }

    /// The addresses in use in the domain, each once, in order.
    pub(super) fn addresses(&self, domain: Domain) -> Vec<Ipv4Addr> {
        let mut addresses: Vec<Ipv4Addr> = self.of_domain(domain).map(|(address, _)| address).collect();
        addresses.dedup();
        addresses
    }

    fn of_domain(&self, domain: Domain) -> impl Iterator<Item = (Ipv4Addr, Station)> {
        let first = ((domain, Ipv4Addr::UNSPECIFIED), Station::FIRST);
        let last = ((domain, Ipv4Addr::BROADCAST), Station::LAST);
        self.all.range(first..=last).map(|(((_, address), station), _)| (*address, *station))
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
        let mut bindings = Bindings::new(CLAIMS_PER_PORT);
        let taken = (0..5000).filter(|host| claim(&mut bindings, *host, 1, arp)).count();
        assert_eq!((taken, bindings.iter().count()), (CLAIMS_PER_PORT, CLAIMS_PER_PORT));
        assert!(claim(&mut bindings, 0, 1, arp), "a known claim is never refused");
        assert!(claim(&mut bindings, 4000, 2, arp), "another port claims as before");
        assert!(claim(&mut bindings, 4001, 1, Evidence::Configured), "what the kernel says is never refused");
    }

    #[test]
    fn many_ports_that_claim_too_much_leave_each_other_its_share() {
        let arp = Evidence::Arp(crate::net::ClaimKind::Reply);
        let mut bindings = Bindings::new(CLAIMS_PER_PORT);
        let hostile = 2..u32::try_from(2 + ENOUGH / CLAIMS_PER_PORT).unwrap();
        for port in hostile {
            for host in 0..2000 {
                claim(&mut bindings, host, port, arp);
            }
        }
        assert_eq!(bindings.all.len(), ENOUGH);
        let taken = (0..2000).filter(|host| claim(&mut bindings, *host, 1, arp)).count();
        assert_eq!(taken, FAIR_SHARE);
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let mut bindings = Bindings::new(CLAIMS_PER_PORT);
        claim(&mut bindings, 1, 1, Evidence::Configured);
        claim(&mut bindings, 1, 2, Evidence::Configured);
        assert_eq!(bindings.addresses(key(1).0), [key(1).1]);
        for (key, station) in [bindings.of_port(station(1).port), bindings.of_port(station(2).port)].concat() {
            bindings.remove(key, station);
        }
        assert!(bindings.all.is_empty() && bindings.by_port.is_empty());
    }
}

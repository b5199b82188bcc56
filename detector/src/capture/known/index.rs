//! The known claims in user space: by port, since all of a port's go with it, and by address, since somebody owns it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use detector_ebpf::OwnedKey;

use crate::{
    engine::KnownClaim,
    net::{IfIndex, Mac, VlanId},
};

#[derive(Debug, Default)]
pub(super) struct Index {
    /// On which bridge each claim is made.
    bridges: BTreeMap<KnownClaim, IfIndex>,
    /// Who claims each address: the port's index and the hardware address.
    claimants: BTreeSet<(OwnedKey, u32, Mac)>,
}

/// An address, and the port's index of one of those whose claim to it is known.
type Owned = (OwnedKey, Option<u32>);

impl Index {
    pub(super) fn len(&self) -> usize {
        self.bridges.len()
    }

    pub(super) fn bridge_of(&self, claim: &KnownClaim) -> Option<IfIndex> {
        self.bridges.get(claim).copied()
    }

    pub(super) fn of_port(&self, port: IfIndex) -> Vec<KnownClaim> {
        let first = KnownClaim { port, tag: None, mac: Mac::ZERO, address: Ipv4Addr::UNSPECIFIED };
        let rest = self.bridges.range(first..).map(|(claim, _)| *claim);
        rest.take_while(|claim| claim.port == port).collect()
    }

    /// Adds a claim that is made on `bridge`, and tells whose the address is now.
    pub(super) fn insert(&mut self, claim: KnownClaim, bridge: IfIndex) -> Owned {
        let owned = owned(&claim, bridge);
        self.bridges.insert(claim, bridge);
        self.claimants.insert((owned, claim.port.get(), claim.mac));
        (owned, self.owner(owned))
    }

    /// Removes a claim, if it is there, and tells whose the address is now.
    pub(super) fn remove(&mut self, claim: &KnownClaim) -> Option<Owned> {
        let owned = owned(claim, self.bridges.remove(claim)?);
        self.claimants.remove(&(owned, claim.port.get(), claim.mac));
        Some((owned, self.owner(owned)))
    }

    fn owner(&self, owned: OwnedKey) -> Option<u32> {
        let first = (owned, 0, Mac::ZERO);
        self.claimants.range(first..).next().filter(|(other, ..)| *other == owned).map(|(_, port, _)| *port)
    }
}

fn owned(claim: &KnownClaim, bridge: IfIndex) -> OwnedKey {
    OwnedKey::new(bridge.get(), claim.tag.map_or(0, VlanId::get), claim.address.octets())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(index: u32) -> IfIndex {
        IfIndex::new(index).unwrap()
    }

    fn claim(index: u32, mac: u8) -> KnownClaim {
        KnownClaim {
            port: port(index),
            tag: VlanId::new(12),
            mac: Mac([2, 0, 0, 0, 0, mac]),
            address: Ipv4Addr::new(10, 8, 64, 2),
        }
    }

    #[test]
    fn an_address_is_somebodys_as_long_as_anybody_claims_it() {
        let (mut index, rt0) = (Index::default(), port(1));
        let key = OwnedKey::new(1, 12, [10, 8, 64, 2]);
        assert_eq!(index.insert(claim(5, 1), rt0), (key, Some(5)));
        assert_eq!(index.insert(claim(5, 2), rt0), (key, Some(5)));
        assert_eq!(index.insert(claim(9, 1), rt0), (key, Some(5)));
        assert_eq!(index.remove(&claim(5, 1)), Some((key, Some(5))));
        assert_eq!(index.remove(&claim(5, 1)), None);
        assert_eq!(index.remove(&claim(5, 2)), Some((key, Some(9))));
        assert_eq!(index.remove(&claim(9, 1)), Some((key, None)));
        assert_eq!((index.len(), index.claimants.len()), (0, 0));
    }

    #[test]
    fn equal_addresses_on_two_bridges_are_two() {
        let mut index = Index::default();
        index.insert(claim(5, 1), port(1));
        let (key, owner) = index.insert(claim(6, 1), port(2));
        assert_eq!((key, owner), (OwnedKey::new(2, 12, [10, 8, 64, 2]), Some(6)));
        assert_eq!(index.bridge_of(&claim(6, 1)), Some(port(2)));
    }

    #[test]
    fn a_ports_claims_are_its_own() {
        let mut index = Index::default();
        for at in [4, 5, 6] {
            index.insert(claim(at, 1), port(1));
            index.insert(KnownClaim { tag: None, ..claim(at, 2) }, port(1));
        }
        assert_eq!(index.of_port(port(5)), [KnownClaim { tag: None, ..claim(5, 2) }, claim(5, 1)]);
        assert_eq!(index.of_port(port(7)), []);
    }
}

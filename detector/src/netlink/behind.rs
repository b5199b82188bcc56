//! What is configured in the namespace behind a port.
//!
//! A frame that comes in by the port may come from more than the interface at its other end: a macvlan or ipvlan child
//! sends by the interface below it, and an interface that is put into a bridge or a bond is only the way out of that. All
//! that stands on the other end in that sense is told of, each with its own hardware address. One namespace also answers ARP
//! for any of its addresses on any of its interfaces (`arp_ignore` in the kernel's `ip-sysctl.rst`), so all of its hardware
//! addresses are one party's; but an address that stands elsewhere in there claims nothing at this port by itself.

use std::collections::BTreeSet;

use netlink_packet_route::link::{InfoKind, LinkMessage};

use super::{
    Error, addresses,
    links::{self, Interface, Peer, Port},
    netns::Nsid,
    route::Route,
};
use crate::net::{IfIndex, Ipv4Net, Mac, VlanId};

/// What is configured behind a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The interface at the port's other end.
    pub interface: Interface,
    /// What stands on it in the same namespace, lower ones first.
    pub stacked: Vec<Stacked>,
    /// The hardware addresses of all Ethernet interfaces in the namespace, whether they have to do with the port or not.
    pub macs: BTreeSet<Mac>,
    /// Whether what comes in by the port's other end may be forwarded (`net.ipv4.conf.INTERFACE.forwarding`).
    pub forwards: bool,
}

/// An interface that sends its frames by the port's other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stacked {
    /// The interface. Its addresses' changes are told of under its own index.
    pub interface: Interface,
    /// The VLAN that its frames are tagged with before they reach the port.
    pub vlan: Option<VlanId>,
    /// Whether it and all below it are set up.
    pub is_live: bool,
}

/// An address that is in use at a port, as the kernel in there says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LiveAddress {
    /// The VLAN that its frames are tagged with when they reach the port; none for untagged ones.
    pub vlan: Option<VlanId>,
    /// The address and its prefix length.
    pub network: Ipv4Net,
    /// The hardware address that it goes with.
    pub mac: Mac,
    /// The interface that it is on, in its namespace.
    pub index: IfIndex,
}

impl Behind {
    /// The addresses that are in use at the port; those on interfaces that are down are not.
    pub fn live(&self) -> impl Iterator<Item = LiveAddress> {
        let own = self.interface.up.then_some((&self.interface, None));
        let stacked = self.stacked.iter().filter(|stacked| stacked.is_live);
        let stacked = stacked.map(|stacked| (&stacked.interface, stacked.vlan));
        own.into_iter().chain(stacked).flat_map(|(interface, vlan)| {
            let (mac, index) = (interface.mac, interface.index);
            interface.addresses.iter().map(move |network| LiveAddress { vlan, network: *network, mac, index })
        })
    }

    /// Looks into the socket's own namespace, or into the one that it calls `netns`, for what is behind `port`.
    pub(super) async fn look(route: &mut Route, netns: Option<Nsid>, port: &Port, peer: Peer) -> Result<Self, Error> {
        let links = links::all(route, netns).await?;
        let addresses = addresses::all(route, netns).await?;
        Self::of(&links, &addresses, port.index, peer.index).ok_or(Error::NoInterface(peer.index))
    }

    /// `None` if there is no such interface, or it is not `port` that is at the other end: then it is another namespace,
    /// which was given the id of one that is gone.
    pub(super) fn of(
        links: &[LinkMessage],
        addresses: &[(IfIndex, Ipv4Net)],
        port: IfIndex,
        peer: IfIndex,
    ) -> Option<Self> {
        let peer = links.iter().find(|link| links::index(link) == Some(peer))?;
        (links::at_the_other_end(peer) == Some(port)).then_some(())?;
        let above = stack(links, peer).into_iter().skip(1);
        let stacked = above.filter_map(|Level { link, vlan, is_live }| {
            Some(Stacked { interface: Interface::of(link, addresses)?, vlan, is_live })
        });
        Some(Self {
            interface: Interface::of(peer, addresses)?,
            stacked: stacked.collect(),
            macs: links.iter().filter_map(links::ethernet).collect(),
            forwards: links::forwards(peer),
        })
    }
}

/// A link in a stack of them.
struct Level<'a> {
    link: &'a LinkMessage,
    vlan: Option<VlanId>,
    is_live: bool,
}

/// `lowest`, and all that stands on it, directly or not. Each link is there once.
fn stack<'a>(links: &'a [LinkMessage], lowest: &'a LinkMessage) -> Vec<Level<'a>> {
    let mut levels = vec![Level { link: lowest, vlan: None, is_live: links::is_up(lowest) }];
    let mut rest: Vec<_> = links.iter().filter(|link| link.header.index != lowest.header.index).collect();
    let mut at = 0;
    while let Some(below) = levels.get(at) {
        let (above, others) =
            rest.iter().map(|link| (*link, on(link, below))).partition::<Vec<_>, _>(|(_, on)| on.is_some());
        rest = others.into_iter().map(|(link, _)| link).collect();
        let is_live = below.is_live;
        let level = |(link, on): (&'a LinkMessage, Option<Option<VlanId>>)| {
            Some(Level { link, vlan: on?, is_live: is_live && links::is_up(link) })
        };
        levels.extend(above.into_iter().filter_map(level));
        at += 1;
    }
    levels
}

/// Whether `link` sends by what is `below`, and in which VLAN. What would be tagged twice is left out: in the domain of the
/// outer tag its addresses mean nothing.
fn on(link: &LinkMessage, below: &Level<'_>) -> Option<Option<VlanId>> {
    let index = links::index(below.link);
    let is_over = index.is_some() && links::lower(link) == index;
    let is_master = links::master(below.link).is_some() && links::master(below.link) == links::index(link);
    match links::kind(link)? {
        InfoKind::Vlan if is_over && below.vlan.is_none() => links::vlan(link).map(Some),
        InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan | InfoKind::IpVtap if is_over => Some(below.vlan),
        InfoKind::Bridge | InfoKind::Bond | InfoKind::Team if is_master => Some(below.vlan),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType};

    use super::*;

    const PORT: u32 = 70;

    fn link(index: u32, kind: InfoKind, attributes: &[LinkAttribute]) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.link_layer_type = LinkLayerType::Ether;
        link.attributes.push(LinkAttribute::IfName(format!("if{index}")));
        link.attributes.push(LinkAttribute::Address(mac(index).0.to_vec()));
        link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        link.attributes.extend_from_slice(attributes);
        link
    }

    fn over(index: u32, kind: InfoKind, below: u32) -> LinkMessage {
        link(index, kind, &[LinkAttribute::Link(below)])
    }

    fn vlan_over(index: u32, below: u32, id: u16) -> LinkMessage {
        let data = LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)]));
        let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), data]);
        let mut link = link(index, InfoKind::Vlan, &[LinkAttribute::Link(below), info]);
        link.attributes.remove(2);
        link
    }

    fn mac(index: u32) -> Mac {
        Mac([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])
    }

    /// Each link has the address `10.8.64.INDEX/24`.
    fn behind(links: &[LinkMessage]) -> Option<Behind> {
        let addresses = links.iter().map(|link| {
            let index = links::index(link).unwrap();
            (index, format!("10.8.64.{index}/24").parse().unwrap())
        });
        let index = |index| IfIndex::new(index).unwrap();
        Behind::of(links, &addresses.collect::<Vec<_>>(), index(PORT), index(2))
    }

    /// The last bytes of live addresses and of their MACs, and their VLANs.
    fn live(links: &[LinkMessage]) -> Vec<(u8, u8, Option<u16>)> {
        let of = |live: LiveAddress| (live.network.addr().octets()[3], live.mac.0[5], live.vlan.map(VlanId::get));
        behind(links).unwrap().live().map(of).collect()
    }

    #[test]
    fn what_stands_on_the_other_end_is_in_use_there_too() {
        let eth0 = link(2, InfoKind::Veth, &[LinkAttribute::Link(PORT), LinkAttribute::LinkNetNsId(0)]);
        let links = [
            // Listed before what it stands on.
            over(9, InfoKind::MacVlan, 5),
            eth0.clone(),
            over(3, InfoKind::MacVlan, 2),
            over(4, InfoKind::IpVlan, 2),
            vlan_over(5, 2, 20),
            vlan_over(6, 5, 30),
            link(7, InfoKind::Dummy, &[]),
            link(8, InfoKind::MacVlan, &[LinkAttribute::Link(2), LinkAttribute::LinkNetNsId(4)]),
        ];
        assert_eq!(live(&links), [(2, 2, None), (3, 3, None), (4, 4, None), (5, 5, Some(20)), (9, 9, Some(20))]);
        assert_eq!(behind(&links).unwrap().macs, (2..=9).map(mac).collect());
    }

    #[test]
    fn what_is_down_or_on_something_down_is_not_in_use() {
        let peer = [LinkAttribute::Link(PORT), LinkAttribute::LinkNetNsId(0)];
        let mut links = [link(2, InfoKind::Veth, &peer), over(3, InfoKind::MacVlan, 2), over(4, InfoKind::MacVlan, 3)];
        links[1].header.flags = LinkFlags::empty();
        assert_eq!(live(&links), [(2, 2, None)]);
        links[1].header.flags = LinkFlags::Up;
        links[0].header.flags = LinkFlags::empty();
        assert_eq!((live(&links), behind(&links).unwrap().stacked.len()), (vec![], 2));
    }

    #[test]
    fn a_bridge_that_the_other_end_is_in_speaks_there() {
        let peer = [LinkAttribute::Link(PORT), LinkAttribute::LinkNetNsId(0), LinkAttribute::Controller(3)];
        let links = [
            link(2, InfoKind::Veth, &peer),
            link(3, InfoKind::Bridge, &[]),
            vlan_over(4, 3, 20),
            // Another port of that bridge, and a master of another kind.
            link(5, InfoKind::Veth, &[LinkAttribute::Controller(3)]),
            link(6, InfoKind::Bridge, &[LinkAttribute::Controller(3)]),
        ];
        assert_eq!(live(&links), [(2, 2, None), (3, 3, None), (4, 4, Some(20))]);
        let routed = [link(2, InfoKind::Veth, &peer), link(3, InfoKind::Vrf, &[])];
        assert_eq!(live(&routed), [(2, 2, None)]);
    }

    #[test]
    fn links_that_stand_on_each_other_come_to_an_end() {
        let peer = [LinkAttribute::Link(PORT), LinkAttribute::LinkNetNsId(0), LinkAttribute::Controller(3)];
        let bridge = link(3, InfoKind::Bridge, &[LinkAttribute::Controller(4)]);
        let links = [link(2, InfoKind::Veth, &peer), bridge, link(4, InfoKind::Bond, &[LinkAttribute::Controller(3)])];
        assert_eq!(live(&links).len(), 3);
    }

    #[test]
    fn a_namespace_that_only_has_the_id_is_not_the_one() {
        let other = link(2, InfoKind::Veth, &[LinkAttribute::Link(PORT + 1), LinkAttribute::LinkNetNsId(0)]);
        assert_eq!(behind(&[other]), None);
        assert_eq!(behind(&[]), None);
    }
}

//! What holds of a datagram, whatever bytes it is. The kernel made it, and parts of it are others' words: the names and
//! settings of interfaces.

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};

use super::{
    Error, Nsid, addresses,
    behind::Behind,
    events::told,
    links::{self, Bridge, Interface, Port},
    route::refusal,
    sockets::Sockets,
    wire::{HEADER_LEN, messages},
};
use crate::net::{IfIndex, Ipv4Net};

/// How many links are looked at from all sides.
const LOOKED_AT: usize = 8;

/// Of a datagram: it comes to an end, as a list of events and as the answer to a question, and has no more in it than fits.
pub fn netlink(datagram: &[u8]) {
    for nsid in [None, Some(Nsid(4))] {
        assert!(told(datagram, nsid).count() <= datagram.len().div_ceil(HEADER_LEN));
    }
    listed(datagram);
    let answers: Vec<NetlinkMessage<RouteNetlinkMessage>> = messages(datagram).filter_map(Result::ok).collect();
    answers.iter().for_each(refused);
    let inner = |answer: NetlinkMessage<_>| match answer.payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    };
    surveyed(answers.into_iter().filter_map(inner).collect());
}

/// A socket has no address that the kernel did not write.
fn listed(datagram: &[u8]) {
    let sockets = messages(datagram).filter_map(Result::ok).filter_map(|answer| match answer.payload {
        NetlinkPayload::InnerMessage(socket) => Some(socket),
        _ => None,
    });
    for socket in sockets {
        let local = Sockets::local(&socket).map(|address| address.octets());
        assert!(local.iter().all(|octets| datagram.windows(octets.len()).any(|bytes| bytes == octets)));
    }
}

/// An error that the kernel reports is one, and can be told.
fn refused(answer: &NetlinkMessage<RouteNetlinkMessage>) {
    let NetlinkPayload::Error(error) = &answer.payload else { return };
    let verdict = refusal("ask", &answer.header, error);
    assert_eq!(verdict.is_ok(), error.raw_code() == 0);
    assert!(verdict.err().iter().map(Error::to_string).all(|text| !text.is_empty()));
}

fn surveyed(answers: Vec<RouteNetlinkMessage>) {
    let (mut all, mut networks): (Vec<LinkMessage>, Vec<(IfIndex, Ipv4Net)>) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            RouteNetlinkMessage::NewLink(link) => all.push(link),
            RouteNetlinkMessage::NewAddress(address) => {
                networks.extend(IfIndex::new(address.header.index).zip(addresses::network(&address)));
            }
            _ => {}
        }
    }
    all.iter().take(LOOKED_AT).for_each(|link| looked_at(link, &all, &networks));
}

/// What a link is, and what is behind the port at its other end.
fn looked_at(link: &LinkMessage, all: &[LinkMessage], networks: &[(IfIndex, Ipv4Net)]) {
    let (index, bridge, port) = (links::index(link), Bridge::of(link), Port::of(link));
    assert!(bridge.iter().all(|bridge| Some(bridge.index) == index));
    assert!(port.iter().all(|port| Some(port.index) == index && Some(port.bridge) == links::master(link)));
    let _ = (links::vlan(link), links::forwards(link), links::filters_vlans(link), links::ethernet(link));
    let Some((peer, port)) = index.zip(links::at_the_other_end(link)) else { return };
    let Some(behind) = Behind::of(all, networks, port, peer) else { return };
    assert!(behind.interface.index == peer && behind.stacked.len() < all.len() && behind.macs.len() <= all.len());
    assert!(behind.live().all(|live| networks.contains(&(live.index, live.network))));
    let addresses = |interface: &Interface| interface.addresses.len();
    let stacked = behind.stacked.iter().map(|stacked| addresses(&stacked.interface)).sum::<usize>();
    assert!(behind.live().count() <= addresses(&behind.interface) + stacked);
}

//! IPv4 addresses of interfaces.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
};
use rustix::io::Errno;

use super::{Error, netns::Nsid, route::Route};
use crate::net::{IfIndex, Ipv4Net};

/// The IPv4 addresses of `interface`, as the kernel describes them, in its order.
pub(super) async fn list(route: &mut Route, interface: IfIndex) -> Result<Vec<AddressMessage>, Error> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    request.header.index = interface.get();
    match route.dump("list the interface's addresses", RouteNetlinkMessage::GetAddress(request)).await {
        Err(error) if error.errno() == Some(Errno::NODEV) => Err(Error::NoInterface(interface)),
        Err(error) => Err(error),
        Ok(answers) => Ok(answers.into_iter().filter_map(|answer| of(answer, interface)).collect()),
    }
}

/// The IPv4 addresses of every interface in the socket's own namespace, or in the one that it calls `netns`, each with the
/// interface's index.
pub(super) async fn all(route: &mut Route, netns: Option<Nsid>) -> Result<Vec<(IfIndex, Ipv4Net)>, Error> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    request.attributes.extend(netns.map(|Nsid(id)| AddressAttribute::TargetNetNsId(id)));
    let answers = route.dump("list all addresses", RouteNetlinkMessage::GetAddress(request)).await?;
    let address = |answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => Some((IfIndex::new(message.header.index)?, network(&message)?)),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(address).collect())
}

/// The IPv4 addresses of `interface` with their prefix lengths.
pub(super) async fn networks(route: &mut Route, interface: IfIndex) -> Result<Vec<Ipv4Net>, Error> {
    Ok(list(route, interface).await?.iter().filter_map(network).collect())
}

/// The address that `message` describes, with its prefix length.
pub(super) fn network(message: &AddressMessage) -> Option<Ipv4Net> {
    Ipv4Net::new(local(message)?, message.header.prefix_len).ok()
}

/// The interface's own address. `IFA_ADDRESS` is the same, except on a point-to-point link, where it is the peer's.
pub(super) fn local(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })
}

fn of(answer: RouteNetlinkMessage, interface: IfIndex) -> Option<AddressMessage> {
    match answer {
        RouteNetlinkMessage::NewAddress(message) if message.header.index == interface.get() => Some(message),
        _ => None,
    }
}

//! Route messages: which the change of an address touches, and what they become.

use std::net::Ipv4Addr;

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags, RouteProtocol,
        RouteScope, RouteType,
    },
};

use super::{super::route::Route, Error, Readdress};
use crate::net::{IfIndex, Ipv4Net};

/// The table that the kernel itself fills, with the addresses (`RT_TABLE_LOCAL`).
const LOCAL: u32 = 255;

/// All IPv4 routes of the namespace, in all tables.
pub(super) async fn list(route: &mut Route) -> Result<Vec<RouteMessage>, Error> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    let answers = route.dump("list the sandbox's routes", RouteNetlinkMessage::GetRoute(request)).await?;
    Ok(answers.into_iter().filter_map(of).collect())
}

/// What of `route` must be kept, if the change of address could touch it: it goes over the interface, or comes from
/// the old address on any. If another interface has the old address `elsewhere`, it still is a source for the routes over
/// others.
pub(super) fn to_keep(
    route: &RouteMessage,
    interface: IfIndex,
    change: Readdress,
    elsewhere: bool,
) -> Option<RouteMessage> {
    let touched = goes_over(route, interface) || (source(route) == Some(change.old) && !elsewhere);
    (touched && !is_the_address_itself(route)).then(|| lasting(route))
}

/// Whether `route` is the one that the kernel made to the old address's network, or to its peer (`fib_add_ifaddr` in
/// `net/ipv4/fib_frontend.c`). It may have the new address for its source already.
pub(super) fn is_connected(route: &RouteMessage, interface: IfIndex, change: Readdress) -> bool {
    let network = Ipv4Net::new(change.old, change.prefix_len).map(|net| net.trunc()).ok();
    let ours = source(route).is_some_and(|source| source == change.old || source == change.new);
    let to_peer = ours && route.header.destination_prefix_length == change.prefix_len;
    let kernels = route.header.protocol == RouteProtocol::Kernel && route.header.scope == RouteScope::Link;
    kernels && goes_over(route, interface) && (to_peer || destination(route) == network)
}

/// The route without what only describes its state, as it can be given back to the kernel.
pub(super) fn lasting(route: &RouteMessage) -> RouteMessage {
    let mut lasting = route.clone();
    lasting.header.flags &= RouteFlags::Onlink;
    let by_id = route.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::NhId(_)));
    lasting.attributes.retain(|attribute| !(is_state(attribute) || by_id && is_next_hop(attribute)));
    for attribute in &mut lasting.attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            hops.iter_mut().for_each(|hop| hop.flags &= RouteNextHopFlags::Onlink);
        }
    }
    lasting
}

/// The route with another preferred source.
pub(super) fn with_source(route: &RouteMessage, address: Ipv4Addr) -> RouteMessage {
    let mut route = route.clone();
    for attribute in &mut route.attributes {
        if let RouteAttribute::PrefSource(source) = attribute {
            *source = address.into();
        }
    }
    route
}

/// The preferred source that the route names.
pub(super) fn source(route: &RouteMessage) -> Option<Ipv4Addr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(source)) => Some(*source),
        _ => None,
    })
}

fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    Ipv4Net::new(address?, route.header.destination_prefix_length).ok()
}

/// What makes an address one of ours, and its broadcast address one: comes and goes with the address. In a VRF it
/// stands in the VRF's own table.
fn is_the_address_itself(route: &RouteMessage) -> bool {
    let kind = matches!(route.header.kind, RouteType::Local | RouteType::Broadcast);
    table(route) == LOCAL || (kind && route.header.protocol == RouteProtocol::Kernel)
}

fn goes_over(route: &RouteMessage, interface: IfIndex) -> bool {
    route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Oif(index) => *index == interface.get(),
        RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == interface.get()),
        _ => false,
    })
}

fn is_state(attribute: &RouteAttribute) -> bool {
    matches!(attribute, RouteAttribute::CacheInfo(_))
}

/// What the kernel tells of a next hop object along with its id, and takes only without it (`rtm_to_fib_config`).
fn is_next_hop(attribute: &RouteAttribute) -> bool {
    matches!(
        attribute,
        RouteAttribute::Oif(_)
            | RouteAttribute::Gateway(_)
            | RouteAttribute::Via(_)
            | RouteAttribute::MultiPath(_)
            | RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_)
    )
}

/// The routing table that it is in.
pub(super) fn table(route: &RouteMessage) -> u32 {
    let wide = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    wide.unwrap_or(u32::from(route.header.table))
}

fn of(answer: RouteNetlinkMessage) -> Option<RouteMessage> {
    match answer {
        RouteNetlinkMessage::NewRoute(route) if is_ours(&route.header) => Some(route),
        _ => None,
    }
}

fn is_ours(header: &RouteHeader) -> bool {
    header.address_family == AddressFamily::Inet && !header.flags.contains(RouteFlags::Cloned)
}

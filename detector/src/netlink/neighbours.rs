//! The host's own neighbour cache.

use std::net::Ipv4Addr;

use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use rustix::io::Errno;

use super::{Error, route::Route};
use crate::net::{IfIndex, Mac};

/// What became of the host's cached neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostNeighbour {
    /// The host talked to this hardware address; now it talks to the right one.
    Replaced(Mac),
    /// The host has the right hardware address.
    Right,
    /// The host has no hardware address for it, and will ask when it needs one.
    Unknown,
    /// Somebody set the entry by hand; it stays.
    Static,
}

/// Makes the host talk to `mac` for `address`, if it has another hardware address cached.
///
/// The entry becomes stale, not reachable: the kernel uses it at once, and asks the neighbour itself before long
/// (`Documentation/networking/ip-sysctl.rst`, `delay_first_probe_time`), so dupip's word need not be the last.
pub(super) async fn correct(
    route: &mut Route,
    interface: IfIndex,
    address: Ipv4Addr,
    mac: Mac,
) -> Result<HostNeighbour, Error> {
    let Some(cached) = cached(route, interface, address).await? else { return Ok(HostNeighbour::Unknown) };
    match (cached.header.state, hardware(&cached)) {
        (NeighbourState::Permanent | NeighbourState::Noarp, _) => Ok(HostNeighbour::Static),
        (_, Some(was)) if was == mac => Ok(HostNeighbour::Right),
        (_, Some(was)) => replace(route, interface, address, mac).await.map(|done| match done {
            true => HostNeighbour::Replaced(was),
            false => HostNeighbour::Unknown,
        }),
        (_, None) => Ok(HostNeighbour::Unknown),
    }
}

/// The neighbours on `interface` that the host has heard of lately, or was told of for good.
pub(super) async fn live(route: &mut Route, interface: IfIndex) -> Result<Vec<(Ipv4Addr, Mac)>, Error> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Inet;
    request.attributes.push(NeighbourAttribute::IfIndex(interface.get()));
    let answers = route.dump("list the host's neighbours", RouteNetlinkMessage::GetNeighbour(request)).await?;
    let live = |answer| match answer {
        RouteNetlinkMessage::NewNeighbour(entry) if entry.header.ifindex == interface.get() => {
            let confirmed = matches!(entry.header.state, NeighbourState::Reachable | NeighbourState::Permanent);
            Some((address(&entry)?, hardware(&entry)?)).filter(|_| confirmed)
        }
        _ => None,
    };
    Ok(answers.into_iter().filter_map(live).collect())
}

fn address(neighbour: &NeighbourMessage) -> Option<Ipv4Addr> {
    neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        _ => None,
    })
}

async fn cached(route: &mut Route, interface: IfIndex, address: Ipv4Addr) -> Result<Option<NeighbourMessage>, Error> {
    let request = RouteNetlinkMessage::GetNeighbour(entry(interface, address));
    match route.one("read the host's neighbour", request).await {
        Ok(Some(RouteNetlinkMessage::NewNeighbour(neighbour))) => Ok(Some(neighbour)),
        Ok(_) => Ok(None),
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces and never creates, so an entry that went away meanwhile stays away; `false` then.
async fn replace(route: &mut Route, interface: IfIndex, address: Ipv4Addr, mac: Mac) -> Result<bool, Error> {
    let mut entry = entry(interface, address);
    entry.header.state = NeighbourState::Stale;
    entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    let request = RouteNetlinkMessage::NewNeighbour(entry);
    match route.change("correct the host's neighbour", request, NLM_F_REPLACE).await {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn entry(interface: IfIndex, address: Ipv4Addr) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Inet;
    entry.header.ifindex = interface.get();
    entry.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
    entry
}

/// The cached hardware address; an entry that the kernel still asks for, or has given up on, holds none that it uses.
fn hardware(neighbour: &NeighbourMessage) -> Option<Mac> {
    if matches!(neighbour.header.state, NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None) {
        return None;
    }
    neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

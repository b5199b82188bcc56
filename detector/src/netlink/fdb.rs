//! By which port a bridge reaches a hardware address (`bridge fdb`).

use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};
use rustix::io::Errno;

use super::{Error, route::Route};
use crate::net::{IfIndex, Mac, VlanId};

/// Makes the bridge of `port` reach `mac` there; `false` if it does already, or if somebody set it by hand to be elsewhere.
///
/// The entry is one as the bridge learns them: it grows old, and the next frame of that address moves it to where that came
/// in. Without an entry the bridge would give frames for `mac` to every port, so it is made if there is none.
pub(super) async fn correct(route: &mut Route, port: IfIndex, mac: Mac, vlan: Option<VlanId>) -> Result<bool, Error> {
    if let Some(known) = known(route, port, mac, vlan).await? {
        let by_hand = matches!(known.header.state, NeighbourState::Permanent | NeighbourState::Noarp);
        if by_hand || known.header.ifindex == port.get() {
            return Ok(false);
        }
    }
    let mut learned = entry(port, mac, vlan);
    learned.header.state = NeighbourState::Reachable;
    let request = RouteNetlinkMessage::NewNeighbour(learned);
    gone(port, route.create("correct the bridge's forwarding table", request, NLM_F_REPLACE).await)?;
    Ok(true)
}

/// What the bridge of `port` knows of `mac`, at whatever port.
async fn known(
    route: &mut Route,
    port: IfIndex,
    mac: Mac,
    vlan: Option<VlanId>,
) -> Result<Option<NeighbourMessage>, Error> {
    let request = RouteNetlinkMessage::GetNeighbour(entry(port, mac, vlan));
    match route.one("read the bridge's forwarding table", request).await {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
        answer => Ok(match gone(port, answer)? {
            Some(RouteNetlinkMessage::NewNeighbour(known)) => Some(known),
            _ => None,
        }),
    }
}

/// The kernel says `EINVAL` to a request about what is a port no more (`rtnl_fdb_get` and `rtnl_fdb_add` in
/// `net/core/rtnetlink.c`).
fn gone<T>(port: IfIndex, result: Result<T, Error>) -> Result<T, Error> {
    match result {
        Err(error) if matches!(error.errno(), Some(Errno::NODEV | Errno::INVAL | Errno::OPNOTSUPP)) => {
            Err(Error::NoInterface(port))
        }
        other => other,
    }
}

fn entry(port: IfIndex, mac: Mac, vlan: Option<VlanId>) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = port.get();
    entry.header.flags = NeighbourFlags::Controller;
    entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    entry.attributes.extend(vlan.map(|vlan| NeighbourAttribute::Vlan(vlan.get())));
    entry
}

//! Every interface on the machine, in whatever network namespace: what has to be looked at before it can be said that an
//! address is configured nowhere.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::{
    Error, addresses,
    host::Host,
    links::{self, Interface, VlanDevice},
    neighbours,
    netns::{self, Found},
    route::Route,
    vlans,
};
use crate::net::{BridgeName, IfIndex, Ipv4Net, Mac, NetnsId, VlanId};

/// Every interface that there is, as far as it can be seen.
#[derive(Debug)]
pub struct Everywhere {
    /// The interfaces that have IPv4 addresses.
    pub interfaces: Vec<Somewhere>,
    /// Namespaces that are there and could not be looked into, and why.
    pub closed: Vec<(Found, Error)>,
    /// Ports of bridges behind which there is a namespace that nothing leads to.
    pub blind: Vec<(BridgeName, String)>,
    /// Ports of bridges that have no interface at their other end: taps, network cards, tunnels.
    pub open_ended: Vec<(BridgeName, String)>,
    /// The namespace of whoever looks.
    pub own: NetnsId,
}

/// A port, as the bridge that it belongs to and its own name.
type PortName = (BridgeName, String);

/// What is at the other ends of ports.
#[derive(Default)]
struct Peers {
    /// Which port is the other end of an interface in a namespace.
    known: BTreeMap<(NetnsId, IfIndex), PortName>,
    /// Those whose other ends cannot be found.
    blind: Vec<PortName>,
    /// Those that have no interface at the other end.
    open_ended: Vec<PortName>,
}

/// An interface, with where it is.
#[derive(Clone, Debug)]
pub struct Somewhere {
    /// The namespace that it is in.
    pub netns: Found,
    /// The interface.
    pub interface: Interface,
    /// The bridge that its other end is a port of, and that port's name; none if its other end is no port, or not here.
    pub port: Option<(BridgeName, String)>,
}

/// What is on a bridge without looking behind its ports.
#[derive(Debug)]
pub struct Outside {
    /// The bridge.
    pub bridge: links::Bridge,
    /// The host's own addresses on it.
    pub addresses: Vec<Ipv4Net>,
    /// The host's VLAN devices on top of it.
    pub vlans: Vec<VlanDevice>,
    /// Its ports.
    pub ports: Vec<links::Port>,
}

impl Host {
    /// Looks into every namespace that a name or a process leads to.
    ///
    /// # Errors
    /// If the namespaces or the links cannot be listed at all. One that cannot be looked into is told of for itself.
    pub async fn everywhere(&mut self) -> Result<Everywhere, Error> {
        let (own, found) = (netns::own()?, netns::all().await?);
        let Peers { known, blind, open_ended } = self.peers().await?;
        let mut everywhere = Everywhere { interfaces: Vec::new(), closed: Vec::new(), blind, open_ended, own };
        for netns in found.into_values() {
            match look_into(&netns).await {
                Ok(interfaces) => everywhere.interfaces.extend(interfaces.into_iter().map(|interface| Somewhere {
                    port: known.get(&(netns.id, interface.index)).cloned(),
                    netns: netns.clone(),
                    interface,
                })),
                Err(error) if is_gone(&error) => {}
                Err(error) => everywhere.closed.push((netns, error)),
            }
        }
        Ok(everywhere)
    }

    /// The bridge called `name` as it is on the host, without a look behind its ports.
    ///
    /// # Errors
    /// As [`Host::bridge`]; and if its addresses or its ports cannot be listed.
    pub async fn outside(&mut self, name: BridgeName) -> Result<Outside, Error> {
        let bridge = self.bridge(name).await?;
        let addresses = addresses::networks(&mut self.route, bridge.index).await?;
        let vlans = links::vlan_devices(&mut self.route, bridge.index).await?;
        let ports = links::ports(&mut self.route, bridge.index).await?;
        let mut outside = Outside { bridge, addresses, vlans, ports };
        if bridge.vlan_filtering {
            outside.sort_into(&vlans::pvids(&mut self.route).await?);
        }
        Ok(outside)
    }

    /// The neighbours on `bridge` that the host has heard of lately, or was told of for good. A hint: that somebody is
    /// not among them says nothing.
    ///
    /// # Errors
    /// What kept the kernel from listing them.
    pub async fn neighbours(&mut self, bridge: IfIndex) -> Result<Vec<(std::net::Ipv4Addr, Mac)>, Error> {
        neighbours::live(&mut self.route, bridge).await
    }

    async fn peers(&mut self) -> Result<Peers, Error> {
        let (bridges, ports) = links::bridges_and_ports(&mut self.route).await?;
        let names: BTreeMap<_, _> = bridges.into_iter().map(|bridge| (bridge.index, bridge.name)).collect();
        let namespaces = netns::by_nsid(&mut self.route).await?;
        let mut peers = Peers::default();
        for port in ports {
            let Some(bridge) = names.get(&port.bridge) else { continue };
            match port.peer {
                None if port.kind == links::PortKind::Veth => {}
                None => peers.open_ended.push((*bridge, port.name)),
                Some(peer) => match namespaces.get(&peer.nsid) {
                    Some(netns) => drop(peers.known.insert((netns.id, peer.index), (*bridge, port.name))),
                    None => peers.blind.push((*bridge, port.name)),
                },
            }
        }
        Ok(peers)
    }
}

impl Outside {
    /// Notes where untagged frames belong.
    fn sort_into(&mut self, pvids: &BTreeMap<IfIndex, VlanId>) {
        self.bridge.pvid = pvids.get(&self.bridge.index).copied();
        for port in &mut self.ports {
            port.pvid = pvids.get(&port.index).copied();
        }
    }
}

async fn look_into(netns: &Found) -> Result<Vec<Interface>, Error> {
    let mut route: Route = netns::enter(&netns.open()?).await?;
    let mut interfaces = links::interfaces(&mut route).await?;
    interfaces.retain(|interface| !interface.addresses.is_empty());
    Ok(interfaces)
}

/// A namespace that nothing leads to any more is gone, or soon will be.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::OpenNetns { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
        || error.errno() == Some(Errno::SRCH)
}

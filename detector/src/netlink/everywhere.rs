//! Every interface on the machine, in whatever network namespace: what has to be looked at before it can be said that an
//! address is configured nowhere.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::{
    Error, addresses,
    host::Host,
    links::{self, Interface},
    neighbours,
    netns::{self, Found},
    route::Route,
};
use crate::net::{BridgeName, IfIndex, Ipv4Net, Mac, NetnsId};

/// Every interface that there is, as far as it can be seen.
#[derive(Debug)]
pub struct Everywhere {
    /// The interfaces that have IPv4 addresses.
    pub interfaces: Vec<Somewhere>,
    /// Namespaces that are there and could not be looked into, and why.
    pub closed: Vec<(Found, Error)>,
    /// Ports of bridges behind which there is a namespace that nothing leads to.
    pub blind: Vec<(BridgeName, String)>,
    /// The namespace of whoever looks.
    pub own: NetnsId,
}

/// A port, as the bridge that it belongs to and its own name.
pub type PortName = (BridgeName, String);

/// An interface, with where it is.
#[derive(Clone, Debug)]
pub struct Somewhere {
    /// The namespace that it is in.
    pub netns: Found,
    /// The interface.
    pub interface: Interface,
    /// The bridge that its other end is a port of, and that port's name; none if its other end is no port, or not here.
    pub port: Option<PortName>,
}

/// What is on a bridge without looking behind its ports.
#[derive(Debug)]
pub struct Outside {
    /// The bridge.
    pub bridge: links::Bridge,
    /// The host's own addresses on it.
    pub addresses: Vec<Ipv4Net>,
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
        let (ports, blind) = self.peers().await?;
        let mut everywhere = Everywhere { interfaces: Vec::new(), closed: Vec::new(), blind, own };
        for netns in found.into_values() {
            match look_into(&netns).await {
                Ok(interfaces) => everywhere.interfaces.extend(interfaces.into_iter().map(|interface| Somewhere {
                    port: ports.get(&(netns.id, interface.index)).cloned(),
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
        let ports = links::ports(&mut self.route, bridge.index).await?;
        Ok(Outside { bridge, addresses, ports })
    }

    /// The neighbours on `bridge` that the host has heard of lately, or was told of for good. A hint: that somebody is
    /// not among them says nothing.
    ///
    /// # Errors
    /// What kept the kernel from listing them.
    pub async fn neighbours(&mut self, bridge: IfIndex) -> Result<Vec<(std::net::Ipv4Addr, Mac)>, Error> {
        neighbours::live(&mut self.route, bridge).await
    }

    /// Which port is the other end of an interface in a namespace, and the ports whose other ends cannot be found.
    async fn peers(&mut self) -> Result<(BTreeMap<(NetnsId, IfIndex), PortName>, Vec<PortName>), Error> {
        let (bridges, ports) = links::bridges_and_ports(&mut self.route).await?;
        let names: BTreeMap<_, _> = bridges.into_iter().map(|bridge| (bridge.index, bridge.name)).collect();
        let namespaces = netns::by_nsid(&mut self.route).await?;
        let (mut known, mut blind) = (BTreeMap::new(), Vec::new());
        for port in ports {
            let (Some(peer), Some(bridge)) = (port.peer, names.get(&port.bridge)) else { continue };
            match namespaces.get(&peer.nsid) {
                Some(netns) => drop(known.insert((netns.id, peer.index), (*bridge, port.name))),
                None => blind.push((*bridge, port.name)),
            }
        }
        Ok((known, blind))
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

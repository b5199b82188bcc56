//! The runner as its kernel shows it: bridges, ports, and what is configured in the sandboxes behind them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{
    Error, addresses,
    behind::Behind,
    fdb,
    links::{self, Bridge, Peer, Port, PortKind, VlanDevice},
    neighbours::{self, HostNeighbour},
    netns::{self, Found, NetnsFile, Nsid},
    route::Route,
    vlans,
};
use crate::net::{BridgeName, IfIndex, Ipv4Net, Mac, Reach, VlanId};

/// A view of the network namespace that the agent runs in, and through it into those of the sandboxes.
pub struct Host {
    pub(super) route: Route,
    namespaces: BTreeMap<Nsid, Found>,
}

/// A bridge with all that is behind its ports.
#[derive(Debug)]
pub struct Survey {
    /// The bridge.
    pub bridge: Bridge,
    /// The host's own addresses on it.
    pub addresses: Vec<Ipv4Net>,
    /// The host's VLAN devices on top of it: the host itself in tagged domains.
    pub vlans: Vec<VlanDevice>,
    /// Its ports.
    pub ports: Vec<PortSurvey>,
}

/// A port with what is behind it.
#[derive(Debug)]
pub struct PortSurvey {
    /// The port.
    pub port: Port,
    /// The namespace behind it, if anything leads there.
    pub netns: Option<Found>,
    /// How it was looked behind, or why not.
    pub reach: Reach,
    /// What is configured there.
    pub inside: Inside,
}

/// What is configured behind a port. That nothing could be seen is never the same as that nothing is there.
#[derive(Debug)]
pub enum Inside {
    /// The interface at the other end and what stands on it, with their addresses; there may be none.
    Seen(Behind),
    /// The port leads to no other namespace: a tap, a network card, or a veth whose other end is here.
    NoPeer,
    /// There is a namespace, but it could not be looked into.
    Unreachable(Error),
}

impl Host {
    /// A view from the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Open`] if there is no netlink socket to be had.
    pub fn open() -> Result<Self, Error> {
        let route = Route::open().map_err(Error::Open)?;
        Ok(Self { route, namespaces: BTreeMap::new() })
    }

    /// The bridge called `name`.
    ///
    /// # Errors
    /// [`Error::NoBridge`] if there is none, [`Error::NotABridge`] if the name is another interface's, or what else
    /// kept the kernel from telling.
    pub async fn bridge(&mut self, name: BridgeName) -> Result<Bridge, Error> {
        links::bridge(&mut self.route, name).await
    }

    /// The bridge called `name`, with all of its ports and what is behind each. A port that cannot be looked behind
    /// says so for itself and hides no other.
    ///
    /// # Errors
    /// As [`Host::bridge`]; and if the ports or the namespaces cannot be listed at all.
    pub async fn survey(&mut self, name: BridgeName) -> Result<Survey, Error> {
        let super::Outside { bridge, addresses, vlans, ports: outside } = self.outside(name).await?;
        self.namespaces = netns::by_nsid(&mut self.route).await?;
        let mut ports = Vec::new();
        for port in outside {
            let netns = match port.peer {
                Some(peer) => Some((peer, self.open_known(peer.nsid).await)),
                None => None,
            };
            ports.push(self.look_behind(port, netns).await);
        }
        Ok(Survey { bridge, addresses, vlans, ports })
    }

    /// Every IPv4 address that the host itself has, on whatever interface. It answers for all of them on each one
    /// (`arp_ignore` in the kernel's `ip-sysctl.rst`, unless that is set).
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn own_addresses(&mut self) -> Result<BTreeSet<Ipv4Addr>, Error> {
        Ok(addresses::all(&mut self.route, None).await?.iter().map(|(_, network)| network.addr()).collect())
    }

    /// What is behind one port, and where its untagged frames belong. Looks for its namespace anew if it is not known.
    pub async fn survey_port(&mut self, mut port: Port) -> PortSurvey {
        match self.pvid(&port).await {
            Ok(pvid) => port.pvid = pvid,
            // In which domain its addresses are is not known, and to guess it would be worse than to say so.
            Err(error) => return PortSurvey::closed(port, error),
        }
        let netns = match port.peer {
            Some(peer) => Some((peer, self.netns(peer.nsid).await)),
            None => None,
        };
        self.look_behind(port, netns).await
    }

    /// Opens the namespace that is called `nsid` here; it is looked for anew if it is not where it was.
    ///
    /// # Errors
    /// [`Error::NoWayIn`] if neither a name nor a process leads into it.
    pub async fn netns(&mut self, nsid: Nsid) -> Result<NetnsFile, Error> {
        if let Ok(file) = self.open_known(nsid).await {
            return Ok(file);
        }
        self.namespaces = netns::by_nsid(&mut self.route).await?;
        self.open_known(nsid).await
    }

    /// Makes the host itself talk to `mac` for `address` on `bridge`, if it has cached another hardware address.
    /// Creates no entry, and leaves alone what somebody set by hand.
    ///
    /// # Errors
    /// What kept the kernel from reading or changing the entry.
    pub async fn correct_neighbour(
        &mut self,
        bridge: IfIndex,
        address: Ipv4Addr,
        mac: Mac,
    ) -> Result<HostNeighbour, Error> {
        neighbours::correct(&mut self.route, bridge, address, mac).await
    }

    /// Makes `bridge` send frames for `mac` out of `port`, if it knows another port for them or none; whether that was
    /// necessary. What two ports have as theirs is at the one that spoke last, so this holds only while the other is kept
    /// from speaking. An entry that somebody set by hand stays. `vlan` is the tag of the domain; a bridge that filters VLANs
    /// has the untagged domain in one of them, too.
    ///
    /// # Errors
    /// [`Error::NoInterface`] if there is no such port any more, or what kept the kernel from reading or changing the entry.
    pub async fn correct_fdb(
        &mut self,
        bridge: IfIndex,
        port: IfIndex,
        mac: Mac,
        vlan: Option<VlanId>,
    ) -> Result<bool, Error> {
        let filters = links::filters_vlans(&links::at(&mut self.route, bridge).await?);
        let vlan = match (filters, vlan) {
            // It looks at no tags, and knows an address in one place only.
            (false, _) => None,
            (true, None) => vlans::pvid(&mut self.route, bridge).await?,
            (true, tagged) => tagged,
        };
        fdb::correct(&mut self.route, port, mac, vlan).await
    }

    async fn pvid(&mut self, port: &Port) -> Result<Option<VlanId>, Error> {
        match self.read_pvid(port).await {
            // The port has left its bridge, or the bridge is gone: that is told of by an event, and is no failure.
            Err(Error::NoInterface(_)) => Ok(None),
            pvid => pvid,
        }
    }

    async fn read_pvid(&mut self, port: &Port) -> Result<Option<VlanId>, Error> {
        let bridge = links::at(&mut self.route, port.bridge).await?;
        match links::filters_vlans(&bridge) {
            true => vlans::pvid(&mut self.route, port.index).await,
            false => Ok(None),
        }
    }

    /// Enters the namespace behind `port`, which is `netns`. If that cannot be done the kernel is asked by its id: whoever
    /// may administer a namespace need not be able to enter it for that.
    async fn look_behind(&mut self, port: Port, netns: Option<(Peer, Result<NetnsFile, Error>)>) -> PortSurvey {
        let Some((peer, netns)) = netns else { return PortSurvey::without_peer(port) };
        let found = netns.is_ok().then(|| self.namespaces.get(&peer.nsid).cloned()).flatten();
        let (reach, inside) = match enter(netns, &port, peer).await {
            Ok(behind) => (Reach::Netns, Inside::Seen(behind)),
            Err(error) => match Behind::look(&mut self.route, Some(peer.nsid), &port, peer).await {
                Ok(behind) => (Reach::NetnsById, Inside::Seen(behind)),
                Err(_) => (error.reach(), Inside::Unreachable(error)),
            },
        };
        PortSurvey { port, netns: found, reach, inside }
    }

    /// Asks the kernel again whose the id is: it may have been given anew since the namespaces were listed.
    async fn open_known(&mut self, nsid: Nsid) -> Result<NetnsFile, Error> {
        let file = self.namespaces.get(&nsid).ok_or(Error::NoWayIn(nsid))?.open()?;
        match netns::nsid_of(&mut self.route, &file).await? {
            Some(id) if id == nsid => Ok(file),
            _ => Err(Error::NoWayIn(nsid)),
        }
    }
}

impl PortSurvey {
    fn without_peer(port: Port) -> Self {
        let reach = match port.kind {
            PortKind::Veth => Reach::Local,
            PortKind::Tap => Reach::Tap,
            PortKind::Other => Reach::Other,
        };
        Self { port, netns: None, reach, inside: Inside::NoPeer }
    }

    fn closed(port: Port, error: Error) -> Self {
        Self { port, netns: None, reach: error.reach(), inside: Inside::Unreachable(error) }
    }
}

async fn enter(netns: Result<NetnsFile, Error>, port: &Port, peer: Peer) -> Result<Behind, Error> {
    Behind::look(&mut netns::enter(&netns?).await?, None, port, peer).await
}

//! Which bridges, ports and sandboxes there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use crate::{
    net::{BridgeName, Domain, IfIndex, Ipv4Net, Mac, NetnsId, Owner, VlanId},
    time::Timestamp,
};

/// A watched bridge: the runner's own end of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: BridgeName,
    /// The bridge device, by which the host itself speaks.
    pub port: IfIndex,
    /// The bridge device's hardware address.
    pub mac: Mac,
    /// The host's addresses on it, each with its subnet.
    pub networks: Vec<Ipv4Net>,
}

/// Who sits behind a port, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// The network namespace, if the port leads into one.
    pub netns: Option<NetnsId>,
    /// The name that people know it by.
    pub name: Option<String>,
    /// Every name that a lease may know it by, the best first.
    pub owners: Vec<Owner>,
}

#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) bridge: BridgeName,
    pub(super) sandbox: Sandbox,
    /// When the last successful look behind the port began.
    pub(super) surveyed_at: Option<Timestamp>,
    /// The hardware address of the interface that was looked at.
    pub(super) mac: Option<Mac>,
}

/// What makes two stations one party: the namespace behind them, else the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PartyKey {
    Netns(NetnsId),
    Port(IfIndex),
}

#[derive(Debug, Default)]
pub(super) struct Topology {
    pub(super) bridges: BTreeMap<BridgeName, Bridge>,
    pub(super) ports: BTreeMap<IfIndex, Port>,
}

impl Topology {
    pub(super) fn host(&self, port: IfIndex) -> Option<&Bridge> {
        self.bridges.values().find(|bridge| bridge.port == port)
    }

    pub(super) fn bridge_of(&self, port: IfIndex) -> Option<BridgeName> {
        let port_of = self.ports.get(&port).map(|known| known.bridge);
        port_of.or_else(|| self.host(port).map(|bridge| bridge.name))
    }

    pub(super) fn domain_of(&self, port: IfIndex, vlan: Option<VlanId>) -> Option<Domain> {
        self.bridge_of(port).map(|bridge| Domain { bridge, vlan })
    }

    /// The host's networks in the domain. Those of a tagged VLAN are not on the bridge device and so not known.
    pub(super) fn networks(&self, domain: Domain) -> &[Ipv4Net] {
        match (domain.vlan, self.bridges.get(&domain.bridge)) {
            (None, Some(bridge)) => &bridge.networks,
            _ => &[],
        }
    }

    pub(super) fn prefix_len(&self, domain: Domain, address: Ipv4Addr) -> Option<u8> {
        self.networks(domain).iter().find(|network| network.contains(&address)).map(Ipv4Net::prefix_len)
    }

    pub(super) fn party(&self, port: IfIndex) -> PartyKey {
        let netns = self.ports.get(&port).and_then(|port| port.sandbox.netns);
        netns.map_or(PartyKey::Port(port), PartyKey::Netns)
    }

    /// The names that a sandbox alone goes by. Several may run in one systemd unit or control group, and a lease in such a
    /// name would be anybody's.
    pub(super) fn own_names(&self, port: IfIndex) -> Vec<Owner> {
        let owners = self.ports.get(&port).map(|port| port.sandbox.owners.as_slice()).unwrap_or_default();
        owners.iter().filter(|owner| !self.is_shared(owner)).cloned().collect()
    }

    /// Whether several parties go by a name.
    pub(super) fn is_shared(&self, owner: &Owner) -> bool {
        let bearers = self.ports.iter().filter(|(_, port)| port.sandbox.owners.contains(owner));
        bearers.map(|(index, _)| self.party(*index)).collect::<BTreeSet<_>>().len() > 1
    }

    pub(super) fn ports_of(&self, bridge: BridgeName) -> Vec<IfIndex> {
        self.ports.iter().filter(|(_, port)| port.bridge == bridge).map(|(index, _)| *index).collect()
    }
}

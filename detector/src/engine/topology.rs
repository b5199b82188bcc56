//! Which bridges, ports and sandboxes there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::policy::Policy;
use crate::{
    net::{BridgeName, Domain, IfIndex, Ipv4Net, Mac, NetnsId, Owner, Reach, Station, VlanId},
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
    /// The VLAN that what the host says untagged belongs to, if the bridge tells VLANs apart. It is the bridge's untagged
    /// domain, whatever its number.
    pub pvid: Option<VlanId>,
    /// The host's own interfaces in VLANs of the bridge.
    pub vlans: Vec<VlanDevice>,
}

/// An interface of the host in a VLAN of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanDevice {
    /// The VLAN.
    pub vlan: VlanId,
    /// Its hardware address.
    pub mac: Mac,
    /// The host's addresses on it, each with its subnet.
    pub networks: Vec<Ipv4Net>,
}

/// A port of a watched bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its index.
    pub index: IfIndex,
    /// Its interface name.
    pub name: String,
    /// Whose port it is.
    pub bridge: BridgeName,
    /// The VLAN that what comes in untagged belongs to, if the bridge tells VLANs apart.
    pub pvid: Option<VlanId>,
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

/// A port with what is known of what is behind it.
#[derive(Clone, Debug)]
pub(super) struct KnownPort {
    pub(super) port: Port,
    pub(super) sandbox: Sandbox,
    /// When the last successful look behind the port began.
    pub(super) surveyed_at: Option<Timestamp>,
    /// The hardware addresses in the namespace that was looked into.
    pub(super) macs: BTreeSet<Mac>,
    /// How far it could be looked behind it; `None` if nobody has looked yet.
    pub(super) reach: Option<Reach>,
    /// Whether the namespace that was looked into forwards IPv4.
    pub(super) forwards: bool,
    pub(super) external: bool,
    pub(super) ignored: bool,
}

/// What makes several stations one party: the namespace that they are in, if it could be looked into; else each is one of
/// its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PartyKey {
    Netns(NetnsId),
    /// The namespace behind a port, which has nothing to tell it by.
    Behind(IfIndex),
    Station(Station),
}

#[derive(Debug, Default)]
pub(super) struct Topology {
    pub(super) bridges: BTreeMap<BridgeName, Bridge>,
    pub(super) ports: BTreeMap<IfIndex, KnownPort>,
}

impl KnownPort {
    pub(super) fn new(port: Port, policy: &Policy) -> Self {
        let (external, ignored) = (policy.is_external(&port.name), policy.is_ignored(&port.name));
        Self {
            port,
            sandbox: Sandbox::default(),
            surveyed_at: None,
            macs: BTreeSet::new(),
            reach: None,
            forwards: false,
            external,
            ignored,
        }
    }
}

impl Topology {
    pub(super) fn host(&self, port: IfIndex) -> Option<&Bridge> {
        self.bridges.values().find(|bridge| bridge.port == port)
    }

    pub(super) fn bridge_of(&self, port: IfIndex) -> Option<BridgeName> {
        let port_of = self.ports.get(&port).map(|known| known.port.bridge);
        port_of.or_else(|| self.host(port).map(|bridge| bridge.name))
    }

    /// Where a frame belongs that came in by `port` with `tag`. What the bridge puts into the VLAN of the host's untagged
    /// frames is its untagged domain.
    pub(super) fn domain_of(&self, port: IfIndex, tag: Option<VlanId>) -> Option<Domain> {
        let bridge = self.bridge_of(port)?;
        let pvid = self.ports.get(&port).and_then(|known| known.port.pvid);
        let native = self.bridges.get(&bridge).and_then(|bridge| bridge.pvid);
        Some(Domain { bridge, vlan: tag.or(pvid).filter(|vlan| Some(*vlan) != native) })
    }

    /// The tags under which a domain's frames may come in by a port.
    pub(super) fn tags(&self, port: IfIndex, domain: Domain) -> BTreeSet<Option<VlanId>> {
        let pvid = self.ports.get(&port).and_then(|known| known.port.pvid);
        let native = self.bridges.get(&domain.bridge).and_then(|bridge| bridge.pvid);
        let tags = [None, domain.vlan, pvid, native].into_iter();
        tags.filter(|tag| self.domain_of(port, *tag) == Some(domain)).collect()
    }

    /// Every name that whoever is behind a port goes by.
    pub(super) fn owners(&self, port: IfIndex) -> Vec<Owner> {
        self.ports.get(&port).map(|known| known.sandbox.owners.clone()).unwrap_or_default()
    }

    /// The host's networks in the domain.
    pub(super) fn networks(&self, domain: Domain) -> &[Ipv4Net] {
        let Some(bridge) = self.bridges.get(&domain.bridge) else { return &[] };
        match domain.vlan {
            None => &bridge.networks,
            Some(vlan) => bridge.vlans.iter().find(|device| device.vlan == vlan).map_or(&[], |device| &device.networks),
        }
    }

    pub(super) fn prefix_len(&self, domain: Domain, address: Ipv4Addr) -> Option<u8> {
        self.networks(domain).iter().find(|network| network.contains(&address)).map(Ipv4Net::prefix_len)
    }

    pub(super) fn party(&self, station: Station) -> PartyKey {
        match self.ports.get(&station.port).filter(|known| known.macs.contains(&station.mac)) {
            Some(known) => known.sandbox.netns.map_or(PartyKey::Behind(station.port), PartyKey::Netns),
            None => PartyKey::Station(station),
        }
    }

    /// The name of a port's interface, or of the bridge device's.
    pub(super) fn name(&self, port: IfIndex) -> String {
        let name = self.ports.get(&port).map(|known| known.port.name.clone());
        name.or_else(|| self.host(port).map(|bridge| bridge.name.to_string())).unwrap_or_default()
    }

    pub(super) fn is_external(&self, port: IfIndex) -> bool {
        self.ports.get(&port).is_some_and(|known| known.external)
    }

    /// The names that a sandbox alone goes by. Several may run in one systemd unit or control group, and a lease in such a
    /// name would be anybody's.
    pub(super) fn own_names(&self, port: IfIndex) -> Vec<Owner> {
        let owners = self.ports.get(&port).map(|known| known.sandbox.owners.as_slice()).unwrap_or_default();
        owners.iter().filter(|owner| !self.is_shared(owner)).cloned().collect()
    }

    /// Whether several sandboxes go by a name.
    pub(super) fn is_shared(&self, owner: &Owner) -> bool {
        let bearers = self.ports.iter().filter(|(_, known)| known.sandbox.owners.contains(owner));
        let sandbox = |(index, known): (&IfIndex, &KnownPort)| known.sandbox.netns.ok_or(*index);
        bearers.map(sandbox).collect::<BTreeSet<_>>().len() > 1
    }

    pub(super) fn ports_of(&self, bridge: BridgeName) -> Vec<IfIndex> {
        self.ports.iter().filter(|(_, known)| known.port.bridge == bridge).map(|(index, _)| *index).collect()
    }
}

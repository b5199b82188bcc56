//! What happens around the agent, turned into inputs: bridges and ports come and go, frames come in, events are lost.

use std::{sync::Arc, time::Duration};

use super::{
    clock,
    readiness::Latch,
    run::{Agent, Watched},
    surveyor::{Errand, Found, News, Seen, bridge_told},
    tapper::Order,
};
use crate::{
    allocator::{InvalidPool, Pool, PoolError, Store},
    capture::{Post, Side},
    engine::{self, Claim, Input},
    net::{BridgeName, Domain, IfIndex, Ipv4Net},
    netlink::{self, Bridge, Event, Nsid, Port, PortKind},
    telemetry::Feature,
    time::{Span, Timestamp},
};

/// How long the loop waits at most until the store has the pools of a bridge.
const PATIENCE: Duration = Duration::from_secs(1);

impl Agent {
    pub(super) fn claims(&mut self, claims: Vec<Claim>) {
        claims.into_iter().for_each(|claim| self.tell(Input::Claim(claim)));
    }

    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::BridgeUp(bridge) => self.bridge_changed(bridge),
            Event::BridgeGone(bridge) => self.bridge_gone(bridge.index),
            Event::PortUp(port) => self.port_told(port),
            Event::PortDown { index, .. } => self.port_gone(index),
            Event::AddressAdded { nsid: None, index, .. } | Event::AddressRemoved { nsid: None, index, .. } => {
                self.look_at_interface(index);
            }
            Event::AddressAdded { nsid: Some(nsid), .. }
            | Event::AddressRemoved { nsid: Some(nsid), .. }
            | Event::PeerChanged { nsid, .. } => self.look_into(nsid),
            // Its ports go with it, and are told of one by one.
            Event::NetnsGone(_) => {}
            Event::VlansChanged { index } => self.vlans_changed(index),
            Event::VlanDeviceChanged { on, .. } => self.look_at_interface(on),
            Event::Overflow => {
                let reason = "the kernel's notices came too fast; everything is read anew";
                self.telemetry.degraded(Feature::Inventory, Some(&reason));
                self.look_at_everything();
            }
        }
    }

    pub(super) fn news(&mut self, news: News) {
        match news {
            News::Bridge(found) => self.bridge_surveyed(found),
            News::NoBridge(name, error) => self.bridge_not_surveyed(name, &error),
            News::Port(seen) => self.port_surveyed(seen),
            News::Sweep(domain, addresses) => self.sweep(domain, addresses),
            News::Tapped => self.ready(),
            News::Pools(bridge, kept) => self.pools_kept(bridge, kept),
            News::StoreRestored => self.store_restored(),
            News::Input(input) => self.tell(input),
        }
    }

    /// Every tap that was ordered is in place. What was said before, and answered to the questions of the inventory, was
    /// heard by nobody, so it is asked for now.
    fn ready(&mut self) {
        let there = self.bridges.iter().filter(|(_, watched)| watched.is_some()).map(|(name, _)| *name);
        there.collect::<Vec<_>>().into_iter().for_each(|bridge| self.tell(Input::ClaimsLost(bridge)));
        let (mode, bridges) = (self.settings.borrow().engine.mode, self.bridges.values().flatten().count());
        let (ports, hook) = (self.ports.len(), self.hook.map(tracing::field::debug));
        tracing::info!(event = "ready", ?mode, hook, bridges, ports, "watches every port");
        self.latches.release(Latch::Taps);
    }

    fn bridge_changed(&mut self, bridge: Bridge) {
        let Some(known) = self.bridges.get_mut(&bridge.name) else { return };
        let Some(known) = known.as_mut().filter(|known| known.bridge.index == bridge.index) else {
            return self.look_at(bridge.name);
        };
        if known.bridge.vlan_filtering != bridge.vlan_filtering {
            return self.look_at(bridge.name);
        }
        // An event does not tell the VLAN.
        let bridge = Bridge { pvid: known.bridge.pvid, ..bridge };
        // A bridge takes the lowest hardware address of its ports, so it changes with them.
        if std::mem::replace(&mut known.bridge, bridge).mac != bridge.mac {
            let watched = known.clone();
            self.tell_bridge(watched);
        }
    }

    fn tell_bridge(&mut self, watched: Watched) {
        let Watched { bridge, networks, vlans } = watched;
        self.tell(Input::BridgeUp(bridge_told(bridge, networks, vlans)));
    }

    /// Looks at the bridge that an interface is, or stands on.
    fn look_at_interface(&mut self, index: IfIndex) {
        let is_on = |watched: &Watched| {
            watched.bridge.index == index || watched.vlans.iter().any(|device| device.interface.index == index)
        };
        let mut watched = self.bridges.values().flatten();
        if let Some(name) = watched.find(|watched| is_on(watched)).map(|watched| watched.bridge.name) {
            self.look_at(name);
        }
    }

    /// The VLANs of a bridge or a port have changed. Where nobody asks for them, that is nothing.
    fn vlans_changed(&mut self, index: IfIndex) {
        let Some(name) = self.bridge_of(index) else { return };
        let filters = |watched: &Watched| watched.bridge.vlan_filtering;
        if self.bridges.get(&name).and_then(Option::as_ref).is_some_and(filters) {
            self.look_at(name);
        }
    }

    /// Asks for a look at a bridge and everything behind its ports.
    pub(super) fn look_at(&mut self, name: BridgeName) {
        self.looks += 1;
        self.send_errand(Errand::Bridge(name));
    }

    fn bridge_gone(&mut self, index: IfIndex) {
        self.told(index);
        let Some(name) = self.bridge_name(index) else { return };
        self.bridges.insert(name, None);
        self.tapper.order(Order::Detach(index));
        let ports: Vec<IfIndex> =
            self.ports.values().filter(|port| port.bridge == index).map(|port| port.index).collect();
        ports.into_iter().for_each(|port| self.port_down(port));
        tracing::warn!(event = "bridge_gone", bridge = %name, "{name} is gone; waits for it to appear again");
        self.tell(Input::BridgeDown(name));
    }

    /// Remembers that an interface was told of while a look is under way that may show it as it was before.
    fn told(&mut self, index: IfIndex) {
        if self.looks > 0 {
            self.told.insert(index, clock::now());
        }
    }

    /// Whether an interface was told of after a look at it had begun.
    fn is_outdated(&self, index: IfIndex, began: Timestamp) -> bool {
        self.told.get(&index).is_some_and(|at| *at >= began)
    }

    fn port_told(&mut self, port: Port) {
        self.told(port.index);
        if self.looks > 0 && self.bridge_name(port.bridge).is_none() {
            // Whether its bridge is watched is known when the look is done.
            self.early.insert(port.index, port.clone());
        }
        self.port_up(port, true);
    }

    fn port_gone(&mut self, port: IfIndex) {
        self.told(port);
        self.early.remove(&port);
        self.port_down(port);
    }

    fn look_done(&mut self) {
        self.looks = self.looks.saturating_sub(1);
        for port in std::mem::take(&mut self.early).into_values() {
            self.port_told(port);
        }
        if self.looks == 0 {
            self.told.clear();
            self.early.clear();
        }
    }

    fn bridge_surveyed(&mut self, found: Found) {
        let Found { began, bridge, networks, vlans, ports } = found;
        if !self.is_outdated(bridge.index, began) {
            self.bridge_up(Watched { bridge, networks: networks.clone(), vlans });
            let ports: Vec<Seen> = ports.into_iter().filter(|seen| !self.is_outdated(seen.port.index, began)).collect();
            self.drop_ports_but(bridge.index, &ports, began);
            for seen in &ports {
                self.port_up(seen.port.clone(), false);
            }
            ports.into_iter().for_each(|seen| self.port_surveyed(seen));
            // After what is seen has been judged, and before anything is done about it.
            self.keep_pools(bridge.name, &networks);
        }
        self.look_done();
        self.inventory.remove(&bridge.name);
        self.inventory_done_if_complete();
    }

    fn bridge_up(&mut self, watched: Watched) {
        let bridge = watched.bridge;
        let before =
            self.bridges.insert(bridge.name, Some(watched.clone())).flatten().map(|before| before.bridge.index);
        if before != Some(bridge.index) {
            tracing::info!(event = "bridge_found", bridge = %bridge.name, "watches {}", bridge.name);
            let post = Post { bridge: bridge.index, side: Side::Egress, watch_ipv4: false };
            self.tapper.order(Order::Attach(bridge.index, post, bridge.name));
        }
        self.tell_bridge(watched);
    }

    /// A bridge that is not there is nothing to wait for now; one that cannot be looked at is looked at again.
    fn bridge_not_surveyed(&mut self, name: BridgeName, error: &netlink::Error) {
        self.look_done();
        match (error, self.bridges.get(&name)) {
            (netlink::Error::NoBridge(_), Some(Some(known))) => self.bridge_gone(known.bridge.index),
            (netlink::Error::NoBridge(_), _) => {}
            _ => {
                self.inventory.insert(name);
                return self.telemetry.degraded(Feature::Inventory, Some(error));
            }
        }
        self.inventory.remove(&name);
        self.inventory_done_if_complete();
    }

    /// Looks again at what could not be looked at.
    pub(super) fn look_again(&mut self) {
        if self.looks == 0 {
            self.inventory.clone().into_iter().for_each(|name| self.look_at(name));
        }
        self.keep_all_pools();
        let blind: Vec<Port> = self.blind.iter().filter_map(|port| self.ports.get(port).cloned()).collect();
        blind.into_iter().for_each(|port| self.send_errand(Errand::Port(port)));
    }

    pub(super) fn inventory_done_if_complete(&mut self) {
        if self.inventory.is_empty() {
            self.tell(Input::InventoryDone);
            self.restored_if_complete();
            self.latches.release(Latch::Inventory);
            self.tapper.order(Order::Tell);
        }
    }

    /// Ports that went while nobody listened.
    fn drop_ports_but(&mut self, bridge: IfIndex, found: &[Seen], began: Timestamp) {
        let is_found = |index: IfIndex| found.iter().any(|seen| seen.port.index == index);
        let of_bridge = self.ports.values().filter(|port| port.bridge == bridge).map(|port| port.index);
        let gone: Vec<IfIndex> =
            of_bridge.filter(|index| !is_found(*index) && !self.is_outdated(*index, began)).collect();
        gone.into_iter().for_each(|port| self.port_down(port));
    }

    /// Puts the tap on a port first, so that as little as possible is said before somebody listens.
    fn port_up(&mut self, port: Port, look: bool) {
        let Some(bridge) = self.bridge_name(port.bridge) else { return self.port_down(port.index) };
        // An event does not tell the VLAN.
        let pvid =
            self.ports.get(&port.index).filter(|known| look && known.bridge == port.bridge).map(|known| known.pvid);
        let port = Port { pvid: pvid.unwrap_or(port.pvid), ..port };
        let known = self.ports.insert(port.index, port.clone());
        if known.as_ref().is_none_or(|known| known.bridge != port.bridge) {
            // The index may have been another interface's.
            self.forget_port(port.index);
            self.listen_at(&port, bridge, self.may_watch_ipv4(&port));
        }
        let Port { index, name, pvid, .. } = port.clone();
        self.tell(Input::PortUp(engine::Port { index, name, bridge, pvid }));
        if look && known.is_none_or(|known| known.peer != port.peer || known.bridge != port.bridge) {
            self.send_errand(Errand::Port(port));
        }
    }

    fn listen_at(&self, port: &Port, bridge: BridgeName, watch_ipv4: bool) {
        let post = Post { bridge: port.bridge, side: Side::Ingress, watch_ipv4 };
        self.tapper.order(Order::Attach(port.index, post, bridge));
    }

    /// Whether the sources of packets from a port are those of whoever is behind it: not if that is the outside.
    fn may_watch_ipv4(&self, port: &Port) -> bool {
        let settings = self.settings.borrow();
        let policy = &settings.engine.policy;
        let is_open = policy.is_external(&port.name) || policy.is_ignored(&port.name);
        port.kind != PortKind::Other && !is_open
    }

    pub(super) fn ignore_ipv4(&self, port: IfIndex) {
        let known = self.ports.get(&port);
        if let Some((port, bridge)) = known.and_then(|port| Some((port, self.bridge_name(port.bridge)?))) {
            self.listen_at(port, bridge, false);
        }
    }

    fn port_down(&mut self, port: IfIndex) {
        self.sees(port);
        if self.ports.remove(&port).is_some() {
            self.tapper.order(Order::Detach(port));
            self.tell(Input::PortDown { port });
            self.forget_contained(port);
            self.forget_port(port);
        }
    }

    /// Looks behind every port that leads into a namespace: whatever has changed there, it may stand on the port's other
    /// end.
    fn look_into(&mut self, nsid: Nsid) {
        let leads_there = |port: &&Port| port.peer.is_some_and(|peer| peer.nsid == nsid);
        let ports: Vec<Port> = self.ports.values().filter(leads_there).cloned().collect();
        ports.into_iter().for_each(|port| self.send_errand(Errand::Port(port)));
    }

    fn port_surveyed(&mut self, seen: Seen) {
        let Seen { port, unreachable, survey } = seen;
        if !self.ports.contains_key(&port.index) {
            return;
        }
        if self.ports.get(&port.index).is_some_and(|known| known.bridge == port.bridge && known.pvid != port.pvid) {
            self.port_up(port.clone(), false);
        }
        match unreachable {
            Some(error) if self.blind.insert(port.index) => {
                let reason = format!("port {} is known only by what it says on the wire: {error}", port.name);
                self.telemetry.degraded(Feature::Inventory, Some(&reason));
            }
            Some(_) => {}
            None => self.sees(port.index),
        }
        self.tell(Input::Surveyed { port: port.index, survey });
    }

    /// A port can be looked behind, or is gone.
    fn sees(&mut self, port: IfIndex) {
        if self.blind.remove(&port) {
            self.restored_if_complete();
        }
    }

    fn restored_if_complete(&self) {
        if self.blind.is_empty() && self.inventory.is_empty() {
            self.telemetry.degraded(Feature::Inventory, None);
        }
    }

    /// Goes on with what the store could not do.
    fn store_restored(&mut self) {
        self.keep_all_pools();
        self.tell_what_was_left();
        self.tell(Input::StoreRestored);
    }

    fn keep_all_pools(&mut self) {
        for Watched { bridge, networks, .. } in self.bridges.values().flatten().cloned().collect::<Vec<_>>() {
            self.keep_pools(bridge.name, &networks);
        }
    }

    /// Each network of the bridge is a pool, with the host's first address in it for the gateway; its others are in use
    /// and so not given away. Waits for the disk, once per network, so that whatever is done next finds the pool; but not
    /// for another process that keeps the store to itself. What cannot be kept is tried again.
    fn keep_pools(&mut self, bridge: BridgeName, networks: &[Ipv4Net]) {
        let is_new = |network: &&Ipv4Net| !self.pools.contains(&(bridge, network.trunc()));
        let new: Vec<Ipv4Net> = networks.iter().filter(is_new).copied().collect();
        if new.is_empty() || !self.keeping.insert(bridge) {
            return;
        }
        let (store, news, cooldown) = (Arc::clone(&self.store), self.news.clone(), self.settings.borrow().cooldown);
        let (kept, answer) = std::sync::mpsc::sync_channel(1);
        self.workers.spawn_blocking(move || {
            let is_kept = |network: &Ipv4Net| is_kept(store.as_ref(), bridge, *network, cooldown);
            // Nobody listens any more only while the agent stops, or when it has lost its patience.
            let _ = news.send(News::Pools(bridge, new.into_iter().filter(is_kept).collect()));
            let _ = kept.send(());
        });
        let _ = answer.recv_timeout(PATIENCE);
    }

    fn pools_kept(&mut self, bridge: BridgeName, kept: Vec<Ipv4Net>) {
        self.keeping.remove(&bridge);
        self.pools.extend(kept.into_iter().map(|network| (bridge, network.trunc())));
    }
}

/// Why there is no pool for a network.
#[derive(Debug, thiserror::Error)]
enum Unkept {
    #[error(transparent)]
    Invalid(#[from] InvalidPool),
    #[error(transparent)]
    Refused(#[from] PoolError),
}

/// Sees to it that there is a pool; tells why not, unless the store does so itself.
fn is_kept(store: &dyn Store, bridge: BridgeName, network: Ipv4Net, cooldown: Option<Span>) -> bool {
    let kept = keep_pool(store, bridge, network, cooldown);
    match &kept {
        Ok(()) => {}
        Err(Unkept::Refused(PoolError::Store(error))) => {
            tracing::debug!(event = "store_unread", %bridge, %network, "no leases can be given from {network}: {error}");
        }
        Err(reason) => {
            tracing::warn!(event = "no_pool", %bridge, %network, "no leases can be given from {network}: {reason}");
        }
    }
    kept.is_ok()
}

/// Sees to it that the network's addresses can be leased, and the host's own cannot. What else an operator has decided
/// about the pool stays as it is.
fn keep_pool(store: &dyn Store, bridge: BridgeName, network: Ipv4Net, cooldown: Option<Span>) -> Result<(), Unkept> {
    let (domain, subnet, gateway) = (Domain::untagged(bridge), network.trunc(), network.addr());
    let pools = store.pools().map_err(PoolError::from)?;
    let pool = match pools.into_iter().find(|pool| (pool.domain(), pool.subnet()) == (domain, subnet)) {
        Some(known) => known.altered(gateway, cooldown),
        None => Pool::new(domain, subnet, Some(gateway), cooldown.unwrap_or(Pool::COOLDOWN)),
    };
    Ok(store.ensure_pool(&pool?)?)
}

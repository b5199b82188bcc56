//! What happens around the agent, turned into inputs: bridges and ports come and go, frames come in, events are lost.

use super::{
    readiness::Latch,
    run::Agent,
    surveyor::{Errand, News, Seen},
    tapper::Order,
};
use crate::{
    allocator::Pool,
    capture::Side,
    engine::{self, ArpFrame, Input},
    net::{BridgeName, Domain, IfIndex, Ipv4Net},
    netlink::{self, Bridge, Event, Nsid, Port},
    telemetry::Feature,
};

impl Agent {
    pub(super) fn frames(&mut self, frames: Vec<ArpFrame>) {
        for frame in frames {
            if let Some(bridge) = self.bridge_of(frame.port) {
                self.telemetry.claim(bridge, frame.packet.kind());
            }
            self.tell(Input::Frame(frame));
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::BridgeUp(bridge) => self.bridge_changed(bridge),
            Event::BridgeGone(bridge) => self.bridge_gone(bridge),
            Event::PortUp(port) => self.port_up(port, true),
            Event::PortDown { index, .. } => self.port_down(index),
            Event::AddressAdded { nsid: None, index, .. } | Event::AddressRemoved { nsid: None, index, .. } => {
                self.look_at_bridge(index);
            }
            Event::AddressAdded { nsid: Some(nsid), index, .. }
            | Event::AddressRemoved { nsid: Some(nsid), index, .. }
            | Event::PeerChanged { nsid, index, .. } => self.look_behind_peer(nsid, index),
            // Its ports go with it, and are told of one by one.
            Event::NetnsGone(_) => {}
            Event::Overflow => {
                self.telemetry
                    .degraded(Feature::Inventory, Some(&"the kernel's notices came too fast; reading all anew"));
                self.look_at_everything();
            }
        }
    }

    pub(super) fn news(&mut self, news: News) {
        match news {
            News::Bridge(bridge, networks, ports) => self.bridge_surveyed(bridge, networks, ports),
            News::NoBridge(name, error) => self.bridge_not_surveyed(name, &error),
            News::Port(seen) => self.port_surveyed(seen),
            News::Tapped => self.latches.release(Latch::Taps),
            News::Input(input) => self.tell(input),
        }
    }

    fn bridge_changed(&mut self, bridge: Bridge) {
        match self.bridges.get(&bridge.name) {
            Some(known) if known.is_none_or(|known| known.index != bridge.index || known.mac != bridge.mac) => {
                self.send_errand(Errand::Bridge(bridge.name));
            }
            _ => {}
        }
    }

    fn look_at_bridge(&mut self, index: IfIndex) {
        if let Some(name) = self.bridge_name(index) {
            self.send_errand(Errand::Bridge(name));
        }
    }

    fn bridge_gone(&mut self, bridge: Bridge) {
        let Some(known) =
            self.bridges.get_mut(&bridge.name).filter(|known| known.is_some_and(|k| k.index == bridge.index))
        else {
            return;
        };
        *known = None;
        self.tapper.order(Order::Detach(bridge.index));
        for (port, _) in self.ports.extract_if(.., |_, port| port.bridge == bridge.index) {
            self.tapper.order(Order::Detach(port));
        }
        tracing::warn!(event = "bridge_gone", bridge = %bridge.name, "waits for it to appear again");
        self.tell(Input::BridgeDown(bridge.name));
    }

    fn bridge_surveyed(&mut self, bridge: Bridge, networks: Vec<Ipv4Net>, ports: Vec<Seen>) {
        let before = self.bridges.insert(bridge.name, Some(bridge)).flatten();
        if before.is_none_or(|before| before.index != bridge.index) {
            self.tapper.order(Order::Attach(bridge.index, Side::Egress, bridge.name));
        }
        self.keep_pools(bridge.name, &networks);
        let (name, port, mac) = (bridge.name, bridge.index, bridge.mac);
        self.tell(Input::BridgeUp(engine::Bridge { name, port, mac, networks }));
        self.drop_ports_but(bridge.index, &ports);
        for seen in &ports {
            self.port_up(seen.port.clone(), false);
        }
        ports.into_iter().for_each(|seen| self.port_surveyed(seen));
        self.inventory.remove(&bridge.name);
        self.inventory_done_if_complete();
    }

    fn bridge_not_surveyed(&mut self, name: BridgeName, error: &netlink::Error) {
        self.telemetry.degraded(Feature::Inventory, Some(error));
        self.inventory.remove(&name);
        self.inventory_done_if_complete();
    }

    pub(super) fn inventory_done_if_complete(&mut self) {
        if self.inventory.is_empty() {
            self.tell(Input::InventoryDone);
            self.latches.release(Latch::Inventory);
            self.tapper.order(Order::Tell);
        }
    }

    /// Ports that went while nobody listened.
    fn drop_ports_but(&mut self, bridge: IfIndex, found: &[Seen]) {
        let gone: Vec<IfIndex> = self
            .ports
            .values()
            .filter(|port| port.bridge == bridge && found.iter().all(|seen| seen.port.index != port.index))
            .map(|port| port.index)
            .collect();
        gone.into_iter().for_each(|port| self.port_down(port));
    }

    /// Puts the tap on a port first, so that as little as possible is said before somebody listens.
    fn port_up(&mut self, port: Port, look: bool) {
        let Some(bridge) = self.bridge_name(port.bridge) else { return self.port_down(port.index) };
        let known = self.ports.insert(port.index, port.clone());
        if known.as_ref().is_none_or(|known| known.bridge != port.bridge) {
            self.tapper.order(Order::Attach(port.index, Side::Ingress, bridge));
        }
        self.tell(Input::PortUp { port: port.index, name: port.name.clone(), bridge });
        if look && known.is_none_or(|known| known.peer != port.peer || known.bridge != port.bridge) {
            self.send_errand(Errand::Port(port));
        }
    }

    fn port_down(&mut self, port: IfIndex) {
        if self.ports.remove(&port).is_some() {
            self.tapper.order(Order::Detach(port));
            self.tell(Input::PortDown { port });
        }
    }

    fn look_behind_peer(&mut self, nsid: Nsid, index: IfIndex) {
        let is_peer = |port: &&Port| port.peer.is_some_and(|peer| (peer.nsid, peer.index) == (nsid, index));
        if let Some(port) = self.ports.values().find(is_peer) {
            self.send_errand(Errand::Port(port.clone()));
        }
    }

    fn port_surveyed(&mut self, seen: Seen) {
        let Seen { port, unreachable, survey } = seen;
        if let Some(error) = unreachable {
            let (port, name) = (port.index, &port.name);
            tracing::warn!(event = "not_inspectable", %port, name, "known only by what it says on the wire: {error}");
        }
        self.tell(Input::Surveyed { port: port.index, survey });
    }

    /// Each network of the bridge is a pool, with the host for its gateway.
    fn keep_pools(&self, bridge: BridgeName, networks: &[Ipv4Net]) {
        for network in networks {
            let pool =
                Pool::new(Domain::untagged(bridge), network.trunc(), Some(network.addr()), self.settings.cooldown);
            let kept = pool
                .map_err(|error| error.to_string())
                .and_then(|pool| self.store.ensure_pool(&pool).map_err(|error| error.to_string()));
            if let Err(reason) = kept {
                tracing::warn!(event = "no_pool", %bridge, %network, "no leases can be given from it: {reason}");
            }
        }
    }
}

//! How an event becomes knowledge: bridges, ports, surveys and frames are turned into bindings.

use std::collections::BTreeSet;

use super::{
    Engine,
    bindings::{Binding, Key},
    input::{Claim, Configured, Evidence, Survey},
    output::Finding,
    rules,
    topology::{Bridge, KnownPort, Port},
};
use crate::{
    net::{BridgeName, ClaimKind, Domain, IfIndex, Station},
    time::Timestamp,
};

impl Engine {
    pub(super) fn bridge_up(&mut self, bridge: Bridge, now: Timestamp) {
        let (name, port, mac) = (bridge.name, bridge.port, bridge.mac);
        if self.topology.bridges.get(&name).is_some_and(|known| known.port != port) {
            self.bridge_down(name, now);
        }
        let addresses = bridge.networks.iter().map(|network| Configured { address: network.addr(), mac }).collect();
        self.topology.bridges.insert(name, bridge);
        self.set_configured(Domain::untagged(name), port, addresses, now, now);
    }

    pub(super) fn bridge_down(&mut self, name: BridgeName, now: Timestamp) {
        for port in self.topology.ports_of(name) {
            self.port_down(port, now);
        }
        if let Some(bridge) = self.topology.bridges.remove(&name) {
            self.forget_port(bridge.port, now);
        }
    }

    pub(super) fn port_up(&mut self, port: Port, now: Timestamp) {
        let policy = &self.config.policy;
        match self.topology.ports.get_mut(&port.index) {
            Some(known) if (known.port.bridge, known.port.pvid) == (port.bridge, port.pvid) => {
                let KnownPort { external, ignored, .. } = KnownPort::new(port.clone(), policy);
                (known.port, known.external, known.ignored) = (port, external, ignored);
            }
            _ => {
                self.port_down(port.index, now);
                self.topology.ports.insert(port.index, KnownPort::new(port, &self.config.policy));
            }
        }
    }

    pub(super) fn port_down(&mut self, port: IfIndex, now: Timestamp) {
        if self.topology.ports.remove(&port).is_some() {
            self.forget_port(port, now);
        }
    }

    fn forget_port(&mut self, port: IfIndex, now: Timestamp) {
        self.refused.remove(&port);
        for (key, station) in self.bindings.of_port(port) {
            self.withdraw(key, station, now);
        }
        self.abandon_evictions(port, now);
    }

    pub(super) fn surveyed(&mut self, port: IfIndex, survey: Survey, now: Timestamp) {
        let Some(known) = self.topology.ports.get_mut(&port) else { return };
        if known.surveyed_at.is_some_and(|at| at > survey.at) {
            return;
        }
        known.sandbox = survey.sandbox;
        let bridge = known.port.bridge;
        let Some(addresses) = survey.addresses else { return };
        (known.surveyed_at, known.macs) = (Some(survey.at), survey.macs);
        let domain = self.topology.domain_of(port, None).unwrap_or(Domain::untagged(bridge));
        self.set_configured(domain, port, addresses.into_iter().collect(), survey.at, now);
    }

    /// What is configured behind a port is known in full as of `at`: what was said before and is not there any more is
    /// withdrawn.
    fn set_configured(
        &mut self,
        domain: Domain,
        port: IfIndex,
        addresses: BTreeSet<Configured>,
        at: Timestamp,
        now: Timestamp,
    ) {
        // What is new comes first: a station whose hardware address has changed never lets go of its address.
        let before = self.bindings.of_port(port);
        for Configured { address, mac } in &addresses {
            self.claim((domain, *address), Station { port, mac: *mac }, Evidence::Configured, at, now);
        }
        for (key, station) in before {
            if key.0 == domain && !addresses.contains(&Configured { address: key.1, mac: station.mac }) {
                self.unconfigured(key, station, at, now);
            }
        }
        for Configured { address, .. } in addresses {
            self.judge((domain, address), Evidence::Configured, at, now);
        }
    }

    /// A survey that began at `at` did not show the address. Of what was configured, or said by the interface that was
    /// looked at, only what was said on the wire since then still counts; others behind the port it does not show.
    fn unconfigured(&mut self, key: Key, station: Station, at: Timestamp, now: Timestamp) {
        let is_surveyed = self.is_surveyed(station);
        let Some(binding) = self.bindings.get_mut(key, station) else { return };
        if !std::mem::take(&mut binding.configured) && !is_surveyed {
            return;
        }
        match binding.last_frame {
            Some(frame) if frame > at => self.watch_liveness(key, station, now),
            _ => self.withdraw(key, station, now),
        }
    }

    pub(super) fn claimed(&mut self, frame: Claim, now: Timestamp) {
        let evidence = frame.evidence;
        let Some(domain) = self.topology.domain_of(frame.port, frame.tag) else { return };
        let key = (domain, frame.address);
        let station = Station { port: frame.port, mac: frame.mac };
        let probes = evidence == Evidence::Arp(ClaimKind::Probe);
        if probes || self.speaks_for_another(station) || self.is_superseded(key, station, frame.at) {
            return;
        }
        // The host may ask with any of its addresses (`arp_announce` in `Documentation/networking/ip-sysctl.rst`).
        let is_host = self.topology.host(frame.port).is_some();
        let martian = if is_host { None } else { rules::martian(&frame, self.topology.networks(domain)) };
        self.claim(key, station, evidence, frame.at, now);
        let mut news = false;
        if let Some(binding) = self.bindings.get_mut(key, station) {
            news = martian.is_some() && binding.told != martian;
            binding.martian = martian;
            binding.told = martian.or(binding.told);
        }
        if let Some(reason) = martian {
            let (address, ether_source) = (key.1, frame.ether_source);
            self.findings.push_back(Finding::Martian { domain, station, address, ether_source, reason, news });
        }
        self.judge(key, evidence, frame.at, now);
    }

    /// The host may say on the bridge what is true of others: it answers for them by proxy ARP, and the agent's own
    /// announcements go out there.
    fn speaks_for_another(&self, station: Station) -> bool {
        self.topology.host(station.port).is_some_and(|bridge| bridge.mac != station.mac)
    }

    /// Whether somebody has looked behind the port since the frame was sent, and found the address not there.
    fn is_superseded(&self, key: Key, station: Station, at: Timestamp) -> bool {
        let surveyed_at = self.topology.ports.get(&station.port).and_then(|port| port.surveyed_at);
        let is_older = surveyed_at.is_some_and(|surveyed| at <= surveyed);
        is_older && self.is_surveyed(station) && self.bindings.get(key, station).is_none()
    }

    /// Whether a look behind the port shows all that the station has.
    fn is_surveyed(&self, station: Station) -> bool {
        self.topology.ports.get(&station.port).is_some_and(|known| known.macs.contains(&station.mac))
    }

    /// Notes that a station showed that it uses an address.
    fn claim(&mut self, key: Key, station: Station, evidence: Evidence, at: Timestamp, now: Timestamp) {
        let initial = !self.inventory_done;
        let new = || Binding::new(evidence, at, initial);
        let Some(binding) = self.bindings.entry(key, station, evidence, new) else {
            let news = self.refused.insert(station.port);
            self.findings.push_back(Finding::ClaimRefused { port: station.port, domain: key.0, news });
            return;
        };
        binding.last_seen = binding.last_seen.max(at);
        binding.evidence = evidence;
        binding.unanswered = 0;
        match evidence {
            Evidence::Configured => binding.configured = true,
            Evidence::Arp(_) | Evidence::Ipv4 => {
                binding.last_frame = Some(at);
                self.watch_liveness(key, station, now);
            }
        }
    }

    /// Forgets that a station uses an address.
    pub(super) fn withdraw(&mut self, key: Key, station: Station, now: Timestamp) {
        self.bindings.remove(key, station);
        self.forget_liveness(key, station);
        self.judge_end(key, now);
    }
}

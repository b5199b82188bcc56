//! How an event becomes knowledge: bridges, ports, surveys and claims are turned into bindings.

use std::collections::BTreeMap;

use super::{
    Engine,
    bindings::{Binding, Key},
    finding::{Finding, Info},
    incident::Party,
    input::{Claim, Configured, Evidence, Survey},
    output::Action,
    topology::{Bridge, KnownPort, Port},
};
use crate::{
    net::{BridgeName, ClaimKind, Domain, IfIndex, Ipv4Net, Station, VlanId},
    time::Timestamp,
};

impl Engine {
    pub(super) fn bridge_up(&mut self, bridge: Bridge, now: Timestamp) {
        let (name, port, pvid) = (bridge.name, bridge.port, bridge.pvid);
        match self.topology.bridges.get(&name).map(|known| (known.port, known.pvid)) {
            Some((known, _)) if known != port => self.bridge_down(name, now),
            // What goes untagged is another domain now: everything must be seen anew.
            Some((_, known)) if known != pvid => self.forget_ports(name, now),
            _ => {}
        }
        let of_host = |vlan, mac, networks: &[Ipv4Net]| {
            let key = |network: &Ipv4Net| ((Domain { bridge: name, vlan }, network.addr()), Station { port, mac });
            networks.iter().map(|network| (key(network), vlan)).collect::<Vec<_>>()
        };
        let in_vlans = bridge.vlans.iter().flat_map(|device| of_host(Some(device.vlan), device.mac, &device.networks));
        let configured = of_host(None, bridge.mac, &bridge.networks).into_iter().chain(in_vlans).collect();
        self.topology.bridges.insert(name, bridge);
        self.set_configured(port, configured, now, now);
    }

    fn forget_ports(&mut self, name: BridgeName, now: Timestamp) {
        for port in self.topology.ports_of(name) {
            self.port_down(port, now);
        }
    }

    pub(super) fn bridge_down(&mut self, name: BridgeName, now: Timestamp) {
        self.forget_ports(name, now);
        if let Some(port) = self.topology.bridges.get(&name).map(|bridge| bridge.port) {
            self.forget_port(port, now);
            self.topology.bridges.remove(&name);
        }
        self.forget_sweeps(name);
        self.departures.forget_bridge(name);
    }

    pub(super) fn port_up(&mut self, port: Port, now: Timestamp) {
        let new = KnownPort::new(port, &self.config.policy);
        match self.topology.ports.get_mut(&new.port.index) {
            Some(known) if (known.port.bridge, known.port.pvid) == (new.port.bridge, new.port.pvid) => {
                (known.port, known.external, known.ignored) = (new.port, new.external, new.ignored);
            }
            _ => {
                self.port_down(new.port.index, now);
                self.topology.ports.insert(new.port.index, new);
            }
        }
    }

    pub(super) fn port_down(&mut self, port: IfIndex, now: Timestamp) {
        if self.topology.ports.contains_key(&port) {
            // Whoever leaves is still known by name while that is told.
            self.forget_port(port, now);
            let gone = self.topology.ports.remove(&port);
            self.forget_strikes(port, gone.and_then(|known| known.sandbox.netns));
        }
    }

    fn forget_port(&mut self, port: IfIndex, now: Timestamp) {
        self.refused.remove(&port);
        self.forwarders.remove(&port);
        self.probing.forget_port(port);
        self.forget_flood(port);
        self.withdraw_all(self.bindings.of_port(port), now);
        self.abandon_evictions(port, now);
        self.lift_port(port);
    }

    pub(super) fn surveyed(&mut self, port: IfIndex, survey: Survey, now: Timestamp) {
        let Some(known) = self.topology.ports.get_mut(&port) else { return };
        if known.surveyed_at.is_some_and(|at| at > survey.at) {
            return;
        }
        (known.sandbox, known.reach) = (survey.sandbox, Some(survey.reach));
        let (bridge, ignored) = (known.port.bridge, known.ignored);
        let Some(addresses) = survey.addresses else { return };
        (known.surveyed_at, known.macs, known.forwards) = (Some(survey.at), survey.macs, survey.forwards);
        if !ignored {
            let key = |configured: &Configured| {
                let domain = self.topology.domain_of(port, configured.tag).unwrap_or(Domain::untagged(bridge));
                (((domain, configured.address), Station { port, mac: configured.mac }), configured.tag)
            };
            let configured = addresses.iter().map(key).collect();
            self.set_configured(port, configured, survey.at, now);
        }
    }

    /// What is configured behind a port, each with the tag that its frames bear, is known in full as of `at`: what was said
    /// before and is not there any more is withdrawn.
    fn set_configured(
        &mut self,
        port: IfIndex,
        configured: BTreeMap<(Key, Station), Option<VlanId>>,
        at: Timestamp,
        now: Timestamp,
    ) {
        // What is new comes first: a station whose hardware address has changed never lets go of its address.
        let before = self.bindings.of_port(port);
        for (key, station) in configured.keys() {
            self.claim(*key, *station, Evidence::Configured, at, now);
        }
        let missing = before.into_iter().filter(|known| !configured.contains_key(known));
        let gone = missing.filter(|(key, station)| self.unconfigured(*key, *station, at, now)).collect();
        self.withdraw_all(gone, now);
        for ((key, station), tag) in configured {
            self.judge(key, Evidence::Configured, at, now);
            self.absorb(key, station, tag);
        }
    }

    /// A survey that began at `at` did not show the address. Of what was configured, or said by an interface that was
    /// looked at, only what was said on the wire since then still counts; others behind the port it does not show. Whether
    /// the station has it no more.
    fn unconfigured(&mut self, key: Key, station: Station, at: Timestamp, now: Timestamp) -> bool {
        let is_surveyed = self.is_surveyed(station);
        let Some(binding) = self.bindings.get_mut(key, station) else { return false };
        if !std::mem::take(&mut binding.configured) && !is_surveyed {
            return false;
        }
        let is_gone = binding.last_frame.is_none_or(|frame| frame <= at);
        if !is_gone {
            self.stop_absorbing(key, station);
            self.watch_liveness(key, station, now);
        }
        is_gone
    }

    pub(super) fn claimed(&mut self, claim: Claim, now: Timestamp) {
        let Some(domain) = self.topology.domain_of(claim.port, claim.tag) else { return };
        let (key, station) = ((domain, claim.address), Station { port: claim.port, mac: claim.mac });
        if self.topology.ports.get(&claim.port).is_some_and(|known| known.ignored) {
            return;
        }
        match claim.evidence {
            Evidence::Arp(ClaimKind::Probe) => self.probed(key, station, claim.at),
            evidence if self.speaks_for_another(key, station, evidence) => {}
            _ if self.is_superseded(key, station, claim.at) => {}
            Evidence::Ipv4 if self.forwards_for_another(key, station) => self.forwarded(key, station, claim.at),
            _ => self.take_claim(key, station, &claim, now),
        }
    }

    fn take_claim(&mut self, key: Key, station: Station, claim: &Claim, now: Timestamp) {
        let martian = self.martian_reason(key, claim);
        if !self.claim(key, station, claim.evidence, claim.at, now) && martian.is_none() {
            return;
        }
        let mut news = false;
        if let Some(binding) = self.bindings.get_mut(key, station) {
            news = martian.is_some() && binding.told != martian;
            binding.martian = martian;
            binding.told = martian.or(binding.told);
        }
        if let Some(reason) = martian {
            let (address, ether_source) = (key.1, claim.ether_source);
            let (domain, port_name) = (key.0, self.topology.name(station.port));
            let martian = Finding::Martian { domain, station, port_name, address, ether_source, reason, news };
            self.findings.push_back(martian);
        }
        self.note_sighting(key, station, claim.evidence, claim.at, now);
        self.judge(key, claim.evidence, claim.at, now);
        self.absorb(key, station, claim.tag);
    }

    /// The host may say on the bridge what is true of others: it answers for them by proxy ARP, with their hardware address
    /// or its own (`proxy_arp_pvlan`), and the agent's own announcements go out there.
    fn speaks_for_another(&self, key: Key, station: Station, evidence: Evidence) -> bool {
        let Some(bridge) = self.topology.host(station.port) else { return false };
        let is_own = bridge.mac == station.mac || bridge.vlans.iter().any(|device| device.mac == station.mac);
        let has = self.bindings.get(key, station).is_some_and(|binding| binding.configured);
        !is_own || evidence == Evidence::Arp(ClaimKind::Reply) && !has
    }

    /// Whether a packet's source is one that whoever sent it is known not to have, and may have passed on for another.
    fn forwards_for_another(&self, key: Key, station: Station) -> bool {
        let forwards = self.topology.ports.get(&station.port).is_some_and(|known| known.forwards);
        let has = self.bindings.get(key, station).is_some();
        forwards && self.is_surveyed(station) && !has
    }

    /// The sources of a router's packets say nothing of who it is, and there is no end to them.
    fn forwarded(&mut self, (domain, address): Key, station: Station, at: Timestamp) {
        let port = station.port;
        if self.forwarders.insert(port) {
            let binding = Binding::new(Evidence::Ipv4, at, false);
            let party = Box::new(self.describe((domain, address), station, &binding));
            self.findings.push_back(Finding::Info(Info::ForeignSource { domain, address, party }));
            self.actions.push_back(Action::IgnoreIpv4 { port });
        }
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

    /// Notes that a station showed that it uses an address; whether there was room for that.
    fn claim(&mut self, key: Key, station: Station, evidence: Evidence, at: Timestamp, now: Timestamp) -> bool {
        let initial = !self.inventory_done;
        let is_new = self.bindings.get(key, station).is_none();
        let Some(binding) = self.bindings.entry(key, station, evidence, || Binding::new(evidence, at, initial)) else {
            let news = self.refused.insert(station.port);
            let (port, port_name) = (station.port, self.topology.name(station.port));
            self.findings.push_back(Finding::ClaimRefused { port, port_name, domain: key.0, news });
            return false;
        };
        binding.last_seen = binding.last_seen.max(at);
        binding.evidence = evidence;
        binding.unanswered = 0;
        binding.hits += u64::from(evidence.is_arp());
        match evidence {
            Evidence::Configured => binding.configured = true,
            Evidence::Arp(_) | Evidence::Ipv4 => {
                binding.last_frame = binding.last_frame.max(Some(at));
                self.watch_liveness(key, station, now);
            }
        }
        if is_new {
            self.arrived(key, station, now);
        }
        true
    }

    /// Forgets that a station uses an address.
    pub(super) fn withdraw(&mut self, key: Key, station: Station, now: Timestamp) {
        self.withdraw_all(vec![(key, station)], now);
    }

    /// Forgets that stations use addresses. All have let go before it is asked who is left, so that nobody is taken for the
    /// heir of an address that goes away itself; and an address with several of them changes hands once.
    fn withdraw_all(&mut self, all: Vec<(Key, Station)>, now: Timestamp) {
        let mut gone: BTreeMap<Key, Option<Party>> = BTreeMap::new();
        for (key, station) in all {
            let Some((party, plausible)) = self.let_go(key, station) else { continue };
            let known = gone.entry(key).or_default();
            if plausible && known.as_ref().is_none_or(|known| party.first_seen < known.first_seen) {
                *known = Some(party);
            }
        }
        for (key, party) in gone {
            if let Some(party) = party {
                self.departed(key, party, now);
            }
            self.judge_end(key, now);
        }
    }

    /// Who had the address, and whether it could have it.
    fn let_go(&mut self, key: Key, station: Station) -> Option<(Party, bool)> {
        let binding = self.bindings.get(key, station)?;
        let (party, plausible) = (self.describe(key, station, binding), binding.is_plausible());
        self.stop_absorbing(key, station);
        self.bindings.remove(key, station);
        self.forget_liveness(key, station);
        if self.contradiction(key, None).is_none() {
            self.drop_suspicion(key);
        }
        Some((party, plausible))
    }
}

//! The engine by scenario: what happens, and what it must say and want. The world around it is a bridge, a few sandboxes
//! that answer probes for the addresses they have, and a book of leases.

mod containing;
mod deciding;
mod healing;
mod incidents;
mod load;
mod moves;
mod reconfiguring;
mod restarts;
mod silent;
mod verdicts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::*;
use crate::{
    net::{
        ArpPacket, ClaimKind, Contained, Generation, Ipv4Net, LeaseState, Mac, MartianReason, NetnsId, Operation,
        Owner, Reach, VlanId,
    },
    time::Span,
};

const BRIDGE_PORT: u32 = 1;
const HOST: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 1);
const CONTESTED: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);

/// Who is behind a port, and how far the agent can see it.
struct Behind {
    name: &'static str,
    addresses: BTreeSet<Ipv4Addr>,
    /// Whether its namespace can be read: else it is known only by what it says.
    readable: bool,
    answers: bool,
}

struct World {
    engine: Engine,
    now: Timestamp,
    behind: BTreeMap<u32, Behind>,
    /// Whose namespace forwards.
    forwards: BTreeSet<u32>,
    leases: BTreeMap<Ipv4Addr, Lease>,
    findings: Vec<Finding>,
    /// What the tap absorbs.
    known: BTreeSet<KnownClaim>,
    /// What is dropped.
    contained: BTreeSet<Contained>,
    /// What was written down last of each incident.
    kept: BTreeMap<IncidentId, Incident>,
    /// Actions by name, each as often as it was asked for.
    asked: BTreeMap<&'static str, usize>,
    /// Actions that fail, by name, and how often.
    broken: BTreeMap<&'static str, usize>,
    /// Actions that are never answered, by name, and how often; and whether they are done all the same.
    lost: BTreeMap<&'static str, usize>,
    lost_after: bool,
    mute: bool,
    generation: u64,
}

impl World {
    fn new(mode: Mode) -> Self {
        Self::with(Config { mode, ..Config::default() })
    }

    fn with(config: Config) -> Self {
        let engine = Engine::new(config);
        let mut world = Self {
            engine,
            now: Timestamp::from_nanos(1_000_000_000),
            behind: BTreeMap::new(),
            forwards: BTreeSet::new(),
            known: BTreeSet::new(),
            contained: BTreeSet::new(),
            kept: BTreeMap::new(),
            leases: BTreeMap::new(),
            findings: Vec::new(),
            asked: BTreeMap::new(),
            broken: BTreeMap::new(),
            lost: BTreeMap::new(),
            lost_after: false,
            mute: false,
            generation: 0,
        };
        let networks = vec![Ipv4Net::new(HOST, 24).unwrap()];
        world.tell(Input::BridgeUp(bridge(BRIDGE_PORT, networks)));
        world
    }

    /// As most scenarios begin: everything that was there before the agent is known.
    fn running(mode: Mode) -> Self {
        Self::running_with(Config { mode, ..Config::default() })
    }

    fn running_with(config: Config) -> Self {
        let mut world = Self::with(config);
        world.tell(Input::InventoryDone);
        world
    }

    fn tell(&mut self, input: Input) {
        self.now = self.now + Span::from_millis(1);
        self.engine.handle(input, self.now);
        self.settle();
    }

    /// Carries out what the engine wants until it wants nothing more.
    fn settle(&mut self) {
        while let Some(action) = self.engine.next_action() {
            self.carry_out(action);
        }
        while let Some(finding) = self.engine.next_finding() {
            self.findings.push(finding);
        }
    }

    /// Lets time pass, waking the engine whenever it wants to be woken.
    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.engine.handle(Input::Timeout, self.now);
            self.settle();
        }
        self.now = until;
    }

    fn sandbox(&mut self, at: u32, name: &'static str, addresses: &[Ipv4Addr]) {
        self.arrive(at, name, addresses, true);
    }

    /// A micro VM behind a tap, say.
    fn opaque(&mut self, at: u32, name: &'static str, addresses: &[Ipv4Addr]) {
        self.arrive(at, name, addresses, false);
    }

    fn arrive(&mut self, at: u32, name: &'static str, addresses: &[Ipv4Addr], readable: bool) {
        let addresses = addresses.iter().copied().collect();
        self.behind.insert(at, Behind { name, addresses, readable, answers: true });
        self.port_up(at, None);
        self.survey(at);
    }

    fn port_up(&mut self, at: u32, pvid: Option<VlanId>) {
        self.tell(Input::PortUp(Port { index: port(at), name: format!("veth{at}"), bridge: rt0(), pvid }));
    }

    fn survey(&mut self, at: u32) {
        let survey = self.look(at);
        self.tell(Input::Surveyed { port: port(at), survey });
    }

    fn look(&self, at: u32) -> Survey {
        let Behind { name, addresses, readable, .. } = &self.behind[&at];
        let configured =
            addresses.iter().map(|address| Configured { tag: None, address: *address, mac: mac(at) }).collect();
        let sandbox = Sandbox {
            netns: readable.then_some(NetnsId { device: 4, inode: u64::from(at) }),
            name: readable.then(|| (*name).to_owned()),
            owners: readable.then(|| name.parse().unwrap()).into_iter().collect(),
        };
        let macs = readable.then(|| mac(at)).into_iter().collect();
        let addresses = readable.then_some(configured);
        Survey { at: self.now, sandbox, macs, reach: Reach::Netns, forwards: self.forwards.contains(&at), addresses }
    }

    fn reconfigure(&mut self, at: u32, addresses: &[Ipv4Addr]) {
        self.behind.get_mut(&at).unwrap().addresses = addresses.iter().copied().collect();
        self.survey(at);
    }

    fn leave(&mut self, at: u32) {
        self.behind.remove(&at);
        self.tell(Input::PortDown { port: port(at) });
    }

    fn says(&mut self, at: u32, operation: Operation, sender: Ipv4Addr, target: Ipv4Addr) {
        self.says_as(at, mac(at), operation, sender, target);
    }

    fn says_as(&mut self, at: u32, ether_source: Mac, operation: Operation, sender: Ipv4Addr, target: Ipv4Addr) {
        let packet = ArpPacket { operation, sender_mac: mac(at), sender, target_mac: Mac::ZERO, target };
        self.frame(at, None, ether_source, packet);
    }

    fn probes_for(&mut self, at: u32, target: Ipv4Addr) {
        self.says(at, Operation::Request, Ipv4Addr::UNSPECIFIED, target);
    }

    fn announces(&mut self, at: u32, mac: Mac, address: Ipv4Addr) {
        self.frame(at, None, mac, ArpPacket::announcement(mac, address));
    }

    fn sends_from(&mut self, at: u32, source: Ipv4Addr) {
        let claim =
            Claim { evidence: Evidence::Ipv4, ..claim(self.soon(), at, ArpPacket::announcement(mac(at), source)) };
        self.claim(claim);
    }

    fn frame(&mut self, at: u32, tag: Option<VlanId>, ether_source: Mac, packet: ArpPacket) {
        let claim = Claim { tag, ether_source, ..claim(self.soon(), at, packet) };
        self.claim(claim);
    }

    /// As the tap does: what is known, it absorbs.
    fn claim(&mut self, claim: Claim) {
        let Claim { port, tag, mac, address, .. } = claim;
        if claim.ether_source != mac || !self.known.contains(&KnownClaim { port, tag, mac, address }) {
            self.tell(Input::Claim(claim));
        }
    }

    fn soon(&self) -> Timestamp {
        self.now + Span::from_millis(1)
    }

    fn lease(&mut self, address: Ipv4Addr, owner: &str) -> Lease {
        self.generation += 1;
        let (domain, generation) = (Domain::untagged(rt0()), Generation(self.generation));
        let owner = owner.parse().unwrap();
        let (interface, replaces, state) = (None, None, LeaseState::Bound);
        let lease = Lease { domain, address, owner, interface, generation, state, replaces };
        self.leases.insert(address, lease.clone());
        lease
    }

    fn break_next(&mut self, action: &'static str, times: usize) {
        self.broken.insert(action, times);
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Absorb(known) => {
                self.known.insert(known);
                return;
            }
            Action::Forget(known) => {
                self.known.remove(&known);
                return;
            }
            _ => {}
        }
        let (name, id) = match &action {
            Action::LookUpLeases { id, .. } => ("look_up", Some(*id)),
            Action::Adopt { id, .. } => ("adopt", Some(*id)),
            Action::Reallocate { id, .. } => ("reallocate", Some(*id)),
            Action::Readdress { id, .. } => ("readdress", Some(*id)),
            Action::Announce { id, .. } => ("announce", Some(*id)),
            Action::Bind { id, .. } => ("bind", Some(*id)),
            Action::Contain { id, .. } => ("contain", Some(*id)),
            Action::Lift { id, .. } => ("lift", Some(*id)),
            Action::Keep { id, .. } => ("keep", Some(*id)),
            Action::Recycle { id, .. } => ("recycle", Some(*id)),
            Action::DestroySockets { id, .. } => ("destroy_sockets", Some(*id)),
            Action::GiveBack { id, .. } => ("give_back", Some(*id)),
            Action::Retire { id, .. } => ("retire", Some(*id)),
            Action::SetAside { id, .. } => ("set_aside", Some(*id)),
            Action::Probe { .. } => ("probe", None),
            Action::Poll { .. } => ("poll", None),
            Action::Sweep { .. } => ("sweep", None),
            Action::IgnoreIpv4 { .. } => ("ignore_ipv4", None),
            Action::Absorb(_) | Action::Forget(_) => return,
        };
        *self.asked.entry(name).or_default() += 1;
        let broken = self.broken.get_mut(name).filter(|times| **times > 0).map(|times| *times -= 1);
        let lost = self.lost.get_mut(name).filter(|times| **times > 0).map(|times| *times -= 1).is_some();
        if lost && !self.lost_after {
            return;
        }
        self.mute = lost;
        match (id, broken) {
            (Some(action), Some(())) => self.tell(Input::Failed { action, failure: "broken".to_owned() }),
            (None, Some(())) => {}
            (_, None) => self.succeed(action),
        }
    }

    fn succeed(&mut self, action: Action) {
        let (action, outcome) = match action {
            Action::LookUpLeases { id, contested, owners, .. } => (id, self.look_up(contested, &owners)),
            Action::Adopt { id, address, owner, .. } => {
                if self.leases.get(&address).is_none_or(|lease| lease.owner != owner) {
                    self.lease(address, owner.as_str());
                }
                (id, Outcome::Finished)
            }
            Action::Reallocate { id, owner, contested, in_use, .. } => (id, self.reallocate(owner, contested, &in_use)),
            Action::Readdress { id, port, from, to, .. } => {
                let at = port.get();
                let behind = self.behind.get_mut(&at).unwrap();
                behind.addresses.remove(&from);
                behind.addresses.insert(to);
                self.survey(at);
                (id, Outcome::Finished)
            }
            Action::Contain { id, entries } => {
                self.contained.extend(entries);
                (id, Outcome::Finished)
            }
            Action::Lift { id, entries } => {
                let failed = self.broken.contains_key("contain");
                for entry in entries {
                    assert!(self.contained.remove(&entry) || failed, "{entry:?} was contained");
                }
                (id, Outcome::Finished)
            }
            Action::Keep { id, incident } => {
                self.kept.insert(incident.id, *incident);
                (id, Outcome::Finished)
            }
            Action::Announce { id, .. } | Action::Recycle { id, .. } | Action::DestroySockets { id, .. } => {
                (id, Outcome::Finished)
            }
            Action::Bind { id, mut lease } => {
                (lease.state, lease.replaces) = (LeaseState::Bound, None);
                self.leases.insert(lease.address, lease);
                (id, Outcome::Finished)
            }
            Action::Retire { id, .. } | Action::SetAside { id, .. } => (id, Outcome::Finished),
            Action::GiveBack { id, lease } => {
                self.leases.remove(&lease.address);
                (id, Outcome::Finished)
            }
            Action::Probe { addresses, .. } | Action::Sweep { seen: addresses, .. } => {
                return addresses.into_iter().for_each(|address| self.probed(address));
            }
            Action::Poll { address, .. } => return self.probed(address),
            Action::IgnoreIpv4 { .. } | Action::Absorb(_) | Action::Forget(_) => return,
        };
        if !std::mem::take(&mut self.mute) {
            self.tell(Input::Done { action, outcome });
        }
    }

    fn look_up(&self, contested: Ipv4Addr, owners: &[Owner]) -> Outcome {
        let held = self.leases.values().filter(|lease| owners.contains(&lease.owner)).cloned().collect();
        Outcome::Leases { contested: self.leases.get(&contested).cloned(), held }
    }

    fn reallocate(&mut self, owner: Owner, contested: Ipv4Addr, in_use: &[Ipv4Addr]) -> Outcome {
        let held = self.leases.values().find(|lease| lease.owner == owner && lease.address != contested).cloned();
        let fresh = (10..250).map(|host| Ipv4Addr::new(10, 8, 64, host));
        let free = fresh.clone().find(|address| !in_use.contains(address) && !self.leases.contains_key(address));
        let mut lease = held.unwrap_or_else(|| self.lease(free.unwrap(), owner.as_str()));
        (lease.state, lease.replaces) = (LeaseState::Reserved, Some(contested));
        self.leases.insert(lease.address, lease.clone());
        Outcome::Lease(lease)
    }

    fn probed(&mut self, address: Ipv4Addr) {
        let has = |behind: &&Behind| behind.answers && behind.addresses.contains(&address);
        let owners: Vec<u32> = self.behind.iter().filter(|(_, behind)| has(behind)).map(|(at, _)| *at).collect();
        owners.into_iter().for_each(|at| self.says(at, Operation::Reply, address, Ipv4Addr::UNSPECIFIED));
    }

    fn count(&self, is: impl Fn(&Finding) -> bool) -> usize {
        self.findings.iter().filter(|finding| is(finding)).count()
    }

    fn duplicates(&self) -> usize {
        self.count(|finding| matches!(finding, Finding::Duplicate(_)))
    }

    fn asked(&self, action: &str) -> usize {
        self.asked.get(action).copied().unwrap_or_default()
    }

    fn held(&self) -> Vec<Held> {
        let held = |finding: &Finding| match finding {
            Finding::Held { reason, .. } => Some(*reason),
            _ => None,
        };
        self.findings.iter().filter_map(held).collect()
    }

    fn martians(&self) -> Vec<MartianReason> {
        let martian = |finding: &Finding| match finding {
            Finding::Martian { reason, .. } => Some(*reason),
            _ => None,
        };
        self.findings.iter().filter_map(martian).collect()
    }

    fn incident(&self) -> &Incident {
        self.engine.incidents().last().unwrap()
    }

    /// The addresses behind a port.
    fn at(&self, at: u32) -> Vec<Ipv4Addr> {
        self.behind[&at].addresses.iter().copied().collect()
    }

    fn states(&self, address: Ipv4Addr) -> Vec<RowState> {
        self.engine.rows().filter(|row| row.address == address).map(|row| row.state).collect()
    }
}

/// What a frame says that comes in untagged, from whom it says.
fn claim(seen: Timestamp, from: u32, packet: ArpPacket) -> Claim {
    let kind = packet.kind();
    Claim {
        at: seen,
        port: port(from),
        tag: None,
        ether_source: packet.sender_mac,
        mac: packet.sender_mac,
        address: if kind == ClaimKind::Probe { packet.target } else { packet.sender },
        evidence: Evidence::Arp(kind),
    }
}

fn bridge(at: u32, networks: Vec<Ipv4Net>) -> Bridge {
    Bridge { name: rt0(), port: port(at), mac: mac(at), networks, pvid: None, vlans: Vec::new() }
}

fn rt0() -> BridgeName {
    "rt0".parse().unwrap()
}

fn port(at: u32) -> IfIndex {
    IfIndex::new(at).unwrap()
}

fn mac(at: u32) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(at).unwrap()])
}

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 8, 64, host)
}

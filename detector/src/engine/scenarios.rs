//! The engine by scenario: what happens, and what it must say and want. The world around it is a bridge, a few sandboxes
//! that answer probes for the addresses they have, and a book of leases.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::*;
use crate::{
    net::{ArpPacket, Generation, Ipv4Net, LeaseState, Mac, MartianReason, NetnsId, Operation, Owner, VlanId},
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
    leases: BTreeMap<Ipv4Addr, Lease>,
    findings: Vec<Finding>,
    /// Actions by name, each as often as it was asked for.
    asked: BTreeMap<&'static str, usize>,
    /// Actions that fail, by name, and how often.
    broken: BTreeMap<&'static str, usize>,
    generation: u64,
}

impl World {
    fn new(mode: Mode) -> Self {
        let engine = Engine::new(Config { mode, ..Config::default() });
        let mut world = Self {
            engine,
            now: Timestamp::from_nanos(1_000_000_000),
            behind: BTreeMap::new(),
            leases: BTreeMap::new(),
            findings: Vec::new(),
            asked: BTreeMap::new(),
            broken: BTreeMap::new(),
            generation: 0,
        };
        let networks = vec![Ipv4Net::new(HOST, 24).unwrap()];
        world.tell(Input::BridgeUp(Bridge { name: rt0(), port: port(BRIDGE_PORT), mac: mac(BRIDGE_PORT), networks }));
        world
    }

    /// As most scenarios begin: everything that was there before the agent is known.
    fn running(mode: Mode) -> Self {
        let mut world = Self::new(mode);
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
        self.tell(Input::PortUp { port: port(at), name: format!("veth{at}"), bridge: rt0() });
        self.survey(at);
    }

    fn survey(&mut self, at: u32) {
        let Behind { name, addresses, readable, .. } = &self.behind[&at];
        let configured = addresses.iter().map(|address| Configured { address: *address, mac: mac(at) }).collect();
        let sandbox = Sandbox {
            netns: readable.then_some(NetnsId { device: 4, inode: u64::from(at) }),
            name: readable.then(|| (*name).to_owned()),
            owners: readable.then(|| name.parse().unwrap()).into_iter().collect(),
        };
        let survey =
            Survey { at: self.now, sandbox, mac: readable.then(|| mac(at)), addresses: readable.then_some(configured) };
        self.tell(Input::Surveyed { port: port(at), survey });
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
        self.frame(ArpFrame { at: self.now + Span::from_millis(1), port: port(at), vlan: None, ether_source, packet });
    }

    fn frame(&mut self, frame: ArpFrame) {
        self.tell(Input::Frame(frame));
    }

    fn lease(&mut self, address: Ipv4Addr, owner: &str) -> Lease {
        self.generation += 1;
        let (domain, generation) = (Domain::untagged(rt0()), Generation(self.generation));
        let owner = owner.parse().unwrap();
        let lease = Lease { domain, address, owner, generation, state: LeaseState::Bound, replaces: None };
        self.leases.insert(address, lease.clone());
        lease
    }

    fn break_next(&mut self, action: &'static str, times: usize) {
        self.broken.insert(action, times);
    }

    fn carry_out(&mut self, action: Action) {
        let (name, id) = match &action {
            Action::LookUpLeases { id, .. } => ("look_up", Some(*id)),
            Action::Adopt { id, .. } => ("adopt", Some(*id)),
            Action::Reallocate { id, .. } => ("reallocate", Some(*id)),
            Action::Readdress { id, .. } => ("readdress", Some(*id)),
            Action::Announce { id, .. } => ("announce", Some(*id)),
            Action::Bind { id, .. } => ("bind", Some(*id)),
            Action::GiveBack { id, .. } => ("give_back", Some(*id)),
            Action::Retire { id, .. } => ("retire", Some(*id)),
            Action::Probe { .. } => ("probe", None),
        };
        *self.asked.entry(name).or_default() += 1;
        let broken = self.broken.get_mut(name).filter(|times| **times > 0).map(|times| *times -= 1);
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
                self.lease(address, owner.as_str());
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
            Action::Announce { id, .. } => (id, Outcome::Finished),
            Action::Bind { id, mut lease } => {
                (lease.state, lease.replaces) = (LeaseState::Bound, None);
                self.leases.insert(lease.address, lease);
                (id, Outcome::Finished)
            }
            Action::Retire { id, .. } => (id, Outcome::Finished),
            Action::GiveBack { id, lease } => {
                self.leases.remove(&lease.address);
                (id, Outcome::Finished)
            }
            Action::Probe { addresses, .. } => return addresses.into_iter().for_each(|address| self.probed(address)),
        };
        self.tell(Input::Done { action, outcome });
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

#[test]
fn contradicting_replies_of_two_opaque_ports_are_a_duplicate_from_the_first_on() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "vm-a", &[CONTESTED]);
    world.opaque(3, "vm-b", &[CONTESTED]);
    world.says(2, Operation::Reply, CONTESTED, HOST);
    assert_eq!(world.duplicates(), 0);
    world.says(3, Operation::Reply, CONTESTED, HOST);
    assert_eq!(world.duplicates(), 1);
    let ports: Vec<&str> = world.incident().parties.iter().map(|party| party.port_name.as_str()).collect();
    assert_eq!(ports, ["veth2", "veth3"]);
    assert_eq!(world.states(CONTESTED), [RowState::Duplicate, RowState::Duplicate]);
}

#[test]
fn the_sender_fields_of_two_requests_are_enough() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "sportsagent", &[]);
    world.opaque(3, "reviewagent", &[]);
    world.says(2, Operation::Request, CONTESTED, HOST);
    world.says(3, Operation::Request, CONTESTED, HOST);
    assert_eq!(world.duplicates(), 1);
    assert_eq!(world.incident().first_evidence, Evidence::Arp(crate::net::ClaimKind::Request));
    assert!(world.incident().time_to_name() < Span::from_millis(2));
}

#[test]
fn a_used_address_configured_in_silence_is_a_duplicate_before_any_packet() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!((world.duplicates(), world.incident().first_evidence), (1, Evidence::Configured));
    assert_eq!(world.held(), [Held::Observing]);
    assert_eq!(world.asked("reallocate") + world.asked("readdress"), 0);
}

#[test]
fn what_was_there_before_the_agent_is_reported_once_and_the_healthy_silently() {
    let mut world = World::new(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.sandbox(4, "c", &[address(3)]);
    world.tell(Input::InventoryDone);
    world.pass(Span::from_secs(120));
    assert_eq!(world.duplicates(), 1);
    let of_c = world.count(|finding| format!("{finding:?}").contains("10.8.64.3"));
    assert_eq!(of_c, 0);
    assert!(world.asked("probe") > 0, "everybody is asked once");
    assert_eq!(world.incident().contest.as_ref().unwrap().reason, Reason::NoClearOwner);
}

#[test]
fn the_orphan_without_a_lease_is_moved_and_the_holder_is_not_touched() {
    let mut world = World::new(Mode::Enforce);
    world.sandbox(2, "sportsagent", &[CONTESTED]);
    world.sandbox(4, "calagent", &[address(3)]);
    world.lease(address(3), "calagent");
    let lease = world.lease(CONTESTED, "reviewagent");
    world.sandbox(3, "reviewagent", &[CONTESTED]);
    world.tell(Input::InventoryDone);
    world.pass(Span::from_secs(1));

    assert_eq!((world.at(2), world.at(3)), (vec![address(10)], vec![CONTESTED]));
    assert_eq!(world.incident().status, Status::Healed);
    let reason = &world.incident().contest.as_ref().unwrap().reason;
    assert_eq!(*reason, Reason::LeaseHolder { owner: "reviewagent".parse().unwrap(), generation: lease.generation });
    assert_eq!(world.leases[&address(10)].state, LeaseState::Bound);
    assert_eq!([world.asked("reallocate"), world.asked("readdress"), world.asked("bind")], [1, 1, 1]);
    assert_eq!(world.states(CONTESTED), [RowState::Ok]);
}

#[test]
fn the_new_lease_is_on_disk_before_the_sandbox_is_touched() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("reallocate", 1);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!((world.asked("reallocate"), world.asked("readdress")), (1, 0));
    assert_eq!(world.count(|finding| matches!(finding, Finding::StepFailed { step: Step::Reallocate, .. })), 1);
    world.pass(Span::from_secs(1));
    assert_eq!((world.asked("readdress"), world.incident().status), (1, Status::Healed));
    let steps: Vec<Step> = world.incident().evictions[&port(3)].taken.iter().map(|(step, _)| *step).collect();
    let order = [Step::Reallocate, Step::Readdress, Step::AnnounceNew, Step::AnnounceKept, Step::Verify, Step::Bind];
    assert_eq!(steps, order);
}

#[test]
fn every_step_is_tried_again_until_it_succeeds() {
    for step in ["look_up", "reallocate", "readdress", "announce", "bind"] {
        let mut world = World::running(Mode::Enforce);
        world.break_next(step, 3);
        world.lease(CONTESTED, "a");
        world.sandbox(2, "a", &[CONTESTED]);
        world.sandbox(3, "b", &[CONTESTED]);
        world.pass(Span::from_secs(5));
        assert_eq!(world.incident().status, Status::Healed, "{step}");
        assert_eq!((world.at(2), world.at(3)), (vec![CONTESTED], vec![address(10)]), "{step}");
        assert_eq!(world.generation, 2, "{step}: one new lease and no second");
    }
}

#[test]
fn a_lost_probe_is_not_taken_for_an_answer() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.break_next("probe", 2);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(1));
    assert_eq!(world.incident().status, Status::Healed);
    assert_eq!(world.asked("readdress"), 1);
}

#[test]
fn a_new_address_that_nobody_answers_for_is_not_called_healed() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.behind.insert(3, Behind { name: "b", addresses: [CONTESTED].into(), readable: true, answers: false });
    world.tell(Input::PortUp { port: port(3), name: "veth3".to_owned(), bridge: rt0() });
    world.survey(3);
    world.pass(Span::from_secs(10));
    assert_eq!(world.incident().status, Status::Open);
    assert!(world.count(|finding| matches!(finding, Finding::StepFailed { step: Step::Verify, .. })) >= 2);
    world.behind.get_mut(&3).unwrap().answers = true;
    world.pass(Span::from_secs(60));
    assert_eq!(world.incident().status, Status::Healed);
}

#[test]
fn whoever_claims_the_gateway_loses_to_the_host() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "a", &[HOST]);
    world.pass(Span::from_secs(1));
    assert_eq!(world.duplicates(), 1);
    assert_eq!(world.incident().contest.as_ref().unwrap().reason, Reason::HostAddress);
    assert_eq!((world.at(2), world.incident().status), (vec![address(10)], Status::Healed));
}

#[test]
fn an_eviction_ends_where_the_contest_is_decided_otherwise() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("reallocate", 1);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!(world.asked("reallocate"), 1);
    // While the eviction waits for its next attempt, the lease goes to the one that was to be moved.
    world.lease(CONTESTED, "b");
    world.sandbox(4, "c", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    assert_eq!([world.at(3), world.at(2), world.at(4)].concat(), [CONTESTED, address(10), address(11)]);
    assert_eq!(world.incident().status, Status::Healed);
}

#[test]
fn who_is_left_alone_with_the_address_is_not_moved() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("readdress", 3);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!(world.asked("readdress"), 1);
    world.leave(2);
    world.pass(Span::from_secs(120));
    assert_eq!((world.at(3), world.incident().status), (vec![CONTESTED], Status::Gone));
    assert_eq!((world.asked("give_back"), world.leases.contains_key(&address(10))), (1, false));
}

#[test]
fn a_loser_that_gives_the_address_up_by_itself_is_left_alone() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("reallocate", usize::MAX);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.reconfigure(3, &[address(77)]);
    assert_eq!((world.incident().status, world.states(CONTESTED)), (Status::Gone, vec![RowState::Ok]));
    world.pass(Span::from_secs(120));
    assert_eq!((world.at(3), world.asked("readdress")), (vec![address(77)], 0));
}

#[test]
fn a_loser_that_takes_the_address_back_at_the_last_moment_is_contested_again() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("bind", 1);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_millis(60));
    assert_eq!(world.asked("bind"), 1);
    world.reconfigure(3, &[CONTESTED, address(10)]);
    world.pass(Span::from_secs(30));
    assert_eq!((world.at(3), world.incident().status), (vec![address(10)], Status::Healed));
    assert_eq!(world.engine.open_count(rt0()), 0);
}

#[test]
fn a_look_does_not_speak_for_others_behind_the_port() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "parent", &[address(2)]);
    let child = Mac([2, 9, 9, 9, 9, 9]);
    let packet = ArpPacket::announcement(child, address(3));
    world.frame(ArpFrame { at: world.now, port: port(2), vlan: None, ether_source: child, packet });
    world.reconfigure(2, &[address(2), address(4)]);
    assert_eq!(world.states(address(3)), [RowState::Ok]);
    world.sandbox(3, "newcomer", &[address(3)]);
    world.pass(Span::from_millis(500));
    assert_eq!(world.duplicates(), 1);
}

#[test]
fn a_name_that_several_go_by_holds_no_lease_and_gets_none() {
    let mut world = World::new(Mode::Enforce);
    world.sandbox(2, "unit.service", &[address(2)]);
    world.sandbox(3, "unit.service", &[address(3)]);
    world.tell(Input::InventoryDone);
    assert_eq!(world.asked("adopt"), 0);
    world.lease(address(9), "w");
    world.sandbox(4, "w", &[address(9)]);
    world.reconfigure(3, &[address(9)]);
    world.pass(Span::from_secs(5));
    assert_eq!((world.held(), world.asked("reallocate")), (vec![Held::Nameless], 0));
}

#[test]
fn what_the_loser_alone_has_is_not_in_use_for_it() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.lease(address(77), "b");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[address(77), CONTESTED]);
    world.pass(Span::from_secs(5));
    assert_eq!((world.at(3), world.incident().status), (vec![address(77)], Status::Healed));
}

#[test]
fn martians_beyond_what_is_kept_for_a_port_are_only_counted() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "noisy", &[]);
    for claim in 0..3000u32 {
        let packet = ArpPacket::announcement(mac(2), Ipv4Addr::from(0xc000_0200 + claim));
        world.frame(ArpFrame { at: world.now, port: port(2), vlan: None, ether_source: mac(2), packet });
    }
    assert_eq!(world.martians().len(), 3000);
    let news = world.count(|finding| matches!(finding, Finding::Martian { news: true, .. }));
    assert_eq!(news, bindings::CLAIMS_PER_PORT);
}

#[test]
fn a_released_address_rests_when_nothing_shows_it_in_use() {
    let mut world = World::running(Mode::Observe);
    let lease = Lease { state: LeaseState::Draining, ..world.lease(CONTESTED, "a") };
    let told = |world: &mut World| (0..5).for_each(|_| world.tell(Input::Draining(vec![lease.clone()])));
    let swept = world.asked("probe");
    world.sandbox(2, "a", &[CONTESTED]);
    told(&mut world);
    assert_eq!((world.asked("probe"), world.asked("retire")), (swept, 0), "it is configured");
    world.leave(2);
    world.opaque(3, "vm", &[CONTESTED]);
    told(&mut world);
    assert_eq!((world.asked("probe"), world.asked("retire")), (swept + 1, 0), "somebody answers");
    world.leave(3);
    let sandbox = Sandbox { netns: Some(NetnsId { device: 4, inode: 9 }), ..Sandbox::default() };
    world.tell(Input::PortUp { port: port(4), name: "veth4".to_owned(), bridge: rt0() });
    let survey = Survey { at: world.now, sandbox, mac: None, addresses: None };
    world.tell(Input::Surveyed { port: port(4), survey });
    told(&mut world);
    assert_eq!(world.asked("retire"), 0, "a namespace that cannot be read may have it");
    world.tell(Input::PortDown { port: port(4) });
    world.tell(Input::Draining(vec![lease.clone()]));
    world.tell(Input::Draining(vec![lease.clone()]));
    assert_eq!(world.asked("retire"), 0, "one lost probe, or two, prove nothing");
    told(&mut world);
    assert!(world.asked("retire") > 0);
}

#[test]
fn without_a_lease_the_incumbent_is_named_and_nobody_is_moved() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "first", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    world.sandbox(3, "second", &[CONTESTED]);
    world.pass(Span::from_secs(60));
    assert_eq!(world.incident().winner().unwrap().label(), "first");
    assert_eq!((world.held(), world.asked("reallocate")), (vec![Held::Unsettled], 0));
    world.lease(CONTESTED, "second");
    world.pass(Span::from_secs(60));
    assert_eq!((world.at(2), world.at(3)), (vec![address(10)], vec![CONTESTED]), "a lease settles it");
}

#[test]
fn two_parties_by_the_lease_holders_name_settle_nothing() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "task");
    world.sandbox(2, "task", &[CONTESTED]);
    world.sandbox(3, "task", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    assert_eq!(world.incident().contest.as_ref().unwrap().winner, None);
    assert_eq!(world.asked("reallocate"), 0);
}

#[test]
fn who_cannot_be_reached_is_not_moved_and_that_is_said() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.opaque(3, "vm", &[CONTESTED]);
    world.says(3, Operation::Reply, CONTESTED, HOST);
    assert_eq!((world.duplicates(), world.held()), (1, vec![Held::OutOfReach]));
    world.sandbox(4, "liar", &[address(4)]);
    world.says(4, Operation::Reply, CONTESTED, HOST);
    assert!(world.held().contains(&Held::OnlyOnTheWire));
    assert_eq!((world.duplicates(), world.asked("readdress")), (1, 0));
}

#[test]
fn a_third_party_is_news_of_the_same_incident() {
    let mut world = World::running(Mode::Observe);
    for at in 2..5 {
        world.sandbox(at, "x", &[CONTESTED]);
    }
    assert_eq!(world.duplicates(), 1);
    assert_eq!(world.count(|finding| matches!(finding, Finding::PartyJoined(_))), 1);
    for _ in 0..50 {
        world.says(2, Operation::Reply, CONTESTED, HOST);
        world.says(3, Operation::Reply, CONTESTED, HOST);
    }
    assert_eq!((world.duplicates(), world.incident().parties.len()), (1, 3));
}

#[test]
fn a_duplicate_that_ends_by_itself_is_gone_and_not_healed() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.reconfigure(3, &[address(5)]);
    assert_eq!(world.incident().status, Status::Gone);
    world.sandbox(4, "c", &[CONTESTED]);
    world.leave(4);
    assert_eq!((world.duplicates(), world.incident().status), (2, Status::Gone));
}

#[test]
fn a_loser_that_goes_away_while_it_is_moved_ends_the_incident() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("readdress", usize::MAX);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(1));
    assert_eq!(world.incident().status, Status::Open);
    world.leave(3);
    assert_eq!(world.incident().status, Status::Gone);
    world.pass(Span::from_secs(300));
    assert_eq!(world.engine.open_count(rt0()), 0);
}

#[test]
fn evictions_are_braked() {
    let mut world = World::running(Mode::Enforce);
    let holders = ["h", "i", "j", "k", "l", "m", "n", "o"];
    let newcomers = ["a", "b", "c", "d", "e", "f", "g", "p"];
    for (host, (holder, newcomer)) in (0..8u8).zip(holders.into_iter().zip(newcomers)) {
        let at = u32::from(host) * 2 + 10;
        world.lease(address(100 + host), holder);
        world.sandbox(at, holder, &[address(100 + host)]);
        world.sandbox(at + 1, newcomer, &[address(100 + host)]);
    }
    assert_eq!((world.duplicates(), world.asked("reallocate")), (8, 5));
    assert_eq!(world.count(|finding| matches!(finding, Finding::Held { reason: Held::Brake, .. })), 3);
    world.pass(Span::from_secs(150));
    assert_eq!((world.asked("reallocate"), world.engine.open_count(rt0())), (8, 0), "the rest follow a minute later");
}

#[test]
fn martians_are_told_each_by_its_own_reason() {
    use MartianReason::*;
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    for sender in ["192.0.2.1", "10.8.64.0", "10.8.64.255", "127.0.0.1", "0.1.1.1", "224.0.0.5", "240.0.0.1"] {
        world.says(2, Operation::Request, sender.parse().unwrap(), HOST);
    }
    assert_eq!(world.martians(), [OutsideSubnet, Network, Broadcast, Loopback, ThisNetwork, Multicast, Reserved]);
    assert_eq!(world.states("192.0.2.1".parse().unwrap()), [RowState::Martian]);
    world.opaque(3, "b", &[]);
    world.says(3, Operation::Request, "192.0.2.1".parse().unwrap(), HOST);
    assert_eq!(world.duplicates(), 0, "what cannot be true cannot be contested");
}

#[test]
fn a_forged_source_is_martian_and_still_a_claim() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    world.opaque(3, "b", &[]);
    world.says_as(2, mac(99), Operation::Reply, CONTESTED, HOST);
    assert_eq!(world.martians(), [MartianReason::EtherMismatch]);
    world.says(3, Operation::Reply, CONTESTED, HOST);
    assert_eq!(world.duplicates(), 1);
}

#[test]
fn a_repeated_martian_is_counted_and_is_news_once() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    for _ in 0..10 {
        world.says(2, Operation::Request, "192.0.2.1".parse().unwrap(), HOST);
    }
    assert_eq!(world.martians().len(), 10);
    assert_eq!(world.count(|finding| matches!(finding, Finding::Martian { news: true, .. })), 1);
}

#[test]
fn probes_and_announcements_of_ones_own_are_nothing() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[address(3)]);
    world.says(2, Operation::Request, Ipv4Addr::UNSPECIFIED, CONTESTED);
    world.says(3, Operation::Request, Ipv4Addr::UNSPECIFIED, CONTESTED);
    for _ in 0..20 {
        world.says(2, Operation::Request, CONTESTED, CONTESTED);
        world.says(2, Operation::Reply, CONTESTED, CONTESTED);
        world.says(2, Operation::Reply, CONTESTED, Ipv4Addr::UNSPECIFIED);
    }
    assert_eq!(world.findings, []);
}

#[test]
fn an_address_that_comes_back_on_a_new_port_has_moved() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "a", &[CONTESTED]);
    world.leave(2);
    world.sandbox(3, "a", &[CONTESTED]);
    world.pass(Span::from_secs(120));
    assert_eq!(world.findings, []);
}

#[test]
fn a_silent_opaque_station_is_asked_before_it_counts() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "was-here", &[]);
    world.opaque(3, "is-here", &[CONTESTED]);
    world.says(2, Operation::Reply, CONTESTED, HOST);
    world.pass(Span::from_secs(30));
    world.says(3, Operation::Reply, CONTESTED, HOST);
    world.pass(Span::from_secs(2));
    assert_eq!((world.duplicates(), world.states(CONTESTED)), (0, vec![RowState::Ok]), "the first is forgotten");

    world.opaque(4, "still-here", &[address(7)]);
    world.opaque(5, "newcomer", &[address(7)]);
    world.says(4, Operation::Reply, address(7), HOST);
    world.pass(Span::from_secs(30));
    world.says(5, Operation::Reply, address(7), HOST);
    assert_eq!(world.duplicates(), 1, "the first answers at once");
}

#[test]
fn a_silent_opaque_station_is_forgotten_and_a_speaking_one_is_kept() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "gone", &[]);
    world.opaque(3, "there", &[address(7)]);
    world.says(2, Operation::Reply, address(6), HOST);
    world.says(3, Operation::Reply, address(7), HOST);
    world.pass(Span::from_secs(300));
    assert_eq!((world.states(address(6)), world.states(address(7))), (vec![], vec![RowState::Ok]));
}

#[test]
fn the_host_may_say_what_is_true_of_others() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "a", &[CONTESTED]);
    world.says(BRIDGE_PORT, Operation::Request, HOST, CONTESTED);
    let packet = ArpPacket::announcement(mac(2), CONTESTED);
    let (at, port, ether_source) = (world.now, port(BRIDGE_PORT), mac(2));
    world.frame(ArpFrame { at, port, vlan: None, ether_source, packet });
    assert_eq!(world.findings, []);
}

#[test]
fn the_host_may_ask_with_any_of_its_addresses() {
    let mut world = World::running(Mode::Enforce);
    world.says(BRIDGE_PORT, Operation::Request, Ipv4Addr::new(192, 0, 2, 1), CONTESTED);
    assert_eq!(world.findings, []);
}

#[test]
fn a_party_that_changes_its_hardware_address_stays_the_party_it_was() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("look_up", 1);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    let other = Mac([2, 7, 7, 7, 7, 7]);
    let sandbox = world.engine.rows().find(|row| row.station.port == port(2)).unwrap().sandbox;
    let addresses = Some(vec![Configured { address: CONTESTED, mac: other }]);
    world.tell(Input::Surveyed {
        port: port(2),
        survey: Survey { at: world.now, sandbox, mac: Some(other), addresses },
    });
    world.pass(Span::from_millis(50));
    let macs: Vec<Mac> = world.incident().parties.iter().map(|party| party.station.mac).collect();
    assert_eq!((world.duplicates(), macs), (1, vec![other, mac(3)]));
    world.pass(Span::from_millis(100));
    assert_eq!(world.asked("readdress"), 1, "and the contest is held all the same");
}

#[test]
fn equal_addresses_in_two_vlans_are_nothing() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    world.opaque(3, "b", &[]);
    for (at, vlan) in [(2, 10), (3, 20)] {
        let packet = ArpPacket::announcement(mac(at), CONTESTED);
        let (port, vlan, ether_source) = (port(at), VlanId::new(vlan), mac(at));
        world.frame(ArpFrame { at: world.now, port, vlan, ether_source, packet });
    }
    assert_eq!(world.findings, []);
}

#[test]
fn several_stations_of_one_sandbox_are_one_party() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "macvlan", &[]);
    for last in [1, 2, 3] {
        let packet = ArpPacket::announcement(Mac([2, 9, 9, 9, 9, last]), CONTESTED);
        let ether_source = packet.sender_mac;
        world.frame(ArpFrame { at: world.now, port: port(2), vlan: None, ether_source, packet });
    }
    assert_eq!(world.findings, []);
}

#[test]
fn one_link_local_gateway_everywhere_is_nothing() {
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    let mut world = World::running(Mode::Observe);
    for at in [2, 3] {
        world.opaque(at, "x", &[]);
        let packet = ArpPacket::announcement(Mac([0xee; 6]), gateway);
        world.frame(ArpFrame { at: world.now, port: port(at), vlan: None, ether_source: Mac([0xee; 6]), packet });
    }
    assert_eq!(world.findings, []);
}

#[test]
fn a_look_that_failed_frees_nothing_and_evicts_nobody() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    let sandbox = Sandbox { netns: Some(NetnsId { device: 4, inode: 2 }), ..Sandbox::default() };
    let survey = Survey { at: world.now, sandbox, mac: None, addresses: None };
    world.tell(Input::Surveyed { port: port(2), survey });
    assert_eq!((world.states(CONTESTED), world.findings.len()), (vec![RowState::Ok], 0));
}

#[test]
fn what_a_frame_said_before_the_last_look_does_not_come_back() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[address(3)]);
    let (at, ether_source) = (world.now, mac(3));
    world.survey(3);
    let packet = ArpPacket { operation: Operation::Reply, ..ArpPacket::announcement(mac(3), CONTESTED) };
    world.frame(ArpFrame { at, port: port(3), vlan: None, ether_source, packet });
    assert_eq!(world.findings, []);
}

#[test]
fn lost_frames_are_asked_for() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[CONTESTED]);
    world.says(2, Operation::Reply, CONTESTED, HOST);
    world.opaque(3, "b", &[CONTESTED]);
    assert_eq!(world.duplicates(), 0);
    world.tell(Input::FramesLost(rt0()));
    assert_eq!(world.duplicates(), 1);
}

#[test]
fn a_killed_agent_goes_on_with_the_same_lease() {
    let mut world = World::new(Mode::Enforce);
    let mut lease = world.lease(address(10), "b");
    (lease.state, lease.replaces) = (LeaseState::Reserved, Some(CONTESTED));
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    // Killed after the old address was taken and before the new one was verified.
    world.sandbox(3, "b", &[address(10)]);
    world.tell(Input::MovePending(lease));
    world.tell(Input::InventoryDone);
    world.pass(Span::from_secs(1));
    assert_eq!(world.incident().status, Status::Healed);
    assert_eq!((world.asked("reallocate"), world.asked("bind"), world.duplicates()), (0, 1, 0));
}

#[test]
fn a_move_whose_sandbox_is_away_waits() {
    let mut world = World::new(Mode::Enforce);
    let mut lease = world.lease(address(10), "b");
    lease.replaces = Some(CONTESTED);
    world.tell(Input::MovePending(lease.clone()));
    world.tell(Input::InventoryDone);
    assert_eq!(world.findings, [Finding::MoveWaits(lease)]);
}

#[test]
fn those_found_alive_are_adopted_in_enforce_alone() {
    for (mode, adopted) in [(Mode::Enforce, 1), (Mode::Observe, 0)] {
        let mut world = World::new(mode);
        world.sandbox(2, "a", &[address(5), Ipv4Addr::new(192, 0, 2, 1)]);
        world.sandbox(3, "b", &[CONTESTED]);
        world.sandbox(4, "c", &[CONTESTED]);
        world.tell(Input::InventoryDone);
        assert_eq!(world.asked("adopt"), adopted);
    }
}

#[test]
fn a_bridge_that_is_made_anew_is_watched_again() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.tell(Input::BridgeDown(rt0()));
    assert_eq!((world.engine.rows().count(), world.engine.port_count(rt0())), (0, 0));
    let networks = vec![Ipv4Net::new(HOST, 24).unwrap()];
    world.tell(Input::BridgeUp(Bridge { name: rt0(), port: port(50), mac: mac(50), networks }));
    world.sandbox(6, "a", &[CONTESTED]);
    world.sandbox(7, "b", &[CONTESTED]);
    assert_eq!(world.duplicates(), 1);
}

#[test]
fn a_port_that_claims_everything_is_bounded_and_blinds_nobody() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "noisy", &[]);
    for claim in 0..5000u32 {
        let packet = ArpPacket::announcement(mac(2), Ipv4Addr::from(0x0a08_4002 + (claim % 250) + (claim / 250) * 256));
        let ether_source = mac(2);
        world.frame(ArpFrame { at: world.now, port: port(2), vlan: None, ether_source, packet });
    }
    assert!(world.engine.rows().count() <= bindings::CLAIMS_PER_PORT + 1);
    assert_eq!(world.count(|finding| matches!(finding, Finding::ClaimRefused { news: true, .. })), 1);
    world.sandbox(3, "a", &[address(252)]);
    world.sandbox(4, "b", &[address(252)]);
    assert_eq!(world.duplicates(), 1);
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let play = || {
        let mut world = World::running(Mode::Enforce);
        world.lease(CONTESTED, "a");
        for (at, name) in [(2, "a"), (3, "b"), (4, "c")] {
            world.sandbox(at, name, &[CONTESTED]);
        }
        world.pass(Span::from_secs(5));
        (format!("{:?}", world.findings), world.asked)
    };
    assert_eq!(play(), play());
}

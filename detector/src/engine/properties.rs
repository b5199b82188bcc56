//! What holds whatever happens: random events, in random order, with random outcomes.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::{
    net::{
        ArpPacket, ClaimKind, Contained, Generation, Ipv4Net, LeaseState, Mac, NetnsId, Operation, Reach, Station,
        VlanId,
    },
    time::Span,
};

fn port(at: u8) -> IfIndex {
    IfIndex::new(u32::from(at) + 2).unwrap()
}

fn mac(at: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, at + 2])
}

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 8, 64, host)
}

fn bridge() -> Bridge {
    let networks = vec![Ipv4Net::new(address(1), 24).unwrap()];
    let (port, mac) = (IfIndex::new(1).unwrap(), Mac([2; 6]));
    Bridge { name: "rt0".parse().unwrap(), port, mac, networks, pvid: None, vlans: Vec::new() }
}

fn lease(owner: u8, host: u8, generation: u64, replaces: Option<Ipv4Addr>) -> Lease {
    Lease {
        domain: Domain::untagged(bridge().name),
        address: address(host),
        owner: format!("s{owner}").parse().unwrap(),
        interface: None,
        generation: Generation(generation),
        state: if replaces.is_some() { LeaseState::Reserved } else { LeaseState::Bound },
        replaces,
    }
}

fn survey(at: u8, hosts: &[u8], readable: bool, now: Timestamp) -> Input {
    let sandbox = Sandbox {
        netns: readable.then(|| NetnsId { device: 4, inode: u64::from(at) }),
        name: None,
        owners: vec![format!("s{at}").parse().unwrap()],
    };
    let configured = |host: &u8| Configured { tag: None, address: address(*host), mac: mac(at) };
    let addresses = readable.then(|| hosts.iter().map(configured).collect());
    let macs = readable.then(|| mac(at)).into_iter().collect();
    Input::Surveyed {
        port: port(at),
        survey: Survey { at: now, sandbox, macs, reach: Reach::Netns, forwards: false, addresses },
    }
}

/// Something that may happen; what needs the time or an action's id gets it when it is played.
#[derive(Clone, Debug)]
enum Event {
    PortUp(u8),
    PortDown(u8),
    Survey(u8, Vec<u8>, bool),
    Packet(u8, [u8; 4]),
    Limited(u8),
    Martian(u8),
    Frame { at: u8, forged: bool, request: bool, sender: [u8; 4], target: u8, tagged: bool, late: u64 },
    Answer { which: usize, succeeds: bool, holder: Option<u8> },
    Pass(u64),
    InventoryDone,
    BridgeDown,
    BridgeUp,
    Lost,
    Paused(Option<u64>),
    Lifted(usize),
    Mode(Mode),
    StoreRestored,
}

const fn mode(enforce: bool) -> Mode {
    if enforce { Mode::Enforce } else { Mode::Observe }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let sender = prop_oneof![
        8 => (0u8..6).prop_map(|host| [10, 8, 64, host]),
        1 => any::<[u8; 4]>(),
        1 => Just([0; 4]),
    ];
    let frame =
        (0u8..5, any::<bool>(), any::<bool>(), sender.clone(), any::<u8>(), prop::bool::weighted(0.1), 0u64..2_000);
    let event = prop_oneof![
        3 => (0u8..5).prop_map(Event::PortUp),
        1 => (0u8..5).prop_map(Event::PortDown),
        4 => (0u8..5, prop::collection::vec(1u8..6, 0..3), prop::bool::weighted(0.8))
            .prop_map(|(at, hosts, readable)| Event::Survey(at, hosts, readable)),
        2 => (0u8..5, sender.clone()).prop_map(|(at, source)| Event::Packet(at, source)),
        1 => (0u8..5).prop_map(Event::Limited),
        1 => (0u8..5).prop_map(Event::Martian),
        6 => frame.prop_map(|(at, forged, request, sender, target, tagged, late)| {
            Event::Frame { at, forged, request, sender, target, tagged, late }
        }),
        8 => (any::<usize>(), prop::bool::weighted(0.8), prop::option::of(0u8..5))
            .prop_map(|(which, succeeds, holder)| Event::Answer { which, succeeds, holder }),
        3 => (0u64..90_000).prop_map(Event::Pass),
        1 => Just(Event::InventoryDone),
        1 => Just(Event::BridgeDown),
        2 => Just(Event::BridgeUp),
        1 => Just(Event::Lost),
        1 => prop::option::of(0u64..5_000).prop_map(Event::Paused),
        1 => any::<usize>().prop_map(Event::Lifted),
        1 => any::<bool>().prop_map(|enforce| Event::Mode(mode(enforce))),
        1 => Just(Event::StoreRestored),
    ];
    prop::collection::vec(event, 1..120)
}

/// Plays events and checks after each that nothing was asked for that must not be.
struct Play {
    engine: Engine,
    now: Timestamp,
    /// Whether it has been in enforce mode: what was begun then may be finished in the other.
    may_act: bool,
    open: Vec<Action>,
    /// What the tap absorbs.
    known: BTreeSet<KnownClaim>,
    generation: u64,
}

impl Play {
    fn new(mode: Mode) -> Self {
        let engine = Engine::new(Config { mode, ..Config::default() });
        let may_act = mode == Mode::Enforce;
        Self {
            engine,
            now: Timestamp::from_nanos(1),
            may_act,
            open: Vec::new(),
            known: BTreeSet::new(),
            generation: 100,
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::PortUp(at) => {
                let bridge = bridge().name;
                self.tell(Input::PortUp(Port { index: port(at), name: format!("veth{at}"), bridge, pvid: None }));
            }
            Event::PortDown(at) => self.tell(Input::PortDown { port: port(at) }),
            Event::Survey(at, hosts, readable) => self.tell(survey(at, &hosts, readable, self.now)),
            Event::Frame { at, forged, request, sender, target, tagged, late } => {
                let operation = if request { Operation::Request } else { Operation::Reply };
                let (sender, target) = (Ipv4Addr::from(sender), address(target));
                let packet = ArpPacket { operation, sender_mac: mac(at), sender, target_mac: Mac::ZERO, target };
                let kind = packet.kind();
                self.tell(Input::Claim(Claim {
                    at: self.now - Span::from_millis(late),
                    port: port(at),
                    tag: tagged.then(|| VlanId::new(7).unwrap()),
                    ether_source: if forged { Mac([9; 6]) } else { mac(at) },
                    mac: mac(at),
                    address: if kind == ClaimKind::Probe { packet.target } else { packet.sender },
                    evidence: Evidence::Arp(kind),
                }));
            }
            Event::Packet(at, source) => {
                let (port, mac, address) = (port(at), mac(at), source.into());
                let claim =
                    Claim { at: self.now, port, tag: None, ether_source: mac, mac, address, evidence: Evidence::Ipv4 };
                self.tell(Input::Claim(claim));
            }
            Event::Limited(at) => self.tell(Input::Limited { port: port(at), count: 7 }),
            Event::Martian(at) => self.tell(Input::KernelMartian(KernelMartian {
                source: address(at),
                target: address(1),
                device: "eth0".to_owned(),
                mac: Some(mac(at)),
            })),
            Event::Answer { which, succeeds, holder } => self.answer(which, succeeds, holder),
            Event::Pass(millis) => {
                self.now = self.now + Span::from_millis(millis);
                self.tell(Input::Timeout);
            }
            Event::InventoryDone => self.tell(Input::InventoryDone),
            Event::BridgeDown => self.tell(Input::BridgeDown(bridge().name)),
            Event::BridgeUp => self.tell(Input::BridgeUp(bridge())),
            Event::Lost => self.tell(Input::ClaimsLost(bridge().name)),
            Event::Paused(millis) => {
                let until = millis.map(|millis| self.now + Span::from_millis(millis));
                self.tell(Input::Paused { until });
            }
            Event::Lifted(which) => {
                let all: Vec<Contained> = self.engine.contained().flat_map(|of| of.entries).collect();
                if let Some(entry) = all.get(which % all.len().max(1)) {
                    self.tell(Input::Lifted(*entry));
                }
            }
            Event::Mode(mode) => {
                self.may_act |= mode == Mode::Enforce;
                self.tell(Input::Reconfigured(Box::new(Config { mode, ..Config::default() })));
            }
            Event::StoreRestored => self.tell(Input::StoreRestored),
        }
    }

    fn answer(&mut self, which: usize, succeeds: bool, holder: Option<u8>) {
        if self.open.is_empty() {
            return;
        }
        let asked = self.open.swap_remove(which % self.open.len());
        self.generation += 1;
        let (action, outcome) = match asked {
            Action::LookUpLeases { id, contested, .. } => {
                let host = contested.octets()[3];
                let contested = holder.map(|owner| lease(owner, host, self.generation, None));
                (id, Outcome::Leases { contested, held: Vec::new() })
            }
            Action::Reallocate { id, contested, owner, .. } => {
                let owner = owner.as_str()[1..].parse().unwrap();
                (id, Outcome::Lease(lease(owner, 100 + owner, self.generation, Some(contested))))
            }
            Action::Readdress { id, .. }
            | Action::Announce { id, .. }
            | Action::Contain { id, .. }
            | Action::Lift { id, .. }
            | Action::Keep { id, .. }
            | Action::Recycle { id, .. }
            | Action::SetAside { id, .. }
            | Action::DestroySockets { id, .. } => (id, Outcome::Finished),
            Action::Bind { id, lease } => (id, Outcome::Lease(lease)),
            Action::Adopt { id, .. } | Action::GiveBack { id, .. } | Action::Retire { id, .. } => {
                (id, Outcome::Finished)
            }
            Action::Probe { .. } | Action::Poll { .. } | Action::Sweep { .. } => return,
            Action::IgnoreIpv4 { .. } | Action::Absorb(_) | Action::Forget(_) => return,
        };
        match succeeds {
            true => self.tell(Input::Done { action, outcome }),
            false => self.tell(Input::Failed { action, failure: "broken".to_owned() }),
        }
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        let _findings: Vec<Finding> = std::iter::from_fn(|| self.engine.next_finding()).collect();
        for action in std::iter::from_fn(|| self.engine.next_action()).collect::<Vec<_>>() {
            self.check(&action);
            match action {
                Action::Absorb(known) => assert!(self.known.insert(known)),
                Action::Forget(known) => assert!(self.known.remove(&known)),
                other => self.open.push(other),
            }
        }
        self.check_rest();
    }

    fn check(&self, action: &Action) {
        match action {
            Action::Probe { .. } | Action::Poll { .. } | Action::Sweep { .. } | Action::LookUpLeases { .. } => {}
            Action::IgnoreIpv4 { .. } | Action::Absorb(_) | Action::Forget(_) | Action::Keep { .. } => {}
            _ if !self.may_act => panic!("{action:?} in observe mode"),
            Action::Readdress { port, from, to, .. } => {
                assert_ne!(from, to);
                let incident = self
                    .engine
                    .incidents()
                    .find(|incident| incident.address == *from && incident.status == Status::Open);
                let incident = incident.expect("an address is changed only for an open incident");
                let winner = incident.contest.as_ref().and_then(|contest| contest.winner);
                assert_ne!(winner, Some(*port), "the winner is never touched");
                assert!(
                    incident.contest.as_ref().is_some_and(Contest::is_settled),
                    "an unsettled contest moves nobody"
                );
                assert!(incident.evictions[port].lease.is_some(), "nobody is moved before the new lease is on disk");
            }
            Action::Contain { entries, .. } => entries.iter().for_each(|entry| self.check_contained(*entry)),
            _ => {}
        }
    }

    /// Nobody is contained but a loser of an open incident.
    fn check_contained(&self, entry: Contained) {
        let domain = self.engine.topology.domain_of(entry.port, entry.tag).expect("of a port that is there");
        let id = self.engine.open.get(&(domain, entry.address)).expect("what is contained is contested");
        let incident = &self.engine.incidents[id];
        let winner = incident.contest.as_ref().and_then(|contest| contest.winner);
        assert!(entry.address != incident.address || winner.is_some_and(|winner| winner != entry.port), "{entry:?}");
        let stands_back = self.engine.paused_until.is_some() || self.engine.config.mode == Mode::Observe;
        assert!(!stands_back || incident.evictions.contains_key(&entry.port));
    }

    /// What the tap absorbs is known here, and nobody contests it: nothing that matters goes unheard.
    fn check_absorbed(&self) {
        for KnownClaim { port, tag, mac, address } in self.known.iter().copied() {
            let domain = self.engine.topology.domain_of(port, tag).expect("of a port that is there");
            let key = (domain, address);
            assert!(self.engine.bindings.get(key, Station { port, mac }).is_some(), "what is absorbed is known");
            assert_eq!(self.engine.contradiction(key, None), None, "what is contested is heard");
            assert!(!self.engine.is_contained(key, port), "what is dropped is not absorbed");
        }
    }

    fn check_rest(&self) {
        self.check_absorbed();
        let open: Vec<_> = self.engine.incidents().filter(|incident| incident.status == Status::Open).collect();
        let contested: BTreeMap<_, _> = open
            .iter()
            .flat_map(|incident| incident.addresses.iter().map(|address| ((incident.domain, *address), incident.id)))
            .collect();
        assert_eq!(contested, self.engine.open);
        assert!(self.engine.recent_evictions.len() <= self.engine.config.evictions_per_minute);
        for ((key, _), of) in &self.engine.contained {
            // What could not be lifted is nobody's, and tried again.
            assert!(of.is_none() || self.engine.open.get(key) == of.as_ref(), "nobody stays contained when it is over");
        }
        assert!(self.engine.poll_timeout().is_none_or(|at| at > self.now), "no timer that is due is left");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_the_winner_is_not_touched(events in events(), enforce in any::<bool>()) {
        let mut play = Play::new(mode(enforce));
        play.event(Event::BridgeUp);
        events.into_iter().for_each(|event| play.event(event));
    }
}

//! What holds whatever happens: random events, in random order, with random outcomes.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::{
    net::{ArpPacket, Generation, Ipv4Net, LeaseState, Mac, NetnsId, Operation, VlanId},
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
    Bridge { name: "rt0".parse().unwrap(), port: IfIndex::new(1).unwrap(), mac: Mac([2; 6]), networks }
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
    let configured = |host: &u8| Configured { address: address(*host), mac: mac(at) };
    let addresses = readable.then(|| hosts.iter().map(configured).collect());
    Input::Surveyed { port: port(at), survey: Survey { at: now, sandbox, mac: readable.then(|| mac(at)), addresses } }
}

/// Something that may happen; what needs the time or an action's id gets it when it is played.
#[derive(Clone, Debug)]
enum Event {
    PortUp(u8),
    PortDown(u8),
    Survey(u8, Vec<u8>, bool),
    Frame { at: u8, forged: bool, request: bool, sender: [u8; 4], target: u8, tagged: bool, late: u64 },
    Answer { which: usize, succeeds: bool, holder: Option<u8> },
    Pass(u64),
    InventoryDone,
    BridgeDown,
    BridgeUp,
    Lost,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let sender = prop_oneof![
        8 => (0u8..6).prop_map(|host| [10, 8, 64, host]),
        1 => any::<[u8; 4]>(),
        1 => Just([0; 4]),
    ];
    let frame = (0u8..5, any::<bool>(), any::<bool>(), sender, any::<u8>(), prop::bool::weighted(0.1), 0u64..2_000);
    let event = prop_oneof![
        3 => (0u8..5).prop_map(Event::PortUp),
        1 => (0u8..5).prop_map(Event::PortDown),
        4 => (0u8..5, prop::collection::vec(1u8..6, 0..3), prop::bool::weighted(0.8))
            .prop_map(|(at, hosts, readable)| Event::Survey(at, hosts, readable)),
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
    ];
    prop::collection::vec(event, 1..120)
}

/// Plays events and checks after each that nothing was asked for that must not be.
struct Play {
    engine: Engine,
    now: Timestamp,
    mode: Mode,
    open: Vec<Action>,
    generation: u64,
}

impl Play {
    fn new(mode: Mode) -> Self {
        let engine = Engine::new(Config { mode, ..Config::default() });
        Self { engine, now: Timestamp::from_nanos(1), mode, open: Vec::new(), generation: 100 }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::PortUp(at) => {
                let bridge = bridge().name;
                self.tell(Input::PortUp { port: port(at), name: format!("veth{at}"), bridge });
            }
            Event::PortDown(at) => self.tell(Input::PortDown { port: port(at) }),
            Event::Survey(at, hosts, readable) => self.tell(survey(at, &hosts, readable, self.now)),
            Event::Frame { at, forged, request, sender, target, tagged, late } => {
                let operation = if request { Operation::Request } else { Operation::Reply };
                let (sender, target) = (Ipv4Addr::from(sender), address(target));
                let packet = ArpPacket { operation, sender_mac: mac(at), sender, target_mac: Mac::ZERO, target };
                let ether_source = if forged { Mac([9; 6]) } else { mac(at) };
                let vlan = tagged.then(|| VlanId::new(7).unwrap());
                let seen = self.now - Span::from_millis(late);
                self.tell(Input::Frame(ArpFrame { at: seen, port: port(at), vlan, ether_source, packet }));
            }
            Event::Answer { which, succeeds, holder } => self.answer(which, succeeds, holder),
            Event::Pass(millis) => {
                self.now = self.now + Span::from_millis(millis);
                self.tell(Input::Timeout);
            }
            Event::InventoryDone => self.tell(Input::InventoryDone),
            Event::BridgeDown => self.tell(Input::BridgeDown(bridge().name)),
            Event::BridgeUp => self.tell(Input::BridgeUp(bridge())),
            Event::Lost => self.tell(Input::FramesLost(bridge().name)),
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
            Action::Readdress { id, .. } | Action::Announce { id, .. } => (id, Outcome::Finished),
            Action::Bind { id, lease } => (id, Outcome::Lease(lease)),
            Action::Adopt { id, .. } | Action::GiveBack { id, .. } | Action::Retire { id, .. } => {
                (id, Outcome::Finished)
            }
            Action::Probe { .. } => return,
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
            self.open.push(action);
        }
        self.check_rest();
    }

    fn check(&self, action: &Action) {
        match action {
            Action::Probe { .. } | Action::LookUpLeases { .. } => {}
            _ if self.mode == Mode::Observe => panic!("{action:?} in observe mode"),
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
            _ => {}
        }
    }

    fn check_rest(&self) {
        let open: Vec<_> = self.engine.incidents().filter(|incident| incident.status == Status::Open).collect();
        assert_eq!(open.len(), self.engine.open.len());
        for incident in open {
            assert_eq!(self.engine.open.get(&(incident.domain, incident.address)), Some(&incident.id));
        }
        assert!(self.engine.recent_evictions.len() <= self.engine.config.evictions_per_minute);
        assert!(self.engine.poll_timeout().is_none_or(|at| at > self.now), "no timer that is due is left");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_the_winner_is_not_touched(events in events(), enforce in any::<bool>()) {
        let mut play = Play::new(if enforce { Mode::Enforce } else { Mode::Observe });
        play.event(Event::BridgeUp);
        events.into_iter().for_each(|event| play.event(event));
    }
}

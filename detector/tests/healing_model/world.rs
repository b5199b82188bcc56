//! The runner: sandboxes, the wire, the tap, the book, and an agent that is killed now and then.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use detector::{
    allocator::{Clock, Fence, Incidents as _, Pool, SqliteStore, Store as _},
    engine::{
        Action, ActionId, Bridge, Claim, Config, Configured, Engine, Evidence, Finding, IncidentId, Input, KnownClaim,
        Mode, Policy, Port, Sandbox, Survey, Way, Ways,
    },
    evidence::Record,
    net::{ClaimKind, Contained, Ipv4Net, Lease, NetnsId, Owner, Reach},
    time::{Span, Timestamp},
};
use tempfile::TempDir;

use crate::{
    acts::{Act, Fate, Restart},
    names::{HOST, HOST_PORT, OPAQUE, address, domain, mac, owner, port, rt0},
    trace::Trace,
};

/// How often the engine is told what drains, and how soon after a failure it is told that the store works again.
const DRAINING_EVERY: Span = Span::from_secs(5);
const STORE_BACK: Span = Span::from_secs(1);
/// How long anything takes that is done at once.
const AT_ONCE: Span = Span::from_millis(1);
/// More than could ever happen in one act.
const ENDLESS: usize = 20_000;

/// A sandbox, behind a port that no other ever had.
#[derive(Clone, Debug)]
pub(crate) struct Behind {
    pub(crate) port: u32,
    pub(crate) addresses: BTreeSet<Ipv4Addr>,
    pub(crate) lies: BTreeSet<Ipv4Addr>,
    pub(crate) readable: bool,
    pub(crate) answers: bool,
}

impl Behind {
    fn says(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address) || self.lies.contains(&address)
    }
}

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub(crate) enum Todo {
    Do(Box<Action>, Fate),
    Tell(Box<Input>),
    Claim(u8, Ipv4Addr, Evidence),
    StoreRestored,
    /// The orchestrator makes the sandbox behind a port anew.
    Replace(u32),
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) store: SqliteStore,
    pub(crate) now: Timestamp,
    pub(crate) behind: BTreeMap<u8, Behind>,
    pub(crate) quarantine: BTreeSet<Contained>,
    pub(crate) known: BTreeSet<KnownClaim>,
    pub(crate) todo: BTreeMap<(Timestamp, u64), Todo>,
    /// When the thread that writes records is free again.
    pub(crate) keeper_free: Timestamp,
    /// Whose each address was when the engine asked last.
    pub(crate) looked: BTreeMap<Ipv4Addr, Option<Owner>>,
    /// Every incident that this agent has told as new to it.
    pub(crate) told: BTreeSet<IncidentId>,
    /// Who was told of as moved, and to which lease.
    pub(crate) moved: BTreeMap<u32, Lease>,
    pub(crate) touched_leases: BTreeSet<Ipv4Addr>,
    way: Way,
    paused_until: Option<Timestamp>,
    fates: std::vec::IntoIter<Fate>,
    killed: bool,
    /// Not yet told: what the store knows of an earlier agent.
    untold: bool,
    drained_at: Timestamp,
    last_port: u32,
    sequence: u64,
    blind_starts: u64,
    clock: Arc<AtomicU64>,
    directory: TempDir,
    trace: Trace,
}

fn open(directory: &TempDir, clock: &Arc<AtomicU64>) -> SqliteStore {
    let clock = Arc::clone(clock);
    let clock = Clock::new("boot", move || Timestamp::from_nanos(clock.load(Ordering::SeqCst)));
    SqliteStore::open(&directory.path().join("leases.db"), "model", clock).unwrap()
}

fn engine(way: Way, last_incident: u64) -> Engine {
    let policy = Policy { ways: Ways { default: way, ..Ways::default() }, ..Policy::default() };
    Engine::new(Config { mode: Mode::Enforce, policy, last_incident, ..Config::default() })
}

impl World {
    pub(crate) fn new(fates: Vec<Fate>) -> Self {
        // Where a disk does not have to be waited for, if the machine has such a place.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let now = Timestamp::from_nanos(1_000_000_000);
        let clock = Arc::new(AtomicU64::new(now.as_nanos()));
        let store = open(&directory, &clock);
        let subnet = Ipv4Net::new(address(0), 27).unwrap();
        store.ensure_pool(&Pool::new(domain(), subnet, Some(HOST), Span::from_secs(60)).unwrap()).unwrap();
        let mut world = Self {
            engine: engine(Way::Readdress, 0),
            store,
            now,
            behind: BTreeMap::new(),
            quarantine: BTreeSet::new(),
            known: BTreeSet::new(),
            todo: BTreeMap::new(),
            keeper_free: now,
            looked: BTreeMap::new(),
            told: BTreeSet::new(),
            moved: BTreeMap::new(),
            touched_leases: BTreeSet::new(),
            way: Way::Readdress,
            paused_until: None,
            fates: fates.into_iter(),
            killed: false,
            untold: false,
            drained_at: now,
            last_port: HOST_PORT,
            sequence: 0,
            blind_starts: 0,
            clock,
            directory,
            trace: Trace::default(),
        };
        world.look_at_everything();
        world
    }

    pub(crate) fn act(&mut self, act: Act) {
        self.trace.note(self.now, || format!("--- {act:?}"));
        match act {
            Act::Arrive(at, hosts) => {
                self.leave(at, true);
                self.arrive(at, &hosts);
                self.tell_of(at);
            }
            Act::Leave(at) => self.leave(at, true),
            Act::Configure(at, hosts) => {
                self.configure(at, &hosts);
                self.survey(at);
            }
            Act::Speak(at) => self.speak(at),
            Act::Lie(at, host) => {
                if let Some(behind) = self.behind.get_mut(&at) {
                    behind.lies.insert(address(host));
                    self.later(AT_ONCE, Todo::Claim(at, address(host), Evidence::Arp(ClaimKind::Reply)));
                }
            }
            Act::Answers(at, answers) => drop(self.behind.get_mut(&at).map(|behind| behind.answers = answers)),
            Act::Adopt(at, host) => {
                self.touched_leases.insert(address(host));
                let _refused = self.store.adopt(domain(), address(host), &owner(at), None);
            }
            Act::Release(host) => {
                self.touched_leases.insert(address(host));
                if let Some(lease) = self.store.lease(domain(), address(host)).unwrap() {
                    let _change = self.store.release(&Fence::from(&lease)).unwrap();
                }
            }
            Act::Lift(which) => {
                let all: Vec<Contained> = self.engine.contained().flat_map(|of| of.entries).collect();
                if let Some(entry) = all.get(which % all.len().max(1)) {
                    self.tell(Input::Lifted(*entry));
                }
            }
            Act::Pause(millis) => {
                self.paused_until = millis.map(|millis| self.now + Span::from_millis(millis));
                self.tell(Input::Paused { until: self.paused_until });
            }
            Act::StoreRestored => self.store_restored(),
            Act::Restart(restart) => self.restart(&restart),
        }
    }

    /// Lets time pass: whatever is going to happen until then happens.
    pub(crate) fn pass(&mut self, span: Span) {
        let until = self.now + span;
        let mut happened = 0;
        while let Some(at) = self.next_event().filter(|at| *at <= until) {
            happened += 1;
            assert!(happened < ENDLESS, "there is no end to it");
            self.set_time(self.now.max(at));
            self.step();
        }
        self.set_time(self.now.max(until));
    }

    fn next_event(&self) -> Option<Timestamp> {
        let todo = self.todo.keys().next().map(|(at, _)| *at);
        let events = [todo, self.engine.poll_timeout(), Some(self.drained_at + DRAINING_EVERY)];
        events.into_iter().flatten().min()
    }

    fn step(&mut self) {
        let due = self.todo.first_entry().filter(|first| first.key().0 <= self.now).map(|first| first.remove());
        match due {
            Some(todo) => self.happen(todo),
            None if self.now >= self.drained_at + DRAINING_EVERY => {
                self.drained_at = self.now;
                let leases = self.store.draining().unwrap();
                self.tell(Input::Draining(leases));
            }
            None => self.tell(Input::Timeout),
        }
        if std::mem::take(&mut self.killed) {
            self.restart(&Restart { way: self.way, keeps: false, blind: false, meanwhile: Vec::new() });
        }
    }

    fn happen(&mut self, todo: Todo) {
        match todo {
            Todo::Do(action, fate) => self.carry_out(*action, fate),
            Todo::Tell(input) => self.tell(*input),
            Todo::Claim(at, address, evidence) => self.claim(at, address, evidence),
            Todo::StoreRestored => self.store_restored(),
            Todo::Replace(port) => {
                let at = self.behind.iter().find(|(_, behind)| behind.port == port).map(|(at, _)| *at);
                if let Some(at) = at {
                    self.leave(at, true);
                    self.arrive(at, &[]);
                    self.tell_of(at);
                }
            }
        }
    }

    fn set_time(&mut self, now: Timestamp) {
        self.now = now;
        self.clock.store(now.as_nanos(), Ordering::SeqCst);
    }

    pub(crate) fn later(&mut self, span: Span, todo: Todo) {
        self.at(self.now + span, todo);
    }

    pub(crate) fn at(&mut self, at: Timestamp, todo: Todo) {
        self.sequence += 1;
        self.todo.insert((at, self.sequence), todo);
    }

    pub(crate) fn store_failed(&mut self) {
        self.later(STORE_BACK, Todo::StoreRestored);
    }

    /// What the engine is told, and what it wants and says then.
    pub(crate) fn tell(&mut self, input: Input) {
        if !matches!(input, Input::Timeout | Input::Draining(_)) {
            self.trace.note(self.now, || format!("> {input:?}"));
        }
        self.engine.handle(input, self.now);
        assert!(self.engine.poll_timeout().is_none_or(|at| at > self.now), "a timer that is due is left");
        while let Some(finding) = self.engine.next_finding() {
            self.hear(&finding);
        }
        while let Some(action) = self.engine.next_action() {
            self.want(action);
        }
        self.check_always();
    }

    fn hear(&mut self, finding: &Finding) {
        self.trace.note(self.now, || format!("  {finding:?}"));
        match finding {
            Finding::Duplicate(incident) => {
                let id = incident.id;
                assert!(self.told.insert(id), "incident {id} is told as new twice");
                let kept = self.store.kept(id.0).unwrap();
                assert!(kept.is_none_or(|kept| kept.address == incident.address), "number {id} was another's");
            }
            Finding::Resumed { incident, .. } => {
                assert!(self.told.insert(*incident), "incident {incident} is told as new twice");
                assert!(self.store.kept(incident.0).unwrap().is_none(), "number {incident} was another's");
            }
            Finding::Evicted { incident, port } => {
                let lease = incident.evictions.get(port).and_then(|eviction| eviction.lease.clone());
                self.moved.insert(port.get(), lease.expect("who is moved has a lease"));
            }
            _ => {}
        }
    }

    fn want(&mut self, action: Action) {
        if self.killed {
            return;
        }
        match action {
            Action::Absorb(known) => assert!(self.known.insert(known), "{known:?} is absorbed already"),
            Action::Forget(known) => drop(self.known.remove(&known)),
            Action::Probe { addresses, .. } => self.probe(addresses),
            Action::Poll { address, .. } => self.probe(vec![address]),
            Action::Sweep { seen, .. } => self.probe(seen),
            Action::IgnoreIpv4 { .. } => {}
            action => {
                let fate = self.fates.next().unwrap_or(Fate::Done);
                self.trace.note(self.now, || format!("    {action:?}: {fate:?}"));
                self.check_wanted(&action);
                self.begin(action, fate);
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        self.trace.note(self.now, || "killed".to_owned());
        self.killed = true;
        // What the orchestrator was asked for goes on.
        self.todo.retain(|_, todo| matches!(todo, Todo::Replace(_)));
    }

    fn restart(&mut self, restart: &Restart) {
        self.kill();
        self.killed = false;
        self.way = restart.way;
        for (at, hosts) in &restart.meanwhile {
            match hosts {
                Some(hosts) => self.configure(*at, hosts),
                None => self.leave(*at, false),
            }
        }
        self.known.clear();
        if !restart.keeps {
            self.quarantine.clear();
        }
        self.set_time(self.now + Span::from_millis(50));
        self.keeper_free = self.now;
        self.store = open(&self.directory, &self.clock);
        self.told.clear();
        let last_incident = match restart.blind {
            true => {
                self.blind_starts += 1;
                1_000_000 * self.blind_starts
            }
            false => self.store.last_incident().unwrap(),
        };
        self.engine = engine(self.way, last_incident);
        if !self.quarantine.is_empty() {
            let left = self.quarantine.iter().copied().collect();
            self.tell(Input::LeftContained(left));
        }
        self.untold = true;
        match restart.blind {
            true => self.store_failed(),
            false => self.tell_what_was_left(),
        }
        self.look_at_everything();
    }

    /// As `agent/restoring` does.
    fn tell_what_was_left(&mut self) {
        if !std::mem::take(&mut self.untold) {
            return;
        }
        let moves = self.store.pending_moves().unwrap();
        let mut records = self.store.kept_lately(256).unwrap();
        records.retain(|record| !record.is_open);
        records.reverse();
        records.extend(self.store.kept_open().unwrap());
        if let Some(until) = self.paused_until.filter(|until| *until > self.now) {
            self.tell(Input::Paused { until: Some(until) });
        }
        for record in records {
            let incident = Record::from_json(&record.record).unwrap().incident().unwrap();
            self.tell(Input::Restored(Box::new(incident)));
        }
        moves.into_iter().for_each(|lease| self.tell(Input::MovePending(lease)));
    }

    fn store_restored(&mut self) {
        self.tell_what_was_left();
        self.tell(Input::StoreRestored);
    }

    fn look_at_everything(&mut self) {
        let networks = vec![Ipv4Net::new(HOST, 27).unwrap()];
        let (port, mac) = (port(HOST_PORT), mac(HOST_PORT));
        self.tell(Input::BridgeUp(Bridge { name: rt0(), port, mac, networks, pvid: None, vlans: Vec::new() }));
        let all: Vec<u8> = self.behind.keys().copied().collect();
        all.iter().for_each(|at| self.port_up(*at));
        all.iter().for_each(|at| self.survey(*at));
        self.tell(Input::InventoryDone);
    }

    fn arrive(&mut self, at: u8, hosts: &[u8]) {
        self.last_port += 1;
        let addresses = hosts.iter().copied().map(address).collect();
        let (port, lies, readable) = (self.last_port, BTreeSet::new(), at < OPAQUE);
        self.behind.insert(at, Behind { port, addresses, lies, readable, answers: true });
    }

    fn tell_of(&mut self, at: u8) {
        self.port_up(at);
        self.survey(at);
        self.speak(at);
    }

    fn leave(&mut self, at: u8, told: bool) {
        let Some(behind) = self.behind.remove(&at) else { return };
        if told {
            self.tell(Input::PortDown { port: port(behind.port) });
        }
        // The agent forgets what is kept from a port that is gone.
        self.quarantine.retain(|entry| entry.port != port(behind.port));
    }

    fn configure(&mut self, at: u8, hosts: &[u8]) {
        if let Some(behind) = self.behind.get_mut(&at) {
            behind.addresses = hosts.iter().copied().map(address).collect();
            // What it has from now on, it has not been given.
            self.moved.remove(&behind.port);
        }
    }

    fn port_up(&mut self, at: u8) {
        let Some(behind) = self.behind.get(&at) else { return };
        let (index, name) = (port(behind.port), format!("veth{}", behind.port));
        self.tell(Input::PortUp(Port { index, name, bridge: rt0(), pvid: None }));
    }

    pub(crate) fn survey(&mut self, at: u8) {
        let Some(Behind { port: index, addresses, readable, .. }) = self.behind.get(&at) else { return };
        let (index, readable) = (*index, *readable);
        let configured = addresses.iter().map(|address| Configured { tag: None, address: *address, mac: mac(index) });
        let survey = Survey {
            at: self.now,
            sandbox: Sandbox {
                netns: readable.then_some(NetnsId { device: 4, inode: u64::from(index) }),
                name: readable.then(|| format!("s{at}")),
                owners: readable.then(|| owner(at)).into_iter().collect(),
            },
            macs: readable.then(|| mac(index)).into_iter().collect(),
            reach: if readable { Reach::Netns } else { Reach::Tap },
            forwards: false,
            addresses: readable.then(|| configured.collect()),
        };
        self.tell(Input::Surveyed { port: port(index), survey });
    }

    fn speak(&mut self, at: u8) {
        let Some(behind) = self.behind.get(&at) else { return };
        for address in behind.addresses.clone() {
            self.later(AT_ONCE, Todo::Claim(at, address, Evidence::Arp(ClaimKind::Reply)));
        }
    }

    fn probe(&mut self, addresses: Vec<Ipv4Addr>) {
        for address in addresses {
            let answers = |behind: &Behind| behind.answers && behind.says(address);
            let all: Vec<u8> = self.behind.iter().filter(|(_, of)| answers(of)).map(|(at, _)| *at).collect();
            all.into_iter()
                .for_each(|at| self.later(AT_ONCE, Todo::Claim(at, address, Evidence::Arp(ClaimKind::Reply))));
        }
    }

    /// A frame comes in by a port. As the tap does: what is known, it absorbs.
    fn claim(&mut self, at: u8, address: Ipv4Addr, evidence: Evidence) {
        let Some(behind) = self.behind.get(&at).filter(|behind| behind.says(address)) else { return };
        let (port, mac, tag) = (port(behind.port), mac(behind.port), None);
        if !self.known.contains(&KnownClaim { port, tag, mac, address }) {
            self.tell(Input::Claim(Claim { at: self.now, port, tag, ether_source: mac, mac, address, evidence }));
        }
    }

    pub(crate) fn answer(&mut self, action: ActionId, answer: Result<detector::engine::Outcome, String>, late: Span) {
        let input = match answer {
            Ok(outcome) => Input::Done { action, outcome },
            Err(failure) => Input::Failed { action, failure },
        };
        self.later(late, Todo::Tell(Box::new(input)));
    }

    pub(crate) fn sandbox_at(&self, index: u32) -> Option<(u8, &Behind)> {
        self.behind.iter().find(|(_, behind)| behind.port == index).map(|(at, behind)| (*at, behind))
    }

    /// From here on nothing fails, everybody answers, and nobody does anything but the agent.
    pub(crate) fn calm_down(&mut self) {
        self.fates = Vec::new().into_iter();
        self.behind.values_mut().for_each(|behind| behind.answers = true);
        self.paused_until = None;
        self.tell(Input::Paused { until: None });
        for _ in 0..40 {
            self.pass(Span::from_secs(20));
        }
    }
}

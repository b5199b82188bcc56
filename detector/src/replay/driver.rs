//! The agent's part: time, inputs and answers for the engine.

use std::collections::BTreeMap;

use detector_ebpf::{Kind, Malformed, Tapped};
use serde::Serialize;

use super::{
    merge::Merged,
    ports::{Origin, Ports},
    recording::Frame,
    wire::{Read, read},
};
use crate::{
    capture::claim_of,
    engine::{Action, Config, Engine, Evidence, Finding, Incident, Input, Outcome, Policy, Row, Survey},
    net::{BridgeName, IfIndex, Ipv4Net, Lease, Mac, MartianReason, Reach},
    time::Timestamp,
};

/// How many timers go off between two frames, at most: a clock that was set may leave years between them.
const TIMERS: usize = 100_000;

/// What is known of the bridge beside what was recorded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What to call the bridge.
    pub bridge: BridgeName,
    /// The host's addresses on it, each with its subnet.
    pub networks: Vec<Ipv4Net>,
    /// The host's hardware address; if it is not known, whoever first claims the host's address is taken for the host.
    pub host: Option<Mac>,
    /// What an operator has decided about certain addresses and ports.
    pub policy: Policy,
    /// The leases at that time.
    pub leases: Vec<Lease>,
}

/// What was replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Frames of Ethernet.
    pub frames: u64,
    /// Frames that are not Ethernet.
    pub foreign: u64,
    /// Those of them that are copies of others: what a bridge sends on.
    pub copies: u64,
    /// Frames that stand behind later ones in their file.
    pub out_of_order: u64,
    /// IPv4 packets that may come from far behind whoever sent them, so that their source claims nothing.
    pub passed_on: u64,
    /// Frames of more ports than are told apart.
    pub unplaced: u64,
    /// Claims, by what they are.
    pub claims: BTreeMap<&'static str, u64>,
    /// What says that it is ARP and is not, by the reason.
    pub malformed: BTreeMap<&'static str, u64>,
    /// Claims that cannot be true, by the reason.
    pub martians: BTreeMap<&'static str, u64>,
    /// Ports that something came in by.
    pub ports: u64,
    /// When the first frame was recorded, and the last.
    #[serde(skip)]
    pub span: Option<(Timestamp, Timestamp)>,
}

/// A replay under way.
pub struct Replay {
    engine: Engine,
    ports: Ports,
    leases: Vec<Lease>,
    now: Timestamp,
    summary: Summary,
}

impl Replay {
    /// A replay of what was recorded on one bridge.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { bridge, networks, host, policy, leases } = settings;
        Self {
            engine: Engine::new(Config { policy, asks: false, ..Config::default() }),
            ports: Ports::new(bridge, networks, host),
            leases,
            now: Timestamp::default(),
            summary: Summary::default(),
        }
    }

    /// Takes the next frame in; `false` at the end. Tells what was found, with the time in the recording.
    pub fn step(&mut self, recordings: &mut Merged, tell: &mut impl FnMut(Timestamp, &Finding)) -> bool {
        let Some((number, frame)) = recordings.next() else {
            self.summary.foreign = recordings.recordings().iter().map(|recording| recording.foreign()).sum();
            return false;
        };
        if self.summary.span.is_none() {
            self.begin(recordings, &frame);
        }
        self.pass_time(frame.at, tell);
        self.take(recordings, number, &frame);
        self.settle(tell);
        true
    }

    /// What was replayed so far.
    #[must_use]
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The incidents, oldest first.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.engine.incidents()
    }

    /// Who had which address in the end.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.engine.rows()
    }

    /// Whether senders were told apart by their hardware addresses alone.
    #[must_use]
    pub const fn is_by_station(&self) -> bool {
        self.ports.by_station
    }

    /// Who was taken for the host.
    #[must_use]
    pub const fn host(&self) -> Option<Mac> {
        self.ports.host()
    }

    fn begin(&mut self, recordings: &Merged, first: &Frame) {
        self.now = first.at;
        self.ports.settle(recordings.recordings(), first);
        self.tell(Input::BridgeUp(self.ports.bridge()));
        self.tell(Input::InventoryDone);
    }

    /// Lets go off what was due before `at`. Time does not go back, even where the recording does.
    fn pass_time(&mut self, at: Timestamp, tell: &mut impl FnMut(Timestamp, &Finding)) {
        let summary = &mut self.summary;
        summary.frames += 1;
        summary.out_of_order += u64::from(at < self.now);
        for _ in 0..TIMERS {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due <= at) else { break };
            self.now = self.now.max(due);
            self.tell(Input::Timeout);
            self.settle(tell);
        }
        self.now = self.now.max(at);
        let first = self.summary.span.map_or(self.now, |(first, _)| first);
        self.summary.span = Some((first, self.now));
    }

    fn take(&mut self, recordings: &Merged, number: usize, frame: &Frame) {
        let read = read(&frame.head);
        let Some(recording) = recordings.recordings().get(number).filter(|_| read != Read::Other) else { return };
        if let Read::Claim(claim) = read {
            self.learn_host(&claim, frame);
        }
        match self.ports.origin(number, recording, frame) {
            Origin::Port(port) => self.read(read, port, frame),
            Origin::NewPort(port, sandbox) => {
                self.summary.ports += 1;
                let index = port.index;
                self.tell(Input::PortUp(port));
                if !sandbox.owners.is_empty() {
                    let survey = Survey {
                        at: self.now,
                        sandbox,
                        reach: Reach::Other,
                        macs: [].into(),
                        forwards: false,
                        addresses: None,
                    };
                    self.tell(Input::Surveyed { port: index, survey });
                }
                self.read(read, index, frame);
            }
            Origin::Copy => self.summary.copies += 1,
            Origin::Nowhere => self.summary.unplaced += 1,
        }
    }

    /// What a host sends on may come from anywhere, so only ARP says who it is.
    fn learn_host(&mut self, claim: &detector_ebpf::Claim, frame: &Frame) {
        let says = claim.kind != Kind::Ipv4 && claim.kind != Kind::Probe;
        if says && self.ports.learn_host(Mac(claim.mac), claim.address.into(), frame) {
            self.tell(Input::BridgeUp(self.ports.bridge()));
        }
    }

    fn read(&mut self, read: Read, port: IfIndex, frame: &Frame) {
        match read {
            Read::Other => {}
            Read::Malformed(reason) => *self.summary.malformed.entry(Malformed::as_str(reason)).or_default() += 1,
            Read::Claim(claim) if claim.kind == Kind::Ipv4 && !self.ports.is_own(port, claim.address.into(), frame) => {
                self.summary.passed_on += 1;
            }
            Read::Claim(claim) => {
                let tapped = Tapped { nanos: self.now.as_nanos(), ifindex: port.get() };
                let Some(claim) = claim_of(tapped, &claim) else { return };
                *self.summary.claims.entry(Evidence::as_str(claim.evidence)).or_default() += 1;
                self.tell(Input::Claim(claim));
            }
        }
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(input, self.now);
    }

    /// Tells what was found, and answers what can be answered: nobody is there to be asked or to be moved.
    fn settle(&mut self, tell: &mut impl FnMut(Timestamp, &Finding)) {
        loop {
            while let Some(finding) = self.engine.next_finding() {
                if let Finding::Martian { reason, .. } = &finding {
                    *self.summary.martians.entry(MartianReason::as_str(*reason)).or_default() += 1;
                }
                tell(self.now, &finding);
            }
            let Some(action) = self.engine.next_action() else { return };
            if let Some(answer) = answer_from(&self.leases, action) {
                self.tell(answer);
            }
        }
    }
}

/// What an engine that only observes is answered from leases that are known: nobody is there to be asked or to be moved,
/// and nothing else that it wants has an outcome.
#[must_use]
pub fn answer_from(leases: &[Lease], action: Action) -> Option<Input> {
    let Action::LookUpLeases { id, domain, contested, owners } = action else { return None };
    let in_domain = || leases.iter().filter(|lease| lease.domain == domain);
    let held = in_domain().filter(|lease| lease.state.is_held() && owners.contains(&lease.owner));
    let contested = in_domain().find(|lease| lease.address == contested).cloned();
    Some(Input::Done { action: id, outcome: Outcome::Leases { contested, held: held.cloned().collect() } })
}

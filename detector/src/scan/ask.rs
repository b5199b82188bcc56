//! The sweep, and whatever the engine asks besides.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{Gap, ScanError, Scanned};
use crate::{
    allocator::since_boot,
    capture::{CaptureError, Ear, FrameSender, Post, SendError, Side, TapSettings},
    engine::{Action, Bridge, Config, Engine, Finding, Input, Policy},
    net::{ArpPacket, BridgeName, Domain, IfIndex, Ipv4Net, Lease, LeaseState},
    replay::answer_from,
    time::{Span, Timestamp},
};

/// Networks are asked for whole from this prefix length on: 1024 addresses.
const WHOLE: u8 = 22;
/// How often each address is asked for.
const ROUNDS: usize = 2;
/// Probes that go out together, and the pause after them: more would fill the queues of the bridge's ports.
const BURST: usize = 64;
const PAUSE: Duration = Duration::from_millis(5);
/// How long after the last probe somebody may still answer.
const QUIET: Duration = Duration::from_millis(500);
/// What the engine would do later than that is no part of a scan.
const SOON: Span = Span::from_secs(2);

/// Who asks, listens, and has the engine judge.
pub(super) struct Asker {
    engine: Engine,
    ear: Ear,
    sender: FrameSender,
    listens: BTreeSet<IfIndex>,
    bridges: BTreeMap<BridgeName, Asked>,
    leases: Vec<Lease>,
    findings: Vec<Finding>,
    pub(super) gaps: Vec<Gap>,
    /// Frames that wait to be sent.
    probes: VecDeque<(IfIndex, Vec<u8>)>,
    /// When the last probe went out.
    last: Instant,
}

/// A bridge that is asked.
struct Asked {
    told: Bridge,
    /// Addresses that the host knows of.
    hints: Vec<Ipv4Addr>,
    is_down: bool,
}

impl Asker {
    pub(super) fn open(policy: Policy, leases: Vec<Lease>) -> Result<Self, ScanError> {
        Ok(Self {
            engine: Engine::new(Config { policy, ..Config::default() }),
            ear: Ear::open(&TapSettings::default())?,
            sender: FrameSender::open()?,
            listens: BTreeSet::new(),
            bridges: BTreeMap::new(),
            leases,
            findings: Vec::new(),
            gaps: Vec::new(),
            probes: VecDeque::new(),
            last: Instant::now(),
        })
    }

    /// Listens to what comes in by a port. One that has gone meanwhile says nothing.
    pub(super) fn listen_at(&mut self, bridge: IfIndex, port: IfIndex) -> Result<(), ScanError> {
        if !self.listens.insert(port) {
            return Ok(());
        }
        match self.ear.attach(port, Post { bridge, side: Side::Ingress, watch_ipv4: false }) {
            Err(CaptureError::Gone { .. }) => Ok(()),
            done => Ok(done?),
        }
    }

    pub(super) fn bridge(&mut self, up: bool, told: &Bridge, hints: Vec<Ipv4Addr>) {
        let name = told.name;
        if !up {
            self.gaps.push(Gap::of_bridge(name, "is down: nobody there can be asked"));
        }
        let devices = told.vlans.iter().flat_map(|device| &device.networks);
        let large = told.networks.iter().chain(devices).filter(|network| network.prefix_len() < WHOLE);
        self.gaps.extend(large.map(|network| Gap {
            incomplete: false,
            ..Gap::of_bridge(
                name,
                format!("{} is too large to be asked for whole: only known addresses are", network.trunc()),
            )
        }));
        self.bridges.insert(name, Asked { told: told.clone(), hints, is_down: !up });
    }

    pub(super) fn tell(&mut self, input: Input) {
        self.engine.handle(input, since_boot());
        self.settle();
    }

    /// Asks until nothing is left to ask and everybody had time to answer, or until `deadline`.
    pub(super) fn ask(&mut self, began: Timestamp, deadline: Instant) -> Result<(), ScanError> {
        self.last = Instant::now();
        loop {
            let waits = self.send();
            let now = Instant::now();
            let done = self.probes.is_empty() && self.last + QUIET <= now && !self.is_due_soon();
            if done || now >= deadline {
                break;
            }
            let wake = now + if waits { PAUSE } else { self.until_timeout().min(QUIET) };
            for claim in self.ear.listen(wake.min(deadline))? {
                self.tell(Input::Claim(claim));
            }
            if self.engine.poll_timeout().is_some_and(|due| due <= since_boot()) {
                self.tell(Input::Timeout);
            }
        }
        if !self.probes.is_empty() {
            let what = format!("the time was over with {} questions left: give more by --timeout", self.probes.len());
            self.gaps.extend(self.bridges.keys().map(|name| Gap::of_bridge(name, what.clone())));
        }
        tracing::debug!(event = "asked", took = %since_boot().since(began), "asked");
        self.tell_losses();
        Ok(())
    }

    pub(super) fn end(self) -> Scanned {
        Scanned {
            rows: self.engine.rows().collect(),
            incidents: self.engine.incidents().cloned().collect(),
            findings: self.findings,
            gaps: self.gaps,
        }
    }

    fn is_due_soon(&self) -> bool {
        self.engine.poll_timeout().is_some_and(|due| due < since_boot() + SOON)
    }

    fn until_timeout(&self) -> Duration {
        self.engine.poll_timeout().map_or(QUIET, |due| due.since(since_boot()).into())
    }

    /// Sends a burst of what waits; whether more is left.
    fn send(&mut self) -> bool {
        for _ in 0..BURST {
            let Some((bridge, frame)) = self.probes.pop_front() else { return false };
            self.last = Instant::now();
            if let Err(error) = self.sender.send(bridge, &frame) {
                self.not_sent(bridge, &error);
            }
        }
        true
    }

    /// A bridge that cannot be asked is told of once.
    fn not_sent(&mut self, bridge: IfIndex, error: &SendError) {
        let asked = self.bridges.values_mut().find(|asked| asked.told.port == bridge && !asked.is_down);
        if let Some(asked) = asked {
            asked.is_down = true;
            self.gaps.push(Gap::of_bridge(asked.told.name, format!("somebody could not be asked: {error}")));
        }
    }

    fn tell_losses(&mut self) {
        let lost = |port: &IfIndex| self.ear.counters(*port).map_or(0, |counters| counters.lost + counters.limited);
        let lost: u64 = self.listens.iter().map(lost).sum();
        if lost > 0 {
            let what = format!("{lost} ARP packets were not heard: something floods the ports");
            self.gaps.extend(self.bridges.keys().map(|name| Gap::of_bridge(name, what.clone())));
        }
    }

    /// Does what the engine wants, as far as it changes nothing.
    fn settle(&mut self) {
        loop {
            self.findings.extend(std::iter::from_fn(|| self.engine.next_finding()));
            let Some(action) = self.engine.next_action() else { return };
            match action {
                Action::Probe { domain, addresses } => self.queue(domain, addresses),
                Action::Sweep { domain, seen } => self.sweep(domain, seen),
                action => {
                    if let Some(answer) = answer_from(&self.leases, action) {
                        self.engine.handle(answer, since_boot());
                    }
                }
            }
        }
    }

    fn sweep(&mut self, domain: Domain, seen: Vec<Ipv4Addr>) {
        let Some(asked) = self.bridges.get(&domain.bridge) else { return };
        let whole = asked.networks(domain).iter().filter(|network| network.prefix_len() >= WHOLE);
        let may_be_used = |lease: &&Lease| lease.state.is_held() || lease.state == LeaseState::Draining;
        let leased = self.leases.iter().filter(|lease| lease.domain == domain).filter(may_be_used);
        let hints = asked.hints.iter().copied().filter(|_| domain.vlan.is_none());
        let addresses: BTreeSet<_> =
            whole.flat_map(Ipv4Net::hosts).chain(seen).chain(leased.map(|lease| lease.address)).chain(hints).collect();
        for _ in 0..ROUNDS {
            self.queue(domain, addresses.iter().copied().collect());
        }
    }

    fn queue(&mut self, domain: Domain, addresses: Vec<Ipv4Addr>) {
        let Some(Asked { told, .. }) = self.bridges.get(&domain.bridge) else { return };
        let probe = |address| (told.port, ArpPacket::probe(told.mac, address).broadcast_frame(domain.vlan));
        self.probes.extend(addresses.into_iter().map(probe));
    }
}

impl Asked {
    fn networks(&self, domain: Domain) -> &[Ipv4Net] {
        match domain.vlan {
            None => &self.told.networks,
            Some(vlan) => {
                let device = self.told.vlans.iter().find(|device| device.vlan == vlan);
                device.map_or(&[], |device| &device.networks)
            }
        }
    }
}

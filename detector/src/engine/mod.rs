//! The pure core: what is claimed, what contradicts itself, what should be done about it.
//!
//! The engine is a state machine in the manner of a sans-IO protocol. It is told events ([`Input`]) together with the
//! time, and it answers with effects as data: [`Action`]s to carry out and [`Finding`]s to tell. How an action ended comes
//! back as one more input. It has no clock, does no IO, draws no random numbers and keeps everything in ordered maps, so
//! the same inputs at the same times give the same outputs, down to their order.
//!
//! After every call of [`Engine::handle`], take actions and findings until there are none, and call again with
//! [`Input::Timeout`] when the moment of [`Engine::poll_timeout`] has come.
//!
//! - `bindings`, `topology`: what is known; `rows`: how it is shown. `policy`: what an operator has decided. `claims`: how an event becomes
//!   knowledge. `absorption`: what the tap need not report any more. `liveness`: how knowledge ages. `inventory`, `sweeps`:
//!   when everything is asked for. `draining`: what a released address waits for.
//! - `rules`: what contradicts itself, and what cannot be true. `moves`, `shared`, `probing`, `floods`, `kernel_martians`:
//!   one kind of verdict each. `contest`: who keeps an address.
//! - `suspicion`: from a contradiction to an incident. `judgement`: incidents, from their beginning to their end; `leading`: those of several
//!   addresses.
//! - `plan`, `ways`, `strikes`, `pausing`, `reconfiguring`: what may be done about a loser. `healing`: what is. `containment`: what the tap
//!   drops. `saga`: the steps of an eviction; `verifying`: its last look; `settling`: its lease. `evidence`, `restoring`: what is written down of an
//!   incident, and taken up by the next agent.

mod absorption;
mod bindings;
mod claims;
mod containment;
mod contest;
mod draining;
mod eviction;
mod evidence;
mod finding;
mod floods;
mod healing;
mod held;
mod incident;
mod input;
mod inventory;
mod judgement;
mod kernel_martians;
mod leading;
mod liveness;
mod moves;
mod output;
mod pausing;
mod plan;
mod policy;
mod probing;
#[cfg(test)]
mod properties;
mod reconfiguring;
mod restoring;
mod rows;
mod rules;
mod saga;
#[cfg(test)]
mod scenarios;
mod settling;
mod shared;
mod strikes;
mod suspicion;
mod sweeps;
mod timers;
mod topology;
mod verifying;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::Ipv4Addr,
};

use bindings::{Bindings, Key};
use evidence::Findings;
use kernel_martians::ToldMartians;
use liveness::Round;
use moves::Departures;
use probing::Probing;
use settling::Settling;
use strikes::Strikes;
use suspicion::{Book, Suspicion};
use timers::{Timer, Timers};
use topology::Topology;

pub use bindings::Binding;
pub use containment::Containment;
pub use contest::{Contest, Holding, Reason, Rights};
pub use eviction::{Eviction, Step};
pub use finding::{Finding, Flood, Info};
pub use held::Held;
pub use incident::{Incident, IncidentId, Party, Sighting, Status, Verdict};
pub use input::{Claim, Configured, Evidence, Heard, Input, KernelMartian, KnownClaim, Outcome, Survey};
pub use output::{Action, ActionId};
pub use plan::Plan;
pub use policy::{InvalidPattern, Policy, PortPattern};
pub use rows::{Row, RowState};
pub(crate) use topology::PartyKey;
pub use topology::{Bridge, Port, Sandbox, VlanDevice};
pub use ways::{NoOwner, OwnerPattern, UnknownWay, Way, Ways};

use crate::{
    net::{BridgeName, Contained, Domain, Generation, IfIndex, Lease, Station},
    time::{Span, Timestamp},
};

/// Closed incidents that are remembered for whoever asks; the oldest go first.
const CLOSED_KEPT: usize = 256;

/// Whether the agent acts on what it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Tells, and changes nothing.
    #[default]
    Observe,
    /// Moves losers to fresh addresses.
    Enforce,
}

impl Mode {
    /// The mode in one word, as the command line and the API spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

/// What an operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether to act.
    pub mode: Mode,
    /// How many evictions may begin within a minute.
    pub evictions_per_minute: usize,
    /// How often whoever was moved away may come back within an hour; after that it is only contained.
    pub strikes: u32,
    /// Whether connections from an address are ended when its owner does not have it any more.
    pub destroys_sockets: bool,
    /// How long an orchestrator may take to replace a sandbox.
    pub recycle_time: Span,
    /// Whether the tap can drop frames.
    pub can_contain: bool,
    /// The number of the last incident that was written down.
    pub last_incident: u64,
    /// What is special about certain addresses and ports.
    pub policy: Policy,
    /// Whether questions reach anybody. If not, as with frames that were recorded, whoever was heard lately counts as alive.
    pub asks: bool,
    /// How many addresses a port may claim on the wire beyond those configured behind it; further ones are refused and
    /// counted.
    pub claims_per_port: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            evictions_per_minute: 5,
            strikes: 3,
            destroys_sockets: true,
            recycle_time: Span::from_secs(60),
            can_contain: true,
            last_incident: 0,
            policy: Policy::default(),
            asks: true,
            claims_per_port: bindings::CLAIMS_PER_PORT,
        }
    }
}

/// What an action in flight was for.
#[derive(Clone, Debug)]
enum Purpose {
    Contest(IncidentId),
    Suspicion(Key),
    /// A change of neighbours' caches, which they would make themselves before long.
    Caches,
    Eviction(IncidentId, IfIndex),
    /// The record that an eviction's step waits for.
    Keeping(IncidentId, IfIndex),
    /// A record that nobody waits for.
    Evidence(IncidentId),
    /// The contest for an address that has joined an incident.
    Joined(IncidentId, Key),
    /// The containment of a loser at such an address.
    JoinedContained(IncidentId, Key, IfIndex),
    /// That these may be claimed at a port again.
    Lift(Vec<Key>, IfIndex),
    /// With how often it has failed.
    Adoption(Domain, Ipv4Addr, u8),
    /// What becomes of a lease when its eviction is over.
    Settle(Settling),
    /// A change of a lease that nobody waits for.
    Store(Domain, Ipv4Addr),
}

/// The state machine. See the module's own words for how to drive it.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    topology: Topology,
    bindings: Bindings,
    incidents: BTreeMap<IncidentId, Incident>,
    /// The open incident of each contested address.
    open: BTreeMap<Key, IncidentId>,
    /// Contradictions that are not incidents yet.
    suspicions: BTreeMap<Key, Suspicion>,
    departures: Departures,
    probing: Probing,
    floods: BTreeMap<IfIndex, Flood>,
    told_martians: ToldMartians,
    /// Ports whose sandboxes were seen to send packets for others.
    forwarders: BTreeSet<IfIndex>,
    swept_for_losses: BTreeMap<BridgeName, Timestamp>,
    round: Round,
    closed: VecDeque<IncidentId>,
    timers: Timers,
    in_flight: BTreeMap<ActionId, Purpose>,
    actions: VecDeque<Action>,
    findings: Findings,
    /// Moves that the store says were under way when the agent last stopped, and since when it is known that they
    /// have to wait.
    pending_moves: Vec<(Lease, Option<Timestamp>)>,
    /// Leases that evictions have left, and that the store has not settled yet.
    unsettled: Vec<Settling>,
    /// Addresses whose adoption has failed so far.
    unadopted: BTreeSet<Key>,
    /// Leases that drain and that nothing shows in use, with the tellings since.
    drains: BTreeMap<(Domain, Ipv4Addr, Generation), u8>,
    /// Ports whose claims have been refused since they came.
    refused: BTreeSet<IfIndex>,
    /// When evictions began within the last minute.
    recent_evictions: VecDeque<Timestamp>,
    /// What is contained, and for which incident; none if an earlier agent has left it.
    contained: BTreeMap<(Key, IfIndex), Option<IncidentId>>,
    /// Who is contained at addresses that have joined an incident.
    settled_joins: BTreeSet<(Key, IfIndex)>,
    /// Losers that an operator does not want to be contained.
    spared: BTreeSet<(IncidentId, IfIndex)>,
    strikes: Strikes,
    paused_until: Option<Timestamp>,
    /// Incidents of which there is news to be written down, those of which it is being done, and those of which it could
    /// not be.
    unkept: BTreeSet<IncidentId>,
    being_kept: BTreeSet<IncidentId>,
    owed: BTreeSet<IncidentId>,
    /// What an earlier agent has left contained, until it is known which ports there are.
    left_contained: Vec<Contained>,
    /// Incidents that an earlier agent had open, until it is known who is here.
    waiting: BTreeMap<Key, Incident>,
    inventory_done: bool,
    last_action: u64,
    last_incident: u64,
}

impl Engine {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            bindings: Bindings::new(config.claims_per_port),
            topology: Topology::default(),
            incidents: BTreeMap::new(),
            open: BTreeMap::new(),
            suspicions: BTreeMap::new(),
            departures: Departures::default(),
            probing: Probing::default(),
            floods: BTreeMap::new(),
            told_martians: ToldMartians::default(),
            forwarders: BTreeSet::new(),
            swept_for_losses: BTreeMap::new(),
            round: Round::default(),
            closed: VecDeque::new(),
            timers: Timers::default(),
            in_flight: BTreeMap::new(),
            actions: VecDeque::new(),
            findings: Findings::default(),
            pending_moves: Vec::new(),
            unsettled: Vec::new(),
            unadopted: BTreeSet::new(),
            drains: BTreeMap::new(),
            refused: BTreeSet::new(),
            recent_evictions: VecDeque::new(),
            contained: BTreeMap::new(),
            settled_joins: BTreeSet::new(),
            spared: BTreeSet::new(),
            strikes: Strikes::default(),
            paused_until: None,
            unkept: BTreeSet::new(),
            being_kept: BTreeSet::new(),
            owed: BTreeSet::new(),
            left_contained: Vec::new(),
            waiting: BTreeMap::new(),
            inventory_done: false,
            last_action: 0,
            last_incident: config.last_incident,
            config,
        }
    }

    /// Takes in what has happened. `now` never goes back.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::BridgeUp(bridge) => self.bridge_up(bridge, now),
            Input::BridgeDown(name) => self.bridge_down(name, now),
            Input::PortUp(port) => self.port_up(port, now),
            Input::PortDown { port } => self.port_down(port, now),
            Input::Surveyed { port, survey } => self.surveyed(port, survey, now),
            Input::InventoryDone => self.inventory_done(now),
            Input::Claim(claim) => self.claimed(claim, now),
            Input::Heard(heard) => self.heard(heard, now),
            Input::ClaimsLost(bridge) => self.sweep_for_losses(bridge, now),
            Input::Limited { port, count } => self.limited(port, count, now),
            Input::KernelMartian(martian) => self.kernel_martian(martian, now),
            Input::Draining(leases) => self.draining(leases),
            Input::MovePending(lease) => self.pending_moves.push((lease, None)),
            Input::Restored(incident) => self.restored(*incident, now),
            Input::LeftContained(entries) => self.left_contained.extend(entries),
            Input::Lifted(entry) => self.lifted_by_operator(entry),
            Input::Paused { until } => self.pause(until, now),
            Input::Reconfigured(config) => self.reconfigure(*config, now),
            Input::StoreRestored => self.store_restored(now),
            Input::Done { action, outcome } => self.done(action, outcome, now),
            Input::Failed { action, failure } => self.failed(action, failure, now),
            Input::Timeout => {}
        }
        self.fire_timers(now);
        self.keep_news();
    }

    /// When to call [`Engine::handle`] with [`Input::Timeout`] next; `None` if nothing is waited for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to tell.
    pub fn next_finding(&mut self) -> Option<Finding> {
        self.findings.pop_front()
    }

    /// The incidents, open and closed, oldest first.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    fn describe(&self, key: Key, station: Station, binding: &Binding) -> Party {
        let port = self.topology.ports.get(&station.port);
        Party {
            station,
            port_name: self.topology.name(station.port),
            sandbox: port.map(|port| port.sandbox.clone()).unwrap_or_default(),
            is_host: self.topology.bridges.get(&key.0.bridge).is_some_and(|bridge| bridge.port == station.port),
            is_external: self.topology.is_external(station.port),
            first_seen: binding.first_seen,
            evidence: binding.evidence,
            configured: binding.configured,
            initial: binding.initial,
            address: key.1,
            key: self.topology.party(station),
        }
    }

    /// Numbers an action and notes what it is for.
    fn act(&mut self, purpose: Purpose, action: impl FnOnce(ActionId) -> Action) -> ActionId {
        self.last_action += 1;
        let id = ActionId(self.last_action);
        self.in_flight.insert(id, purpose);
        self.actions.push_back(action(id));
        id
    }

    fn done(&mut self, action: ActionId, outcome: Outcome, now: Timestamp) {
        match (self.in_flight.remove(&action), outcome) {
            (Some(Purpose::Contest(incident)), Outcome::Leases { contested, held }) => {
                self.judge_contest(incident, contested.as_ref(), &held, now);
            }
            (Some(Purpose::Suspicion(key)), Outcome::Leases { contested, held }) => {
                self.suspicion_answered(key, action, Some(Book { contested, held }), now);
            }
            (Some(Purpose::Joined(incident, key)), Outcome::Leases { contested, held }) => {
                self.judge_joined(incident, key, contested.as_ref(), &held);
            }
            (Some(Purpose::JoinedContained(incident, key, port)), _) => {
                self.announce_keeper(key, self.other_than(key, port));
                self.note(incident);
            }
            (Some(Purpose::Evidence(incident)), _) => self.kept(incident, true),
            (Some(Purpose::Keeping(incident, port)), _) => self.kept_for(incident, port, action, now),
            (Some(Purpose::Eviction(incident, port)), outcome) => {
                self.step_done(incident, port, action, outcome, now);
            }
            (Some(Purpose::Adoption(domain, address, _)), _) => {
                self.unadopted.remove(&(domain, address));
            }
            _ => {}
        }
    }

    fn failed(&mut self, action: ActionId, failure: String, now: Timestamp) {
        match self.in_flight.remove(&action) {
            Some(Purpose::Contest(incident)) => self.contest_failed(incident, failure, now),
            Some(Purpose::Suspicion((domain, address))) => {
                self.suspicion_answered((domain, address), action, None, now);
                self.findings.push_back(Finding::StoreFailed { domain, address, failure });
            }
            Some(Purpose::Eviction(incident, port) | Purpose::Keeping(incident, port)) => {
                self.step_failed(incident, port, action, failure, now);
            }
            Some(Purpose::Evidence(incident)) => self.kept(incident, false),
            Some(Purpose::Joined(_, (domain, address))) => {
                self.findings.push_back(Finding::StoreFailed { domain, address, failure });
            }
            Some(Purpose::JoinedContained(incident, key, port)) => {
                self.join_not_contained(incident, key, port, failure)
            }
            Some(Purpose::Lift(keys, port)) => self.not_lifted(&keys, port, now),
            Some(Purpose::Adoption(domain, address, failed)) => {
                self.adoption_failed((domain, address), failed + 1, failure, now);
            }
            Some(Purpose::Settle(settling)) => self.not_settled(settling, failure, now),
            Some(Purpose::Store(domain, address)) => {
                self.findings.push_back(Finding::StoreFailed { domain, address, failure });
            }
            Some(Purpose::Caches) | None => {}
        }
    }

    fn fire_timers(&mut self, now: Timestamp) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Liveness(domain, address, station) => self.silent((domain, address), station, now),
                Timer::Round => self.next_in_round(now),
                Timer::Suspicion(domain, address) => self.suspicion_due((domain, address), now),
                Timer::Hold(domain, address) => self.hold_due((domain, address), now),
                Timer::Continues(incident) => self.continues(incident),
                Timer::Flood(port) => self.flood_due(port),
                Timer::Sweep(bridge) => self.sweep_due(bridge, now),
                Timer::Contest(incident) => self.hold_contest(incident),
                Timer::Adoption(domain, address, failed) => self.adopt_again(domain, address, failed),
                Timer::Eviction(incident, port) => self.resume_eviction(incident, port, now),
                Timer::Waiting => self.close_rest(now),
                Timer::Moves => self.resume_moves(now),
                Timer::LeftOver => self.lift_left_over(),
                Timer::Settle => self.settle_again(),
                Timer::Pause => self.pause(None, now),
            }
        }
    }
}

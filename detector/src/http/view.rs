//! From the agent's values to what goes over HTTP, and from requests to the agent's values.

use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use humantime::format_rfc3339_millis;
use serde::Serialize;
use serde_json::{Map, Value};

use super::api;
use crate::{
    agent::{self, Handle, Settings, TableRow, clock},
    allocator::{Change, Fence, JournalEntry, Standing, Wish},
    engine::{Containment, Eviction, Evidence, Incident, Party, Plan, Row, Sighting, Status, Way},
    net::{
        BridgeName, Domain, Generation, IfIndex, IfName, InvalidName, InvalidOwner, Ipv4Range, Lease, Owner, VlanId,
    },
    telemetry::{BadCursor, Cursor, Entry, Event, Page, Severity, Stream, UnknownKind},
    time::{Span, Timestamp},
};

/// How long nobody forgets that the agent is paused.
pub const LONGEST_PAUSE: Span = Span::from_secs(24 * 3600);

/// A request that names something which cannot be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Invalid {
    #[error(transparent)]
    Interface(#[from] InvalidName),
    #[error("{0} is not a VLAN: they go from 1 to 4094, and what goes untagged has none")]
    Vlan(u16),
    #[error(transparent)]
    Owner(#[from] InvalidOwner),
    #[error(transparent)]
    Cursor(#[from] BadCursor),
    #[error(transparent)]
    Kind(#[from] UnknownKind),
    #[error("nobody waits for {0} s: at most 30")]
    Wait(u64),
    #[error("a pause lasts 1 ms to 24 h, which is 86400000 ms; {0} ms were asked for")]
    Pause(u64),
    #[error("say either `for_ms`, how long to pause, or `end`: true")]
    PauseOrEnd,
    #[error("{0} events cannot be given at a time: ask for 1 to 1024")]
    Limit(usize),
}

/// Turns moments since boot into what a wall clock showed then. One reading for a whole answer, so that two times in it
/// are as far apart as they were.
#[derive(Clone, Copy, Debug)]
pub struct Wall {
    now: Timestamp,
    wall: SystemTime,
}

impl Wall {
    /// As the clocks stand now.
    #[must_use]
    pub fn read() -> Self {
        let now = clock::now();
        Self { now, wall: clock::wall(now) }
    }

    /// For moments that are since 1970, not since boot, as recordings have them.
    #[must_use]
    pub fn recorded() -> Self {
        Self::since(0)
    }

    /// For moments since a boot that began `began` nanoseconds after 1970, as records have them.
    #[must_use]
    pub fn since(began: u64) -> Self {
        let now = Timestamp::from_nanos(u64::MAX / 2);
        let nanos = [began, now.as_nanos()].map(Duration::from_nanos);
        Self { now, wall: nanos.into_iter().fold(SystemTime::UNIX_EPOCH, |wall, nanos| wall + nanos) }
    }

    /// A moment as RFC 3339 has it.
    #[must_use]
    pub fn text(&self, at: Timestamp) -> String {
        format_rfc3339_millis(clock::beside(self.now, self.wall, at)).to_string()
    }

    /// The moment of the reading.
    pub(super) fn now(&self) -> String {
        self.text(self.now)
    }

    /// How long it is until then.
    pub(super) fn until(&self, at: Timestamp) -> Span {
        at.since(self.now)
    }
}

/// Which agent this is, as the API shows it.
pub(super) fn about(agent: &Handle) -> api::About {
    let Settings { bridges, engine, database, .. } = agent.settings();
    api::About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        database: database.clone(),
        mode: engine.mode.as_str().to_owned(),
        bridges: bridges.iter().map(ToString::to_string).collect(),
        waits_for: agent.readiness().waits_for().iter().map(|latch| latch.as_str().to_owned()).collect(),
    }
}

/// A row of the live table, as the API shows it.
#[must_use]
pub fn row(seen: &TableRow, wall: Wall) -> api::Row {
    let Row { domain, address, station, port_name, sandbox, reach, is_host, is_external, binding, state } = &seen.row;
    api::Row {
        bridge: domain.bridge.to_string(),
        vlan: domain.vlan.map(VlanId::get),
        address: *address,
        mac: station.mac.to_string(),
        port: port_name.clone(),
        ifindex: station.port.get(),
        netns: sandbox.netns.map(|netns| netns.inode),
        sandbox: sandbox.name.clone(),
        host: *is_host,
        external: *is_external,
        reach: reach.map(|reach| reach.as_str().to_owned()),
        first_seen: wall.text(binding.first_seen),
        last_seen: wall.text(binding.last_seen),
        evidence: binding.evidence.as_str().to_owned(),
        hits: binding.hits,
        state: state.as_str().to_owned(),
        lease: seen.lease.as_ref().map(holding),
        lease_known: seen.lease_is_known,
    }
}

fn holding(lease: &Lease) -> api::Holding {
    let Lease { owner, generation, state, .. } = lease;
    api::Holding { owner: owner.to_string(), generation: generation.0, state: state.to_string() }
}

/// A lease as the API and the command line show it.
impl From<&Lease> for api::Lease {
    fn from(lease: &Lease) -> Self {
        let Lease { domain, address, owner, interface, generation, state, replaces } = lease;
        Self {
            bridge: domain.bridge.to_string(),
            vlan: domain.vlan.map(VlanId::get),
            address: *address,
            owner: owner.to_string(),
            interface: interface.map(|name| name.to_string()),
            generation: generation.0,
            state: state.to_string(),
            replaces: *replaces,
        }
    }
}

/// A lease with how it stands, as the API and the command line show it.
impl From<&Standing> for api::Standing {
    fn from(standing: &Standing) -> Self {
        let Standing { lease, since, left, quarantine } = standing;
        Self {
            lease: lease.into(),
            since_ms: since.as_nanos() / 1_000_000,
            left_ms: left.map(|left| left.as_nanos().div_ceil(1_000_000)),
            mac: quarantine.as_ref().map(|(mac, _)| mac.to_string()),
            reason: quarantine.as_ref().map(|(_, reason)| reason.clone()),
        }
    }
}

/// A line of the journal, as the API and the command line show it.
impl From<&JournalEntry> for api::JournalEntry {
    fn from(entry: &JournalEntry) -> Self {
        Self {
            number: entry.number,
            time: format_rfc3339_millis(entry.wall).to_string(),
            boot: entry.boot.clone(),
            boot_ms: entry.at.as_nanos() / 1_000_000,
            actor: entry.actor.clone(),
            op: entry.op.clone(),
            bridge: entry.domain.map(|domain| domain.bridge.to_string()),
            vlan: entry.domain.and_then(|domain| domain.vlan).map(VlanId::get),
            address: entry.address,
            owner: entry.owner.as_ref().map(ToString::to_string),
            interface: entry.interface.map(|name| name.to_string()),
            generation: entry.generation.map(|generation| generation.0),
            from: entry.from.map(|state| state.to_string()),
            to: entry.to.map(|state| state.to_string()),
            reason: entry.reason.clone(),
        }
    }
}

/// What a release came to, as the API and the command line show it.
impl From<&Change> for api::Released {
    fn from(change: &Change) -> Self {
        match change {
            Change::Applied(lease) => Self { released: true, lease: Some(lease.into()) },
            Change::Fenced { current } => Self { released: false, lease: current.as_ref().map(Into::into) },
        }
    }
}

/// An incident, as the API shows it.
#[must_use]
pub fn incident(incident: &Incident, wall: Wall) -> api::Incident {
    let healed = incident.status == Status::Healed;
    api::Incident {
        id: incident.id.0,
        bridge: incident.domain.bridge.to_string(),
        vlan: incident.domain.vlan.map(VlanId::get),
        address: incident.address,
        addresses: incident.addresses.iter().copied().collect(),
        verdict: incident.verdict().as_str().to_owned(),
        severity: Severity::of(incident).as_str().to_owned(),
        status: incident.status.as_str().to_owned(),
        opened: wall.text(incident.first_at),
        times: incident.times,
        claims: incident.claims,
        named_us: incident.time_to_name().as_nanos() / 1000,
        closed: incident.closed_at.map(|at| wall.text(at)),
        heal_ms: incident.time_to_close().filter(|_| healed).map(millis),
        first_evidence: incident.first_evidence.as_str().to_owned(),
        parties: incident.parties.iter().map(|of| contender(incident, of, wall)).collect(),
        reason: incident.contest.as_ref().map(|contest| contest.reason.to_string()),
        settled: incident.contest.as_ref().is_some_and(|contest| contest.is_settled()),
        healed,
        held: incident.held.map(|held| held.as_str().to_owned()),
        decision: incident.decision(),
        plan: incident.plan.iter().map(|of| plan(incident, of)).collect(),
        evictions: evictions(incident, |way| way != Way::Contain),
        contained: evictions(incident, |way| way == Way::Contain),
        sightings: incident.sightings.iter().map(|of| sighting(incident, of, wall)).collect(),
    }
}

/// Who is in quarantine, as the API shows it.
pub(super) fn quarantined(of: &agent::Quarantined, wall: Wall) -> api::Quarantined {
    let Containment { domain, address, port, port_name, sandbox, incident, since, .. } = &of.containment;
    api::Quarantined {
        bridge: domain.bridge.to_string(),
        vlan: domain.vlan.map(VlanId::get),
        address: *address,
        port: port_name.clone(),
        ifindex: port.get(),
        sandbox: sandbox.clone(),
        incident: incident.map(|id| id.0),
        since: since.map(|at| wall.text(at)),
        dropped: of.dropped,
    }
}

fn sighting(incident: &Incident, sighting: &Sighting, wall: Wall) -> api::Sighting {
    let Sighting { at, address, station, evidence } = sighting;
    api::Sighting {
        time: wall.text(*at),
        address: *address,
        port: incident.party(station.port).map(|party| party.port_name.clone()),
        ifindex: station.port.get(),
        mac: station.mac.to_string(),
        evidence: evidence.map_or("martian", Evidence::as_str).to_owned(),
    }
}

/// A party with how it stands in an incident.
fn contender(incident: &Incident, of: &Party, wall: Wall) -> api::Party {
    let new_lease = incident.evictions.get(&of.station.port).and_then(|eviction| eviction.lease.as_ref());
    api::Party {
        role: role(incident, of).to_owned(),
        new_address: new_lease.map(|lease| lease.address),
        ..party(of, wall)
    }
}

fn party(party: &Party, wall: Wall) -> api::Party {
    api::Party {
        sandbox: party.sandbox.name.clone(),
        port: party.port_name.clone(),
        ifindex: party.station.port.get(),
        mac: party.station.mac.to_string(),
        netns: party.sandbox.netns.map(|netns| netns.inode),
        host: party.is_host,
        external: party.is_external,
        evidence: party.evidence.as_str().to_owned(),
        configured: party.configured,
        first_seen: wall.text(party.first_seen),
        role: "party".to_owned(),
        new_address: None,
    }
}

fn role(incident: &Incident, party: &Party) -> &'static str {
    match incident.contest.as_ref().and_then(|contest| contest.winner) {
        Some(winner) if winner == party.station.port => "winner",
        _ if incident.losers().any(|loser| loser.station == party.station) => "loser",
        _ => "party",
    }
}

fn evictions(incident: &Incident, is_wanted: impl Fn(Way) -> bool) -> Vec<api::Eviction> {
    let eviction = |(port, eviction): (&IfIndex, &Eviction)| {
        let loser = incident.party(*port);
        api::Eviction {
            sandbox: loser.and_then(|loser| loser.sandbox.name.clone()),
            port: loser.map(|loser| loser.port_name.clone()).unwrap_or_default(),
            way: eviction.way.as_str().to_owned(),
            owner: eviction.owner.as_ref().map(ToString::to_string),
            strikes: eviction.strikes,
            step: eviction.step.as_str().to_owned(),
            new_lease: eviction.lease.as_ref().map(Into::into),
            failure: eviction.failure.clone(),
            steps: steps(incident.first_at, eviction),
        }
    };
    incident.evictions.iter().filter(|(_, of)| is_wanted(of.way)).map(eviction).collect()
}

fn plan(incident: &Incident, plan: &Plan) -> api::Plan {
    let loser = incident.party(plan.port);
    api::Plan {
        sandbox: loser.and_then(|loser| loser.sandbox.name.clone()),
        port: loser.map(|loser| loser.port_name.clone()).unwrap_or_default(),
        way: plan.way.map(|way| way.as_str().to_owned()),
        owner: plan.owner.as_ref().map(ToString::to_string),
        held: plan.held.map(|held| held.as_str().to_owned()),
    }
}

fn steps(since: Timestamp, eviction: &Eviction) -> Vec<api::StepTaken> {
    let taken = eviction.taken.iter();
    taken.map(|(step, at)| api::StepTaken { step: step.as_str().to_owned(), at_ms: millis(at.since(since)) }).collect()
}

pub(super) fn events(page: &Page) -> api::Events {
    let stream = &page.next.stream;
    api::Events {
        stream: stream.to_string(),
        events: page.events.iter().map(|entry| event(stream, entry)).collect(),
        next: page.next.to_string(),
        missed: page.missed,
        restarted: page.restarted,
    }
}

pub(super) fn event(stream: &Stream, entry: &Entry) -> api::Event {
    let Entry { seq, at, time, event } = entry;
    let cursor = Cursor { stream: stream.clone(), seq: *seq }.to_string();
    api::Event { cursor, ..told(event, *seq, *at, Wall { now: *at, wall: *time }) }
}

/// An event that is in no log, the `seq`th that was told, as the API shows it: without a cursor.
#[must_use]
pub fn told(event: &Event, seq: u64, at: Timestamp, wall: Wall) -> api::Event {
    api::Event {
        seq,
        cursor: String::new(),
        time: wall.text(at),
        boot_us: at.as_nanos() / 1000,
        kind: event.kind.to_string(),
        severity: event.severity.as_str().to_owned(),
        bridge: event.bridge.map(|bridge| bridge.to_string()),
        vlan: event.vlan.map(VlanId::get),
        address: event.address,
        incident: event.incident.map(|incident| incident.0),
        port: event.port_name.clone(),
        ifindex: event.port.map(IfIndex::get),
        mac: event.mac.map(|mac| mac.to_string()),
        reason: event.reason.clone(),
        message: event.message.clone(),
        detail: detail(event, wall),
    }
}

/// Times are as the wall clock showed them when the event was told, so that it reads the same whenever it is asked for.
fn detail(event: &Event, wall: Wall) -> Map<String, Value> {
    let mut detail = event.snapshot.as_deref().map_or_else(Map::new, |of| fields(incident(of, wall)));
    // What the event itself says, and what is not kept.
    for field in ["id", "bridge", "vlan", "address", "sightings"] {
        detail.remove(field);
    }
    if !event.parties.is_empty() {
        let parties: Vec<_> = event.parties.iter().map(|of| Value::Object(fields(party(of, wall)))).collect();
        detail.insert("parties".to_owned(), parties.into());
    }
    detail.extend(fields(&event.facts));
    detail
}

fn fields(value: impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        // Never: all of these are objects with texts for keys.
        _ => Map::new(),
    }
}

/// Milliseconds, to the microsecond.
fn millis(span: Span) -> f64 {
    (span.as_millis_f64() * 1e3).round() / 1e3
}

impl api::Allocate {
    pub(super) fn wish(self) -> Result<Wish, Invalid> {
        let within = self.address.map(Ipv4Range::from).into_iter().collect();
        let wish = Wish::new(domain(&self.bridge, self.vlan)?, self.owner.parse()?);
        Ok(Wish { interface: interface(self.interface.as_deref())?, within, ..wish })
    }
}

impl api::Adopt {
    pub(super) fn named(self) -> Result<(Domain, Ipv4Addr, Owner, Option<IfName>), Invalid> {
        let interface = interface(self.interface.as_deref())?;
        Ok((domain(&self.bridge, self.vlan)?, self.address, self.owner.parse()?, interface))
    }
}

impl api::Address {
    pub(super) fn named(&self) -> Result<(Option<Domain>, Ipv4Addr), Invalid> {
        let domain = self.bridge.as_deref().map(|bridge| domain(bridge, self.vlan));
        Ok((domain.transpose()?, self.address))
    }
}

impl api::Lift {
    pub(super) fn named(self) -> Result<agent::Release, Invalid> {
        Ok(agent::Release { port: self.port.parse()?, address: self.address, vlan: vlan(self.vlan)? })
    }
}

impl api::Pause {
    /// How long; `None` ends a pause.
    pub(super) fn asked(self) -> Result<Option<Span>, Invalid> {
        let longest = LONGEST_PAUSE.as_nanos() / 1_000_000;
        match (self.for_ms, self.end) {
            (None, true) => Ok(None),
            (Some(millis), false) if (1..=longest).contains(&millis) => Ok(Some(Span::from_millis(millis))),
            (Some(millis), false) => Err(Invalid::Pause(millis)),
            _ => Err(Invalid::PauseOrEnd),
        }
    }
}

/// Until when nothing new is done, as the API shows it.
pub(super) fn paused(until: Option<Timestamp>, wall: Wall) -> api::Paused {
    api::Paused {
        paused: until.is_some(),
        until: until.map(|at| wall.text(at)),
        left_ms: until.map(|at| wall.until(at).as_nanos().div_ceil(1_000_000)),
        lost_with_agent: None,
    }
}

impl api::TableFilter {
    /// The domain that is asked for; `None` is any.
    pub(super) fn domain(&self) -> Result<Option<Domain>, Invalid> {
        self.bridge.as_deref().map(|bridge| domain(bridge, self.vlan)).transpose()
    }
}

fn interface(name: Option<&str>) -> Result<Option<IfName>, Invalid> {
    Ok(name.map(str::parse).transpose()?)
}

impl api::Release {
    pub(super) fn named(self) -> Result<Fence, Invalid> {
        Ok(Fence {
            domain: domain(&self.bridge, self.vlan)?,
            address: self.address,
            owner: self.owner.parse()?,
            generation: Generation(self.generation),
        })
    }
}

fn domain(bridge: &str, vlan: Option<u16>) -> Result<Domain, Invalid> {
    let bridge: BridgeName = bridge.parse()?;
    Ok(Domain { bridge, vlan: self::vlan(vlan)? })
}

fn vlan(id: Option<u16>) -> Result<Option<VlanId>, Invalid> {
    id.map(|id| VlanId::new(id).ok_or(Invalid::Vlan(id))).transpose()
}

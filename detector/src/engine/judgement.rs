//! Incidents: opened at the first contradiction, judged by contest, closed when one owner is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{
    CLOSED_KEPT, Engine, Purpose,
    bindings::{Binding, Key},
    contest::{Contest, Rights},
    eviction::{Eviction, Step, backoff},
    finding::Finding,
    held::Held,
    incident::{Incident, IncidentId, Party, Sighting, Status},
    input::Evidence,
    output::{Action, ActionId},
    rules,
    timers::Timer,
};
use crate::{
    net::{IfIndex, Lease, Owner, Station},
    time::{Span, Timestamp},
};

/// How soon after its end a duplicate that is back is the same incident.
const REOPENS: Span = Span::from_secs(300);
/// How many addresses of an incident are told of one by one; after that, when there are twice as many.
const TOLD_ADDRESSES: usize = 8;
/// How often it is told that an incident goes on.
const TOLD_EVERY: Span = Span::from_secs(60);

/// Whether it is told that there are so many.
pub(super) const fn is_told(count: usize) -> bool {
    count <= TOLD_ADDRESSES || count.is_power_of_two()
}

impl Engine {
    /// Looks at an address after somebody claimed it. A party that has been silent is asked before it counts.
    pub(super) fn judge(&mut self, key: Key, evidence: Evidence, at: Timestamp, now: Timestamp) {
        let Some(all) = self.contradiction(key, None) else { return };
        self.listen_to(key);
        let since = now - self.fresh();
        for station in all {
            if !self.is_sure(key, station, since) {
                self.doubt(key, station, now);
            }
        }
        self.doubt_replaced(key, at);
        let sure = self.contradiction(key, Some(since)).unwrap_or_default();
        self.split_off(key, &sure, now);
        match self.open.get(&key) {
            _ if sure.len() < 2 => {}
            Some(incident) => self.join(*incident, &sure),
            None if self.is_shared(key) => self.held_by_two(key, now),
            None => self.suspect(key, evidence, at, now),
        }
    }

    /// One station of each party, if the address has several; with `since`, of those parties alone that are sure to be
    /// alive since then.
    pub(super) fn contradiction(&self, key: Key, since: Option<Timestamp>) -> Option<Vec<Station>> {
        let stations = self.bindings.stations(key);
        let alive = stations.filter(|(station, _)| since.is_none_or(|since| self.is_sure(key, *station, since)));
        rules::duplicate(key.1, alive.map(|(station, binding)| (self.topology.party(station), station, binding)))
    }

    /// Whether an address has several parties, be that an incident already or not yet.
    pub(super) fn is_contested(&self, key: Key) -> bool {
        self.open.contains_key(&key) || self.contradiction(key, None).is_some()
    }

    /// Whether a station is sure to have the address, not only remembered to have had it.
    fn is_sure(&self, key: Key, station: Station, since: Timestamp) -> bool {
        let binding = self.bindings.get(key, station);
        binding.is_some_and(|binding| binding.is_sure(since) && !self.may_be_replaced(key, station, binding))
    }

    /// Whether somebody else has come up behind the same port, and the station has not shown since then: it may be the
    /// same one with another hardware address.
    fn may_be_replaced(&self, key: Key, station: Station, binding: &Binding) -> bool {
        let surveyed_at = self.topology.ports.get(&station.port).and_then(|port| port.surveyed_at);
        let shows =
            |since| binding.last_frame.is_some_and(|at| at > since) || binding.configured && surveyed_at > Some(since);
        let mut others =
            self.bindings.stations(key).filter(|(other, _)| other.port == station.port && *other != station);
        others.any(|(_, other)| other.first_seen > binding.first_seen && !shows(other.first_seen))
    }

    /// Asks for an address that somebody has just begun to claim beside another behind the same port.
    fn doubt_replaced(&mut self, key: Key, at: Timestamp) {
        let is_new = |(_, binding): &(Station, &Binding)| binding.first_seen == at && !binding.configured;
        let is_beside = |(new, _): (Station, &Binding)| {
            self.bindings.stations(key).any(|(other, known)| other.port == new.port && other != new && known.configured)
        };
        if self.bindings.stations(key).filter(is_new).any(is_beside) {
            self.probe(key.0, vec![key.1]);
        }
    }

    /// Makes an incident of a contradiction: a new one, or one that is there or was there lately. Says which if its
    /// contest is to be held.
    pub(super) fn open(
        &mut self,
        key: Key,
        stations: &[Station],
        evidence: Evidence,
        at: Timestamp,
        now: Timestamp,
    ) -> Option<IncidentId> {
        if let Some(id) = self.take_up(key, stations, now) {
            self.listen_to(key);
            return Some(id);
        }
        if let Some(id) = self.of_same_claimant(key, stations) {
            self.add_address(id, key, stations);
            return None;
        }
        let (id, finding) = match self.lately_closed(key, stations, now) {
            Some(id) => (id, self.reopen(id, key, stations, at, now)?),
            None => {
                let incident = self.new_incident(key, stations, evidence, at, now);
                let id = incident.id;
                self.enter(incident);
                (id, Finding::Duplicate(Box::new(self.incidents.get(&id)?.clone())))
            }
        };
        self.findings.push_back(finding);
        self.listen_to(key);
        Some(id)
    }

    /// The open incident of somebody who only says on the wire that it has this address, and others. If it is contested
    /// without that one too, it is a duplicate of its own.
    fn of_same_claimant(&self, key: Key, stations: &[Station]) -> Option<IncidentId> {
        stations.iter().filter(|station| self.only_says_so(key, **station)).find_map(|station| {
            // Of what is open and what its port claims, either may be much; it takes longer to look at what is open.
            let claimed = self.bindings.at(station.port);
            let open: &mut dyn Iterator<Item = &IncidentId> = if self.open.len() <= claimed.len() / 16 {
                &mut self.open.values()
            } else {
                &mut claimed.filter(|(_, of)| of == station).filter_map(|(key, _)| self.open.get(key))
            };
            let mut of_domain =
                open.filter_map(|id| self.incidents.get(id)).filter(|incident| incident.domain == key.0);
            of_domain.find(|incident| self.is_by_claimant(incident, key, stations)).map(|incident| incident.id)
        })
    }

    /// Whether a station claims an address on the wire only.
    fn only_says_so(&self, key: Key, station: Station) -> bool {
        let binding = self.bindings.get(key, station);
        self.topology.host(station.port).is_none() && binding.is_some_and(|binding| !binding.configured)
    }

    /// Whether an address is contested only because somebody says so who says the same of all the incident's addresses.
    fn is_by_claimant(&self, incident: &Incident, (domain, address): Key, stations: &[Station]) -> bool {
        let claims_all = |station: &&Station| {
            let mut addresses = incident.addresses.iter().chain([&address]);
            addresses.all(|address| self.only_says_so((domain, *address), **station))
        };
        let claimants = stations.iter().filter(claims_all).count();
        claimants > 0 && stations.len() - claimants < 2
    }

    /// Takes an address out of the incident that it has joined, if it is contested without its claimant by now.
    fn split_off(&mut self, key: Key, stations: &[Station], now: Timestamp) {
        let Some(incident) = self.open.get(&key).and_then(|id| self.incidents.get(id)) else { return };
        let (id, first) = (incident.id, (incident.domain, incident.address));
        if key == first || stations.len() < 3 || self.is_by_claimant(incident, key, stations) {
            return;
        }
        self.open.remove(&key);
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.addresses.remove(&key.1);
        }
        self.judge_end(first, now);
    }

    fn add_address(&mut self, id: IncidentId, key: Key, stations: &[Station]) {
        let parties = self.parties(key, stations);
        for party in &parties {
            self.note_party(id, party);
        }
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        incident.addresses.insert(key.1);
        self.open.insert(key, id);
        let count = incident.addresses.len();
        if is_told(count) {
            let incident = Box::new(incident.clone());
            self.findings.push_back(Finding::AddressJoined { incident, address: key.1 });
        }
        self.listen_to(key);
        self.contest_joined(id, key);
    }

    /// The incident of the address that has closed lately, if somebody in it is in the contradiction.
    fn lately_closed(&self, key: Key, stations: &[Station], now: Timestamp) -> Option<IncidentId> {
        let parties = self.parties(key, stations);
        let is_back = |incident: &&Incident| {
            let closed_lately = incident.closed_at.is_some_and(|at| now.since(at) <= REOPENS);
            let same = (incident.domain, incident.address) == key;
            same && closed_lately && parties.iter().filter(|party| incident.has(party)).count() > 1
        };
        let closed = self.closed.iter().rev().filter_map(|id| self.incidents.get(id));
        closed.into_iter().find(is_back).map(|incident| incident.id)
    }

    fn reopen(
        &mut self,
        id: IncidentId,
        key: Key,
        stations: &[Station],
        at: Timestamp,
        now: Timestamp,
    ) -> Option<Finding> {
        for party in self.parties(key, stations) {
            self.note_party(id, &party);
        }
        self.closed.retain(|closed| *closed != id);
        self.open.insert(key, id);
        let incident = self.incidents.get_mut(&id)?;
        (incident.status, incident.closed_at, incident.contest) = (Status::Open, None, None);
        (incident.first_at, incident.named_at, incident.attempts) = (at, now, 0);
        // Nobody is contained any more. What was being done about somebody is begun anew.
        incident.evictions.retain(|_, eviction| eviction.step == Step::Done);
        // Of several addresses, the others join again if they are contested again.
        incident.addresses = [incident.address].into();
        incident.times += 1;
        Some(Finding::Reopened(Box::new(incident.clone())))
    }

    /// Notes a claim to an address that is contested.
    pub(super) fn note_sighting(
        &mut self,
        key: Key,
        station: Station,
        evidence: Evidence,
        at: Timestamp,
        now: Timestamp,
    ) {
        let Some(id) = self.open.get(&key).copied() else { return };
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        incident.saw(Sighting { at, address: key.1, station, evidence: Some(evidence) });
        self.timers.set_first(Timer::Continues(id), now + TOLD_EVERY);
    }

    /// Tells that an incident goes on, if it does.
    pub(super) fn continues(&mut self, id: IncidentId) {
        let Some(incident) = self.incidents.get_mut(&id).filter(|incident| incident.status == Status::Open) else {
            return;
        };
        if incident.claims > std::mem::replace(&mut incident.told_claims, incident.claims) {
            self.findings.push_back(Finding::Continues(Box::new(incident.clone())));
        }
    }

    pub(super) fn new_incident(
        &mut self,
        key: Key,
        stations: &[Station],
        first_evidence: Evidence,
        first_at: Timestamp,
        now: Timestamp,
    ) -> Incident {
        self.last_incident += 1;
        let mut parties = self.parties(key, stations);
        parties.sort_by_key(|party| (party.first_seen, party.station));
        let sighting = |party: &Party| Sighting {
            at: party.first_seen,
            address: key.1,
            station: party.station,
            evidence: Some(party.evidence),
        };
        Incident {
            id: IncidentId(self.last_incident),
            domain: key.0,
            address: key.1,
            addresses: [key.1].into(),
            sightings: parties.iter().map(sighting).collect(),
            parties,
            first_evidence,
            first_at,
            named_at: now,
            contest: None,
            held: None,
            plan: Vec::new(),
            evictions: BTreeMap::new(),
            status: Status::Open,
            closed_at: None,
            times: 1,
            claims: 0,
            told_losers: 0,
            told_claims: 0,
            attempts: 0,
        }
    }

    pub(super) fn enter(&mut self, incident: Incident) {
        self.open.insert((incident.domain, incident.address), incident.id);
        self.incidents.insert(incident.id, incident);
    }

    pub(super) fn parties(&self, key: Key, stations: &[Station]) -> Vec<Party> {
        let known = stations.iter().filter_map(|station| Some((*station, self.bindings.get(key, *station)?)));
        known.map(|(station, binding)| self.describe(key, station, binding)).collect()
    }

    /// Adds to an open incident whoever is not in it yet, and judges anew. A party that shows another hardware address
    /// is the same party.
    fn join(&mut self, id: IncidentId, stations: &[Station]) {
        let is_news = self.refresh_parties(id, stations);
        let Some(incident) = self.incidents.get(&id) else { return };
        let is_new = |station: &&Station| !incident.parties.iter().any(|party| party.station == **station);
        let news: Vec<Station> = stations.iter().filter(is_new).copied().collect();
        let parties = self.parties((incident.domain, incident.address), &news);
        let joined = parties.into_iter().filter(|party| self.note_party(id, party)).count();
        if let Some(incident) = self.incidents.get(&id).filter(|_| joined > 0) {
            self.findings.push_back(Finding::PartyJoined(Box::new(incident.clone())));
        }
        if joined > 0 || is_news {
            self.hold_contest(id);
        }
    }

    /// Whoever was only heard may have been looked behind by now: who it is, and whether it has the address configured. Says
    /// whether that is news, since then more may be done about it.
    fn refresh_parties(&mut self, id: IncidentId, stations: &[Station]) -> bool {
        let Some(key) = self.incidents.get(&id).map(|incident| (incident.domain, incident.address)) else {
            return false;
        };
        let now = self.parties(key, stations);
        let parties = self.incidents.get_mut(&id).map(|incident| incident.parties.as_mut_slice()).unwrap_or_default();
        let mut is_news = false;
        for party in parties {
            let Some(now) = now.iter().find(|now| now.station == party.station) else { continue };
            is_news |= (&party.sandbox, party.configured) != (&now.sandbox, now.configured);
            (party.sandbox, party.key) = (now.sandbox.clone(), now.key);
            (party.address, party.configured) = (key.1, now.configured);
        }
        is_news
    }

    /// Puts a party into an incident, in its own place if it has one; whether it is a new one.
    pub(super) fn note_party(&mut self, id: IncidentId, party: &Party) -> bool {
        let Some(incident) = self.incidents.get_mut(&id) else { return false };
        let first = incident.address;
        match incident.parties.iter_mut().find(|known| known.is_same(party)) {
            Some(known) => {
                let address = if party.address == first { first } else { known.address };
                *known = Party { address, ..party.clone() };
                false
            }
            None => {
                incident.parties.push(party.clone());
                true
            }
        }
    }

    /// Asks the store who has a right to the address.
    pub(super) fn hold_contest(&mut self, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id).filter(|incident| incident.status == Status::Open) else { return };
        let key = (incident.domain, incident.address);
        let owners = incident.parties.iter().flat_map(|party| party.sandbox.owners.clone()).collect();
        self.ask_the_book(Purpose::Contest(id), key, owners);
    }

    /// Has it looked up whose an address is, and what those who contest it hold.
    pub(super) fn ask_the_book(&mut self, purpose: Purpose, key: Key, owners: BTreeSet<Owner>) -> ActionId {
        let (domain, contested) = key;
        let owners = owners.into_iter().collect();
        self.act(purpose, |id| Action::LookUpLeases { id, domain, contested, owners })
    }

    pub(super) fn judge_contest(&mut self, id: IncidentId, contested: Option<&Lease>, held: &[Lease], now: Timestamp) {
        let alive = self.parties_alive(id);
        let is_shared = contested.is_some_and(|lease| self.topology.is_shared(&lease.owner));
        let address = self.incidents.get(&id).map(|incident| incident.address);
        let pinned = address.and_then(|address| self.config.policy.pins.get(&address));
        let rights = Rights { pinned, lease: contested, is_shared };
        let Some(incident) = self.incidents.get_mut(&id).filter(|incident| incident.status == Status::Open) else {
            return;
        };
        if alive.len() < 2 {
            return self.look_for_end(id, now);
        }
        let contest = Contest::decide(&alive, rights).against(&alive, held);
        let is_news = incident.contest.as_ref().is_none_or(|before| !before.says_the_same(&contest));
        incident.contest = Some(contest);
        if is_news {
            self.findings.push_back(Finding::Judged(Box::new(incident.clone())));
        }
        self.heal(id, &alive, held, now);
    }

    /// Nobody contests the address any more. Whoever was given up since may be all that kept the incident open.
    fn look_for_end(&mut self, id: IncidentId, now: Timestamp) {
        if let Some(key) = self.key(id) {
            self.judge_end(key, now);
        }
    }

    /// The parties that have a claim to the address now, as they are known by now.
    fn parties_alive(&self, id: IncidentId) -> Vec<Party> {
        let Some(incident) = self.incidents.get(&id) else { return Vec::new() };
        let key = (incident.domain, incident.address);
        self.parties(key, &self.contradiction(key, None).unwrap_or_default())
    }

    pub(super) fn contest_failed(&mut self, id: IncidentId, failure: String, now: Timestamp) {
        let Some(incident) = self.incidents.get(&id) else { return };
        let (domain, address) = (incident.domain, incident.address);
        self.findings.push_back(Finding::StoreFailed { domain, address, failure });
        self.retry_contest(id, now);
    }

    pub(super) fn retry_contest(&mut self, id: IncidentId, now: Timestamp) {
        if let Some(incident) = self.incidents.get_mut(&id) {
            self.timers.set(Timer::Contest(id), now + backoff(&mut incident.attempts));
        }
    }

    /// Says why an open incident is not being healed, once per reason.
    pub(super) fn hold(&mut self, id: IncidentId, reason: Held) {
        let Some(incident) = self.incidents.get_mut(&id).filter(|incident| incident.held != Some(reason)) else {
            return;
        };
        incident.held = Some(reason);
        let (domain, address) = (incident.domain, incident.address);
        self.findings.push_back(Finding::Held { incident: id, domain, address, reason });
    }

    /// Closes the incident of an address when one owner is left and nobody is on the way.
    pub(super) fn judge_end(&mut self, key: Key, now: Timestamp) {
        let Some(id) = self.open.get(&key).copied() else { return };
        self.revoke_moot(id);
        let Some(incident) = self.incidents.get(&id) else { return };
        let is_contested = |address: &Ipv4Addr| self.contradiction((key.0, *address), None).is_some();
        let left = incident.addresses.iter().copied().find(is_contested);
        if incident.evictions.values().any(|eviction| !eviction.step.is_at_rest()) {
            return;
        }
        match left {
            None => self.close(id, ended(incident), now),
            Some(left) if !is_contested(&incident.address) => self.go_by(id, left),
            Some(_) => {}
        }
    }

    pub(super) fn close(&mut self, id: IncidentId, status: Status, now: Timestamp) {
        self.timers.cancel(Timer::Contest(id));
        self.timers.cancel(Timer::Continues(id));
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        (incident.status, incident.closed_at, incident.held) = (status, Some(now), None);
        for address in &incident.addresses {
            self.open.remove(&(incident.domain, *address));
        }
        let told = Box::new(incident.clone());
        self.lift_all(id, None);
        self.spared.retain(|(of, _)| *of != id);
        self.findings.push_back(match status {
            Status::Healed => Finding::Healed(told),
            Status::Open | Status::Gone => Finding::Gone(told),
        });
        self.closed.push_back(id);
        if self.closed.len() > CLOSED_KEPT
            && let Some(oldest) = self.closed.pop_front()
        {
            self.incidents.remove(&oldest);
        }
    }

    /// Drops what was being done about a port that is gone. Its incident may be over with that.
    pub(super) fn abandon_evictions(&mut self, port: IfIndex, now: Timestamp) {
        let mut left = Vec::new();
        for (key, id) in &self.open {
            let eviction = self.incidents.get_mut(id).and_then(|incident| {
                let under_way = incident.evictions.get_mut(&port).is_some_and(|eviction| !eviction.ends_with_port());
                under_way.then(|| incident.evictions.remove(&port)).flatten()
            });
            if let Some(eviction) = eviction {
                self.timers.cancel(Timer::Eviction(*id, port));
                left.push((*key, eviction));
            }
        }
        for (key, eviction) in left {
            self.settle_lease(eviction);
            self.judge_end(key, now);
        }
    }
}

/// How an incident has ended that is over. Evictions of an earlier time have not ended this one.
pub(super) fn ended(incident: &Incident) -> Status {
    let is_recent = |eviction: &Eviction| {
        eviction.step == Step::Done && eviction.taken.last().is_some_and(|(_, at)| *at >= incident.first_at)
    };
    if incident.evictions.values().any(is_recent) { Status::Healed } else { Status::Gone }
}

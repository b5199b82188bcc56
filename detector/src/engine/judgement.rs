//! Incidents: opened at the first contradiction, judged by contest, closed when one owner is left.

use super::{
    CLOSED_KEPT, Engine, Purpose,
    bindings::Key,
    contest::Contest,
    eviction::{Step, backoff},
    incident::{Incident, IncidentId, Party, Status},
    input::Evidence,
    liveness::FRESH,
    output::{Action, Finding, Held},
    rules,
    timers::Timer,
};
use crate::{
    net::{IfIndex, Lease, Owner, Station},
    time::Timestamp,
};

impl Engine {
    /// Looks at an address after somebody claimed it. A party that has been silent is asked before it counts.
    pub(super) fn judge(&mut self, key: Key, evidence: Evidence, at: Timestamp, now: Timestamp) {
        let Some(all) = self.contradiction(key, None) else { return };
        let sure = self.contradiction(key, Some(now - FRESH)).unwrap_or_default();
        for station in all {
            let known = self.bindings.get(key, station);
            if known.is_some_and(|binding| !binding.is_sure(now - FRESH)) {
                self.doubt(key, station, now);
            }
        }
        match self.open.get(&key) {
            _ if sure.len() < 2 => {}
            Some(incident) => self.join(*incident, &sure),
            None => self.open(key, &sure, evidence, at, now),
        }
    }

    /// One station of each party, if the address has several; with `since`, of those parties alone that are sure to be
    /// alive since then.
    fn contradiction(&self, key: Key, since: Option<Timestamp>) -> Option<Vec<Station>> {
        let stations = self.bindings.stations(key);
        let alive = stations.filter(|(_, binding)| since.is_none_or(|since| binding.is_sure(since)));
        rules::duplicate(key.1, alive.map(|(station, binding)| (self.topology.party(station), station, binding)))
    }

    fn open(&mut self, key: Key, stations: &[Station], evidence: Evidence, at: Timestamp, now: Timestamp) {
        let incident = self.new_incident(key, stations, evidence, at, now);
        let id = incident.id;
        self.findings.push_back(Finding::Duplicate(Box::new(incident.clone())));
        self.enter(incident);
        self.hold_contest(id);
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
        Incident {
            id: IncidentId(self.last_incident),
            domain: key.0,
            address: key.1,
            addresses: [key.1].into(),
            parties,
            first_evidence,
            first_at,
            named_at: now,
            contest: None,
            held: None,
            evictions: std::collections::BTreeMap::new(),
            status: Status::Open,
            closed_at: None,
            times: 1,
            claims: 0,
            sightings: std::collections::VecDeque::new(),
            told_claims: 0,
            attempts: 0,
        }
    }

    pub(super) fn enter(&mut self, incident: Incident) {
        self.open.insert((incident.domain, incident.address), incident.id);
        self.incidents.insert(incident.id, incident);
    }

    fn parties(&self, key: Key, stations: &[Station]) -> Vec<Party> {
        let known = stations.iter().filter_map(|station| Some((*station, self.bindings.get(key, *station)?)));
        known.map(|(station, binding)| self.describe(key, station, binding)).collect()
    }

    /// Adds to an open incident whoever is not in it yet, and judges anew. A party that shows another hardware address
    /// is the same party.
    fn join(&mut self, id: IncidentId, stations: &[Station]) {
        let Some(incident) = self.incidents.get(&id) else { return };
        let is_new = |station: &&Station| incident.party(station.port).is_none_or(|party| party.station != **station);
        let news: Vec<Station> = stations.iter().filter(is_new).copied().collect();
        let parties = self.parties((incident.domain, incident.address), &news);
        let joined = parties.into_iter().filter(|party| self.note_party(id, party)).count();
        if joined == 0 {
            return;
        }
        if let Some(incident) = self.incidents.get(&id) {
            self.findings.push_back(Finding::PartyJoined(Box::new(incident.clone())));
        }
        self.hold_contest(id);
    }

    /// Puts a party into an incident, in its own place if it has one; whether it is a new one.
    fn note_party(&mut self, id: IncidentId, party: &Party) -> bool {
        let Some(incident) = self.incidents.get_mut(&id) else { return false };
        match incident.parties.iter_mut().find(|known| known.station.port == party.station.port) {
            Some(known) => {
                *known = party.clone();
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
        let (domain, contested) = (incident.domain, incident.address);
        let mut owners: Vec<Owner> = incident.parties.iter().flat_map(|party| party.sandbox.owners.clone()).collect();
        owners.sort_unstable();
        owners.dedup();
        self.act(Purpose::Contest(id), |id| Action::LookUpLeases { id, domain, contested, owners });
    }

    pub(super) fn judge_contest(&mut self, id: IncidentId, contested: Option<&Lease>, held: &[Lease], now: Timestamp) {
        let alive = self.parties_alive(id);
        let is_shared = contested.is_some_and(|lease| self.topology.is_shared(&lease.owner));
        let Some(incident) = self.incidents.get_mut(&id).filter(|incident| incident.status == Status::Open) else {
            return;
        };
        if alive.len() < 2 {
            return;
        }
        let contest = Some(Contest::decide(&alive, contested, is_shared));
        if incident.contest != contest {
            incident.contest = contest;
            self.findings.push_back(Finding::Judged(Box::new(incident.clone())));
        }
        self.heal(id, &alive, held, now);
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
        let (done, under_way): (Vec<_>, Vec<_>) =
            incident.evictions.values().partition(|eviction| eviction.step == Step::Done);
        let status = if done.is_empty() { Status::Gone } else { Status::Healed };
        if under_way.is_empty() && self.contradiction(key, None).is_none() {
            self.close(id, status, now);
        }
    }

    fn close(&mut self, id: IncidentId, status: Status, now: Timestamp) {
        self.timers.cancel(Timer::Contest(id));
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        (incident.status, incident.closed_at, incident.held) = (status, Some(now), None);
        self.open.remove(&(incident.domain, incident.address));
        let told = Box::new(incident.clone());
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

    /// Drops what was being done about a port that is gone.
    pub(super) fn abandon_evictions(&mut self, port: IfIndex, now: Timestamp) {
        let mut left = Vec::new();
        for (key, id) in &self.open {
            let eviction = self.incidents.get_mut(id).and_then(|incident| {
                let under_way = incident.evictions.get(&port).is_some_and(|eviction| eviction.step != Step::Done);
                under_way.then(|| incident.evictions.remove(&port))
            });
            if eviction.is_some() {
                self.timers.cancel(Timer::Eviction(*id, port));
                left.push(*key);
            }
        }
        left.into_iter().for_each(|key| self.judge_end(key, now));
    }
}

//! What an earlier agent has written down, taken up again: the same incident, not one more of it.

use super::{
    Engine,
    bindings::Key,
    eviction::{Eviction, Step},
    finding::Finding,
    held::Held,
    incident::{Incident, IncidentId, Party, Status},
    timers::Timer,
};
use crate::{
    net::{IfIndex, Station},
    time::{Span, Timestamp},
};

/// How long whoever contested an address has to be heard of again: as long as what was left contained stays so.
const HEARD_OF: Span = Span::from_secs(5);

impl Engine {
    /// Takes in an incident as it was written down in this boot. An open one waits until it is known who is here.
    pub(super) fn restored(&mut self, incident: Incident, now: Timestamp) {
        // What is told late may be this agent's own.
        if self.incidents.contains_key(&incident.id) {
            return;
        }
        self.last_incident = self.last_incident.max(incident.id.0);
        for (port, eviction) in &incident.evictions {
            let moved = eviction.taken.iter().find(|(step, _)| *step == Step::Release);
            if let Some(((_, at), party)) = moved.zip(incident.party(*port)) {
                self.strike(party.key, *at);
            }
        }
        match incident.status {
            Status::Open if self.inventory_done => self.restored_late(incident, now),
            Status::Open => self.let_wait(incident, now),
            Status::Healed | Status::Gone => {
                self.closed.push_back(incident.id);
                self.incidents.insert(incident.id, incident);
            }
        }
    }

    /// The store could not be read when it was time to go on. If the address is contested still, that has become an
    /// incident of its own.
    fn restored_late(&mut self, known: Incident, now: Timestamp) {
        let key = (known.domain, known.address);
        if self.open.contains_key(&key) {
            self.is_over(known, now);
        } else {
            self.let_wait(known, now);
            self.take_up_rest(now);
        }
    }

    /// Of two of one address, the older was over when the newer began.
    fn let_wait(&mut self, known: Incident, now: Timestamp) {
        let before = self.waiting.insert((known.domain, known.address), known);
        before.into_iter().for_each(|before| self.is_over(before, now));
    }

    /// It was over before, and could not be written down.
    fn is_over(&mut self, known: Incident, now: Timestamp) {
        let id = known.id;
        self.incidents.insert(id, Incident { status: Status::Gone, closed_at: Some(now), held: None, ..known });
        self.closed.push_back(id);
        self.note(id);
    }

    /// Enters the incident that an earlier agent had open on an address, if it is between some of those who contest it now.
    pub(super) fn take_up(&mut self, key: Key, stations: &[Station], now: Timestamp) -> Option<IncidentId> {
        let known = self.waiting.remove(&key)?;
        let parties = self.parties(key, stations);
        let id = known.id;
        if !parties.iter().any(|party| known.has(party)) {
            self.close_unfinished(known, now);
            return None;
        }
        self.enter_again(known);
        for party in &parties {
            self.note_party(id, party);
        }
        // Whoever counts and follows this agent has not heard of it yet.
        self.tell(id, Finding::Duplicate);
        self.go_on_with_others(id, &parties, now);
        Some(id)
    }

    /// Whoever does not contest the address any more is in no contest to come, so what was being done about it goes on now.
    fn go_on_with_others(&mut self, id: IncidentId, contenders: &[Party], now: Timestamp) {
        let Some(incident) = self.incidents.get(&id) else { return };
        let contends = |port: IfIndex| contenders.iter().any(|party| party.station.port == port);
        let goes_on = |(port, of): &(&IfIndex, &Eviction)| !of.step.is_at_rest() && !contends(**port);
        let others: Vec<IfIndex> = incident.evictions.iter().filter(goes_on).map(|(port, _)| *port).collect();
        others.into_iter().for_each(|port| self.take_step(id, port, now));
    }

    fn enter_again(&mut self, known: Incident) {
        known.evictions.values().filter_map(|of| of.lease.as_ref()).for_each(|lease| self.take_over(lease));
        let evictions = known.evictions.into_iter().map(|(port, eviction)| (port, eviction.resumed())).collect();
        let addresses = [known.address].into();
        let incident = Incident { evictions, addresses, held: None, attempts: 0, ..known };
        self.enter(incident);
    }

    fn tell(&mut self, id: IncidentId, finding: fn(Box<Incident>) -> Finding) {
        if let Some(incident) = self.incidents.get(&id).cloned() {
            self.findings.push_back(finding(Box::new(incident)));
        }
    }

    /// Everybody is known by now. What was being done about somebody who has let go of the address meanwhile is finished.
    /// Other incidents wait a little longer: who is known only by what it says has to be asked first.
    pub(super) fn take_up_rest(&mut self, now: Timestamp) {
        let goes_on = |key: &Key| matches!(self.stands_back(*key), None | Some(Held::Paused));
        let is_alone = |key: &&Key| !self.is_contested(**key) && goes_on(key);
        let alone: Vec<Key> = self.waiting.keys().filter(is_alone).copied().collect();
        alone.into_iter().for_each(|key| self.finish_half_done(key, now));
        if !self.waiting.is_empty() {
            self.timers.set_first(Timer::Waiting, now + HEARD_OF);
        }
    }

    fn finish_half_done(&mut self, key: Key, now: Timestamp) {
        let Some(known) = self.waiting.get(&key) else { return };
        let half_done: Vec<IfIndex> =
            known.evictions.iter().filter(|(_, of)| is_half_done(of)).map(|(p, _)| *p).collect();
        let here = |port: &IfIndex| self.topology.ports.contains_key(port) && !self.is_configured(key, *port);
        let (here, left): (Vec<IfIndex>, Vec<IfIndex>) = half_done.into_iter().partition(here);
        if here.is_empty() {
            return;
        }
        let Some(mut known) = self.waiting.remove(&key) else { return };
        // The other losers have a contest before them, if they are still there.
        known.evictions.retain(|_, of| is_half_done(of) || of.step == Step::Done);
        let id = known.id;
        self.enter_again(known);
        self.tell(id, Finding::TakenUp);
        left.into_iter().for_each(|port| self.abandon(id, port));
        here.into_iter().for_each(|port| self.take_step(id, port, now));
    }

    /// Who has not been heard of by now is not there.
    pub(super) fn close_rest(&mut self, now: Timestamp) {
        for (key, known) in std::mem::take(&mut self.waiting) {
            if self.suspicions.contains_key(&key) {
                self.waiting.insert(key, known);
                self.timers.set_first(Timer::Waiting, now + HEARD_OF);
            } else if self.open.contains_key(&key) {
                self.is_over(known, now);
            } else {
                self.close_unfinished(known, now);
            }
        }
    }

    fn abandon(&mut self, id: IncidentId, port: IfIndex) {
        let eviction = self.incidents.get_mut(&id).and_then(|incident| incident.evictions.remove(&port));
        self.timers.cancel(Timer::Eviction(id, port));
        if let Some(eviction) = eviction {
            self.settle_lease(eviction);
        }
    }

    /// The duplicate ended while no agent was there.
    fn close_unfinished(&mut self, known: Incident, now: Timestamp) {
        let (id, status) = (known.id, super::judgement::ended(&known));
        self.enter(known);
        self.close(id, status, now);
    }
}

/// Whether a loser has been given a lease that is not yet known to be in use.
const fn is_half_done(eviction: &Eviction) -> bool {
    eviction.lease.is_some() && !eviction.step.is_at_rest()
}

//! The steps of an eviction: asked for one by one, each after the record of the incident is on disk.

use super::{
    Engine, Purpose,
    bindings::Key,
    contest::Reason,
    eviction::{Eviction, STEP_TIME, Step},
    finding::Finding,
    held::Held,
    incident::IncidentId,
    input::Outcome,
    output::{Action, ActionId},
    settling::Fate,
    timers::Timer,
    ways::Way,
};
use crate::{
    net::{IfIndex, Lease, LeaseState, Mac, Station},
    time::{Span, Timestamp},
};

/// How soon a loser that is being moved away from another address is looked at again.
const TURN: Span = Span::from_millis(100);

type MakeAction = Box<dyn FnOnce(ActionId) -> Action>;

impl Engine {
    /// Goes to the eviction's current step. Containment does not wait for the disk: it ends with the agent, or is kept in
    /// the tap itself.
    pub(super) fn take_step(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let Some(step) = self.eviction(id, port).map(|eviction| eviction.step) else { return };
        match step {
            Step::Contained | Step::Failed => {}
            Step::Done => self.eviction_done(id, now),
            Step::AwaitGone => self.timers.set(Timer::Eviction(id, port), now + self.config.recycle_time),
            _ if step <= Step::Readdress && !self.is_due(id, port) => self.give_up(id, port, now),
            Step::Contain => self.do_step(id, port, now),
            Step::Reallocate if self.is_moved_elsewhere(id, port) => {
                self.timers.set(Timer::Eviction(id, port), now + TURN);
            }
            _ => {
                self.unkept.remove(&id);
                let Some(incident) = self.incidents.get(&id).cloned().map(Box::new) else { return };
                let action = self.act(Purpose::Keeping(id, port), |id| Action::Keep { id, incident });
                self.await_action(id, port, action, now);
            }
        }
    }

    fn await_action(&mut self, id: IncidentId, port: IfIndex, action: ActionId, now: Timestamp) {
        if let Some(eviction) = self.eviction_mut(id, port) {
            eviction.waits_for = Some(action);
            self.timers.set(Timer::Eviction(id, port), now + STEP_TIME);
        }
    }

    /// The record is on disk: what it says comes next is done.
    pub(super) fn kept_for(&mut self, id: IncidentId, port: IfIndex, action: ActionId, now: Timestamp) {
        if self.stops_waiting(id, port, action) {
            self.do_step(id, port, now);
        }
    }

    /// Whether the eviction was waiting for this very action.
    fn stops_waiting(&mut self, id: IncidentId, port: IfIndex, action: ActionId) -> bool {
        let eviction = self.eviction_mut(id, port).filter(|eviction| eviction.waits_for == Some(action));
        let waited = eviction.map(|eviction| eviction.waits_for = None).is_some();
        if waited {
            self.timers.cancel(Timer::Eviction(id, port));
        }
        waited
    }

    fn do_step(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let Some((step, key)) = self.eviction(id, port).map(|of| of.step).zip(self.key(id)) else { return };
        let action = match step {
            Step::Verify => return self.probe_both(id, port, now),
            _ if step <= Step::Readdress && !self.is_due(id, port) => return self.give_up(id, port, now),
            Step::Contain => self.contain_loser(id, port),
            Step::Release => {
                self.lift_all(id, Some(port));
                None
            }
            Step::Readdress if self.is_taken(id, port) => return self.seek_another(id, port, now),
            Step::Readdress if self.action_for(id, port, step).is_none() => {
                return self.retry_step(id, port, "the bridge's network is not known any more".to_owned(), now);
            }
            _ => self.action_for(id, port, step).map(|make| self.act(Purpose::Eviction(id, port), make)),
        };
        match action {
            Some(action) => self.await_action(id, port, action, now),
            // What is contained already, an address that nobody has, sockets that are to stay: nothing is to be done.
            None => self.advance(id, port, key, now),
        }
    }

    fn action_for(&self, id: IncidentId, port: IfIndex, step: Step) -> Option<MakeAction> {
        let (domain, contested) = self.key(id)?;
        let eviction = self.eviction(id, port)?;
        match step {
            Step::Reallocate => {
                let (owner, in_use) = (eviction.owner.clone()?, self.bindings.in_use_beside(domain, port));
                Some(Box::new(move |id| Action::Reallocate { id, domain, owner, contested, in_use }))
            }
            Step::Recycle => {
                let incident = Box::new(self.incidents.get(&id)?.clone());
                Some(Box::new(move |id| Action::Recycle { id, incident, port }))
            }
            Step::AnnounceKept => {
                let keeper = self.keeper(id, port)?;
                Some(self.announce((domain, contested), keeper))
            }
            // Whoever has won meanwhile is finished with, and not touched.
            Step::DestroySockets if !self.config.destroys_sockets || self.keeps(id, port) => None,
            Step::DestroySockets => Some(Box::new(move |id| Action::DestroySockets { id, port, address: contested })),
            _ => self.action_with(port, (domain, contested), eviction.lease.clone()?, step),
        }
    }

    /// Whether it is decided by now that whoever is behind a port keeps the address.
    fn keeps(&self, id: IncidentId, port: IfIndex) -> bool {
        let contest = self.incidents.get(&id).and_then(|incident| incident.contest.as_ref());
        contest.is_some_and(|contest| contest.winner == Some(port))
    }

    fn action_with(&self, port: IfIndex, (domain, from): Key, lease: Lease, step: Step) -> Option<MakeAction> {
        let to = lease.address;
        match step {
            Step::Readdress => {
                let prefix_len = self.topology.prefix_len(domain, to)?;
                Some(Box::new(move |id| Action::Readdress { id, port, from, to, prefix_len }))
            }
            Step::AnnounceNew => {
                let mac = self.mac_at((domain, to), port)?;
                Some(self.announce((domain, to), Station { port, mac }))
            }
            Step::Bind => Some(Box::new(move |id| Action::Bind { id, lease })),
            _ => None,
        }
    }

    fn announce(&self, (domain, address): Key, station: Station) -> MakeAction {
        let port = self.topology.host(station.port).is_none().then_some(station.port);
        Box::new(move |id| Action::Announce { id, domain, address, mac: station.mac, port })
    }

    fn mac_at(&self, key: Key, port: IfIndex) -> Option<Mac> {
        self.bindings.stations(key).find(|(station, _)| station.port == port).map(|(station, _)| station.mac)
    }

    /// Who has the contested address once `loser` is away.
    pub(super) fn keeper(&self, id: IncidentId, loser: IfIndex) -> Option<Station> {
        let winner = self.incidents.get(&id)?.winner().map(|party| party.station.port);
        let mut others = self.bindings.stations(self.key(id)?).map(|(station, _)| station);
        others.find(|station| station.port != loser && winner.is_none_or(|winner| winner == station.port))
    }

    /// Tells everybody who has an address, now that the other voice is dropped.
    pub(super) fn announce_keeper(&mut self, key: Key, keeper: Option<Station>) {
        if let Some(keeper) = keeper {
            let make = self.announce(key, keeper);
            self.act(Purpose::Caches, make);
        }
    }

    pub(super) fn step_done(
        &mut self,
        id: IncidentId,
        port: IfIndex,
        action: ActionId,
        outcome: Outcome,
        now: Timestamp,
    ) {
        if !self.stops_waiting(id, port, action) {
            return self.came_too_late(id, port, outcome);
        }
        let (Some(key), Some(eviction)) = (self.key(id), self.eviction_mut(id, port)) else { return };
        if let Outcome::Lease(lease) = outcome {
            (eviction.lease, eviction.is_lent) = (Some(lease.clone()), true);
            self.take_over(&lease);
        }
        self.advance(id, port, key, now);
    }

    /// The loser went while its new lease was written. If it only took long, the next attempt has the same lease.
    fn came_too_late(&mut self, id: IncidentId, port: IfIndex, outcome: Outcome) {
        let goes_on = self.eviction(id, port).is_some_and(|eviction| !eviction.step.is_at_rest());
        match outcome {
            // An earlier attempt's answer tells of the lease that the loser has by now.
            Outcome::Lease(lease) if self.is_taken_over(&lease) || self.has((lease.domain, lease.address), port) => {}
            Outcome::Lease(lease) if lease.state == LeaseState::Reserved && !goes_on => self.give_back(lease),
            _ => {}
        }
    }

    fn advance(&mut self, id: IncidentId, port: IfIndex, key: Key, now: Timestamp) {
        let Some(eviction) = self.eviction_mut(id, port) else { return };
        let (is_move, done) = (eviction.way != Way::Contain, eviction.advance(now));
        // That somebody is contained is told by itself.
        if is_move {
            self.findings.push_back(Finding::Stepped { incident: id, port, done });
        }
        match done {
            Step::Contain => self.announce_keeper(key, self.keeper(id, port)),
            Step::Reallocate => self.look_for_users(id, port),
            Step::Readdress => self.tell_evicted(id, port),
            Step::Bind => self.set_aside(id, key, self.keeper(id, port)),
            Step::Release => self.strike_out(id, port, now),
            _ => {}
        }
        self.take_step(id, port, now);
    }

    /// Asks who has the new address. Whoever is there unknown answers while the next record is on its way to the disk.
    fn look_for_users(&mut self, id: IncidentId, port: IfIndex) {
        if let Some(lease) = self.eviction(id, port).and_then(|eviction| eviction.lease.clone()) {
            self.probe(lease.domain, vec![lease.address]);
        }
    }

    /// Whether somebody else has the new address, and the loser is not there yet.
    fn is_taken(&self, id: IncidentId, port: IfIndex) -> bool {
        let lease = self.eviction(id, port).and_then(|eviction| eviction.lease.as_ref());
        lease
            .map(|lease| (lease.domain, lease.address))
            .is_some_and(|key| !self.has(key, port) && self.other_than(key, port).is_some())
    }

    /// The loser gets yet another address. The one that is taken drains for as long as it is.
    fn seek_another(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let Some(eviction) = self.eviction_mut(id, port) else { return };
        eviction.step = Step::Reallocate;
        if let Some(lease) = eviction.lease.take() {
            let failure = format!("somebody else has the new address {}", lease.address);
            self.give_back(lease);
            self.retry_step(id, port, failure, now);
        }
    }

    fn tell_evicted(&mut self, id: IncidentId, port: IfIndex) {
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.told_losers += 1;
            self.findings.push_back(Finding::Evicted { incident: Box::new(incident.clone()), port });
        }
    }

    /// What somebody outside uses is given to nobody here.
    fn set_aside(&mut self, id: IncidentId, (domain, address): Key, keeper: Option<Station>) {
        let contest = self.incidents.get(&id).and_then(|incident| incident.contest.as_ref());
        let is_outside = contest.is_some_and(|contest| contest.reason == Reason::External);
        if let Some(Station { mac, .. }) = keeper.filter(|_| is_outside) {
            self.act(Purpose::Store(domain, address), |id| Action::SetAside { id, domain, address, mac });
        }
    }

    fn strike_out(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let party = self.incidents.get(&id).and_then(|incident| incident.party(port)).map(|party| party.key);
        if let Some(party) = party {
            self.strike(party, now);
        }
    }

    pub(super) fn step_failed(
        &mut self,
        id: IncidentId,
        port: IfIndex,
        action: ActionId,
        failure: String,
        now: Timestamp,
    ) {
        if !self.stops_waiting(id, port, action) {
            return;
        }
        match (self.eviction(id, port).map(|eviction| eviction.step), self.key(id)) {
            // Their owners find out later. The sandbox has its new address all the same.
            (Some(step @ Step::DestroySockets), Some(key)) => {
                let (domain, is_tried_again) = (key.0, false);
                let failed = Finding::StepFailed { incident: id, domain, port, step, failure, is_tried_again };
                self.findings.push_back(failed);
                self.advance(id, port, key, now);
            }
            _ => self.retry_step(id, port, failure, now),
        }
    }

    pub(super) fn retry_step(&mut self, id: IncidentId, port: IfIndex, failure: String, now: Timestamp) {
        let Some((domain, _)) = self.key(id) else { return };
        let Some(step) = self.eviction(id, port).map(|eviction| eviction.step) else { return };
        if step == Step::Contain {
            self.not_contained(id, port);
        }
        if step <= Step::Readdress && !self.is_due(id, port) {
            return self.give_up(id, port, now);
        }
        let Some(eviction) = self.eviction_mut(id, port) else { return };
        let wait = eviction.fail(failure.clone());
        let failed = Finding::StepFailed { incident: id, domain, port, step, failure, is_tried_again: true };
        self.findings.push_back(failed);
        match wait {
            Some(wait) => self.timers.set(Timer::Eviction(id, port), now + wait),
            None => self.fail_for_good(id, port, now),
        }
    }

    /// It is not tried again for a while. What was given is given back, unless the sandbox uses it: its old address is not
    /// put back, since that is contested. The loser stays contained.
    fn fail_for_good(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let Some(eviction) = self.eviction_mut(id, port) else { return };
        eviction.give_up(now);
        if let Some(lease) = eviction.lease.clone() {
            self.give_back_or_bind(lease, port);
        }
        self.hold(id, Held::GivenUp);
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.told_losers += 1;
            self.findings.push_back(Finding::GivenUp { incident: Box::new(incident.clone()), port });
        }
        self.retry_contest(id, now);
    }

    /// The loser is gone in the middle of its eviction, and what it was given must not stay reserved for ever. A lease that
    /// it is not known to use drains. One that it has moved to is its own: its namespace may live on and come back by
    /// another port.
    pub(super) fn settle_lease(&mut self, eviction: Eviction) {
        let Eviction { lease: Some(lease), step, .. } = eviction else { return };
        if step <= Step::Readdress && !self.bindings.is_used((lease.domain, lease.address)) {
            return self.give_back(lease);
        }
        self.settle(lease, Fate::Bound);
    }

    /// Whoever is not moved any more keeps what it uses, and nothing else.
    pub(super) fn give_back_or_bind(&mut self, lease: Lease, port: IfIndex) {
        if self.has((lease.domain, lease.address), port) {
            self.settle(lease, Fate::Bound);
        } else {
            self.give_back(lease);
        }
    }

    /// Whether the loser is being moved away from another address just now. It gets one lease, and so one move at a time.
    fn is_moved_elsewhere(&self, id: IncidentId, port: IfIndex) -> bool {
        let others = self.open.values().filter(|other| **other != id);
        let mut evictions = others.filter_map(|other| self.eviction(*other, port));
        evictions.any(|eviction| match eviction.step {
            Step::Reallocate => eviction.waits_for.is_some(),
            step => step > Step::Reallocate && !step.is_at_rest(),
        })
    }

    /// Unless its owner uses it all the same.
    pub(super) fn give_back(&mut self, lease: Lease) {
        let uses = |port| self.has((lease.domain, lease.address), port);
        let fate = if self.port_of(&lease).is_some_and(uses) { Fate::Bound } else { Fate::GivenBack };
        self.settle(lease, fate);
    }

    /// The timer of an eviction: an answer that is overdue, the wire's verdict, else the next attempt at its step.
    pub(super) fn resume_eviction(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let Some(eviction) = self.eviction(id, port) else { return };
        match (eviction.waits_for, eviction.watch, eviction.step) {
            (Some(_), _, _) => {
                let failure = format!("there was no answer within {STEP_TIME}");
                self.retry_step(id, port, failure, now);
            }
            (None, Some(_), _) => self.conclude(id, port, now),
            (None, None, Step::AwaitGone) => {
                let failure =
                    format!("it was asked for, but the port is still there after {}", self.config.recycle_time);
                self.retry_step(id, port, failure, now);
            }
            (None, None, _) => self.take_step(id, port, now),
        }
    }

    /// The wire shows one owner for each address.
    pub(super) fn verified(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        if let Some(key) = self.key(id) {
            self.advance(id, port, key, now);
        }
    }
}

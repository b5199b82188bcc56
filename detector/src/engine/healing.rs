//! What follows a contest: each loser is contained, and then moved, recycled or kept contained, as planned.

use std::net::Ipv4Addr;

use super::{
    Engine,
    bindings::Key,
    eviction::{Eviction, Step},
    finding::Finding,
    held::Held,
    incident::{IncidentId, Party, Status},
    input::Evidence,
    plan::Plan,
    timers::Timer,
    topology::KnownPort,
    ways::Way,
};
use crate::{
    net::{IfIndex, Lease, Station},
    time::{Span, Timestamp},
};

/// The span over which evictions are counted for the brake.
const BRAKE_WINDOW: Span = Span::from_secs(60);
/// How soon it is tried again to deal with a loser after that was given up.
const TRIED_AGAIN: Span = Span::from_secs(60);

impl Engine {
    /// Plans what is to be done about the losers, does what may be done, and says what stands in the way of the rest.
    pub(super) fn heal(&mut self, id: IncidentId, alive: &[Party], held: &[Lease], now: Timestamp) {
        let Some(key) = self.key(id) else { return };
        self.strikes.forget(now);
        let plans = self.plan(id, alive, held);
        let has_winner = self.incidents.get(&id).and_then(|incident| incident.contest.as_ref()?.winner).is_some();
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.plan.clone_from(&plans);
        }
        match self.stands_back(key) {
            Some(reason) => {
                self.hold(id, reason);
                if !has_winner {
                    self.retry_contest(id, now);
                }
            }
            None if !has_winner => {
                self.revoke_moot(id);
                self.hold(id, Held::Unsettled);
                self.retry_contest(id, now);
            }
            None => self.carry_out(id, plans, alive, now),
        }
    }

    fn carry_out(&mut self, id: IncidentId, plans: Vec<Plan>, alive: &[Party], now: Timestamp) {
        self.revoke_moot(id);
        self.free_winner(id);
        let mut obstacle = None;
        for plan in plans {
            let strikes = alive.iter().find(|party| party.station.port == plan.port).map_or(0, |of| self.strikes(of));
            obstacle = obstacle.or(self.deal_with(id, plan, strikes, now));
        }
        if let Some(reason) = obstacle {
            self.hold(id, reason);
            self.retry_contest(id, now);
        }
    }

    /// Begins or goes on with what is to be done about one loser; what stands in the way of more.
    fn deal_with(&mut self, id: IncidentId, plan: Plan, strikes: u32, now: Timestamp) -> Option<Held> {
        let Plan { port, way, owner, held } = plan;
        let Some(way) = way else {
            self.leave_alone(id, port, now);
            return held;
        };
        let before = self.eviction(id, port);
        match before {
            // An operator may have decided otherwise since an earlier agent began.
            Some(eviction) if !eviction.step.is_at_rest() && (eviction.way == way || eviction.lease.is_some()) => {
                self.wake(id, port, now);
                return held;
            }
            Some(eviction) if eviction.failed_at.is_some_and(|at| now.since(at) < TRIED_AGAIN) => {
                return Some(Held::GivenUp);
            }
            Some(eviction) if eviction.step == Step::Contained && way == Way::Contain => return held,
            _ => {}
        }
        let is_again = before.is_some_and(|eviction| eviction.step == Step::Failed);
        if way != Way::Contain && !is_again {
            if self.brake_is_on(now) {
                return Some(Held::Brake);
            }
            self.recent_evictions.push_back(now);
        }
        let contained = self.eviction(id, port).filter(|eviction| eviction.step == Step::Contained);
        let begun = Eviction { strikes, ..Eviction::new(way, owner, now) };
        self.begin(id, port, contained.map_or(begun.clone(), |contained| begun.after_containment(contained)), now);
        held
    }

    /// Of whom nothing is to be done any more: what waits for its contest is dropped, or ended if the sandbox was changed.
    fn leave_alone(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        self.lift_all(id, Some(port));
        let step = self.eviction(id, port).map(|eviction| eviction.step).filter(|step| !step.is_at_rest());
        match step.filter(|_| self.is_idle(id, port)) {
            Some(step) if step <= Step::Readdress => self.revoke(id, port),
            Some(_) => self.take_step(id, port, now),
            None => {}
        }
    }

    /// Whether an eviction waits for its contest alone.
    fn is_idle(&self, id: IncidentId, port: IfIndex) -> bool {
        let waits = self.eviction(id, port).is_some_and(|eviction| eviction.waits_for.is_some());
        !waits && self.timers.due(Timer::Eviction(id, port)).is_none()
    }

    /// An eviction that came from a record waits for its contest.
    fn wake(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        if self.is_idle(id, port) {
            self.take_step(id, port, now);
        }
    }

    /// Whoever keeps the address, as it is decided now, is not contained any more.
    fn free_winner(&mut self, id: IncidentId) {
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        let Some(winner) = incident.contest.as_ref().and_then(|contest| contest.winner) else { return };
        if incident.evictions.get(&winner).is_some_and(|eviction| eviction.step.is_at_rest()) {
            incident.evictions.remove(&winner);
            self.lift_all(id, Some(winner));
        }
    }

    fn brake_is_on(&mut self, now: Timestamp) -> bool {
        while self.recent_evictions.front().is_some_and(|began| now.since(*began) >= BRAKE_WINDOW) {
            self.recent_evictions.pop_front();
        }
        self.recent_evictions.len() >= self.config.evictions_per_minute
    }

    pub(super) fn begin(&mut self, id: IncidentId, port: IfIndex, eviction: Eviction, now: Timestamp) {
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.held = None;
            incident.evictions.insert(port, eviction);
        }
        self.take_step(id, port, now);
    }

    /// Goes on with what the agent was doing when it was last stopped, as far as only a lease tells of it. A sandbox that
    /// still has its old address beside another owner is an open incident already, and its contest leads to the same lease.
    /// Whoever is away may come back; it is looked again after a while.
    pub(super) fn resume_moves(&mut self, now: Timestamp) {
        for (lease, since) in std::mem::take(&mut self.pending_moves) {
            let Some(contested) = lease.replaces.filter(|_| !self.is_taken_over(&lease)) else { continue };
            match self.port_of(&lease) {
                Some(port) if self.is_contender((lease.domain, contested), port) => {
                    self.pending_moves.push((lease, Some(now)))
                }
                Some(port) if !self.observes() => self.resume_move(contested, port, lease, now),
                None if !self.observes() && since.is_some_and(|since| now.since(since) >= TRIED_AGAIN) => {
                    self.give_back(lease);
                }
                _ => {
                    if since.is_none() {
                        self.findings.push_back(Finding::MoveWaits(lease.clone()));
                    }
                    self.pending_moves.push((lease, since.or(Some(now))));
                }
            }
        }
        if !self.pending_moves.is_empty() && !self.observes() {
            self.timers.set_first(Timer::Moves, now + TRIED_AGAIN);
        }
    }

    /// Whether whoever is behind a port is one of those who contest an address.
    fn is_contender(&self, key: Key, port: IfIndex) -> bool {
        self.has(key, port) && self.is_contested(key)
    }

    /// An eviction sees to the end of a move from now on, whatever becomes of the loser.
    pub(super) fn take_over(&mut self, lease: &Lease) {
        let name = |lease: &Lease| (lease.domain, lease.address, lease.generation);
        self.pending_moves.retain(|(pending, _)| name(pending) != name(lease));
    }

    /// Whether a lease is an eviction's, which sees to its end.
    pub(super) fn is_taken_over(&self, lease: &Lease) -> bool {
        let name = |lease: &Lease| (lease.domain, lease.address, lease.generation);
        let mut all = self.incidents.values().flat_map(|incident| {
            let is_open = incident.status == Status::Open;
            let sees_to_it = move |eviction: &&Eviction| match eviction.step {
                Step::Done => true,
                Step::Failed => false,
                _ => is_open,
            };
            incident.evictions.values().filter(sees_to_it)
        });
        all.any(|eviction| eviction.lease.as_ref().is_some_and(|given| name(given) == name(lease)))
    }

    fn observes(&self) -> bool {
        self.config.mode == super::Mode::Observe
    }

    pub(super) fn port_of(&self, lease: &Lease) -> Option<IfIndex> {
        let is_owner =
            |known: &KnownPort| known.port.bridge == lease.domain.bridge && known.sandbox.owners.contains(&lease.owner);
        self.topology.ports.iter().find(|(_, port)| is_owner(port)).map(|(index, _)| *index)
    }

    fn resume_move(&mut self, contested: Ipv4Addr, port: IfIndex, lease: Lease, now: Timestamp) {
        let key = (lease.domain, contested);
        if self.is_configured(key, port) || !self.has((lease.domain, lease.address), port) {
            // It is still where it was, alone, or elsewhere: the duplicate ended while the agent was away.
            return self.give_back_or_bind(lease, port);
        }
        if self.is_contested(key) || self.waiting.contains_key(&key) {
            // It is at its new address, and the one that it has left is contested by others now.
            return self.give_back_or_bind(lease, port);
        }
        let stations: Vec<Station> = self.bindings.stations(key).map(|(station, _)| station).collect();
        let incident = self.new_incident(key, &stations, Evidence::Configured, now, now);
        let id = incident.id;
        self.findings.push_back(Finding::Resumed { incident: id, lease: lease.clone() });
        self.enter(incident);
        self.recent_evictions.push_back(now);
        self.begin(id, port, Eviction::of_lease(lease, now), now);
    }

    pub(super) fn key(&self, id: IncidentId) -> Option<Key> {
        self.incidents.get(&id).map(|incident| (incident.domain, incident.address))
    }

    pub(super) fn eviction(&self, id: IncidentId, port: IfIndex) -> Option<&Eviction> {
        self.incidents.get(&id)?.evictions.get(&port)
    }

    pub(super) fn eviction_mut(&mut self, id: IncidentId, port: IfIndex) -> Option<&mut Eviction> {
        self.incidents.get_mut(&id)?.evictions.get_mut(&port)
    }

    /// Whether the loser is still to be dealt with: the contest, as it was last decided, goes against it, and both it and
    /// the winner still have the contested address. Once it is at its new address, the move is only to be finished; and one
    /// that was begun before the agent was last stopped has no contest any more.
    pub(super) fn is_due(&self, id: IncidentId, port: IfIndex) -> bool {
        let Some(incident) = self.incidents.get(&id) else { return false };
        let key = (incident.domain, incident.address);
        let lease = incident.evictions.get(&port).and_then(|eviction| eviction.lease.as_ref());
        let is_there = lease.is_some_and(|lease| self.has((lease.domain, lease.address), port));
        let Some(contest) = &incident.contest else { return is_there };
        if contest.winner == Some(port) {
            return false;
        }
        is_there && !self.is_configured(key, port)
            || contest.winner.is_some_and(|winner| self.has(key, winner) && self.has(key, port))
    }

    /// Whether somebody behind a port has the address.
    pub(super) fn has(&self, key: Key, port: IfIndex) -> bool {
        self.bindings.stations(key).any(|(station, _)| station.port == port)
    }

    pub(super) fn is_configured(&self, key: Key, port: IfIndex) -> bool {
        self.bindings.stations(key).any(|(station, binding)| station.port == port && binding.configured)
    }

    /// Gives up an eviction that is not due any more, and holds the contest anew if there still is one.
    pub(super) fn give_up(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        self.revoke(id, port);
        self.eviction_done(id, now);
    }

    /// Drops an eviction before anything was done in the sandbox, and has its lease given back. A sandbox that was to be
    /// recycled and has let go has been.
    fn revoke(&mut self, id: IncidentId, port: IfIndex) {
        self.timers.cancel(Timer::Eviction(id, port));
        self.lift_all(id, Some(port));
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        match incident.evictions.get_mut(&port) {
            Some(eviction) if eviction.step == Step::AwaitGone => eviction.step = Step::Done,
            _ => {
                let eviction = incident.evictions.remove(&port);
                if let Some(lease) = eviction.and_then(|eviction| eviction.lease) {
                    self.give_back_or_bind(lease, port);
                }
            }
        }
    }

    /// Drops the evictions that wait for their next attempt and are not due any more.
    pub(super) fn revoke_moot(&mut self, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id) else { return };
        let waits = |eviction: &Eviction| eviction.waits_for.is_none() && eviction.step <= Step::Readdress;
        let waiting = incident.evictions.iter().filter(|(_, eviction)| waits(eviction)).map(|(port, _)| *port);
        let moot: Vec<IfIndex> = waiting.filter(|port| !self.is_due(id, *port)).collect();
        moot.into_iter().for_each(|port| self.revoke(id, port));
    }

    /// Looks whether the incident is over. If it is not, and nobody is on the way, whoever is left is contested anew.
    pub(super) fn eviction_done(&mut self, id: IncidentId, now: Timestamp) {
        let Some(key) = self.key(id) else { return };
        self.judge_end(key, now);
        let incident = self.incidents.get(&id).filter(|incident| incident.status == Status::Open);
        if incident.is_some_and(|incident| incident.evictions.values().all(|eviction| eviction.step.is_at_rest())) {
            self.hold_contest(id);
        }
    }
}

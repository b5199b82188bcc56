//! Evictions: begun when a contest is settled, driven step by step, ended when the wire shows one owner each.

use std::net::Ipv4Addr;

use super::{
    Engine, Mode, Purpose,
    bindings::Key,
    eviction::{Eviction, Step, VERIFY_PROBES, VERIFY_WAIT, Watch},
    incident::{IncidentId, Party, Status},
    input::{Evidence, Outcome},
    output::{Action, ActionId, Finding, Held},
    timers::Timer,
    topology::KnownPort,
};
use crate::{
    net::{IfIndex, Lease, LeaseState, Mac, Owner, Station},
    time::{Span, Timestamp},
};

/// The span over which evictions are counted for the brake.
const BRAKE_WINDOW: Span = Span::from_secs(60);

impl Engine {
    /// Begins to move every loser that may and can be moved, and says what keeps the others.
    pub(super) fn heal(&mut self, id: IncidentId, alive: &[Party], held: &[Lease], now: Timestamp) {
        let Some(incident) = self.incidents.get(&id) else { return };
        let (domain, address) = (incident.domain, incident.address);
        let winner =
            incident.contest.as_ref().filter(|contest| contest.is_settled()).and_then(|contest| contest.winner);
        if !self.observes() && self.is_shared((domain, address)) {
            return self.hold(id, Held::Shared);
        }
        let Some(winner) = winner else {
            self.hold(id, if self.observes() { Held::Observing } else { Held::Unsettled });
            return self.retry_contest(id, now);
        };
        if self.observes() {
            return self.hold(id, Held::Observing);
        }
        if self.topology.prefix_len(domain, address).is_none() {
            self.hold(id, Held::NoNetwork);
            return self.retry_contest(id, now);
        }
        for loser in alive.iter().filter(|party| party.station.port != winner) {
            self.evict(id, loser, held, now);
        }
    }

    fn observes(&self) -> bool {
        self.config.mode == Mode::Observe
    }

    fn evict(&mut self, id: IncidentId, loser: &Party, held: &[Lease], now: Timestamp) {
        let port = loser.station.port;
        if self.eviction(id, port).is_some_and(|eviction| eviction.step != Step::Done) {
            return;
        }
        match self.obstacle(id, loser, held, now) {
            Ok(owner) => self.begin(id, port, Eviction::new(owner), now),
            Err(reason) => {
                self.hold(id, reason);
                self.retry_contest(id, now);
            }
        }
    }

    /// In whose name the loser gets its new lease, or why it is not moved.
    fn obstacle(&mut self, id: IncidentId, loser: &Party, held: &[Lease], now: Timestamp) -> Result<Owner, Held> {
        let key = self.key(id).ok_or(Held::NoNetwork)?;
        let configured = self.bindings.get(key, loser.station).is_some_and(|binding| binding.configured);
        match Party::owner(&self.topology.own_names(loser.station.port), held) {
            _ if loser.is_host || loser.sandbox.netns.is_none() => Err(Held::OutOfReach),
            None => Err(Held::Nameless),
            Some(_) if !configured => Err(Held::OnlyOnTheWire),
            Some(_) if self.brake_is_on(now) => Err(Held::Brake),
            Some(owner) => Ok(owner),
        }
    }

    fn brake_is_on(&mut self, now: Timestamp) -> bool {
        while self.recent_evictions.front().is_some_and(|began| now.since(*began) >= BRAKE_WINDOW) {
            self.recent_evictions.pop_front();
        }
        self.recent_evictions.len() >= self.config.evictions_per_minute
    }

    fn begin(&mut self, id: IncidentId, port: IfIndex, eviction: Eviction, now: Timestamp) {
        self.recent_evictions.push_back(now);
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.held = None;
            incident.evictions.insert(port, eviction);
        }
        self.take_step(id, port, now);
    }

    /// Goes on with what the agent was doing when it was last stopped. A sandbox that still has its old address beside
    /// another owner is an open incident already, and its contest leads to the same lease.
    pub(super) fn resume_moves(&mut self, now: Timestamp) {
        for lease in std::mem::take(&mut self.pending_moves) {
            let port = self.port_of(&lease);
            match (lease.replaces, port) {
                (Some(contested), Some(_)) if self.is_contested((lease.domain, contested)) => {}
                (Some(contested), Some(port)) if !self.observes() => self.resume_move(contested, port, lease, now),
                _ => self.findings.push_back(Finding::MoveWaits(lease)),
            }
        }
    }

    fn port_of(&self, lease: &Lease) -> Option<IfIndex> {
        let is_owner =
            |known: &KnownPort| known.port.bridge == lease.domain.bridge && known.sandbox.owners.contains(&lease.owner);
        self.topology.ports.iter().find(|(_, port)| is_owner(port)).map(|(index, _)| *index)
    }

    fn resume_move(&mut self, contested: Ipv4Addr, port: IfIndex, lease: Lease, now: Timestamp) {
        let key = (lease.domain, contested);
        if self.is_configured(key, port) {
            // It is still where it was, alone: the duplicate ended while the agent was away.
            return self.give_back(lease);
        }
        let stations: Vec<Station> = self.bindings.stations(key).map(|(station, _)| station).collect();
        let incident = self.new_incident(key, &stations, Evidence::Configured, now, now);
        let id = incident.id;
        self.findings.push_back(Finding::Resumed { incident: id, lease: lease.clone() });
        self.enter(incident);
        self.begin(id, port, Eviction::resumed(lease), now);
    }

    fn key(&self, id: IncidentId) -> Option<Key> {
        self.incidents.get(&id).map(|incident| (incident.domain, incident.address))
    }

    fn eviction(&self, id: IncidentId, port: IfIndex) -> Option<&Eviction> {
        self.incidents.get(&id)?.evictions.get(&port)
    }

    fn eviction_mut(&mut self, id: IncidentId, port: IfIndex) -> Option<&mut Eviction> {
        self.incidents.get_mut(&id)?.evictions.get_mut(&port)
    }

    /// Asks for what the eviction's current step needs.
    fn take_step(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let Some(eviction) = self.eviction(id, port) else { return };
        match eviction.step {
            Step::Reallocate | Step::Readdress if !self.is_due(id, port) => self.give_up(id, port, now),
            Step::Verify => self.probe_both(id, port, now),
            Step::Done => self.eviction_done(id, now),
            step => match self.action_for(id, port, step) {
                Some(make) => {
                    let action = self.act(Purpose::Eviction(id, port), make);
                    if let Some(eviction) = self.eviction_mut(id, port) {
                        eviction.waits_for = Some(action);
                    }
                }
                // An address that nobody has needs no announcement.
                None if matches!(step, Step::AnnounceNew | Step::AnnounceKept) => self.advance(id, port, now),
                None => self.retry_step(id, port, "the bridge's network is not known any more".to_owned(), now),
            },
        }
    }

    /// Whether the loser is still to be moved: the contest, as it was last decided, goes against it, and both it and the
    /// winner still have the contested address. Once it is at its new address, the move is only to be finished; and one
    /// that was begun before the agent was last stopped has no contest any more.
    fn is_due(&self, id: IncidentId, port: IfIndex) -> bool {
        let Some(incident) = self.incidents.get(&id) else { return false };
        let Some(contest) = &incident.contest else { return true };
        let key = (incident.domain, incident.address);
        let lease = incident.evictions.get(&port).and_then(|eviction| eviction.lease.as_ref());
        let is_there = lease.is_some_and(|lease| self.has((lease.domain, lease.address), port));
        let winner = contest.winner.filter(|winner| contest.is_settled() && *winner != port);
        is_there || winner.is_some_and(|winner| self.has(key, winner) && self.has(key, port))
    }

    /// Whether somebody behind a port has the address.
    fn has(&self, key: Key, port: IfIndex) -> bool {
        self.bindings.stations(key).any(|(station, _)| station.port == port)
    }

    /// Gives up an eviction that is not due any more, and holds the contest anew if there still is one.
    fn give_up(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        self.revoke(id, port);
        self.eviction_done(id, now);
    }

    /// Drops an eviction before anything was done in the sandbox, and has its lease given back.
    fn revoke(&mut self, id: IncidentId, port: IfIndex) {
        self.timers.cancel(Timer::Eviction(id, port));
        let eviction = self.incidents.get_mut(&id).and_then(|incident| incident.evictions.remove(&port));
        if let Some(lease) = eviction.and_then(|eviction| eviction.lease) {
            self.give_back(lease);
        }
    }

    /// The loser is gone in the middle of its eviction, and what it was given must not stay reserved for ever. A lease that
    /// it is not known to use drains. One that it has moved to is its own: its namespace may live on and come back by
    /// another port.
    pub(super) fn settle_lease(&mut self, eviction: Eviction) {
        let Eviction { lease: Some(lease), step, .. } = eviction else { return };
        match step {
            Step::Reallocate | Step::Readdress => self.give_back(lease),
            _ => {
                self.act(Purpose::Store(lease.domain, lease.address), |id| Action::Bind { id, lease });
            }
        }
    }

    fn give_back(&mut self, lease: Lease) {
        self.act(Purpose::Store(lease.domain, lease.address), |id| Action::GiveBack { id, lease });
    }

    /// Drops the evictions that wait for their next attempt and are not due any more.
    pub(super) fn revoke_moot(&mut self, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id) else { return };
        let waits = |eviction: &Eviction| eviction.waits_for.is_none() && eviction.step <= Step::Readdress;
        let waiting = incident.evictions.iter().filter(|(_, eviction)| waits(eviction)).map(|(port, _)| *port);
        let moot: Vec<IfIndex> = waiting.filter(|port| !self.is_due(id, *port)).collect();
        moot.into_iter().for_each(|port| self.revoke(id, port));
    }

    fn action_for(&self, id: IncidentId, port: IfIndex, step: Step) -> Option<Box<dyn FnOnce(ActionId) -> Action>> {
        let (domain, contested) = self.key(id)?;
        let eviction = self.eviction(id, port)?;
        if step == Step::Reallocate {
            let (owner, in_use) = (eviction.owner.clone(), self.bindings.in_use_beside(domain, port));
            return Some(Box::new(move |id| Action::Reallocate { id, domain, owner, contested, in_use }));
        }
        let lease = eviction.lease.clone()?;
        let (from, to) = (contested, lease.address);
        let announce = |address, mac| -> Option<Box<dyn FnOnce(ActionId) -> Action>> {
            Some(Box::new(move |id| Action::Announce { id, domain, address, mac }))
        };
        match step {
            Step::Readdress => {
                let prefix_len = self.topology.prefix_len(domain, to)?;
                Some(Box::new(move |id| Action::Readdress { id, port, from, to, prefix_len }))
            }
            Step::AnnounceNew => announce(to, self.mac_at((domain, to), port)?),
            Step::AnnounceKept => announce(contested, self.keeper(id, port)?.mac),
            Step::Bind => Some(Box::new(move |id| Action::Bind { id, lease })),
            Step::Reallocate | Step::Verify | Step::Done => None,
        }
    }

    fn mac_at(&self, key: Key, port: IfIndex) -> Option<Mac> {
        self.bindings.stations(key).find(|(station, _)| station.port == port).map(|(station, _)| station.mac)
    }

    /// Who has the contested address once `loser` is away.
    fn keeper(&self, id: IncidentId, loser: IfIndex) -> Option<Station> {
        let winner = self.incidents.get(&id)?.winner().map(|party| party.station.port);
        let mut others = self.bindings.stations(self.key(id)?).map(|(station, _)| station);
        others.find(|station| station.port != loser && winner.is_none_or(|winner| winner == station.port))
    }

    pub(super) fn step_done(
        &mut self,
        id: IncidentId,
        port: IfIndex,
        action: ActionId,
        outcome: Outcome,
        now: Timestamp,
    ) {
        let Some(eviction) = self.eviction_mut(id, port).filter(|eviction| eviction.waits_for == Some(action)) else {
            return self.came_too_late(outcome);
        };
        eviction.waits_for = None;
        if let Outcome::Lease(lease) = outcome {
            eviction.lease = Some(lease);
        }
        self.advance(id, port, now);
    }

    /// The loser went while its new lease was written.
    fn came_too_late(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Lease(lease) if lease.state == LeaseState::Reserved => self.give_back(lease),
            _ => {}
        }
    }

    fn advance(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let Some(eviction) = self.eviction_mut(id, port) else { return };
        let done = eviction.advance(now);
        self.findings.push_back(Finding::Stepped { incident: id, port, done });
        self.take_step(id, port, now);
    }

    pub(super) fn step_failed(
        &mut self,
        id: IncidentId,
        port: IfIndex,
        action: ActionId,
        failure: String,
        now: Timestamp,
    ) {
        if self.eviction(id, port).is_some_and(|eviction| eviction.waits_for == Some(action)) {
            self.retry_step(id, port, failure, now);
        }
    }

    fn retry_step(&mut self, id: IncidentId, port: IfIndex, failure: String, now: Timestamp) {
        let Some((domain, _)) = self.key(id) else { return };
        if self.eviction(id, port).is_some_and(|eviction| eviction.step <= Step::Readdress) && !self.is_due(id, port) {
            return self.give_up(id, port, now);
        }
        let Some(eviction) = self.eviction_mut(id, port) else { return };
        let (step, news) = (eviction.step, eviction.attempts == 0);
        let wait = eviction.fail(failure.clone());
        self.timers.set(Timer::Eviction(id, port), now + wait);
        self.findings.push_back(Finding::StepFailed { incident: id, domain, port, step, failure, news });
    }

    /// The timer of an eviction: the next probe or the verdict on the answers, else the next attempt at its step.
    pub(super) fn resume_eviction(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let probes = self.eviction(id, port).and_then(|eviction| eviction.watch).map(|watch| watch.probes);
        match probes {
            Some(VERIFY_PROBES..) => self.conclude(id, port, now),
            _ => self.take_step(id, port, now),
        }
    }

    fn probe_both(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let Some((domain, contested)) = self.key(id) else { return };
        let Some(eviction) = self.eviction_mut(id, port) else { return };
        let watch = eviction.watch.get_or_insert(Watch { since: now, probes: 0 });
        watch.probes += 1;
        let addresses = eviction.lease.iter().map(|lease| lease.address).chain([contested]).collect();
        self.probe(domain, addresses);
        self.timers.set(Timer::Eviction(id, port), now + VERIFY_WAIT);
    }

    fn conclude(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        match self.verdict(id, port) {
            Ok(()) => self.advance(id, port, now),
            Err(failure) => self.retry_step(id, port, failure, now),
        }
    }

    /// Whether the wire shows the loser alone at its new address and away from the old one, and the winner still there.
    fn verdict(&self, id: IncidentId, port: IfIndex) -> Result<(), String> {
        let unknown = || "the eviction is not known any more".to_owned();
        let (domain, contested) = self.key(id).ok_or_else(unknown)?;
        let eviction = self.eviction(id, port).ok_or_else(unknown)?;
        let (lease, watch) = eviction.lease.as_ref().zip(eviction.watch).ok_or_else(unknown)?;
        let at_old = self.spoke((domain, contested), watch.since);
        let at_new = self.spoke((domain, lease.address), watch.since);
        let keeper = self.keeper(id, port).map(|station| station.port);
        // The host does not answer its own probes.
        let silent_keeper = keeper.filter(|keeper| self.topology.host(*keeper).is_none() && !at_old.contains(keeper));
        match at_new.as_slice() {
            _ if at_old.contains(&port) => Err(format!("the loser still answers for {contested}")),
            _ if self.is_configured((domain, contested), port) => Err(format!("the loser still has {contested}")),
            _ if silent_keeper.is_some() => Err(format!("nobody answers for {contested}, which should have been kept")),
            [] => Err(format!("nobody answers for the new address {}", lease.address)),
            [only] if *only == port => Ok(()),
            _ => Err(format!("somebody else answers for the new address {}", lease.address)),
        }
    }

    fn is_configured(&self, key: Key, port: IfIndex) -> bool {
        self.bindings.stations(key).any(|(station, binding)| station.port == port && binding.configured)
    }

    /// The ports from which somebody has spoken for an address since a moment.
    fn spoke(&self, key: Key, since: Timestamp) -> Vec<IfIndex> {
        let spoke = self.bindings.stations(key).filter(|(_, binding)| binding.last_frame.is_some_and(|at| at >= since));
        let mut ports: Vec<IfIndex> = spoke.map(|(station, _)| station.port).collect();
        ports.dedup();
        ports
    }

    /// Looks whether the incident is over. If it is not, and nobody is on the way, whoever is left is contested anew.
    fn eviction_done(&mut self, id: IncidentId, now: Timestamp) {
        let Some(key) = self.key(id) else { return };
        self.judge_end(key, now);
        let incident = self.incidents.get(&id).filter(|incident| incident.status == Status::Open);
        if incident.is_some_and(|incident| incident.evictions.values().all(|eviction| eviction.step == Step::Done)) {
            self.hold_contest(id);
        }
    }
}

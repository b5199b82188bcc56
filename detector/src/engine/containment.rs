//! Containment: what a loser says of the contested address is dropped at its port, and nothing else.
//!
//! It comes before anything else is done about a loser, so that the winner's neighbours hear one voice from then on. It
//! lives in the tap, for as long as its incident is open.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    Engine, Purpose,
    bindings::Key,
    contest::{Contest, Rights},
    eviction::Step,
    finding::Finding,
    incident::{IncidentId, Status},
    output::{Action, ActionId},
    timers::Timer,
};
use crate::{
    net::{BridgeName, Contained, Domain, IfIndex, Lease, Station},
    time::{Span, Timestamp},
};

/// How long what an earlier agent left contained has to show that it is still contested, and how soon it is tried again
/// to lift what could not be lifted.
const LEFT_OVER: Span = Span::from_secs(5);

/// What a port is kept from saying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containment {
    /// Where.
    pub domain: Domain,
    /// The address that it may not claim.
    pub address: Ipv4Addr,
    /// The port.
    pub port: IfIndex,
    /// The port's interface name.
    pub port_name: String,
    /// The name of the sandbox behind it, if it is known.
    pub sandbox: Option<String>,
    /// For which incident; `None` if an earlier agent has left it.
    pub incident: Option<IncidentId>,
    /// Since when, if the incident began with this address.
    pub since: Option<Timestamp>,
    /// What the tap was told: the address under each tag by which it may come in.
    pub entries: Vec<Contained>,
}

impl Engine {
    /// Has whatever a loser claims of its incident's addresses dropped; none if all of it is, or if it cannot be.
    pub(super) fn contain_loser(&mut self, id: IncidentId, port: IfIndex) -> Option<ActionId> {
        let incident = self.incidents.get(&id)?;
        let first = (incident.domain, incident.address);
        let keys: Vec<Key> = incident.addresses.iter().map(|address| (incident.domain, *address)).collect();
        let keys = keys.into_iter().filter(|key| *key == first || self.settled_joins.contains(&(*key, port)));
        self.contain(id, keys.collect(), port, Purpose::Eviction(id, port))
    }

    /// Has the claims of a port to these addresses dropped.
    pub(super) fn contain(
        &mut self,
        id: IncidentId,
        keys: Vec<Key>,
        port: IfIndex,
        purpose: Purpose,
    ) -> Option<ActionId> {
        let is_new =
            |key: &Key| self.config.can_contain && self.contained.get(&(*key, port)).copied() != Some(Some(id));
        let keys: Vec<Key> = keys.into_iter().filter(is_new).collect();
        let entries: Vec<Contained> = keys.iter().flat_map(|key| self.entries(*key, port)).collect();
        if entries.is_empty() {
            return None;
        }
        self.contained.extend(keys.iter().map(|key| ((*key, port), Some(id))));
        keys.iter().for_each(|key| self.listen_to(*key));
        if let Some((domain, address)) = keys.first().copied().filter(|_| self.tells_containment(id, port)) {
            self.findings.push_back(Finding::Contained { incident: id, domain, address, port });
        }
        Some(self.act(purpose, |id| Action::Contain { id, entries }))
    }

    /// Whoever claims what many have is told of as the addresses are: of the first ones, and now and then.
    fn tells_containment(&self, id: IncidentId, port: IfIndex) -> bool {
        let is_its = |((_, at), of): &(&(Key, IfIndex), &Option<IncidentId>)| *at == port && **of == Some(id);
        super::judgement::is_told(self.contained.iter().filter(is_its).count())
    }

    /// What the tap is told: the address under each tag by which it may come in.
    fn entries(&self, (domain, address): Key, port: IfIndex) -> Vec<Contained> {
        let tags = self.topology.tags(port, domain);
        tags.into_iter().map(|tag| Contained { port, tag, address }).collect()
    }

    /// Lets a port claim these addresses again.
    fn lift(&mut self, keys: Vec<Key>, port: IfIndex) {
        let mut entries = Vec::new();
        let mut incident = None;
        for key in &keys {
            incident = self.contained.remove(&(*key, port)).flatten().or(incident);
            self.settled_joins.remove(&(*key, port));
            entries.extend(self.entries(*key, port));
        }
        let Some((domain, address)) = keys.first().copied() else { return };
        self.findings.push_back(Finding::Lifted { incident, domain, address, port, count: keys.len() });
        self.act(Purpose::Lift(keys, port), |id| Action::Lift { id, entries });
    }

    fn lift_where(&mut self, is_over: impl Fn(Key, IfIndex, Option<IncidentId>) -> bool) {
        let mut at_port: BTreeMap<IfIndex, Vec<Key>> = BTreeMap::new();
        for ((key, port), _) in self.contained.iter().filter(|((key, port), of)| is_over(*key, *port, **of)) {
            at_port.entry(*port).or_default().push(*key);
        }
        at_port.into_iter().for_each(|(port, keys)| self.lift(keys, port));
    }

    /// Lets everybody go whom an incident contains, or one of its ports.
    pub(super) fn lift_all(&mut self, id: IncidentId, port: Option<IfIndex>) {
        self.lift_where(|_, at, of| of == Some(id) && port.is_none_or(|port| port == at));
    }

    /// A port is gone, and with it whatever was kept from it.
    pub(super) fn lift_port(&mut self, port: IfIndex) {
        self.lift_where(|_, at, _| at == port);
    }

    pub(super) fn not_lifted(&mut self, keys: &[Key], port: IfIndex, now: Timestamp) {
        for key in keys {
            self.contained.entry((*key, port)).or_insert(None);
            // It may have been said meanwhile, and taken for known.
            self.listen_to(*key);
        }
        self.timers.set_first(Timer::LeftOver, now + LEFT_OVER);
    }

    /// An operator lets a port claim an address again. It is not contained anew while the incident is open.
    pub(super) fn lifted_by_operator(&mut self, entry: Contained) {
        let Some(domain) = self.topology.domain_of(entry.port, entry.tag) else { return };
        let key = (domain, entry.address);
        let id = self.open.get(&key).copied();
        self.spared.extend(id.map(|id| (id, entry.port)));
        self.lift_where(|of, at, _| (of, at) == (key, entry.port));
        // What stands in the way now is said at once.
        id.into_iter().for_each(|id| self.hold_contest(id));
    }

    /// Everybody is known by now. What an earlier agent has left contained, and is still contested, will show soon.
    pub(super) fn sort_left_contained(&mut self, now: Timestamp) {
        let mut of_nobody = Vec::new();
        for entry in std::mem::take(&mut self.left_contained) {
            match self.topology.domain_of(entry.port, entry.tag) {
                Some(domain) => {
                    self.contained.entry(((domain, entry.address), entry.port)).or_insert(None);
                    self.listen_to((domain, entry.address));
                }
                None => of_nobody.push(entry),
            }
        }
        if !of_nobody.is_empty() {
            self.act(Purpose::Caches, |id| Action::Lift { id, entries: of_nobody });
        }
        if self.contained.values().any(Option::is_none) {
            self.timers.set_first(Timer::LeftOver, now + LEFT_OVER);
        }
    }

    pub(super) fn lift_left_over(&mut self) {
        self.lift_where(|_, _, of| of.is_none());
    }

    /// Whether a port's claims to an address are dropped.
    pub(super) fn is_contained(&self, key: Key, port: IfIndex) -> bool {
        self.contained.contains_key(&(key, port))
    }

    /// Everything that is contained, by domain, address and port.
    pub fn contained(&self) -> impl Iterator<Item = Containment> {
        self.contained.iter().map(|((key, port), of)| self.containment(*key, *port, *of))
    }

    /// How much is contained on a bridge.
    #[must_use]
    pub fn contained_count(&self, bridge: BridgeName) -> usize {
        self.contained.keys().filter(|((domain, _), _)| domain.bridge == bridge).count()
    }

    fn containment(&self, key: Key, port: IfIndex, incident: Option<IncidentId>) -> Containment {
        let sandbox = self.topology.ports.get(&port).and_then(|known| known.sandbox.name.clone());
        Containment {
            domain: key.0,
            address: key.1,
            port,
            port_name: self.topology.name(port),
            sandbox,
            incident,
            since: incident.and_then(|id| self.contained_since(id, key, port)),
            entries: self.entries(key, port),
        }
    }

    fn contained_since(&self, id: IncidentId, key: Key, port: IfIndex) -> Option<Timestamp> {
        let incident = self.incidents.get(&id).filter(|incident| (incident.domain, incident.address) == key)?;
        let mut taken = incident.evictions.get(&port)?.taken.iter();
        taken.find(|(step, _)| *step == Step::Contain).map(|(_, at)| *at)
    }

    /// Has it looked up whose an address is that has joined an incident: the claimant may be its owner.
    pub(super) fn contest_joined(&mut self, id: IncidentId, key: Key) {
        if self.stands_back(key).is_some() {
            return;
        }
        let stations = self.contradiction(key, None).unwrap_or_default();
        let owners = stations.iter().flat_map(|station| self.topology.owners(station.port)).collect();
        self.ask_the_book(Purpose::Joined(id, key), key, owners);
    }

    pub(super) fn judge_joined(&mut self, id: IncidentId, key: Key, contested: Option<&Lease>, held: &[Lease]) {
        let stations = self.contradiction(key, None).unwrap_or_default();
        let parties = self.parties(key, &stations);
        let is_shared = contested.is_some_and(|lease| self.topology.is_shared(&lease.owner));
        let rights = Rights { pinned: self.config.policy.pins.get(&key.1), lease: contested, is_shared };
        let contest = Contest::decide(&parties, rights).against(&parties, held);
        if self.open.get(&key) == Some(&id) {
            let losers = contest.losers.iter().map(|loser| loser.port);
            self.contain_joined(id, key, losers);
        }
    }

    /// Somebody else than a loser who has an address.
    pub(super) fn other_than(&self, key: Key, loser: IfIndex) -> Option<Station> {
        self.bindings.stations(key).map(|(station, _)| station).find(|station| station.port != loser)
    }

    pub(super) fn join_not_contained(&mut self, incident: IncidentId, key: Key, port: IfIndex, failure: String) {
        self.lift_where(|of, at, _| (of, at) == (key, port));
        let (domain, step, is_tried_again) = (key.0, Step::Contain, false);
        self.findings.push_back(Finding::StepFailed { incident, domain, port, step, failure, is_tried_again });
    }

    /// A loser could not be contained, or not everywhere: then nothing is to stay.
    pub(super) fn not_contained(&mut self, id: IncidentId, port: IfIndex) {
        let joined: Vec<(Key, IfIndex)> = self.settled_joins.iter().filter(|(_, at)| *at == port).copied().collect();
        self.lift_all(id, Some(port));
        self.settled_joins.extend(joined);
    }

    /// Contains at one more address whoever is contained already.
    pub(super) fn contain_joined(&mut self, id: IncidentId, key: Key, losers: impl Iterator<Item = IfIndex>) {
        for port in losers {
            let is_dealt_with = self
                .incidents
                .get(&id)
                .is_some_and(|incident| incident.status == Status::Open && incident.evictions.contains_key(&port));
            if is_dealt_with && !self.spared.contains(&(id, port)) {
                self.settled_joins.insert((key, port));
                self.contain(id, vec![key], port, Purpose::JoinedContained(id, key, port));
            }
        }
    }
}

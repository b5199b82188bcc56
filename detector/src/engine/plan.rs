//! What is to be done about each loser, and what stands in the way. Made in either mode; carried out in one.

use super::{
    Engine, Mode,
    bindings::Key,
    held::Held,
    incident::{IncidentId, Party},
    ways::Way,
};
use crate::net::{IfIndex, Lease, Owner};

/// What is to be done about one loser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The loser's port.
    pub port: IfIndex,
    /// What is to be done; nothing if it may not even be contained.
    pub way: Option<Way>,
    /// In whose name a new lease would be.
    pub owner: Option<Owner>,
    /// Why no more than that.
    pub held: Option<Held>,
}

impl Plan {
    const fn only(port: IfIndex, way: Option<Way>, held: Held) -> Self {
        Self { port, way, owner: None, held: Some(held) }
    }
}

impl Engine {
    /// What an incident's losers have coming, if the agent may act at all. A contest that names no winner has no losers.
    pub(super) fn plan(&self, id: IncidentId, alive: &[Party], held: &[Lease]) -> Vec<Plan> {
        let contest = self.incidents.get(&id).and_then(|incident| incident.contest.as_ref());
        let Some(winner) = contest.and_then(|contest| contest.winner) else { return Vec::new() };
        let losers = alive.iter().filter(|party| party.station.port != winner);
        losers.filter_map(|loser| self.plan_for(id, loser, held)).collect()
    }

    fn plan_for(&self, id: IncidentId, loser: &Party, held: &[Lease]) -> Option<Plan> {
        let incident = self.incidents.get(&id)?;
        let (key, port) = ((incident.domain, incident.address), loser.station.port);
        let is_settled = incident.contest.as_ref().is_some_and(super::Contest::is_settled);
        let only = |way, held| Some(Plan::only(port, way, held));
        if loser.is_host || loser.is_external {
            return only(None, Held::Outside);
        }
        if self.is_shared(key) {
            return only(None, Held::Shared);
        }
        if self.config.policy.is_protected(&loser.port_name) {
            return only(None, Held::Protected);
        }
        if self.spared.contains(&(id, port)) {
            return only(None, Held::Spared);
        }
        if !is_settled && !self.config.policy.moves_newcomers {
            return only(Some(Way::Contain), Held::Newcomer);
        }
        if self.strikes(loser) >= self.config.strikes {
            return only(Some(Way::Contain), Held::Strikes);
        }
        match self.config.policy.ways.of(key.0, &loser.sandbox.owners) {
            Way::Contain => only(Some(Way::Contain), Held::ContainOnly),
            Way::Recycle => Some(Plan { port, way: Some(Way::Recycle), owner: None, held: None }),
            Way::Readdress => Some(match self.new_owner(key, loser, held) {
                Ok(owner) => Plan { port, way: Some(Way::Readdress), owner: Some(owner), held: None },
                Err(reason) => Plan::only(port, Some(Way::Contain), reason),
            }),
        }
    }

    /// In whose name the loser gets its new lease, or why it cannot be moved.
    fn new_owner(&self, key: Key, loser: &Party, held: &[Lease]) -> Result<Owner, Held> {
        let configured = self.bindings.get(key, loser.station).is_some_and(|binding| binding.configured);
        match Party::owner(&self.topology.own_names(loser.station.port), held) {
            _ if loser.sandbox.netns.is_none() => Err(Held::OutOfReach),
            None => Err(Held::Nameless),
            Some(_) if !configured => Err(Held::OnlyOnTheWire),
            Some(_) if self.topology.prefix_len(key.0, key.1).is_none() => Err(Held::NoNetwork),
            Some(owner) => Ok(owner),
        }
    }

    /// Why nothing at all is done about an address.
    pub(super) fn stands_back(&self, key: Key) -> Option<Held> {
        match () {
            () if self.config.mode == Mode::Observe => Some(Held::Observing),
            () if self.is_shared(key) => Some(Held::Shared),
            () if self.paused_until.is_some() => Some(Held::Paused),
            () => None,
        }
    }
}

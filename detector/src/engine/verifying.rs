//! The last look: the wire must show the loser at its new address alone, and the winner at the contested one.

use super::{
    Engine,
    bindings::Key,
    eviction::{VERIFY_PROBES, VERIFY_WAIT, Watch},
    incident::IncidentId,
    timers::Timer,
};
use crate::{net::IfIndex, time::Timestamp};

impl Engine {
    pub(super) fn probe_both(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let Some((domain, contested)) = self.key(id) else { return };
        let Some(eviction) = self.eviction_mut(id, port) else { return };
        let watch = eviction.watch.get_or_insert(Watch { since: now, probes: 0 });
        watch.probes += 1;
        let addresses = eviction.lease.iter().map(|lease| lease.address).chain([contested]).collect();
        self.probe(domain, addresses);
        self.timers.set(Timer::Eviction(id, port), now + VERIFY_WAIT);
    }

    /// Whoever has not answered may have lost the probe; whoever has answered and should not have, has.
    pub(super) fn conclude(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let probes = self.eviction(id, port).and_then(|eviction| eviction.watch).map_or(0, |watch| watch.probes);
        match self.verdict(id, port) {
            Ok(()) => {
                self.forget_last_words(id, port, now);
                self.verified(id, port, now);
            }
            Err(_) if probes < VERIFY_PROBES => self.probe_both(id, port, now),
            Err(failure) => self.retry_step(id, port, failure, now),
        }
    }

    /// What the loser said of the contested address while it was being changed is over: it has it no more, and was silent
    /// when it was asked for.
    fn forget_last_words(&mut self, id: IncidentId, port: IfIndex, now: Timestamp) {
        let Some(key) = self.key(id) else { return };
        let of_loser = self.bindings.stations(key).map(|(station, _)| station).filter(|station| station.port == port);
        of_loser.collect::<Vec<_>>().into_iter().for_each(|station| self.withdraw(key, station, now));
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

    /// The ports from which somebody has spoken for an address since a moment.
    fn spoke(&self, key: Key, since: Timestamp) -> Vec<IfIndex> {
        let spoke = self.bindings.stations(key).filter(|(_, binding)| binding.last_frame.is_some_and(|at| at >= since));
        let mut ports: Vec<IfIndex> = spoke.map(|(station, _)| station.port).collect();
        ports.dedup();
        ports
    }
}

//! An operator decides otherwise while the engine runs.

use std::collections::BTreeSet;

use super::{Config, Engine, Mode, bindings::Key, eviction::Step, held::Held, incident::IncidentId};
use crate::{net::IfIndex, time::Timestamp};

impl Engine {
    /// Judges and acts by `config` from now on. What the engine was made with and no operator decides stays as it is: what
    /// the tap can do, whether questions reach anybody, and where the numbers of incidents began.
    ///
    /// Whoever begins to act takes up what was left, and has it written down who is where; whoever ceases to act finishes
    /// the moves that are under way.
    pub(super) fn reconfigure(&mut self, config: Config, now: Timestamp) {
        let Config { can_contain, last_incident, asks, .. } = self.config;
        let before = std::mem::replace(&mut self.config, Config { can_contain, last_incident, asks, ..config });
        self.bindings.allow(self.config.claims_per_port);
        if before.mode == Mode::Observe && self.config.mode == Mode::Enforce && self.inventory_done {
            self.resume_moves(now);
            self.adopt_settled();
        }
        self.let_contained_go();
        self.hold_all_contests();
    }

    /// Whoever was to be contained for good is let go where nothing is done any more.
    fn let_contained_go(&mut self) {
        let stands_back = |key: Key| matches!(self.stands_back(key), Some(Held::Observing | Held::Shared));
        let open = self.open.iter().filter(|(key, _)| stands_back(**key)).map(|(_, id)| *id);
        for id in open.collect::<BTreeSet<IncidentId>>() {
            let Some(incident) = self.incidents.get_mut(&id) else { continue };
            let contained = incident.evictions.extract_if(.., |_, eviction| eviction.step == Step::Contained);
            let ports: Vec<IfIndex> = contained.map(|(port, _)| port).collect();
            ports.into_iter().for_each(|port| self.lift_all(id, Some(port)));
        }
    }
}

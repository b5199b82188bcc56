//! What is due when everything that exists has been told: a sweep, the adoption, the unfinished moves.

use std::net::Ipv4Addr;

use super::{
    Engine, Mode, Purpose, Row, RowState,
    bindings::Key,
    eviction::{Eviction, Step},
    finding::Finding,
    incident::Status,
    output::Action,
    timers::Timer,
};
use crate::{
    net::{BridgeName, Domain, Owner},
    time::{Span, Timestamp},
};

/// How often an adoption is tried.
const ADOPTIONS: u8 = 5;

impl Engine {
    /// What existed before the agent is known: everybody is asked once, those who were there keep their addresses, and
    /// what was left unfinished goes on. After a later inventory only the question is due.
    pub(super) fn inventory_done(&mut self, now: Timestamp) {
        let bridges: Vec<BridgeName> = self.topology.bridges.keys().copied().collect();
        bridges.into_iter().for_each(|bridge| self.sweep(bridge, now));
        if !std::mem::replace(&mut self.inventory_done, true) {
            self.take_up_rest(now);
            self.sort_left_contained(now);
            self.resume_moves(now);
            self.adopt_settled();
        }
    }

    /// Has the store write down who is where, so that nobody else is given these addresses.
    pub(super) fn adopt_settled(&mut self) {
        if self.config.mode == Mode::Observe {
            return;
        }
        let settled: Vec<(Domain, Ipv4Addr, Owner)> = self.rows().filter_map(|row| self.adoptee(row)).collect();
        for (domain, address, owner) in settled {
            self.act(Purpose::Adoption(domain, address, 0), |id| Action::Adopt { id, domain, address, owner });
        }
    }

    /// Somebody may just be looking whether the address can be handed out, or the disk may be full: told once, and tried
    /// again, later and later.
    pub(super) fn adoption_failed(&mut self, (domain, address): Key, failed: u8, failure: String, now: Timestamp) {
        self.unadopted.insert((domain, address));
        if failed == 1 {
            self.findings.push_back(Finding::NotAdopted { domain, address, failure });
        }
        if failed < ADOPTIONS {
            self.timers.set(Timer::Adoption(domain, address, failed), now + Span::from_secs(1 << failed));
        }
    }

    /// What the store could not do is due at once, whenever its next attempt would have been: the moves that it knows of
    /// go on, contests are held, leases are written.
    pub(super) fn store_restored(&mut self, now: Timestamp) {
        if !self.inventory_done {
            return;
        }
        self.resume_moves(now);
        self.keep_owed();
        self.settle_again();
        self.try_given_up_again();
        for timer in self.waiting_for_store() {
            self.timers.set(timer, now);
        }
        for (domain, address) in self.unadopted.clone() {
            self.adopt_again(domain, address, 1);
        }
    }

    /// Who was given up may have been for the store's sake.
    fn try_given_up_again(&mut self) {
        let open = self.incidents.values_mut().filter(|incident| incident.status == Status::Open);
        for eviction in open.flat_map(|incident| incident.evictions.values_mut()) {
            eviction.failed_at = None;
        }
    }

    /// What is tried again later of all that asks the store.
    fn waiting_for_store(&self) -> Vec<Timer> {
        let open = self.open.values().filter_map(|id| self.incidents.get(id));
        let timers = open.flat_map(|incident| {
            // Each step waits for its record.
            let asks = |eviction: &Eviction| !matches!(eviction.step, Step::Contain | Step::AwaitGone);
            let evictions = incident.evictions.iter().filter(move |(_, eviction)| asks(eviction));
            let evictions = evictions.map(|(port, _)| Timer::Eviction(incident.id, *port));
            evictions.chain([Timer::Contest(incident.id)])
        });
        timers.filter(|timer| self.timers.due(*timer).is_some()).collect()
    }

    /// Only if the address still has one owner who was there first, and was not adopted meanwhile.
    pub(super) fn adopt_again(&mut self, domain: Domain, address: Ipv4Addr, failed: u8) {
        if !self.unadopted.contains(&(domain, address)) {
            return;
        }
        let adoptees: Vec<_> = self.rows_on(domain, address).filter_map(|row| self.adoptee(row)).collect();
        if let [(_, _, owner)] = &adoptees[..] {
            let owner = owner.clone();
            self.act(Purpose::Adoption(domain, address, failed), |id| Action::Adopt { id, domain, address, owner });
        }
    }

    fn adoptee(&self, row: Row) -> Option<(Domain, Ipv4Addr, Owner)> {
        let contested = self.is_contested((row.domain, row.address));
        let settled = row.state == RowState::Ok && row.binding.configured && !row.is_host && !contested;
        let in_network = self.topology.prefix_len(row.domain, row.address).is_some();
        let owner = self.topology.own_names(row.station.port).into_iter().next()?;
        (settled && in_network).then_some((row.domain, row.address, owner))
    }
}

//! The model: a book of leases in memory, too simple to be wrong.
//!
//! It looks at every row for every question, knows nothing of runs, indexes or transactions, and keeps time in seconds.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::*,
    call::{Call, Seconds, Which},
};
use crate::net::{IfName, Ipv4Net, Ipv4Range, Mac};

/// What is to be answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Lease(Lease),
    Leases(Vec<Lease>),
    Fenced(Option<Lease>),
    NoPool,
    Exhausted {
        ready_in: Option<Span>,
        in_use: u64,
    },
    Leased(Lease),
    HoldsAnother(Lease),
    HoldsUseless(Lease),
    NotInPool,
    Overlap,
    NoSuchPool,
    /// Done, or nothing to do.
    Done,
    /// The store failed, so nothing may have been done.
    Failed(String),
}

/// What has a lease on it, or rests.
#[derive(Clone, Debug)]
pub(super) struct Row {
    lease: Lease,
    since: Seconds,
    lasts: Option<Seconds>,
    until: Option<Seconds>,
    seen: bool,
    /// Its last change's place among all changes.
    change: u64,
}

#[derive(Clone, Debug)]
struct Gives {
    pool: Pool,
    addresses: BTreeSet<Ipv4Addr>,
}

/// The model. It has the two domains' rows in one map, and their pools in another.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    rows: BTreeMap<(Domain, Ipv4Addr), Row>,
    pools: BTreeMap<(Domain, Ipv4Net), Gives>,
    generations: BTreeMap<Domain, u64>,
    changes: u64,
    /// Every lease that was ever given, in order.
    pub(super) given: Vec<Lease>,
    pub(super) now: Seconds,
    pub(super) boots: u64,
}

pub(super) fn seen(lasts: Seconds) -> Quarantine {
    Quarantine { mac: Mac([2, 0, 0, 0, 0, 7]), reason: "answered a probe".to_owned(), lasts: Span::from_secs(lasts) }
}

fn rests(state: LeaseState) -> bool {
    matches!(state, LeaseState::Cooldown | LeaseState::Quarantined)
}

fn seconds(span: Span) -> Seconds {
    span.as_nanos() / 1_000_000_000
}

/// A /28 is addresses 1 to 14 and so on, but for the gateway and what is left out.
fn addresses(pool: &Pool) -> BTreeSet<Ipv4Addr> {
    let left_out = |address: &Ipv4Addr| pool.excluded().iter().any(|range| range.contains(*address));
    let hosts = pool.subnet().hosts().filter(|address| pool.gateway() != Some(*address));
    hosts.filter(|address| !left_out(address)).collect()
}

fn wished(within: &[Ipv4Range], address: Ipv4Addr) -> bool {
    within.is_empty() || within.iter().any(|range| range.contains(address))
}

impl Model {
    /// Does what is called, and says what is to be answered; `None` if that is nothing.
    pub(super) fn call(&mut self, call: &Call) -> Option<Answer> {
        use LeaseState::{Bound, Cooldown, Draining, Quarantined, Reserved};
        Some(match call {
            Call::Allocate(wish) => self.allocate(wish, None),
            Call::Reserve(wish, hold) => self.allocate(wish, Some(*hold)),
            Call::Reallocate { domain, owner, contested, avoid } => self.reallocate(*domain, owner, *contested, avoid),
            Call::Adopt { domain, address, owner, interface } => self.adopt(*domain, *address, owner, *interface),
            Call::Bind(which) => self.step(which, &[Reserved, Bound], Bound, None)?,
            Call::Release(which) => self.step(which, &[Reserved, Bound], Draining, None)?,
            Call::Retire(which) => self.step(which, &[Draining], Cooldown, None)?,
            Call::Discard(which) => self.step(which, &[Reserved, Bound, Draining, Quarantined], Cooldown, None)?,
            Call::Quarantine(which, lasts) => {
                self.step(which, &[Reserved, Cooldown, Quarantined], Quarantined, Some(*lasts))?
            }
            Call::Sweep => self.sweep(),
            Call::SetPool(pool) => self.set_pool(pool),
            Call::RemovePool(domain, subnet) => self.remove_pool(*domain, *subnet),
            Call::Pass(seconds) => {
                self.now += seconds;
                return None;
            }
            Call::SetWallClock(_) | Call::Reopen => return None,
            Call::Reboot => {
                self.reboot();
                return None;
            }
        })
    }

    /// Every row as an operator is shown it.
    pub(super) fn standings(&self) -> Vec<Standing> {
        let standing = |row: &Row| Standing {
            lease: row.lease.clone(),
            since: Span::from_secs(self.now - row.since),
            left: row.until.map(|until| Span::from_secs(until.saturating_sub(self.now))),
            quarantine: row.seen.then(|| (seen(0).mac, seen(0).reason)),
        };
        self.rows.values().map(standing).collect()
    }

    pub(super) fn pools(&self) -> Vec<Pool> {
        self.pools.values().map(|gives| gives.pool.clone()).collect()
    }

    /// By interface, as the owner would count them.
    fn held(&self, domain: Domain, owner: &Owner) -> Vec<Lease> {
        let rows = self.rows.values().map(|row| &row.lease);
        let mut held: Vec<_> = rows
            .filter(|lease| lease.domain == domain && lease.owner == *owner && lease.state.is_held())
            .cloned()
            .collect();
        held.sort_by_key(|lease| lease.interface.map(|name| name.to_string()).unwrap_or_default());
        held
    }

    fn can_lease(&self, domain: Domain, address: Ipv4Addr) -> bool {
        self.pools.values().any(|gives| gives.pool.domain() == domain && gives.addresses.contains(&address))
    }

    /// What nobody ever had, of `wish`, whether it is in use or not.
    fn fresh(&self, wish: &Wish) -> Vec<Ipv4Addr> {
        let pools = self.pools.values().filter(|gives| gives.pool.domain() == wish.domain);
        let all: BTreeSet<_> = pools.flat_map(|gives| gives.addresses.iter().copied()).collect();
        let fresh = all.into_iter().filter(|address| !self.rows.contains_key(&(wish.domain, *address)));
        let mut fresh: Vec<_> = fresh.filter(|address| wished(&wish.within, *address)).collect();
        fresh.sort_by_key(|address| wish.within.iter().position(|range| range.contains(*address)));
        fresh
    }

    /// What rests, of `wish`, the one first that has rested or will have rested first.
    fn resting(&self, wish: &Wish) -> Vec<&Row> {
        let rows = self.rows.values().filter(|row| row.lease.domain == wish.domain && rests(row.lease.state));
        let mut rows: Vec<_> = rows
            .filter(|row| wished(&wish.within, row.lease.address) && self.can_lease(wish.domain, row.lease.address))
            .collect();
        rows.sort_by_key(|row| (row.until, row.change));
        rows
    }

    fn next(&self, wish: &Wish) -> Result<Ipv4Addr, Answer> {
        let quiet = |address: &Ipv4Addr| !wish.avoid.contains(address);
        let (rested, resting): (Vec<_>, Vec<_>) =
            self.resting(wish).into_iter().partition(|row| row.until <= Some(self.now));
        let fresh = self.fresh(wish);
        let rested: Vec<_> = rested.into_iter().map(|row| row.lease.address).collect();
        if let Some(address) = fresh.iter().chain(&rested).copied().find(quiet) {
            return Ok(address);
        }
        let next = resting.into_iter().find(|row| quiet(&row.lease.address)).and_then(|row| row.until);
        let ready_in = next.map(|until| Span::from_secs(until - self.now));
        Err(self.why_none(wish).unwrap_or(Answer::Exhausted { ready_in, in_use: (fresh.len() + rested.len()) as u64 }))
    }

    fn why_none(&self, wish: &Wish) -> Option<Answer> {
        let mut pools = self.pools.values().filter(|gives| gives.pool.domain() == wish.domain).peekable();
        if pools.peek().is_none() {
            return Some(Answer::NoPool);
        }
        let taken = match wish.within[..] {
            [only] if only.count() == 1 => self.rows.get(&(wish.domain, only.first())),
            _ => None,
        };
        if let Some(row) = taken.filter(|row| !rests(row.lease.state)) {
            return Some(Answer::Leased(row.lease.clone()));
        }
        let none = !pools.flat_map(|gives| &gives.addresses).any(|address| wished(&wish.within, *address));
        none.then_some(Answer::NotInPool)
    }

    fn allocate(&mut self, wish: &Wish, hold: Option<Seconds>) -> Answer {
        let state = if hold.is_some() { LeaseState::Reserved } else { LeaseState::Bound };
        let held = self.held(wish.domain, &wish.owner).into_iter().find(|lease| lease.interface == wish.interface);
        match held {
            Some(lease) if !wished(&wish.within, lease.address) => Answer::HoldsAnother(lease),
            Some(lease) if lease.state == LeaseState::Bound || lease.replaces.is_some() => Answer::Lease(lease),
            Some(lease) => self.put(Lease { state, ..lease }, hold),
            None => match self.next(wish) {
                Ok(address) => self.grant(wish, address, state, None, hold),
                Err(answer) => answer,
            },
        }
    }

    fn grant(
        &mut self,
        wish: &Wish,
        address: Ipv4Addr,
        state: LeaseState,
        replaces: Option<Ipv4Addr>,
        lasts: Option<Seconds>,
    ) -> Answer {
        let &Wish { domain, interface, .. } = wish;
        let generation = self.generations.entry(domain).or_default();
        *generation += 1;
        let (owner, generation) = (wish.owner.clone(), Generation(*generation));
        let lease = Lease { domain, address, owner, interface, generation, state, replaces };
        self.given.push(lease.clone());
        self.rows.remove(&(domain, address));
        self.put(lease, lasts)
    }

    fn put(&mut self, lease: Lease, lasts: Option<Seconds>) -> Answer {
        self.changes += 1;
        let key = (lease.domain, lease.address);
        let since = self.rows.get(&key).filter(|row| row.lease.state == lease.state).map_or(self.now, |row| row.since);
        let until = lasts.map(|lasts| self.now + lasts);
        let seen = lease.state == LeaseState::Quarantined;
        self.rows.insert(key, Row { lease: lease.clone(), since, lasts, until, seen, change: self.changes });
        Answer::Lease(lease)
    }

    fn reallocate(&mut self, domain: Domain, owner: &Owner, contested: Ipv4Addr, avoid: &BTreeSet<Ipv4Addr>) -> Answer {
        let pools = self.pools.keys().filter(|(at, _)| *at == domain);
        let Some(subnet) = pools.map(|(_, subnet)| *subnet).find(|subnet| subnet.contains(&contested)) else {
            return Answer::NoPool;
        };
        let mut avoid = avoid.clone();
        avoid.insert(contested);
        let (there, elsewhere): (Vec<_>, Vec<_>) =
            self.held(domain, owner).into_iter().partition(|lease| lease.address == contested);
        let useful = |lease: &&Lease| subnet.contains(&lease.address) && !avoid.contains(&lease.address);
        let begun = elsewhere.iter().filter(useful).filter(|lease| lease.replaces == Some(contested));
        match (there.into_iter().next(), begun.max_by_key(|lease| lease.generation)) {
            (None, Some(begun)) => Answer::Lease(begun.clone()),
            (None, None) if let Some(lease) = elsewhere.iter().find(useful).cloned() => {
                self.put(Lease { state: LeaseState::Reserved, replaces: Some(contested), ..lease }, None)
            }
            (None, None) if let Some(useless) = elsewhere.first().cloned() => Answer::HoldsUseless(useless),
            (there, _) => {
                let interface = there.as_ref().and_then(|lease| lease.interface);
                let wish = Wish { domain, owner: owner.clone(), interface, within: vec![subnet.into()], avoid };
                match self.next(&wish) {
                    Err(answer) => answer,
                    Ok(address) => {
                        if let Some(lease) = there {
                            self.put(Lease { state: LeaseState::Draining, replaces: None, ..lease }, None);
                        }
                        self.grant(&wish, address, LeaseState::Reserved, Some(contested), None)
                    }
                }
            }
        }
    }

    fn adopt(&mut self, domain: Domain, address: Ipv4Addr, owner: &Owner, interface: Option<IfName>) -> Answer {
        let held = self.held(domain, owner);
        let same = |lease: &&Lease| interface.is_none() || lease.interface.is_none() || lease.interface == interface;
        let row = self.rows.get(&(domain, address)).map(|row| row.lease.clone());
        if !self.can_lease(domain, address) {
            return Answer::NotInPool;
        }
        match (held.iter().find(|lease| lease.address == address), held.iter().find(same), row) {
            (Some(lease), ..) if lease.state == LeaseState::Reserved && lease.replaces.is_none() => {
                self.put(Lease { state: LeaseState::Bound, ..lease.clone() }, None)
            }
            (Some(lease), ..) => Answer::Lease(lease.clone()),
            (None, Some(another), _) => Answer::HoldsAnother(another.clone()),
            (None, None, Some(row)) if !rests(row.state) => Answer::Leased(row),
            (None, None, _) => {
                let wish = Wish { interface, ..Wish::new(domain, owner.clone()) };
                self.grant(&wish, address, LeaseState::Bound, None, None)
            }
        }
    }

    /// Takes the lease that is meant to another state, if it is in one of `from`.
    fn step(
        &mut self,
        which: &Which,
        from: &[LeaseState],
        to: LeaseState,
        quarantine: Option<Seconds>,
    ) -> Option<Answer> {
        let fence = which.fence(&self.given)?;
        let Some(row) = self.rows.get(&(fence.domain, fence.address)).cloned() else {
            return Some(Answer::Fenced(None));
        };
        if !(fence.names(&row.lease) && from.contains(&row.lease.state)) {
            return Some(Answer::Fenced(Some(row.lease)));
        }
        if row.lease.state == to && quarantine.is_none() {
            return Some(Answer::Lease(row.lease));
        }
        let lasts = if to == LeaseState::Cooldown { Some(self.cooldown(&row.lease)) } else { quarantine };
        let answer = self.put(Lease { state: to, replaces: None, ..row.lease.clone() }, lasts);
        if row.lease.state == LeaseState::Cooldown {
            self.keep_resting(&row);
        }
        Some(answer)
    }

    /// A rest that has begun is not cut short by a quarantine.
    fn keep_resting(&mut self, before: &Row) {
        let Some(row) = self.rows.get_mut(&(before.lease.domain, before.lease.address)) else { return };
        (row.lasts, row.until) = (row.lasts.max(before.lasts), row.until.max(before.until));
    }

    fn cooldown(&self, lease: &Lease) -> Seconds {
        let pools = self.pools.values().map(|gives| &gives.pool);
        let mut pools = pools.filter(|pool| pool.domain() == lease.domain && pool.subnet().contains(&lease.address));
        seconds(pools.next().map_or(Pool::COOLDOWN, Pool::cooldown))
    }

    /// Reservations whose time is over drain.
    fn sweep(&mut self) -> Answer {
        let is_late =
            |row: &&Row| row.lease.state == LeaseState::Reserved && row.until.is_some_and(|at| at <= self.now);
        let late: Vec<_> = self.rows.values().filter(is_late).map(|row| row.lease.clone()).collect();
        for lease in late {
            self.put(Lease { state: LeaseState::Draining, ..lease }, None);
        }
        let leases = self.rows.values().map(|row| row.lease.clone());
        Answer::Leases(leases.filter(|lease| lease.state == LeaseState::Draining).collect())
    }

    fn set_pool(&mut self, pool: &Pool) -> Answer {
        let key = (pool.domain(), pool.subnet());
        let overlaps = |(domain, subnet): &&(Domain, Ipv4Net)| {
            *domain == key.0 && *subnet != key.1 && (subnet.contains(&key.1) || key.1.contains(subnet))
        };
        if self.pools.keys().any(|other| overlaps(&other)) {
            return Answer::Overlap;
        }
        let addresses = addresses(pool);
        let old = self.pools.get(&key).map(|gives| gives.addresses.clone()).unwrap_or_default();
        let lost = |row: &&Row| {
            let Lease { domain, address, state, .. } = row.lease;
            domain == key.0 && !rests(state) && old.contains(&address) && !addresses.contains(&address)
        };
        if let Some(row) = self.rows.values().find(lost) {
            return Answer::Leased(row.lease.clone());
        }
        self.pools.insert(key, Gives { pool: pool.clone(), addresses });
        Answer::Done
    }

    fn remove_pool(&mut self, domain: Domain, subnet: Ipv4Net) -> Answer {
        if !self.pools.contains_key(&(domain, subnet)) {
            return Answer::NoSuchPool;
        }
        let used =
            |row: &&Row| row.lease.domain == domain && subnet.contains(&row.lease.address) && !rests(row.lease.state);
        if let Some(row) = self.rows.values().find(used) {
            return Answer::Leased(row.lease.clone());
        }
        self.pools.remove(&(domain, subnet));
        Answer::Done
    }

    fn reboot(&mut self) {
        self.boots += 1;
        self.now = 0;
        for row in self.rows.values_mut() {
            (row.since, row.until) = (0, row.lasts);
        }
    }
}

//! What can be given: pools, addresses that nobody ever had, and addresses that have rested.

use std::net::Ipv4Addr;

use rusqlite::params;

use super::{
    book::Book,
    journal::Entry,
    row::{Bytes, Key, lease, lease_columns, moment, moment_ns, pool, range, span_ns},
};
use crate::{
    allocator::{AllocateError, Pool, PoolError, StoreError, Wish, without},
    net::{Domain, Ipv4Net, Ipv4Range, Lease, LeaseState},
    time::Span,
};

pub(super) const POOLS: &str =
    "SELECT domain, network, prefix, gateway, cooldown_ns FROM pool WHERE ?1 IS NULL OR domain = ?1";
pub(super) const EXCLUDED: &str = "SELECT first, last FROM excluded WHERE domain = ?1 AND network = ?2 ORDER BY first";
pub(super) const FRESH: &str = "SELECT first, last FROM fresh WHERE domain = ?1 ORDER BY first";
pub(super) const FRESH_BELOW: &str =
    "SELECT first, last FROM fresh WHERE domain = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1";
pub(super) const RESTED: &str = "SELECT address FROM lease
    WHERE domain = ?1 AND state IN ('cooldown', 'quarantined') AND until_ns <= ?2 ORDER BY until_ns, changed";
pub(super) const RESTING: &str = "SELECT address, until_ns FROM lease
    WHERE domain = ?1 AND state IN ('cooldown', 'quarantined') AND until_ns > ?2 ORDER BY until_ns, changed";
const WITHIN: &str =
    concat!("SELECT ", lease_columns!(), " FROM lease WHERE domain = ?1 AND address BETWEEN ?2 AND ?3");

impl Book<'_> {
    pub(super) fn pools(&self, domain: Domain) -> Result<Vec<Pool>, StoreError> {
        let mut pools = self.all(POOLS, [Key(domain)], pool)?;
        for pool in &mut pools {
            pool.excluded = self.all(EXCLUDED, params![Key(domain), Bytes(pool.subnet.network())], range)?;
        }
        Ok(pools)
    }

    /// The address that is next to be given: the lowest that nobody ever had, else the one that has rested longest.
    ///
    /// Takes one step for the answer and one for each address before it that is not wished for.
    pub(super) fn next_free(&self, wish: &Wish) -> Result<Option<Ipv4Addr>, StoreError> {
        match self.lowest_fresh(wish)? {
            None => self.longest_rested(wish),
            fresh => Ok(fresh),
        }
    }

    fn lowest_fresh(&self, wish: &Wish) -> Result<Option<Ipv4Addr>, StoreError> {
        for within in wish.ranges() {
            let mut runs = self.transaction().prepare_cached(FRESH)?;
            let mut runs = runs.query([Key(wish.domain)])?;
            while let Some(run) = runs.next()? {
                let mut wished = range(run)?.intersection(within).into_iter().flat_map(Ipv4Range::bits);
                if let Some(address) = wished.find(|address| !wish.avoid.contains(&Ipv4Addr::from_bits(*address))) {
                    return Ok(Some(Ipv4Addr::from_bits(address)));
                }
            }
        }
        Ok(None)
    }

    fn longest_rested(&self, wish: &Wish) -> Result<Option<Ipv4Addr>, StoreError> {
        let pools = self.pools(wish.domain)?;
        let mut rows = self.transaction().prepare_cached(RESTED)?;
        let mut rows = rows.query(params![Key(wish.domain), moment_ns(self.clock.now())])?;
        while let Some(row) = rows.next()? {
            let Bytes(address) = row.get(0)?;
            if wish.takes(address) && can_lease(&pools, address) {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// Why nothing was free. To be asked when [`next_free`](Self::next_free) had no answer: what is free then is avoided.
    pub(super) fn shortage(&self, wish: &Wish) -> Result<AllocateError, StoreError> {
        let (domain, pools) = (wish.domain, self.pools(wish.domain)?);
        if pools.is_empty() {
            return Ok(AllocateError::NoPool(domain));
        }
        if let [only] = wish.within[..]
            && only.count() == 1
            && let Some(taken) = self.on_address(domain, only.first())?.filter(|row| !rests(row))
        {
            return Ok(AllocateError::Leased(taken.into()));
        }
        if !wish.within.is_empty() && !wish.within.iter().any(|within| gives(&pools, *within)) {
            return Ok(AllocateError::NotInPool { domain, within: wish.within.clone() });
        }
        Ok(AllocateError::Exhausted {
            domain,
            ready_in: self.ready_in(wish, &pools)?,
            in_use: self.avoided(wish, &pools)?,
        })
    }

    fn ready_in(&self, wish: &Wish, pools: &[Pool]) -> Result<Option<Span>, StoreError> {
        let now = self.clock.now();
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, moment(row, 1)?));
        let resting = self.all(RESTING, params![Key(wish.domain), moment_ns(now)], read)?;
        let mut wished = resting.into_iter().filter(|(Bytes(at), _)| wish.takes(*at) && can_lease(pools, *at));
        Ok(wished.next().map(|(_, ready)| ready.since(now)))
    }

    fn avoided(&self, wish: &Wish, pools: &[Pool]) -> Result<u64, StoreError> {
        let fresh = self.all(FRESH, [Key(wish.domain)], range)?;
        let rested = self.all(RESTED, params![Key(wish.domain), moment_ns(self.clock.now())], |row| row.get(0))?;
        let rested = rested.into_iter().filter(|Bytes(at)| can_lease(pools, *at)).map(|Bytes(at)| Ipv4Range::from(at));
        let free: Vec<_> = fresh.into_iter().chain(rested).collect();
        let wished = wish.ranges().flat_map(|within| free.iter().filter_map(move |run| run.intersection(within)));
        Ok(wished.map(Ipv4Range::count).sum())
    }

    /// Makes `pool`, or alters the one with the same subnet.
    pub(super) fn set_pool(&self, pool: &Pool) -> Result<(), PoolError> {
        self.run("INSERT INTO domain VALUES (?1, 0) ON CONFLICT DO NOTHING", [Key(pool.domain)])?;
        match self.pools(pool.domain)?.iter().find(|old| overlap(&old.subnet, &pool.subnet)) {
            Some(old) if old == pool => Ok(()),
            Some(&Pool { domain, subnet: other, .. }) if other != pool.subnet => {
                Err(PoolError::Overlap { domain, subnet: pool.subnet, other })
            }
            old => {
                let lost = self.rows_within(pool.domain, pool.subnet)?.into_iter().find(|row| {
                    !rests(row) && !pool.can_lease(row.address) && old.is_some_and(|old| old.can_lease(row.address))
                });
                lost.map_or(Ok(()), |lease| Err(PoolError::Leased(lease.into())))?;
                self.put_pool(pool, if old.is_some() { "was altered" } else { "was made" })?;
                Ok(self.refill(pool)?)
            }
        }
    }

    /// Removes the pool of `subnet`, if nothing of it is leased.
    pub(super) fn drop_pool(&self, domain: Domain, subnet: Ipv4Net) -> Result<(), PoolError> {
        if !self.pools(domain)?.iter().any(|pool| pool.subnet == subnet) {
            return Err(PoolError::NoSuchPool { domain, subnet });
        }
        if let Some(lease) = self.rows_within(domain, subnet)?.into_iter().find(|row| !rests(row)) {
            return Err(PoolError::Leased(lease.into()));
        }
        self.clear_fresh(domain, subnet)?;
        self.run("DELETE FROM pool WHERE domain = ?1 AND network = ?2", params![Key(domain), Bytes(subnet.network())])?;
        Ok(self.note_pool(domain, subnet, "was removed")?)
    }

    fn put_pool(&self, pool: &Pool, reason: &str) -> Result<(), StoreError> {
        let (key, network) = (Key(pool.domain), Bytes(pool.subnet.network()));
        self.run(
            "INSERT INTO pool VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET gateway = excluded.gateway, cooldown_ns = excluded.cooldown_ns",
            params![key, network, pool.subnet.prefix_len(), pool.gateway.map(Bytes), span_ns(pool.cooldown)],
        )?;
        self.run("DELETE FROM excluded WHERE domain = ?1 AND network = ?2", params![key, network])?;
        for range in &pool.excluded {
            let (first, last) = (Bytes(range.first()), Bytes(range.last()));
            self.run("INSERT INTO excluded VALUES (?1, ?2, ?3, ?4)", params![key, network, first, last])?;
        }
        self.note_pool(pool.domain, pool.subnet, reason)
    }

    fn note_pool(&self, domain: Domain, subnet: Ipv4Net, reason: &str) -> Result<(), StoreError> {
        let reason = format!("{subnet} {reason}");
        let (domain, address) = (Some(domain), Some(subnet.network()));
        self.write_journal(&Entry { op: "pool", domain, address, reason: &reason, ..Entry::default() })?;
        Ok(())
    }

    /// Writes down which addresses of `pool` nobody ever had: those that can be leased and have no row.
    fn refill(&self, pool: &Pool) -> Result<(), StoreError> {
        self.clear_fresh(pool.domain, pool.subnet)?;
        let had: Vec<_> = self.rows_within(pool.domain, pool.subnet)?.into_iter().map(|row| row.address).collect();
        let mut gaps = pool.ranges().into_iter().flat_map(|run| gaps(run, &had));
        gaps.try_for_each(|gap| self.add_fresh(pool.domain, gap))
    }

    fn clear_fresh(&self, domain: Domain, subnet: Ipv4Net) -> Result<(), StoreError> {
        self.run(
            "DELETE FROM fresh WHERE domain = ?1 AND first BETWEEN ?2 AND ?3",
            params![Key(domain), Bytes(subnet.network()), Bytes(subnet.broadcast())],
        )
    }

    fn rows_within(&self, domain: Domain, subnet: Ipv4Net) -> Result<Vec<Lease>, StoreError> {
        self.all(WITHIN, params![Key(domain), Bytes(subnet.network()), Bytes(subnet.broadcast())], lease)
    }

    /// Lets `run` be given, as addresses that nobody ever had.
    fn add_fresh(&self, domain: Domain, run: Ipv4Range) -> Result<(), StoreError> {
        let (first, last) = (Bytes(run.first()), Bytes(run.last()));
        self.run("INSERT INTO fresh VALUES (?1, ?2, ?3)", params![Key(domain), first, last])
    }

    /// Removes the row of an address that has rested or is kept back.
    pub(super) fn clear_rested(&self, domain: Domain, address: Ipv4Addr) -> Result<(), StoreError> {
        self.run(
            "DELETE FROM lease WHERE domain = ?1 AND address = ?2 AND state IN ('cooldown', 'quarantined')",
            params![Key(domain), Bytes(address)],
        )
    }

    /// Takes `address` out of its run of those that nobody ever had.
    pub(super) fn take_fresh(&self, domain: Domain, address: Ipv4Addr) -> Result<(), StoreError> {
        let (key, at) = (Key(domain), Bytes(address));
        match self.one(FRESH_BELOW, params![key, at], range)? {
            Some(run) if run.contains(address) => {
                let first = Bytes(run.first());
                self.run("DELETE FROM fresh WHERE domain = ?1 AND first = ?2", params![key, first])?;
                without(run, address.into()).try_for_each(|rest| self.add_fresh(domain, rest))
            }
            _ => Ok(()),
        }
    }
}

impl Wish {
    fn ranges(&self) -> impl Iterator<Item = Ipv4Range> {
        let anywhere = self.within.is_empty().then_some(Ipv4Range::ALL);
        self.within.iter().copied().chain(anywhere)
    }

    fn takes(&self, address: Ipv4Addr) -> bool {
        !self.avoid.contains(&address) && self.reaches(address)
    }

    /// Whether `address` is one of those that are wished for, used or not.
    pub(super) fn reaches(&self, address: Ipv4Addr) -> bool {
        self.ranges().any(|within| within.contains(address))
    }
}

/// Whether nobody has to do anything for the row's address to become free.
fn rests(row: &Lease) -> bool {
    matches!(row.state, LeaseState::Cooldown | LeaseState::Quarantined)
}

fn can_lease(pools: &[Pool], address: Ipv4Addr) -> bool {
    pools.iter().any(|pool| pool.can_lease(address))
}

fn gives(pools: &[Pool], within: Ipv4Range) -> bool {
    pools.iter().flat_map(Pool::ranges).any(|run| run.intersection(within).is_some())
}

/// What is left of `run` without the addresses of `had`, which are in order.
fn gaps(run: Ipv4Range, had: &[Ipv4Addr]) -> Vec<Ipv4Range> {
    let (first, last) = run.bits().into_inner();
    let had = had.iter().filter(|address| run.contains(**address)).map(|address| u64::from(address.to_bits()));
    let mut start = u64::from(first);
    let ends = had.chain([u64::from(last) + 1]);
    ends.filter_map(|end| {
        let gap = start..end;
        start = end + 1;
        let bound = |bits: u64| u32::try_from(bits).ok().map(Ipv4Addr::from_bits);
        Ipv4Range::new(bound(gap.start)?, bound(gap.end.checked_sub(1)?)?).ok()
    })
    .collect()
}

/// Two subnets have an address in common only if one of them lies within the other.
fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(other) || other.contains(one)
}

//! The book's rows, within one transaction.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OptionalExtension as _, Params, Row, Transaction, TransactionBehavior, params};

use super::row::{Key, address, generation, lease, lease_columns, moment, moment_ns, number, pool, span_ns};
use crate::{
    allocator::{Clock, Fence, Pool, StoreError},
    net::{Domain, Generation, Ipv4Net, Lease, LeaseState, Owner},
    time::Span,
};

/// How many entries the journal keeps. It must not be what fills the disk: without room there are no leases.
const JOURNAL_LEN: i64 = 100_000;

/// The book, open for one change. What is not committed has not happened.
pub(super) struct Book<'a> {
    tx: Transaction<'a>,
    clock: &'a Clock,
    actor: &'a str,
}

/// A line of the journal, but for who writes it and when. Absent states: free before, unchanged after.
#[derive(Default)]
pub(super) struct Entry<'a> {
    pub(super) op: &'static str,
    pub(super) domain: Option<Domain>,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) owner: Option<&'a Owner>,
    pub(super) generation: Option<Generation>,
    pub(super) from: Option<LeaseState>,
    pub(super) to: Option<LeaseState>,
    pub(super) reason: &'a str,
}

/// Why nothing can be given.
pub(super) struct Shortage {
    pub(super) ready_in: Option<Span>,
    pub(super) in_use: u64,
}

pub(super) const LEASES: &str = concat!("SELECT ", lease_columns!(), " FROM lease");
pub(super) const LEASES_OF: &str = concat!("SELECT ", lease_columns!(), " FROM lease WHERE domain = ?1");
pub(super) const MOVING: &str = concat!("SELECT ", lease_columns!(), " FROM lease WHERE replaces IS NOT NULL");
pub(super) const DRAINING: &str = concat!("SELECT ", lease_columns!(), " FROM lease WHERE state = 'draining'");
pub(super) const ON_ADDRESS: &str =
    concat!("SELECT ", lease_columns!(), " FROM lease WHERE domain = ?1 AND address = ?2");
pub(super) const HELD: &str = concat!(
    "SELECT ",
    lease_columns!(),
    " FROM lease WHERE domain = ?1 AND owner = ?2 AND state IN ('reserved', 'bound')"
);
pub(super) const FRESH: &str = "SELECT first, last FROM fresh WHERE domain = ?1 ORDER BY first";
pub(super) const FRESH_BELOW: &str =
    "SELECT first, last FROM fresh WHERE domain = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1";
pub(super) const RESTED: &str = "SELECT address FROM lease
    WHERE domain = ?1 AND state = 'cooldown' AND ready_ns <= ?2 ORDER BY ready_ns, changed";
pub(super) const RESTING: &str = "SELECT address, ready_ns FROM lease
    WHERE domain = ?1 AND state = 'cooldown' AND ready_ns > ?2 ORDER BY ready_ns, changed";

impl<'a> Book<'a> {
    pub(super) fn open(conn: &'a mut Connection, clock: &'a Clock, actor: &'a str) -> Result<Self, StoreError> {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(Self { tx, clock, actor })
    }

    pub(super) fn transaction(&self) -> &Transaction<'a> {
        &self.tx
    }

    pub(super) fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit()?)
    }

    /// After a reboot every cooldown begins anew: how long the machine was off is known only to the wall clock.
    pub(super) fn follow_boot(&self) -> Result<(), StoreError> {
        let known: Option<String> = self.one("SELECT id FROM boot", [], |row| row.get(0))?;
        if known.as_deref() == Some(self.clock.boot()) {
            return Ok(());
        }
        self.run("INSERT INTO boot VALUES (1, ?1) ON CONFLICT DO UPDATE SET id = excluded.id", [self.clock.boot()])?;
        self.run("UPDATE lease SET ready_ns = ?1 + rest_ns WHERE state = 'cooldown'", [moment_ns(self.clock.now())])?;
        self.journal(&Entry { op: "boot", reason: "another boot: every cooldown begins anew", ..Entry::default() })?;
        Ok(())
    }

    /// What `owner` holds, reserved or bound.
    pub(super) fn held(&self, domain: Domain, owner: &Owner) -> Result<Option<Lease>, StoreError> {
        self.one(HELD, params![Key(domain), owner.as_str()], lease)
    }

    /// The row of `at`, whatever its state.
    pub(super) fn on_address(&self, domain: Domain, at: Ipv4Addr) -> Result<Option<Lease>, StoreError> {
        self.one(ON_ADDRESS, params![Key(domain), at.to_bits()], lease)
    }

    pub(super) fn pools(&self, domain: Domain) -> Result<Vec<Pool>, StoreError> {
        let sql = "SELECT domain, network, prefix, gateway, cooldown_ns FROM pool WHERE domain = ?1";
        let mut rows = self.tx.prepare_cached(sql)?;
        Ok(rows.query_map([Key(domain)], pool)?.collect::<Result<_, _>>()?)
    }

    /// The address that is next to be given: the lowest that nobody ever had, else the one that has rested longest.
    ///
    /// Takes one step for the answer and one for each avoided address that comes before it.
    pub(super) fn next_free(
        &self,
        domain: Domain,
        within: Option<Ipv4Net>,
        avoid: &BTreeSet<Ipv4Addr>,
    ) -> Result<Option<Ipv4Addr>, StoreError> {
        match self.lowest_fresh(domain, within, avoid)? {
            None => self.unavoided(RESTED, domain, within, avoid, |row| address(row, 0)),
            fresh => Ok(fresh),
        }
    }

    fn lowest_fresh(
        &self,
        domain: Domain,
        within: Option<Ipv4Net>,
        avoid: &BTreeSet<Ipv4Addr>,
    ) -> Result<Option<Ipv4Addr>, StoreError> {
        let (least, most) = within.map_or((0, u32::MAX), |net| (net.network().to_bits(), net.broadcast().to_bits()));
        let mut runs = self.tx.prepare_cached(FRESH)?;
        let mut runs = runs.query([Key(domain)])?;
        while let Some(run) = runs.next()? {
            let (first, last): (u32, u32) = (run.get(0)?, run.get(1)?);
            let mut run = (first.max(least)..=last.min(most)).map(Ipv4Addr::from_bits);
            if let Some(address) = run.find(|address| !avoid.contains(address)) {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// The first row of `sql` whose address is not to be avoided.
    fn unavoided<T>(
        &self,
        sql: &str,
        domain: Domain,
        within: Option<Ipv4Net>,
        avoid: &BTreeSet<Ipv4Addr>,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let mut rows = self.tx.prepare_cached(sql)?;
        let mut rows = rows.query(params![Key(domain), moment_ns(self.clock.now())])?;
        while let Some(row) = rows.next()? {
            let address = address(row, 0)?;
            if !avoid.contains(&address) && within.is_none_or(|within| within.contains(&address)) {
                return Ok(Some(read(row)?));
            }
        }
        Ok(None)
    }

    /// To be asked when [`next_free`](Self::next_free) had no answer: what is free then is all avoided.
    pub(super) fn shortage(&self, domain: Domain, avoid: &BTreeSet<Ipv4Addr>) -> Result<Shortage, StoreError> {
        let now = self.clock.now();
        let ready = self.unavoided(RESTING, domain, None, avoid, |row| moment(row, 1))?;
        let unleased: i64 = self.tx.query_one(
            "SELECT (SELECT coalesce(sum(last - first + 1), 0) FROM fresh WHERE domain = ?1)
                  + (SELECT count(*) FROM lease WHERE domain = ?1 AND state = 'cooldown' AND ready_ns <= ?2)",
            params![Key(domain), moment_ns(now)],
            |row| row.get(0),
        )?;
        Ok(Shortage { ready_in: ready.map(|ready| ready.since(now)), in_use: unleased.unsigned_abs() })
    }

    /// Writes a new lease, of the domain's next generation, on an address that is fresh or has rested.
    ///
    /// On any other the row that is there makes the insertion fail.
    pub(super) fn grant(&self, op: &'static str, mut lease: Lease, reason: &str) -> Result<Lease, StoreError> {
        let from = self.on_address(lease.domain, lease.address)?.map(|row| row.state);
        self.take(lease.domain, lease.address)?;
        lease.generation = self.next_generation(lease.domain)?;
        let changed = self.journal(&Entry { reason, ..Entry::change(op, from, &lease) })?;
        self.run(
            "INSERT INTO lease (domain, address, owner, generation, state, replaces, changed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                Key(lease.domain),
                lease.address.to_bits(),
                lease.owner.as_str(),
                number(lease.generation),
                lease.state.as_str(),
                lease.replaces.map(Ipv4Addr::to_bits),
                changed
            ],
        )?;
        Ok(lease)
    }

    /// Takes the lease from state `from` to that in which it is given here, and returns it.
    pub(super) fn turn(
        &self,
        op: &'static str,
        from: LeaseState,
        lease: Lease,
        reason: &str,
    ) -> Result<Lease, StoreError> {
        let changed = self.journal(&Entry { reason, ..Entry::change(op, Some(from), &lease) })?;
        let rest = self.rest(&lease)?;
        self.run(
            "UPDATE lease SET state = ?4, replaces = ?5, rest_ns = ?6, ready_ns = ?7, changed = ?8
             WHERE domain = ?1 AND address = ?2 AND generation = ?3",
            params![
                Key(lease.domain),
                lease.address.to_bits(),
                number(lease.generation),
                lease.state.as_str(),
                lease.replaces.map(Ipv4Addr::to_bits),
                rest.map(span_ns),
                rest.map(|rest| moment_ns(self.clock.now() + rest)),
                changed
            ],
        )?;
        Ok(lease)
    }

    /// How long `lease` has to rest, if it is to rest.
    fn rest(&self, lease: &Lease) -> Result<Option<Span>, StoreError> {
        if lease.state != LeaseState::Cooldown {
            return Ok(None);
        }
        let pools = self.pools(lease.domain)?;
        let pool = pools.iter().find(|pool| pool.subnet.contains(&lease.address));
        pool.map(|pool| Some(pool.cooldown)).ok_or(rusqlite::Error::QueryReturnedNoRows.into())
    }

    /// Notes that a change came for a lease that is no more, or that is past it.
    pub(super) fn fenced(
        &self,
        op: &'static str,
        fence: &Fence,
        current: Option<&Lease>,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.journal(&Entry {
            op,
            domain: Some(fence.domain),
            address: Some(fence.address),
            owner: Some(&fence.owner),
            generation: Some(fence.generation),
            from: current.map(|row| row.state),
            to: None,
            reason,
        })?;
        Ok(())
    }

    pub(super) fn add_domain(&self, domain: Domain) -> Result<(), StoreError> {
        self.run("INSERT INTO domain VALUES (?1, 0) ON CONFLICT DO NOTHING", [Key(domain)])
    }

    /// Writes `pool`, in the place of one with the same subnet if there is one.
    pub(super) fn put_pool(&self, pool: &Pool, reason: &str) -> Result<(), StoreError> {
        self.run(
            "INSERT INTO pool VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET gateway = excluded.gateway, cooldown_ns = excluded.cooldown_ns",
            params![
                Key(pool.domain),
                pool.subnet.network().to_bits(),
                pool.subnet.prefix_len(),
                pool.gateway.map(Ipv4Addr::to_bits),
                span_ns(pool.cooldown)
            ],
        )?;
        let (domain, address) = (Some(pool.domain), Some(pool.subnet.network()));
        self.journal(&Entry { op: "pool", domain, address, reason, ..Entry::default() })?;
        Ok(())
    }

    /// Lets `first` to `last` be given, as addresses that nobody ever had.
    pub(super) fn add_fresh(&self, domain: Domain, first: u32, last: u32) -> Result<(), StoreError> {
        self.run("INSERT INTO fresh VALUES (?1, ?2, ?3)", params![Key(domain), first, last])
    }

    /// Takes `address` from those that can be given: out of its run of fresh ones, or the row of the lease that rests.
    pub(super) fn take(&self, domain: Domain, address: Ipv4Addr) -> Result<(), StoreError> {
        let (key, address) = (Key(domain), address.to_bits());
        self.run("DELETE FROM lease WHERE domain = ?1 AND address = ?2 AND state = 'cooldown'", params![key, address])?;
        let run = self.one(FRESH_BELOW, params![key, address], |row| Ok((row.get(0)?, row.get(1)?)))?;
        match run {
            Some((first, last)) if (first..=last).contains(&address) => self.split(domain, first, address, last),
            _ => Ok(()),
        }
    }

    fn split(&self, domain: Domain, first: u32, taken: u32, last: u32) -> Result<(), StoreError> {
        self.run("DELETE FROM fresh WHERE domain = ?1 AND first = ?2", params![Key(domain), first])?;
        if first < taken {
            self.add_fresh(domain, first, taken - 1)?;
        }
        if taken < last {
            self.add_fresh(domain, taken + 1, last)?;
        }
        Ok(())
    }

    fn next_generation(&self, domain: Domain) -> Result<Generation, StoreError> {
        let sql = "UPDATE domain SET generation = generation + 1 WHERE domain = ?1 RETURNING generation";
        Ok(self.tx.prepare_cached(sql)?.query_one([Key(domain)], |row| generation(row, 0))?)
    }

    /// Writes the entry, lets the oldest go, and returns its number.
    fn journal(&self, entry: &Entry<'_>) -> Result<i64, StoreError> {
        self.run(
            "INSERT INTO journal (wall_ms, boot, boot_ns, actor, op, domain, address, owner, generation, from_state,
                                  to_state, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                unix_ms(),
                self.clock.boot(),
                moment_ns(self.clock.now()),
                self.actor,
                entry.op,
                entry.domain.map(Key),
                entry.address.map(Ipv4Addr::to_bits),
                entry.owner.map(Owner::as_str),
                entry.generation.map(number),
                entry.from.map(LeaseState::as_str),
                entry.to.map(LeaseState::as_str),
                entry.reason
            ],
        )?;
        let number = self.tx.last_insert_rowid();
        self.run("DELETE FROM journal WHERE entry <= ?1", [number - JOURNAL_LEN])?;
        Ok(number)
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<(), StoreError> {
        self.tx.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.tx.prepare_cached(sql)?.query_one(params, read).optional()?)
    }
}

impl<'a> Entry<'a> {
    /// The entry for a lease that comes out of state `from` as it is given here.
    fn change(op: &'static str, from: Option<LeaseState>, lease: &'a Lease) -> Self {
        Self {
            op,
            domain: Some(lease.domain),
            address: Some(lease.address),
            owner: Some(&lease.owner),
            generation: Some(lease.generation),
            from,
            to: Some(lease.state),
            reason: "",
        }
    }
}

fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{super::schema, *};

    /// How SQLite goes about `sql`, step by step.
    fn plan(conn: &Connection, sql: &str) -> Vec<String> {
        let mut rows = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec![rusqlite::types::Null; rows.parameter_count()];
        let steps = rows.query_map(rusqlite::params_from_iter(parameters), |row| row.get(3)).unwrap();
        steps.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn whatever_an_allocation_asks_is_found_by_an_index_and_in_order() {
        let mut conn = Connection::open_in_memory().unwrap();
        let tx = conn.transaction().unwrap();
        schema::migrate(&tx).unwrap();
        for sql in [HELD, ON_ADDRESS, FRESH, FRESH_BELOW, RESTED, RESTING] {
            let plan = plan(&tx, sql);
            assert!(matches!(&plan[..], [step] if step.starts_with("SEARCH ")), "{sql}: {plan:?}");
        }
        assert_eq!(plan(&tx, RESTED), ["SEARCH lease USING COVERING INDEX resting (domain=? AND ready_ns<?)"]);
        assert_eq!(plan(&tx, HELD), ["SEARCH lease USING INDEX held (domain=? AND owner=?)"]);
        assert!(plan(&tx, MOVING)[0].contains("INDEX moving"));
    }
}

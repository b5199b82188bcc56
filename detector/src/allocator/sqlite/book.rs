//! The book's rows, within one transaction.

use std::net::Ipv4Addr;

use rusqlite::{Connection, OptionalExtension as _, Params, Row, Transaction, TransactionBehavior, params};

use super::{
    journal::Entry,
    row::{Bytes, Interface, Key, generation, lease, lease_columns, moment_ns, number, span_ns},
};
use crate::{
    allocator::{Clock, Fence, Pool, Quarantine, StoreError},
    net::{Domain, Generation, Lease, LeaseState, Owner},
    time::Span,
};

/// The book, open for one change. What is not committed has not happened.
pub(super) struct Book<'a> {
    tx: Transaction<'a>,
    pub(super) clock: &'a Clock,
    pub(super) actor: &'a str,
}

/// How long a lease stays as it is.
#[derive(Clone, Copy)]
pub(super) enum Stay<'a> {
    /// Until somebody changes it.
    Open,
    /// A reservation, until its deadline.
    Reserved(Span),
    /// Kept back.
    Quarantined(&'a Quarantine),
}

pub(super) const ON_ADDRESS: &str =
    concat!("SELECT ", lease_columns!(), " FROM lease WHERE domain = ?1 AND address = ?2");
pub(super) const HELD: &str = concat!(
    "SELECT ",
    lease_columns!(),
    " FROM lease INDEXED BY held WHERE domain = ?1 AND owner = ?2 AND state IN ('reserved', 'bound')"
);
pub(super) const LATE: &str = concat!(
    "SELECT ",
    lease_columns!(),
    " FROM lease WHERE state = 'reserved' AND until_ns IS NOT NULL AND until_ns <= ?1"
);

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

    /// After a reboot every deadline and cooldown begins anew: how long the machine was off is known only to the wall
    /// clock.
    pub(super) fn follow_boot(&self) -> Result<(), StoreError> {
        let known: Option<String> = self.one("SELECT id FROM boot", [], |row| row.get(0))?;
        if known.as_deref() == Some(self.clock.boot()) {
            return Ok(());
        }
        let now = moment_ns(self.clock.now());
        self.run("INSERT INTO boot VALUES (1, ?1) ON CONFLICT DO UPDATE SET id = excluded.id", [self.clock.boot()])?;
        self.run("UPDATE lease SET until_ns = ?1 + lasts_ns WHERE lasts_ns IS NOT NULL", [now])?;
        self.run("UPDATE lease SET since_ns = 0", [])?;
        let reason = "another boot: every deadline and cooldown begins anew";
        self.write_journal(&Entry { op: "boot", reason, ..Entry::default() })?;
        Ok(())
    }

    /// What `owner` holds, reserved or bound, for any of its interfaces.
    pub(super) fn held(&self, domain: Domain, owner: &Owner) -> Result<Vec<Lease>, StoreError> {
        self.all(HELD, params![Key(domain), owner.as_str()], lease)
    }

    /// The row of `at`, whatever its state.
    pub(super) fn on_address(&self, domain: Domain, at: Ipv4Addr) -> Result<Option<Lease>, StoreError> {
        self.one(ON_ADDRESS, params![Key(domain), Bytes(at)], lease)
    }

    /// Reservations that were not confirmed in time drain: whoever made them may still be about to use the address.
    pub(super) fn drain_late(&self) -> Result<(), StoreError> {
        for late in self.all(LATE, [moment_ns(self.clock.now())], lease)? {
            let (from, drained) = (late.state, Lease { state: LeaseState::Draining, ..late });
            self.turn("expire", from, drained, "nobody confirmed it in time", Stay::Open)?;
        }
        Ok(())
    }

    /// Writes a new lease, of the domain's next generation, on an address that is fresh, has rested or is kept back.
    ///
    /// On any other the row that is there makes the insertion fail.
    pub(super) fn grant(
        &self,
        op: &'static str,
        mut lease: Lease,
        reason: &str,
        stay: Stay<'_>,
    ) -> Result<Lease, StoreError> {
        let from = self.on_address(lease.domain, lease.address)?.map(|row| row.state);
        match from {
            Some(_) => self.clear_rested(lease.domain, lease.address)?,
            None => self.take_fresh(lease.domain, lease.address)?,
        }
        lease.generation = self.next_generation(lease.domain)?;
        let changed = self.write_journal(&Entry { reason, ..Entry::change(op, from, &lease) })?;
        let lasts = self.lasts(&lease, stay)?;
        let now = self.clock.now();
        self.run(
            "INSERT INTO lease (domain, address, owner, interface, generation, state, replaces, lasts_ns, until_ns,
                                since_ns, changed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                Key(lease.domain),
                Bytes(lease.address),
                lease.owner.as_str(),
                Interface(lease.interface),
                number(lease.generation),
                lease.state.as_str(),
                lease.replaces.map(Bytes),
                lasts.map(span_ns),
                lasts.map(|lasts| moment_ns(now + lasts)),
                moment_ns(now),
                changed
            ],
        )?;
        Ok(lease)
    }

    /// Takes the lease from state `from` to that in which it is given here, and returns it. A rest that has begun is not
    /// cut short by a quarantine.
    pub(super) fn turn(
        &self,
        op: &'static str,
        from: LeaseState,
        lease: Lease,
        reason: &str,
        stay: Stay<'_>,
    ) -> Result<Lease, StoreError> {
        let changed = self.write_journal(&Entry { reason, ..Entry::change(op, Some(from), &lease) })?;
        let lasts = self.lasts(&lease, stay)?;
        let now = self.clock.now();
        let seen = if let Stay::Quarantined(seen) = stay { Some(seen) } else { None };
        self.run(
            "UPDATE lease SET since_ns = iif(state = ?4, since_ns, ?5), state = ?4, replaces = ?6,
                              lasts_ns = iif(state = 'cooldown', max(lasts_ns, ?7), ?7),
                              until_ns = iif(state = 'cooldown', max(until_ns, ?8), ?8),
                              mac = ?9, reason = ?10, changed = ?11
             WHERE domain = ?1 AND address = ?2 AND generation = ?3",
            params![
                Key(lease.domain),
                Bytes(lease.address),
                number(lease.generation),
                lease.state.as_str(),
                moment_ns(now),
                lease.replaces.map(Bytes),
                lasts.map(span_ns),
                lasts.map(|lasts| moment_ns(now + lasts)),
                seen.map(|seen| seen.mac.0),
                seen.map(|seen| &seen.reason),
                changed
            ],
        )?;
        Ok(lease)
    }

    /// How long `lease` stays in its state, if not until somebody changes it.
    fn lasts(&self, lease: &Lease, stay: Stay<'_>) -> Result<Option<Span>, StoreError> {
        match (lease.state, stay) {
            (LeaseState::Cooldown, _) => self.rest(lease).map(Some),
            (LeaseState::Reserved, Stay::Reserved(span)) => Ok(Some(span)),
            (LeaseState::Quarantined, Stay::Quarantined(quarantine)) => Ok(Some(quarantine.lasts)),
            _ => Ok(None),
        }
    }

    fn rest(&self, lease: &Lease) -> Result<Span, StoreError> {
        let pools = self.pools(lease.domain)?;
        let pool = pools.iter().find(|pool| pool.subnet.contains(&lease.address));
        Ok(pool.map_or(Pool::COOLDOWN, |pool| pool.cooldown))
    }

    /// Notes and counts that a change came for a lease that is no more, or that is past it.
    pub(super) fn fenced(
        &self,
        op: &'static str,
        fence: &Fence,
        current: Option<&Lease>,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.write_journal(&Entry {
            op,
            domain: Some(fence.domain),
            address: Some(fence.address),
            owner: Some(&fence.owner),
            interface: None,
            generation: Some(fence.generation),
            from: current.map(|row| row.state),
            to: None,
            reason,
        })?;
        self.run("INSERT INTO fenced VALUES (?1, 1) ON CONFLICT DO UPDATE SET count = count + 1", [op])
    }

    fn next_generation(&self, domain: Domain) -> Result<Generation, StoreError> {
        let sql = "UPDATE domain SET generation = generation + 1 WHERE domain = ?1 RETURNING generation";
        Ok(self.tx.prepare_cached(sql)?.query_one([Key(domain)], |row| generation(row, 0))?)
    }

    pub(super) fn run(&self, sql: &str, params: impl Params) -> Result<(), StoreError> {
        self.tx.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.tx.prepare_cached(sql)?.query_one(params, read).optional()?)
    }

    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        Ok(self.tx.prepare_cached(sql)?.query_map(params, read)?.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            free::{FRESH, FRESH_BELOW, RESTED, RESTING},
            incidents::{AGED, LATELY, ONE, SURPLUS, UNFINISHED},
            schema, *,
        },
        *,
    };

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
        for sql in [HELD, ON_ADDRESS, FRESH, FRESH_BELOW, RESTED, RESTING, LATE] {
            let plan = plan(&tx, sql);
            assert!(matches!(&plan[..], [step] if step.starts_with("SEARCH ")), "{sql}: {plan:?}");
        }
        assert_eq!(plan(&tx, RESTED), ["SEARCH lease USING INDEX resting (domain=? AND until_ns<?)"]);
        assert_eq!(plan(&tx, HELD), ["SEARCH lease USING INDEX held (domain=? AND owner=?)"]);
        assert!(plan(&tx, MOVING)[0].contains("INDEX moving"));
        assert!(plan(&tx, DRAINING)[0].contains("INDEX drained"));
        assert!(plan(&tx, LIFE)[0].contains("INDEX life"), "{:?}", plan(&tx, LIFE));
        assert_eq!(plan(&tx, ONE), ["SEARCH incident USING INTEGER PRIMARY KEY (rowid=?)"]);
        assert_eq!(plan(&tx, LATELY), ["SCAN incident"], "backwards, and no further than asked");
        assert_eq!(plan(&tx, UNFINISHED), ["SCAN incident USING INDEX unfinished"]);
        assert_eq!(plan(&tx, AGED), ["SEARCH incident USING INDEX aging (updated_ms<?)"]);
        assert!(plan(&tx, SURPLUS).contains(&"SCAN incident USING COVERING INDEX finished".to_owned()));
    }
}

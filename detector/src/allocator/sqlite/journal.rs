//! The journal: every change, and every change that came too late.

use std::{
    net::Ipv4Addr,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::params;

use super::{
    book::Book,
    row::{Bytes, Interface, Key, moment_ns, number},
};
use crate::{
    allocator::StoreError,
    net::{Domain, Generation, IfName, Lease, LeaseState, Owner},
};

/// How many entries are kept. The journal must not be what fills the disk: without room there are no leases.
const LEN: i64 = 100_000;

/// A line of the journal, but for who writes it and when. Absent states: free before, unchanged after.
#[derive(Default)]
pub(super) struct Entry<'a> {
    pub(super) op: &'static str,
    pub(super) domain: Option<Domain>,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) owner: Option<&'a Owner>,
    pub(super) interface: Option<IfName>,
    pub(super) generation: Option<Generation>,
    pub(super) from: Option<LeaseState>,
    pub(super) to: Option<LeaseState>,
    pub(super) reason: &'a str,
}

impl<'a> Entry<'a> {
    /// The entry for a lease that comes out of state `from` as it is given here.
    pub(super) fn change(op: &'static str, from: Option<LeaseState>, lease: &'a Lease) -> Self {
        Self {
            op,
            domain: Some(lease.domain),
            address: Some(lease.address),
            owner: Some(&lease.owner),
            interface: lease.interface,
            generation: Some(lease.generation),
            from,
            to: Some(lease.state),
            reason: "",
        }
    }
}

impl Book<'_> {
    /// Writes the entry, lets the oldest go, and returns its number.
    pub(super) fn write_journal(&self, entry: &Entry<'_>) -> Result<i64, StoreError> {
        self.run(
            "INSERT INTO journal (wall_ms, boot, boot_ns, actor, op, domain, address, owner, interface, generation,
                                  from_state, to_state, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                unix_ms(SystemTime::now()),
                self.clock.boot(),
                moment_ns(self.clock.now()),
                self.actor,
                entry.op,
                entry.domain.map(Key),
                entry.address.map(Bytes),
                entry.owner.map(Owner::as_str),
                entry.interface.map(|name| Interface(Some(name))),
                entry.generation.map(number),
                entry.from.map(LeaseState::as_str),
                entry.to.map(LeaseState::as_str),
                entry.reason
            ],
        )?;
        let number = self.transaction().last_insert_rowid();
        if number > LEN {
            self.run("DELETE FROM journal WHERE entry <= ?1", [number - LEN])?;
        }
        Ok(number)
    }
}

/// Unix time, in milliseconds.
pub(super) fn unix_ms(at: SystemTime) -> i64 {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

//! The allocator as its users have it: a real file, real processes, and a clock that can be turned.

mod faults;
mod files;
mod incidents;
mod late;
mod leases;
mod model;
mod pools;
mod processes;

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tempfile::TempDir;

use super::*;
use crate::{
    net::{Domain, Generation, Lease, LeaseState, Owner, VlanId},
    time::{Span, Timestamp},
};

const COOLDOWN: Span = Span::from_secs(60);

/// A time that only the test moves, in nanoseconds since boot.
#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn pass(&self, span: Span) {
        self.0.fetch_add(span.as_nanos(), Ordering::SeqCst);
    }

    fn set(&self, span: Span) {
        self.0.store(span.as_nanos(), Ordering::SeqCst);
    }

    fn clock(&self, boot: &str) -> Clock {
        let time = self.clone();
        Clock::new(boot, move || Timestamp::from_nanos(time.0.load(Ordering::SeqCst)))
    }
}

/// A database in a directory of its own.
struct Home {
    directory: TempDir,
    time: Time,
}

impl Home {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), time: Time::default() }
    }

    /// As [`new`](Self::new), where a disk does not have to be waited for, if the machine has such a place.
    fn in_memory() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { directory, time: Time::default() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("leases.db")
    }

    fn open(&self) -> SqliteStore {
        self.open_in("boot-1")
    }

    fn open_in(&self, boot: &str) -> SqliteStore {
        SqliteStore::open(&self.path(), "test", self.time.clock(boot)).unwrap()
    }

    /// Opens it with a pool of `subnet` in [`rt0`], whose first host is the gateway.
    fn with_pool(&self, subnet: &str) -> SqliteStore {
        let store = self.open();
        store.ensure_pool(&pool(rt0(), subnet)).unwrap();
        store
    }

    /// What `sql` finds, each row as text with spaces between the columns and `-` for null.
    fn sql(&self, sql: &str) -> Vec<String> {
        let conn = rusqlite::Connection::open(self.path()).unwrap();
        let mut rows = conn.prepare(sql).unwrap();
        let columns = rows.column_count();
        let text = |row: &rusqlite::Row<'_>, column| match row.get::<_, rusqlite::types::Value>(column).unwrap() {
            rusqlite::types::Value::Null => "-".to_owned(),
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => panic!("{other:?}"),
        };
        rows.query_map([], |row| Ok((0..columns).map(|column| text(row, column)).collect::<Vec<_>>().join(" ")))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap()
    }
}

fn rt0() -> Domain {
    Domain::untagged("rt0".parse().unwrap())
}

fn owner(name: &str) -> Owner {
    name.parse().unwrap()
}

/// 10.8.64.`last`.
fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 8, 64, last)
}

fn pool(domain: Domain, subnet: &str) -> Pool {
    let subnet: crate::net::Ipv4Net = subnet.parse().unwrap();
    Pool::new(domain, subnet, subnet.hosts().next(), COOLDOWN).unwrap()
}

/// Any address for `owner` but those of `avoid`.
fn wish(domain: Domain, owner: &Owner, avoid: &BTreeSet<Ipv4Addr>) -> Wish {
    Wish { avoid: avoid.clone(), ..Wish::new(domain, owner.clone()) }
}

fn nothing() -> BTreeSet<Ipv4Addr> {
    BTreeSet::new()
}

/// The lease that a change was made to.
fn applied(change: Change) -> Lease {
    match change {
        Change::Applied(lease) => lease,
        Change::Fenced { current } => panic!("fenced, with {current:?} there"),
    }
}

impl SqliteStore {
    fn give(&self, name: &str) -> Lease {
        self.allocate(&wish(rt0(), &owner(name), &nothing())).unwrap()
    }

    /// Gives `lease` back and shows that it is out of use.
    fn put_to_rest(&self, lease: &Lease) -> Lease {
        applied(self.release(&lease.into()).unwrap());
        applied(self.retire(&lease.into()).unwrap())
    }
}

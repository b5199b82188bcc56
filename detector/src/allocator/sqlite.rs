//! The book of leases in an SQLite file.
//!
//! Any number of processes may have it open. A change takes the write lock before it reads (`BEGIN IMMEDIATE`), so what
//! it decides on cannot become untrue before it is written; whoever finds the lock taken waits for it. Reading waits for
//! nobody.

mod book;
mod free;
mod incidents;
mod journal;
mod lending;
mod open;
mod peek;
mod row;
mod schema;
mod step;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use book::Book;
use journal::Entry;
use open::{Care, Identity};
pub use peek::{Dumped, dump, read_leases};
use row::{Bytes, Key, lease, lease_columns};
use rusqlite::{Connection, Params, Row, params};
use rustix::io::Errno;
pub use schema::Refusal;
use step::Step;

use super::{
    AdoptError, AllocateError, Change, Clock, Fence, JournalEntry, Pool, PoolError, Quarantine, Standing, Store,
    StoreError, Wish,
};
use crate::{
    net::{Domain, IfName, Ipv4Net, Lease, Owner},
    time::Span,
};

const LEASES: &str = concat!("SELECT ", lease_columns!(), " FROM lease WHERE ?1 IS NULL OR domain = ?1");
const STANDINGS: &str = concat!(
    "SELECT ",
    lease_columns!(),
    ", since_ns, until_ns, mac, reason FROM lease WHERE ?1 IS NULL OR domain = ?1"
);
const MOVING: &str = concat!("SELECT ", lease_columns!(), " FROM lease WHERE replaces IS NOT NULL");
const DRAINING: &str = concat!("SELECT ", lease_columns!(), " FROM lease WHERE state = 'draining'");
const LIFE: &str = "SELECT entry, wall_ms, boot, boot_ns, actor, op, domain, address, owner, interface, generation,
                           from_state, to_state, reason
    FROM journal WHERE address = ?1 AND (?2 IS NULL OR domain = ?2) ORDER BY entry";

/// More bytes than any change of a lease writes: each of its pages has 1 KiB, and there are some eight of them.
const LARGEST: usize = 16 << 10;

/// A book of leases in an SQLite file. Many threads may use one; their changes take turns.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    file: Arc<File>,
    actor: Arc<str>,
}

#[derive(Debug)]
struct File {
    writer: Mutex<Connection>,
    /// Absent for those who make one call: then the writer reads, too.
    reader: Option<Mutex<Connection>>,
    /// For what is found by its key, so that it waits for no list that is read; absent likewise.
    finder: Option<Mutex<Connection>>,
    identity: Identity,
    clock: Clock,
}

/// A lease database could not be opened. A file that is there is left as it was, and never begun anew.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", .path.display())]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub reason: Refusal,
}

impl SqliteStore {
    /// Opens the lease database at `path`. If there is none, makes it, readable for its owner only, and the directories
    /// that lead to it.
    ///
    /// `actor` is who the journal will say has made the changes.
    ///
    /// # Errors
    /// When the file is not a lease database, is of a newer dupip, or is damaged; when it cannot be reached or written.
    pub fn open(path: &Path, actor: &str, clock: Clock) -> Result<Self, OpenError> {
        Self::open_with(path, actor, clock, Care::Whole)
    }

    /// As [`open`](Self::open), for those who come to make one call and go: a large file that was opened before in this
    /// boot is not read whole to see whether it is sound.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_quick(path: &Path, actor: &str, clock: Clock) -> Result<Self, OpenError> {
        Self::open_with(path, actor, clock, Care::Quick)
    }

    fn open_with(path: &Path, actor: &str, clock: Clock, care: Care) -> Result<Self, OpenError> {
        let connect = || {
            let writer = open::connect(path, actor, &clock, care)?;
            let reader = || (care == Care::Whole).then(|| open::reader(path)).transpose();
            Ok((writer, [reader()?, reader()?], Identity::of(path)?))
        };
        let (writer, readers, identity) = connect().map_err(|reason| OpenError { path: path.to_owned(), reason })?;
        let [reader, finder] = readers.map(|reader| reader.map(Mutex::new));
        let file = File { writer: Mutex::new(writer), reader, finder, identity, clock };
        Ok(Self { file: Arc::new(file), actor: actor.into() })
    }

    /// Fails where it can only be read, as on a file system that was mounted so: SQLite opens that too.
    pub(super) fn require_writable(&self) -> Result<(), Refusal> {
        match lock(&self.file.writer).is_readonly("main")? {
            true => Err(Refusal::Unreachable(Errno::ROFS.into())),
            false => Ok(()),
        }
    }

    /// Shows that changes reach the disk, by a line in the journal that takes at first as much room as any of them. That
    /// another one succeeded does not show it: if it finds everything as it should be, it writes nothing.
    pub(super) fn prove(&self) -> Result<(), StoreError> {
        let reason = "changes had failed, and reach the disk again";
        let wide = format!("{reason:LARGEST$}");
        let entry =
            self.change(|book| book.write_journal(&Entry { op: "recover", reason: &wide, ..Entry::default() }))?;
        self.change(|book| book.run("UPDATE journal SET reason = ?2 WHERE entry = ?1", params![entry, reason]))
    }

    fn change<T, E: From<StoreError>>(&self, change: impl FnOnce(&Book<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut conn = lock(&self.file.writer);
        // Who opens the path from now on would not see what is written, and give the same addresses again.
        if !self.file.identity.is_still_there() {
            return Err(StoreError::Replaced.into());
        }
        let book = Book::open(&mut conn, &self.file.clock, &self.actor)?;
        let done = change(&book)?;
        book.commit()?;
        Ok(done)
    }

    fn step(&self, step: &Step, fence: &Fence, seen: Option<&Quarantine>) -> Result<Change, StoreError> {
        self.change(|book| step.take(book, fence, seen))
    }

    fn read<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.file.read_by(self.file.reader.as_ref(), sql, params, read)
    }

    fn read_leases(&self, sql: &str, params: impl Params) -> Result<Vec<Lease>, StoreError> {
        let mut leases = self.read(sql, params, lease)?;
        leases.sort_by_key(|lease| (lease.domain, lease.address));
        Ok(leases)
    }

    /// The few leases of a key.
    fn find_leases(&self, sql: &str, params: impl Params) -> Result<Vec<Lease>, StoreError> {
        self.file.read_by(self.file.finder.as_ref(), sql, params, lease)
    }

    fn has_late(&self) -> Result<bool, StoreError> {
        Ok(!self.read(book::LATE, [row::moment_ns(self.file.clock.now())], |_| Ok(()))?.is_empty())
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        lock(&self.file.writer)
    }
}

impl File {
    fn read_by<T>(
        &self,
        reader: Option<&Mutex<Connection>>,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let conn = lock(reader.unwrap_or(&self.writer));
        let mut rows = conn.prepare_cached(sql)?;
        Ok(rows.query_map(params, read)?.collect::<Result<_, _>>()?)
    }
}

/// A thread that panicked in here left no change behind: its transaction was rolled back as it went.
fn lock(conn: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    conn.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for SqliteStore {
    fn on_behalf_of(&self, actor: &str) -> Arc<dyn Store> {
        Arc::new(Self { file: Arc::clone(&self.file), actor: actor.into() })
    }

    fn ensure_pool(&self, pool: &Pool) -> Result<(), PoolError> {
        // What is there already is found out without waiting for a turn to write.
        if self.pools()?.contains(pool) {
            return Ok(());
        }
        self.change(|book| book.set_pool(pool))
    }

    fn remove_pool(&self, domain: Domain, subnet: Ipv4Net) -> Result<(), PoolError> {
        self.change(|book| book.drop_pool(domain, subnet))
    }

    fn pools(&self) -> Result<Vec<Pool>, StoreError> {
        let mut pools = self.read(free::POOLS, [None::<Key>], row::pool)?;
        for pool in &mut pools {
            let network = Bytes(pool.subnet.network());
            pool.excluded = self.read(free::EXCLUDED, params![Key(pool.domain), network], row::range)?;
        }
        pools.sort_by_key(|pool| (pool.domain, pool.subnet));
        Ok(pools)
    }

    fn allocate(&self, wish: &Wish) -> Result<Lease, AllocateError> {
        self.change(|book| lending::allocate(book, wish, None))
    }

    fn reserve(&self, wish: &Wish, hold_for: Span) -> Result<Lease, AllocateError> {
        self.change(|book| lending::allocate(book, wish, Some(hold_for)))
    }

    fn reallocate(
        &self,
        domain: Domain,
        owner: &Owner,
        contested: Ipv4Addr,
        avoid: &BTreeSet<Ipv4Addr>,
    ) -> Result<Lease, AllocateError> {
        self.change(|book| lending::reallocate(book, domain, owner, contested, avoid))
    }

    fn adopt(
        &self,
        domain: Domain,
        address: Ipv4Addr,
        owner: &Owner,
        interface: Option<IfName>,
    ) -> Result<Lease, AdoptError> {
        self.change(|book| lending::adopt(book, domain, address, owner, interface))
    }

    fn bind(&self, fence: &Fence) -> Result<Change, StoreError> {
        self.step(&step::BIND, fence, None)
    }

    fn release(&self, fence: &Fence) -> Result<Change, StoreError> {
        self.step(&step::RELEASE, fence, None)
    }

    fn retire(&self, fence: &Fence) -> Result<Change, StoreError> {
        self.step(&step::RETIRE, fence, None)
    }

    fn discard(&self, fence: &Fence) -> Result<Change, StoreError> {
        self.step(&step::DISCARD, fence, None)
    }

    fn quarantine(&self, fence: &Fence, quarantine: &Quarantine) -> Result<Change, StoreError> {
        self.step(&step::QUARANTINE, fence, Some(quarantine))
    }

    fn lease(&self, domain: Domain, address: Ipv4Addr) -> Result<Option<Lease>, StoreError> {
        self.find_leases(book::ON_ADDRESS, params![Key(domain), Bytes(address)]).map(|mut leases| leases.pop())
    }

    fn held(&self, domain: Domain, owner: &Owner, interface: Option<IfName>) -> Result<Vec<Lease>, StoreError> {
        let mut held = self.find_leases(book::HELD, params![Key(domain), owner.as_str()])?;
        held.sort_by_key(|lease| lease.address);
        held.retain(|lease| interface.is_none() || lease.interface == interface);
        Ok(held)
    }

    fn leases(&self, domain: Option<Domain>) -> Result<Vec<Lease>, StoreError> {
        self.read_leases(LEASES, [domain.map(Key)])
    }

    fn standings(&self, domain: Option<Domain>) -> Result<Vec<Standing>, StoreError> {
        let now = self.file.clock.now();
        let mut standings = self.read(STANDINGS, [domain.map(Key)], |row| row::standing(row, now))?;
        standings.sort_by_key(|standing| (standing.lease.domain, standing.lease.address));
        Ok(standings)
    }

    fn draining(&self) -> Result<Vec<Lease>, StoreError> {
        if self.has_late()? {
            self.change(|book| book.drain_late())?;
        }
        self.read_leases(DRAINING, [])
    }

    fn pending_moves(&self) -> Result<Vec<Lease>, StoreError> {
        self.read_leases(MOVING, [])
    }

    fn history(&self, domain: Option<Domain>, address: Ipv4Addr) -> Result<Vec<JournalEntry>, StoreError> {
        self.read(LIFE, params![Bytes(address), domain.map(Key)], row::journal_entry)
    }

    fn fenced(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let count = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()));
        Ok(self.read("SELECT op, count FROM fenced", [], count)?.into_iter().collect())
    }
}

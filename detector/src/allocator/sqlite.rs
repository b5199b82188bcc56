//! The book of leases in an SQLite file.
//!
//! Any number of processes may have it open. A change takes the write lock before it reads (`BEGIN IMMEDIATE`), so what
//! it decides on cannot become untrue before it is written; whoever finds the lock taken waits for it.

mod book;
mod row;
mod schema;

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    io,
    net::Ipv4Addr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf, absolute},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use book::Book;
use row::{Key, lease};
use rusqlite::{Connection, OpenFlags, Params, config::DbConfig, params};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    io::Errno,
};
pub use schema::Refusal;

use super::{AdoptError, AllocateError, Change, Clock, Fence, Pool, PoolError, Store, StoreError};
use crate::net::{Domain, Generation, Ipv4Net, Lease, LeaseState, Owner};

/// How long a call waits for the calls of others, each of which takes about as long as one write to the disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// A book of leases in an SQLite file. Many threads may use one; their calls take turns.
#[derive(Debug)]
pub struct SqliteStore {
    conn: Mutex<Connection>,
    clock: Clock,
    actor: String,
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
        match connect(path, actor, &clock) {
            Ok(conn) => Ok(Self { conn: Mutex::new(conn), clock, actor: actor.to_owned() }),
            Err(reason) => Err(OpenError { path: path.to_owned(), reason }),
        }
    }

    fn change<T, E: From<StoreError>>(&self, change: impl FnOnce(&Book<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut conn = self.connection();
        let book = Book::open(&mut conn, &self.clock, &self.actor)?;
        let done = change(&book)?;
        book.commit()?;
        Ok(done)
    }

    fn step(&self, step: &Step, fence: &Fence) -> Result<Change, StoreError> {
        self.change(|book| match book.on_address(fence.domain, fence.address)? {
            Some(row) if fence.names(&row) => step.take(book, fence, row),
            current => {
                let reason = if current.is_some() { "the address has another lease" } else { "there is no lease" };
                fenced(book, step, fence, current, reason)
            }
        })
    }

    fn read(&self, sql: &str, params: impl Params) -> Result<Vec<Lease>, StoreError> {
        let conn = self.connection();
        let mut rows = conn.prepare_cached(sql)?;
        let mut leases = rows.query_map(params, lease)?.collect::<Result<Vec<_>, _>>()?;
        leases.sort_by_key(|lease| (lease.domain, lease.address));
        Ok(leases)
    }

    /// A thread that panicked in here left no change behind: its transaction was rolled back as it went.
    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SqliteStore {
    fn ensure_pool(&self, pool: &Pool) -> Result<(), PoolError> {
        self.change(|book| {
            book.add_domain(pool.domain)?;
            match book.pools(pool.domain)?.iter().find(|old| overlap(&old.subnet, &pool.subnet)) {
                None => make_pool(book, pool),
                Some(old) if old == pool => Ok(()),
                Some(old) if old.subnet == pool.subnet => alter_pool(book, old, pool),
                Some(&Pool { domain, subnet: other, .. }) => {
                    Err(PoolError::Overlap { domain, subnet: pool.subnet, other })
                }
            }
        })
    }

    fn allocate(&self, domain: Domain, owner: &Owner, avoid: &BTreeSet<Ipv4Addr>) -> Result<Lease, AllocateError> {
        self.change(|book| match book.held(domain, owner)? {
            Some(lease) => Ok(lease),
            None => give(book, domain, owner, None, None, avoid),
        })
    }

    fn reallocate(
        &self,
        domain: Domain,
        owner: &Owner,
        contested: Ipv4Addr,
        avoid: &BTreeSet<Ipv4Addr>,
    ) -> Result<Lease, AllocateError> {
        let mut avoid = avoid.clone();
        avoid.insert(contested);
        self.change(|book| {
            let within = network_of(book, domain, contested)?;
            match book.held(domain, owner)? {
                Some(lease) if lease.address != contested => move_to_held(book, lease, contested, within, &avoid),
                Some(lease) => {
                    let drained = Lease { state: LeaseState::Draining, replaces: None, ..lease };
                    book.turn("reallocate", lease.state, drained, "its owner is moved away")?;
                    give(book, domain, owner, Some(contested), Some(within), &avoid)
                }
                None => give(book, domain, owner, Some(contested), Some(within), &avoid),
            }
        })
    }

    fn adopt(&self, domain: Domain, address: Ipv4Addr, owner: &Owner) -> Result<Lease, AdoptError> {
        self.change(|book| {
            if !book.pools(domain)?.iter().any(|pool| pool.can_lease(address)) {
                return Err(AdoptError::NotInPool { domain, address });
            }
            match (book.held(domain, owner)?, book.on_address(domain, address)?) {
                (Some(held), _) if held.address == address => Ok(held),
                (Some(held), _) => Err(AdoptError::HoldsAnother(held.into())),
                (None, Some(row)) if row.state != LeaseState::Cooldown => Err(AdoptError::Leased(row.into())),
                (None, _) => Ok(book.grant("adopt", bound(domain, address, owner), "was found alive")?),
            }
        })
    }

    fn bind(&self, fence: &Fence) -> Result<Change, StoreError> {
        self.step(&BIND, fence)
    }

    fn release(&self, fence: &Fence) -> Result<Change, StoreError> {
        self.step(&RELEASE, fence)
    }

    fn retire(&self, fence: &Fence) -> Result<Change, StoreError> {
        self.step(&RETIRE, fence)
    }

    fn lease(&self, domain: Domain, address: Ipv4Addr) -> Result<Option<Lease>, StoreError> {
        self.read(book::ON_ADDRESS, params![Key(domain), address.to_bits()]).map(|mut leases| leases.pop())
    }

    fn leases(&self, domain: Option<Domain>) -> Result<Vec<Lease>, StoreError> {
        match domain {
            Some(domain) => self.read(book::LEASES_OF, [Key(domain)]),
            None => self.read(book::LEASES, []),
        }
    }

    fn draining(&self) -> Result<Vec<Lease>, StoreError> {
        self.read(book::DRAINING, [])
    }

    fn pending_moves(&self) -> Result<Vec<Lease>, StoreError> {
        self.read(book::MOVING, [])
    }
}

/// A change of state that is made to one lease or not at all.
struct Step {
    op: &'static str,
    reason: &'static str,
    from: fn(LeaseState) -> bool,
    to: LeaseState,
}

const BIND: Step = Step { op: "bind", reason: "the owner uses it", from: LeaseState::is_held, to: LeaseState::Bound };

const RELEASE: Step =
    Step { op: "release", reason: "was given back", from: LeaseState::is_held, to: LeaseState::Draining };

const RETIRE: Step = Step {
    op: "retire",
    reason: "was shown to be out of use",
    from: |state| matches!(state, LeaseState::Draining),
    to: LeaseState::Cooldown,
};

impl Step {
    fn take(&self, book: &Book<'_>, fence: &Fence, row: Lease) -> Result<Change, StoreError> {
        match row.state {
            state if state == self.to && (self.from)(state) => Ok(Change::Applied(row)),
            state if (self.from)(state) => {
                let after = Lease { state: self.to, replaces: None, ..row };
                book.turn(self.op, state, after, self.reason).map(Change::Applied)
            }
            _ => fenced(book, self, fence, Some(row), "the lease is in another state"),
        }
    }
}

fn fenced(
    book: &Book<'_>,
    step: &Step,
    fence: &Fence,
    current: Option<Lease>,
    reason: &str,
) -> Result<Change, StoreError> {
    book.fenced(step.op, fence, current.as_ref(), reason)?;
    Ok(Change::Fenced { current })
}

fn bound(domain: Domain, address: Ipv4Addr, owner: &Owner) -> Lease {
    let (generation, state) = (Generation(0), LeaseState::Bound);
    Lease { domain, address, owner: owner.clone(), generation, state, replaces: None }
}

/// Gives `owner` the next free address, `within` a network if one is named: to use, or, if it `replaces` another, to be
/// moved to.
fn give(
    book: &Book<'_>,
    domain: Domain,
    owner: &Owner,
    replaces: Option<Ipv4Addr>,
    within: Option<Ipv4Net>,
    avoid: &BTreeSet<Ipv4Addr>,
) -> Result<Lease, AllocateError> {
    let lease = bound(domain, next_free(book, domain, within, avoid)?, owner);
    let granted = match replaces {
        None => book.grant("allocate", lease, "was asked for"),
        Some(_) => book.grant(
            "reallocate",
            Lease { state: LeaseState::Reserved, replaces, ..lease },
            "its owner is moved here",
        ),
    };
    Ok(granted?)
}

/// The network that an address's owner is moved within: in another its gateway would be out of reach.
fn network_of(book: &Book<'_>, domain: Domain, address: Ipv4Addr) -> Result<Ipv4Net, AllocateError> {
    let pools = book.pools(domain)?;
    let pool = pools.iter().find(|pool| pool.subnet().contains(&address));
    pool.map(Pool::subnet).ok_or(AllocateError::NoPool(domain))
}

fn next_free(
    book: &Book<'_>,
    domain: Domain,
    within: Option<Ipv4Net>,
    avoid: &BTreeSet<Ipv4Addr>,
) -> Result<Ipv4Addr, AllocateError> {
    match book.next_free(domain, within, avoid)? {
        Some(address) => Ok(address),
        None if book.pools(domain)?.is_empty() => Err(AllocateError::NoPool(domain)),
        None => {
            let book::Shortage { ready_in, in_use } = book.shortage(domain, avoid)?;
            Err(AllocateError::Exhausted { domain, ready_in, in_use })
        }
    }
}

/// The owner has its other address already, perhaps from an attempt that did not live to see it: it gets no second one.
///
/// It is of no use if others have it, or if it is in another network.
fn move_to_held(
    book: &Book<'_>,
    lease: Lease,
    contested: Ipv4Addr,
    within: Ipv4Net,
    avoid: &BTreeSet<Ipv4Addr>,
) -> Result<Lease, AllocateError> {
    match lease.replaces {
        _ if avoid.contains(&lease.address) || !within.contains(&lease.address) => {
            Err(AllocateError::HoldsUseless(lease.into()))
        }
        Some(address) if address == contested => Ok(lease),
        _ => {
            let moving = Lease { state: LeaseState::Reserved, replaces: Some(contested), ..lease };
            Ok(book.turn("reallocate", lease.state, moving, "its owner is moved here, where it holds a lease")?)
        }
    }
}

fn make_pool(book: &Book<'_>, pool: &Pool) -> Result<(), PoolError> {
    book.put_pool(pool, "was made")?;
    for range in pool.ranges() {
        book.add_fresh(pool.domain, *range.start(), *range.end())?;
    }
    Ok(())
}

fn alter_pool(book: &Book<'_>, old: &Pool, pool: &Pool) -> Result<(), PoolError> {
    if pool.gateway != old.gateway {
        pool.gateway.map_or(Ok(()), |gateway| take_for_gateway(book, pool.domain, gateway))?;
        old.gateway.map_or(Ok(()), |gateway| book.add_fresh(pool.domain, gateway.to_bits(), gateway.to_bits()))?;
    }
    Ok(book.put_pool(pool, "was altered")?)
}

fn take_for_gateway(book: &Book<'_>, domain: Domain, gateway: Ipv4Addr) -> Result<(), PoolError> {
    match book.on_address(domain, gateway)? {
        Some(lease) if lease.state != LeaseState::Cooldown => Err(PoolError::GatewayLeased(lease.into())),
        _ => Ok(book.take(domain, gateway)?),
    }
}

/// Two subnets have an address in common only if one of them lies within the other.
fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(other) || other.contains(one)
}

fn connect(path: &Path, actor: &str, clock: &Clock) -> Result<Connection, Refusal> {
    // SQLite gives a relative name like `:memory:` a meaning of its own.
    let path = absolute(path)?;
    create(&path)?;
    // SQLite takes one byte for none (`unixFileSize`) and would write over it.
    if fs::metadata(&path)?.len() == 1 {
        return Err(Refusal::Corrupt("one byte is all there is".to_owned()));
    }
    let mut conn =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(PATIENCE)?;
    inspect(&mut conn)?;
    schema::write_ahead(&conn)?;
    // Whatever has been committed is on the disk, not only in its cache (https://sqlite.org/pragma.html#pragma_synchronous).
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    begin(&mut conn, actor, clock)?;
    Ok(conn)
}

/// Makes an empty file, which is what a new database is, if nothing is there.
///
/// Without opening it: closing a file lets go of every lock that the process has on it (`fcntl_locking`(2)), those of
/// another thread's connection too.
fn create(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    match mknodat(CWD, path, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0) {
        Err(error) if error != Errno::EXIST => Err(error.into()),
        _ => Ok(()),
    }
}

/// Looks whether this is a lease database. If not, closing it must not so much as move its log into it.
fn inspect(conn: &mut Connection) -> Result<(), Refusal> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    schema::inspect(&*conn.transaction()?)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

fn begin(conn: &mut Connection, actor: &str, clock: &Clock) -> Result<(), Refusal> {
    let book = Book::open(conn, clock, actor)?;
    schema::migrate(book.transaction())?;
    book.follow_boot()?;
    Ok(book.commit()?)
}

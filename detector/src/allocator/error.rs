//! Why the allocator says no.

use std::net::Ipv4Addr;

use super::{LONGEST_RECORD, Unwitnessed};
use crate::{
    net::{Domain, Ipv4Net, Ipv4Range, Lease, LeaseState},
    time::Span,
};

/// Why a pool was not made, altered or removed.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Two pools of a domain would give the same address.
    #[error("pool {subnet} overlaps {other}, which {domain} has already: give it a subnet of its own")]
    Overlap {
        /// Where.
        domain: Domain,
        /// The refused pool's subnet.
        subnet: Ipv4Net,
        /// The subnet of the pool that is there.
        other: Ipv4Net,
    },
    /// The new gateway, or what is to be left out, has a lease on it.
    #[error("{} cannot be taken out of the pool: {}", .0.address, on_it(.0))]
    Leased(Box<Lease>),
    /// There is no such pool.
    #[error("{domain} has no pool {subnet}")]
    NoSuchPool {
        /// Where.
        domain: Domain,
        /// The subnet that no pool has.
        subnet: Ipv4Net,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why no lease was given.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// Nothing can be given in this domain.
    #[error("{0} has no pool: none was made for it, and no agent watches it with an IPv4 network")]
    NoPool(Domain),
    /// Every address is taken.
    #[error("{domain} has no address left: {}", why_none(*.ready_in, *.in_use))]
    Exhausted {
        /// Where.
        domain: Domain,
        /// How long until the next address has rested; `None` if none rests.
        ready_in: Option<Span>,
        /// How many addresses have no lease, but are in use all the same.
        in_use: u64,
    },
    /// The owner that is to be moved holds a lease that it cannot be moved to.
    #[error(
        "{} holds {} already (generation {}), which others use or which is in another network: release that lease first",
        .0.owner, .0.address, .0.generation
    )]
    HoldsUseless(Box<Lease>),
    /// The owner holds a lease, and not on what it asks for.
    #[error("{} holds {} already (generation {}): release that lease first", .0.owner, .0.address, .0.generation)]
    HoldsAnother(Box<Lease>),
    /// There is a lease on the very address that is asked for.
    #[error("{} cannot be given: {}", .0.address, on_it(.0))]
    Leased(Box<Lease>),
    /// No pool gives what is asked for.
    #[error("no pool of {domain} gives an address of {}", texts(.within))]
    NotInPool {
        /// Where.
        domain: Domain,
        /// What is asked for.
        within: Vec<Ipv4Range>,
    },
    /// Nobody could look whether an address is in use.
    #[error("no address was given: {0}; unknown is not free, so ask again when that is mended")]
    Unwitnessed(#[from] Unwitnessed),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why what was found alive was not written down.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The address is in no pool of the domain, or is a gateway, network, broadcast or excluded address.
    #[error("no pool of {domain} gives {address} to anybody")]
    NotInPool {
        /// Where.
        domain: Domain,
        /// The address.
        address: Ipv4Addr,
    },
    /// There is a lease on the address.
    #[error("{} cannot be adopted: {}", .0.address, on_it(.0))]
    Leased(Box<Lease>),
    /// The owner's lease is on another address.
    #[error("{} holds {} already (generation {})", .0.owner, .0.address, .0.generation)]
    HoldsAnother(Box<Lease>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The book could not be read or written. What was asked for is either done or not, never half: ask again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be opened yet, and why.
    #[error("the lease database cannot be used yet, which is tried again and again: {0}")]
    Unopened(String),
    /// Somebody else writes, and does not come to an end.
    #[error("another process has been writing to the lease database for a minute: find it with `fuser` and ask again")]
    Busy,
    /// The file that was opened is not the one that is there now.
    #[error(
        "the lease database was removed or replaced while it was in use: nothing is written to it; start dupip again"
    )]
    Replaced,
    /// What is to be kept is longer than is taken; nothing was written.
    #[error("{what} is {len} bytes long, and no more than {LONGEST_RECORD} are kept")]
    TooLong {
        /// What.
        what: String,
        /// How many bytes it has.
        len: usize,
    },
    /// SQLite's word.
    #[error("the lease database failed: {0}; it is safe to ask again")]
    Sqlite(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => Self::Busy,
            _ => Self::Sqlite(error),
        }
    }
}

/// An error that may be the store's.
pub(super) trait MayBeOfStore: From<StoreError> {
    /// The store's error, if it is one.
    fn of_store(&self) -> Option<&StoreError>;
}

impl MayBeOfStore for StoreError {
    /// What is too long is the asker's fault, and no sign that the store fails.
    fn of_store(&self) -> Option<&StoreError> {
        if let Self::TooLong { .. } = self { None } else { Some(self) }
    }
}

impl MayBeOfStore for PoolError {
    fn of_store(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl MayBeOfStore for AllocateError {
    fn of_store(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl MayBeOfStore for AdoptError {
    fn of_store(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

fn texts(ranges: &[Ipv4Range]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn on_it(lease: &Lease) -> String {
    let Lease { owner, generation, state, .. } = lease;
    match state {
        LeaseState::Draining => format!("{owner} (generation {generation}) gave it back, but may still use it"),
        LeaseState::Quarantined => "it is quarantined".to_owned(),
        _ => format!("{owner} holds it (generation {generation}, {state})"),
    }
}

fn why_none(ready_in: Option<Span>, in_use: u64) -> String {
    let next = match ready_in {
        Some(span) => format!("the next one has rested in {span}"),
        None => "none is resting; release some, or widen the network".to_owned(),
    };
    match in_use {
        0 => next,
        _ => format!("{in_use} without a lease are in use all the same, and {next}"),
    }
}

//! What an allocator is asked and what it answers, whatever keeps the book.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::Pool;
use crate::{
    net::{Domain, Generation, Ipv4Net, Lease, LeaseState, Owner},
    time::Span,
};

/// A book of leases.
///
/// Each call is one transaction and blocks until it is durable. All of them may be made again after a crash or an
/// error: what was already done is not done twice.
pub trait Store: Send + Sync {
    /// Sees to it that leases can be given from `pool`.
    ///
    /// A pool with the same subnet takes over the new gateway and cooldown; a cooldown that has begun goes on as it was.
    ///
    /// # Errors
    /// When the domain has another pool with some of the addresses, or the new gateway is leased.
    fn ensure_pool(&self, pool: &Pool) -> Result<(), PoolError>;

    /// The lease of `owner` in `domain`: the one it holds already, or a new one, bound.
    ///
    /// Given are the addresses that nobody ever had, lowest first, then the one that has rested longest. What stands in
    /// `avoid` is in use somewhere and is not given to anybody.
    ///
    /// # Errors
    /// When there is no pool or no address left.
    fn allocate(&self, domain: Domain, owner: &Owner, avoid: &BTreeSet<Ipv4Addr>) -> Result<Lease, AllocateError>;

    /// Moves `owner` away from `contested`: what it holds there drains, and it gets another address, reserved, with
    /// `replaces` set until [`bind`](Self::bind), in the same network. An owner that holds another address already keeps
    /// that one, if nobody else is there: what only the owner itself uses does not belong into `avoid`.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate); the lease on `contested` is then as it was.
    fn reallocate(
        &self,
        domain: Domain,
        owner: &Owner,
        contested: Ipv4Addr,
        avoid: &BTreeSet<Ipv4Addr>,
    ) -> Result<Lease, AllocateError>;

    /// Writes down that `owner` was found alive at `address`, as a bound lease.
    ///
    /// # Errors
    /// When no pool gives the address, somebody else's lease is on it (held or draining, and a draining lease of
    /// `owner` itself counts), or `owner` holds another one: the two differ, and which is right is not for a program to
    /// guess.
    fn adopt(&self, domain: Domain, address: Ipv4Addr, owner: &Owner) -> Result<Lease, AdoptError>;

    /// The move is verified: a reserved lease becomes bound, and `replaces` is cleared. A bound one stays as it is.
    ///
    /// # Errors
    /// When the store fails.
    fn bind(&self, fence: &Fence) -> Result<Change, StoreError>;

    /// Gives a held lease back: it drains.
    ///
    /// # Errors
    /// When the store fails.
    fn release(&self, fence: &Fence) -> Result<Change, StoreError>;

    /// Lets a draining lease rest. Only for those who have proof that nothing uses the address any more: a failed or
    /// empty search is none.
    ///
    /// # Errors
    /// When the store fails.
    fn retire(&self, fence: &Fence) -> Result<Change, StoreError>;

    /// The lease on `address`; `None` if nobody ever had one.
    ///
    /// # Errors
    /// When the store fails.
    fn lease(&self, domain: Domain, address: Ipv4Addr) -> Result<Option<Lease>, StoreError>;

    /// Every lease of `domain`, or of all domains, by domain and address.
    ///
    /// # Errors
    /// When the store fails.
    fn leases(&self, domain: Option<Domain>) -> Result<Vec<Lease>, StoreError>;

    /// The leases that were given back and do not rest yet, by domain and address.
    ///
    /// # Errors
    /// When the store fails.
    fn draining(&self) -> Result<Vec<Lease>, StoreError>;

    /// The leases whose owners are still being moved, by domain and address: what a restarted agent has to go on with.
    ///
    /// # Errors
    /// When the store fails.
    fn pending_moves(&self) -> Result<Vec<Lease>, StoreError>;
}

/// Names one lease and no other: an address is given again, a generation never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The lease's domain.
    pub domain: Domain,
    /// The lease's address.
    pub address: Ipv4Addr,
    /// Its owner.
    pub owner: Owner,
    /// Its generation.
    pub generation: Generation,
}

impl Fence {
    /// Whether `lease` is the one that is meant.
    #[must_use]
    pub fn names(&self, lease: &Lease) -> bool {
        (self.domain, self.address, self.generation) == (lease.domain, lease.address, lease.generation)
            && self.owner == lease.owner
    }
}

impl From<&Lease> for Fence {
    fn from(lease: &Lease) -> Self {
        let Lease { domain, address, ref owner, generation, .. } = *lease;
        Self { domain, address, owner: owner.clone(), generation }
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was made; this is the lease after it.
    Applied(Lease),
    /// It was meant for a lease that is no more, or that is past it. Nothing was changed, and the journal says so.
    Fenced {
        /// What is on the address now.
        current: Option<Lease>,
    },
}

/// Why there is no such pool now.
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
    /// The new gateway has a lease on it.
    #[error("{} cannot become the gateway: {}", .0.address, on_it(.0))]
    GatewayLeased(Box<Lease>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why no lease was given.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// Nothing can be given in this domain.
    #[error("{0} has no pool: no agent watches it, or it has no IPv4 network")]
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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why what was found alive was not written down.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The address is in no pool of the domain, or is a gateway, network or broadcast address.
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
    /// SQLite's word.
    #[error("the lease database failed: {0}; it is safe to ask again")]
    Sqlite(#[from] rusqlite::Error),
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

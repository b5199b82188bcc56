//! What an allocator is asked and what it answers, whatever keeps the book.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::SystemTime,
};

use super::{AdoptError, AllocateError, Incidents, Pool, PoolError, StoreError};
use crate::{
    net::{Domain, Generation, IfName, Ipv4Net, Ipv4Range, Lease, LeaseState, Mac, Owner},
    time::{Span, Timestamp},
};

/// A book of leases.
///
/// Each call is one transaction and blocks until it is durable. All of them may be made again after a crash or an
/// error: what was already done is not done twice.
pub trait Store: Incidents {
    /// The same book, for somebody else: the journal will say that `actor` has made the changes.
    #[must_use]
    fn on_behalf_of(&self, actor: &str) -> Arc<dyn Store>;

    /// Sees to it that leases can be given from `pool`.
    ///
    /// A pool with the same subnet takes over the new gateway, cooldown and exclusions; a cooldown that has begun goes
    /// on as it was.
    ///
    /// # Errors
    /// When the domain has another pool with some of the addresses, or what is not to be given any more is leased.
    fn ensure_pool(&self, pool: &Pool) -> Result<(), PoolError>;

    /// Removes the pool of `subnet`. What rests there goes on resting, in case the pool comes back.
    ///
    /// # Errors
    /// When there is no such pool, or one of its addresses is leased or drains.
    fn remove_pool(&self, domain: Domain, subnet: Ipv4Net) -> Result<(), PoolError>;

    /// Every pool, by domain and subnet.
    ///
    /// # Errors
    /// When the store fails.
    fn pools(&self) -> Result<Vec<Pool>, StoreError>;

    /// The lease of whom `wish` names: the one held already, or a new one, bound at once. For those who know that nobody
    /// uses the address; [`hand_out`](super::hand_out) looks first.
    ///
    /// Given are the addresses that nobody ever had, lowest first, then the one that has rested longest.
    ///
    /// # Errors
    /// When there is no pool or no address left.
    fn allocate(&self, wish: &Wish) -> Result<Lease, AllocateError>;

    /// As [`allocate`](Self::allocate), but a new lease is only reserved: unless it is [bound](Self::bind) within
    /// `hold_for`, it drains. A reservation that is there already is prolonged, a bound lease returned as it is.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    fn reserve(&self, wish: &Wish, hold_for: Span) -> Result<Lease, AllocateError>;

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

    /// Writes down that `owner` was found alive at `address`, as a bound lease. A quarantine ends with it: what used the
    /// address without a lease has one now.
    ///
    /// # Errors
    /// When no pool gives the address, somebody else's lease is on it (held or draining, and a draining lease of
    /// `owner` itself counts), or `owner` holds another one: the two differ, and which is right is not for a program to
    /// guess.
    fn adopt(
        &self,
        domain: Domain,
        address: Ipv4Addr,
        owner: &Owner,
        interface: Option<IfName>,
    ) -> Result<Lease, AdoptError>;

    /// A reservation is confirmed or a move verified: a reserved lease becomes bound, and `replaces` is cleared. A bound
    /// one stays as it is.
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

    /// Lets a lease rest without any proof, whatever its state: an operator's force, which the journal names as such.
    /// Even so its address is not given again before it has rested.
    ///
    /// # Errors
    /// When the store fails.
    fn discard(&self, fence: &Fence) -> Result<Change, StoreError>;

    /// Keeps an address back that something without a lease was seen to use. Not for bound leases: what is to become of
    /// those is decided by a contest. Nor for draining ones: they would come free without proof that they are out of use.
    /// An address that rests does so at least as long as it would have.
    ///
    /// # Errors
    /// When the store fails.
    fn quarantine(&self, fence: &Fence, quarantine: &Quarantine) -> Result<Change, StoreError>;

    /// The lease on `address`; `None` if nobody ever had one.
    ///
    /// # Errors
    /// When the store fails.
    fn lease(&self, domain: Domain, address: Ipv4Addr) -> Result<Option<Lease>, StoreError>;

    /// What `owner` holds in `domain`, for one of its interfaces or for all, by address.
    ///
    /// # Errors
    /// When the store fails.
    fn held(&self, domain: Domain, owner: &Owner, interface: Option<IfName>) -> Result<Vec<Lease>, StoreError>;

    /// Every lease of `domain`, or of all domains, by domain and address.
    ///
    /// # Errors
    /// When the store fails.
    fn leases(&self, domain: Option<Domain>) -> Result<Vec<Lease>, StoreError>;

    /// As [`leases`](Self::leases), each with what a person wants to know besides.
    ///
    /// # Errors
    /// When the store fails.
    fn standings(&self, domain: Option<Domain>) -> Result<Vec<Standing>, StoreError>;

    /// The leases that were given back and do not rest yet, by domain and address. A reservation whose time is over is
    /// one of them.
    ///
    /// # Errors
    /// When the store fails.
    fn draining(&self) -> Result<Vec<Lease>, StoreError>;

    /// The leases whose owners are still being moved, by domain and address: what a restarted agent has to go on with.
    ///
    /// # Errors
    /// When the store fails.
    fn pending_moves(&self) -> Result<Vec<Lease>, StoreError>;

    /// What the journal has of `address`, in one domain or in all, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    fn history(&self, domain: Option<Domain>, address: Ipv4Addr) -> Result<Vec<JournalEntry>, StoreError>;

    /// How often each kind of change was refused because it came too late, since the book was begun.
    ///
    /// # Errors
    /// When the store fails.
    fn fenced(&self) -> Result<BTreeMap<String, u64>, StoreError>;
}

/// What is asked for: an address for an owner's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Where.
    pub domain: Domain,
    /// For whom.
    pub owner: Owner,
    /// For which of its interfaces. The same owner and interface asking again get the same lease.
    pub interface: Option<IfName>,
    /// Only addresses of these ranges, the first ones first; any address if there is none.
    pub within: Vec<Ipv4Range>,
    /// Addresses that are in use and not to be given.
    pub avoid: BTreeSet<Ipv4Addr>,
}

impl Wish {
    /// Any address of `domain` for `owner`.
    #[must_use]
    pub const fn new(domain: Domain, owner: Owner) -> Self {
        Self { domain, owner, interface: None, within: Vec::new(), avoid: BTreeSet::new() }
    }
}

/// Why and for how long an address is kept back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// What was seen to use it.
    pub mac: Mac,
    /// How it was seen, for people.
    pub reason: String,
    /// How long it is kept back.
    pub lasts: Span,
}

/// A lease, with how long it has been and will be where it stands in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The lease.
    pub lease: Lease,
    /// How long it has been in its state; since the machine's start, if it was before that.
    pub since: Span,
    /// How long until the reservation's deadline, or until it has rested; nothing if that is over.
    pub left: Option<Span>,
    /// What was seen to use the address of a quarantined lease, and how.
    pub quarantine: Option<(Mac, String)>,
}

/// A line of the journal: what was done, or asked for and not done because it came too late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// Its number; a later entry has a greater one.
    pub number: u64,
    /// When, by the wall clock: for people, nothing is reckoned by it.
    pub wall: SystemTime,
    /// In which boot of the machine.
    pub boot: String,
    /// When within that boot.
    pub at: Timestamp,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub op: String,
    /// Where.
    pub domain: Option<Domain>,
    /// On which address; on a pool's network address, for changes of the pool.
    pub address: Option<Ipv4Addr>,
    /// Whose lease.
    pub owner: Option<Owner>,
    /// For which of the owner's interfaces.
    pub interface: Option<IfName>,
    /// Which lease.
    pub generation: Option<Generation>,
    /// The state before; `None`: free.
    pub from: Option<LeaseState>,
    /// The state after; `None`: nothing was changed.
    pub to: Option<LeaseState>,
    /// Why.
    pub reason: String,
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

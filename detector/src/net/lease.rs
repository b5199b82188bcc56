//! The allocator's word that an owner holds an address: the values, without the store.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use super::{Domain, IfName};

/// Whom an address is leased to: a sandbox's name, container id or pod uid, as the one who asked gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(String);

/// A text that cannot name an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOwner;

impl Owner {
    /// The longest name that is taken, in bytes: two DNS names and something between them.
    pub const MAX_LEN: usize = 512;

    /// The owner's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Owner {
    type Err = InvalidOwner;

    fn from_str(text: &str) -> Result<Self, InvalidOwner> {
        let fits =
            (1..=Self::MAX_LEN).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c.is_whitespace());
        fits.then(|| Self(text.to_owned())).ok_or(InvalidOwner)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for InvalidOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an owner's name is 1 to {} bytes without white space or control characters", Owner::MAX_LEN)
    }
}

impl std::error::Error for InvalidOwner {}

/// Counts the leases ever given in a domain. A generation never comes twice there, so a change that names one can only
/// mean the lease it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a lease stands in its life. An address without a lease is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseState {
    /// Given, but not yet confirmed: for as long as it takes to look whether anybody else uses the address, or until the
    /// owner has been moved to it.
    Reserved,
    /// Held.
    Bound,
    /// Given back, but not yet shown to be out of use.
    Draining,
    /// Shown to be out of use; rests before it is given again.
    Cooldown,
    /// Kept back for a while, because something that has no lease on it was seen to use it.
    Quarantined,
}

impl LeaseState {
    /// Every state, in the order of a lease's life.
    pub const ALL: [Self; 5] = [Self::Reserved, Self::Bound, Self::Draining, Self::Cooldown, Self::Quarantined];

    /// The state in one word, as the command line, the API and the store spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Bound => "bound",
            Self::Draining => "draining",
            Self::Cooldown => "cooldown",
            Self::Quarantined => "quarantined",
        }
    }

    /// Whether the owner may use the address.
    #[must_use]
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Reserved | Self::Bound)
    }
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One row of the allocator's book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Where the address is unique.
    pub domain: Domain,
    /// The address.
    pub address: Ipv4Addr,
    /// Who holds it.
    pub owner: Owner,
    /// For which of the owner's interfaces, if it was said: each has a lease of its own.
    pub interface: Option<IfName>,
    /// Which of the domain's leases it is.
    pub generation: Generation,
    /// Where it stands in its life.
    pub state: LeaseState,
    /// The contested address that the owner is being moved away from; set until the move is verified.
    pub replaces: Option<Ipv4Addr>,
}

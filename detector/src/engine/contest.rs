//! Who keeps a contested address.
//!
//! The order is total: the host's own addresses, whoever is outside and cannot be moved, an operator's pin, the lease holder,
//! the incumbent. All but the last are a right to the address; incumbency names a winner for people, but is no ground to
//! move anybody.

use std::{fmt, net::Ipv4Addr};

use super::incident::Party;
use crate::{
    net::{Generation, IfIndex, Lease, Owner},
    time::Span,
};

/// Who keeps the address, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    /// The winner's port; `None` if that cannot be said.
    pub winner: Option<IfIndex>,
    /// Why.
    pub reason: Reason,
    /// What the others hold.
    pub losers: Vec<Holding>,
}

/// What a loser holds in the domain, in a name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The loser's port.
    pub port: IfIndex,
    /// Its lease, by address and generation.
    pub lease: Option<(Ipv4Addr, Generation)>,
}

/// Why a contest ended as it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The address is the host's own.
    HostAddress,
    /// The winner is outside, where nobody can be moved.
    External,
    /// An operator has said whose the address is.
    Pinned {
        /// Whose.
        owner: Owner,
    },
    /// The winner holds the lease.
    LeaseHolder {
        /// In whose name.
        owner: Owner,
        /// Which lease.
        generation: Generation,
    },
    /// Both go by the name that holds the lease, and the winner came later: the other should be gone.
    NewerOfOwner {
        /// That name.
        owner: Owner,
        /// Which lease.
        generation: Generation,
    },
    /// Nobody holds a lease; the winner was there first, by this much.
    Incumbent {
        /// How much earlier the winner was seen.
        ahead: Span,
    },
    /// Nobody holds a lease and nobody is known to have been first.
    NoClearOwner,
    /// More than one sandbox goes by the lease holder's name.
    SharedOwner {
        /// That name.
        owner: Owner,
    },
}

/// What gives somebody a right to an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights<'a> {
    /// Whose it is by an operator's word.
    pub pinned: Option<&'a Owner>,
    /// The lease on it.
    pub lease: Option<&'a Lease>,
    /// Whether more than one sandbox, be it a party or not, goes by the lease owner's name.
    pub is_shared: bool,
}

impl Contest {
    /// `winner` keeps the address for this reason.
    pub(super) const fn new(winner: Option<IfIndex>, reason: Reason) -> Self {
        Self { winner, reason, losers: Vec::new() }
    }

    /// Decides among `parties`.
    #[must_use]
    pub fn decide(parties: &[Party], rights: Rights<'_>) -> Self {
        host(parties)
            .or_else(|| external(parties))
            .or_else(|| pinned(parties, rights.pinned))
            .or_else(|| lease_holder(parties, rights))
            .unwrap_or_else(|| incumbent(parties))
    }

    /// With what the losers hold of these leases.
    #[must_use]
    pub fn against(self, parties: &[Party], held: &[Lease]) -> Self {
        let lease_of = |party: &Party| held.iter().find(|lease| party.sandbox.owners.contains(&lease.owner));
        let holding = |party: &Party| Holding {
            port: party.station.port,
            lease: lease_of(party).map(|lease| (lease.address, lease.generation)),
        };
        let losers = parties.iter().filter(|party| self.winner.is_some_and(|winner| winner != party.station.port));
        Self { losers: losers.map(holding).collect(), ..self }
    }

    /// Whether the same one keeps the address, for the same reason.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        (self.winner, &self.reason) == (other.winner, &other.reason)
    }

    /// Whether the winner has a right to the address, so that the others may be moved.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.winner.is_some() && !matches!(self.reason, Reason::Incumbent { .. })
    }
}

fn host(parties: &[Party]) -> Option<Contest> {
    let host = parties.iter().find(|party| party.is_host)?;
    Some(Contest::new(Some(host.station.port), Reason::HostAddress))
}

/// Nobody outside can be moved, so whoever is here must.
fn external(parties: &[Party]) -> Option<Contest> {
    let external = parties.iter().find(|party| party.is_external)?;
    Some(Contest::new(Some(external.station.port), Reason::External))
}

fn pinned(parties: &[Party], pin: Option<&Owner>) -> Option<Contest> {
    let owner = pin?;
    let mut bearers = parties.iter().filter(|party| party.sandbox.owners.contains(owner));
    let bearer = bearers.next()?.station.port;
    Some(match bearers.next() {
        None => Contest::new(Some(bearer), Reason::Pinned { owner: owner.clone() }),
        Some(_) => Contest::new(None, Reason::SharedOwner { owner: owner.clone() }),
    })
}

fn lease_holder(parties: &[Party], rights: Rights<'_>) -> Option<Contest> {
    let Lease { owner, generation, .. } = rights.lease.filter(|lease| lease.state.is_held())?;
    let (owner, generation) = (owner.clone(), *generation);
    let holders: Vec<&Party> = parties.iter().filter(|party| party.sandbox.owners.contains(&owner)).collect();
    let winner = Some(holders.first()?.station.port);
    Some(match holders.as_slice() {
        [_] if !rights.is_shared => Contest::new(winner, Reason::LeaseHolder { owner, generation }),
        [_] => Contest::new(None, Reason::SharedOwner { owner }),
        several if several.iter().all(|party| party.sandbox.owners.first() == Some(&owner)) => {
            Contest::new(newest(several), Reason::NewerOfOwner { owner, generation })
        }
        _ => Contest::new(None, Reason::SharedOwner { owner }),
    })
}

/// Of those that were there before the agent, the one whose port was made later: the kernel counts interfaces up.
fn newest(parties: &[&Party]) -> Option<IfIndex> {
    let newest = parties.iter().max_by_key(|party| (!party.initial).then_some((party.first_seen, party.station)));
    let ports = parties.iter().map(|party| party.station.port);
    if parties.iter().all(|party| party.initial) { ports.max() } else { newest.map(|party| party.station.port) }
}

/// The one seen first, if that is known: of those that were there before the agent, nobody knows who was.
fn incumbent(parties: &[Party]) -> Contest {
    let mut by_age: Vec<&Party> = parties.iter().collect();
    by_age.sort_by_key(|party| (!party.initial, party.first_seen, party.station));
    match by_age.as_slice() {
        [first, second, ..] if !second.initial && second.first_seen > first.first_seen => {
            let ahead = second.first_seen.since(first.first_seen);
            Contest::new(Some(first.station.port), Reason::Incumbent { ahead })
        }
        _ => Contest::new(None, Reason::NoClearOwner),
    }
}

impl Reason {
    /// Whether a lease decides it.
    pub(super) const fn is_of_lease(&self) -> bool {
        matches!(self, Self::LeaseHolder { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostAddress => write!(f, "it is the host's own address"),
            Self::External => write!(f, "it is outside, where nobody can be moved"),
            Self::Pinned { owner } => write!(f, "an operator has pinned the address to {owner}"),
            Self::NewerOfOwner { owner, generation } => {
                write!(
                    f,
                    "more than one goes by the name {owner}, which holds lease generation {generation}, and it came last"
                )
            }
            Self::LeaseHolder { generation, .. } => write!(f, "holds lease generation {generation}"),
            Self::Incumbent { ahead } => {
                write!(f, "was there {ahead} before anybody else, and none of them holds a lease")
            }
            Self::NoClearOwner => write!(f, "none of them holds a lease, and it is not known who was first"),
            Self::SharedOwner { owner } => {
                write!(f, "it is {owner}'s, and more than one sandbox goes by that name")
            }
        }
    }
}

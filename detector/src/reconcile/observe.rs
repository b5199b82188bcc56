//! One observation: first the book, then the world.

use std::{collections::BTreeSet, net::Ipv4Addr, time::SystemTime};

use super::{Addresses, Evidence, Look, LookError};
use crate::{
    allocator::{Pool, Standing, Store, StoreError},
    net::{Ipv4Range, LeaseState},
};

/// How many addresses of a domain's pools are asked for one by one, besides those that are leased.
const ASKED: u64 = 4096;

/// What the book says, and what was seen afterwards.
#[derive(Clone, Debug)]
pub struct Observation {
    /// When it was begun.
    pub taken: SystemTime,
    /// The leases.
    pub standings: Vec<Standing>,
    /// What leases are given from.
    pub pools: Vec<Pool>,
    /// What was seen after these were read.
    pub evidence: Evidence,
}

/// Why nothing was observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The book cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing can be seen.
    #[error(transparent)]
    Look(#[from] LookError),
}

impl Observation {
    /// Reads the leases, and only then looks who uses addresses: a lease that is given in between is not in here, and so
    /// is not one that nobody uses.
    ///
    /// # Errors
    /// When the book cannot be read, or nothing can be seen at all.
    pub fn take(store: &dyn Store, looker: &dyn Look) -> Result<Self, ObserveError> {
        let taken = SystemTime::now();
        let (standings, pools) = (store.standings(None)?, store.pools()?);
        let evidence = looker.look(&to_ask(&standings, &pools))?;
        Ok(Self { taken, standings, pools, evidence })
    }
}

/// The leased addresses of every domain, and all that could be, where those are not too many.
fn to_ask(standings: &[Standing], pools: &[Pool]) -> Addresses {
    let mut asked = Addresses::new();
    for lease in standings.iter().map(|standing| &standing.lease) {
        let addresses = asked.entry(lease.domain).or_default();
        if lease.state.is_held() || lease.state == LeaseState::Draining {
            addresses.insert(lease.address);
        }
    }
    for pool in pools {
        asked.entry(pool.domain()).or_default().extend(every(pool));
    }
    asked
}

fn every(pool: &Pool) -> BTreeSet<Ipv4Addr> {
    let range = Ipv4Range::from(pool.subnet());
    if range.count() > ASKED {
        return BTreeSet::new();
    }
    range.bits().map(Ipv4Addr::from_bits).filter(|address| pool.can_lease(*address)).collect()
}

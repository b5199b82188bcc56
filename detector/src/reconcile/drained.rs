//! Lets rest what drains, where no agent does.

use std::collections::BTreeSet;

use super::{Addresses, Look, ObserveError, unproven};
use crate::{
    allocator::{Change, Fence, Standing, Store},
    net::{Domain, LeaseState},
    time::Span,
};

/// Lets every lease of `domain` rest that drains and that two looks, one after the other, prove to be used by nobody. How
/// many those were.
///
/// # Errors
/// When the book cannot be read or written, or nothing can be seen at all.
pub fn retire_drained(store: &dyn Store, looker: &impl Look, domain: Domain) -> Result<usize, ObserveError> {
    // Late reservations drain from here on.
    store.draining()?;
    let mut unused = store.standings(Some(domain))?;
    unused.retain(|standing| standing.lease.state == LeaseState::Draining);
    for _ in 0..2 {
        unused = still_unused(looker, domain, unused)?;
    }
    let retire = |standing: &Standing| Ok(matches!(store.retire(&Fence::from(&standing.lease))?, Change::Applied(_)));
    let retired = unused.iter().map(retire).collect::<Result<Vec<_>, ObserveError>>()?;
    Ok(retired.into_iter().filter(|retired| *retired).count())
}

fn still_unused(looker: &impl Look, domain: Domain, mut drained: Vec<Standing>) -> Result<Vec<Standing>, ObserveError> {
    if drained.is_empty() {
        return Ok(drained);
    }
    let asked: BTreeSet<_> = drained.iter().map(|standing| standing.lease.address).collect();
    let evidence = looker.look(&Addresses::from([(domain, asked)]))?;
    drained.retain(|standing| unproven(standing, &evidence, Span::ZERO).is_none());
    Ok(drained)
}

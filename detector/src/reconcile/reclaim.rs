//! Takes back what nothing uses, each lease after a look of its own.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Addresses, Look, ObserveError, Row, unproven};
use crate::{
    allocator::{Change, Fence, Standing, Store, StoreError},
    net::Lease,
    time::Span,
};

/// What was done with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// It rests now.
    Reclaimed,
    /// It would rest now, if this were not only for show.
    WouldReclaim,
    /// It was given back, but then something was seen; it drains.
    Drains,
    /// Nothing was changed.
    LeftAlone,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// What was done.
    pub deed: Deed,
    /// Why.
    pub reason: String,
    /// The row.
    pub row: Row,
}

impl Deed {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reclaimed => "reclaimed",
            Self::WouldReclaim => "would_reclaim",
            Self::Drains => "drains",
            Self::LeftAlone => "left_alone",
        }
    }
}

/// Takes back what the report's rows call reclaimable, as far as that is so now: the lease must still be the one that is
/// named, in the same state, for longer than `grace`, and a look right now must prove that nothing uses it. A row is
/// never more than a pointer at a lease: whatever else is written in it is not believed.
///
/// With `dry_run` nothing is changed. `tell` is told how many rows are done, after each.
///
/// # Errors
/// When the book cannot be read or written, or nothing can be seen at all. What was done before that stays done.
pub fn reclaim(
    store: &dyn Store,
    looker: &dyn Look,
    rows: &[Row],
    grace: Span,
    dry_run: bool,
    mut tell: impl FnMut(usize),
) -> Result<Vec<Outcome>, ObserveError> {
    let marked = rows.iter().filter(|row| row.reclaimable);
    let mut outcome = |(done, row): (usize, &Row)| {
        let (deed, reason) = one(store, looker, row, grace, dry_run)?;
        tell(done + 1);
        Ok(Outcome { deed, reason, row: row.clone() })
    };
    marked.enumerate().map(&mut outcome).collect()
}

type Done = (Deed, String);

fn one(store: &dyn Store, looker: &dyn Look, row: &Row, grace: Span, dry_run: bool) -> Result<Done, ObserveError> {
    let Some(fence) = row.fence() else { return Ok(left("the row names no lease")) };
    let standing = match current(store, &fence, row)? {
        Ok(standing) => standing,
        Err(why) => return Ok(left(why)),
    };
    if let Some(why) = looked(looker, &standing, grace)? {
        return Ok(left(why));
    }
    if dry_run {
        return Ok((Deed::WouldReclaim, "nothing uses it".to_owned()));
    }
    take_back(store, looker, &fence, standing)
}

/// The lease as the book has it now, or why it is not the one in the row.
fn current(store: &dyn Store, fence: &Fence, row: &Row) -> Result<Result<Standing, String>, StoreError> {
    let standings = store.standings(Some(fence.domain))?;
    let Some(standing) = standings.into_iter().find(|standing| standing.lease.address == fence.address) else {
        return Ok(Err("the address has no lease".to_owned()));
    };
    let Lease { owner, generation, state, .. } = &standing.lease;
    if !fence.names(&standing.lease) {
        return Ok(Err(format!("the address has another lease: {owner}, generation {generation}, state {state}")));
    }
    if row.state.as_deref() != Some(state.as_str()) {
        return Ok(Err(format!("the lease is in state {state} now")));
    }
    Ok(match state.is_held() || *state == crate::net::LeaseState::Draining {
        true => Ok(standing),
        false => Err(format!("there is nothing to take back in state {state}")),
    })
}

/// A held lease is given back before the last look: should its owner come for it in between, it gets another address,
/// and not this one once more while it is being taken away.
fn take_back(store: &dyn Store, looker: &dyn Look, fence: &Fence, standing: Standing) -> Result<Done, ObserveError> {
    if standing.lease.state.is_held() {
        let Change::Applied(lease) = store.release(fence)? else {
            return Ok(left("it was changed in this moment"));
        };
        // Time began anew when it was given back.
        if let Some(why) = looked(looker, &Standing { lease, left: None, ..standing }, Span::ZERO)? {
            return Ok((Deed::Drains, format!("given back, and drains: {why}")));
        }
    }
    Ok(match store.retire(fence)? {
        Change::Applied(_) => (Deed::Reclaimed, "nothing uses it".to_owned()),
        Change::Fenced { .. } => left("it was changed in this moment"),
    })
}

/// Looks anew, at this one address. Why it is not proven that nothing uses it; `None` if it is.
fn looked(looker: &dyn Look, standing: &Standing, grace: Span) -> Result<Option<String>, ObserveError> {
    let lease = &standing.lease;
    let asked: BTreeSet<_> = [lease.address].into_iter().chain(lease.replaces).collect();
    let evidence = looker.look(&Addresses::from([(lease.domain, asked)]))?;
    Ok(unproven(standing, &evidence, grace))
}

fn left(why: impl Into<String>) -> Done {
    (Deed::LeftAlone, why.into())
}

#[cfg(test)]
#[path = "reclaim_tests.rs"]
mod tests;

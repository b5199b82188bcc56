//! How leases are given: by the next free address, to be used at once, after a look, or by whoever is moved there.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::book::{Book, Stay};
use crate::{
    allocator::{AdoptError, AllocateError, Pool, StoreError, Wish},
    net::{Domain, Generation, IfName, Ipv4Net, Lease, LeaseState, Owner},
    time::Span,
};

/// What the one who asked holds already, or a new lease: bound, or reserved for a time.
pub(super) fn allocate(book: &Book<'_>, wish: &Wish, hold_for: Option<Span>) -> Result<Lease, AllocateError> {
    let held = book.held(wish.domain, &wish.owner)?.into_iter().find(|lease| lease.interface == wish.interface);
    match held {
        Some(lease) if !wish.reaches(lease.address) => Err(AllocateError::HoldsAnother(lease.into())),
        Some(lease) => Ok(confirm(book, lease, hold_for)?),
        None => Ok(give(book, wish, hold_for)?),
    }
}

/// A reservation is prolonged, or bound; what is bound, or on its way to be by a move, stays as it is.
fn confirm(book: &Book<'_>, lease: Lease, hold_for: Option<Span>) -> Result<Lease, StoreError> {
    let from = lease.state;
    match hold_for {
        _ if from != LeaseState::Reserved || lease.replaces.is_some() => Ok(lease),
        Some(span) => book.turn("reserve", from, lease, "was asked for again", Stay::Reserved(span)),
        None => {
            let bound = Lease { state: LeaseState::Bound, ..lease };
            book.turn("allocate", from, bound, "was asked for again", Stay::Open)
        }
    }
}

fn give(book: &Book<'_>, wish: &Wish, hold_for: Option<Span>) -> Result<Lease, AllocateError> {
    let lease = bound(wish.domain, next_free(book, wish)?, &wish.owner, wish.interface);
    let granted = match hold_for {
        None => book.grant("allocate", lease, "was asked for", Stay::Open),
        Some(span) => {
            let reserved = Lease { state: LeaseState::Reserved, ..lease };
            book.grant("reserve", reserved, "was asked for", Stay::Reserved(span))
        }
    };
    Ok(granted?)
}

/// Moves `owner` away from `contested`; see `Store::reallocate`.
pub(super) fn reallocate(
    book: &Book<'_>,
    domain: Domain,
    owner: &Owner,
    contested: Ipv4Addr,
    avoid: &BTreeSet<Ipv4Addr>,
) -> Result<Lease, AllocateError> {
    let within = network_of(book, domain, contested)?;
    let mut avoid = avoid.clone();
    avoid.insert(contested);
    let (there, elsewhere): (Vec<_>, Vec<_>) =
        book.held(domain, owner)?.into_iter().partition(|lease| lease.address == contested);
    // Who holds a lease on the contested address has not been moved from it yet: what it holds elsewhere is for another of
    // its interfaces.
    if there.is_empty()
        && let Some(held) = useful(&elsewhere, contested, within, &avoid)
    {
        return Ok(move_to(book, held.clone(), contested)?);
    }
    match (there.into_iter().next(), elsewhere.into_iter().next()) {
        (None, Some(useless)) => Err(AllocateError::HoldsUseless(useless.into())),
        (lease, _) => {
            let interface = lease.as_ref().and_then(|lease| lease.interface);
            lease.map_or(Ok(()), |lease| drain(book, lease))?;
            let wish = Wish { domain, owner: owner.clone(), interface, within: vec![within.into()], avoid };
            let lease = bound(domain, next_free(book, &wish)?, owner, interface);
            let reserved = Lease { state: LeaseState::Reserved, replaces: Some(contested), ..lease };
            Ok(book.grant("reallocate", reserved, "its owner is moved here", Stay::Open)?)
        }
    }
}

/// The lease that the owner has elsewhere already, perhaps from an attempt that did not live to see it: it gets no
/// second one. It is of no use if others have it, or if it is in another network.
fn useful<'a>(
    elsewhere: &'a [Lease],
    contested: Ipv4Addr,
    within: Ipv4Net,
    avoid: &BTreeSet<Ipv4Addr>,
) -> Option<&'a Lease> {
    let useful = |lease: &&Lease| within.contains(&lease.address) && !avoid.contains(&lease.address);
    let begun = elsewhere.iter().filter(useful).filter(|lease| lease.replaces == Some(contested));
    begun.max_by_key(|lease| lease.generation).or_else(|| elsewhere.iter().find(useful))
}

fn move_to(book: &Book<'_>, lease: Lease, contested: Ipv4Addr) -> Result<Lease, StoreError> {
    if lease.replaces == Some(contested) {
        return Ok(lease);
    }
    let from = lease.state;
    let moving = Lease { state: LeaseState::Reserved, replaces: Some(contested), ..lease };
    book.turn("reallocate", from, moving, "its owner is moved here, where it holds a lease", Stay::Open)
}

fn drain(book: &Book<'_>, lease: Lease) -> Result<(), StoreError> {
    let from = lease.state;
    let drained = Lease { state: LeaseState::Draining, replaces: None, ..lease };
    book.turn("reallocate", from, drained, "its owner is moved away", Stay::Open).map(drop)
}

/// Writes down whom an address was found with; see `Store::adopt`.
pub(super) fn adopt(
    book: &Book<'_>,
    domain: Domain,
    address: Ipv4Addr,
    owner: &Owner,
    interface: Option<IfName>,
) -> Result<Lease, AdoptError> {
    if !book.pools(domain)?.iter().any(|pool| pool.can_lease(address)) {
        return Err(AdoptError::NotInPool { domain, address });
    }
    let held = book.held(domain, owner)?;
    if let Some(lease) = held.iter().find(|lease| lease.address == address) {
        return Ok(find_alive(book, lease.clone())?);
    }
    // Without an interface's name it cannot be told which of the owner's leases is meant.
    let same = |lease: &Lease| interface.is_none() || lease.interface.is_none() || lease.interface == interface;
    match (held.into_iter().find(same), book.on_address(domain, address)?) {
        (Some(held), _) => Err(AdoptError::HoldsAnother(held.into())),
        (None, Some(row)) if !matches!(row.state, LeaseState::Cooldown | LeaseState::Quarantined) => {
            Err(AdoptError::Leased(row.into()))
        }
        (None, _) => {
            Ok(book.grant("adopt", bound(domain, address, owner, interface), "was found alive", Stay::Open)?)
        }
    }
}

/// A reservation is confirmed by it, so that it does not run out; a move is not, which has to be verified.
fn find_alive(book: &Book<'_>, lease: Lease) -> Result<Lease, StoreError> {
    if lease.state != LeaseState::Reserved || lease.replaces.is_some() {
        return Ok(lease);
    }
    book.turn("adopt", LeaseState::Reserved, Lease { state: LeaseState::Bound, ..lease }, "was found alive", Stay::Open)
}

fn next_free(book: &Book<'_>, wish: &Wish) -> Result<Ipv4Addr, AllocateError> {
    match book.next_free(wish)? {
        Some(address) => Ok(address),
        None => Err(book.shortage(wish)?),
    }
}

/// The network that an address's owner is moved within: in another its gateway would be out of reach.
fn network_of(book: &Book<'_>, domain: Domain, address: Ipv4Addr) -> Result<Ipv4Net, AllocateError> {
    let pools = book.pools(domain)?;
    let pool = pools.iter().find(|pool| pool.subnet().contains(&address));
    pool.map(Pool::subnet).ok_or(AllocateError::NoPool(domain))
}

fn bound(domain: Domain, address: Ipv4Addr, owner: &Owner, interface: Option<IfName>) -> Lease {
    let (owner, generation, state) = (owner.clone(), Generation(0), LeaseState::Bound);
    Lease { domain, address, owner, interface, generation, state, replaces: None }
}

//! The look before an address is handed out: nobody gets one that somebody uses.

use std::net::Ipv4Addr;

use super::{AllocateError, Change, Fence, Quarantine, Store, StoreError, Wish};
use crate::{
    net::{Domain, Lease, LeaseState, Mac, Owner},
    time::Span,
};

/// How many addresses in a row may turn out to be in use before the search is given up.
const TRIES: usize = 1024;

/// Somebody who can see whether an address is in use, whatever the book says.
pub trait Witness {
    /// Who besides `owner` uses `address`, as far as can be seen; `None` if nobody does.
    ///
    /// # Errors
    /// When it cannot be seen.
    fn user_of(&self, domain: Domain, address: Ipv4Addr, owner: &Owner) -> Result<Option<User>, Unwitnessed>;
}

/// Somebody who uses an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Its hardware address.
    pub mac: Mac,
    /// What shows it, for the journal: `answered a probe`.
    pub shown_by: &'static str,
}

/// It could not be seen whether an address is in use, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unwitnessed(pub String);

/// How long things last that end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A reservation that nobody confirms.
    pub reservation: Span,
    /// A quarantine.
    pub quarantine: Span,
}

impl Default for Terms {
    /// Half a minute for a reservation, ten minutes for a quarantine.
    fn default() -> Self {
        Self { reservation: Span::from_secs(30), quarantine: Span::from_secs(600) }
    }
}

/// The lease of whom `wish` names: the one that is held already, or a new one on an address that `witness` has seen
/// nobody use. An address that is in use is quarantined, and the next one tried.
///
/// Whoever dies in here leaves a reservation, which the same owner gets when it asks again, and which drains if it does
/// not.
///
/// # Errors
/// As [`Store::allocate`]; and when the witness cannot see.
pub fn hand_out(store: &dyn Store, wish: &Wish, witness: &dyn Witness, terms: Terms) -> Result<Lease, AllocateError> {
    for _ in 0..TRIES {
        let lease = store.reserve(wish, terms.reservation)?;
        if lease.state == LeaseState::Bound || lease.replaces.is_some() {
            return Ok(lease);
        }
        if let Some(lease) = judge(store, &lease, witness, terms)? {
            return Ok(lease);
        }
    }
    Err(AllocateError::Exhausted { domain: wish.domain, ready_in: None, in_use: TRIES as u64 })
}

/// The lease, bound, if nobody uses its address.
fn judge(
    store: &dyn Store,
    lease: &Lease,
    witness: &dyn Witness,
    terms: Terms,
) -> Result<Option<Lease>, AllocateError> {
    let fence = Fence::from(lease);
    match witness.user_of(lease.domain, lease.address, &lease.owner) {
        Ok(None) => Ok(applied(store.bind(&fence)?)),
        Ok(Some(User { mac, shown_by })) => {
            let reason = format!("{mac} {shown_by}");
            store.quarantine(&fence, &Quarantine { mac, reason, lasts: terms.quarantine })?;
            Ok(None)
        }
        Err(blind) => {
            give_back(store, &fence);
            Err(blind.into())
        }
    }
}

/// What was reserved may have been released meanwhile; then the search goes on.
fn applied(change: Change) -> Option<Lease> {
    match change {
        Change::Applied(lease) => Some(lease),
        Change::Fenced { .. } => None,
    }
}

/// If this fails too, the reservation's deadline does the same.
fn give_back(store: &dyn Store, fence: &Fence) {
    let _: Result<Change, StoreError> = store.release(fence);
}

//! What does not fit between leases and evidence. Pure: it looks nowhere and changes nothing.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{Evidence, Observation, User};
use crate::{
    allocator::{Fence, Standing},
    net::{Domain, Generation, Lease, LeaseState, VlanId},
    time::Span,
};

/// What does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// More than one sandbox uses the address: one row for each.
    SeveralOwners,
    /// A held lease, whose address is used by a sandbox that does not go by the owner's name.
    UsedByAnother,
    /// An address of a pool that is in use and that nobody holds.
    InUseWithoutLease,
    /// A held lease that nothing uses.
    LeaseWithoutUser,
    /// A reservation whose time is over, or a move whose sandbox is gone.
    StaleReservation,
    /// Given back, and waiting for proof that nothing uses it any more.
    Draining,
}

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What it is.
    pub kind: Kind,
    /// The bridge.
    pub bridge: String,
    /// The VLAN on it; null is what goes untagged.
    pub vlan: Option<u16>,
    /// The address.
    pub address: Ipv4Addr,
    /// In whose name the lease is; null if there is none.
    pub owner: Option<String>,
    /// For which of the owner's interfaces.
    pub interface: Option<String>,
    /// Which of the domain's leases.
    pub generation: Option<u64>,
    /// The lease's state.
    pub state: Option<String>,
    /// Who uses the address.
    pub user: Option<User>,
    /// Whether the lease is in the user's name.
    pub holds_lease: bool,
    /// Whether it is proven that nothing uses the lease.
    pub reclaimable: bool,
    /// Why it is listed, or why it may not be reclaimed.
    pub reason: String,
}

impl Kind {
    /// The word for it, as reports have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SeveralOwners => "several_owners",
            Self::UsedByAnother => "used_by_another",
            Self::InUseWithoutLease => "in_use_without_lease",
            Self::LeaseWithoutUser => "lease_without_user",
            Self::StaleReservation => "stale_reservation",
            Self::Draining => "draining",
        }
    }
}

impl Row {
    /// The lease's full name; `None` if the row names none, or none that can be.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        let vlan = self.vlan.map(|id| VlanId::new(id).ok_or(())).transpose().ok()?;
        let domain = Domain { bridge: self.bridge.parse().ok()?, vlan };
        let (owner, generation) = (self.owner.as_ref()?.parse().ok()?, Generation(self.generation?));
        Some(Fence { domain, address: self.address, owner, generation })
    }

    fn new(kind: Kind, domain: Domain, address: Ipv4Addr, lease: Option<&Lease>) -> Self {
        Self {
            kind,
            bridge: domain.bridge.to_string(),
            vlan: domain.vlan.map(VlanId::get),
            address,
            owner: lease.map(|lease| lease.owner.to_string()),
            interface: lease.and_then(|lease| lease.interface).map(|name| name.to_string()),
            generation: lease.map(|lease| lease.generation.0),
            state: lease.map(|lease| lease.state.to_string()),
            user: None,
            holds_lease: false,
            reclaimable: false,
            reason: String::new(),
        }
    }

    fn used(self, user: User, reason: String) -> Self {
        let holds_lease = self.owner.as_ref().is_some_and(|owner| user.known_as.contains(owner));
        Self { holds_lease, user: Some(user), reason, ..self }
    }

    fn judged(self, verdict: Option<String>) -> Self {
        let reclaimable = verdict.is_none();
        Self { reclaimable, reason: verdict.unwrap_or_else(|| "nothing uses it".to_owned()), ..self }
    }
}

/// Everything that does not fit, by domain and address. Leases that have been as they are for less than `grace` may
/// belong to sandboxes that are still being made, and are never reclaimable.
#[must_use]
pub fn compare(seen: &Observation, grace: Span) -> Vec<Row> {
    let of_leases = seen.standings.iter().flat_map(|standing| of_lease(standing, &seen.evidence, grace));
    let mut rows: Vec<Row> = of_leases.chain(without_lease(seen)).collect();
    rows.sort_by(|a, b| (&a.bridge, a.vlan, a.address, a.kind).cmp(&(&b.bridge, b.vlan, b.address, b.kind)));
    rows
}

/// Why it is not proven that nothing uses the lease; `None` if it is.
#[must_use]
pub fn unproven(standing: &Standing, evidence: &Evidence, grace: Span) -> Option<String> {
    let Standing { lease, since, left, .. } = standing;
    let Lease { domain, address, .. } = *lease;
    if let Some(user) = evidence.users_of(domain, address).first() {
        return Some(format!("{} uses it", user.called()));
    }
    if let Some(hint) = evidence.of(domain, address).next() {
        return Some(format!("the host has heard of {} there lately", hint.mac));
    }
    if let Some(owner) = left_behind(lease, evidence) {
        return Some(format!("{} is still to be moved to it", owner.called()));
    }
    if let Some(gap) = evidence.gaps_in(domain).next() {
        return Some(format!("cannot look at {}", gap.what));
    }
    if lease.state == LeaseState::Reserved && left.is_some_and(|left| left > Span::ZERO) {
        return Some("reserved, and its time is not over".to_owned());
    }
    (*since < grace).then(|| format!("{} for only {since}: less than the grace of {grace}", lease.state))
}

/// Who is being moved to the lease, if it still uses the address that it is to leave. One that cannot be called by any
/// name may be it.
fn left_behind(lease: &Lease, evidence: &Evidence) -> Option<User> {
    let may_be = |user: &User| user.known_as.is_empty() || user.known_as.contains(lease.owner.as_str());
    evidence.users_of(lease.domain, lease.replaces?).into_iter().find(may_be)
}

fn of_lease(standing: &Standing, evidence: &Evidence, grace: Span) -> Vec<Row> {
    let lease = &standing.lease;
    let row = |kind| Row::new(kind, lease.domain, lease.address, Some(lease));
    let users = evidence.users_there(lease.domain, lease.address);
    let several = if users.len() > 1 { several(&row(Kind::SeveralOwners), &users) } else { Vec::new() };
    let judged = |kind| row(kind).judged(unproven(standing, evidence, grace));
    let more = match lease.state {
        LeaseState::Draining => Some(judged(Kind::Draining)),
        LeaseState::Reserved | LeaseState::Bound => match users.as_slice() {
            [] => unused(standing, evidence).map(judged),
            [user] => used(row(Kind::UsedByAnother), user, lease),
            _ => None,
        },
        LeaseState::Cooldown | LeaseState::Quarantined => return Vec::new(),
    };
    several.into_iter().chain(more).collect()
}

/// What a held lease is that nobody on the bridge uses.
fn unused(standing: &Standing, evidence: &Evidence) -> Option<Kind> {
    let Standing { lease, left, .. } = standing;
    let is_owner = |user: &User| user.known_as.contains(lease.owner.as_str());
    if evidence.users_of(lease.domain, lease.address).iter().any(is_owner) {
        return None;
    }
    match lease.replaces {
        Some(_) if left_behind(lease, evidence).is_some() => None,
        Some(_) => Some(Kind::StaleReservation),
        None if lease.state == LeaseState::Reserved && *left == Some(Span::ZERO) => Some(Kind::StaleReservation),
        None => Some(Kind::LeaseWithoutUser),
    }
}

/// A sandbox that has no name may be the owner.
fn used(row: Row, user: &User, lease: &Lease) -> Option<Row> {
    let is_another = user.host || !user.known_as.is_empty() && !user.known_as.contains(lease.owner.as_str());
    let reason = format!("{} uses what {} holds", user.called(), lease.owner);
    is_another.then(|| row.used(user.clone(), reason))
}

fn several(row: &Row, users: &[User]) -> Vec<Row> {
    let reason = format!("{} use it", users.len());
    users.iter().map(|user| row.clone().used(user.clone(), reason.clone())).collect()
}

/// What is in use on a bridge, can be leased there, and is held by nobody.
fn without_lease(seen: &Observation) -> Vec<Row> {
    let leased = seen.standings.iter().map(|standing| &standing.lease);
    let live = leased.filter(|lease| lease.state.is_held() || lease.state == LeaseState::Draining);
    let live: BTreeSet<_> = live.map(|lease| (lease.domain, lease.address)).collect();
    let used: BTreeSet<Ipv4Addr> = seen.evidence.sightings.iter().map(|seen| seen.address).collect();
    let in_pool = |pool: &crate::allocator::Pool| {
        let domain = pool.domain();
        let open = used.iter().filter(|address| pool.can_lease(**address) && !live.contains(&(domain, **address)));
        open.map(|address| (domain, *address)).collect::<Vec<_>>()
    };
    seen.pools.iter().flat_map(in_pool).flat_map(|(domain, address)| unheld(seen, domain, address)).collect()
}

fn unheld(seen: &Observation, domain: Domain, address: Ipv4Addr) -> Vec<Row> {
    let last = seen.standings.iter().map(|of| &of.lease).find(|of| (of.domain, of.address) == (domain, address));
    let users = seen.evidence.users_there(domain, address);
    match users.as_slice() {
        [] => Vec::new(),
        [user] => {
            let reason = format!("{} uses it, and nobody holds it", user.called());
            vec![Row::new(Kind::InUseWithoutLease, domain, address, last).used(user.clone(), reason)]
        }
        several_users => several(&Row::new(Kind::SeveralOwners, domain, address, last), several_users),
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;

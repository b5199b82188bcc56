//! Changes of state that are made to one lease, the one that is named, or not at all.

use super::book::{Book, Stay};
use crate::{
    allocator::{Change, Fence, Quarantine, StoreError},
    net::{Lease, LeaseState},
};

/// From which states a lease comes to which.
pub(super) struct Step {
    op: &'static str,
    reason: &'static str,
    from: fn(LeaseState) -> bool,
    to: LeaseState,
}

pub(super) const BIND: Step =
    Step { op: "bind", reason: "the owner uses it", from: LeaseState::is_held, to: LeaseState::Bound };

pub(super) const RELEASE: Step =
    Step { op: "release", reason: "was given back", from: LeaseState::is_held, to: LeaseState::Draining };

pub(super) const RETIRE: Step = Step {
    op: "retire",
    reason: "was shown to be out of use",
    from: |state| matches!(state, LeaseState::Draining),
    to: LeaseState::Cooldown,
};

pub(super) const DISCARD: Step = Step {
    op: "discard",
    reason: "by an operator's force, without proof that it is out of use",
    from: |state| !matches!(state, LeaseState::Cooldown),
    to: LeaseState::Cooldown,
};

/// Not out of what drains, which would come free when the quarantine is over, without proof that its holder is gone.
pub(super) const QUARANTINE: Step = Step {
    op: "quarantine",
    reason: "something without a lease uses it",
    from: |state| !matches!(state, LeaseState::Bound | LeaseState::Draining),
    to: LeaseState::Quarantined,
};

impl Step {
    /// Takes the lease that `fence` names to the step's state; what it is to stay there for stands in `seen`.
    pub(super) fn take(&self, book: &Book<'_>, fence: &Fence, seen: Option<&Quarantine>) -> Result<Change, StoreError> {
        match book.on_address(fence.domain, fence.address)? {
            None => self.refuse(book, fence, None, "there is no lease"),
            Some(row) if !fence.names(&row) => self.refuse(book, fence, Some(row), "the address has another lease"),
            Some(row) if !(self.from)(row.state) => {
                self.refuse(book, fence, Some(row), "the lease is in another state")
            }
            Some(row) if row.state == self.to && seen.is_none() => Ok(Change::Applied(row)),
            Some(row) => self.make(book, row, seen).map(Change::Applied),
        }
    }

    fn make(&self, book: &Book<'_>, row: Lease, seen: Option<&Quarantine>) -> Result<Lease, StoreError> {
        let from = row.state;
        let (reason, stay) =
            seen.map_or((self.reason, Stay::Open), |seen| (seen.reason.as_str(), Stay::Quarantined(seen)));
        book.turn(self.op, from, Lease { state: self.to, replaces: None, ..row }, reason, stay)
    }

    fn refuse(
        &self,
        book: &Book<'_>,
        fence: &Fence,
        current: Option<Lease>,
        reason: &str,
    ) -> Result<Change, StoreError> {
        book.fenced(self.op, fence, current.as_ref(), reason)?;
        Ok(Change::Fenced { current })
    }
}

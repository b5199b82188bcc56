//! Moving one loser away, step by step.
//!
//! An eviction is a row of steps. Each asks for one action and is left only when that action has succeeded, or, for the
//! last look, when the wire has shown it. A failed step is tried again after a while, for as long as the incident is open:
//! every step can be done twice without harm. What must not be lost is on disk before the sandbox is touched: the first
//! step writes the new lease with the address it replaces, and the last one clears that mark.

use super::output::ActionId;
use crate::{
    net::{Lease, Owner},
    time::{Span, Timestamp},
};

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A new lease is written to disk.
    Reallocate,
    /// The address is changed in the sandbox's namespace.
    Readdress,
    /// The domain is told who has the new address.
    AnnounceNew,
    /// The domain is told who has kept the contested address.
    AnnounceKept,
    /// Probes show one owner for each address.
    Verify,
    /// The lease is marked as in use.
    Bind,
    /// Nothing is left to do.
    Done,
}

impl Step {
    /// The step in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reallocate => "reallocate",
            Self::Readdress => "readdress",
            Self::AnnounceNew => "announce_new",
            Self::AnnounceKept => "announce_kept",
            Self::Verify => "verify",
            Self::Bind => "bind",
            Self::Done => "done",
        }
    }
}

/// How far a loser has been moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// In whose name its new lease is.
    pub owner: Owner,
    /// The step it is at.
    pub step: Step,
    /// The new lease, once it is on disk.
    pub lease: Option<Lease>,
    /// Every step that succeeded, with the time.
    pub taken: Vec<(Step, Timestamp)>,
    /// Why the last attempt failed, until one succeeds.
    pub failure: Option<String>,
    pub(super) waits_for: Option<ActionId>,
    pub(crate) attempts: u8,
    /// Set while the wire is being watched: when the first probe went out, and how many have.
    pub(super) watch: Option<Watch>,
}

/// The last look: what is said on the wire from `since` on counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) since: Timestamp,
    pub(super) probes: u8,
}

/// How many probes go out for each address before the wire's answer counts; one alone may be lost.
pub(super) const VERIFY_PROBES: u8 = 3;
/// How long answers to one probe are waited for. A sandbox's kernel answers within microseconds; a loaded two-core runner
/// has been seen to take milliseconds.
pub(super) const VERIFY_WAIT: Span = Span::from_millis(15);

impl Eviction {
    pub(super) fn new(owner: Owner) -> Self {
        let (step, lease) = (Step::Reallocate, None);
        Self { owner, step, lease, taken: Vec::new(), failure: None, waits_for: None, attempts: 0, watch: None }
    }

    /// An eviction whose lease was written before the agent was last stopped.
    pub(super) fn resumed(lease: Lease) -> Self {
        Self { step: Step::Readdress, lease: Some(lease.clone()), ..Self::new(lease.owner) }
    }

    /// As it was written down, but for what it waited for: that has no answer any more.
    pub(crate) fn restored(
        owner: Owner,
        step: Step,
        lease: Option<Lease>,
        taken: Vec<(Step, Timestamp)>,
        failure: Option<String>,
        attempts: u8,
    ) -> Self {
        Self { step, lease, taken, failure, attempts, ..Self::new(owner) }
    }

    /// Goes on to the step after this one.
    pub(super) fn advance(&mut self, now: Timestamp) -> Step {
        let done = self.step;
        self.taken.push((done, now));
        self.step = match done {
            Step::Reallocate => Step::Readdress,
            Step::Readdress => Step::AnnounceNew,
            Step::AnnounceNew => Step::AnnounceKept,
            Step::AnnounceKept => Step::Verify,
            Step::Verify => Step::Bind,
            Step::Bind | Step::Done => Step::Done,
        };
        (self.failure, self.watch) = (None, None);
        done
    }

    /// Notes a failure and says how long to wait before the next attempt.
    pub(super) fn fail(&mut self, failure: String) -> Span {
        self.failure = Some(failure);
        (self.waits_for, self.watch) = (None, None);
        // What did not hold on the wire was not done right in the sandbox: do it again from there.
        if self.step == Step::Verify {
            self.step = Step::Readdress;
        }
        backoff(&mut self.attempts)
    }
}

/// 100 ms, twice as long after each failure, at most 51 s.
pub(super) fn backoff(attempts: &mut u8) -> Span {
    let wait = Span::from_millis(100).saturating_mul(1 << (*attempts).min(9));
    *attempts = attempts.saturating_add(1);
    wait
}

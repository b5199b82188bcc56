//! What is done about one loser, step by step.
//!
//! An eviction is a row of steps. Each asks for one action and is left only when that action has succeeded, or, for the
//! last look, when the wire has shown it. What is known of the incident is on disk before each step; every step can be
//! done twice without harm, so whoever finds the record goes on from it. A failed step is tried again after a while, so
//! many times: then what was given is given back, and the loser stays contained.

use super::{output::ActionId, ways::Way};
use crate::{
    net::{Lease, Owner},
    time::{Span, Timestamp},
};

/// The steps. Those up to [`Readdress`](Self::Readdress) leave the sandbox as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The loser's claims to the contested address are dropped at its port.
    Contain,
    /// That was all that is to be done: the loser is contained until it lets go.
    Contained,
    /// It could not be done; the loser is contained, if that could be done.
    Failed,
    /// The orchestrator is asked to replace the sandbox.
    Recycle,
    /// The sandbox is to go.
    AwaitGone,
    /// A new lease is written to disk.
    Reallocate,
    /// The address is changed in the sandbox's namespace.
    Readdress,
    /// The domain is told who has the new address.
    AnnounceNew,
    /// The domain is told who has kept the contested address.
    AnnounceKept,
    /// Connections from the address that the sandbox does not have any more are ended.
    DestroySockets,
    /// Probes show one owner for each address.
    Verify,
    /// The lease is marked as in use.
    Bind,
    /// The loser's port is free again.
    Release,
    /// Nothing is left to do.
    Done,
}

impl Step {
    /// The step in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Contain => "contain",
            Self::Contained => "contained",
            Self::Failed => "failed",
            Self::Recycle => "recycle",
            Self::AwaitGone => "await_gone",
            Self::Reallocate => "reallocate",
            Self::Readdress => "readdress",
            Self::AnnounceNew => "announce_new",
            Self::AnnounceKept => "announce_kept",
            Self::DestroySockets => "destroy_sockets",
            Self::Verify => "verify",
            Self::Bind => "bind",
            Self::Release => "release",
            Self::Done => "done",
        }
    }

    /// Whether nothing goes on by itself from here.
    #[must_use]
    pub const fn is_at_rest(self) -> bool {
        matches!(self, Self::Contained | Self::Failed | Self::Done)
    }

    const fn after(self, way: Way) -> Self {
        match (self, way) {
            (Self::Contain, Way::Readdress) => Self::Reallocate,
            (Self::Contain, Way::Recycle) => Self::Recycle,
            (Self::Contain | Self::Contained, _) => Self::Contained,
            (Self::Failed, _) => Self::Failed,
            (Self::Recycle, _) => Self::AwaitGone,
            (Self::Reallocate, _) => Self::Readdress,
            (Self::Readdress, _) => Self::AnnounceNew,
            (Self::AnnounceNew, _) => Self::AnnounceKept,
            (Self::AnnounceKept, _) => Self::DestroySockets,
            (Self::DestroySockets, _) => Self::Verify,
            (Self::Verify, _) => Self::Bind,
            (Self::Bind, _) => Self::Release,
            (Self::AwaitGone | Self::Release | Self::Done, _) => Self::Done,
        }
    }
}

/// How far a loser has been dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// What is to be done about it.
    pub way: Way,
    /// In whose name its new lease is, if it gets one.
    pub owner: Option<Owner>,
    /// How often the same sandbox was moved away within the last hour, and came back.
    pub strikes: u32,
    /// The step it is at.
    pub step: Step,
    /// The new lease, once it is on disk.
    pub lease: Option<Lease>,
    /// When it began.
    pub began: Timestamp,
    /// Every step that succeeded, with the time.
    pub taken: Vec<(Step, Timestamp)>,
    /// Why the last attempt failed, until one succeeds.
    pub failure: Option<String>,
    /// How often an attempt has failed.
    pub attempts: u8,
    /// When it was given up.
    pub failed_at: Option<Timestamp>,
    /// Whether the store has said in this agent's life that the lease is its. What a record says may be over.
    pub(crate) is_lent: bool,
    pub(crate) waits_for: Option<ActionId>,
    /// Set while the wire is being watched: when the first probe went out, and how many have.
    pub(crate) watch: Option<Watch>,
}

/// The last look: what is said on the wire from `since` on counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(super) since: Timestamp,
    pub(super) probes: u8,
}

/// How many probes go out for each address before the wire's answer counts as a failure; one alone may be lost.
pub(super) const VERIFY_PROBES: u8 = 3;
/// How long answers to one probe are waited for. A sandbox's kernel answers within microseconds; a loaded two-core runner
/// has been seen to take milliseconds.
pub(super) const VERIFY_WAIT: Span = Span::from_millis(15);
/// How long an action may take before it counts as failed.
pub(super) const STEP_TIME: Span = Span::from_secs(10);
/// How often attempts may fail, one after the other and with longer and longer rests, before it is given up: in about 25
/// seconds.
pub(super) const ATTEMPTS: u8 = 8;

impl Eviction {
    /// One that begins now.
    #[must_use]
    pub const fn new(way: Way, owner: Option<Owner>, began: Timestamp) -> Self {
        Self {
            way,
            owner,
            strikes: 0,
            step: Step::Contain,
            lease: None,
            began,
            taken: Vec::new(),
            failure: None,
            attempts: 0,
            failed_at: None,
            is_lent: false,
            waits_for: None,
            watch: None,
        }
    }

    /// The same for a loser that is contained already, since when is known from `before`.
    pub(super) fn after_containment(self, before: &Self) -> Self {
        Self { step: Step::Contain.after(self.way), taken: before.taken.clone(), ..self }
    }

    /// An eviction whose lease was written before the agent was last stopped, of which no record is left.
    pub(super) fn of_lease(lease: Lease, now: Timestamp) -> Self {
        Self { lease: Some(lease.clone()), is_lent: true, ..Self::new(Way::Readdress, Some(lease.owner), now) }
    }

    /// As it goes on in an agent that knows of it from a record alone: nothing is contained any more, and whatever was
    /// asked for is asked for again. What a failed one was given has been given back.
    pub(super) fn resumed(self) -> Self {
        let (step, lease) = match self.step {
            Step::Bind | Step::Release | Step::Done => (self.step, self.lease),
            Step::Failed | Step::Contained => (Step::Contain, None),
            _ => (Step::Contain, self.lease),
        };
        let is_lent = false;
        Self { step, lease, is_lent, waits_for: None, watch: None, attempts: 0, failed_at: None, ..self }
    }

    /// Goes on to the step after this one.
    pub(super) fn advance(&mut self, now: Timestamp) -> Step {
        let done = self.step;
        self.taken.retain(|(step, _)| *step != done);
        self.taken.push((done, now));
        self.step = match done.after(self.way) {
            Step::Reallocate if self.is_lent => Step::Readdress,
            next => next,
        };
        (self.failure, self.watch) = (None, None);
        done
    }

    /// Notes a failure and says how long to wait before the next attempt, if there is one.
    pub(super) fn fail(&mut self, failure: String) -> Option<Span> {
        self.failure = Some(failure);
        (self.waits_for, self.watch) = (None, None);
        if self.attempts + 1 >= ATTEMPTS {
            return None;
        }
        match self.step {
            // What did not hold on the wire was not done right in the sandbox: do it again from the beginning.
            Step::Verify => self.step = Step::Contain,
            Step::AwaitGone => self.step = Step::Recycle,
            _ => {}
        }
        Some(backoff(&mut self.attempts))
    }

    /// Whether it ends well with the loser's port: what was to be recycled is gone.
    pub(super) fn ends_with_port(&mut self) -> bool {
        if matches!(self.step, Step::Recycle | Step::AwaitGone) {
            self.step = Step::Done;
        }
        self.step == Step::Done
    }

    /// It is given up.
    pub(super) fn give_up(&mut self, now: Timestamp) {
        (self.step, self.failed_at) = (Step::Failed, Some(now));
        (self.waits_for, self.watch) = (None, None);
    }
}

/// 100 ms, twice as long after each failure, at most 51 s.
pub(super) fn backoff(attempts: &mut u8) -> Span {
    let wait = Span::from_millis(100).saturating_mul(1 << (*attempts).min(9));
    *attempts = attempts.saturating_add(1);
    wait
}

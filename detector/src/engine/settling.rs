//! What becomes of a lease when its eviction is over: it is bound or given back, also if the store fails at first.

use super::{
    Engine, Purpose,
    eviction::{ATTEMPTS, backoff},
    finding::Finding,
    output::Action,
    timers::Timer,
};
use crate::{net::Lease, time::Timestamp};

/// What is to become of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its owner uses it.
    Bound,
    /// Its owner does not.
    GivenBack,
}

/// A lease with its fate, and how often the store has failed to write that down.
#[derive(Clone, Debug)]
pub(super) struct Settling {
    lease: Lease,
    fate: Fate,
    failed: u8,
}

impl Engine {
    pub(super) fn settle(&mut self, lease: Lease, fate: Fate) {
        self.ask_to_settle(Settling { lease, fate, failed: 0 });
    }

    fn ask_to_settle(&mut self, settling: Settling) {
        let Settling { lease, fate, .. } = settling.clone();
        self.act(Purpose::Settle(settling), |id| match fate {
            Fate::Bound => Action::Bind { id, lease },
            Fate::GivenBack => Action::GiveBack { id, lease },
        });
    }

    /// Told once, and tried again, later and later; after that when the store works again.
    pub(super) fn not_settled(&mut self, mut settling: Settling, failure: String, now: Timestamp) {
        let (domain, address) = (settling.lease.domain, settling.lease.address);
        if settling.failed == 0 {
            self.findings.push_back(Finding::StoreFailed { domain, address, failure });
        }
        let wait = backoff(&mut settling.failed);
        if settling.failed < ATTEMPTS {
            self.timers.set_first(Timer::Settle, now + wait);
        }
        self.unsettled.retain(|known| known.lease != settling.lease);
        self.unsettled.push(settling);
    }

    /// What another eviction has taken over meanwhile is that one's to settle.
    pub(super) fn settle_again(&mut self) {
        for settling in std::mem::take(&mut self.unsettled) {
            if !self.is_taken_over(&settling.lease) {
                self.ask_to_settle(settling);
            }
        }
    }
}

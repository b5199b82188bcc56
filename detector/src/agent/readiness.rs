//! What the agent has still to do before its word counts, as a set of latches: dropping the last one makes it ready.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// Something that must have happened once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Latch {
    /// Every port that exists has a tap.
    Taps,
    /// Every sandbox that exists has been looked at.
    Inventory,
}

impl Latch {
    const ALL: [Self; 2] = [Self::Taps, Self::Inventory];

    /// What is waited for, in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taps => "taps on every port",
            Self::Inventory => "the first inventory of every sandbox",
        }
    }
}

/// Shows what is still waited for.
#[derive(Clone, Debug)]
pub struct Readiness(watch::Receiver<BTreeSet<Latch>>);

/// Holds the latches.
#[derive(Debug)]
pub(super) struct Latches(watch::Sender<BTreeSet<Latch>>);

pub(super) fn latches() -> (Latches, Readiness) {
    let (sender, receiver) = watch::channel(Latch::ALL.into_iter().collect());
    (Latches(sender), Readiness(receiver))
}

impl Latches {
    pub(super) fn release(&self, latch: Latch) {
        self.0.send_modify(|waits_for| {
            waits_for.remove(&latch);
        });
    }
}

impl Readiness {
    /// What is still waited for; nothing once the agent is ready.
    #[must_use]
    pub fn waits_for(&self) -> Vec<Latch> {
        self.0.borrow().iter().copied().collect()
    }

    /// Waits until nothing is waited for any more, or the agent has ended.
    pub async fn ready(&self) {
        // An agent that has ended waits for nothing.
        let _ = self.0.clone().wait_for(BTreeSet::is_empty).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_latch_makes_it_ready() {
        let (latches, readiness) = latches();
        latches.release(Latch::Inventory);
        assert_eq!(readiness.waits_for(), [Latch::Taps]);
        latches.release(Latch::Taps);
        assert_eq!(readiness.waits_for(), []);
    }
}

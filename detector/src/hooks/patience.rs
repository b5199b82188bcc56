//! When a hook that did not take its message is told again, and when no more.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use super::message::MessageId;

/// How often, and for how long, a hook is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The most attempts, the first among them.
    pub attempts: u32,
    /// From the first attempt on, no attempt begins later than this.
    pub within: Duration,
    /// The wait after the first attempt; each further one is twice as long.
    pub first: Duration,
    /// The longest wait, unless the hook itself asks for more.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 8,
            within: Duration::from_mins(10),
            first: Duration::from_secs(1),
            longest: Duration::from_mins(1),
        }
    }
}

impl Patience {
    /// How long to wait after this many attempts, when that much time has passed since the first and the hook has asked
    /// for `asked`; `None` if there is no further attempt.
    pub(super) fn wait(
        &self,
        id: MessageId,
        attempts: u32,
        passed: Duration,
        asked: Option<Duration>,
    ) -> Option<Duration> {
        if attempts >= self.attempts {
            return None;
        }
        let wait = self.backoff(id, attempts).max(asked.unwrap_or_default());
        (passed.saturating_add(wait) <= self.within).then_some(wait)
    }

    /// Up to a quarter longer, by the message: what failed together is not tried again together.
    fn backoff(&self, id: MessageId, attempts: u32) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX));
        let mut hasher = DefaultHasher::new();
        (id.incident.0, id.occasion, id.count, attempts).hash(&mut hasher);
        let share = u32::from(hasher.finish().to_le_bytes()[0]);
        doubled.saturating_add(doubled.saturating_mul(share) / (4 * 256)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::IncidentId, hooks::Occasion};

    fn waits(patience: Patience) -> Vec<Duration> {
        let id = MessageId { incident: IncidentId(1), occasion: Occasion::Opened, count: 1 };
        (1..20).map_while(|attempts| patience.wait(id, attempts, Duration::ZERO, None)).collect()
    }

    #[test]
    fn each_wait_is_about_twice_the_last_up_to_the_longest() {
        let waits = waits(Patience { attempts: 10, ..Patience::default() });
        assert_eq!(waits.len(), 9);
        for (wait, least) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
            let least = Duration::from_secs(least);
            assert!(
                *wait >= least && *wait <= (least + least / 4).min(Duration::from_mins(1)),
                "{wait:?} for {least:?}"
            );
        }
    }

    #[test]
    fn what_failed_together_is_tried_apart() {
        let wait = |incident| {
            let id = MessageId { incident: IncidentId(incident), occasion: Occasion::Opened, count: 1 };
            Patience::default().wait(id, 1, Duration::ZERO, None)
        };
        assert_ne!(wait(1), wait(2));
    }

    #[test]
    fn it_ends_after_so_many_attempts_or_so_much_time() {
        assert_eq!(waits(Patience::default()).len(), 7);
        let id = MessageId { incident: IncidentId(1), occasion: Occasion::Opened, count: 1 };
        let patience = Patience::default();
        assert_eq!(patience.wait(id, 1, patience.within, None), None);
        assert_eq!(patience.wait(id, 1, Duration::ZERO, Some(patience.within * 2)), None);
        let asked = Duration::from_mins(2);
        assert_eq!(patience.wait(id, 1, Duration::ZERO, Some(asked)), Some(asked));
    }
}

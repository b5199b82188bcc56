//! When something was made that bears the number of an epoch instead of the time.

use std::collections::VecDeque;

use crate::time::Timestamp;

/// Epochs whose end is remembered. Of what is older it is known only that it was not made later.
const REMEMBERED: usize = 256;

/// The epochs so far, counted from 1.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// How many are over.
    over: u32,
    /// When the last ones ended, the latest first.
    ends: VecDeque<Timestamp>,
}

impl Epochs {
    /// The number of the one that goes on.
    pub(super) const fn current(&self) -> u32 {
        self.over.saturating_add(1)
    }

    /// Ends the one that goes on, and begins another.
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.over = self.current();
        self.ends.truncate(REMEMBERED - 1);
        self.ends.push_front(now);
    }

    /// Whether `mark` is of the epoch that goes on or of the two before it: that of the one before the last may have been
    /// left by a program that read the number just before it changed.
    pub(super) const fn is_recent(&self, mark: u32) -> bool {
        mark > 0 && mark.saturating_add(2) >= self.current()
    }

    /// The latest moment up to `now` at which `mark` may have been left; `None` if it is nobody's.
    pub(super) fn latest(&self, mark: u32, now: Timestamp) -> Option<Timestamp> {
        match self.current().checked_sub(mark)? {
            _ if mark == 0 => None,
            0 => Some(now),
            ago => self.ends.get(ago as usize - 1).or(self.ends.back()).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn a_mark_is_as_late_as_its_epoch_lasted() {
        let mut epochs = Epochs::default();
        assert_eq!((epochs.current(), epochs.latest(0, at(5)), epochs.latest(1, at(5))), (1, None, Some(at(5))));
        epochs.advance(at(10));
        epochs.advance(at(20));
        assert_eq!(epochs.current(), 3);
        assert_eq!(
            [0, 1, 2, 3, 4].map(|mark| epochs.latest(mark, at(25))),
            [None, Some(at(10)), Some(at(20)), Some(at(25)), None]
        );
    }

    #[test]
    fn of_what_is_long_ago_only_a_bound_is_known() {
        let mut epochs = Epochs::default();
        (1..=1000).for_each(|end| epochs.advance(at(end)));
        assert_eq!(epochs.ends.len(), REMEMBERED);
        assert_eq!(
            [1, 744, 745, 746].map(|mark| epochs.latest(mark, at(2000))),
            [745, 745, 745, 746].map(|end| Some(at(end)))
        );
    }

    #[test]
    fn a_mark_is_told_of_twice_and_never_again() {
        let mut epochs = Epochs::default();
        assert!(epochs.is_recent(1) && !epochs.is_recent(0));
        let told: Vec<_> = (1..=4)
            .map(|end| {
                epochs.advance(at(end));
                epochs.is_recent(1)
            })
            .collect();
        assert_eq!(told, [true, true, false, false]);
        assert!(!epochs.is_recent(0));
    }
}

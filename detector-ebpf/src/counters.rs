//! What the tap counts.

use core::ops::AddAssign;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Malformed;

/// What became of the ARP frames that one interface's tap saw. Each frame is counted once.
///
/// The kernel keeps one of these per CPU; the sum over the CPUs is what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TapCounters {
    /// Frames reported through the ring buffer.
    pub reported: u64,
    /// Frames that found the ring buffer full, so the agent never hears of them.
    pub lost: u64,
    malformed: [u64; Malformed::ALL.len()],
}

impl TapCounters {
    /// How many `u64` it consists of: a map's value is handed over as such an array.
    pub const WORDS: usize = size_of::<Self>() / size_of::<u64>();

    /// The counters in a map's value.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        zerocopy::transmute!(words)
    }

    /// Frames that were not ARP for IPv4 over Ethernet, for `reason`.
    #[must_use]
    pub fn malformed(&self, reason: Malformed) -> u64 {
        self.malformed.get(reason.index()).copied().unwrap_or_default()
    }

    /// Counts one more malformed frame.
    ///
    /// Each count is gone through, because the verifier lets an unprivileged program (one without `CAP_PERFMON`) reach into
    /// a map's value only at fixed places.
    #[inline(always)]
    pub fn add_malformed(&mut self, reason: Malformed) {
        for (count, other) in self.malformed.iter_mut().zip(Malformed::ALL) {
            *count += u64::from(other == reason);
        }
    }

    /// What was counted after `earlier`, which was read at the same tap.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        since.reported = since.reported.saturating_sub(earlier.reported);
        since.lost = since.lost.saturating_sub(earlier.lost);
        for (count, before) in since.malformed.iter_mut().zip(earlier.malformed) {
            *count = count.saturating_sub(before);
        }
        since
    }

    /// Every ARP frame that the tap saw.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.reported + self.lost + self.malformed.iter().sum::<u64>()
    }
}

impl AddAssign for TapCounters {
    fn add_assign(&mut self, other: Self) {
        self.reported += other.reported;
        self.lost += other.lost;
        for (sum, count) in self.malformed.iter_mut().zip(other.malformed) {
            *sum += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn the_layout_is_what_both_sides_were_built_for() {
        assert_eq!((size_of::<TapCounters>(), align_of::<TapCounters>(), TapCounters::WORDS), (64, 8, 8));
        assert_eq!(offset_of!(TapCounters, reported), 0);
        assert_eq!(offset_of!(TapCounters, lost), 8);
        assert_eq!(offset_of!(TapCounters, malformed), 16);
    }

    #[test]
    fn a_maps_value_reads_word_by_word() {
        let counters = TapCounters::from_words([1, 2, 10, 11, 12, 13, 14, 15]);
        assert_eq!((counters.reported, counters.lost), (1, 2));
        assert_eq!(Malformed::ALL.map(|reason| counters.malformed(reason)), [10, 11, 12, 13, 14, 15]);
        assert_eq!(counters.seen(), 3 + 75);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let earlier = TapCounters::from_words([1, 2, 3, 4, 5, 6, 7, 8]);
        let now = TapCounters::from_words([2, 2, 3, 4, 5, 6, 7, 11]);
        assert_eq!(now.since(&earlier), TapCounters::from_words([1, 0, 0, 0, 0, 0, 0, 3]));
    }

    #[test]
    fn each_reason_has_a_count_of_its_own_and_sums_over_cpus() {
        let mut sum = TapCounters::from_words([1; TapCounters::WORDS]);
        let mut other = TapCounters::default();
        other.add_malformed(Malformed::Operation);
        other.lost += 4;
        sum += other;
        assert_eq!(sum, TapCounters::from_words([1, 5, 1, 1, 1, 1, 1, 2]));
    }
}

//! How much one port may say that is new.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// So many tokens at once, and one more every so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Limit {
    /// Nanoseconds until there is one more token; 0 if there are always some.
    interval: u64,
    /// Nanoseconds until an empty bucket is full.
    fill: u64,
}

/// The tokens of one port on one CPU, as the moment at which there will be all of them again: a full bucket needs no
/// clock to stay full, and taking one needs no division (the generic cell rate algorithm of ITU-T I.371).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    /// In nanoseconds since boot.
    full_at: u64,
}

impl Limit {
    /// None at all.
    pub const OFF: Self = Self { interval: 0, fill: 0 };

    /// `rate` tokens per second and `burst` of them at once, at least one; no limit if `rate` is 0.
    #[must_use]
    pub const fn new(rate: u32, burst: u32) -> Self {
        if rate == 0 {
            return Self::OFF;
        }
        let interval = NANOS_PER_SECOND / rate as u64;
        let burst = if burst == 0 { 1 } else { burst as u64 };
        Self { interval, fill: interval.saturating_mul(burst) }
    }

    /// As the program's global has it.
    #[must_use]
    pub const fn to_words(self) -> [u64; 2] {
        [self.interval, self.fill]
    }
}

impl Bucket {
    /// Takes a token, if there is one at `now`, in nanoseconds since boot.
    #[inline(always)]
    #[must_use]
    pub fn take(&mut self, now: u64, limit: Limit) -> bool {
        let from = if self.full_at > now { self.full_at } else { now };
        let full_at = from.wrapping_add(limit.interval);
        let taken = full_at.wrapping_sub(now) <= limit.fill;
        if taken {
            self.full_at = full_at;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    fn taken(bucket: &mut Bucket, now: u64, limit: Limit, tries: usize) -> usize {
        (0..tries).filter(|_| bucket.take(now, limit)).count()
    }

    #[test]
    fn a_burst_is_let_through_and_then_so_many_per_second() {
        let (mut bucket, limit) = (Bucket::default(), Limit::new(1000, 4));
        assert_eq!(taken(&mut bucket, MILLISECOND, limit, 9), 4);
        assert_eq!(taken(&mut bucket, MILLISECOND * 2 - 1, limit, 9), 0);
        assert_eq!(taken(&mut bucket, MILLISECOND * 2, limit, 9), 1);
        assert_eq!(taken(&mut bucket, MILLISECOND * 5, limit, 9), 3);
        assert_eq!(taken(&mut bucket, MILLISECOND * 5000, limit, 9), 4, "more than all is not kept");
    }

    #[test]
    fn no_rate_is_no_limit_and_no_burst_is_one() {
        let mut bucket = Bucket::default();
        assert_eq!(taken(&mut bucket, 5, Limit::new(0, 4), 1000), 1000);
        assert_eq!(taken(&mut bucket, 5, Limit::new(1000, 0), 9), 1);
    }

    #[test]
    fn a_clock_of_another_cpu_that_is_behind_gives_no_token_twice() {
        let (mut bucket, limit) = (Bucket::default(), Limit::new(1000, 4));
        assert_eq!(taken(&mut bucket, MILLISECOND, limit, 9), 4);
        assert_eq!(taken(&mut bucket, MILLISECOND - 100, limit, 9), 0);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_has_come_since(
            rate in 1_u32..100_000,
            burst in 1_u32..5_000,
            gaps in prop::collection::vec(0_u64..5 * MILLISECOND, 1..300),
        ) {
            let (mut bucket, limit) = (Bucket::default(), Limit::new(rate, burst));
            let (mut now, mut count) = (7, 0_u64);
            for gap in gaps {
                now += gap;
                count += u64::from(bucket.take(now, limit));
                prop_assert!(count <= u64::from(burst) + (now - 7) / (NANOS_PER_SECOND / u64::from(rate)));
            }
        }
    }
}

//! Points and spans of time, without a clock.
//!
//! The whole agent reckons in nanoseconds since boot (`CLOCK_BOOTTIME`): it is what the tap stamps frames with, it runs
//! on while the machine sleeps, and no operator can set it. Nothing here reads it: whoever has a clock passes `now` in.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

/// A moment, in nanoseconds since the machine booted (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// A length of time, in nanoseconds; never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Timestamp {
    /// The last moment that there is.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after boot.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long before `self` the moment `earlier` was; nothing if it was not before.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// `millis` milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// `seconds` seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// The span in nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The span as seconds, for metrics.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        Duration::from(self).as_secs_f64()
    }

    /// The span as milliseconds, for people.
    #[must_use]
    pub fn as_millis_f64(self) -> f64 {
        self.as_secs_f64() * 1e3
    }

    /// `self`, `factor` times over.
    #[must_use]
    pub const fn saturating_mul(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }
}

impl Add<Span> for Timestamp {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Timestamp {
    type Output = Self;

    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Self::from_nanos(span.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000_000 => write!(f, "{:.0} us", self.as_millis_f64() * 1e3),
            1_000_000..10_000_000_000 => write!(f, "{:.1} ms", self.as_millis_f64()),
            _ => write!(f, "{:.0} s", self.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_never_turns_negative() {
        let (early, late) = (Timestamp::from_nanos(5), Timestamp::from_nanos(9));
        assert_eq!(late.since(early).as_nanos(), 4);
        assert_eq!(early.since(late), Span::ZERO);
        assert_eq!(early - Span::from_secs(1), Timestamp::from_nanos(0));
        assert_eq!(Timestamp::from_nanos(u64::MAX) + Span::from_secs(1), Timestamp::from_nanos(u64::MAX));
    }

    #[test]
    fn a_span_reads_in_the_unit_that_fits_it() {
        let read = |nanos| Span(nanos).to_string();
        assert_eq!([read(740_000), read(44_300_000), read(61_000_000_000)], ["740 us", "44.3 ms", "61 s"]);
    }
}

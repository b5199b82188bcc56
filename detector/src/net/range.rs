//! Runs of addresses.

use std::{fmt, net::Ipv4Addr, ops::RangeInclusive, str::FromStr};

use super::Ipv4Net;

/// The addresses from a first one to a last one, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Range {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// A text or a pair of addresses that is no run of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRange(String);

impl Ipv4Range {
    /// Every address.
    pub const ALL: Self = Self { first: Ipv4Addr::UNSPECIFIED, last: Ipv4Addr::BROADCAST };

    /// The addresses from `first` to `last`.
    ///
    /// # Errors
    /// When the last one comes before the first.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Result<Self, InvalidRange> {
        if first <= last { Ok(Self { first, last }) } else { Err(InvalidRange(format!("{first}-{last}"))) }
    }

    /// The lowest address.
    #[must_use]
    pub const fn first(self) -> Ipv4Addr {
        self.first
    }

    /// The highest address.
    #[must_use]
    pub const fn last(self) -> Ipv4Addr {
        self.last
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.bits().contains(&address.to_bits())
    }

    /// How many addresses there are: at least one.
    #[must_use]
    pub fn count(self) -> u64 {
        u64::from(self.last.to_bits() - self.first.to_bits()) + 1
    }

    /// The addresses as numbers, in host byte order.
    #[must_use]
    pub fn bits(self) -> RangeInclusive<u32> {
        self.first.to_bits()..=self.last.to_bits()
    }

    /// What both have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last)).ok()
    }
}

impl From<Ipv4Net> for Ipv4Range {
    /// The whole network, its own and its broadcast address included.
    fn from(net: Ipv4Net) -> Self {
        Self { first: net.network(), last: net.broadcast() }
    }
}

impl From<Ipv4Addr> for Ipv4Range {
    fn from(address: Ipv4Addr) -> Self {
        Self { first: address, last: address }
    }
}

impl FromStr for Ipv4Range {
    type Err = InvalidRange;

    /// Reads `10.0.0.5`, `10.0.0.5-10.0.0.9` or `10.0.0.0/29`.
    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid = || InvalidRange(text.to_owned());
        if let Ok(net) = text.parse::<Ipv4Net>() {
            return Ok(net.into());
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address = |text: &str| text.trim().parse().map_err(|_| invalid());
        Self::new(address(first)?, address(last)?).map_err(|_| invalid())
    }
}

impl fmt::Display for Ipv4Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => self.first.fmt(f),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for InvalidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no range of addresses: write 10.0.0.5, 10.0.0.5-10.0.0.9 or 10.0.0.0/29", self.0)
    }
}

impl std::error::Error for InvalidRange {}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Ipv4Range {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_an_address_a_pair_or_a_network() {
        assert_eq!((range("10.0.0.5").to_string(), range("10.0.0.5").count()), ("10.0.0.5".to_owned(), 1));
        assert_eq!(range("10.0.0.5 - 10.0.0.9").to_string(), "10.0.0.5-10.0.0.9");
        assert_eq!(range("10.0.0.0/29").to_string(), "10.0.0.0-10.0.0.7");
        assert_eq!(range("0.0.0.0/0").count(), 1 << 32);
        for text in ["", "10.0.0.9-10.0.0.5", "10.0.0.5-", "10.0.0.256", "10.0.0.0/33", "a-b"] {
            assert!(text.parse::<Ipv4Range>().is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_meet_where_both_are() {
        assert_eq!(range("10.0.0.0/29").intersection(range("10.0.0.6-10.0.0.20")), Some(range("10.0.0.6-10.0.0.7")));
        assert_eq!(range("10.0.0.0/29").intersection(range("10.0.0.8")), None);
        assert!(range("10.0.0.5-10.0.0.9").contains([10, 0, 0, 9].into()));
        assert!(!range("10.0.0.5-10.0.0.9").contains([10, 0, 0, 10].into()));
    }
}

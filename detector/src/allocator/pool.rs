//! The addresses that a domain has to give.

use std::net::Ipv4Addr;

use crate::{
    net::{Domain, Ipv4Net, Ipv4Range, MartianReason, martian_source},
    time::Span,
};

/// A subnet that leases are given from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub(super) domain: Domain,
    pub(super) subnet: Ipv4Net,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) cooldown: Span,
    /// By address, none touching another.
    pub(super) excluded: Vec<Ipv4Range>,
}

/// Why there can be no such pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPool {
    /// The prefix is not a subnet's number.
    #[error("{0} has host bits set: the subnet is {subnet}", subnet = .0.trunc())]
    HostBits(Ipv4Net),
    /// No host can have these addresses.
    #[error("no host can have an address of {subnet}: {reason}")]
    Martian {
        /// The pool's subnet.
        subnet: Ipv4Net,
        /// What is wrong with its first or its last address.
        reason: MartianReason,
    },
    /// The gateway is not a host of the subnet.
    #[error("gateway {gateway} is not a host of {subnet}, whose hosts are {first} to {last}")]
    Gateway {
        /// The gateway.
        gateway: Ipv4Addr,
        /// The pool's subnet.
        subnet: Ipv4Net,
        /// The subnet's first host.
        first: Ipv4Addr,
        /// The subnet's last host.
        last: Ipv4Addr,
    },
    /// What is to be left out is not there.
    #[error("{excluded} cannot be left out of {subnet}: it is not all within it")]
    NotWithin {
        /// The range to leave out.
        excluded: Ipv4Range,
        /// The pool's subnet.
        subnet: Ipv4Net,
    },
    /// The gateway and what is left out take every address there is.
    #[error("{0} has no address to give besides its gateway and what is left out")]
    Empty(Ipv4Net),
}

impl Pool {
    /// How long addresses rest where nobody has decided it.
    pub const COOLDOWN: Span = Span::from_secs(600);

    /// The hosts of `subnet` but `gateway`, each of which rests for `cooldown` after it was shown to be out of use.
    ///
    /// The network and broadcast addresses are not hosts, except in a /31 (RFC 3021) and a /32, which have none.
    ///
    /// # Errors
    /// When `subnet` is not written as a subnet, is not for hosts, or leaves nothing to give; when `gateway` is not in it.
    pub fn new(
        domain: Domain,
        subnet: Ipv4Net,
        gateway: Option<Ipv4Addr>,
        cooldown: Span,
    ) -> Result<Self, InvalidPool> {
        let pool = Self { domain, subnet, gateway, cooldown, excluded: Vec::new() };
        pool.check_subnet()?;
        pool.check_gateway()?;
        pool.not_empty()
    }

    /// The same without the addresses of `ranges`, which are nobody's to have: somebody else's to give, or kept free.
    ///
    /// # Errors
    /// When a range is not within the subnet, or nothing is left to give.
    pub fn excluding(mut self, ranges: impl IntoIterator<Item = Ipv4Range>) -> Result<Self, InvalidPool> {
        let subnet = self.subnet;
        let mut ranges: Vec<_> = self.excluded.into_iter().chain(ranges).collect();
        if let Some(&excluded) = ranges.iter().find(|range| range.intersection(subnet.into()) != Some(**range)) {
            return Err(InvalidPool::NotWithin { excluded, subnet });
        }
        ranges.sort_unstable();
        self.excluded = merged(ranges);
        self.not_empty()
    }

    /// The same with another gateway, and another cooldown if one is named.
    ///
    /// # Errors
    /// When the gateway is not in the subnet, or nothing is left to give.
    pub fn altered(self, gateway: Ipv4Addr, cooldown: Option<Span>) -> Result<Self, InvalidPool> {
        let cooldown = cooldown.unwrap_or(self.cooldown);
        Self::new(self.domain, self.subnet, Some(gateway), cooldown)?.excluding(self.excluded)
    }

    /// Where its addresses are unique.
    #[must_use]
    pub const fn domain(&self) -> Domain {
        self.domain
    }

    /// The subnet that it gives the hosts of.
    #[must_use]
    pub const fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// The host that is never given: the runner's own.
    #[must_use]
    pub const fn gateway(&self) -> Option<Ipv4Addr> {
        self.gateway
    }

    /// How long an address rests before it is given again.
    #[must_use]
    pub const fn cooldown(&self) -> Span {
        self.cooldown
    }

    /// What is left out, lowest first.
    #[must_use]
    pub fn excluded(&self) -> &[Ipv4Range] {
        &self.excluded
    }

    /// Whether `address` may be leased to anybody at all.
    #[must_use]
    pub fn can_lease(&self, address: Ipv4Addr) -> bool {
        self.hosts().contains(address)
            && self.gateway != Some(address)
            && !self.excluded.iter().any(|range| range.contains(address))
    }

    /// How many addresses may be leased.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.ranges().into_iter().map(Ipv4Range::count).sum()
    }

    /// The runs of addresses that may be leased, lowest first.
    #[must_use]
    pub fn ranges(&self) -> Vec<Ipv4Range> {
        let gateway = self.gateway.map(Ipv4Range::from);
        let taken = self.excluded.iter().copied().chain(gateway);
        taken.fold(vec![self.hosts()], |runs, taken| runs.into_iter().flat_map(|run| without(run, taken)).collect())
    }

    fn hosts(&self) -> Ipv4Range {
        let all = Ipv4Range::from(self.subnet);
        if self.subnet.prefix_len() > 30 {
            return all;
        }
        let (network, broadcast) = (all.first().to_bits(), all.last().to_bits());
        run(network + 1, broadcast - 1).unwrap_or(all)
    }

    fn not_empty(self) -> Result<Self, InvalidPool> {
        if self.ranges().is_empty() { Err(InvalidPool::Empty(self.subnet)) } else { Ok(self) }
    }

    fn check_subnet(&self) -> Result<(), InvalidPool> {
        let subnet = self.subnet;
        if subnet.trunc() != subnet {
            return Err(InvalidPool::HostBits(subnet));
        }
        // The ranges that no host is in are so cut that a subnet which overlaps one of them has an end in one.
        let hosts = self.hosts();
        match [hosts.first(), hosts.last()].into_iter().find_map(|end| martian_source(end, &[])) {
            Some(reason) => Err(InvalidPool::Martian { subnet, reason }),
            None => Ok(()),
        }
    }

    fn check_gateway(&self) -> Result<(), InvalidPool> {
        let hosts = self.hosts();
        match self.gateway {
            Some(gateway) if !hosts.contains(gateway) => {
                Err(InvalidPool::Gateway { gateway, subnet: self.subnet, first: hosts.first(), last: hosts.last() })
            }
            _ => Ok(()),
        }
    }
}

/// What is left of `run` without `taken`: up to two runs.
pub(super) fn without(whole: Ipv4Range, taken: Ipv4Range) -> impl Iterator<Item = Ipv4Range> {
    let (first, last) = whole.bits().into_inner();
    let Some((from, to)) = whole.intersection(taken).map(|taken| taken.bits().into_inner()) else {
        return [Some(whole), None].into_iter().flatten();
    };
    let below = from.checked_sub(1).and_then(|end| run(first, end));
    let above = to.checked_add(1).and_then(|start| run(start, last));
    [below, above].into_iter().flatten()
}

/// From address to address as numbers, if there is anything between them.
fn run(first: u32, last: u32) -> Option<Ipv4Range> {
    Ipv4Range::new(Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last)).ok()
}

/// Sorted ranges, those that meet or touch made one.
fn merged(sorted: Vec<Ipv4Range>) -> Vec<Ipv4Range> {
    sorted.into_iter().fold(Vec::new(), |mut ranges, next| {
        match ranges.pop() {
            Some(last) if touch(last, next) => ranges.extend(run_over(last, next)),
            last => ranges.extend(last.into_iter().chain([next])),
        }
        ranges
    })
}

fn touch(lower: Ipv4Range, upper: Ipv4Range) -> bool {
    upper.first().to_bits() <= lower.last().to_bits().saturating_add(1)
}

fn run_over(lower: Ipv4Range, upper: Ipv4Range) -> Option<Ipv4Range> {
    Ipv4Range::new(lower.first(), lower.last().max(upper.last())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, gateway: Option<&str>) -> Result<Pool, InvalidPool> {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Pool::new(Domain::untagged("rt0".parse().unwrap()), subnet.parse().unwrap(), gateway, Span::ZERO)
    }

    fn runs(subnet: &str, gateway: Option<&str>) -> Vec<String> {
        texts(&pool(subnet, gateway).unwrap().ranges())
    }

    fn texts(runs: &[Ipv4Range]) -> Vec<String> {
        runs.iter().map(|run| format!("{}-{}", run.first(), run.last())).collect()
    }

    #[test]
    fn what_is_left_out_is_not_given() {
        let excluding = |ranges: &[&str]| {
            let ranges: Vec<Ipv4Range> = ranges.iter().map(|range| range.parse().unwrap()).collect();
            pool("10.0.0.0/28", Some("10.0.0.1")).unwrap().excluding(ranges)
        };
        let pool = excluding(&["10.0.0.9-10.0.0.10", "10.0.0.2", "10.0.0.3", "10.0.0.10-10.0.0.11"]).unwrap();
        assert_eq!(texts(pool.excluded()), ["10.0.0.2-10.0.0.3", "10.0.0.9-10.0.0.11"]);
        assert_eq!(texts(&pool.ranges()), ["10.0.0.4-10.0.0.8", "10.0.0.12-10.0.0.14"]);
        assert_eq!(pool.size(), 8);
        assert!(!pool.can_lease([10, 0, 0, 10].into()) && pool.can_lease([10, 0, 0, 12].into()));
        assert_eq!(excluding(&["10.0.0.0/29", "10.0.0.15"]).unwrap().size(), 7);
        assert_eq!(
            excluding(&["10.0.0.14-10.0.0.16"]).unwrap_err().to_string(),
            "10.0.0.14-10.0.0.16 cannot be left out of 10.0.0.0/28: it is not all within it"
        );
        assert!(matches!(excluding(&["10.0.0.0/28"]), Err(InvalidPool::Empty(_))));
    }

    #[test]
    fn network_broadcast_and_gateway_are_not_given() {
        assert_eq!(runs("10.8.64.0/24", Some("10.8.64.1")), ["10.8.64.2-10.8.64.254"]);
        assert_eq!(runs("10.8.64.0/24", Some("10.8.64.9")), ["10.8.64.1-10.8.64.8", "10.8.64.10-10.8.64.254"]);
        assert_eq!(runs("10.8.64.0/24", Some("10.8.64.254")), ["10.8.64.1-10.8.64.253"]);
        assert_eq!(runs("10.8.64.0/24", None), ["10.8.64.1-10.8.64.254"]);
        let pool = pool("10.8.64.0/24", Some("10.8.64.1")).unwrap();
        for (address, want) in [([10, 8, 64, 0], false), ([10, 8, 64, 1], false), ([10, 8, 64, 2], true)] {
            assert_eq!(pool.can_lease(address.into()), want, "{address:?}");
        }
        assert!(!pool.can_lease([10, 8, 64, 255].into()) && !pool.can_lease([10, 8, 65, 2].into()));
    }

    #[test]
    fn the_smallest_subnets_give_what_they_have() {
        assert_eq!(runs("10.0.0.0/30", Some("10.0.0.1")), ["10.0.0.2-10.0.0.2"]);
        assert_eq!(runs("10.0.0.0/31", Some("10.0.0.0")), ["10.0.0.1-10.0.0.1"]);
        assert_eq!(runs("10.0.0.0/31", None), ["10.0.0.0-10.0.0.1"]);
        assert_eq!(runs("10.0.0.7/32", None), ["10.0.0.7-10.0.0.7"]);
        assert!(matches!(pool("10.0.0.7/32", Some("10.0.0.7")), Err(InvalidPool::Empty(_))));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let reason = |subnet, gateway| pool(subnet, gateway).unwrap_err().to_string();
        assert_eq!(reason("10.8.64.1/24", None), "10.8.64.1/24 has host bits set: the subnet is 10.8.64.0/24");
        for gateway in ["10.8.65.1", "10.8.64.0", "10.8.64.255"] {
            let text = reason("10.8.64.0/24", Some(gateway));
            assert!(
                text.ends_with("is not a host of 10.8.64.0/24, whose hosts are 10.8.64.1 to 10.8.64.254"),
                "{text}"
            );
        }
        for subnet in
            ["0.0.0.0/0", "0.0.0.0/1", "64.0.0.0/2", "126.0.0.0/7", "127.0.0.0/30", "224.0.0.0/24", "192.0.0.0/2"]
        {
            assert!(matches!(pool(subnet, None), Err(InvalidPool::Martian { .. })), "{subnet}");
        }
        assert!(pool("128.0.0.0/2", None).is_ok());
    }
}

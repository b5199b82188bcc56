//! The addresses that a domain has to give.

use std::{net::Ipv4Addr, ops::RangeInclusive};

use crate::{
    net::{Domain, Ipv4Net, MartianReason, martian_source},
    time::Span,
};

/// A subnet that leases are given from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub(super) domain: Domain,
    pub(super) subnet: Ipv4Net,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) cooldown: Span,
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
    /// The gateway takes the only address there is.
    #[error("{0} has no address to give besides its gateway")]
    Empty(Ipv4Net),
}

impl Pool {
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
        let pool = Self { domain, subnet, gateway, cooldown };
        pool.check_subnet()?;
        pool.check_gateway()?;
        pool.ranges().next().map(|_| pool.clone()).ok_or(InvalidPool::Empty(subnet))
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

    /// Whether `address` may be leased to anybody at all.
    #[must_use]
    pub fn can_lease(&self, address: Ipv4Addr) -> bool {
        self.hosts().contains(&address.to_bits()) && self.gateway != Some(address)
    }

    /// The one or two runs of addresses that may be leased, first to last, in host byte order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u32>> + use<> {
        let (first, last) = self.hosts().into_inner();
        let (below, above) = match self.gateway.map(Ipv4Addr::to_bits) {
            Some(gateway) => {
                (gateway.checked_sub(1).map(|end| first..=end), gateway.checked_add(1).map(|at| at..=last))
            }
            None => (Some(first..=last), None),
        };
        below.into_iter().chain(above).filter(|range| !range.is_empty())
    }

    fn hosts(&self) -> RangeInclusive<u32> {
        let (network, broadcast) = (self.subnet.network().to_bits(), self.subnet.broadcast().to_bits());
        if self.subnet.prefix_len() > 30 { network..=broadcast } else { network + 1..=broadcast - 1 }
    }

    fn check_subnet(&self) -> Result<(), InvalidPool> {
        let subnet = self.subnet;
        if subnet.trunc() != subnet {
            return Err(InvalidPool::HostBits(subnet));
        }
        // The ranges that no host is in are so cut that a subnet which overlaps one of them has an end in one.
        let (first, last) = self.hosts().into_inner();
        match [first, last].into_iter().find_map(|end| martian_source(Ipv4Addr::from_bits(end), &[])) {
            Some(reason) => Err(InvalidPool::Martian { subnet, reason }),
            None => Ok(()),
        }
    }

    fn check_gateway(&self) -> Result<(), InvalidPool> {
        let (first, last) = self.hosts().into_inner();
        match self.gateway {
            Some(gateway) if !(first..=last).contains(&gateway.to_bits()) => Err(InvalidPool::Gateway {
                gateway,
                subnet: self.subnet,
                first: Ipv4Addr::from_bits(first),
                last: Ipv4Addr::from_bits(last),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, gateway: Option<&str>) -> Result<Pool, InvalidPool> {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Pool::new(Domain::untagged("rt0".parse().unwrap()), subnet.parse().unwrap(), gateway, Span::ZERO)
    }

    fn runs(subnet: &str, gateway: Option<&str>) -> Vec<String> {
        let text = |run: RangeInclusive<u32>| {
            format!("{}-{}", Ipv4Addr::from_bits(*run.start()), Ipv4Addr::from_bits(*run.end()))
        };
        pool(subnet, gateway).unwrap().ranges().map(text).collect()
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

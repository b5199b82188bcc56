//! Claims that cannot be true here.

use std::{fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;

/// Why a claim cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MartianReason {
    /// 0.0.0.0/8, "this network" (RFC 6890, table 1). 0.0.0.0 itself is a probe's sender and claims nothing.
    ThisNetwork,
    /// 127.0.0.0/8 (RFC 6890, table 4).
    Loopback,
    /// 224.0.0.0/4 (RFC 5771).
    Multicast,
    /// 240.0.0.0/4, reserved (RFC 6890, table 15).
    Reserved,
    /// 255.255.255.255 or the subnet's broadcast address (RFC 919).
    Broadcast,
    /// The subnet's own number (RFC 950).
    Network,
    /// None of the domain's subnets has the address.
    OutsideSubnet,
    /// The frame's source is not the ARP sender.
    EtherMismatch,
    /// A kernel has logged it (`log_martians` in `Documentation/networking/ip-sysctl.rst`).
    Kernel,
}

impl MartianReason {
    /// Every reason, for whoever counts them.
    pub const ALL: [Self; 9] = [
        Self::ThisNetwork,
        Self::Loopback,
        Self::Multicast,
        Self::Reserved,
        Self::Broadcast,
        Self::Network,
        Self::OutsideSubnet,
        Self::EtherMismatch,
        Self::Kernel,
    ];

    /// The reason in one word, as metrics and JSON spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ThisNetwork => "this_network",
            Self::Loopback => "loopback",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
            Self::Broadcast => "broadcast",
            Self::Network => "network",
            Self::OutsideSubnet => "outside_subnet",
            Self::EtherMismatch => "ether_mismatch",
            Self::Kernel => "kernel",
        }
    }
}

impl fmt::Display for MartianReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why no station of a domain with these `subnets` can have `address`; `None` if one can.
///
/// A domain whose subnets are not known (the bridge has no address) is held only to what is true everywhere. Link-local
/// addresses (169.254.0.0/16) are at home on every link (RFC 3927).
#[must_use]
pub fn martian_source(address: Ipv4Addr, subnets: &[Ipv4Net]) -> Option<MartianReason> {
    everywhere(address).or_else(|| match subnets.iter().find(|subnet| subnet.contains(&address)) {
        Some(subnet) => at_the_edge(address, subnet),
        None if subnets.is_empty() || address.is_link_local() => None,
        None => Some(MartianReason::OutsideSubnet),
    })
}

fn everywhere(address: Ipv4Addr) -> Option<MartianReason> {
    match address.octets() {
        [0, ..] => Some(MartianReason::ThisNetwork),
        [127, ..] => Some(MartianReason::Loopback),
        [224..=239, ..] => Some(MartianReason::Multicast),
        [255, 255, 255, 255] => Some(MartianReason::Broadcast),
        [240..=255, ..] => Some(MartianReason::Reserved),
        _ => None,
    }
}

/// A /31 has neither network nor broadcast address (RFC 3021), a /32 is one host.
fn at_the_edge(address: Ipv4Addr, subnet: &Ipv4Net) -> Option<MartianReason> {
    match address {
        _ if subnet.prefix_len() > 30 => None,
        a if a == subnet.network() => Some(MartianReason::Network),
        a if a == subnet.broadcast() => Some(MartianReason::Broadcast),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(address: &str, subnets: &[&str]) -> Option<MartianReason> {
        let subnets: Vec<Ipv4Net> = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
        martian_source(address.parse().unwrap(), &subnets)
    }

    #[test]
    fn each_range_has_its_reason() {
        use MartianReason::*;
        for (address, want) in [
            ("0.1.2.3", ThisNetwork),
            ("127.0.0.1", Loopback),
            ("224.0.0.1", Multicast),
            ("239.255.255.255", Multicast),
            ("240.0.0.1", Reserved),
            ("255.255.255.255", Broadcast),
            ("10.8.64.0", Network),
            ("10.8.64.255", Broadcast),
            ("10.8.65.1", OutsideSubnet),
            ("192.0.2.7", OutsideSubnet),
        ] {
            assert_eq!(reason(address, &["10.8.64.0/24"]), Some(want), "{address}");
        }
    }

    #[test]
    fn an_address_of_any_subnet_is_at_home() {
        assert_eq!(reason("10.8.64.2", &["10.8.64.0/24"]), None);
        assert_eq!(reason("10.9.0.2", &["10.8.64.0/24", "10.9.0.0/16"]), None);
        assert_eq!(reason("169.254.7.7", &["10.8.64.0/24"]), None);
        assert_eq!(reason("192.0.2.7", &[]), None);
        assert_eq!(reason("10.0.0.0", &["10.0.0.0/31"]), None);
    }
}

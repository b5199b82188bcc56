//! What an operator has decided about certain addresses and ports.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::ways::Ways;
use crate::net::{Ipv4Net, Mac, Owner};

/// What an operator has decided about certain addresses and ports. By default nothing is special.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Addresses that move between stations by design: virtual addresses of a cluster.
    pub shared: Vec<Ipv4Net>,
    /// Whose certain addresses are, whatever the book of leases says.
    pub pins: BTreeMap<Ipv4Addr, Owner>,
    /// Networks that are at home on every watched bridge beside those that the host has addresses in.
    pub networks: Vec<Ipv4Net>,
    /// Ports behind which there is the outside: uplinks. Whoever is there can be told of but not moved.
    pub external: Vec<PortPattern>,
    /// Ports that nobody wants to hear of.
    pub ignored: Vec<PortPattern>,
    /// Ports behind which nothing is contained or moved, whatever a contest says.
    pub protected: Vec<PortPattern>,
    /// What is done about a loser.
    pub ways: Ways,
    /// Whether whoever came later is dealt with as a loser where nobody holds a lease. If not, it is only contained.
    pub moves_newcomers: bool,
}

/// A port's interface name, or how several begin: `eth0`, `cali*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPattern {
    start: String,
    /// Whether anything may follow.
    open: bool,
}

/// A text that no port can be called by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPattern(String);

/// The addresses that the Virtual Router Redundancy Protocol sends from (RFC 5798, section 7.3), for IPv4 and IPv6.
const VRRP: [[u8; 5]; 2] = [[0, 0, 0x5e, 0, 1], [0, 0, 0x5e, 0, 2]];

/// Whether a hardware address is a virtual router's, and so at home with whoever is the master now.
#[must_use]
pub(super) fn is_virtual_router(mac: Mac) -> bool {
    let [start @ .., _router] = mac.0;
    VRRP.contains(&start)
}

impl Policy {
    /// Whether several stations may have the address, one after the other.
    #[must_use]
    pub fn is_shared(&self, address: Ipv4Addr) -> bool {
        self.shared.iter().any(|network| network.contains(&address))
    }

    /// Whether the outside is behind the port of this name.
    #[must_use]
    pub fn is_external(&self, port: &str) -> bool {
        self.external.iter().any(|pattern| pattern.is_like(port))
    }

    /// Whether nobody wants to hear of the port of this name.
    #[must_use]
    pub fn is_ignored(&self, port: &str) -> bool {
        self.ignored.iter().any(|pattern| pattern.is_like(port))
    }

    /// Whether nothing is done behind the port of this name.
    #[must_use]
    pub fn is_protected(&self, port: &str) -> bool {
        self.protected.iter().any(|pattern| pattern.is_like(port))
    }
}

impl PortPattern {
    /// Whether a port of this name is meant.
    #[must_use]
    pub fn is_like(&self, port: &str) -> bool {
        if self.open { port.starts_with(&self.start) } else { port == self.start }
    }
}

impl std::str::FromStr for PortPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let (start, open) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
        let cannot_be_named = |c: char| c == '*' || c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        match start {
            "" if !open => Err(InvalidPattern(text.to_owned())),
            _ if start.len() > 15 || start.contains(cannot_be_named) => Err(InvalidPattern(text.to_owned())),
            _ => Ok(Self { start: start.to_owned(), open }),
        }
    }
}

impl std::fmt::Display for PortPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.start, if self.open { "*" } else { "" })
    }
}

impl std::fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` names no port: an interface's name, or its beginning and `*`, as in `cali*`", self.0)
    }
}

impl std::error::Error for InvalidPattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_one_port_or_all_that_begin_so() {
        let is_like = |pattern: &str, port: &str| pattern.parse::<PortPattern>().unwrap().is_like(port);
        assert!(is_like("eth0", "eth0") && !is_like("eth0", "eth01") && !is_like("eth0", "eth"));
        assert!(is_like("cali*", "cali9f") && is_like("cali*", "cali") && !is_like("cali*", "veth"));
        assert!(is_like("*", "anything"));
        for text in ["", "a*b", "**", "a/b", "a b", "longer-than-any-interface"] {
            assert!(text.parse::<PortPattern>().is_err(), "{text:?}");
        }
        assert_eq!("cali*".parse::<PortPattern>().unwrap().to_string(), "cali*");
    }

    #[test]
    fn a_virtual_router_is_known_by_its_hardware_address() {
        let routers = [[0, 0, 0x5e, 0, 1, 7], [0, 0, 0x5e, 0, 2, 255], [0, 0, 0x5e, 0, 3, 7], [2, 0, 0x5e, 0, 1, 7]];
        assert_eq!(routers.map(|bytes| is_virtual_router(Mac(bytes))), [true, true, false, false]);
    }

    #[test]
    fn shared_is_whatever_lies_in_a_shared_network() {
        let policy = Policy { shared: vec!["10.8.64.9/32".parse().unwrap()], ..Policy::default() };
        assert!(policy.is_shared([10, 8, 64, 9].into()) && !policy.is_shared([10, 8, 64, 8].into()));
    }
}

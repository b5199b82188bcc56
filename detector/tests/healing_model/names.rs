//! What things are called in the model.

use std::net::Ipv4Addr;

use detector::net::{BridgeName, Domain, IfIndex, Mac, Owner};

/// How many sandboxes there may be; the last two are micro VMs that nobody can look into.
pub(crate) const SANDBOXES: u8 = 6;
pub(crate) const OPAQUE: u8 = 4;

/// The runner's own address on its bridge.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 1);
pub(crate) const HOST_PORT: u32 = 1;

pub(crate) fn rt0() -> BridgeName {
    "rt0".parse().unwrap()
}

pub(crate) fn domain() -> Domain {
    Domain::untagged(rt0())
}

pub(crate) fn owner(sandbox: u8) -> Owner {
    format!("s{sandbox}").parse().unwrap()
}

pub(crate) fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 8, 64, last)
}

pub(crate) fn port(index: u32) -> IfIndex {
    IfIndex::new(index).unwrap()
}

pub(crate) fn mac(index: u32) -> Mac {
    let [_, _, high, low] = index.to_be_bytes();
    Mac([2, 0, 0, 0, high, low])
}

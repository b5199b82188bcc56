//! What a tap keeps from the wire.

use std::net::Ipv4Addr;

use super::{IfIndex, VlanId};

/// An address that nobody behind a port may claim: every frame that comes in there and does is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contained {
    /// The port.
    pub port: IfIndex,
    /// The frame's outer VLAN tag, as it is on the wire.
    pub tag: Option<VlanId>,
    /// What may not be claimed.
    pub address: Ipv4Addr,
}

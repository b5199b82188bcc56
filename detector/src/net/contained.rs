//! What a port is not to say.

use std::net::Ipv4Addr;

use super::{IfIndex, VlanId};

/// An address that is in quarantine at a port: nothing that claims it there goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contained {
    /// Where it is claimed.
    pub port: IfIndex,
    /// The outermost tag that it is claimed with; `None` is what goes untagged.
    pub tag: Option<VlanId>,
    /// What is claimed.
    pub address: Ipv4Addr,
}

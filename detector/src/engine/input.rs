//! What the engine is told: events that have happened, and how its actions ended.

use std::net::Ipv4Addr;

use super::{
    output::ActionId,
    topology::{Bridge, Sandbox},
};
use crate::{
    net::{ArpPacket, BridgeName, ClaimKind, IfIndex, Lease, Mac, VlanId},
    time::Timestamp,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A watched bridge is there, or its own addresses changed.
    BridgeUp(Bridge),
    /// A watched bridge is gone, and its ports with it.
    BridgeDown(BridgeName),
    /// An interface is a port of a watched bridge.
    PortUp {
        /// The port.
        port: IfIndex,
        /// Its interface name.
        name: String,
        /// Whose port it is.
        bridge: BridgeName,
    },
    /// An interface is no port any more.
    PortDown {
        /// The port that was.
        port: IfIndex,
    },
    /// Somebody looked behind a port.
    Surveyed {
        /// The port.
        port: IfIndex,
        /// What was found there.
        survey: Survey,
    },
    /// Everything that existed when the agent started, or after it lost count, has been told.
    InventoryDone,
    /// The tap saw an ARP packet.
    Frame(ArpFrame),
    /// The tap lost frames of this bridge; what they said must be asked for.
    FramesLost(BridgeName),
    /// The leases that are given back and not yet at rest, all of them; told every few seconds.
    Draining(Vec<Lease>),
    /// The store holds a lease whose owner was still being moved to it when the agent last stopped.
    MovePending(Lease),
    /// An action was carried out.
    Done {
        /// Which one.
        action: ActionId,
        /// What came of it.
        outcome: Outcome,
    },
    /// An action could not be carried out.
    Failed {
        /// Which one.
        action: ActionId,
        /// Why, in words for a person.
        failure: String,
    },
    /// Time has passed: the moment that `poll_timeout` named has come.
    Timeout,
}

/// An ARP packet as it came in by a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpFrame {
    /// When the kernel saw it.
    pub at: Timestamp,
    /// The port it came in by; the bridge device for what the host itself sends.
    pub port: IfIndex,
    /// The frame's outer VLAN tag.
    pub vlan: Option<VlanId>,
    /// The frame's source address.
    pub ether_source: Mac,
    /// What it says.
    pub packet: ArpPacket,
}

/// What a look behind a port found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// When the look began: whatever the sandbox did before is in it.
    pub at: Timestamp,
    /// Who is there.
    pub sandbox: Sandbox,
    /// The hardware address of the interface at the other end. What others behind the same port say (a bridge or a
    /// macvlan within the sandbox), the look does not show.
    pub mac: Option<Mac>,
    /// The addresses of the interface at the other end, if it is up. `None` if it could not be read, which says nothing
    /// about which addresses are there.
    pub addresses: Option<Vec<Configured>>,
}

/// An address configured on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Configured {
    /// The address.
    pub address: Ipv4Addr,
    /// The interface's hardware address.
    pub mac: Mac,
}

/// What shows that a station uses an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The kernel has it configured there.
    Configured,
    /// The station said so in ARP.
    Arp(ClaimKind),
}

impl Evidence {
    /// The evidence in one word, as the log and JSON spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Arp(kind) => kind.as_str(),
        }
    }
}

/// What an action yielded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of `LookUpLeases`.
    Leases {
        /// The lease on the contested address.
        contested: Option<Lease>,
        /// The leases that the named owners hold in the domain.
        held: Vec<Lease>,
    },
    /// Of `Reallocate` and `Bind`: the lease as it now stands on disk.
    Lease(Lease),
    /// Of an action that yields nothing but its end.
    Finished,
}

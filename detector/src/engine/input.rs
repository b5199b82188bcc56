//! What the engine is told: events that have happened, and how its actions ended.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::{
    Config,
    incident::Incident,
    output::ActionId,
    topology::{Bridge, Port, Sandbox},
};
use crate::{
    net::{BridgeName, ClaimKind, Contained, IfIndex, Lease, Mac, Reach, VlanId},
    time::Timestamp,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A watched bridge is there, or its own addresses changed.
    BridgeUp(Bridge),
    /// A watched bridge is gone, and its ports with it.
    BridgeDown(BridgeName),
    /// An interface is a port of a watched bridge, or what is known of one has changed.
    PortUp(Port),
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
    /// Somebody showed that it uses an address.
    Claim(Claim),
    /// What the tap has absorbed since it was last read.
    Heard(Vec<Heard>),
    /// The tap lost claims of this bridge; what they said must be asked for.
    ClaimsLost(BridgeName),
    /// A port had more news than its share, and so much of it was only counted; what it said must be asked for.
    Limited {
        /// The port.
        port: IfIndex,
        /// How many claims were not reported.
        count: u64,
    },
    /// The kernel of some network namespace has logged a martian source.
    KernelMartian(KernelMartian),
    /// The leases that are given back and not yet at rest, all of them; told every few seconds.
    Draining(Vec<Lease>),
    /// The store holds a lease whose owner was still being moved to it when the agent last stopped.
    MovePending(Lease),
    /// An incident that an earlier agent has written down since the machine started.
    Restored(Box<Incident>),
    /// What an earlier agent has left contained.
    LeftContained(Vec<Contained>),
    /// An operator lets a port claim an address again that is kept from it.
    Lifted(Contained),
    /// An operator wants nothing new to be done until then, or, without a time, wants it to go on.
    Paused {
        /// Until when.
        until: Option<Timestamp>,
    },
    /// An operator decides otherwise.
    Reconfigured(Box<Config>),
    /// The store works, after it could not be asked or had failed.
    StoreRestored,
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

/// That somebody showed that it uses an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// When the kernel saw it.
    pub at: Timestamp,
    /// The port that the frame came in by; the bridge device for what the host itself sends.
    pub port: IfIndex,
    /// The frame's outer VLAN tag, as it was on the wire.
    pub tag: Option<VlanId>,
    /// The frame's source address.
    pub ether_source: Mac,
    /// Who uses the address, by the frame's own word: the ARP sender; of an IPv4 packet the frame's source.
    pub mac: Mac,
    /// What is claimed; of a probe, which claims nothing, what is asked for.
    pub address: Ipv4Addr,
    /// What shows it.
    pub evidence: Evidence,
}

/// Which claims of a station the tap absorbs: all that say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KnownClaim {
    /// The port.
    pub port: IfIndex,
    /// The outer VLAN tag.
    pub tag: Option<VlanId>,
    /// Who claims.
    pub mac: Mac,
    /// What is claimed.
    pub address: Ipv4Addr,
}

/// That a known claim was made again, and absorbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which.
    pub claim: KnownClaim,
    /// When it was last made in ARP; `None` if not since it is absorbed.
    pub last_arp: Option<Timestamp>,
    /// The latest moment at which it may have been made by an IPv4 packet: those are noted without their time.
    pub last_ipv4: Option<Timestamp>,
    /// How often it was made in ARP since it is absorbed.
    pub hits: u64,
}

/// A martian source, as a kernel logs it (`ip_handle_martian_source` in `net/ipv4/route.c`): somebody's packet came in
/// with a source address that the one who heard it has itself, or that cannot come from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelMartian {
    /// The source address that is wrong.
    pub source: Ipv4Addr,
    /// Whom the packet was for, or was asking for.
    pub target: Ipv4Addr,
    /// The interface that heard it, in the namespace of whoever that is.
    pub device: String,
    /// The frame's source, if the link header was logged: who sent it.
    pub mac: Option<Mac>,
}

/// What a look behind a port found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// When the look began: whatever the sandbox did before is in it.
    pub at: Timestamp,
    /// Who is there.
    pub sandbox: Sandbox,
    /// The hardware addresses of every interface in the namespace: what any of them says, the same sandbox says, since a
    /// kernel answers for each of its addresses on each of its interfaces (`arp_ignore` in
    /// `Documentation/networking/ip-sysctl.rst`). Others behind the same port, with namespaces of their own, the look does
    /// not show.
    pub macs: BTreeSet<Mac>,
    /// How far it could be looked behind the port.
    pub reach: Reach,
    /// Whether it forwards, so that it may send packets with sources that are others'.
    pub forwards: bool,
    /// The addresses that can be reached through the port, if its other end is up. `None` if it could not be read, which
    /// says nothing about which addresses are there.
    pub addresses: Option<Vec<Configured>>,
}

/// An address configured on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Configured {
    /// The VLAN tag that its frames have when they reach the port.
    pub tag: Option<VlanId>,
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
    /// The station sent an IPv4 packet with this source.
    Ipv4,
}

impl Evidence {
    /// Whether the station said so in ARP.
    #[must_use]
    pub const fn is_arp(self) -> bool {
        matches!(self, Self::Arp(_))
    }

    /// The evidence in one word, as the log and JSON spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Arp(kind) => kind.as_str(),
            Self::Ipv4 => "ipv4",
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

//! What the engine wants done.

use std::net::Ipv4Addr;

use super::{incident::Incident, input::KnownClaim};
use crate::net::{Contained, Domain, IfIndex, Lease, Mac, Owner};

/// Names an action, so that its outcome finds back to who asked for it. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActionId(pub u64);

/// Something to do. Every action with an id must be answered once, by `Input::Done` or `Input::Failed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read who holds the contested address, and what these owners hold.
    LookUpLeases {
        /// To be named in the answer.
        id: ActionId,
        /// Where.
        domain: Domain,
        /// The contested address.
        contested: Ipv4Addr,
        /// The parties, under every name that a lease may know them by.
        owners: Vec<Owner>,
    },
    /// Write down that a sandbox which was there before the agent holds its address.
    Adopt {
        /// To be named in the answer.
        id: ActionId,
        /// Where.
        domain: Domain,
        /// The address it has.
        address: Ipv4Addr,
        /// Who it is.
        owner: Owner,
    },
    /// Give the loser another address, durably, and end its claim to the contested one.
    Reallocate {
        /// To be named in the answer.
        id: ActionId,
        /// Where.
        domain: Domain,
        /// The loser.
        owner: Owner,
        /// The address it must leave.
        contested: Ipv4Addr,
        /// Addresses that are in use, with or without a lease.
        in_use: Vec<Ipv4Addr>,
    },
    /// Drop whatever claims these addresses at these ports.
    Contain {
        /// To be named in the answer.
        id: ActionId,
        /// What to drop.
        entries: Vec<Contained>,
    },
    /// Drop these no longer.
    Lift {
        /// To be named in the answer.
        id: ActionId,
        /// What was dropped.
        entries: Vec<Contained>,
    },
    /// Write down how an incident stands, durably.
    Keep {
        /// To be named in the answer.
        id: ActionId,
        /// The incident.
        incident: Box<Incident>,
    },
    /// Ask the orchestrator to replace the sandbox behind a port. That it has been asked is the answer.
    Recycle {
        /// To be named in the answer.
        id: ActionId,
        /// Why.
        incident: Box<Incident>,
        /// The loser's port.
        port: IfIndex,
    },
    /// End the connections, in the namespace behind a port, from an address that it does not have any more.
    DestroySockets {
        /// To be named in the answer.
        id: ActionId,
        /// The loser's port.
        port: IfIndex,
        /// The address.
        address: Ipv4Addr,
    },
    /// Change the address in the namespace behind a port, and look behind the port again before answering.
    Readdress {
        /// To be named in the answer.
        id: ActionId,
        /// The loser's port.
        port: IfIndex,
        /// The address it must leave.
        from: Ipv4Addr,
        /// The address it gets.
        to: Ipv4Addr,
        /// The new address's prefix length.
        prefix_len: u8,
    },
    /// Tell the domain who has an address, and correct the host's neighbour table and the bridge's forwarding table.
    Announce {
        /// To be named in the answer.
        id: ActionId,
        /// Where.
        domain: Domain,
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        mac: Mac,
        /// Behind which port; none if it is the host's.
        port: Option<IfIndex>,
    },
    /// Write down that the loser uses its new address.
    Bind {
        /// To be named in the answer.
        id: ActionId,
        /// The new lease.
        lease: Lease,
    },
    /// Give back a lease that nobody is moved to any more.
    GiveBack {
        /// To be named in the answer.
        id: ActionId,
        /// The lease.
        lease: Lease,
    },
    /// Keep an address back that somebody outside uses, now that nobody here does.
    SetAside {
        /// To be named in the answer.
        id: ActionId,
        /// Where.
        domain: Domain,
        /// The address.
        address: Ipv4Addr,
        /// Who uses it.
        mac: Mac,
    },
    /// Let a released address rest: nothing shows it in use any more.
    Retire {
        /// To be named in the answer.
        id: ActionId,
        /// The lease.
        lease: Lease,
    },
    /// Ask on the wire who has these addresses, at once. The answers come as claims; there is no outcome.
    Probe {
        /// Where.
        domain: Domain,
        /// The addresses to ask for.
        addresses: Vec<Ipv4Addr>,
    },
    /// Ask one station alone whether it still has an address (a unicast poll: RFC 1122, section 2.3.2.1). What it answers is
    /// a claim like any other, and may be absorbed; there is no outcome.
    Poll {
        /// Where.
        domain: Domain,
        /// The address to ask for.
        address: Ipv4Addr,
        /// Whom to ask.
        mac: Mac,
    },
    /// Ask on the wire, without hurry, for these addresses and for every other that is leased or that the host's neighbour
    /// table knows of. The answers come as claims; there is no outcome.
    Sweep {
        /// Where.
        domain: Domain,
        /// The addresses that are seen.
        seen: Vec<Ipv4Addr>,
    },
    /// Listen for ARP alone at this port: the sources of its packets are others'. There is no outcome.
    IgnoreIpv4 {
        /// The port.
        port: IfIndex,
    },
    /// Let the tap absorb this claim from now on: it says nothing new. There is no outcome, and no harm if it fails.
    Absorb(KnownClaim),
    /// Let the tap report this claim when it is made next. There is no outcome.
    Forget(KnownClaim),
}

//! What the engine wants done, and what it has found.

use std::net::Ipv4Addr;

use super::{
    eviction::Step,
    incident::{Incident, IncidentId},
};
use crate::net::{Domain, IfIndex, Lease, Mac, MartianReason, Owner, Station};

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
    /// Tell the domain, and the host's own neighbour table, who has an address.
    Announce {
        /// To be named in the answer.
        id: ActionId,
        /// Where.
        domain: Domain,
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        mac: Mac,
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
    /// Let a released address rest: nothing shows it in use any more.
    Retire {
        /// To be named in the answer.
        id: ActionId,
        /// The lease.
        lease: Lease,
    },
    /// Ask on the wire who has these addresses. The answers come as frames; there is no outcome.
    Probe {
        /// Where.
        domain: Domain,
        /// The addresses to ask for.
        addresses: Vec<Ipv4Addr>,
    },
}

/// Something that a person, a log or a counter should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An address has two live owners.
    Duplicate(Box<Incident>),
    /// One more party claims an address that was already contested.
    PartyJoined(Box<Incident>),
    /// It is decided who keeps the address, or that this cannot be decided.
    Judged(Box<Incident>),
    /// Why an open incident is not being healed. Told once per reason.
    Held {
        /// Which incident.
        incident: IncidentId,
        /// Whose.
        domain: Domain,
        /// The contested address.
        address: Ipv4Addr,
        /// What stands in the way.
        reason: Held,
    },
    /// An eviction took a step.
    Stepped {
        /// Which incident.
        incident: IncidentId,
        /// The loser.
        port: IfIndex,
        /// What has been done.
        done: Step,
    },
    /// A step of an eviction failed and will be tried again.
    StepFailed {
        /// Which incident.
        incident: IncidentId,
        /// Whose.
        domain: Domain,
        /// The loser.
        port: IfIndex,
        /// What could not be done.
        step: Step,
        /// Why.
        failure: String,
        /// Whether it is the eviction's first failure.
        news: bool,
    },
    /// Every loser is at its new address and each address has one owner.
    Healed(Box<Incident>),
    /// A duplicate ended without dupip: a party went away or gave the address up.
    Gone(Box<Incident>),
    /// A claim cannot be true. Told for every such claim; `news` is set if the station did not already claim so.
    Martian {
        /// Where.
        domain: Domain,
        /// Who claims.
        station: Station,
        /// What is claimed.
        address: Ipv4Addr,
        /// The source address of the frame.
        ether_source: Mac,
        /// Why it cannot be true.
        reason: MartianReason,
        /// Whether this is new.
        news: bool,
    },
    /// A port claims more addresses than are remembered for one port.
    ClaimRefused {
        /// The port.
        port: IfIndex,
        /// Where.
        domain: Domain,
        /// Whether this is the port's first refused claim since it came.
        news: bool,
    },
    /// A sandbox that was there before the agent could not be written down as the holder of its address.
    NotAdopted {
        /// Where.
        domain: Domain,
        /// Which address.
        address: Ipv4Addr,
        /// Why.
        failure: String,
    },
    /// A contest could not be held, because the store could not be read.
    StoreFailed {
        /// Where.
        domain: Domain,
        /// Which address.
        address: Ipv4Addr,
        /// Why.
        failure: String,
    },
    /// A lease's owner was being moved when the agent last stopped, and cannot be moved on now: it is not here, or the
    /// agent only observes.
    MoveWaits(Lease),
    /// The agent goes on moving a lease's owner where it was stopped.
    Resumed {
        /// Under which incident.
        incident: IncidentId,
        /// The new lease.
        lease: Lease,
    },
}

/// What keeps an incident from being healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// The agent only observes.
    Observing,
    /// Nobody's right to the address is sure enough to move another.
    Unsettled,
    /// So many evictions in the last minute that something else must be wrong.
    Brake,
    /// A loser's addresses cannot be changed from here: no namespace behind its port, or one that cannot be read.
    OutOfReach,
    /// The loser has no name that a lease could be written to.
    Nameless,
    /// The loser says on the wire that it has the address, but its kernel does not have it configured.
    OnlyOnTheWire,
    /// The address belongs to no network of the bridge, so there is nothing to lease from.
    NoNetwork,
}

impl Held {
    /// The reason as a sentence's end.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observing => "the agent observes and does not act (run with --mode enforce to heal)",
            Self::Unsettled => {
                "no party holds a lease for it, so nobody is moved; say whose it is with `dupip lease adopt`"
            }
            Self::Brake => "too many evictions in the last minute; it is tried again when the minute is over",
            Self::OutOfReach => "the loser's network namespace cannot be entered from here",
            Self::Nameless => "the loser has no name that a lease could be written to",
            Self::OnlyOnTheWire => "the loser only says so on the wire; the address is not configured in its namespace",
            Self::NoNetwork => "the bridge has no network that the address belongs to",
        }
    }
}

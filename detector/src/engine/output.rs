//! What the engine wants done, and what it has found.

use std::net::Ipv4Addr;

use super::{
    eviction::Step,
    incident::{Incident, IncidentId, Party},
    input::{KernelMartian, KnownClaim},
};
use crate::{
    net::{BridgeName, Contained, Domain, IfIndex, Lease, Mac, MartianReason, Owner, Station},
    time::Timestamp,
};

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

/// Something that a person, a log or a counter should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An address has two live owners.
    Duplicate(Box<Incident>),
    /// A duplicate that had ended is back: the same parties, soon after.
    Reopened(Box<Incident>),
    /// Whoever is in an open incident by word of mouth alone claims one more address of somebody else's. Of many, told only
    /// now and then.
    AddressJoined {
        /// The incident, with the address in it.
        incident: Box<Incident>,
        /// The address.
        address: Ipv4Addr,
    },
    /// An open incident goes on: there were more claims since this was last told. Told once in a while.
    Continues(Box<Incident>),
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
    /// A loser's claims to an address are dropped from now on.
    Contained {
        /// Which incident.
        incident: IncidentId,
        /// Where.
        domain: Domain,
        /// The address.
        address: Ipv4Addr,
        /// The loser's port.
        port: IfIndex,
    },
    /// A port's claims to an address are not dropped any more.
    Lifted {
        /// Which incident it was for; none if an earlier agent's.
        incident: Option<IncidentId>,
        /// Where.
        domain: Domain,
        /// The address.
        address: Ipv4Addr,
        /// The port.
        port: IfIndex,
        /// How many addresses, this one and others.
        count: usize,
    },
    /// A loser is at its new address: whoever has noted the old one elsewhere must know.
    Evicted {
        /// The incident.
        incident: Box<Incident>,
        /// The loser.
        port: IfIndex,
    },
    /// A loser could not be dealt with. It stays contained, and it is tried again later.
    GivenUp {
        /// The incident.
        incident: Box<Incident>,
        /// The loser.
        port: IfIndex,
    },
    /// An incident that an earlier agent had open goes on.
    TakenUp(Box<Incident>),
    /// Nothing new is done until then; without a time, it goes on.
    Paused {
        /// Until when.
        until: Option<Timestamp>,
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
        /// The name of its port's interface.
        port_name: String,
        /// What is claimed.
        address: Ipv4Addr,
        /// The source address of the frame.
        ether_source: Mac,
        /// Why it cannot be true.
        reason: MartianReason,
        /// Whether this is new.
        news: bool,
    },
    /// A kernel has logged a martian source, and it is known who sent it.
    KernelMartian {
        /// Where.
        domain: Domain,
        /// What was logged.
        martian: KernelMartian,
        /// Who sent it.
        sender: Box<Party>,
        /// The open incident that it is part of.
        incident: Option<IncidentId>,
        /// Whether nothing like it was logged lately.
        news: bool,
    },
    /// An address went from one station to another, as it may.
    Moved {
        /// Where.
        domain: Domain,
        /// Which address.
        address: Ipv4Addr,
        /// Who had it.
        from: Box<Party>,
        /// Who has it now.
        to: Box<Party>,
    },
    /// Something that is no fault, and good to know.
    Info(Info),
    /// A port says more that is new than it may: the rest is only counted. Told when it begins.
    Flood(Flood),
    /// A port's flood is over.
    FloodEnded(Flood),
    /// A port claims more addresses than are remembered for one port.
    ClaimRefused {
        /// The port.
        port: IfIndex,
        /// The name of its interface.
        port_name: String,
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

impl Finding {
    /// The incident whose record is another after this. A step is followed by the next one's record.
    pub(super) fn changes(&self) -> Option<IncidentId> {
        match self {
            Self::Duplicate(incident)
            | Self::Reopened(incident)
            | Self::AddressJoined { incident, .. }
            | Self::Continues(incident)
            | Self::PartyJoined(incident)
            | Self::Judged(incident)
            | Self::TakenUp(incident)
            | Self::Healed(incident)
            | Self::Gone(incident)
            | Self::Evicted { incident, .. }
            | Self::GivenUp { incident, .. } => Some(incident.id),
            Self::Held { incident, .. }
            | Self::StepFailed { incident, .. }
            | Self::Contained { incident, .. }
            | Self::Resumed { incident, .. } => Some(*incident),
            Self::KernelMartian { incident, .. } | Self::Lifted { incident, .. } => *incident,
            _ => None,
        }
    }
}

/// Something that is no fault, and good to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Info {
    /// A sandbox has another hardware address than before, at the same port and with the same address.
    MacChanged {
        /// Where.
        domain: Domain,
        /// Which address.
        address: Ipv4Addr,
        /// The one before.
        from: Mac,
        /// Who it is.
        party: Box<Party>,
    },
    /// Several look at one time whether an address is free (RFC 5227, section 2.1.1): who of them gets it, the allocator
    /// decides.
    SoftConflict {
        /// Where.
        domain: Domain,
        /// Which address.
        address: Ipv4Addr,
        /// Who looks.
        parties: Vec<Party>,
    },
    /// A sandbox that forwards sent an IPv4 packet with a source that it does not have. Told once of a port, where no
    /// sources are watched any more after that.
    ForeignSource {
        /// Where.
        domain: Domain,
        /// The packet's source.
        address: Ipv4Addr,
        /// Who sent it.
        party: Box<Party>,
    },
    /// The lease holder has its address, and whoever had it before has not let go of it yet, but is silent.
    Lingers {
        /// Where.
        domain: Domain,
        /// Which address.
        address: Ipv4Addr,
        /// Who had it.
        parties: Vec<Party>,
    },
}

impl Info {
    /// The kind in one word, as the log and JSON spell it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::MacChanged { .. } => "mac_changed",
            Self::SoftConflict { .. } => "soft_conflict",
            Self::ForeignSource { .. } => "foreign_source",
            Self::Lingers { .. } => "lingers",
        }
    }
}

/// A port that says more that is new than it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flood {
    /// The port.
    pub port: IfIndex,
    /// Its interface name.
    pub port_name: String,
    /// Its bridge.
    pub bridge: BridgeName,
    /// How many claims were only counted, so far.
    pub limited: u64,
}

/// What keeps an incident from being healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// The agent only observes.
    Observing,
    /// Nobody's right to the address is sure enough to move another.
    Unsettled,
    /// Nobody holds a lease: whoever came later is contained and not moved.
    Newcomer,
    /// An operator has paused the agent.
    Paused,
    /// The loser's port is one behind which nothing is done.
    Protected,
    /// An operator has lifted the loser's containment.
    Spared,
    /// The loser is outside, where nothing can be done.
    Outside,
    /// The loser was moved away too often, and came back.
    Strikes,
    /// An operator wants losers like this one to be contained only.
    ContainOnly,
    /// It was tried and given up.
    GivenUp,
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
    /// The address is one that several may have, so nobody is moved.
    Shared,
}

impl Held {
    /// The reason in one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Observing => "observing",
            Self::Unsettled => "unsettled",
            Self::Newcomer => "newcomer",
            Self::Paused => "paused",
            Self::Protected => "protected",
            Self::Spared => "spared",
            Self::Outside => "outside",
            Self::Strikes => "strikes",
            Self::ContainOnly => "contain_only",
            Self::GivenUp => "given_up",
            Self::Brake => "brake",
            Self::OutOfReach => "out_of_reach",
            Self::Nameless => "nameless",
            Self::OnlyOnTheWire => "only_on_the_wire",
            Self::NoNetwork => "no_network",
            Self::Shared => "shared",
        }
    }

    /// The reason as a sentence's end.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observing => "the agent observes and does not act (run with --mode enforce to heal)",
            Self::Unsettled => {
                "no party holds a lease for it, so nobody is moved; say whose it is with `dupip lease adopt`"
            }
            Self::Newcomer => {
                "no party holds a lease for it, so whoever came later is contained and not moved; say whose it is with \
                 `dupip lease adopt`"
            }
            Self::Paused => "the agent is paused; go on with `dupip pause --end`",
            Self::Protected => "the loser's port is protected, so nothing is done there",
            Self::Spared => "an operator has lifted the loser's containment",
            Self::Outside => "the loser is outside, where nothing can be done",
            Self::Strikes => "the loser was moved away too often and came back, so it is contained and not moved again",
            Self::ContainOnly => "losers like this one are contained only",
            Self::GivenUp => "the loser could not be dealt with and stays contained; it is tried again after a minute",
            Self::Brake => "too many evictions in the last minute; it is tried again when the minute is over",
            Self::OutOfReach => "the loser's network namespace cannot be entered from here",
            Self::Nameless => "the loser has no name that a lease could be written to",
            Self::OnlyOnTheWire => {
                "the loser only says on the wire that it has the address; it is not configured in its namespace"
            }
            Self::NoNetwork => "the bridge has no network that the address belongs to",
            Self::Shared => "the address is declared as shared, so nobody is moved",
        }
    }
}

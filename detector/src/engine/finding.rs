//! What the engine has found.

use std::net::Ipv4Addr;

use super::{
    eviction::Step,
    held::Held,
    incident::{Incident, IncidentId, Party},
    input::KernelMartian,
};
use crate::{
    net::{BridgeName, Domain, IfIndex, Lease, Mac, MartianReason, Station},
    time::Timestamp,
};

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
    /// A step of an eviction failed.
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
        /// Whether the eviction waits for another attempt, now or when it was given up for a while; else it goes on without.
        is_tried_again: bool,
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

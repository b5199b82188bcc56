//! One duplicate, from first sight to its end.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use super::{contest::Contest, eviction::Eviction, input::Evidence, output::Held, topology::Sandbox};
use crate::{
    net::{Domain, IfIndex, Lease, NetnsId, Owner, Station},
    time::{Span, Timestamp},
};

/// Numbers incidents, from 1, for as long as the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IncidentId(pub u64);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of those who claim a contested address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Where it claims from.
    pub station: Station,
    /// The port's interface name.
    pub port_name: String,
    /// Who it is.
    pub sandbox: Sandbox,
    /// Whether it is the runner itself.
    pub is_host: bool,
    /// When it was first known to claim.
    pub first_seen: Timestamp,
    /// What it claims by.
    pub evidence: Evidence,
    /// Whether it was there before the agent was.
    pub initial: bool,
}

impl Party {
    /// The name that says most: the sandbox's, else its namespace's, else its port's.
    #[must_use]
    pub fn label(&self) -> String {
        let netns = self.sandbox.netns.as_ref().map(NetnsId::to_string);
        match self.is_host {
            true => "the host".to_owned(),
            false => self.sandbox.name.clone().or(netns).unwrap_or_else(|| self.port_name.clone()),
        }
    }

    /// In whose name a new lease is written, of its `own` names: the one that already holds one, else the best.
    pub(super) fn owner(own: &[Owner], held: &[Lease]) -> Option<Owner> {
        let of_lease = |lease: &&Lease| own.contains(&lease.owner);
        held.iter().find(of_lease).map(|lease| &lease.owner).or(own.first()).cloned()
    }
}

/// How an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// The address has more than one owner, or a loser is not yet verified to be away.
    Open,
    /// Every loser was moved, and that was verified.
    Healed,
    /// It ended without dupip.
    Gone,
}

impl Status {
    /// The status in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Healed => "healed",
            Self::Gone => "gone",
        }
    }
}

/// One duplicate: who, since when, who keeps the address and why, and what has been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Its number.
    pub id: IncidentId,
    /// Where.
    pub domain: Domain,
    /// The contested address.
    pub address: Ipv4Addr,
    /// Who has claimed it, in the order in which they were seen.
    pub parties: Vec<Party>,
    /// What the first contradiction was seen by.
    pub first_evidence: Evidence,
    /// When the kernel saw the first contradiction.
    pub first_at: Timestamp,
    /// When dupip had a name for it.
    pub named_at: Timestamp,
    /// Who keeps the address, once that is known.
    pub contest: Option<Contest>,
    /// What stands in the way of healing.
    pub held: Option<Held>,
    /// The losers that are being moved, by port.
    pub evictions: BTreeMap<IfIndex, Eviction>,
    /// How it stands.
    pub status: Status,
    /// When it ended.
    pub closed_at: Option<Timestamp>,
    /// Contests that could not be held, one after the other.
    pub(super) attempts: u8,
}

impl Incident {
    /// From the first contradiction to its name.
    #[must_use]
    pub const fn time_to_name(&self) -> Span {
        self.named_at.since(self.first_at)
    }

    /// From the first contradiction to its end.
    #[must_use]
    pub fn time_to_close(&self) -> Option<Span> {
        self.closed_at.map(|at| at.since(self.first_at))
    }

    /// The party that keeps the address.
    #[must_use]
    pub fn winner(&self) -> Option<&Party> {
        let winner = self.contest.as_ref()?.winner?;
        self.parties.iter().find(|party| party.station.port == winner)
    }

    /// The party at `port`.
    #[must_use]
    pub fn party(&self, port: IfIndex) -> Option<&Party> {
        self.parties.iter().find(|party| party.station.port == port)
    }
}

//! One duplicate, from first sight to its end.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::Ipv4Addr,
};

use super::{
    contest::{Contest, Holding, Reason},
    eviction::{Eviction, Step},
    held::Held,
    input::Evidence,
    plan::Plan,
    topology::{PartyKey, Sandbox},
};
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
    /// Whether it is outside, beyond an uplink.
    pub is_external: bool,
    /// When it was first known to claim.
    pub first_seen: Timestamp,
    /// What it claims by.
    pub evidence: Evidence,
    /// Whether the kernel has the address configured there.
    pub configured: bool,
    /// Whether it was there before the agent was.
    pub initial: bool,
    /// Which address it was first seen with in the incident.
    pub(crate) address: Ipv4Addr,
    pub(crate) key: PartyKey,
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

    /// Whether it is known not to have the address that it claims.
    fn only_says_so(&self) -> bool {
        !self.configured && self.sandbox.netns.is_some()
    }

    /// Whether it is the same one: in the same namespace, or the same station.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.key == other.key || self.station == other.station
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

/// What kind of duplicate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Two have the address.
    Duplicate,
    /// Somebody claims the host's own address, or only says on the wire that it has what another has a right to.
    Spoof,
}

impl Verdict {
    /// The verdict in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Spoof => "spoof",
        }
    }
}

/// One claim to a contested address, as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When the kernel saw it.
    pub at: Timestamp,
    /// Which address.
    pub address: Ipv4Addr,
    /// Who claimed.
    pub station: Station,
    /// What showed it; `None` if a kernel logged it as a martian.
    pub evidence: Option<Evidence>,
}

/// Sightings that an incident keeps: the first ones, which tell how it began, and the last.
pub(super) const SIGHTINGS: usize = 32;

/// One duplicate: who, since when, who keeps the address and why, and what has been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Its number.
    pub id: IncidentId,
    /// Where.
    pub domain: Domain,
    /// The contested address, or the first of several.
    pub address: Ipv4Addr,
    /// Every address that has been contested in it: more than one if somebody claims what many others have.
    pub addresses: BTreeSet<Ipv4Addr>,
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
    /// What is to be done about each loser, whether or not the agent may.
    pub plan: Vec<Plan>,
    /// The losers that are being dealt with, by port.
    pub evictions: BTreeMap<IfIndex, Eviction>,
    /// How it stands.
    pub status: Status,
    /// When it ended.
    pub closed_at: Option<Timestamp>,
    /// How often it was opened: more than once if it came back soon after it had ended.
    pub times: u32,
    /// How many claims to the address were seen while it was contested.
    pub claims: u64,
    /// Some of them: how it began, and the latest.
    pub sightings: VecDeque<Sighting>,
    /// How often it was told what became of a loser.
    pub told_losers: u32,
    /// How many claims had been told of when it was last told that it goes on.
    pub(crate) told_claims: u64,
    /// Contests that could not be held, one after the other.
    pub(crate) attempts: u8,
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

    /// Who keeps the address and why, in one sentence.
    #[must_use]
    pub fn decision(&self) -> Option<String> {
        let Contest { reason, losers, .. } = self.contest.as_ref()?;
        let Some(winner) = self.winner() else {
            return Some(format!("nobody is known to have a right to {}: {reason}", self.address));
        };
        let label = |port: IfIndex| self.party(port).map_or_else(|| format!("port {port}"), Party::label);
        let who = if winner.is_external { format!("whoever is beyond {}", winner.port_name) } else { winner.label() };
        let mut sentence = format!("{who} keeps {}: {reason}", self.address);
        for Holding { port, lease } in losers.iter().filter(|_| reason.is_of_lease()) {
            sentence += &match lease {
                None => format!("; {} has none", label(*port)),
                Some((address, generation)) if *address == self.address => {
                    format!("; {} had lease generation {generation} of it", label(*port))
                }
                Some((address, generation)) => {
                    format!("; {} holds lease generation {generation} on {address}", label(*port))
                }
            };
        }
        Some(sentence)
    }

    /// The party that keeps the address.
    #[must_use]
    pub fn winner(&self) -> Option<&Party> {
        let winner = self.contest.as_ref()?.winner?;
        self.parties.iter().find(|party| party.station.port == winner)
    }

    /// Whoever claims the first of the contested addresses. The others have one of those that joined, and nobody says that
    /// they should not.
    pub fn contenders(&self) -> impl Iterator<Item = &Party> {
        self.parties.iter().filter(|party| party.address == self.address)
    }

    /// The contenders beside the winner, if there is one.
    pub fn losers(&self) -> impl Iterator<Item = &Party> {
        let winner = self.contest.as_ref().and_then(|contest| contest.winner);
        self.contenders().filter(move |party| winner.is_some_and(|winner| winner != party.station.port))
    }

    /// Whoever only says on the wire that it has the address: if there are several addresses, each of them.
    #[must_use]
    pub fn claimant(&self) -> Option<&Party> {
        self.contenders().find(|party| !party.configured && !party.is_host)
    }

    /// What kind of duplicate it is, as far as is known by now.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let Some(contest) = &self.contest else { return Verdict::Duplicate };
        let only_says_so = || self.losers().count() > 0 && self.losers().all(Party::only_says_so);
        match contest.reason {
            Reason::HostAddress => Verdict::Spoof,
            Reason::LeaseHolder { .. } | Reason::Pinned { .. } if only_says_so() => Verdict::Spoof,
            _ => Verdict::Duplicate,
        }
    }

    /// How many losers have been moved or replaced.
    #[must_use]
    pub fn moved(&self) -> usize {
        self.evictions
            .values()
            .filter(|eviction| eviction.step == Step::Done && eviction.began >= self.first_at)
            .count()
    }

    /// Notes a claim to a contested address. Of many, the first half of what is kept stays and the rest makes room.
    pub(super) fn saw(&mut self, sighting: Sighting) {
        self.claims += 1;
        if self.sightings.len() >= SIGHTINGS {
            self.sightings.remove(SIGHTINGS / 2);
        }
        self.sightings.push_back(sighting);
    }

    /// Whether a party is in it.
    pub(super) fn has(&self, party: &Party) -> bool {
        self.parties.iter().any(|known| known.is_same(party))
    }

    /// The party at `port`.
    #[must_use]
    pub fn party(&self, port: IfIndex) -> Option<&Party> {
        self.parties.iter().find(|party| party.station.port == port)
    }
}

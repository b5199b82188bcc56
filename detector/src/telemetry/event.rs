//! What an event is: one thing told once, as a log line, a count and an entry of the event log.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::Serialize;
use tracing::Level;

use crate::{
    engine::{Incident, IncidentId, Party},
    net::{BridgeName, Domain, IfIndex, Mac, Station, VlanId},
};

/// What an event tells of. The words are a contract with whoever filters by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An address has two live owners.
    Duplicate,
    /// A duplicate that had ended is back.
    Reopened,
    /// One more party claims a contested address.
    PartyJoined,
    /// The same parties contest one more address.
    AddressJoined,
    /// A duplicate goes on.
    Continues,
    /// It is decided who keeps the address, or that this cannot be decided.
    Judged,
    /// Why a duplicate is not being healed.
    Held,
    /// An eviction took a step.
    EvictionStep,
    /// A step of an eviction failed and will be tried again.
    EvictionFailed,
    /// A loser's claims to an address are dropped from now on.
    Contained,
    /// They are not dropped any more.
    Lifted,
    /// A loser is at its new address.
    Evicted,
    /// A loser could not be dealt with.
    GivenUp,
    /// An incident goes on that an earlier agent had open.
    TakenUp,
    /// Nothing new is done for a while.
    Paused,
    /// The pause is over.
    PauseEnded,
    /// Every loser is at its new address.
    Healed,
    /// A duplicate ended without dupip.
    Gone,
    /// A claim that cannot be true.
    Martian,
    /// An address went from one station to another, as it may.
    Moved,
    /// Something that is no fault.
    Info,
    /// A port says more that is new than it may.
    Flood,
    /// A flood is over.
    FloodEnded,
    /// A port claims more addresses than are kept for one.
    ClaimsRefused,
    /// Whoever has an address could not be written down as its holder.
    NotAdopted,
    /// The lease database did not do its part.
    StoreFailed,
    /// A move that was under way when the agent stopped does not go on.
    MoveWaits,
    /// A move that was under way when the agent stopped goes on.
    MoveResumed,
    /// Claims were seen and not reported.
    EventsLost,
    /// A change was meant for a lease that is no more.
    Fenced,
    /// Somebody who should be told what happened was not.
    HookFailed,
    /// The agent cannot do something fully.
    Degraded,
    /// What the agent could not do works again.
    Restored,
}

impl Kind {
    /// Every kind, for whoever counts them.
    pub const ALL: [Self; 33] = [
        Self::Duplicate,
        Self::Reopened,
        Self::PartyJoined,
        Self::AddressJoined,
        Self::Continues,
        Self::Judged,
        Self::Held,
        Self::EvictionStep,
        Self::EvictionFailed,
        Self::Contained,
        Self::Lifted,
        Self::Evicted,
        Self::GivenUp,
        Self::TakenUp,
        Self::Paused,
        Self::PauseEnded,
        Self::Healed,
        Self::Gone,
        Self::Martian,
        Self::Moved,
        Self::Info,
        Self::Flood,
        Self::FloodEnded,
        Self::ClaimsRefused,
        Self::NotAdopted,
        Self::StoreFailed,
        Self::MoveWaits,
        Self::MoveResumed,
        Self::EventsLost,
        Self::Fenced,
        Self::HookFailed,
        Self::Degraded,
        Self::Restored,
    ];

    /// The kind in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Reopened => "reopened",
            Self::PartyJoined => "party_joined",
            Self::AddressJoined => "address_joined",
            Self::Continues => "continues",
            Self::Judged => "judged",
            Self::Held => "held",
            Self::EvictionStep => "eviction_step",
            Self::EvictionFailed => "eviction_failed",
            Self::Contained => "contained",
            Self::Lifted => "lifted",
            Self::Evicted => "evicted",
            Self::GivenUp => "given_up",
            Self::TakenUp => "taken_up",
            Self::Paused => "paused",
            Self::PauseEnded => "pause_ended",
            Self::Healed => "healed",
            Self::Gone => "gone",
            Self::Martian => "martian",
            Self::Moved => "moved",
            Self::Info => "info",
            Self::Flood => "flood",
            Self::FloodEnded => "flood_ended",
            Self::ClaimsRefused => "claims_refused",
            Self::NotAdopted => "not_adopted",
            Self::StoreFailed => "store_failed",
            Self::MoveWaits => "move_waits",
            Self::MoveResumed => "move_resumed",
            Self::EventsLost => "events_lost",
            Self::Fenced => "fenced",
            Self::HookFailed => "hook_failed",
            Self::Degraded => "degraded",
            Self::Restored => "restored",
        }
    }
}

impl Kind {
    /// At which level it is logged. Steps are many, and told at their end anyhow, so the log has them only if it is to say
    /// more.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::EvictionStep => Level::DEBUG,
            Self::Judged
            | Self::Contained
            | Self::Lifted
            | Self::Evicted
            | Self::TakenUp
            | Self::PauseEnded
            | Self::Healed
            | Self::Gone
            | Self::Moved
            | Self::Info
            | Self::FloodEnded
            | Self::MoveResumed
            | Self::Restored => Level::INFO,
            Self::Held
            | Self::EvictionFailed
            | Self::Paused
            | Self::Martian
            | Self::Flood
            | Self::ClaimsRefused
            | Self::NotAdopted
            | Self::MoveWaits
            | Self::EventsLost
            | Self::Fenced => Level::WARN,
            Self::Duplicate
            | Self::Reopened
            | Self::PartyJoined
            | Self::AddressJoined
            | Self::Continues
            | Self::GivenUp
            | Self::StoreFailed
            | Self::HookFailed
            | Self::Degraded => Level::ERROR,
        }
    }
}

/// What a kind of event changes, by which it may be held back or suppressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bearing {
    /// It opens, changes or ends an incident.
    OfIncident,
    /// It says what the agent or its operator does otherwise from now on, or what got lost of its work.
    OfAgent,
    /// The agent failed in something that it does over and over.
    Mishap,
    /// Something goes on from now on, or does no more.
    Turn,
    /// It is over as soon as it is told, and may come again at once.
    Passing,
}

impl Bearing {
    /// Whether what is said again a moment later may be counted instead.
    pub(super) const fn may_be_held_back(self) -> bool {
        matches!(self, Self::Mishap | Self::Passing)
    }
}

impl Kind {
    pub(super) const fn bearing(self) -> Bearing {
        match self {
            Self::Duplicate
            | Self::Reopened
            | Self::PartyJoined
            | Self::AddressJoined
            | Self::Judged
            | Self::Held
            | Self::EvictionStep
            | Self::EvictionFailed
            | Self::Contained
            | Self::Lifted
            | Self::Evicted
            | Self::GivenUp
            | Self::TakenUp
            | Self::Healed
            | Self::Gone
            | Self::MoveResumed => Bearing::OfIncident,
            Self::Paused | Self::PauseEnded | Self::MoveWaits | Self::HookFailed | Self::Degraded | Self::Restored => {
                Bearing::OfAgent
            }
            Self::StoreFailed | Self::EventsLost => Bearing::Mishap,
            Self::Flood | Self::FloodEnded => Bearing::Turn,
            Self::Continues
            | Self::Martian
            | Self::Moved
            | Self::Info
            | Self::ClaimsRefused
            | Self::NotAdopted
            | Self::Fenced => Bearing::Passing,
        }
    }
}

/// A word that is no kind of event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no kind of event `{0}`; there are {kinds}", kinds = Kind::ALL.map(Kind::as_str).join(", "))]
pub struct UnknownKind(pub(super) String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is wrong.
    Info,
    /// Somebody should look when there is time.
    Warning,
    /// Something does not work as it should: a sandbox has no address of its own, or the agent cannot do all it does.
    Error,
    /// Everybody on the bridge is concerned: somebody claims the host's own address.
    Critical,
}

impl Severity {
    /// How bad a duplicate is.
    #[must_use]
    pub fn of(incident: &Incident) -> Self {
        let of_host = incident.parties.iter().any(|party| party.is_host);
        if of_host { Self::Critical } else { Self::Error }
    }

    /// The severity in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// One thing that a person, a log or a program should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it tells of.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// The bridge.
    pub bridge: Option<BridgeName>,
    /// The VLAN on it; `None` is what goes untagged.
    pub vlan: Option<VlanId>,
    /// The address that it is about.
    pub address: Option<Ipv4Addr>,
    /// The incident that it belongs to.
    pub incident: Option<IncidentId>,
    /// The port that did it.
    pub port: Option<IfIndex>,
    /// The port's interface name, if it is known.
    pub port_name: Option<String>,
    /// The hardware address that did it.
    pub mac: Option<Mac>,
    /// Why, or of which sort it is.
    pub reason: Option<String>,
    /// All of it in one sentence.
    pub message: String,
    /// What only some kinds tell.
    pub facts: Facts,
    /// The incident as it then stood, without what was sighted.
    pub snapshot: Option<Box<Incident>>,
    /// Who was concerned, if it is no incident; of an address that moved, first who had it and then who has it.
    pub parties: Vec<Party>,
}

/// What only some kinds of events tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The step of an eviction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<&'static str>,
    /// How long after the first contradiction, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_us: Option<u64>,
    /// How many packets or claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// In whose name the lease is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The address that a loser has got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_address: Option<Ipv4Addr>,
    /// What cannot be done fully.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature: Option<&'static str>,
    /// The source of the frame, or the hardware address before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_mac: Option<String>,
    /// Whom a martian packet was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Ipv4Addr>,
    /// The interface on which a kernel heard it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Event {
    pub(super) fn new(kind: Kind, severity: Severity, message: impl fmt::Display) -> Self {
        Self {
            kind,
            severity,
            bridge: None,
            vlan: None,
            address: None,
            incident: None,
            port: None,
            port_name: None,
            mac: None,
            reason: None,
            message: message.to_string(),
            facts: Facts::default(),
            snapshot: None,
            parties: Vec::new(),
        }
    }

    pub(super) fn at(self, domain: Domain, address: Ipv4Addr) -> Self {
        Self { bridge: Some(domain.bridge), vlan: domain.vlan, address: Some(address), ..self }
    }

    /// With the incident as it stands, and whoever came last as the one who did it.
    pub(super) fn of(self, incident: &Incident) -> Self {
        let mut snapshot = incident.clone();
        snapshot.sightings = [].into();
        let event = Self {
            incident: Some(incident.id),
            snapshot: Some(Box::new(snapshot)),
            ..self.at(incident.domain, incident.address)
        };
        match incident.parties.last() {
            Some(party) => event.by(party),
            None => event,
        }
    }

    pub(super) fn by(self, party: &Party) -> Self {
        Self { port_name: Some(party.port_name.clone()), ..self.from(party.station) }
    }

    pub(super) fn from(self, station: Station) -> Self {
        Self { port: Some(station.port), mac: Some(station.mac), ..self }
    }

    /// Whoever it is about is behind the port of this name, and the words begin with that.
    pub(super) fn behind(self, port_name: &str) -> Self {
        Self { message: format!("port {port_name}: {}", self.message), port_name: Some(port_name.to_owned()), ..self }
    }

    pub(super) fn because(self, reason: impl fmt::Display) -> Self {
        Self { reason: Some(reason.to_string()), ..self }
    }

    pub(super) fn with(self, facts: Facts) -> Self {
        Self { facts, ..self }
    }

    pub(super) fn domain(&self) -> Option<Domain> {
        self.bridge.map(|bridge| Domain { bridge, vlan: self.vlan })
    }

    /// How much memory it takes, in bytes, about: what is kept is bound by it.
    pub(super) fn weight(&self) -> usize {
        let parties = self.snapshot.iter().flat_map(|incident| &incident.parties).chain(&self.parties);
        let of_incident = |incident: &Incident| {
            size_of::<Incident>() + incident.addresses.len() * 16 + incident.evictions.len() * EVICTION
        };
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let texts = [&self.reason, &self.port_name, &self.facts.owner, &self.facts.device].map(text);
        size_of::<Self>()
            + self.message.len()
            + texts.iter().sum::<usize>()
            + self.snapshot.as_deref().map_or(0, of_incident)
            + parties.map(weight_of_party).sum::<usize>()
    }
}

/// What an eviction takes, with its lease and its steps.
const EVICTION: usize = 512;

fn weight_of_party(party: &Party) -> usize {
    let owners: usize = party.sandbox.owners.iter().map(|owner| size_of_val(owner) + owner.as_str().len()).sum();
    size_of_val(party) + party.port_name.len() + party.sandbox.name.as_ref().map_or(0, String::len) + owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_by_its_own_word() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        let error = "duplicates".parse::<Kind>().unwrap_err().to_string();
        assert!(
            error.starts_with("there is no kind of event `duplicates`; there are duplicate, reopened, "),
            "{error}"
        );
    }

    #[test]
    fn the_worst_is_the_greatest() {
        assert!(Severity::Critical > Severity::Error && Severity::Error > Severity::Warning);
        assert!(Severity::Warning > Severity::Info);
    }
}

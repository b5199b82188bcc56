//! What an operator does not want to be told.
//!
//! It is still counted. What opens, changes or closes an incident, and what the agent cannot do, is always told: an agent
//! that is silent about those is none.

use std::{fmt, str::FromStr};

use super::event::{Bearing, Event, Kind, UnknownKind};
use crate::net::MartianReason;

/// The words that [`crate::engine::Info::kind`] knows.
const INFOS: [&str; 4] = ["mac_changed", "soft_conflict", "foreign_source", "lingers"];

/// A kind of event that is counted and neither logged nor streamed: `martian`, or only `martian:outside_subnet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suppressed {
    kind: Kind,
    /// Only those of this sort; `None`: all.
    reason: Option<&'static str>,
}

/// Why a kind of event cannot be suppressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSuppressed {
    /// There is no such kind.
    #[error(transparent)]
    Unknown(#[from] UnknownKind),
    /// It is part of an incident's life.
    #[error("`{0}` cannot be suppressed: it opens, changes or closes an incident")]
    OfIncident(Kind),
    /// It is the agent's own trouble.
    #[error("`{0}` cannot be suppressed: it says what the agent cannot do as it should, or can again")]
    OfAgent(Kind),
    /// The kind is one, without sorts.
    #[error("`{0}` has no sorts: suppress all of it, as `{0}`")]
    NoReasons(Kind),
    /// The kind has other sorts.
    #[error("`{kind}` has no sort `{reason}`; there are {known}", known = reasons(*kind).join(", "))]
    UnknownReason {
        /// The kind.
        kind: Kind,
        /// What was asked for.
        reason: String,
    },
}

impl Suppressed {
    /// Whether the event is one of these. A flood's end goes with its beginning.
    pub(super) fn covers(&self, event: &Event) -> bool {
        let kind = match event.kind {
            Kind::FloodEnded if self.kind == Kind::Flood => Kind::Flood,
            kind => kind,
        };
        kind == self.kind && self.reason.is_none_or(|reason| event.reason.as_deref() == Some(reason))
    }
}

impl FromStr for Suppressed {
    type Err = NotSuppressed;

    fn from_str(text: &str) -> Result<Self, NotSuppressed> {
        let (kind, reason) = text.split_once(':').map_or((text, None), |(kind, reason)| (kind, Some(reason)));
        let kind = allowed(kind.parse()?)?;
        let reason = reason.map(|reason| known(kind, reason)).transpose()?;
        Ok(Self { kind, reason })
    }
}

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        self.reason.map_or(Ok(()), |reason| write!(f, ":{reason}"))
    }
}

const fn allowed(kind: Kind) -> Result<Kind, NotSuppressed> {
    match kind.bearing() {
        Bearing::Passing | Bearing::Turn => Ok(kind),
        Bearing::OfIncident => Err(NotSuppressed::OfIncident(kind)),
        Bearing::OfAgent | Bearing::Mishap => Err(NotSuppressed::OfAgent(kind)),
    }
}

/// The sorts that a kind has.
fn reasons(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::Martian => MartianReason::ALL.map(MartianReason::as_str).into(),
        Kind::Info => INFOS.into(),
        _ => Vec::new(),
    }
}

fn known(kind: Kind, reason: &str) -> Result<&'static str, NotSuppressed> {
    let all = reasons(kind);
    if all.is_empty() {
        return Err(NotSuppressed::NoReasons(kind));
    }
    let unknown = || NotSuppressed::UnknownReason { kind, reason: reason.to_owned() };
    all.into_iter().find(|known| *known == reason).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::Info, telemetry::event::Severity};

    fn suppressed(text: &str) -> Suppressed {
        text.parse().unwrap()
    }

    #[test]
    fn a_kind_or_one_sort_of_it_is_suppressed() {
        let event = |kind, reason: &str| Event::new(kind, Severity::Warning, "").because(reason);
        for (text, kind, reason, covered) in [
            ("martian", Kind::Martian, "loopback", true),
            ("martian:outside_subnet", Kind::Martian, "outside_subnet", true),
            ("martian:outside_subnet", Kind::Martian, "loopback", false),
            ("martian:kernel", Kind::Martian, "kernel", true),
            ("info", Kind::Martian, "mac_changed", false),
            ("info:mac_changed", Kind::Info, "mac_changed", true),
            ("moved", Kind::Moved, "", true),
            ("flood", Kind::FloodEnded, "", true),
            ("flood_ended", Kind::Flood, "", false),
            ("claims_refused", Kind::ClaimsRefused, "", true),
        ] {
            assert_eq!(suppressed(text).to_string(), text);
            assert_eq!(suppressed(text).covers(&event(kind, reason)), covered, "{text} {kind} {reason}");
        }
    }

    #[test]
    fn what_must_be_told_cannot_be_suppressed_and_nonsense_neither() {
        for (text, want) in [
            ("duplicate", "it opens, changes or closes an incident"),
            ("reopened", "it opens, changes or closes an incident"),
            ("healed", "it opens, changes or closes an incident"),
            ("gone", "it opens, changes or closes an incident"),
            ("party_joined", "it opens, changes or closes an incident"),
            ("judged", "it opens, changes or closes an incident"),
            ("held", "it opens, changes or closes an incident"),
            ("eviction_step", "it opens, changes or closes an incident"),
            ("eviction_failed:x", "it opens, changes or closes an incident"),
            ("degraded", "it says what the agent cannot do as it should"),
            ("martians", "there is no kind of event `martians`; there are duplicate, "),
            ("", "there is no kind of event ``"),
            ("martian:", "`martian` has no sort ``; there are this_network, "),
            ("martian:odd", "`martian` has no sort `odd`; there are this_network, "),
            ("moved:odd", "`moved` has no sorts: suppress all of it, as `moved`"),
        ] {
            let error = text.parse::<Suppressed>().unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    /// A sort that the engine learns must be added above; this does not compile before it is thought of.
    #[test]
    fn every_sort_of_information_is_known() {
        let word = |info: &Info| match info {
            Info::MacChanged { .. } => "mac_changed",
            Info::SoftConflict { .. } => "soft_conflict",
            Info::ForeignSource { .. } => "foreign_source",
            Info::Lingers { .. } => "lingers",
        };
        let domain = crate::net::Domain::untagged("rt0".parse().unwrap());
        let info = Info::SoftConflict { domain, address: [10, 8, 64, 2].into(), parties: Vec::new() };
        assert_eq!(word(&info), info.kind());
        assert_eq!(INFOS.map(|word| suppressed(&format!("info:{word}")).reason), INFOS.map(Some));
    }
}

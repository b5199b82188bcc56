//! Tells an event: its log line, its count and its entry in the event log, together.

use std::{collections::BTreeMap, fmt, sync::PoisonError};

use tracing::{debug, error, info, warn};

use super::{
    Telemetry,
    event::{Event, Facts, Kind, Severity},
    metrics::Feature,
};
use crate::net::BridgeName;

/// What cannot be done fully, and why.
pub(super) type Reasons = BTreeMap<Feature, String>;

impl Telemetry {
    pub(super) fn tell(&self, event: Event) {
        self.told.with_label_values(&[event.kind.as_str()]).inc();
        if self.suppressed.iter().any(|suppressed| suppressed.covers(&event)) {
            return;
        }
        write_line(&event);
        self.events.push(event);
    }

    /// The tap could not report packets; they are asked for anew.
    pub fn lost(&self, bridge: BridgeName, count: u64) {
        self.count_lost(bridge, count);
        let words = format!("{count} ARP packets of {bridge} were not reported; every known address is asked for");
        let event = Event::new(Kind::EventsLost, Severity::Warning, words);
        let event = event.with(Facts { count: Some(count), ..Facts::default() });
        self.tell(Event { bridge: Some(bridge), ..event });
    }

    /// A change was meant for a lease that is no more.
    ///
    /// It is counted where it is refused, in the store, whoever asked: see [`Telemetry::set_fenced`].
    pub fn tell_fenced(&self, op: &'static str, fence: impl fmt::Display) {
        let words = format!("refused a change for {fence}: the lease is not that one any more");
        self.tell(Event::new(Kind::Fenced, Severity::Warning, words).because(op));
    }

    /// What the agent cannot do fully, each in one word and with the reason.
    #[must_use]
    pub fn shortcomings(&self) -> Vec<(&'static str, String)> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.iter().map(|(feature, reason)| (feature.as_str(), reason.clone())).collect()
    }

    /// Something that the agent can do without has failed, or works again. Told only if that is news.
    pub fn degraded(&self, feature: Feature, reason: Option<&dyn fmt::Display>) {
        self.degraded.with_label_values(&[feature.as_str()]).set(i64::from(reason.is_some()));
        let reason = reason.map(ToString::to_string);
        let before = {
            let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
            match &reason {
                Some(reason) => reasons.insert(feature, reason.clone()),
                None => reasons.remove(&feature),
            }
        };
        if before != reason {
            self.tell(of_feature(feature, reason));
        }
    }
}

fn of_feature(feature: Feature, reason: Option<String>) -> Event {
    let event = match &reason {
        Some(reason) => Event::new(Kind::Degraded, Severity::Error, reason),
        None => Event::new(Kind::Restored, Severity::Info, format_args!("{} works again", feature.as_str())),
    };
    Event { reason, ..event.with(Facts { feature: Some(feature.as_str()), ..Facts::default() }) }
}

/// Steps are many, and told at their end anyhow, so the log has them only if it is to say more.
fn write_line(event: &Event) {
    let Event { facts, message, .. } = event;
    let domain = event.domain().map(tracing::field::display);
    let (incident, ifindex) = (event.incident.map(|id| id.0), event.port.map(|port| port.get()));
    let (address, mac) = (event.address.map(tracing::field::display), event.mac.map(tracing::field::display));
    let (port, reason) = (event.port_name.as_deref(), event.reason.as_deref());
    let Facts { step, after_us, count, feature, .. } = *facts;
    macro_rules! line {
        ($level:ident) => {
            $level!(
                event = event.kind.as_str(),
                incident,
                domain,
                address,
                port,
                ifindex,
                mac,
                reason,
                step,
                after_us,
                count,
                feature,
                owner = facts.owner,
                source_mac = facts.source_mac,
                "{message}"
            )
        };
    }
    match (event.kind, event.severity) {
        (Kind::EvictionStep, _) => line!(debug),
        (_, Severity::Info) => line!(info),
        (_, Severity::Warning) => line!(warn),
        (_, Severity::Error | Severity::Critical) => line!(error),
    }
}

//! What becomes of messages to hooks, counted and told.
//!
//! Occasions come as their words: who else is told, and how, is not known here. What names a hook is what may be shown of
//! it: never a query, a password or an argument.

use std::fmt::Display;

use super::{
    Telemetry,
    event::{Event, Kind, Severity},
};
use crate::engine::IncidentId;

/// How a message to a hook ended, or did not end yet.
const RESULTS: [&str; 4] = ["delivered", "retried", "failed", "dropped"];

impl Telemetry {
    /// Makes the counts of these occasions appear, at 0.
    pub fn watch_hooks(&self, occasions: impl IntoIterator<Item = &'static str>) {
        for occasion in occasions {
            RESULTS.iter().for_each(|result| self.hooks.with_label_values(&[occasion, result]).reset());
        }
    }

    /// A hook took its message.
    pub fn hook_delivered(&self, occasion: &'static str, incident: IncidentId, hook: impl Display) {
        self.count_hook(occasion, "delivered");
        tracing::info!(event = "hook_delivered", incident = incident.0, occasion, "told {hook}");
    }

    /// A hook did not take its message and will be told again in a while.
    pub fn hook_retried(&self, occasion: &'static str, incident: IncidentId, hook: impl Display, why: impl Display) {
        self.count_hook(occasion, "retried");
        let words = format_args!("{hook} was not told, will be told again: {why}");
        tracing::warn!(event = "hook_retried", incident = incident.0, occasion, "{words}");
    }

    /// A hook did not take its message and is not told again.
    pub fn hook_failed(&self, occasion: &'static str, incident: IncidentId, hook: impl Display, why: impl Display) {
        self.count_hook(occasion, "failed");
        let words = format!("{hook} was not told `{occasion}` of incident {incident}: {why}");
        self.tell(not_told(occasion, Some(incident), words));
    }

    /// There was no room for a message to a hook, or nobody for whom it was.
    pub fn hook_dropped(&self, occasion: &'static str, incident: IncidentId, hook: impl Display, why: impl Display) {
        self.count_hook(occasion, "dropped");
        let words = format!("{hook} will not be told `{occasion}` of incident {incident}: {why}");
        self.tell(not_told(occasion, Some(incident), words));
    }

    /// What was kept for hooks cannot be read any more.
    pub fn hooks_damaged(&self, file: impl Display) {
        let words = format!("set aside a message to a hook that cannot be read: {file}");
        self.tell(not_told("damaged", None, words));
    }

    fn count_hook(&self, occasion: &'static str, result: &'static str) {
        self.hooks.with_label_values(&[occasion, result]).inc();
    }
}

fn not_told(reason: &'static str, incident: Option<IncidentId>, words: String) -> Event {
    Event { incident, ..Event::new(Kind::HookFailed, Severity::Error, words).because(reason) }
}

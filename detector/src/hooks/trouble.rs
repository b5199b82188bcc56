//! How much of telling hooks does not work.

use std::{
    collections::BTreeSet,
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
};

use crate::telemetry::{Feature, Telemetry};

/// What does not work now, told whenever that changes.
#[derive(Debug)]
pub(super) struct Trouble {
    telemetry: Arc<Telemetry>,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    /// Why messages cannot be kept on disk.
    disk: Option<String>,
    /// Hooks that did not take a message to the end.
    deaf: BTreeSet<String>,
    /// Why there is no room for more messages.
    full: Option<String>,
}

impl Trouble {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, now: Mutex::default() }
    }

    /// The disk failed, or works.
    pub(super) fn disk(&self, why: Option<String>) {
        self.change(|now| now.disk = why);
    }

    /// A hook did not take a message, however often it was told.
    pub(super) fn deaf(&self, hook: impl Display) {
        self.change(|now| now.deaf.extend([hook.to_string()]));
    }

    /// A hook took a message.
    pub(super) fn heard(&self, hook: impl Display) {
        let hook = hook.to_string();
        self.change(|now| now.deaf.retain(|deaf| *deaf != hook));
    }

    /// There is no room for more messages, or there is again.
    pub(super) fn full(&self, why: Option<String>) {
        self.change(|now| now.full = why);
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut now);
        // Told while it is held, so that two changes are told in their order.
        let reason = now.reason();
        self.telemetry.degraded(Feature::Hooks, reason.as_ref().map(|reason| reason as &dyn Display));
    }
}

impl Now {
    fn reason(&self) -> Option<String> {
        let deaf: Vec<_> = self.deaf.iter().map(String::as_str).collect();
        let deaf = (!deaf.is_empty()).then(|| format!("not told what happened: {}", deaf.join(", ")));
        let reasons: Vec<_> = [deaf, self.full.clone(), self.disk.clone()].into_iter().flatten().collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::degraded_in;

    #[test]
    fn it_is_over_when_all_of_it_is() {
        let telemetry = Arc::new(Telemetry::new().unwrap());
        let trouble = Trouble::new(Arc::clone(&telemetry));
        let degraded = || degraded_in(&String::from_utf8(telemetry.render().unwrap()).unwrap()) == ["hooks"];
        trouble.deaf("/a");
        trouble.deaf("/b");
        trouble.disk(Some("no room on disk".to_owned()));
        trouble.heard("/a");
        let reason = trouble.now.lock().unwrap().reason().unwrap();
        assert_eq!(reason, "not told what happened: /b; no room on disk");
        trouble.heard("/b");
        assert!(degraded());
        trouble.disk(None);
        assert!(!degraded());
    }
}

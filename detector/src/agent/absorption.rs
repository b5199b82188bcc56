//! What the tap need not report again, kept in step with what the engine knows.

use super::{clock, run::Agent};
use crate::{
    capture::CaptureError,
    engine::{Input, KnownClaim},
    net::IfIndex,
    time::Span,
};

impl Agent {
    /// What cannot be absorbed is reported each time, which is no harm.
    pub(super) fn absorb(&mut self, claim: &KnownClaim) {
        let Some(bridge) = self.bridge_index(claim.port) else { return };
        if let Err(error) = self.known.absorb(claim, bridge) {
            tracing::debug!(event = "not_absorbed", port = %claim.port, address = %claim.address, "{error}");
        }
    }

    pub(super) fn forget(&mut self, claim: &KnownClaim) {
        if let Err(error) = self.known.forget(claim) {
            tracing::warn!(event = "not_forgotten", port = %claim.port, address = %claim.address, "{error}");
        }
    }

    pub(super) fn forget_port(&mut self, port: IfIndex) {
        if let Err(error) = self.known.forget_port(port) {
            tracing::warn!(event = "not_forgotten", %port, "{error}");
        }
    }

    /// Tells the engine all that the tap has absorbed, unless that was done lately.
    pub(super) fn hear(&mut self, lately: Span) {
        self.begin_to_hear(lately);
        while self.known.is_being_read() {
            self.hear_some();
        }
    }

    /// Begins to tell the engine what the tap has absorbed, unless that was done lately.
    pub(super) fn begin_to_hear(&mut self, lately: Span) {
        let now = clock::now();
        if now.since(self.heard_at) < lately {
            return;
        }
        self.heard_at = now;
        self.known.begin_to_read(now).unwrap_or_else(|error| not_heard(&error));
    }

    /// Tells the engine some of it: all at once would keep the loop from everything else.
    pub(super) fn hear_some(&mut self) {
        match self.known.read_some() {
            Ok(heard) => self.tell(Input::Heard(heard.unwrap_or_default())),
            Err(error) => not_heard(&error),
        }
    }

    fn bridge_index(&self, port: IfIndex) -> Option<IfIndex> {
        let of_port = self.ports.get(&port).map(|port| port.bridge);
        of_port.or_else(|| self.bridge_name(port).map(|_| port))
    }
}

fn not_heard(error: &CaptureError) {
    tracing::warn!(event = "not_heard", "it is not known who was heard lately: {error}");
}

//! What the tap need not report again, kept in step with what the engine knows.

use super::{clock, run::Agent};
use crate::{
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

    /// Tells the engine what the tap has absorbed, unless that was done lately.
    pub(super) fn hear(&mut self, lately: Span) {
        let now = clock::now();
        if now.since(self.heard_at) < lately {
            return;
        }
        self.heard_at = now;
        let Self { known, engine, .. } = self;
        if let Err(error) = known.tell(now, |heard| engine.handle(Input::Heard(heard), now)) {
            tracing::warn!(event = "not_heard", "it is not known who was heard lately: {error}");
        }
    }

    fn bridge_index(&self, port: IfIndex) -> Option<IfIndex> {
        let of_port = self.ports.get(&port).map(|port| port.bridge);
        of_port.or_else(|| self.bridge_name(port).map(|_| port))
    }
}

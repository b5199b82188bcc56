//! What the outside learns: metrics and log lines.
//!
//! One event is one log line and one counter, written together, in `events`. The names of metrics stand in `metrics` and
//! nowhere else. No address and no sandbox is ever a label: identities belong in log lines and incidents, where they cost
//! nothing once they are over.

mod events;
mod metrics;

pub use metrics::{BridgeGauges, Feature, Telemetry};

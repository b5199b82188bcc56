//! What the outside learns: metrics, log lines and the event log.
//!
//! One event is one log line, one count and one entry of the event log, made together in `tell`; `findings` makes events
//! of what the engine finds. `log` keeps the latest for whoever asks or waits. The names of metrics stand in `metrics` and
//! nowhere else. No address and no sandbox is ever a label: identities belong in events and incidents, where they cost
//! nothing once they are over.

mod event;
mod findings;
mod hooks;
mod log;
mod metrics;
mod suppressed;
mod tell;
#[cfg(test)]
pub(crate) mod tests;
mod unanswered;
mod words;

pub use event::{Event, Facts, Kind, Severity, UnknownKind};
pub use log::{Asked, BadCursor, Cursor, Entry, EventLog, Page, Stream};
pub use metrics::{BridgeGauges, Feature, Telemetry, degraded_in};
pub use suppressed::{NotSuppressed, Suppressed};
pub use unanswered::Unanswered;
pub use words::with_causes;

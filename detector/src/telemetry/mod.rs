//! What the outside learns: metrics, log lines and the event log.
//!
//! One event is one log line, one count and one entry of the event log, made together in `tell`; `findings` makes events
//! of what the engine finds. `log` keeps the latest for whoever asks or waits. The names of metrics stand in `metrics` and
//! nowhere else. No address and no sandbox is ever a label: identities belong in events and incidents, where they cost
//! nothing once they are over. `lines` names every line that anybody logs, and `repeats` says several like ones by one.

mod event;
mod findings;
mod hooks;
mod lines;
mod log;
mod metrics;
mod repeats;
mod rooms;
mod suppressed;
mod tell;
#[cfg(test)]
pub(crate) mod tests;
mod unanswered;
mod words;

pub use event::{Event, Facts, Kind, Severity, UnknownKind};
pub use lines::{LINES, Line, REPEATED};
pub use log::{Asked, BadCursor, Cursor, Entry, EventLog, Page, Stream};
pub use metrics::{BridgeGauges, Feature, Telemetry, degraded_in};
pub use rooms::{PoolRoom, rooms_in};
pub use suppressed::{NotSuppressed, Suppressed};
pub use unanswered::Unanswered;
pub use words::{one_line, with_causes};

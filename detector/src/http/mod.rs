//! What the agent says over HTTP: metrics and health for machines, the live table, incidents, events and leases as JSON.
//!
//! Over TCP everything can be read and nothing changed. The Unix socket serves the same, and changes besides, for peers
//! whose credentials allow it. `api` holds the types that go over the wire, for both ends of it; `client` is the other end.

pub mod api;
mod client;
mod endpoints;
mod events;
mod explain;
mod live_table;
mod look;
mod page;
mod peer;
mod problem;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod reload;
mod routes;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod view;

/// Where the agent listens unless something else is said.
pub const SOCKET: &str = "/run/dupip/dupip.sock";

pub use client::{Client, ClientError, encoded};
pub use endpoints::{BindError, Endpoints};
pub use explain::{Unexplained, explained};
pub use live_table::{LiveTable, Witnesses};
pub use reload::{Reloading, Reloads};
pub use server::serve;
pub use view::{LONGEST_PAUSE, Wall, incident, row, told};

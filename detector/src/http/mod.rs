//! What the agent says over HTTP: metrics and health for machines, the live table, incidents, events and leases as JSON.
//!
//! Over TCP everything can be read and nothing changed, on loopback by whoever is there, elsewhere over TLS by whoever has a
//! token. The Unix socket serves the same, and changes besides, for peers
//! whose credentials allow it. `api` holds the types that go over the wire, for both ends of it; `client` is the other end.

pub mod api;
mod books;
mod client;
mod crowd;
mod endpoints;
mod events;
mod explain;
mod gate;
mod listening;
mod live_table;
mod look;
mod openapi;
mod page;
mod peer;
mod problem;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod reload;
mod reread;
mod routes;
mod secrets;
mod server;
mod shield;
mod stream;
#[cfg(test)]
mod tests;
mod view;

/// Where the agent listens unless something else is said.
pub const SOCKET: &str = "/run/dupip/dupip.sock";

pub use client::{Client, ClientError, encoded};
pub use endpoints::{BindError, Endpoints};
pub use explain::{Unexplained, explained};
pub use listening::{Guards, Listening, Unguarded};
pub use live_table::{LiveTable, Witnesses};
pub use openapi::document;
pub use reload::{Reloading, Reloads};
pub use reread::{Flaw, Unusable};
pub use server::serve;
pub use view::{LONGEST_PAUSE, Wall, incident, row, told};

//! Tells other programs what happened to an incident: commands get it on standard input, webhooks as a body.
//!
//! - `message` is what they are told; `packaging/hooks.md` and its JSON Schema are the contract with whoever reads it.
//! - `settings` says who is told of what, `endpoint` where a webhook is.
//! - `courier` carries the messages: in order for each hook and incident, some at a time, again when one was not taken.
//!   `patience` says when, and when no more. `command` and `webhook` make one attempt each.
//! - `spool` keeps on disk what is not told yet (`disk` beside the loop), so that an agent that was killed tells it when it runs again. A message
//!   may therefore come twice; its id tells that.
//! - `trouble` says how much of this does not work.
//!
//! Whoever tells never waits. What could not be told is counted and told to people, and nothing that could let anybody in
//! (passwords, queries, arguments, keys) is ever written to a log or to the spool.

mod command;
mod courier;
mod disk;
mod endpoint;
mod message;
mod patience;
mod settings;
mod spool;
#[cfg(test)]
mod tests;
mod trouble;
mod webhook;

pub use command::{BadCommand, Command};
pub use courier::{Hooks, NotDone};
pub use endpoint::{BadEndpoint, Endpoint};
pub use message::{BadMessageId, Message, MessageId, Occasion, PartyInfo, SCHEMA, UnknownOccasion};
pub use patience::Patience;
pub use settings::{BadHook, BadHookKey, Hook, HookKey, HookSettings, Secret, Target};
pub use spool::{Kept, Outbox, Pending, Spool};

//! dupip: every IP address on a sandbox runner has exactly one live owner.
//!
//! The crate is a row of rooms: net, time, engine, allocator, capture, netlink, sandbox, telemetry, agent, http, cli. A
//! room names only rooms that stand before it in this row (`cargo xtask lint` checks that). `ARCHITECTURE.md` beside this
//! crate's manifest tells what each is for.

pub mod engine;
pub mod net;
pub mod telemetry;
pub mod time;

pub mod allocator;

//! dupip: every IP address on a sandbox runner has exactly one live owner.
//!
//! The rooms below stand in the order in which they may use each other: a room names only rooms above it (`cargo xtask
//! lint` checks that). `ARCHITECTURE.md` beside this crate's manifest tells what each is for.

pub mod net;
pub mod time;

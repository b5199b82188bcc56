//! dupip: every IP address on a sandbox runner has exactly one live owner.
//!
//! The rooms stand in the order in which they may use each other: a room names only rooms above it, which `cargo xtask
//! lint` checks. `ARCHITECTURE.md` beside this crate's manifest tells what each is for.

pub mod net;

pub mod time;

pub mod engine;

pub mod allocator;

pub mod evidence;

pub mod capture;

pub mod netlink;

pub mod sandbox;

pub mod witness;

pub mod telemetry;

pub mod hooks;

pub mod replay;

pub mod agent;

pub mod scan;

pub mod http;

pub mod reconcile;

pub mod cni;

pub mod doctor;

pub mod bundle;

pub mod cli;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

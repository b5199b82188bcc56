//! What the ARP tap in the kernel and the agent in user space agree on: records, maps and names.
//!
//! The tap's reading of a frame lives here too ([`read_frame`]), as a pure function over a [`Frame`]: the program hands it
//! a socket buffer, the tests hand it bytes.

#![no_std]

#[cfg(test)]
extern crate std;

mod counters;
mod event;
mod frame;

pub use counters::TapCounters;
pub use event::{ArpEvent, Tapped};
pub use frame::{Arp, Frame, Malformed, Operation, Report, may_carry_arp, read_frame};

/// The program's name, in the object and in the kernel (`bpftool prog`, `tc filter show`).
pub const PROGRAM: &str = "dupip_arp_tap";

/// The map of type ring buffer that carries one [`ArpEvent`] per claim.
pub const EVENTS: &str = "EVENTS";

/// The per-CPU hash map from interface index (`u32`) to [`TapCounters`]. The agent makes an interface's entry before it
/// attaches the tap there; for interfaces without one nothing is counted.
pub const COUNTERS: &str = "COUNTERS";

/// The size of [`EVENTS`] in bytes unless the agent sets another: about 18,000 claims.
pub const RING_BYTES: u32 = 1 << 20;

/// The most interfaces that can be tapped at one time: eight full bridges (`BR_MAX_PORTS` in the kernel's
/// `net/bridge/br_private.h` is 1024).
pub const MAX_INTERFACES: u32 = 8 * 1024;

//! Leases against everything that shows an address in use, and what may be done where the two differ.
//!
//! [`Observation::take`] reads the leases first and looks for users afterwards: what is allocated in between is then
//! missing among the leases and so cannot be mistaken for one that nobody uses. [`compare`] says what does not fit,
//! without doing anything. [`Report::of`] takes two observations, so that only what both show may be reclaimed, and
//! [`reclaim`] looks anew, right before it acts, and changes only leases that are still the ones in the report.
//!
//! **Proof of absence** is: every network namespace on the machine was looked into and has the address on no interface
//! that leads to the lease's domain, or to nowhere that is known; nobody answers for it on the bridge; the agent, if one
//! watches the bridge, has it in its live table for nobody; and the host has heard of no such neighbour lately. If any of
//! these could not be looked at, that is a [`Gap`], and there is no proof for anything in the domain.
//!
//! A virtual machine behind a tap and a machine behind an uplink cannot be looked into. For those it takes two senses that
//! say the same: probes that nobody answers, and a live table that has no claim. Where no agent watches the bridge there
//! is only one of the two, so such a port is a gap.

mod compare;
mod drained;
mod evidence;
mod hidden;
mod look;
mod observe;
mod reclaim;
mod report;

pub use compare::{Kind, Row, compare, unproven};
pub use drained::retire_drained;
pub use evidence::{Evidence, Gap, Reach, Sense, Sighting, User};
pub use look::{Addresses, Look, LookError, Looker};
pub use observe::{Observation, ObserveError};
pub use reclaim::{Deed, Outcome, reclaim};
pub use report::{InvalidReport, Report, Seen};

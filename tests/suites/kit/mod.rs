//! What the lab has for the other suites: each of its parts, proven on the kernel.

mod bridges;
mod captures;
mod crowd;
mod frames;
mod rights;
mod sealed;
mod stations;
mod tap;
mod tcp;
mod vrrp;

use std::time::Duration;

use anyhow::Result;
use lab::{Bridge, Runner};

const DEADLINE: Duration = Duration::from_secs(5);

fn rt0() -> Result<Bridge> {
    Runner::new()?.bridge("rt0", "10.8.64.1/24")
}

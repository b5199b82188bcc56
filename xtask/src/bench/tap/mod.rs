//! `cargo xtask bench tap`.

mod frames;
mod observer;
mod traffic;

use std::time::Duration;

use anyhow::Result;
use lab::{Bridge, Runner, Sandbox};

use super::{Bench, report::Section};

/// How long a program may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sandboxes on the bridge. Two of them talk.
const SANDBOXES: u8 = 8;

/// Runs frames through programs, and traffic past observers.
///
/// # Errors
/// When the lab cannot be made, a program does not load or a peer does not start.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Section>> {
    Ok(vec![frames::measure(bench)?, traffic::measure(bench)?])
}

fn lab() -> Result<(Bridge, Vec<Sandbox>)> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let plan = |n| bridge.sandbox(&format!("sandbox-{n}")).without_ipv6().address(&format!("10.8.64.{}/24", n + 2));
    let sandboxes = bridge.start_all((0..SANDBOXES).map(plan))?;
    Ok((bridge, sandboxes))
}

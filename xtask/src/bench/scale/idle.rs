//! What the agents take of the processor while nothing happens.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::crowd::Crowd;
use crate::bench::{Bench, cpu::CpuTime};

/// How often it is looked whether somebody wants this to end.
const PAUSE: Duration = Duration::from_millis(200);

/// The part of one core that each agent takes, all of them in the same `time`.
///
/// # Errors
/// When one ends.
pub(super) fn measure(bench: &Bench, crowds: &[Crowd], time: Duration) -> Result<Vec<f64>> {
    let used = || crowds.iter().map(|crowd| CpuTime::of(crowd.agent.pid())).collect::<Result<Vec<_>>>();
    let (before, began) = (used()?, Instant::now());
    while began.elapsed() < time {
        bench.scratch.go_on()?;
        sleep(PAUSE);
    }
    let (after, took) = (used()?, began.elapsed());
    let share = |(after, before): (CpuTime, CpuTime)| after.since(before).total().div_duration_f64(took);
    Ok(after.into_iter().zip(before).map(share).collect())
}

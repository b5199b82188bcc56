//! What the agents take of the processor while nothing happens.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::crowd::Crowd;
use crate::bench::Bench;

/// Clock ticks in a second, as the kernel tells them to everybody (`USER_HZ`).
const TICKS: f64 = 100.0;

/// The part of one core that each agent takes, all of them in the same `time`.
///
/// # Errors
/// When one ends.
pub(super) fn measure(bench: &Bench, crowds: &[Crowd], time: Duration) -> Result<Vec<f64>> {
    let before = crowds.iter().map(used).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    while began.elapsed() < time {
        bench.scratch.go_on()?;
        sleep(Duration::from_millis(200));
    }
    let took = began.elapsed().as_secs_f64();
    let after = crowds.iter().map(used).collect::<Result<Vec<_>>>()?;
    Ok(before.iter().zip(after).map(|(before, after)| (after - before) / took).collect())
}

/// Seconds on a processor so far (`utime` and `stime` in proc_pid_stat(5)).
fn used(crowd: &Crowd) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", crowd.agent.pid()))?;
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS)
}

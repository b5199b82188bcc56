//! What a process costs: processor time and memory, as the kernel accounts for them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::{time::ClockId, unistd::Pid};
use procfs::process::{Process, Stat, Status};

/// Processor time that a process has used since it began.
///
/// All its threads count, also those that have ended, and the children that it has waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CpuTime {
    /// User and system together: the scheduler's own sum, in nanoseconds.
    total: Duration,
    /// Of `total`, as the kernel's ticks tell.
    user: Duration,
}

/// Memory of a process that is in RAM, in bytes; pages that it shares with others count whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resident {
    /// Now (`VmRSS` in proc(5)).
    pub(super) now: u64,
    /// At most so far (`VmHWM`).
    pub(super) peak: u64,
}

impl CpuTime {
    /// What the process has used until now.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let own = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed())).and_then(ClockId::now);
        let own = own.with_context(|| format!("process {pid} has no clock"))?;
        let stat = process(pid)?.stat().with_context(|| format!("cannot read /proc/{pid}/stat"))?;
        let (all, children) = (ticks(stat.utime + stat.stime), children(&stat));
        let own = Duration::from(own);
        // What the scheduler has summed up exactly is told apart by ticks.
        let share = if all.is_zero() { 0.0 } else { ticks(stat.utime).div_duration_f64(all) };
        Ok(Self { total: own + children.total, user: own.mul_f64(share) + children.user })
    }

    /// What was used since `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        let Self { total, user } = self;
        Self { total: total.saturating_sub(earlier.total), user: user.saturating_sub(earlier.user) }
    }

    /// User and system, exact to less than a microsecond, and that of children to some ten milliseconds.
    pub(super) fn total(self) -> Duration {
        self.total
    }

    /// Outside the kernel, exact to some ten milliseconds.
    pub(super) fn user(self) -> Duration {
        self.user
    }
}

impl Resident {
    /// What the process has in RAM.
    ///
    /// # Errors
    /// When it is gone, or has ended and was not waited for.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let status = process(pid)?.status().with_context(|| format!("cannot read /proc/{pid}/status"))?;
        Self::read(&status).with_context(|| format!("process {pid} has no memory"))
    }

    fn read(status: &Status) -> Option<Self> {
        // Both are in units of 1024 bytes.
        Some(Self { now: 1024 * status.vmrss?, peak: 1024 * status.vmhwm? })
    }
}

fn process(pid: u32) -> Result<Process> {
    Process::new(pid.cast_signed()).with_context(|| format!("there is no process {pid}"))
}

/// Of children that were waited for.
fn children(stat: &Stat) -> CpuTime {
    let time = |clock_ticks: i64| ticks(clock_ticks.unsigned_abs());
    CpuTime { total: time(stat.cutime + stat.cstime), user: time(stat.cutime) }
}

/// Clock ticks, of which there are mostly a hundred in a second.
fn ticks(count: u64) -> Duration {
    Duration::from_secs(count) / u32::try_from(procfs::ticks_per_second()).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use std::{
        hint::black_box,
        process::{self, Command},
        time::Instant,
    };

    use super::*;

    fn burn(time: Duration) {
        let start = CpuTime::of(process::id()).unwrap();
        while CpuTime::of(process::id()).unwrap().since(start).total() < time {
            black_box((0..100_000_u64).fold(0, |sum, n| black_box(sum ^ n)));
        }
    }

    #[test]
    fn a_thread_that_has_ended_counts() {
        let (start, began) = (CpuTime::of(process::id()).unwrap(), Instant::now());
        std::thread::spawn(|| burn(Duration::from_millis(30))).join().unwrap();
        let used = CpuTime::of(process::id()).unwrap().since(start);
        assert!(used.total() >= Duration::from_millis(30), "{used:?}");
        let cores = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
        assert!(used.total() <= began.elapsed() * cores, "{used:?}");
    }

    #[test]
    fn a_child_counts_when_it_was_waited_for() {
        let start = CpuTime::of(process::id()).unwrap();
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; times";
        let output = Command::new("sh").args(["-c", busy]).output().unwrap();
        assert!(output.status.success());
        let stat = process(process::id()).unwrap().stat().unwrap();
        assert!(children(&stat).total > Duration::ZERO);
        assert!(CpuTime::of(process::id()).unwrap().since(start).user() > Duration::ZERO);
    }

    #[test]
    fn memory_that_is_given_back_was_there() {
        let kept = vec![1_u8; 64 << 20];
        let full = Resident::of(process::id()).unwrap();
        assert!(black_box(&kept).iter().all(|byte| *byte == 1) && full.now >= 64 << 20, "{full:?}");
        drop(kept);
        let after = Resident::of(process::id()).unwrap();
        assert!(after.now < full.now && after.peak >= 64 << 20, "{after:?}");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(CpuTime::of(child.id()).is_err() && Resident::of(child.id()).is_err());
    }
}

//! The time that cooldowns run by.

use std::{fmt, fs, io, sync::Arc};

use rustix::time::{ClockId, clock_gettime};

use crate::time::Timestamp;

/// Which boot of the machine this is, and how long ago it began.
///
/// The wall clock has no say in when an address may be given again: an operator or NTP can set it.
#[derive(Clone)]
pub struct Clock {
    boot: String,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Clock {
    /// The machine's own clock: `CLOCK_BOOTTIME`, within the boot that the kernel names in
    /// `/proc/sys/kernel/random/boot_id`.
    ///
    /// # Errors
    /// When procfs is not mounted.
    pub fn system() -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self::new(boot.trim(), since_boot))
    }

    /// A clock that reads `now`, in the boot called `boot`. Within one boot `now` must not go back.
    pub fn new(boot: impl Into<String>, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { boot: boot.into(), now: Arc::new(now) }
    }

    /// The boot that the times count from.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.boot
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.now)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("boot", &self.boot).finish_non_exhaustive()
    }
}

/// Now, by `CLOCK_BOOTTIME`: it goes on while the machine sleeps, and nobody can set it.
#[must_use]
pub fn since_boot() -> Timestamp {
    let time = clock_gettime(ClockId::Boottime);
    let part = |part: i64, nanos: u64| u64::try_from(part).unwrap_or_default().saturating_mul(nanos);
    Timestamp::from_nanos(part(time.tv_sec, 1_000_000_000).saturating_add(part(time.tv_nsec, 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_one_boot_and_time_goes_on() {
        let (one, two) = (Clock::system().unwrap(), Clock::system().unwrap());
        assert_eq!((one.boot(), one.boot().len()), (two.boot(), 36));
        let before = one.now();
        assert!(before > Timestamp::from_nanos(0));
        assert!(two.now() >= before);
    }
}

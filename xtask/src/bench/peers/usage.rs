//! What a process and those below it have used, from procfs (proc(5)).

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, Result};

/// How much one tick of `utime` is: `USER_HZ` is 100 on every architecture of today.
const TICK: Duration = Duration::from_millis(10);

/// The fields `utime`, `stime`, `cutime` and `cstime` of `/proc/PID/stat`, counted from the one after the name.
const UTIME: usize = 11;

/// The processors' time and the memory of a program, with its children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::bench) struct Usage {
    /// Time in user space, of all threads and of the children that have ended.
    pub(in crate::bench) user: Duration,
    /// Time in the kernel, likewise.
    pub(in crate::bench) system: Duration,
    /// Memory that is resident now, in bytes.
    pub(in crate::bench) resident: u64,
}

impl Usage {
    /// That of a process and all that it has started.
    ///
    /// # Errors
    /// When the process is gone.
    pub(in crate::bench) fn of(pid: u32) -> Result<Self> {
        let each = family(pid)?.into_iter().map(Self::alone);
        // A child may end meanwhile: what it has used is its parent's then.
        let [first, rest @ ..] = &each.collect::<Vec<_>>()[..] else { return Ok(Self::default()) };
        let first = first.as_ref().ok().copied().with_context(|| format!("process {pid} is gone"))?;
        Ok(rest.iter().flatten().fold(first, |sum, child| sum.plus(child)))
    }

    /// User space and kernel together.
    pub(in crate::bench) fn cpu(&self) -> Duration {
        self.user + self.system
    }

    fn alone(pid: u32) -> Result<Self> {
        let [user, system] = times(&fs::read_to_string(format!("/proc/{pid}/stat"))?).context("no times")?;
        let resident = resident(&fs::read_to_string(format!("/proc/{pid}/status"))?).unwrap_or_default();
        Ok(Self { user, system, resident })
    }

    fn plus(self, other: &Self) -> Self {
        let Self { user, system, resident } = other;
        Self { user: self.user + *user, system: self.system + *system, resident: self.resident + resident }
    }
}

/// A process and all below it, itself first.
pub(super) fn family(pid: u32) -> Result<Vec<u32>> {
    let mut all = vec![pid];
    for thread in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
        let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        all.extend(children.flat_map(|child| family(child).unwrap_or_default()));
    }
    Ok(all)
}

/// How many packet sockets that listen on an interface a process and all below it have (packet(7)).
pub(super) fn listening(pid: u32) -> Result<usize> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/packet"))?;
    let bound: BTreeSet<String> = table.lines().filter_map(bound).map(|inode| format!("socket:[{inode}]")).collect();
    let files = family(pid)?.into_iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let links = files.flatten().filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    Ok(links.filter(|link| bound.contains(&*link.to_string_lossy())).count())
}

/// The inode of a socket that is bound to an interface and runs: `sk RefCnt Type Proto Iface R Rmem User Inode`.
fn bound(line: &str) -> Option<&str> {
    let mut fields = line.split_whitespace().skip(4);
    let (interface, runs, inode) = (fields.next()?, fields.next()?, fields.nth(2)?);
    (interface != "0" && runs == "1").then_some(inode)
}

fn times(stat: &str) -> Option<[Duration; 2]> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut ticks = fields.split(' ').skip(UTIME).map(|ticks| ticks.parse::<u32>().ok().map(|ticks| TICK * ticks));
    let mut next = || ticks.next().flatten();
    let (user, system, waited_user, waited_system) = (next()?, next()?, next()?, next()?);
    Some([user + waited_user, system + waited_system])
}

fn resident(status: &str) -> Option<u64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(1024 * kilobytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_whatever_a_program_is_called() {
        let stat = "36 (a) (tshark) S 1 36 36 0 -1 4194304 2310 11 22 0 150 20 3 4 20 0 3 0 1500 98304 21";
        assert_eq!(times(stat), Some([153, 24].map(|ticks| TICK * ticks)));
        assert_eq!(times("36 (tshark) S 1"), None);
        assert_eq!(resident("Name:\ttshark\nVmRSS:\t  190912 kB\n"), Some(195_493_888));
    }

    #[test]
    fn a_socket_listens_once_it_is_bound_and_runs() {
        let line = |interface, runs| {
            format!("00000000e36b1df7 3      3    0003   {interface}     {runs} 0      0      11555244")
        };
        assert_eq!(bound(&line(3, 1)), Some("11555244"));
        assert_eq!((bound(&line(0, 1)), bound(&line(3, 0))), (None, None));
        assert_eq!(bound("sk               RefCnt Type Proto  Iface R Rmem   User   Inode"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let pid = std::process::id();
        assert!(Usage::of(pid).unwrap().resident > 0);
        assert_eq!(family(pid).unwrap().first(), Some(&pid));
        assert!(Usage::of(u32::MAX).is_err());
    }
}

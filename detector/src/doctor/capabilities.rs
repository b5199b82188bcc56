//! What a process must be allowed to do: the one table of it, for `dupip run` and for whoever asks beforehand.

use std::fs;

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

use super::{
    Check, Lack,
    topics::{self, Topic},
};

/// A capability, and what dupip does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Which one.
    pub capability: Capability,
    /// The check's topic.
    topic: &'static Topic,
    /// What it is for: completes "to …".
    pub purpose: &'static str,
    /// What there is not without it.
    loss: &'static str,
    /// Whether something that dupip promises is missing without it.
    pub is_needed: bool,
    /// Whether `dupip run` cannot do without: it does not start then. Without the others it does less, and says so.
    pub is_vital: bool,
}

/// Every capability that dupip uses.
pub const USES: [Use; 7] = [
    Use {
        capability: Capability::CAP_BPF,
        topic: topics::CAP_BPF,
        purpose: "load the tap",
        loss: "packet sockets hear ARP in the tap's place, which takes more of the processor, and whoever says no word of ARP is \
               not heard",
        is_needed: true,
        is_vital: false,
    },
    Use {
        capability: Capability::CAP_NET_ADMIN,
        topic: topics::CAP_NET_ADMIN,
        purpose: "attach the tap, change addresses and neighbours",
        loss: "no port is watched, and nobody is moved",
        is_needed: true,
        is_vital: true,
    },
    Use {
        capability: Capability::CAP_NET_RAW,
        topic: topics::CAP_NET_RAW,
        purpose: "send probes and announcements",
        loss: "nobody can be asked who has an address, so `dupip scan` and the proof of a move do not work",
        is_needed: true,
        is_vital: true,
    },
    Use {
        capability: Capability::CAP_NET_BROADCAST,
        topic: topics::CAP_NET_BROADCAST,
        purpose: "hear of address changes in every sandbox (NETLINK_LISTEN_ALL_NSID)",
        loss: "a duplicate that never speaks is not seen when it takes the address",
        is_needed: true,
        is_vital: true,
    },
    Use {
        capability: Capability::CAP_SYS_ADMIN,
        topic: topics::CAP_SYS_ADMIN,
        purpose: "enter the namespaces of sandboxes",
        loss: "what is configured in a sandbox is known only as far as the kernel tells it by id, and nobody can be moved",
        is_needed: true,
        is_vital: false,
    },
    Use {
        capability: Capability::CAP_SYS_PTRACE,
        topic: topics::CAP_SYS_PTRACE,
        purpose: "see which namespace a process is in",
        loss: "sandboxes without a named namespace, as container runtimes make them, are neither named nor looked into",
        is_needed: true,
        is_vital: false,
    },
    Use {
        capability: Capability::CAP_SYSLOG,
        topic: topics::CAP_SYSLOG,
        purpose: "read the kernel's log where kernel.dmesg_restrict is set",
        loss: "the kernel's own word on martian sources is not heard",
        is_needed: false,
        is_vital: false,
    },
];

/// What this process may do.
///
/// # Errors
/// When the kernel does not tell.
pub fn effective() -> Result<CapsHashSet, CapsError> {
    caps::read(None, CapSet::Effective)
}

/// Whether a process with these capabilities has one. The kernel takes `CAP_SYS_ADMIN` for `CAP_BPF` too (`bpf_capable` in
/// `include/linux/capability.h`).
#[must_use]
pub fn has(effective: &CapsHashSet, needed: Capability) -> bool {
    let covered = needed == Capability::CAP_BPF && effective.contains(&Capability::CAP_SYS_ADMIN);
    covered || effective.contains(&needed)
}

/// Looks at the agent's rights, or at those of this process if none runs.
pub(super) fn examine(agent: Option<u32>) -> Vec<Check> {
    let (whose, found) = match agent {
        Some(pid) => ("the agent", of_process(pid)),
        None => ("this process", effective().map_err(|error| error.to_string())),
    };
    match found {
        Ok(effective) => USES.iter().map(|of| check(of, has(&effective, of.capability), whose)).collect(),
        Err(error) => {
            let why = format!("the capabilities of {whose} cannot be read: {error}");
            USES.iter().map(|of| Check::skipped(of.topic, why.clone())).collect()
        }
    }
}

/// What another process may do.
fn of_process(pid: u32) -> Result<CapsHashSet, String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    of_status(&status).ok_or_else(|| "/proc does not say".to_owned())
}

/// The effective capabilities in `/proc/PID/status` (`proc_pid_status(5)`).
fn of_status(status: &str) -> Option<CapsHashSet> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(caps::all().into_iter().filter(|of| of.bitmask() & mask != 0).collect())
}

fn check(of: &Use, has: bool, whose: &str) -> Check {
    let Use { capability, topic, purpose, loss, is_needed, .. } = of;
    let lacking = format!("{whose} has no {capability} to {purpose}: {loss}");
    let remedy = format!("run as root; in the unit, add {capability} to CapabilityBoundingSet= (systemctl edit dupip)");
    match (has, is_needed) {
        (true, _) => Check::ok(topic, format!("{whose} may {purpose}")),
        (false, true) => Check::missing(topic, Lack::Permission, lacking).cure(remedy),
        (false, false) => Check::warning(topic, lacking).cure(remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn sys_admin_can_load_programs_and_nothing_else_covers_another() {
        let effective = [Capability::CAP_SYS_ADMIN].into_iter().collect();
        let has: Vec<_> = USES.iter().filter(|of| has(&effective, of.capability)).map(|of| of.capability).collect();
        assert_eq!(has, [Capability::CAP_BPF, Capability::CAP_SYS_ADMIN]);
    }

    #[test]
    fn capabilities_are_read_as_the_kernel_writes_them() {
        let of = |mask: &str| of_status(&format!("Name:\tdupip\nCapPrm:\tffff\nCapEff:\t{mask}\nCapBnd:\tffff\n"));
        let want = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW].into_iter().collect();
        assert_eq!(of("0000000000003000"), Some(want));
        assert_eq!((of("0000000000000000"), of("x"), of_status("")), (Some(CapsHashSet::new()), None, None));
        assert_eq!(of_process(std::process::id()), Ok(effective().unwrap()));
    }

    #[test]
    fn what_is_missing_says_what_is_lost_and_what_to_do() {
        for of in &USES {
            let (with, without) = (check(of, true, "the agent"), check(of, false, "the agent"));
            assert_eq!((with.status, with.remedy, with.lack), (Status::Ok, None, None));
            let want = if of.is_needed { Status::Missing } else { Status::Warning };
            assert_eq!((without.status, without.lack.is_some()), (want, of.is_needed));
            assert!(without.remedy.unwrap().contains(&of.capability.to_string()));
            assert_eq!(of.topic.name, format!("capability.{}", of.capability.to_string().to_lowercase()));
        }
    }
}

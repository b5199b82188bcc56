//! What the agent must be allowed to do, checked before it touches anything.

use caps::{CapSet, Capability, CapsHashSet};

use super::exit::{Exit, Failure};

/// Every capability that the agent uses, and what for.
const NEEDED: [(Capability, &str); 6] = [
    (Capability::CAP_BPF, "load the tap"),
    (Capability::CAP_NET_ADMIN, "attach the tap, change addresses and neighbours"),
    (Capability::CAP_NET_RAW, "send probes and announcements"),
    (Capability::CAP_NET_BROADCAST, "hear of address changes in every sandbox (NETLINK_LISTEN_ALL_NSID)"),
    (Capability::CAP_SYS_ADMIN, "enter the namespaces of sandboxes"),
    (Capability::CAP_SYS_PTRACE, "see which namespace a process is in"),
];

/// Makes sure that nothing is missing.
pub(super) fn check() -> Result<(), Failure> {
    let unknown = |error| Failure::new(Exit::Unsupported, format_args!("cannot read own capabilities: {error}"));
    match missing(&caps::read(None, CapSet::Effective).map_err(unknown)?).as_slice() {
        [] => Ok(()),
        missing => Err(refusal(missing)),
    }
}

fn missing(effective: &CapsHashSet) -> Vec<(Capability, &'static str)> {
    NEEDED.into_iter().filter(|(needed, _)| !has(effective, *needed)).collect()
}

/// The kernel takes `CAP_SYS_ADMIN` for `CAP_BPF` too (`bpf_capable` in `include/linux/capability.h`).
fn has(effective: &CapsHashSet, needed: Capability) -> bool {
    let covered = needed == Capability::CAP_BPF && effective.contains(&Capability::CAP_SYS_ADMIN);
    covered || effective.contains(&needed)
}

fn refusal(missing: &[(Capability, &str)]) -> Failure {
    let lines: String = missing.iter().map(|(capability, why)| format!("\n  {capability} to {why}")).collect();
    let names: Vec<_> = missing.iter().map(|(capability, _)| capability.to_string()).collect();
    Failure::new(Exit::NotPermitted, format_args!("dupip run lacks what it needs:{lines}"))
        .hint(format_args!("sudo dupip run …, or AmbientCapabilities={} in its unit", names.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(effective: &[Capability]) -> Vec<String> {
        missing(&effective.iter().copied().collect()).iter().map(|(capability, _)| capability.to_string()).collect()
    }

    #[test]
    fn everything_is_missing_at_first() {
        let all: Vec<_> = NEEDED.iter().map(|(capability, _)| capability.to_string()).collect();
        assert_eq!(names(&[Capability::CAP_CHOWN]), all);
        assert_eq!(names(&NEEDED.map(|(capability, _)| capability)), [""; 0]);
    }

    #[test]
    fn sys_admin_can_load_programs() {
        let effective = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN, Capability::CAP_SYS_PTRACE];
        assert_eq!(names(&effective), ["CAP_NET_RAW", "CAP_NET_BROADCAST"]);
    }
}

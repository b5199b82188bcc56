//! What the agent must be allowed to do, checked before it touches anything.

use caps::CapsHashSet;

use super::exit::{Exit, Failure};
use crate::doctor::capabilities::{USES, Use, effective, has};

/// Makes sure that nothing is missing that the agent cannot do without. Of what it can do less without, it tells itself.
pub(super) fn check() -> Result<(), Failure> {
    let unknown = |error| Failure::new(Exit::Unsupported, format_args!("cannot read own capabilities: {error}"));
    let missing = missing(&effective().map_err(unknown)?);
    if missing.iter().any(|of| of.is_vital) { Err(refusal(&missing)) } else { Ok(()) }
}

fn missing(effective: &CapsHashSet) -> Vec<&'static Use> {
    USES.iter().filter(|of| of.is_needed && !has(effective, of.capability)).collect()
}

fn refusal(missing: &[&Use]) -> Failure {
    let line = |Use { capability, purpose, .. }: &&Use| format!("\n  {capability} to {purpose}");
    let lines: String = missing.iter().map(line).collect();
    let names: Vec<_> = missing.iter().map(|of| of.capability.to_string()).collect();
    Failure::new(Exit::NotPermitted, format_args!("dupip run lacks what it needs:{lines}"))
        .hint(format_args!("sudo dupip run …, or AmbientCapabilities={} in its unit", names.join(" ")))
}

#[cfg(test)]
mod tests {
    use caps::Capability;

    use super::*;

    fn names(effective: &[Capability]) -> Vec<String> {
        missing(&effective.iter().copied().collect()).iter().map(|of| of.capability.to_string()).collect()
    }

    #[test]
    fn everything_is_missing_at_first() {
        let needed: Vec<_> = USES.iter().filter(|of| of.is_needed).map(|of| of.capability).collect();
        assert_eq!(names(&[Capability::CAP_CHOWN]), needed.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(names(&needed), [""; 0]);
    }

    #[test]
    fn sys_admin_can_load_programs() {
        let effective = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN, Capability::CAP_SYS_PTRACE];
        assert_eq!(names(&effective), ["CAP_NET_RAW", "CAP_NET_BROADCAST"]);
    }
}

//! What holds of a process's control groups, whatever they are called.

use super::cgroup::{CgroupNames, is_hash, is_id, is_uuid};

/// Of `/proc/PID/cgroup`: a name is never empty and never a path, what is of a form has it, and the names of last resort
/// are there only where there is no better one.
pub fn cgroup(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let CgroupNames { container, pod, unit, leaf } = CgroupNames::parse(&text);
    for name in [&container, &pod, &unit, &leaf].into_iter().flatten() {
        assert!(!name.is_empty() && !name.contains(['/', '\n']), "{name:?}");
        assert!(text.replace('_', "-").contains(&name.replace('_', "-")), "{name:?}");
    }
    assert!(container.iter().all(|id| is_id(id) || text.contains(&format!("lxc.payload.{id}"))));
    assert!(pod.iter().all(|uid| is_uuid(uid) || is_hash(uid)));
    assert!(unit.iter().all(|unit| unit.ends_with(".service") || unit.ends_with(".scope")));
    assert!(unit.is_none() || container.is_none());
    assert!(leaf.is_none() || (container.is_none() && pod.is_none() && unit.is_none()));
}

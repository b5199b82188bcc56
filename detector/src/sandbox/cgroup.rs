//! What a process's control groups say of who it belongs to.

/// How far a group is above the reader's own root, if the reader has a cgroup namespace, one of these for each step.
const ABOVE: &str = "..";

/// The names in `/proc/PID/cgroup`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupNames {
    /// The container: its id of 64 hexadecimal digits, or the name that LXC knows it by.
    pub container: Option<String>,
    /// The Kubernetes pod's uid, with dashes.
    pub pod: Option<String>,
    /// The unit of systemd: a service or a scope.
    pub unit: Option<String>,
    /// The last part of the path, where it says nothing of the above.
    pub leaf: Option<String>,
}

impl CgroupNames {
    /// Reads the lines of `/proc/PID/cgroup` (`cgroups(7)`): `0::PATH` for version 2, `ID:CONTROLLERS:PATH` for each
    /// hierarchy of version 1. Of several, the one that systemd keeps counts, and else the first that is not the root.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let paths = || text.lines().filter_map(line).filter(|(_, path)| !path.is_empty());
        let systemds = |controllers: &str| matches!(controllers, "" | "name=systemd");
        let main = paths().find(|(controllers, _)| systemds(controllers)).or_else(|| paths().next());
        let container = paths().find_map(|(_, path)| container(path));
        let pod = paths().find_map(|(_, path)| pod(path));
        let unit = main.and_then(|(_, path)| unit(path)).filter(|_| container.is_none());
        let leaf = main.and_then(|(_, path)| path.rsplit('/').next()).map(str::to_owned);
        let leaf = leaf.filter(|leaf| leaf != ABOVE && container.is_none() && pod.is_none() && unit.is_none());
        Self { container, pod, unit, leaf }
    }
}

/// Controllers and path of a line; the path without the slashes around it, and a mark that its group was deleted.
fn line(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    Some((controllers, path.trim_end_matches(" (deleted)").trim_matches('/')))
}

/// The innermost container on the path. Each tool writes its ids in its own way: `docker-ID.scope`, `ID`,
/// `cri-containerd-ID.scope`, `crio-ID`, `libpod-ID.scope`, `SLICE:cri-containerd:ID`.
fn container(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|part| lxc_name(part).or_else(|| id_in(part))).map(str::to_owned)
}

fn lxc_name(part: &str) -> Option<&str> {
    part.strip_prefix("lxc.payload.").filter(|name| !name.is_empty())
}

fn id_in(part: &str) -> Option<&str> {
    // The process that looks after a container is not in it.
    let watches = part.contains("conmon-");
    part.split(['-', '.', ':', '_']).find(|word| is_id(word)).filter(|_| !watches)
}

/// The uid after `pod`, as in `kubepods-burstable-pod1234_….slice`, or `/kubepods/burstable/pod1234-…`. systemd's names
/// may not have dashes of their own, hence the underscores. A static pod's uid is a hash without any.
fn pod(path: &str) -> Option<String> {
    path.rsplit(['/', ':']).filter(|part| part.contains("pod")).find_map(|part| {
        let part = part.trim_end_matches(".slice");
        let uid = part.get(part.rfind("pod")? + 3..)?.replace('_', "-");
        (is_uuid(&uid) || is_hash(&uid)).then_some(uid)
    })
}

/// The outermost service or scope: within a container or a user's session there are others, of that one's own systemd.
fn unit(path: &str) -> Option<String> {
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    path.split('/').filter(|part| !part.starts_with("user@")).find(is_unit).map(str::to_owned)
}

/// Whether `text` is a container's id: a SHA-256 in hexadecimal digits.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Whether `text` is a UUID with dashes.
pub(super) fn is_uuid(text: &str) -> bool {
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(is_hex)
}

pub(super) fn is_hash(text: &str) -> bool {
    text.len() == 32 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f6b0d2c8a1e93f57b6d0c2a4e8f19a3b5d7c9e1f30214365870a9b8c7d6e5f4";
    const OUTER: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
    const UID: &str = "1b2f6d3a-9d7e-4c55-8d3b-0f1e2d3c4b5a";

    fn names(container: Option<&str>, pod: Option<&str>, unit: Option<&str>, leaf: Option<&str>) -> CgroupNames {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        CgroupNames { container: owned(container), pod: owned(pod), unit: owned(unit), leaf: owned(leaf) }
    }

    fn check(lines: &str, want: &CgroupNames) {
        let uid_ = UID.replace('-', "_");
        let text = lines.replace("OUTER", OUTER).replace("ID", ID).replace("UUU", UID).replace("U_U", &uid_);
        assert_eq!(CgroupNames::parse(&text), *want, "{text}");
    }

    #[test]
    fn containers_of_every_tool() {
        let container = names(Some(ID), None, None, None);
        for lines in [
            "0::/system.slice/docker-ID.scope\n",
            "0::/system.slice/docker-ID.scope/init.scope\n",
            "12:pids:/docker/ID\n11:memory:/docker/ID\n1:name=systemd:/docker/ID\n0::/\n",
            "0::/docker/OUTER/docker/ID\n",
            "0::/system.slice/nerdctl-ID.scope\n",
            "0::/system.slice:nerdctl:ID\n",
            "0::/machine.slice/libpod-ID.scope/container\n",
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container\n",
            "0::/default/ID\n",
            "0::/../ID (deleted)\n",
            "9:cpu:/\n4:memory:/docker/ID\n0::/\n",
        ] {
            check(lines, &container);
        }
        check("0::/lxc.payload.web/system.slice/nginx.service\n", &names(Some("web"), None, None, None));
    }

    #[test]
    fn pods_of_every_tool() {
        let pod = names(Some(ID), Some(UID), None, None);
        for lines in [
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_U.slice/cri-containerd-ID.scope\n",
            "0::/kubepods.slice/kubepods-podU_U.slice/crio-ID.scope\n",
            "0::/kubepods.slice/kubepods-podU_U.slice/crio-ID.scope/container\n",
            "0::/kubepods/besteffort/podUUU/ID\n",
            "0::/../../kubepods-podU_U.slice/cri-containerd-ID.scope\n",
            "11:memory:/kubepods/burstable/podUUU/ID\n1:name=systemd:/kubepods/burstable/podUUU/ID\n",
            "0::/system.slice/containerd.service/kubepods-besteffort-podU_U.slice:cri-containerd:ID\n",
            "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_U.slice/cri-containerd-ID.scope\n",
        ] {
            check(lines, &pod);
        }
        let hash = "0123456789abcdef0123456789abcdef";
        check(&format!("0::/kubepods/burstable/pod{hash}/ID\n"), &names(Some(ID), Some(hash), None, None));
        check("0::/kubepods.slice/kubepods-podU_U.slice\n", &names(None, Some(UID), None, None));
        check("0::/podman/web\n", &names(None, None, None, Some("web")));
    }

    #[test]
    fn units_of_systemd() {
        for (lines, unit) in [
            ("0::/system.slice/nginx.service\n", "nginx.service"),
            ("2:cpu:/\n1:name=systemd:/system.slice/nginx.service\n0::/\n", "nginx.service"),
            ("0::/machine.slice/machine-web.scope/payload/system.slice/sshd.service\n", "machine-web.scope"),
            ("0::/machine.slice/systemd-nspawn@web.service/payload/init.scope\n", "systemd-nspawn@web.service"),
            ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope\n", "run-r1.scope"),
            ("0::/system.slice/libpod-conmon-ID.scope\n", &format!("libpod-conmon-{ID}.scope")),
        ] {
            check(lines, &names(None, None, Some(unit), None));
        }
    }

    #[test]
    fn other_paths_end_in_a_name() {
        check("0::/sandbox/sportsagent\n", &names(None, None, None, Some("sportsagent")));
        check("0::/sandboxes.slice/sandboxes-red.slice\n", &names(None, None, None, Some("sandboxes-red.slice")));
        check("9:cpu:/\n4:memory:/firecracker/vm1\n0::/\n", &names(None, None, None, Some("vm1")));
    }

    #[test]
    fn what_says_nothing_gives_no_name() {
        for lines in ["", "0::/\n", "9:cpu:/\n0::/\n", "garbage\n", "0:\n", "::::\n/\n", "\u{0}\n"] {
            assert_eq!(CgroupNames::parse(lines).container, None, "{lines:?}");
            assert_eq!(CgroupNames::parse(lines).pod, None, "{lines:?}");
            assert_eq!(CgroupNames::parse(lines).unit, None, "{lines:?}");
        }
        for root in ["0::/\n", "0::/../..\n"] {
            assert_eq!(CgroupNames::parse(root), CgroupNames::default(), "{root}");
        }
        check("0::/lxc.payload.\n", &names(None, None, None, Some("lxc.payload.")));
        check("0::/docker/IDff\n", &names(None, None, None, Some(&format!("{ID}ff"))));
    }
}

//! Where kernels keep silent about martian sources.

use super::{
    Check, Lack,
    topics::{self, Topic},
};
use crate::{
    netlink::{Error, Found, MartianLogging, martian_logging, namespaces},
    sandbox::SandboxIdentity,
};

const NAME: &Topic = topics::LOG_MARTIANS;
const CLOSED: &Topic = topics::NAMESPACE;

/// Looks into the host's namespace and every other that a name or a process leads to.
pub(super) async fn examine() -> Vec<Check> {
    let found = match namespaces().await {
        Ok(found) => found,
        Err(error) => return vec![Check::skipped(NAME, error.to_string())],
    };
    let mut checks = Vec::new();
    for netns in found {
        match martian_logging(&netns).await {
            Ok(logging) => checks.extend(logs(&netns, &logging)),
            // It went meanwhile.
            Err(Error::OpenNetns { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => checks.push(closed(&error).of(name(&netns))),
        }
    }
    checks
}

fn name(netns: &Found) -> String {
    SandboxIdentity::of(netns).name.unwrap_or_else(|| netns.id.to_string())
}

fn closed(error: &Error) -> Check {
    Check::missing(CLOSED, Lack::Permission, format!("the namespace cannot be entered: {error}"))
        .cure("run as root, or with CAP_SYS_ADMIN and CAP_SYS_PTRACE")
}

/// `None` for a namespace that nothing can come into.
fn logs(netns: &Found, logging: &MartianLogging) -> Option<Check> {
    logging.interfaces.keys().any(|name| name != "lo").then_some(())?;
    let (subject, enter) = match (logging.is_own, netns.paths.first(), netns.processes.first()) {
        (true, ..) => ("the host".to_owned(), String::new()),
        (false, Some(path), _) => (name(netns), format!("nsenter --net={} ", path.display())),
        (false, None, Some(process)) => (name(netns), format!("nsenter --net --target {process} ")),
        (false, None, None) => (name(netns), String::new()),
    };
    let silent = logging.interfaces.iter().filter(|(name, set)| !set.log_martians && *name != "lo");
    let silent: Vec<_> = silent.map(|(name, _)| name.as_str()).collect();
    let switch = |names: &str| format!("{enter}sysctl -w {names}");
    let check = match (logging.all, silent.as_slice(), logging.ip_forward) {
        (false, [_, ..], _) => Check::warning(
            NAME,
            format!("is off for {}: when a duplicate is heard there, the kernel does not say so", silent.join(", ")),
        )
        .cure(switch("net.ipv4.conf.all.log_martians=1")),
        (_, _, false) if !logging.is_own => Check::ok(
            NAME,
            "is on; but as nothing is forwarded there, the kernel says nothing of a duplicate's ARP requests for others",
        ),
        _ => Check::ok(NAME, "is on"),
    };
    Some(check.of(subject))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{doctor::Status, net::NetnsId, netlink::InterfaceLogging};

    fn look(all: bool, eth0: bool, ip_forward: bool) -> Check {
        let id = NetnsId { device: 4, inode: 7 };
        let found = Found { id, paths: vec![PathBuf::from("/run/netns/sports")], processes: Vec::new() };
        let set = |log_martians| InterfaceLogging { log_martians, forwarding: ip_forward };
        let interfaces = [("eth0".to_owned(), set(all | eth0)), ("lo".to_owned(), set(all))].into();
        logs(&found, &MartianLogging { netns: id, is_own: false, all, ip_forward, interfaces }).unwrap()
    }

    #[test]
    fn where_it_is_off_the_line_that_switches_it_on_is_told() {
        let off = look(false, false, true);
        assert_eq!((off.status, off.subject.as_deref()), (Status::Warning, Some("sports")));
        assert!(off.meaning.contains("is off for eth0:"), "{off:?}");
        let want = "nsenter --net=/run/netns/sports sysctl -w net.ipv4.conf.all.log_martians=1";
        assert_eq!(off.remedy.as_deref(), Some(want));
    }

    #[test]
    fn on_for_all_or_for_each_is_on() {
        for check in [look(true, false, true), look(false, true, true), look(true, true, false)] {
            assert_eq!((check.status, check.remedy.clone()), (Status::Ok, None), "{check:?}");
        }
    }
}

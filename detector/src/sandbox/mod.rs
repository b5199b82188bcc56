//! Who is behind a port, in the words of those who run sandboxes.
//!
//! A network namespace has only a number. People know sandboxes by the name that a namespace was given, by a container's
//! or a pod's id, or by the unit of systemd that started them; the kernel tells the latter three as the control group of
//! a process in the namespace. What the tool that made the namespace called it for its own use comes after these.

mod cgroup;
#[cfg(any(test, fuzzing))]
pub mod properties;

use std::{collections::BTreeSet, fs, path::Path};

pub use self::cgroup::CgroupNames;
use crate::{net::NetnsId, netlink::Found};

/// What is known of a sandbox. A lease's owner is looked up by any of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxIdentity {
    /// Its network namespace; none if nothing leads there.
    pub netns: Option<NetnsId>,
    /// What to call it, if there is anything to call it by.
    pub name: Option<String>,
    /// Every name under which somebody may know it.
    pub aliases: BTreeSet<String>,
    /// Where `name` comes from.
    pub source: NameSource,
}

/// Where a sandbox's name comes from, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameSource {
    /// The name that somebody gave the namespace (`ip netns add NAME`).
    NamedNetns,
    /// A container's id, shortened to 12 digits as the container tools do.
    Container,
    /// A Kubernetes pod's uid.
    Pod,
    /// A unit of systemd.
    Unit,
    /// The last part of a control group's path.
    Cgroup,
    /// The name that a container tool gave the namespace for its own use.
    ToolsNetns,
    /// A process: its command and number.
    Process,
    /// Nowhere: there is no name.
    #[default]
    Unknown,
}

impl NameSource {
    /// The source in one word, as JSON spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NamedNetns => "netns",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Unit => "unit",
            Self::Cgroup => "cgroup",
            Self::ToolsNetns => "tools_netns",
            Self::Process => "process",
            Self::Unknown => "unknown",
        }
    }
}

impl SandboxIdentity {
    /// Whoever is in `netns`; reads two small files of each process that is known to be there. What cannot be read, or
    /// is not there any more, leaves the identity poorer and is no error.
    #[must_use]
    pub fn of(netns: &Found) -> Self {
        let named = netns.paths.iter().filter_map(|path| netns_name(path));
        let processes = netns.processes.iter().flat_map(|pid| process_names(Path::new("/proc"), *pid));
        let names: Vec<Name> = named.chain(processes).collect();
        let best = names.iter().min_by_key(|name| name.source);
        Self {
            netns: Some(netns.id),
            name: best.map(|name| name.text.clone()),
            source: best.map_or(NameSource::Unknown, |name| name.source),
            aliases: names.iter().flat_map(Name::aliases).collect(),
        }
    }
}

struct Name {
    source: NameSource,
    text: String,
    /// The whole of it, where `text` is only a part.
    full: Option<String>,
}

impl Name {
    fn new(source: NameSource, text: impl Into<String>) -> Self {
        Self { source, text: text.into(), full: None }
    }

    fn container(id: String) -> Self {
        let short = id.get(..12).filter(|_| cgroup::is_id(&id)).unwrap_or(&id).to_owned();
        Self { source: NameSource::Container, text: short, full: Some(id) }
    }

    /// A process's name is anybody's, so nobody is to be found by it.
    fn aliases(&self) -> impl Iterator<Item = String> {
        let known = (self.source != NameSource::Process).then(|| self.text.clone());
        known.into_iter().chain(self.full.clone())
    }
}

fn netns_name(path: &Path) -> Option<Name> {
    let name = path.file_name()?.to_str()?;
    let tools = !path.starts_with("/run/netns") || is_made_up(name);
    Some(Name::new(if tools { NameSource::ToolsNetns } else { NameSource::NamedNetns }, name))
}

/// `cni-UUID` (containerd, CRI-O) and `netns-UUID` (podman).
fn is_made_up(name: &str) -> bool {
    ["cni-", "netns-"].iter().filter_map(|prefix| name.strip_prefix(prefix)).any(cgroup::is_uuid)
}

fn process_names(proc: &Path, pid: u32) -> Vec<Name> {
    let read = |file: &str| fs::read_to_string(proc.join(format!("{pid}/{file}"))).unwrap_or_default();
    let cgroup = CgroupNames::parse(&read("cgroup"));
    let comm = read("comm");
    let of = |source| move |text: String| Name::new(source, text);
    [
        cgroup.container.map(Name::container),
        cgroup.pod.map(of(NameSource::Pod)),
        cgroup.unit.map(of(NameSource::Unit)),
        cgroup.leaf.map(of(NameSource::Cgroup)),
        (!comm.is_empty()).then(|| Name::new(NameSource::Process, format!("{}[{pid}]", comm.trim_end()))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str) -> NameSource {
        netns_name(Path::new(path)).unwrap().source
    }

    #[test]
    fn a_name_that_a_tool_made_up_is_not_one_that_somebody_gave() {
        assert_eq!(source("/run/netns/sportsagent"), NameSource::NamedNetns);
        assert_eq!(source("/run/netns/cni-blue"), NameSource::NamedNetns);
        assert_eq!(source("/run/netns/cni-1b2f6d3a-9d7e-4c55-8d3b-0f1e2d3c4b5a"), NameSource::ToolsNetns);
        assert_eq!(source("/run/netns/netns-1b2f6d3a-9d7e-4c55-8d3b-0f1e2d3c4b5a"), NameSource::ToolsNetns);
        assert_eq!(source("/var/run/docker/netns/5d1f4a3e9b7c"), NameSource::ToolsNetns);
    }

    #[test]
    fn a_container_is_called_by_its_short_id_and_known_by_both() {
        let id = "4f6b0d2c8a1e".to_owned() + &"0".repeat(52);
        let name = Name::container(id.clone());
        assert_eq!(name.text, "4f6b0d2c8a1e");
        assert_eq!(name.aliases().collect::<Vec<_>>(), ["4f6b0d2c8a1e".to_owned(), id]);
        assert_eq!(Name::container("web".to_owned()).text, "web");
        assert_eq!(Name::new(NameSource::Process, "sh[7]").aliases().count(), 0);
    }

    #[test]
    fn what_is_not_there_has_no_name_and_is_no_error() {
        let id = NetnsId { device: 4, inode: 4_026_531_999 };
        let identity = SandboxIdentity::of(&Found { id, paths: Vec::new(), processes: vec![u32::MAX] });
        assert_eq!(identity, SandboxIdentity { netns: Some(id), ..SandboxIdentity::default() });
    }
}

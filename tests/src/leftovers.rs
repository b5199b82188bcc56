//! What stands on the machine, to be compared before and after.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    os::linux::fs::MetadataExt as _,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::wait_until;

/// What the machine itself has that a lab could leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Named network namespaces.
    pub netns: BTreeSet<String>,
    /// Network interfaces, with their indices.
    pub links: BTreeSet<String>,
    /// Loaded BPF programs.
    pub bpf_programs: BTreeSet<String>,
    /// BPF links, which hold programs to what they are attached to.
    pub bpf_links: BTreeSet<String>,
}

/// A network namespace by the inode of its file, as in `net:[4026531840]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(pub u64);

impl Snapshot {
    /// Looks at the machine.
    ///
    /// # Errors
    /// If `ip` or `bpftool` is missing or fails.
    pub fn take() -> Result<Self> {
        let link = |link: &Value| Some(format!("{} {}", link.get("ifindex")?, link.get("ifname")?.as_str()?));
        let netns = |netns: &Value| Some(netns.get("name")?.as_str()?.to_owned());
        let program = |program: &Value| Some(format!("{} {}", program.get("id")?, program.get("type")?.as_str()?));
        Ok(Self {
            netns: list(&["ip", "-j", "netns", "list"], netns)?,
            links: list(&["ip", "-j", "link", "show"], link)?,
            bpf_programs: list(&["bpftool", "-j", "prog", "show"], program)?,
            bpf_links: list(&["bpftool", "-j", "link", "show"], program)?,
        })
    }

    /// What is there now and was not `before`, one line each.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        let kinds = [
            ("network namespace", &self.netns, &before.netns),
            ("interface", &self.links, &before.links),
            ("BPF program", &self.bpf_programs, &before.bpf_programs),
            ("BPF link", &self.bpf_links, &before.bpf_links),
        ];
        let news = |(kind, now, before): (&str, &BTreeSet<String>, _)| {
            now.difference(before).map(|one| format!("{kind} {one}")).collect::<Vec<_>>()
        };
        kinds.into_iter().flat_map(news).collect()
    }

    /// Waits until the machine has nothing that this snapshot has not. The kernel dismantles namespaces and programs after
    /// their last user is gone, not at that moment.
    ///
    /// # Errors
    /// If something is still there after `deadline`; the error says what.
    pub fn wait_restored(&self, deadline: Duration) -> Result<()> {
        let mut left = Vec::new();
        let restored = wait_until(deadline, "the machine to be as before", || {
            left = Self::take()?.since(self);
            Ok(left.is_empty().then_some(()))
        });
        restored.with_context(|| format!("left behind: {}", left.join(", ")))
    }
}

impl NamespaceId {
    /// The namespace that a file in `/proc/PID/ns` or a mount of one stands for.
    pub(crate) fn of(file: &File) -> Result<Self> {
        Ok(Self(file.metadata()?.st_ino()))
    }

    /// Who on this machine keeps the namespace alive: processes in it, open files, mounts. Nobody, once it is gone.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn holders(self) -> Result<Vec<String>> {
        let mut holders = Vec::new();
        for process in fs::read_dir("/proc")?.flatten().map(|entry| entry.path()) {
            // Processes come and go meanwhile: one that cannot be read any more holds nothing.
            if self.is_held_by(&process) {
                let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
                holders.push(format!("{} ({})", process.display(), command.trim()));
            }
        }
        Ok(holders)
    }

    fn is_held_by(self, process: &Path) -> bool {
        let name = self.to_string();
        let tasks = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let links = tasks.map(|task| task.path().join("ns/net")).chain(files.map(|file| file.path()));
        links.map(fs::read_link).any(|link| link.is_ok_and(|link| link == Path::new(&name)))
            || fs::read_to_string(process.join("mountinfo")).is_ok_and(|mounts| mounts.contains(&name))
    }
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.0)
    }
}

/// Runs a command that prints a JSON list, and names each entry of it.
fn list(line: &[&str], name: impl Fn(&Value) -> Option<String>) -> Result<BTreeSet<String>> {
    let title = line.join(" ");
    let (program, args) = line.split_first().context("an empty command line")?;
    let output = Command::new(program).args(args).output().with_context(|| format!("cannot start `{title}`"))?;
    ensure!(output.status.success(), "`{title}` failed: {}", String::from_utf8_lossy(&output.stderr));
    if output.stdout.trim_ascii().is_empty() {
        return Ok(BTreeSet::new());
    }
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout).with_context(|| format!("`{title}` prints"))?;
    Ok(entries.iter().filter_map(name).collect())
}

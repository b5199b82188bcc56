//! A small Debian with systemd as its first process, on a runner: what is installed there runs as on a real host.
//!
//! It has the runner's network and named network namespaces, and files, processes and control groups of its own. Its files
//! are those of a clean root, over which it writes in memory only.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{self, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{CleanRoot, Process, Runner, wait_until};

/// How long it may take to start. It takes a second or two on a machine that does little else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Puts the machine together out of the root `$1` and the control group `$2`, with the file `$3` in its `/srv`, and
/// becomes its first process. What the kernel has only once, it may not set: `/proc/sys` is read-only but for the network.
const BOOT: &str = r#"
set -e
mkdir /run/lab/machine /run/lab/written /run/lab/work
mount -t overlay overlay -o "lowerdir=$1,upperdir=/run/lab/written,workdir=/run/lab/work" /run/lab/machine
if ! mount --make-shared /run/netns 2>/dev/null; then
    mount --bind /run/netns /run/netns
    mount --make-shared /run/netns
fi
cp "$3" /run/lab/machine/srv
echo $$ >"$2/cgroup.procs"
exec unshare --pid --fork --kill-child --uts --ipc --cgroup --mount --propagation slave sh -ec '
cd /run/lab/machine
hostname machine
mount -t proc proc proc
mount -t proc proc mnt
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind mnt/sys/net proc/sys/net
umount mnt
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty kmsg; do
    touch dev/$node
    mount --bind /dev/$node dev/$node
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/netns etc/systemd/journald.conf.d
mount --rbind /run/netns run/netns
printf "[Journal]\nStorage=volatile\nReadKMsg=no\n" >etc/systemd/journald.conf.d/lab.conf
for unit in systemd-modules-load systemd-sysctl console-getty getty@tty1; do
    ln -sf /dev/null etc/systemd/system/$unit.service
done
pivot_root . mnt
umount -l /mnt
mount --make-rshared /
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target --log-target=journal
'
"#;

/// The machine; it ends with this value, and in any case with the runner.
#[derive(Debug)]
pub struct Machine {
    /// `unshare`, whose child is the machine's first process.
    outside: Process,
    /// That process, as everybody else counts.
    init: u32,
}

impl Machine {
    /// Starts a machine that has `file` in its `/srv`, and waits until systemd has started everything.
    ///
    /// # Errors
    /// If there is no clean root, or the machine does not come up; the error shows what it wrote.
    pub fn boot(runner: &Runner, file: &Path) -> Result<Self> {
        let root = CleanRoot::of_this_machine()?;
        ensure!(root.is_made(), "there is no {}: `cargo xtask setup` makes it", root.path().display());
        let cgroup = runner.make_cgroup("machine")?;
        let boot = runner.command("sh").arg("-s").arg(root.path()).arg(&cgroup).arg(file);
        let mut outside = boot.input(BOOT)?.spawn()?;
        let init = wait_until(PATIENCE, "the machine's first process", || {
            ensure!(outside.is_running()?, "it cannot be put together");
            first_child(outside.pid())
        });
        let init = init.map_err(|error| outside.explain(error))?;
        let machine = Self { outside, init };
        let is_up =
            || Ok(machine.output(["systemctl", "is-system-running"])?.stdout.starts_with(b"running").then_some(()));
        wait_until(PATIENCE, "the machine to be up", is_up).map_err(|error| machine.explain(error))?;
        Ok(machine)
    }

    /// Runs a command there to its end and returns its standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails; the error shows what it wrote to standard error.
    pub fn run<S: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = S>) -> Result<String> {
        let words: Vec<_> = line.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let output = self.output(&words)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, complaint) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "{words:?} failed with {}: {}{}", output.status, said, complaint.trim());
        Ok(said)
    }

    /// Runs a command there to its end, be it good or bad.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn output<S: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = S>) -> Result<Output> {
        let mut enter = process::Command::new("nsenter");
        let namespaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup"];
        enter.arg(format!("--target={}", self.init)).args(namespaces).arg("--").args(line);
        enter.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        enter.output().context("cannot start `nsenter`")
    }

    /// Where the rest of the world sees one of the machine's files.
    #[must_use]
    pub fn outside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Adds what the machine has to say to an error.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let journal = self.output(["journalctl", "--no-pager", "--output=cat", "--lines=40"]);
        let journal = journal.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        self.outside.explain(error).context(journal)
    }
}

/// The first child of a process, once it has become what it is to be.
fn first_child(parent: u32) -> Result<Option<u32>> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let Some(child) = children.split_whitespace().next().and_then(|pid| pid.parse().ok()) else { return Ok(None) };
    let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
    Ok((name.trim() == "systemd").then_some(child))
}

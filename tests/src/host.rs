//! The runner's body: the process that holds its namespaces, and the way into them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader, PipeReader, PipeWriter, Write as _, pipe},
    panic::resume_unwind,
    path::Path,
    process::{self, Child, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Error, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use pnet::util::MacAddr;
use serde_json::Value;

use crate::Command;

/// What the holder does, as the first process of the runner's PID namespace: when it ends, the kernel kills every other.
///
/// It obeys its owner line by line, and ends with them: the pipe closes however the owner dies. A cgroup is the one thing
/// that no namespace takes along, so the holder removes those that it was told of.
///
/// The machine's cgroups are shown by a bind mount: mounted anew, they would take the new mount's options for all
/// (`apply_cgroup_root_flags` in `kernel/cgroup/cgroup.c`).
const HOLDER: &str = r#"
set -e
[ $$ = 1 ]
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir /run/netns /run/lab /run/sys
mount -t sysfs sysfs /run/sys
while read -r _ dir type _; do
    if [ "$type" = cgroup2 ]; then mount --bind "$dir" /run/sys/fs/cgroup; break; fi
done </proc/mounts
mount --move /run/sys /sys
rmdir /run/sys
ip link set lo up
echo ready
exec >/dev/null 2>&1
set +e

remove() {
    [ -e "$1/cgroup.kill" ] && echo 1 >"$1/cgroup.kill"
    tries=100
    until find "$1" -depth -type d -exec rmdir {} + || [ $((tries -= 1)) = 0 ]; do sleep 0.01; done
}
trap 'for cgroup in $cgroups; do remove "$cgroup"; done' EXIT
trap exit TERM

while read -r word path; do
    case $word in
        cgroup) cgroups="$path $cgroups" ;;
        keep) sleep infinity & wait ;;
    esac
done
"#;

/// A runner's namespaces, for as long as this value lives (or longer, once kept).
#[derive(Debug)]
pub(crate) struct Host {
    holder: Child,
    kept: AtomicBool,
    /// The processes that hold anonymous network namespaces.
    sandboxes: Mutex<Vec<Child>>,
}

/// One network namespace of a runner.
#[derive(Clone, Debug)]
enum Netns {
    Runner,
    Named(String),
    /// That of the process with this id, as the lab's owner counts processes.
    Process(u32),
    /// Only this open file keeps it alive.
    File(Arc<File>),
}

/// Where commands run: a runner's mounts and processes, and one of its network namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) host: Arc<Host>,
    netns: Netns,
}

impl Host {
    /// Makes the namespaces and waits until they are furnished.
    pub(crate) fn new() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the lab makes network namespaces and needs root: run `cargo xtask test`, which asks sudo for it, or become root"
        );
        let (output, input) = pipe()?;
        let holder = in_a_thread(|| hold(input))?;
        let host = Self { holder, kept: AtomicBool::new(false), sandboxes: Mutex::default() };
        ready(output)?;
        Ok(host)
    }

    /// The holder's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Lets the runner outlive its owner.
    pub(crate) fn keep(&self) -> Result<()> {
        self.tell("keep")?;
        self.kept.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Has the holder remove this cgroup in the end; the last one named goes first.
    pub(crate) fn remove_at_the_end(&self, cgroup: &Path) -> Result<()> {
        self.tell(&format!("cgroup {}", cgroup.display()))
    }

    fn tell(&self, line: &str) -> Result<()> {
        let mut stdin = self.holder.stdin.as_ref().context("the runner's holder has no standard input")?;
        writeln!(stdin, "{line}").context("the runner's holder is gone")
    }

    /// Takes over a process that holds a sandbox's namespace.
    pub(crate) fn adopt(&self, process: Child) {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).push(process);
    }

    /// Ends the process with this id, if it was adopted.
    pub(crate) fn end(&self, pid: u32) -> Result<()> {
        let mut sandboxes = self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
        for mut process in sandboxes.extract_if(.., |process| process.id() == pid) {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }
}

impl Drop for Host {
    /// The kernel lets the holder go only once every process of the runner was reaped, so ours go first.
    fn drop(&mut self) {
        if self.is_kept() {
            return;
        }
        let sandboxes = self.sandboxes.get_mut().unwrap_or_else(PoisonError::into_inner);
        for process in sandboxes {
            let _ = process.kill();
            let _ = process.wait();
        }
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

impl Place {
    pub(crate) fn runner(host: Host) -> Self {
        Self { host: Arc::new(host), netns: Netns::Runner }
    }

    /// The network namespace of that name in the same runner.
    pub(crate) fn named(&self, name: &str) -> Self {
        Self { host: Arc::clone(&self.host), netns: Netns::Named(name.to_owned()) }
    }

    /// A new network namespace without a name, in the same runner: one process holds it until the runner ends.
    pub(crate) fn anonymous(&self) -> Result<Self> {
        let mut command = process::Command::new("sleep");
        command.arg("infinity").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = self.parent(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(command.spawn()?)
        })?;
        let netns = Netns::Process(process.id());
        self.host.adopt(process);
        Ok(Self { host: Arc::clone(&self.host), netns })
    }

    /// A new network namespace that has neither a name nor a process: it lives as long as this value and its clones.
    pub(crate) fn sealed(&self) -> Result<Self> {
        let netns = in_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        })?;
        Ok(Self { host: Arc::clone(&self.host), netns: Netns::File(Arc::new(netns)) })
    }

    /// The process that alone holds the network namespace, if it is anonymous.
    pub(crate) fn netns_process(&self) -> Option<u32> {
        match self.netns {
            Netns::Process(pid) => Some(pid),
            Netns::Runner | Netns::Named(_) | Netns::File(_) => None,
        }
    }

    /// How `ip`, run on the runner, names the network namespace: `None` if it cannot.
    pub(crate) fn netns_word(&self) -> Result<Option<String>> {
        match &self.netns {
            Netns::Named(name) => Ok(Some(name.clone())),
            Netns::Process(pid) => Ok(Some(inner_pid(*pid)?.to_string())),
            Netns::Runner => Ok(Some("1".to_owned())),
            Netns::File(_) => Ok(None),
        }
    }

    /// Runs many lines of `ip` in one process.
    pub(crate) fn ip<S: AsRef<str>>(&self, lines: impl IntoIterator<Item = S>) -> Result<()> {
        let lines: String = lines.into_iter().map(|line| format!("{}\n", line.as_ref())).collect();
        let failed = || format!("in these lines of `ip`:\n{lines}");
        // Nothing but this process's end would end one that the runner does not see.
        let command = match self.netns {
            Netns::File(_) => Command::new(self, "setpriv").args(["--pdeathsig", "KILL", "ip"]),
            _ => Command::new(self, "ip"),
        };
        command.args(["-batch", "-"]).input(&lines)?.run().map(drop).with_context(failed)
    }

    /// Does `work` in a thread that sees this place's network and files.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_a_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// Does `work` in a thread whose children are processes of this place. Such a thread cannot start threads.
    ///
    /// A sealed place has no processes that the runner could see: there they are this process's neighbours.
    pub(crate) fn parent<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        if let Netns::File(_) = self.netns {
            return self.inside(work);
        }
        let processes = namespace(self.host.pid(), "pid")?;
        self.inside(|| {
            setns(processes, CloneFlags::CLONE_NEWPID)?;
            work()
        })
    }

    /// Runs a command here to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = S>) -> Result<String> {
        let mut words = line.into_iter();
        let program = words.next().context("an empty command line")?;
        Command::new(self, program).args(words).run()
    }

    /// Sets a kernel parameter of the network namespace; `/proc/sys/net` shows everybody their own.
    pub(crate) fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.inside(|| fs::write(&path, value).with_context(|| format!("cannot set {name} to {value}")))
    }

    /// The hardware address of an interface.
    pub(crate) fn mac(&self, interface: &str) -> Result<MacAddr> {
        let links: Value = serde_json::from_str(&self.run(["ip", "-j", "link", "show", "dev", interface])?)?;
        let address = links.pointer("/0/address").and_then(Value::as_str);
        address.with_context(|| format!("{interface} has no hardware address"))?.parse().map_err(Error::new)
    }

    /// The network namespace itself. Whoever has the file open keeps it alive.
    pub(crate) fn netns(&self) -> Result<File> {
        match &self.netns {
            Netns::Runner => namespace(self.host.pid(), "net"),
            Netns::Process(pid) => namespace(*pid, "net"),
            Netns::File(file) => Ok(file.try_clone()?),
            Netns::Named(name) => File::open(format!("/proc/{}/root/run/netns/{name}", self.host.pid()))
                .with_context(|| format!("the runner has no network namespace called {name}")),
        }
    }

    /// Moves the calling thread here for good.
    fn enter(&self) -> Result<()> {
        let (mounts, network) = (namespace(self.host.pid(), "mnt")?, self.netns()?);
        // A thread has its own mounts only if it has its own working directory too.
        unshare(CloneFlags::CLONE_FS)?;
        setns(mounts, CloneFlags::CLONE_NEWNS)?;
        setns(network, CloneFlags::CLONE_NEWNET)?;
        Ok(())
    }
}

/// Starts the holder in new namespaces; what it says goes to `output`.
fn hold(output: PipeWriter) -> Result<Child> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        .context("the kernel makes no namespaces for us")?;
    let mut shell = process::Command::new("sh");
    shell.args(["-c", HOLDER, "lab"]).stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
    shell.spawn().context("cannot start `sh`")
}

/// Waits until the holder has furnished its namespaces, or has said why it cannot.
fn ready(output: PipeReader) -> Result<()> {
    let mut said = Vec::new();
    for line in BufReader::new(output).lines() {
        match line?.as_str() {
            "ready" => return Ok(()),
            other => said.push(other.to_owned()),
        }
    }
    bail!("the runner's namespaces cannot be furnished: {}", said.join("; "))
}

fn namespace(pid: u32, kind: &str) -> Result<File> {
    File::open(format!("/proc/{pid}/ns/{kind}"))
        .with_context(|| format!("process {pid}, which held the place, is gone"))
}

/// A process's id as its own PID namespace counts: the last of those that the kernel tells (`NSpid` in proc_pid_status(5)).
fn inner_pid(pid: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let id = ids.and_then(|ids| ids.split_whitespace().last()?.parse().ok());
    id.with_context(|| format!("process {pid} has no id on the runner"))
}

/// Does `work` in a thread of its own, which ends with it: it may go to other namespaces and need not come back.
fn in_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    match thread::scope(|scope| scope.spawn(work).join()) {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    }
}

//! Nothing is left of a lab, however it ends.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lab::{NamespaceId, Runner, Snapshot, wait_until};
use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(5);

/// What the machine can see of a lab: the namespaces of the runner and its sandboxes, and a cgroup.
struct Traces {
    holder: u32,
    namespaces: Vec<NamespaceId>,
}

impl Traces {
    /// Leaves some on the runner.
    fn on(runner: &Runner) -> Result<Self> {
        let bridge = runner.bridge("rt0", "10.8.64.1/24")?;
        let named = bridge.sandbox("sportsagent").start()?;
        let anonymous = bridge.sandbox("reviewagent").cgroup("pod/container").start()?;
        Ok(Self { holder: runner.holder(), namespaces: vec![runner.netns()?, named.netns()?, anonymous.netns()?] })
    }

    /// Reads what `doomed` says of its lab.
    fn read(line: &str) -> Result<Self> {
        let (holder, namespaces) =
            serde_json::from_str::<(u32, Vec<u64>)>(line).context("doomed says something else")?;
        Ok(Self { holder, namespaces: namespaces.into_iter().map(NamespaceId).collect() })
    }

    /// Those that are still there. Every runner sees all cgroups, wherever the machine has them.
    fn left(&self, observer: &Runner) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for namespace in &self.namespaces {
            left.extend(namespace.holders()?.into_iter().map(|holder| format!("{namespace}, held by {holder}")));
        }
        let cgroup = format!("/sys/fs/cgroup/lab-{}", self.holder);
        if observer.outside(Path::new(&cgroup)).exists() {
            left.push(cgroup);
        }
        Ok(left)
    }

    fn wait_gone(&self) -> Result<()> {
        let observer = Runner::new()?;
        let mut left = Vec::new();
        let gone = wait_until(DEADLINE, "the lab to be gone", || {
            left = self.left(&observer)?;
            Ok(left.is_empty().then_some(()))
        });
        gone.with_context(|| format!("left: {left:#?}"))
    }
}

/// Starts a program that makes a lab and then does what it is told.
fn doomed(fate: &str) -> Result<(Child, Traces)> {
    // Whoever runs the tests in the background may have SIGINT ignored, and that is inherited.
    let mut doomed = Command::new("env");
    doomed.args(["--default-signal=INT", env!("CARGO_BIN_EXE_doomed"), fate]);
    let mut child = doomed.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    Ok((child, Traces::read(&line)?))
}

fn pid(id: u32) -> Result<Pid> {
    Pid::from_raw(id.try_into()?).context("0 is no process")
}

#[test]
fn traces_are_seen_while_there_are_any() -> Result<()> {
    let runner = Runner::new()?;
    let traces = Traces::on(&runner)?;
    let left = traces.left(&Runner::new()?)?;
    for what in traces.namespaces.iter().map(ToString::to_string).chain(["/sys/fs/cgroup/lab-".to_owned()]) {
        assert!(left.iter().any(|one| one.starts_with(&what)), "no {what} in {left:#?}");
    }
    Ok(())
}

#[test]
fn a_snapshot_shows_what_has_come_since() -> Result<()> {
    let runner = Runner::new()?;
    let before = runner.inside(Snapshot::take)?;
    let bridge = runner.bridge("rt0", "10.8.64.1/24")?;
    let after = runner.inside(Snapshot::take)?;
    assert_eq!(after.since(&before).iter().filter(|one| one.ends_with(" rt0")).count(), 1);
    let sandbox = bridge.sandbox("sportsagent").start()?;
    let news = runner.inside(Snapshot::take)?.since(&after);
    assert!(news.contains(&"network namespace sportsagent".to_owned()), "{news:#?}");
    assert!(news.iter().any(|one| one.ends_with(sandbox.port())), "{news:#?}");
    let error = runner.inside(|| after.wait_restored(Duration::ZERO)).unwrap_err().to_string();
    assert!(error.contains("left behind") && error.contains("network namespace sportsagent"), "{error}");
    sandbox.remove()?;
    runner.inside(|| after.wait_restored(DEADLINE))
}

#[test]
fn nothing_is_left_when_the_owner_drops_it() -> Result<()> {
    let runner = Runner::new()?;
    let traces = Traces::on(&runner)?;
    let process = runner.command("sleep").arg("infinity").spawn()?;
    drop(runner);
    assert!(fs::exists(format!("/proc/{}", process.pid()))?, "a process is a handle too");
    drop(process);
    assert!(!fs::exists(format!("/proc/{}", traces.holder))?);
    traces.wait_gone()
}

#[test]
fn nothing_is_left_when_a_test_panics() -> Result<()> {
    let mut traces = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let runner = Runner::new()?;
        let _process = runner.command("sleep").arg("infinity").spawn()?;
        traces = Some(Traces::on(&runner)?);
        resume_unwind(Box::new("a test fails")) as Result<()>
    }));
    assert!(panicked.is_err());
    traces.context("no lab was made")?.wait_gone()
}

#[test]
fn nothing_is_left_when_the_owner_is_killed() -> Result<()> {
    for signal in [Signal::KILL, Signal::INT, Signal::TERM] {
        let (mut owner, traces) = doomed("wait")?;
        kill_process(Pid::from_child(&owner), signal)?;
        owner.wait()?;
        traces.wait_gone().with_context(|| format!("after {signal:?}"))?;
    }
    Ok(())
}

#[test]
fn a_kept_lab_stays_until_its_holder_is_killed() -> Result<()> {
    let (mut owner, traces) = doomed("keep")?;
    assert!(owner.wait()?.success());
    let kept = traces.holder.to_string();
    let enter = ["--target", &kept, "--net", "--mount", "--pid"];
    let script = "ip netns list; cat /proc/[0-9]*/comm";
    let output = Command::new("nsenter").args(enter).args(["sh", "-c", script]).output()?;
    let said = String::from_utf8(output.stdout)?;
    kill_process(pid(traces.holder)?, Signal::TERM)?;
    assert!(said.contains("sportsagent"), "{said}");
    assert_eq!(
        said.lines().filter(|line| *line == "sleep").count(),
        3,
        "sandbox, process and the holder's own: {said}"
    );
    traces.wait_gone()
}

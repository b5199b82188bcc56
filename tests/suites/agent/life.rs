//! The agent's own life: starting, waiting, ending, and what it leaves.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use lab::{Bridge, Dupip, Mode, Runner, wait_until};
use serde_json::{Value, json};

use super::{DEADLINE, runner, text};

#[test]
fn a_missing_bridge_is_said_clearly() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let output = dupip
        .command(["run", "--bridge", "nobr0", "--database", "/run/lab/x.db", "--socket", "/run/lab/x.sock"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("no bridge nobr0") && said.contains("--wait"), "{said}");
    let not_one = dupip
        .command(["run", "--bridge", "lo", "--database", "/run/lab/x.db", "--socket", "/run/lab/x.sock"])
        .output()?;
    assert!(String::from_utf8_lossy(&not_one.stderr).contains("lo is not a bridge"), "{not_one:?}");
    drop(bridge);
    Ok(())
}

#[test]
fn an_agent_that_waits_watches_the_bridge_when_it_comes_and_comes_again() -> Result<()> {
    let (bridge, dupip) = runner()?;
    bridge.runner().run(["ip", "link", "delete", "rt0"])?;
    let mut agent = dupip.spawn(Mode::Enforce, &["--wait"])?;
    agent.wait_ready()?;
    for _ in 0..2 {
        let made = bridge.runner().bridge("rt0", "10.8.64.1/24")?;
        let a = made.sandbox("a").address("10.8.64.2/24").start()?;
        agent.wait_until(DEADLINE, "the sandbox to be seen", |agent| {
            Ok(agent.table()?.into_iter().find(|row| text(row, "sandbox") == "a"))
        })?;
        a.remove()?;
        bridge.runner().run(["ip", "link", "delete", "rt0"])?;
        agent.wait_until(DEADLINE, "the table to be empty", |agent| Ok(agent.table()?.is_empty().then_some(())))?;
    }
    Ok(())
}

/// Sandboxes that take all of the processor must not keep it from healing; what it starts itself is not preferred.
#[test]
fn the_agent_has_its_turn_before_sandboxes_and_its_hooks_with_them() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let told = bridge.runner().dir().join("niceness");
    let script = format!("opened=/bin/sh -c 'nice > {0}.part; mv {0}.part {0}'", told.display());
    let agent = dupip.start_with(Mode::Observe, &["--hook", &script])?;
    for thread in fs::read_dir(format!("/proc/{}/task", agent.pid()))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        // The 19th field, of which the first two are a number and a name in parentheses (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(") ").context("no name")?;
        assert_eq!(fields.split(' ').nth(16), Some("-10"), "{stat}");
    }
    let _both = bridge.duplicate(["a", "b"], "10.8.64.2/24")?;
    let niceness = wait_until(DEADLINE, "the hook", || Ok(fs::read_to_string(bridge.runner().outside(&told)).ok()))?;
    assert_eq!(niceness.trim(), "0");
    Ok(())
}

/// What the kernel holds for a process: the ids of its BPF links, programs and maps (`Documentation/filesystems/proc.rst`).
pub(crate) fn bpf_ids(pid: u32) -> Result<BTreeSet<(String, u64)>> {
    let mut ids = BTreeSet::new();
    for file in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = fs::read_to_string(file?.path()).unwrap_or_default();
        let fields = info.lines().filter_map(|line| line.split_once(":\t"));
        ids.extend(
            fields
                .filter(|(name, _)| matches!(*name, "link_id" | "prog_id" | "map_id"))
                .filter_map(|(name, id)| Some((name.to_owned(), id.trim().parse().ok()?))),
        );
    }
    Ok(ids)
}

/// Those of the ids that the kernel still has.
pub(crate) fn still_there(bridge: &Bridge, ids: &BTreeSet<(String, u64)>) -> Result<BTreeSet<(String, u64)>> {
    let mut found = BTreeSet::new();
    for (kind, name) in [("link", "link_id"), ("prog", "prog_id"), ("map", "map_id")] {
        let shown: Value = serde_json::from_str(&bridge.runner().run(["bpftool", "-j", kind, "show"])?)?;
        let numbers = shown.as_array().into_iter().flatten().filter_map(|one| one.get("id")?.as_u64());
        found.extend(numbers.map(|id| (name.to_owned(), id)));
    }
    Ok(found.intersection(ids).cloned().collect())
}

#[test]
fn nothing_is_left_in_the_kernel_however_the_agent_ends() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _sandbox = bridge.sandbox("a").address("10.8.64.2/24").start()?;
    for kill in [false, true] {
        let agent = dupip.start(Mode::Enforce)?;
        let ids = bpf_ids(agent.pid())?;
        let links = ids.iter().filter(|(kind, _)| kind == "link_id").count();
        assert_eq!(links, 2, "one tap on the port, one on the bridge: {ids:?}");
        assert_eq!(still_there(&bridge, &ids)?, ids);
        match kill {
            true => agent.kill9()?,
            false => assert!(agent.terminate()?.success()),
        }
        wait_until(DEADLINE, "the taps to go", || Ok(still_there(&bridge, &ids)?.is_empty().then_some(())))?;
    }
    Ok(())
}

#[test]
fn with_clsact_nothing_is_left_after_a_stop_and_a_killed_ones_filters_are_replaced() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let sandbox = bridge.sandbox("a").address("10.8.64.2/24").start()?;
    let filters = || -> Result<usize> {
        let shown = bridge.runner().run(["tc", "filter", "show", "dev", sandbox.port(), "ingress"])?;
        Ok(shown.lines().filter(|line| line.contains("_tap")).count())
    };
    let start = || -> Result<lab::Agent> {
        let mut agent = dupip.spawn(Mode::Observe, &["--attach", "clsact"])?;
        agent.wait_ready()?;
        Ok(agent)
    };
    start()?.kill9()?;
    assert_eq!(filters()?, 1, "clsact keeps what a killed agent had");
    let agent = start()?;
    assert_eq!(filters()?, 1, "and the next one replaces it");
    agent.terminate()?;
    assert_eq!(filters()?, 0);
    Ok(())
}

#[test]
fn a_restarted_agent_learns_the_table_anew() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _a = bridge.sandbox("a").address("10.8.64.2/24").start()?;
    let _b = bridge.sandbox("b").address("10.8.64.3/24").start()?;
    let seen = |agent: &lab::Agent| -> Result<Vec<(String, String)>> {
        Ok(agent.table()?.iter().map(|row| (text(row, "address").to_owned(), text(row, "mac").to_owned())).collect())
    };
    let agent = dupip.start(Mode::Enforce)?;
    let before = seen(&agent)?;
    assert_eq!(before.len(), 3);
    agent.kill9()?;
    assert_eq!(seen(&dupip.start(Mode::Enforce)?)?, before);
    Ok(())
}

#[test]
fn a_second_agent_is_told_of_the_first() -> Result<()> {
    let (_bridge, dupip) = runner()?;
    let _agent = dupip.start(Mode::Observe)?;
    let second = [
        "run",
        "--bridge",
        "rt0",
        "--database",
        "/run/lab/x.db",
        "--socket",
        "/run/dupip/dupip.sock",
        "--listen",
        "none",
    ];
    let output = dupip.command(second).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another agent is running"), "{said}");
    Ok(())
}

#[test]
fn health_and_readiness_are_answered() -> Result<()> {
    let (_bridge, dupip) = runner()?;
    let agent = dupip.start(Mode::Observe)?;
    assert_eq!((agent.http("/healthz")?.0, agent.http("/readyz")?.0, agent.http("/nowhere")?.0), (200, 200, 404));
    let (status, _) = agent.http("/api/v1/leases")?;
    assert_eq!(status, 200);
    Ok(())
}

#[test]
fn leases_are_given_around_what_is_in_use_and_released_once() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let squatter = bridge.sandbox("squatter").address("10.8.64.2/24").start()?;
    let agent = dupip.start(Mode::Observe)?;
    let allocate = |owner: &str| agent.dupip().ask(&["lease", "allocate", "--bridge", "rt0", "--owner", owner]);
    let lease = allocate("x")?;
    assert_eq!(text(&lease, "address"), "10.8.64.3", "10.8.64.2 is in use without a lease");
    let kept_back = &agent.leases()?[0];
    assert_eq!((text(kept_back, "address"), text(kept_back, "state")), ("10.8.64.2", "quarantined"));
    let squatter_mac = squatter.mac()?.to_string();
    assert_eq!(text(kept_back, "mac"), squatter_mac);
    assert_eq!(text(kept_back, "reason"), format!("{squatter_mac} is in the live table"));
    let adopted = ["lease", "adopt", "--bridge", "rt0", "--address", "10.8.64.2", "--owner", "squatter"];
    assert_eq!(text(&agent.dupip().ask(&adopted)?, "state"), "bound", "who is known to use it may have it");
    assert_eq!(allocate("x")?, lease, "asking again gives the same");
    let generation = lease.get("generation").context("no generation")?.to_string();
    let release =
        ["lease", "release", "--bridge", "rt0", "--address", "10.8.64.3", "--owner", "x", "--generation", &generation];
    let first = agent.dupip().ask(&release)?;
    assert_eq!(first.get("released"), Some(&json!(true)));
    let again = agent.dupip().ask(&release);
    assert!(again.is_err(), "{again:?}");
    assert_eq!(agent.metric("dupip_fenced_total{op=\"release\"}")?, Some(1.0));
    assert_eq!(text(&allocate("y")?, "address"), "10.8.64.4", "what drains is not given again");
    Ok(())
}

#[test]
fn a_released_address_is_given_again_when_it_is_out_of_use_and_has_rested() -> Result<()> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/30")?;
    let dupip = Dupip::on(&bridge)?;
    let sandbox = bridge.sandbox("x").address("10.8.64.2/30").start()?;
    dupip.allocate("x")?;
    let mut agent = dupip.spawn(Mode::Observe, &["--cooldown", "1s"])?;
    agent.wait_ready()?;
    let release =
        ["lease", "release", "--bridge", "rt0", "--address", "10.8.64.2", "--owner", "x", "--generation", "1"];
    agent.dupip().ask(&release)?;
    sandbox.remove()?;
    let allocate = ["lease", "allocate", "--bridge", "rt0", "--owner", "y"];
    let lease = agent
        .wait_until(2 * DEADLINE, "the address to be given again", |agent| Ok(agent.dupip().ask(&allocate).ok()))?;
    assert_eq!(text(&lease, "address"), "10.8.64.2");
    Ok(())
}

#[test]
fn conflicts_fails_on_demand_and_an_unreachable_agent_is_said() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let output = dupip.command(["--socket", "/run/lab/nobody.sock", "table"]).output()?;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let mut agent = dupip.start(Mode::Observe)?;
    let fails =
        || -> Result<Option<i32>> { Ok(agent_command(&dupip, &["conflicts", "--fail"]).output()?.status.code()) };
    assert_eq!(fails()?, Some(0));
    let _two = bridge.duplicate(["a", "b"], "10.8.64.2/24")?;
    agent.wait_until(DEADLINE, "the duplicate", |agent| Ok(agent.conflicts()?.into_iter().next()))?;
    assert_eq!(fails()?, Some(1));
    let rows: Vec<Value> = agent.table()?;
    assert_eq!(rows.iter().filter(|row| text(row, "state") == "duplicate").count(), 2);
    Ok(())
}

fn agent_command(dupip: &Dupip, args: &[&str]) -> lab::Command {
    dupip.command(["--socket", "/run/dupip/dupip.sock"]).args(args)
}

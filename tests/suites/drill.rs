//! `dupip drill`: a duplicate on purpose, in a lab that must look afterwards as it did before.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use lab::{Agent, Bridge, Dupip, Mode, Outcome};
use serde_json::{Value, json};

use crate::agent::{DEADLINE, closed, field, runner, text};

const DRILL: [&str; 3] = ["drill", "--bridge", "rt0"];
const STEPS: [&str; 12] = [
    "seen",
    "named",
    "contain",
    "reallocate",
    "readdress",
    "announce_new",
    "announce_kept",
    "destroy_sockets",
    "verify",
    "bind",
    "release",
    "healed",
];

fn drill(dupip: &Dupip, more: &[&str]) -> Result<Outcome> {
    dupip.outcome(&[&DRILL[..], more].concat())
}

/// What a drill says to a program, and its exit code.
fn facts(dupip: &Dupip, more: &[&str]) -> Result<(Option<i32>, Value)> {
    let Outcome { status, output, complaint } = drill(dupip, &[more, &["-o", "json"]].concat())?;
    Ok((status, serde_json::from_str(&output).with_context(|| format!("{output}{complaint}"))?))
}

fn steps(report: &Value) -> Vec<(&str, f64)> {
    let steps = field(report, "steps").as_array().into_iter().flatten();
    steps.map(|taken| (text(taken, "step"), field(taken, "after_ms").as_f64().unwrap_or(f64::NAN))).collect()
}

/// Namespaces, ports and held leases of drills, on the runner.
fn left(bridge: &Bridge, agent: &Agent) -> Result<Vec<String>> {
    let names = bridge.runner().run(["sh", "-c", "ls /run/netns; true"])?;
    let names: BTreeSet<String> = names.lines().map(str::to_owned).chain(bridge.ports()?).collect();
    let leases = agent.leases()?;
    let is_held = |lease: &&Value| ["reserved", "bound"].contains(&text(lease, "state"));
    let owners = leases.iter().filter(is_held).map(|lease| text(lease, "owner").to_owned());
    Ok(names.into_iter().chain(owners).filter(|name| name.starts_with("dupip-drill-")).collect())
}

#[test]
fn every_step_is_timed_and_nothing_stays() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let bystander = bridge.sandbox("calagent").address("10.8.64.2/24").start()?;
    // The brake is not what is tried: as where drills follow each other within the hour.
    let agent = dupip.start_with(Mode::Enforce, &["--evictions-per-minute", "100"])?;
    for times in 1..=6 {
        let (status, report) = facts(&dupip, &[])?;
        assert_eq!((status, text(&report, "outcome")), (Some(0), "passed"), "{report:#}");
        let taken = steps(&report);
        assert_eq!(taken.iter().map(|(step, _)| *step).collect::<Vec<_>>(), STEPS, "{report:#}");
        assert!(taken.is_sorted_by_key(|(_, after)| *after), "{report:#}");
        assert_eq!(text(&report, "winner"), "dupip-drill-a");
        let addresses = [text(&report, "address"), text(&report, "new_address"), "10.8.64.2", "10.8.64.1"];
        assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 4, "nobody else's: {addresses:?}");
        assert_eq!(left(&bridge, &agent)?, [""; 0]);
        assert_eq!(agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?, Some(f64::from(times)), "it counts");
    }
    assert_eq!(bystander.addresses()?, ["10.8.64.2/24"]);
    assert_eq!(agent.metric("duplicate_ip_active{bridge=\"rt0\"}")?, Some(0.0));
    Ok(())
}

#[test]
fn a_person_reads_who_won_and_how_long_it_took() -> Result<()> {
    let (_bridge, dupip) = runner()?;
    let _agent = dupip.start(Mode::Enforce)?;
    let Outcome { status, output, complaint } = drill(&dupip, &[])?;
    assert_eq!(status, Some(0), "{output}{complaint}");
    for words in [
        "drill on rt0, enforce: everything was done\n",
        "STEP             AFTER\nseen             0.00 ms\nnamed",
        "\nhealed",
        "dupip-drill-a keeps 10.8.64.2: holds lease generation",
        "dupip-drill-a alone answers for 10.8.64.2, dupip-drill-b alone for 10.8.64.3\n",
    ] {
        assert!(output.contains(words), "no `{words}` in\n{output}");
    }
    assert!(complaint.contains("dupip-drill-b has 10.8.64.2/24 behind port dupip-drill-b"), "{complaint}");
    Ok(())
}

#[test]
fn who_only_observes_is_tested_for_naming_only() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let agent = dupip.start(Mode::Observe)?;
    let (status, report) = facts(&dupip, &[])?;
    assert_eq!((status, text(&report, "outcome")), (Some(0), "named_only"), "{report:#}");
    assert_eq!(steps(&report).iter().map(|(step, _)| *step).collect::<Vec<_>>(), STEPS[..2]);
    assert_eq!((text(&report, "winner"), field(&report, "new_address")), ("dupip-drill-a", &Value::Null));
    assert_eq!(left(&bridge, &agent)?, [""; 0]);
    assert!(drill(&dupip, &[])?.output.contains("only that it names a duplicate was tested"));
    Ok(())
}

#[test]
fn what_is_missing_is_said_and_nothing_is_made() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let no_agent = drill(&dupip, &[])?;
    assert_eq!((no_agent.status, no_agent.output.as_str()), (Some(3), ""), "{no_agent:?}");
    assert!(no_agent.complaint.contains("cannot reach the agent"), "{no_agent:?}");
    let agent = dupip.start(Mode::Observe)?;
    let wrong = dupip.outcome(&["drill", "--bridge", "rt9"])?;
    assert_eq!(wrong.status, Some(2), "{wrong:?}");
    assert!(wrong.complaint.contains("the agent does not watch rt9, only rt0"), "{wrong:?}");
    let powerless = drill(&dupip.clone().without(&["sys_admin"]), &[])?;
    assert_eq!(powerless.status, Some(4), "{powerless:?}");
    assert!(powerless.complaint.contains("CAP_SYS_ADMIN"), "{powerless:?}");
    assert_eq!(left(&bridge, &agent)?, [""; 0]);
    Ok(())
}

/// Uses up the only eviction that may begin within a minute, so that a drill waits at the brake.
fn with_the_brake_on(bridge: &Bridge, dupip: &Dupip) -> Result<Agent> {
    let _holder = bridge.sandbox("holder").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start_with(Mode::Enforce, &["--evictions-per-minute", "1"])?;
    let _late = bridge.sandbox("late").address("10.8.64.2/24").start()?;
    closed(&mut agent, "healed")?;
    Ok(agent)
}

#[test]
fn a_step_that_is_not_done_is_a_failure_with_its_reason() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let agent = with_the_brake_on(&bridge, &dupip)?;
    let (status, report) = facts(&dupip, &["--timeout", "1s"])?;
    assert_eq!((status, text(&report, "outcome")), (Some(1), "failed"), "{report:#}");
    // It may have been contained while nobody had looked behind its port yet.
    let step = report.pointer("/failure/step");
    assert!(["contained", "healed"].iter().any(|late| step == Some(&json!(late))), "{report:#}");
    let why = report.pointer("/failure/why").and_then(Value::as_str).unwrap_or_default();
    assert!(why.contains("too many evictions in the last minute"), "{report:#}");
    assert_eq!(left(&bridge, &agent)?, [""; 0]);
    Ok(())
}

#[test]
fn what_a_killed_drill_leaves_the_next_one_removes() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let agent = with_the_brake_on(&bridge, &dupip)?;
    let started = dupip.command(["--socket", "/run/dupip/dupip.sock"]).args(DRILL).args(["--timeout", "60s"]);
    let mut killed = started.spawn()?;
    killed.wait_for_line("too many evictions in the last minute", DEADLINE)?;
    let second = drill(&dupip, &[])?;
    assert_eq!(second.status, Some(1), "{second:?}");
    assert!(second.complaint.contains("another drill is under way"), "{second:?}");
    killed.kill()?;
    let there = ["dupip-drill-a", "dupip-drill-b", "dupip-drill-a"];
    assert_eq!(left(&bridge, &agent)?, there, "two namespaces with their ports, and the lease of the first");
    agent.terminate()?;
    let agent = dupip.start(Mode::Enforce)?;
    let Outcome { status, output, complaint } = drill(&dupip, &[])?;
    assert_eq!(status, Some(0), "{output}{complaint}");
    for what in ["the sandbox dupip-drill-a", "the sandbox dupip-drill-b", "the lease of dupip-drill-a on 10.8.64."] {
        assert!(complaint.contains(&format!("an earlier drill had left {what}")), "{complaint}");
    }
    assert_eq!(left(&bridge, &agent)?, [""; 0]);
    Ok(())
}

#[test]
fn one_that_is_interrupted_removes_everything() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let agent = with_the_brake_on(&bridge, &dupip)?;
    for signal in ["INT", "TERM"] {
        let started = dupip.command(["--socket", "/run/dupip/dupip.sock"]).args(DRILL).args(["--timeout", "60s"]);
        let mut drill = started.spawn()?;
        drill.wait_for_line("too many evictions in the last minute", DEADLINE)?;
        std::process::Command::new("kill").args([&format!("-{signal}"), &drill.pid().to_string()]).status()?;
        assert_eq!(drill.wait(DEADLINE)?.code(), Some(1), "{signal}: {}", drill.log()?);
        assert!(drill.log()?.contains("interrupted"), "{}", drill.log()?);
        assert_eq!(left(&bridge, &agent)?, [""; 0], "{signal}");
    }
    Ok(())
}

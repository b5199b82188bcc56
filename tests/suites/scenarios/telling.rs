//! How it is told: to whoever follows, to whoever wants to hear less, and to people.

use anyhow::{Context as _, Result};
use lab::{Arp, Mode};
use rustix::process::Signal;
use serde_json::Value;

use super::{CONTESTED, DEADLINE, field, judged, martians, runner, settle, text, told, told_but_marks};

/// A duplicate that outlives the agent is told of by each agent once, and whoever follows hears all of both.
#[test]
fn whoever_follows_hears_of_the_same_duplicate_from_each_agent_once() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _both = bridge.duplicate(["a", "b"], "10.8.64.2/24")?;
    let mut agent = dupip.start(Mode::Observe)?;
    judged(&mut agent)?;
    let before = told(&agent)?;
    let cursor = text(before.first().context("nothing was told")?, "cursor").to_owned();
    let mut follower = dupip.command(["events", "-f", "--after", &cursor, "-o", "json"]).spawn()?;
    follower.wait_for_line(text(before.last().context("nothing")?, "cursor"), DEADLINE)?;
    assert!(agent.terminate()?.success());
    let mut agent = dupip.start(Mode::Observe)?;
    judged(&mut agent)?;
    let after = told(&agent)?;
    follower.wait_for_line(text(after.last().context("nothing")?, "cursor"), DEADLINE)?;
    follower.signal(Signal::INT)?;
    assert!(follower.wait(DEADLINE)?.success());
    let log = follower.log()?;
    let followed: Vec<Value> =
        log.lines().filter(|line| line.starts_with('{')).map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(followed, [&before[1..], &after].concat(), "no gap, and nothing twice");
    assert_eq!([&before, &after].map(|told| super::count(told, "duplicate")), [1, 1]);
    Ok(())
}

#[test]
fn what_is_suppressed_is_counted_and_neither_streamed_nor_logged() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let vm = bridge.tap("vm1")?;
    let agent = &mut dupip.start_with(Mode::Observe, &["--suppress", "martian:loopback,info"])?;
    for address in [[127, 0, 0, 1], [127, 0, 0, 1], [127, 0, 0, 2], [224, 0, 0, 1]] {
        vm.send_frame(&Arp::announcement(vm.mac(), address.into()).frame())?;
    }
    settle(agent, &vm, 1)?;
    let told = told_but_marks(agent)?;
    assert_eq!(told.iter().map(|event| text(event, "reason")).collect::<Vec<_>>(), ["multicast"]);
    assert_eq!((martians(agent, "loopback")?, martians(agent, "multicast")?), (Some(3.0), Some(1.0)));
    assert_eq!(agent.metric("dupip_findings_total{kind=\"martian\"}")?, Some(4.0), "all that was news");
    assert!(!agent.log()?.contains("claims 127."), "{}", agent.log()?);
    assert!(agent.log()?.contains("224.0.0.1"));
    Ok(())
}

#[test]
fn what_opens_an_incident_cannot_be_suppressed() -> Result<()> {
    let (_bridge, dupip) = runner()?;
    let outcome = dupip.outcome(&["run", "--bridge", "rt0", "--suppress", "duplicate"])?;
    assert_eq!(outcome.status, Some(2), "{outcome:?}");
    assert!(outcome.complaint.contains("it opens, changes or closes an incident"), "{outcome:?}");
    Ok(())
}

#[test]
fn people_are_told_that_it_is_a_spoof_and_whose() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _owner = bridge.sandbox("owner").address("10.8.64.2/24").start()?;
    let vm = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Observe)?;
    vm.send_frame(&Arp::announcement(vm.mac(), bridge.gateway()).frame())?;
    judged(agent)?;
    vm.send_frame(&Arp::announcement(vm.mac(), CONTESTED).frame())?;
    agent.wait_until(DEADLINE, "the other address to join", |agent| {
        let conflicts = agent.conflicts()?;
        Ok(conflicts.iter().any(|one| field(one, "addresses").as_array().map(Vec::len) == Some(2)).then_some(()))
    })?;
    let said = agent.dupip().say(&["conflicts"])?;
    for words in [
        "10.8.64.1 on rt0: open, spoof (incident 1)",
        "2 addresses: 10.8.64.1, 10.8.64.2",
        "the host keeps 10.8.64.1: it is the host's own address",
        "not healed: the agent observes and does not act",
    ] {
        assert!(said.contains(words), "no `{words}` in\n{said}");
    }
    assert!(said.contains(&vm.mac().to_string()) && said.contains("owner"), "{said}");
    let failed = agent.dupip().outcome(&["conflicts", "--fail"])?;
    assert_eq!((failed.status, failed.output), (Some(1), said));
    let lines = agent.dupip().say(&["events", "--kind", "duplicate", "--no-header"])?;
    assert!(lines.lines().count() == 1 && lines.contains("critical"), "{lines}");
    Ok(())
}

//! The stream of events, followed while things happen.

use anyhow::{Context as _, Result};
use lab::{Arp, Mode, Process};
use rustix::process::Signal;
use serde_json::Value;

use super::{DEADLINE, field, runner, text};

#[test]
fn events_are_followed_while_the_agent_is_killed_and_started_again() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let odd = bridge.sandbox("odd").address("10.8.64.2/24").start()?;
    let claim = |last| odd.send_frame(&Arp::announcement(odd.mac()?, [192, 0, 2, last].into()).frame());
    let mut agent = dupip.start(Mode::Observe)?;
    let mut follower = dupip.command(["events", "-f", "--kind", "martian", "-o", "json"]).spawn()?;
    claim(1)?;
    let before = event(&mut follower, "192.0.2.1")?;
    assert_eq!((text(&before, "reason"), text(&before, "severity")), ("outside_subnet", "warning"));
    agent.wait_for_line(text(&before, "message"), DEADLINE)?;
    agent.kill9()?;
    follower.wait_for_line("dupip: note: ", DEADLINE)?;
    let agent = dupip.start(Mode::Observe)?;
    claim(2)?;
    let after = event(&mut follower, "192.0.2.2")?;
    follower.wait_for_line("the agent was restarted since", DEADLINE)?;
    assert_ne!(text(&before, "cursor").split(':').next(), text(&after, "cursor").split(':').next());
    follower.signal(Signal::INT)?;
    assert!(follower.wait(DEADLINE)?.success());
    let told = follower.log()?;
    for address in ["\"192.0.2.1\"", "\"192.0.2.2\""] {
        assert_eq!(told.matches(&format!("\"address\":{address}")).count(), 1, "{told}");
    }
    assert_eq!(agent.metric("dupip_findings_total{kind=\"martian\"}")?, Some(1.0), "counts begin anew");
    Ok(())
}

#[test]
fn a_healed_duplicate_is_a_story_in_order() -> Result<()> {
    let (bridge, dupip) = runner()?;
    dupip.allocate("keeper")?;
    let _keeper = bridge.sandbox("keeper").address("10.8.64.2/24").start()?;
    let agent = dupip.start(Mode::Enforce)?;
    let mut follower = dupip.command(["events", "-f", "-o", "json"]).spawn()?;
    let _loser = bridge.sandbox("loser").address("10.8.64.2/24").start()?;
    follower.wait_for_line("\"kind\":\"healed\"", DEADLINE)?;
    follower.signal(Signal::INT)?;
    follower.wait(DEADLINE)?;
    let told: Vec<Value> = follower.log()?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    // Answers that come late on a busy machine have a step tried again, which is told, too.
    let is_step = |kind: &&str| ["eviction_step", "eviction_failed"].contains(kind);
    let kinds: Vec<_> = told.iter().map(|event| text(event, "kind")).filter(|kind| !is_step(kind)).collect();
    assert_eq!(kinds, ["duplicate", "judged", "contained", "evicted", "lifted", "healed"], "{told:?}");
    assert!(told.iter().all(|event| field(event, "incident").as_u64() == Some(1)), "{told:?}");
    let numbers: Vec<_> = told.iter().filter_map(|event| field(event, "seq").as_u64()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
    let steps: Vec<_> = told.iter().map(|event| text(field(event, "detail"), "step")).collect();
    let steps: Vec<_> = steps.into_iter().filter(|step| !step.is_empty()).collect();
    assert_eq!(steps.first(), Some(&"contain"), "{told:?}");
    let log = agent.log()?;
    for event in &told {
        assert!(log.contains(text(event, "message")), "not in the log: {event}");
    }
    Ok(())
}

/// The event about an address, once the follower has shown it.
fn event(follower: &mut Process, address: &str) -> Result<Value> {
    let line = follower.wait_for_line(&format!("\"address\":\"{address}\""), DEADLINE)?;
    serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))
}

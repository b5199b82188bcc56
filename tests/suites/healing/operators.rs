//! What an operator may say about healing: who is in quarantine, that somebody is to be let go, that nothing is to be done.

use anyhow::{Context as _, Result};
use lab::{Mode, Sandbox};
use serde_json::Value;

use super::{
    CONTESTED, DEADLINE, closed, count, field, quarantine::Lab, role, runner, text, told, wait_incident, wait_told,
};

#[test]
fn who_is_in_quarantine_is_listed_with_what_was_dropped_and_let_go_on_demand() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.start(&["--resolve", "contain"])?;
    wait_told(&mut agent, "the loser to be contained", |event| text(event, "kind") == "contained")?;
    assert_eq!(lab.arrives(CONTESTED)?, [false; 4]);
    let list = || agent.dupip().ask(&["quarantine", "list"]);
    let listed = list()?;
    let [contained] = listed.as_array().map(Vec::as_slice).unwrap_or_default() else { anyhow::bail!("{listed}") };
    let of = |name| text(contained, name);
    assert_eq!((of("port"), of("address"), of("sandbox")), (lab.loser.port(), "10.8.64.2", "loser"), "{listed}");
    assert!(field(contained, "dropped").as_u64().is_some_and(|dropped| dropped >= 4), "{listed}");
    agent.dupip().ask(&["quarantine", "lift", lab.loser.port(), "10.8.64.2"])?;
    assert_eq!(lab.arrives(CONTESTED)?, [true; 4], "and it is not contained anew for that");
    assert_eq!(list()?, Value::Array(Vec::new()));
    let again = agent.dupip().outcome(&["quarantine", "lift", lab.loser.port(), "10.8.64.2"])?;
    assert_eq!(again.status, Some(1), "{again:?}");
    let incident = wait_incident(&mut agent, "that it is spared to be said", |incident| {
        text(incident, "status") == "open" && text(incident, "held").contains("an operator has lifted")
    })?;
    assert_eq!(role(&incident, lab.loser.port())?, "loser");
    Ok(())
}

fn stays(sandbox: &Sandbox) -> Result<()> {
    assert_eq!(sandbox.addresses()?, ["10.8.64.2/24"], "{}", sandbox.name());
    Ok(())
}

#[test]
fn while_it_is_paused_a_duplicate_is_told_of_and_nothing_is_done_until_the_pause_ends() -> Result<()> {
    let (bridge, dupip) = runner()?;
    dupip.allocate("holder")?;
    let mut agent = dupip.start(Mode::Enforce)?;
    agent.dupip().ask(&["pause", "10m"])?;
    let [holder, late] = bridge.duplicate(["holder", "late"], "10.8.64.2/24")?;
    // A pause outlives the agent.
    for is_again in [false, true] {
        let incident = wait_incident(&mut agent, "that it is paused to be said", |incident| {
            text(incident, "held").contains("the agent is paused")
        })?;
        assert_eq!(role(&incident, late.port())?, "loser", "it is decided all the same");
        assert_eq!((count(&told(&agent)?, "contained"), bridge.owners(CONTESTED)?.len()), (0, 2));
        [&holder, &late].into_iter().try_for_each(stays)?;
        if !is_again {
            agent.kill9()?;
            agent = dupip.start(Mode::Enforce)?;
        }
    }
    agent.dupip().ask(&["pause", "--end"])?;
    closed(&mut agent, "healed")?;
    stays(&holder)?;
    assert_eq!(late.addresses()?, ["10.8.64.3/24"]);
    Ok(())
}

#[test]
fn behind_a_protected_port_nothing_is_done() -> Result<()> {
    let (bridge, dupip) = runner()?;
    dupip.allocate("holder")?;
    let holder = bridge.sandbox("holder").address("10.8.64.2/24").start()?;
    let late = bridge.sandbox("late").port("keep0").address("10.8.64.2/24").start()?;
    let agent = &mut dupip.start_with(Mode::Enforce, &["--protect-port", "keep*"])?;
    let incident = wait_incident(agent, "why nothing is done", |incident| !field(incident, "held").is_null())?;
    assert!(text(&incident, "held").contains("protected"), "{incident}");
    assert_eq!((role(&incident, "keep0")?.as_str(), count(&told(agent)?, "contained")), ("loser", 0));
    [&holder, &late].into_iter().try_for_each(stays)?;
    assert_eq!(bridge.owners(CONTESTED)?.len(), 2, "both are heard");
    Ok(())
}

#[test]
fn whom_it_is_said_of_is_only_contained_and_the_others_are_moved() -> Result<()> {
    let (bridge, dupip) = runner()?;
    for owner in ["first", "second"] {
        dupip.allocate(owner)?;
    }
    let plan = |name: &str, address: &str| bridge.sandbox(name).without_ipv6().address(address).start();
    let _holders = [plan("first", "10.8.64.2/24")?, plan("second", "10.8.64.3/24")?];
    let (canary, web) = (plan("web-canary", "10.8.64.2/24")?, plan("web", "10.8.64.3/24")?);
    let agent = &mut dupip.start_with(Mode::Enforce, &["--resolve-owner", "*-canary=contain"])?;
    let healed = closed(agent, "healed")?;
    assert_eq!((text(&healed, "address"), role(&healed, web.port())?.as_str()), ("10.8.64.3", "loser"));
    let held = wait_incident(agent, "the other to be contained only", |incident| {
        text(incident, "held").contains("contained only")
    })?;
    let contained = held.pointer("/contained/0").with_context(|| format!("nobody is contained: {held}"))?;
    assert_eq!((text(contained, "port"), text(contained, "way")), (canary.port(), "contain"));
    stays(&canary)?;
    lab::wait_until(
        DEADLINE,
        "only the holder to be heard",
        || Ok((bridge.owners(CONTESTED)?.len() == 1).then_some(())),
    )
}

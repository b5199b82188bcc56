//! One address in several domains, and twice in one of them.

use std::net::Ipv4Addr;

use anyhow::Result;
use lab::{Agent, Arp, Mode, Tag, Tap, tagged};
use serde_json::{Value, json};

use super::{CONTESTED, DEADLINE, duplicates, event, field, mark, rows, runner, text, told};

/// Scenario 27.
#[test]
fn the_same_address_on_two_bridges_is_nothing() -> Result<()> {
    let (first, dupip) = runner()?;
    let second = first.runner().bridge("rt1", "10.8.64.1/24")?;
    let start = |bridge: &lab::Bridge, name| bridge.sandbox(name).address("10.8.64.2/24").announced().start();
    let before = start(&first, "before")?;
    let mut agent = dupip.start_with(Mode::Enforce, &["--bridge", "rt1"])?;
    let after = start(&second, "after")?;
    agent.wait_until(DEADLINE, "both to be seen", |agent| Ok((rows(agent, CONTESTED)?.len() == 2).then_some(())))?;
    for sandbox in [&before, &after] {
        sandbox.send_frame(&Arp::announcement(sandbox.mac()?, CONTESTED).frame())?;
    }
    mark(&mut agent, 1, |frame| before.send_frame(frame))?;
    mark(&mut agent, 2, |frame| after.send_frame(frame))?;
    assert_eq!(told(&agent)?, []);
    let states = rows(&agent, CONTESTED)?;
    let states: Vec<_> =
        states.iter().map(|row| [text(row, "bridge"), text(row, "sandbox"), text(row, "state")]).collect();
    assert_eq!(states, [["rt0", "before", "ok"], ["rt1", "after", "ok"]]);
    for bridge in ["rt0", "rt1"] {
        assert_eq!(agent.metric(&format!("duplicate_ip_total{{bridge=\"{bridge}\"}}"))?, Some(0.0));
    }
    Ok(())
}

/// Has each of two stations say that it has the address, in frames with these tags.
fn both_announce(stations: [(&Tap, &[Tag]); 2], address: Ipv4Addr) -> Result<()> {
    stations.into_iter().try_for_each(|(station, tags)| {
        station.send_frame(&tagged(&Arp::announcement(station.mac(), address).frame(), tags))
    })
}

fn vlans(agent: &Agent, address: Ipv4Addr) -> Result<Vec<Value>> {
    let rows = rows(agent, address)?;
    assert!(rows.iter().all(|row| text(row, "state") == "ok"), "{rows:?}");
    Ok(rows.iter().map(|row| field(row, "vlan").clone()).collect())
}

/// Scenario 27.
#[test]
fn the_same_address_in_two_vlans_is_nothing() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let [untagged, twenty, thirty] = ["vm1", "vm2", "vm3"].map(|name| bridge.tap(name));
    let (untagged, twenty, thirty) = (untagged?, twenty?, thirty?);
    untagged.answer([CONTESTED], untagged.mac());
    twenty.answer_in(20, [CONTESTED], twenty.mac());
    thirty.answer_in(30, [CONTESTED], thirty.mac());
    let mut agent = dupip.start(Mode::Enforce)?;
    for _ in 0..3 {
        both_announce([(&untagged, &[]), (&twenty, &[Tag::Customer(20)])], CONTESTED)?;
        both_announce([(&untagged, &[]), (&thirty, &[Tag::Customer(30)])], CONTESTED)?;
    }
    mark(&mut agent, 1, |frame| thirty.send_frame(frame))?;
    assert_eq!(told(&agent)?, []);
    assert_eq!(vlans(&agent, CONTESTED)?, [Value::Null, json!(20), json!(30)]);
    Ok(())
}

/// Scenario 27.
#[test]
fn the_same_address_twice_in_one_vlan_is_a_duplicate_there() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let (first, second, untagged) = (bridge.tap("vm1")?, bridge.tap("vm2")?, bridge.tap("vm3")?);
    first.answer_in(20, [CONTESTED], first.mac());
    second.answer_in(20, [CONTESTED], second.mac());
    untagged.answer([CONTESTED], untagged.mac());
    let mut agent = dupip.start(Mode::Enforce)?;
    untagged.send_frame(&Arp::announcement(untagged.mac(), CONTESTED).frame())?;
    both_announce([(&first, &[Tag::Customer(20)]), (&second, &[Tag::Customer(20)])], CONTESTED)?;
    let duplicate = event(&mut agent, "duplicate")?;
    assert_eq!((text(&duplicate, "bridge"), &duplicate["vlan"]), ("rt0", &json!(20)));
    let message = text(&duplicate, "message");
    assert!(
        message.contains(first.port()) && message.contains(second.port()) && message.contains("rt0.20"),
        "{message}"
    );
    assert!(!message.contains(untagged.port()), "{message}");
    mark(&mut agent, 1, |frame| untagged.send_frame(frame))?;
    let states: Vec<_> =
        rows(&agent, CONTESTED)?.iter().map(|row| (row["vlan"].clone(), text(row, "state").to_owned())).collect();
    let want = [(Value::Null, "ok"), (json!(20), "duplicate"), (json!(20), "duplicate")];
    assert_eq!(states, want.map(|(vlan, state)| (vlan, state.to_owned())));
    assert_eq!(duplicates(&agent)?, Some(1.0));
    Ok(())
}

/// The outer of two tags is the domain's.
///
/// Scenario 27.
#[test]
fn of_two_tags_the_outer_one_tells_domains_apart() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let (first, second) = (bridge.tap("vm1")?, bridge.tap("vm2")?);
    let mut agent = dupip.start(Mode::Enforce)?;
    let tags = |outer| [Tag::Service(outer), Tag::Customer(20)];
    both_announce([(&first, &tags(30)), (&second, &tags(31))], CONTESTED)?;
    mark(&mut agent, 1, |frame| second.send_frame(frame))?;
    assert_eq!(told(&agent)?, []);
    assert_eq!(vlans(&agent, CONTESTED)?, [json!(30), json!(31)]);
    let other = Ipv4Addr::new(10, 8, 64, 9);
    // Nobody can be asked behind two tags, so both say it until both were heard within one second.
    let duplicate = agent.wait_until(DEADLINE, "the duplicate", |agent| {
        both_announce([(&first, &tags(32)), (&second, &tags(32))], other)?;
        Ok(agent.conflicts()?.into_iter().next())
    })?;
    assert_eq!(
        (text(&duplicate, "bridge"), &duplicate["vlan"], text(&duplicate, "address")),
        ("rt0", &json!(32), "10.8.64.9")
    );
    Ok(())
}

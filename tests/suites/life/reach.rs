//! How far the agent sees behind ports, and what it learns of what happened while it did not look.

use std::collections::BTreeSet;

use anyhow::Result;
use lab::{Agent, Arp, Mode, Sandbox};
use serde_json::{Value, json};

use super::{
    CONTESTED, DEADLINE, duplicates, event, field, parties, pause, resume, row, rows, runner, text, told, wait_tapped,
};

#[test]
fn what_is_behind_each_port_is_told_apart() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let named = bridge.sandbox("named").address("10.8.64.2/24").start()?;
    let anonymous = bridge.sandbox("anonymous").anonymous().address("10.8.64.3/24").start()?;
    let sealed = bridge.sealed(&["10.8.64.4/24"])?;
    let vm = bridge.tap("vm1")?;
    let mut agent = dupip.start(Mode::Observe)?;
    vm.send_frame(&Arp::announcement(vm.mac(), [10, 8, 64, 5].into()).frame())?;
    for (last, port, reach, netns) in [
        (2, named.port(), "netns", Some(named.netns()?.0)),
        (3, anonymous.port(), "netns", Some(anonymous.netns()?.0)),
        (4, sealed.port(), "netns_by_id", None),
        (5, vm.port(), "tap", None),
    ] {
        let row = row(&mut agent, [10, 8, 64, last].into())?;
        assert_eq!((text(&row, "port"), text(&row, "reach")), (port, reach), "{row}");
        assert_eq!(field(&row, "netns").as_u64(), netns, "{row}");
    }
    let host = row(&mut agent, bridge.gateway())?;
    assert_eq!((field(&host, "reach"), field(&host, "host")), (&Value::Null, &json!(true)));
    let wide = agent.dupip().say(&["table", "-o", "wide"])?;
    let reaches: Vec<_> = ["10.8.64.2 ", "10.8.64.3 ", "10.8.64.4 ", "10.8.64.5 "]
        .iter()
        .filter_map(|address| wide.lines().find(|line| line.contains(address)))
        .filter_map(|line| line.split_whitespace().find(|word| ["netns", "netns_by_id", "tap"].contains(word)))
        .collect();
    assert_eq!(reaches, ["netns", "netns", "netns_by_id", "tap"], "{wide}");
    Ok(())
}

#[test]
fn addresses_that_change_where_nobody_can_enter_are_seen_as_they_change() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let owner = bridge.sandbox("owner").address("10.8.64.2/24").without_ipv6().start()?;
    let sealed = bridge.sealed(&["10.8.64.4/24"])?;
    let mut agent = dupip.start(Mode::Enforce)?;
    sealed.address("10.8.64.9/24")?;
    let new = row(&mut agent, [10, 8, 64, 9].into())?;
    assert_eq!(
        (text(&new, "port"), text(&new, "evidence"), text(&new, "mac")),
        (sealed.port(), "configured", &*sealed.mac()?.to_string())
    );
    sealed.remove_address("10.8.64.9/24")?;
    agent.wait_until(DEADLINE, "the address to go", |agent| {
        Ok(rows(agent, [10, 8, 64, 9].into())?.is_empty().then_some(()))
    })?;
    assert_eq!(told(&agent)?, []);
    // A duplicate there is known before it says a word, and nobody can be moved.
    sealed.address("10.8.64.2/24")?;
    let duplicate = event(&mut agent, "duplicate")?;
    assert_eq!((text(&duplicate, "reason"), text(&duplicate, "address")), ("configured", "10.8.64.2"));
    let held = event(&mut agent, "held")?;
    assert!(text(&held, "reason").contains("cannot be entered"), "{held}");
    assert_eq!(owner.addresses()?, ["10.8.64.2/24"]);
    sealed.remove_address("10.8.64.2/24")?;
    event(&mut agent, "gone")?;
    Ok(())
}

/// Whoever came while the agent stood still is found afterwards, and so is a duplicate among them.
#[test]
fn many_sandboxes_that_came_and_went_while_the_agent_stood_still_are_known_afterwards() -> Result<()> {
    const MANY: u8 = 30;
    let (bridge, dupip) = runner()?;
    let before = bridge.sandbox("before").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    row(&mut agent, CONTESTED)?;
    pause(&agent)?;
    before.remove()?;
    let plan = |number: u8| {
        bridge.sandbox(&format!("s{number}")).without_ipv6().address(&format!("10.8.64.{}/24", 10 + number)).announced()
    };
    let mut crowd = bridge.start_all((0..MANY).map(plan))?;
    let twin = bridge.sandbox("twin").without_ipv6().address("10.8.64.10/24").start()?;
    crowd.remove(5).remove()?;
    resume(&agent)?;
    let last = crowd.last().map(|sandbox| sandbox.name().to_owned()).unwrap_or_default();
    agent.wait_until(DEADLINE, "the last to be seen", |agent| {
        Ok(agent.table()?.into_iter().find(|row| text(row, "sandbox") == last))
    })?;
    let duplicate = event(&mut agent, "duplicate")?;
    assert_eq!(text(&duplicate, "address"), "10.8.64.10");
    wait_tapped(&mut agent, MANY)?;
    agent.wait_until(DEADLINE, "the table to show all who are there and nobody else", |agent| {
        let table = agent.table()?;
        let others = table.iter().filter(|row| field(row, "host") != true);
        let shown: BTreeSet<_> = others.map(|row| text(row, "sandbox")).collect();
        Ok((shown == crowd.iter().chain([&twin]).map(Sandbox::name).collect()).then_some(()))
    })?;
    assert_eq!(duplicates(&agent)?, Some(1.0));
    Ok(())
}

fn open_incidents(agent: &Agent) -> Result<Vec<Value>> {
    Ok(agent.conflicts()?.into_iter().filter(|incident| text(incident, "status") == "open").collect())
}

#[test]
fn an_agent_that_is_started_again_in_the_middle_of_an_incident_finds_it_again() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let first = bridge.sandbox("first").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    // A tap cannot be moved, so the incident stays open.
    let vm = bridge.tap("vm1")?;
    vm.answer([CONTESTED], vm.mac());
    wait_tapped(&mut agent, 2)?;
    vm.send_frame(&Arp::announcement(vm.mac(), CONTESTED).frame())?;
    event(&mut agent, "held")?;
    let before = parties(&open_incidents(&agent)?[0]);
    for kill in [true, false] {
        match kill {
            true => agent.kill9()?,
            false => assert!(agent.terminate()?.success()),
        }
        agent = dupip.start(Mode::Enforce)?;
        let held = event(&mut agent, "held")?;
        let open = open_incidents(&agent)?;
        assert_eq!(
            (open.len(), parties(&open[0])),
            (1, before.clone()),
            "the first holds the lease it was given before"
        );
        assert_eq!(text(&held, "address"), "10.8.64.2");
        assert_eq!((duplicates(&agent)?, agent.metric("duplicate_ip_active{bridge=\"rt0\"}")?), (Some(1.0), Some(1.0)));
    }
    assert_eq!(first.addresses()?, ["10.8.64.2/24"]);
    let leases = agent.leases()?;
    assert_eq!(
        leases.iter().map(|lease| [text(lease, "owner"), text(lease, "address")]).collect::<Vec<_>>(),
        [["first", "10.8.64.2"]]
    );
    vm.remove()?;
    event(&mut agent, "gone")?;
    assert_eq!(open_incidents(&agent)?, Vec::<Value>::new());
    Ok(())
}

//! Two hundred sandboxes that start at once, while the agent watches.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use lab::{Agent, Bridge, Dupip, Mode, Plan};
use serde_json::Value;

use super::{DEADLINE, Witness, kinds, parties, story, text, wait_for_ports, with_address};

const MANY: u8 = 200;

fn wide() -> Result<(Bridge, Dupip)> {
    with_address("10.8.64.1/23")
}

/// One that announces its address when it comes up.
fn plan(bridge: &Bridge, name: &str, host: u8) -> Plan {
    bridge.sandbox(name).without_ipv6().announced().address(&format!("10.8.65.{host}/23"))
}

/// The table's rows of sandboxes: address, state and port of each name.
fn seen(agent: &Agent) -> Result<BTreeMap<String, (String, String, String)>> {
    let rows = agent.table()?;
    let row = |row: &Value| {
        let of = |name| text(row, name).to_owned();
        (of("sandbox"), (of("address"), of("state"), of("port")))
    };
    Ok(rows.iter().map(row).filter(|(name, _)| name.starts_with("crowd")).collect())
}

#[test]
fn two_hundred_at_once_are_all_seen_and_none_accused() -> Result<()> {
    let (bridge, dupip) = wide()?;
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let crowd = bridge.start_all((1..=MANY).map(|n| plan(&bridge, &format!("crowd{n}"), n)))?;
    wait_for_ports(&mut agent, u16::from(MANY) + 1)?;
    agent.wait_until(DEADLINE, "every sandbox to be seen", |agent| {
        Ok((seen(agent)?.len() == usize::from(MANY)).then_some(()))
    })?;
    witness.mark(&mut agent)?;
    let seen = seen(&agent)?;
    for (n, sandbox) in (1..=MANY).zip(&crowd) {
        let expected = (format!("10.8.65.{n}"), "ok".to_owned(), sandbox.port().to_owned());
        assert_eq!(seen.get(sandbox.name()), Some(&expected));
        assert_eq!(sandbox.addresses()?, [format!("10.8.65.{n}/23")], "nobody was moved");
    }
    assert_eq!(kinds(&story(&agent)?), <[&str; 0]>::default(), "{:#?}", story(&agent)?);
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    assert_eq!(agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?, Some(0.0));
    assert_eq!(agent.metric("dupip_lost_events_total{bridge=\"rt0\"}")?, Some(0.0));
    Ok(())
}

#[test]
fn three_duplicates_among_two_hundred_are_three_incidents() -> Result<()> {
    const TWINS: [(u8, u8); 3] = [(7, 150), (42, 43), (100, 200)];
    let (bridge, dupip) = wide()?;
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Observe)?;
    let host = |n: u8| TWINS.into_iter().find(|(_, second)| *second == n).map_or(n, |(first, _)| first);
    let _crowd = bridge.start_all((1..=MANY).map(|n| plan(&bridge, &format!("crowd{n}"), host(n))))?;
    wait_for_ports(&mut agent, u16::from(MANY) + 1)?;
    agent.wait_until(DEADLINE, "every sandbox to be seen", |agent| {
        Ok((seen(agent)?.len() == usize::from(MANY)).then_some(()))
    })?;
    agent.wait_until(DEADLINE, "three incidents", |agent| Ok((agent.conflicts()?.len() >= 3).then_some(())))?;
    witness.mark(&mut agent)?;
    let named = |value: &Value| {
        let parties: BTreeSet<String> = parties(value).into_iter().map(str::to_owned).collect();
        (text(value, "address").to_owned(), parties)
    };
    let expected: BTreeMap<_, BTreeSet<_>> = TWINS
        .into_iter()
        .map(|(a, b)| (format!("10.8.65.{a}"), [format!("crowd{a}"), format!("crowd{b}")].into()))
        .collect();
    let incidents = agent.conflicts()?;
    assert_eq!(incidents.len(), 3, "{incidents:#?}");
    assert_eq!(incidents.iter().map(named).collect::<BTreeMap<_, _>>(), expected);
    let told = story(&agent)?;
    let duplicates: Vec<_> = told.iter().filter(|event| text(event, "kind") == "duplicate").collect();
    assert_eq!(duplicates.len(), 3, "{told:#?}");
    assert_eq!(duplicates.into_iter().map(named).collect::<BTreeMap<_, _>>(), expected);
    let about: BTreeSet<_> = told.iter().map(|event| text(event, "address").to_owned()).collect();
    assert_eq!(about, expected.keys().cloned().collect(), "nobody else is spoken of: {told:#?}");
    assert_eq!(agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?, Some(3.0));
    let states = seen(&agent)?;
    for n in 1..=MANY {
        let contested = TWINS.into_iter().any(|(a, b)| a == n || b == n);
        let state = states.get(&format!("crowd{n}")).map(|(_, state, _)| state.as_str());
        assert_eq!(state, Some(if contested { "duplicate" } else { "ok" }), "crowd{n}");
    }
    Ok(())
}

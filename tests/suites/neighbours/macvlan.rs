//! Several stations behind one port: macvlan children, in namespaces of their own or in the sandbox's (scenario 28).

use anyhow::Result;
use lab::{Agent, Arp, Mode};
use serde_json::Value;

use super::{DEADLINE, Witness, field, kinds, runner, story, text, wait_for_event};

fn wait_for_owner(agent: &mut Agent, address: &str, mac: &str) -> Result<Value> {
    agent.wait_until(DEADLINE, &format!("{mac} to have {address}"), |agent| {
        let is_it = |row: &Value| text(row, "address") == address && text(row, "mac") == mac;
        Ok(agent.table()?.into_iter().find(is_it))
    })
}

#[test]
fn children_with_addresses_of_their_own_are_nothing() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let parent = bridge.sandbox("parent").address("10.8.64.2/24").start()?;
    let before = bridge.sandbox("before").macvlan_of(&parent).address("10.8.64.3/24").start()?;
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let after = bridge.sandbox("after").macvlan_of(&parent).address("10.8.64.4/24").start()?;
    let anonymous = bridge.sandbox("anonymous").anonymous().macvlan_of(&parent).address("10.8.64.5/24").start()?;
    let all = [(&parent, "10.8.64.2"), (&before, "10.8.64.3"), (&after, "10.8.64.4"), (&anonymous, "10.8.64.5")];
    for _ in 0..3 {
        for (sandbox, address) in all {
            sandbox.flush_neighbours()?;
            assert_eq!(sandbox.ping(bridge.gateway(), 1)?.lost(), 0, "{}", sandbox.name());
            sandbox.send_frame(&Arp::announcement(sandbox.mac()?, address.parse()?).frame())?;
        }
    }
    for (sandbox, address) in all {
        let row = wait_for_owner(&mut agent, address, &sandbox.mac()?.to_string())?;
        assert_eq!((text(&row, "port"), text(&row, "state")), (parent.port(), "ok"));
    }
    witness.mark(&mut agent)?;
    assert_eq!(kinds(&story(&agent)?), <[&str; 0]>::default(), "{:#?}", story(&agent)?);
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    let mut rows = agent.table()?;
    rows.retain(|row| text(row, "port") == parent.port());
    assert_eq!(rows.len(), 4, "{rows:#?}");
    Ok(())
}

#[test]
fn the_same_address_twice_behind_one_port_is_one_duplicate() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let parent = bridge.sandbox("parent").address("10.8.64.2/24").start()?;
    let twins = ["left", "right"].map(|name| bridge.sandbox(name).macvlan_of(&parent).address("10.8.64.7/24").start());
    let [left, right] = twins;
    let (left, right) = (left?, right?);
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    for _ in 0..3 {
        for twin in [&left, &right] {
            twin.send_frame(&Arp::announcement(twin.mac()?, [10, 8, 64, 7].into()).frame())?;
        }
    }
    let told = wait_for_event(&mut agent, "duplicate")?;
    assert_eq!(text(&told, "address"), "10.8.64.7");
    witness.mark(&mut agent)?;
    let [incident] = agent.conflicts()?.try_into().map_err(|many| anyhow::anyhow!("not one: {many:#?}"))?;
    let parties = field(&incident, "parties").as_array().cloned().unwrap_or_default();
    let mut macs: Vec<_> = parties.iter().map(|party| text(party, "mac").to_owned()).collect();
    macs.sort_unstable();
    let mut expected = [left.mac()?.to_string(), right.mac()?.to_string()];
    expected.sort_unstable();
    assert_eq!(macs, expected, "{incident:#}");
    assert!(parties.iter().all(|party| text(party, "port") == parent.port()), "{incident:#}");
    assert_eq!(field(&incident, "evictions"), &Value::Array(Vec::new()), "there is no port to tell them apart by");
    assert_eq!(agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?, Some(1.0));
    for twin in [&left, &right] {
        assert_eq!(twin.addresses()?, ["10.8.64.7/24"]);
    }
    Ok(())
}

#[test]
fn children_in_the_sandboxs_own_namespace_are_one_party() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let sandbox = bridge.sandbox("parent").address("10.8.64.2/24").start()?;
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let child = sandbox.macvlan("mv0", "10.8.64.3/24")?;
    wait_for_owner(&mut agent, "10.8.64.3", &child.to_string())?;
    // Unless told otherwise, a namespace answers for each of its addresses on each of its interfaces.
    for address in [[10, 8, 64, 2], [10, 8, 64, 3]] {
        let answers = bridge.owners(address.into())?;
        assert_eq!(answers, [sandbox.mac()?, child].into(), "both stations answer for {address:?}");
    }
    // The same address on both of its interfaces.
    sandbox.run("ip address add 10.8.64.2/24 dev mv0".split(' '))?;
    wait_for_owner(&mut agent, "10.8.64.2", &child.to_string())?;
    witness.mark(&mut agent)?;
    assert_eq!(kinds(&story(&agent)?), <[&str; 0]>::default(), "{:#?}", story(&agent)?);
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    assert!(agent.table()?.iter().all(|row| text(row, "state") != "duplicate"));
    Ok(())
}

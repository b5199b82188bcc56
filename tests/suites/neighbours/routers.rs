//! Those that answer for others by proxy ARP (RFC 1027), and a bridge whose hardware address comes and goes with its ports.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use lab::{Agent, Bridge, MacAddr, Mode, Sandbox};
use serde_json::Value;

use super::{Witness, field, kinds, runner, story, text, wait_for_event, wait_for_metric};

/// Asks everybody for an address and waits for whoever answers first; whether somebody does.
fn ask(sandbox: &Sandbox, address: &str) -> Result<bool> {
    Ok(sandbox.command("arping").args(["-f", "-w", "3", "-I", "eth0", address]).output()?.status.success())
}

/// A sandbox that answers for whatever it knows another way to, at once.
fn router(bridge: &Bridge) -> Result<Sandbox> {
    let plan = bridge.sandbox("router").address("10.8.64.2/24").sysctl("net.ipv4.ip_forward", "1");
    let router = plan.start()?;
    router.sysctl("net.ipv4.conf.eth0.proxy_arp", "1")?;
    router.sysctl("net.ipv4.neigh.eth0.proxy_delay", "0")?;
    Ok(router)
}

/// Has the router reach a network by a device of its own.
fn behind(router: &Sandbox, network: &str) -> Result<()> {
    router.run("ip link add back type veth peer name end".split(' '))?;
    for device in ["back", "end"] {
        router.run(["ip", "link", "set", device, "up"])?;
    }
    router.run(["ip", "route", "add", network, "dev", "back"]).map(drop)
}

fn rows_of<'a>(rows: &'a [Value], address: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| text(row, "address") == address).collect()
}

#[test]
fn a_router_that_answers_for_those_behind_it_is_nothing() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let router = router(&bridge)?;
    behind(&router, "10.8.64.128/26")?;
    let asker = bridge.sandbox("asker").address("10.8.64.3/24").start()?;
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    for address in ["10.8.64.130", "10.8.64.131", "10.8.64.130"] {
        assert!(ask(&asker, address)?, "the router answers for {address}");
    }
    assert_eq!(asker.ping([10, 8, 64, 132].into(), 1)?.received, 0, "nobody is there");
    wait_for_metric(&mut agent, "dupip_claims_total{bridge=\"rt0\",kind=\"reply\"}", |replies| replies >= 4.0)?;
    witness.mark(&mut agent)?;
    let told = story(&agent)?;
    assert!(told.iter().all(|event| text(event, "kind") == "info"), "{told:#?}");
    let rows = agent.table()?;
    for address in ["10.8.64.130", "10.8.64.131", "10.8.64.132"] {
        let of: Vec<_> = rows_of(&rows, address).iter().map(|row| (text(row, "sandbox"), text(row, "state"))).collect();
        assert_eq!(of, [("router", "ok")], "{address}");
    }
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    Ok(())
}

/// Scenario 12.
#[test]
fn a_router_that_answers_for_its_neighbours_is_one_incident_and_no_neighbour_is_moved() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let router = router(&bridge)?;
    behind(&router, "10.8.64.128/26")?;
    let victims: Vec<Sandbox> = (129..=132)
        .map(|n| bridge.sandbox(&format!("victim{n}")).address(&format!("10.8.64.{n}/24")).start())
        .collect::<Result<_>>()?;
    let asker = bridge.sandbox("asker").address("10.8.64.3/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    for n in 129..=132 {
        assert!(ask(&asker, &format!("10.8.64.{n}"))?);
    }
    let incident = agent.wait_until(super::DEADLINE, "all to be contested", |agent| {
        let all = |incident: &Value| field(incident, "addresses").as_array().map(Vec::len) == Some(4);
        Ok(agent.conflicts()?.into_iter().find(all))
    })?;
    assert_eq!(agent.conflicts()?.len(), 1, "{:#?}", agent.conflicts());
    assert_eq!(field(&incident, "evictions"), &Value::Array(Vec::new()));
    for (n, victim) in (129..=132).zip(&victims) {
        assert_eq!(victim.addresses()?, [format!("10.8.64.{n}/24")]);
    }
    let told = story(&agent)?;
    let duplicates = told.iter().filter(|event| text(event, "kind") == "duplicate").count();
    assert_eq!((duplicates, agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?), (1, Some(1.0)), "{told:#?}");
    Ok(())
}

/// The host answers for everybody, so that ports that are kept apart reach each other by it (`proxy_arp_pvlan` in
/// `Documentation/networking/ip-sysctl.rst`).
fn answer_for_everybody(bridge: &Bridge) -> Result<()> {
    let runner = bridge.runner();
    runner.sysctl("net.ipv4.ip_forward", "1")?;
    for name in ["proxy_arp", "proxy_arp_pvlan"] {
        runner.sysctl(&format!("net.ipv4.conf.{}.{name}", bridge.name()), "1")?;
    }
    runner.sysctl(&format!("net.ipv4.neigh.{}.proxy_delay", bridge.name()), "0")
}

fn nothing_but_info(agent: &Agent) -> Result<()> {
    let told = story(agent)?;
    assert!(told.iter().all(|event| text(event, "kind") == "info"), "{told:#?}");
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    assert_eq!(agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?, Some(0.0));
    Ok(())
}

/// Scenario 26.
#[test]
fn a_host_that_answers_for_everybody_is_nothing() -> Result<()> {
    let (bridge, dupip) = runner()?;
    answer_for_everybody(&bridge)?;
    let start = |(name, address)| bridge.sandbox(name).address(address).start();
    let [a, b] = [("a", "10.8.64.2/24"), ("b", "10.8.64.3/24")].map(start);
    let (a, b) = (a?, b?);
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    for sandbox in [&a, &b] {
        bridge.runner().run(["bridge", "link", "set", "dev", sandbox.port(), "isolated", "on"])?;
    }
    assert_eq!(a.ping([10, 8, 64, 3].into(), 1)?.lost(), 0, "by way of the host");
    assert!(ask(&a, "10.8.64.9")?, "the host answers for an address that nobody has");
    let neighbours = a.run(["ip", "neighbour", "show", "10.8.64.3"])?;
    assert!(neighbours.contains(&bridge.mac()?.to_string()), "{neighbours}");
    // Somebody takes the address that was answered for, right after.
    let late = bridge.sandbox("late").address("10.8.64.9/24").announced().start()?;
    wait_for_metric(&mut agent, "dupip_claims_total{bridge=\"rt0\",kind=\"reply\"}", |replies| replies >= 2.0)?;
    witness.mark(&mut agent)?;
    nothing_but_info(&agent)?;
    let rows = agent.table()?;
    for (address, sandbox) in [("10.8.64.2", &a), ("10.8.64.3", &b), ("10.8.64.9", &late)] {
        let of: Vec<_> = rows_of(&rows, address).iter().map(|row| (text(row, "sandbox"), text(row, "state"))).collect();
        assert_eq!(of, [(sandbox.name(), "ok")]);
    }
    assert_eq!((a.addresses()?, b.addresses()?), (vec!["10.8.64.2/24".to_owned()], vec!["10.8.64.3/24".to_owned()]));
    Ok(())
}

/// A bridge has the lowest hardware address of its ports.
#[test]
fn a_bridge_whose_hardware_address_comes_and_goes_with_its_ports_is_nothing() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let stays = bridge.sandbox("stays").address("10.8.64.2/24").start()?;
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let mut macs = BTreeSet::from([bridge.mac()?]);
    for n in (1..=4_u8).rev() {
        let (port, mac) = (format!("low{n}"), MacAddr(2, 0, 0, 0, 0, n).to_string());
        bridge.runner().run(["ip", "link", "add", &port, "address", &mac, "type", "veth", "peer", "name", "end"])?;
        bridge.plug(&port)?;
        macs.insert(bridge.mac()?);
        stays.flush_neighbours()?;
        assert_eq!(stays.ping(bridge.gateway(), 1)?.lost(), 0);
        bridge.runner().run(["ip", "link", "delete", &port])?;
        macs.insert(bridge.mac()?);
    }
    assert!(macs.len() > 4, "it did change: {macs:?}");
    witness.mark(&mut agent)?;
    let now = bridge.mac()?.to_string();
    let row = agent.wait_until(super::DEADLINE, "the bridge's hardware address", |agent| {
        let rows = agent.table()?;
        let of = rows_of(&rows, "10.8.64.1");
        Ok(matches!(of.as_slice(), [row] if text(row, "mac") == now).then(|| of[0].clone()))
    })?;
    assert_eq!((field(&row, "host"), text(&row, "state")), (&true.into(), "ok"));
    nothing_but_info(&agent)?;
    assert_eq!(kinds(&story(&agent)?).len(), 0, "{:#?}", story(&agent)?);
    Ok(())
}

/// What the host answers for others hides nothing of what is its own.
#[test]
fn a_sandbox_that_takes_the_hosts_address_is_told_even_where_the_host_answers_for_others() -> Result<()> {
    let (bridge, dupip) = runner()?;
    answer_for_everybody(&bridge)?;
    let mut agent = dupip.start(Mode::Observe)?;
    let _thief = bridge.sandbox("thief").address("10.8.64.1/32").announced().start()?;
    let told = wait_for_event(&mut agent, "duplicate")?;
    assert_eq!((text(&told, "address"), text(&told, "severity")), ("10.8.64.1", "critical"));
    let parties = told.pointer("/detail/parties").and_then(Value::as_array).context("no parties")?;
    assert!(parties.iter().any(|party| field(party, "host") == true), "{told}");
    Ok(())
}

//! Claims to what is somebody else's by right, said on the wire.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::Result;
use lab::{Arp, Mode};
use serde_json::{Value, json};

use super::{
    CONTESTED, DEADLINE, count, duplicates, field, judged, parties, party, role, runner, text, told, wait_incident,
    wait_told,
};

/// Scenario 11. A thief that has the address configured is moved in `agent::healing`.
#[test]
fn a_claim_to_the_gateway_is_a_spoof_and_critical_and_the_host_keeps_it() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let sandbox = bridge.sandbox("thief").address("10.8.64.5/24").start()?;
    let vm = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Enforce)?;
    vm.send_frame(&Arp::announcement(vm.mac(), bridge.gateway()).frame())?;
    let incident = judged(agent)?;
    assert_eq!((text(&incident, "verdict"), text(&incident, "severity")), ("spoof", "critical"));
    let host = party(&incident, "rt0")?;
    assert_eq!((field(&host, "host"), text(&host, "role")), (&json!(true), "winner"));
    assert_eq!((role(&incident, "vm1")?.as_str(), field(&incident, "settled")), ("loser", &json!(true)));
    let event = wait_told(agent, "the duplicate", |event| text(event, "kind") == "duplicate")?;
    assert_eq!((text(&event, "severity"), text(&event, "port")), ("critical", "vm1"));
    assert_eq!(text(field(&event, "detail"), "severity"), "critical");

    let reply = Arp::reply(sandbox.mac()?, bridge.gateway(), vm.mac(), [10, 8, 64, 6].into());
    sandbox.send_frame(&reply.frame())?;
    wait_incident(agent, "the other thief", |incident| parties(incident).len() == 3)?;
    assert_eq!(agent.conflicts()?.len(), 1, "one incident, with two thieves");
    let shown = bridge.runner().run(["ip", "-4", "address", "show", "dev", "rt0"])?;
    assert!(shown.contains("10.8.64.1/24"), "{shown}");
    Ok(())
}

#[test]
fn a_sandbox_that_only_says_it_has_a_leased_address_is_a_spoofer() -> Result<()> {
    let (bridge, dupip) = runner()?;
    dupip.allocate("owner")?;
    let owner = bridge.sandbox("owner").address("10.8.64.2/24").start()?;
    let liar = bridge.sandbox("liar").address("10.8.64.3/24").start()?;
    let agent = &mut dupip.start(Mode::Enforce)?;
    liar.send_frame(&Arp::announcement(liar.mac()?, CONTESTED).frame())?;
    let incident = judged(agent)?;
    assert_eq!((text(&incident, "verdict"), text(&incident, "severity")), ("spoof", "error"));
    assert_eq!((role(&incident, owner.port())?.as_str(), role(&incident, liar.port())?.as_str()), ("winner", "loser"));
    assert_eq!(duplicates(agent)?, Some(1.0), "counted while the owner lives");
    assert_eq!((owner.addresses()?.len(), liar.addresses()?), (1, vec!["10.8.64.3/24".to_owned()]));
    Ok(())
}

/// Scenario 12: its own kernel answers for whatever it has another way to.
#[test]
fn proxy_arp_by_accident_is_one_incident_with_all_its_addresses_and_evicts_nobody() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let victims = (2..=5).map(|last| (format!("v{last}"), format!("10.8.64.{last}/24")));
    let victims = bridge.start_all(victims.map(|(name, address)| bridge.sandbox(&name).address(&address)))?;
    for victim in &victims {
        dupip.allocate(victim.name())?;
    }
    let asker = bridge.sandbox("asker").address("10.8.64.9/24").start()?;
    let proxy = bridge.sandbox("proxy").address("10.8.64.10/24").start()?;
    for line in [
        "link add inner0 type veth peer name inner1",
        "link set inner0 up",
        "link set inner1 up",
        "route add 10.8.64.0/29 dev inner0",
    ] {
        proxy.run(["ip"].into_iter().chain(line.split(' ')))?;
    }
    for (name, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.eth0.rp_filter", "0"),
        // It answers at once, and not after up to 0.8 s.
        ("net.ipv4.neigh.eth0.proxy_delay", "0"),
        ("net.ipv4.conf.eth0.proxy_arp", "1"),
    ] {
        proxy.sysctl(name, value)?;
    }
    let agent = &mut dupip.start(Mode::Enforce)?;
    for last in 2..=5 {
        asker.run(["arping", "-f", "-w", "5", "-I", "eth0", &format!("10.8.64.{last}")])?;
    }
    let is_whole = |incident: &Value| addresses(incident).len() == 4 && !field(incident, "held").is_null();
    let incident = wait_incident(agent, "all four addresses", is_whole)?;
    let all: BTreeSet<_> = (2..=5).map(|last| Ipv4Addr::new(10, 8, 64, last).to_string()).collect();
    assert_eq!((addresses(&incident), agent.conflicts()?.len()), (all, 1));
    assert_eq!((text(&incident, "verdict"), role(&incident, proxy.port())?.as_str()), ("spoof", "loser"));
    assert!(text(&incident, "held").contains("only says so on the wire"), "{incident}");
    for (victim, last) in victims.iter().zip(2..) {
        let want = if last == 2 { "winner" } else { "party" };
        assert_eq!(role(&incident, victim.port())?, want, "{incident}");
        assert_eq!(victim.addresses()?, [format!("10.8.64.{last}/24")]);
    }
    let told = told(agent)?;
    assert_eq!((count(&told, "duplicate"), count(&told, "address_joined")), (1, 3), "{told:?}");
    let joined = told.iter().filter(|event| text(event, "kind") == "address_joined");
    assert!(joined.clone().all(|event| text(event, "port") == proxy.port()), "no victim is accused: {told:?}");
    assert_eq!(count(&told, "eviction_step"), 0);
    assert_eq!(duplicates(agent)?, Some(1.0));
    agent.wait_until(DEADLINE, "every address to be active", |agent| {
        Ok((agent.metric("duplicate_ip_active{bridge=\"rt0\"}")? == Some(4.0)).then_some(()))
    })
}

#[test]
fn whoever_lies_about_many_addresses_hides_no_real_duplicate_among_them() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _first = bridge.sandbox("first").address("10.8.64.2/24").start()?;
    let second = bridge.sandbox("second").address("10.8.64.3/24").start()?;
    let vm = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Enforce)?;
    for (address, already) in [(CONTESTED, 1), ([10, 8, 64, 3].into(), 2)] {
        vm.answer([address], vm.mac());
        vm.send_frame(&Arp::announcement(vm.mac(), address).frame())?;
        // The book may answer for the second one first, which would then be the incident's.
        wait_incident(agent, "one more address", |incident| addresses(incident).len() == already)?;
    }
    let lied = wait_incident(agent, "both addresses", |incident| addresses(incident).len() == 2)?;
    let late = bridge.sandbox("late").address("10.8.64.3/24").start()?;
    let real = wait_incident(agent, "the real duplicate", |incident| {
        text(incident, "address") == "10.8.64.3" && !field(incident, "reason").is_null()
    })?;
    assert_ne!(field(&real, "id"), field(&lied, "id"));
    assert_eq!((parties(&real).len(), role(&real, second.port())?.as_str()), (3, "winner"));
    agent.wait_until(DEADLINE, "the newcomer to be moved", |_| {
        Ok((late.addresses()? != ["10.8.64.3/24"]).then_some(()))
    })?;
    assert_eq!((second.addresses()?, duplicates(agent)?), (vec!["10.8.64.3/24".to_owned()], Some(2.0)));
    Ok(())
}

fn addresses(incident: &Value) -> BTreeSet<String> {
    let all = field(incident, "addresses").as_array().into_iter().flatten();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

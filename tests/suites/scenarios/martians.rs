//! What cannot be true, each for its own reason.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use lab::{Arp, Datagram, MacAddr, Mode};
use serde_json::{Value, json};

use super::{
    CONTESTED, DEADLINE, duplicates, field, judged, martians, party, rows, runner, settle, text, told, told_but_marks,
    wait_told,
};

/// What nobody on 10.8.64.0/24 can have, and why.
const NOWHERE: [(&str, &str); 13] = [
    ("outside_subnet", "192.0.2.7"),
    ("outside_subnet", "10.8.65.2"),
    ("network", "10.8.64.0"),
    ("broadcast", "10.8.64.255"),
    ("broadcast", "255.255.255.255"),
    ("loopback", "127.0.0.1"),
    ("loopback", "127.255.255.254"),
    ("this_network", "0.0.0.1"),
    ("this_network", "0.255.0.1"),
    ("multicast", "224.0.0.1"),
    ("multicast", "239.255.255.250"),
    ("reserved", "240.0.0.1"),
    ("reserved", "255.255.255.254"),
];

/// Scenario 16.
#[test]
fn each_sender_that_cannot_be_has_its_own_reason() -> Result<()> {
    told_each_by_its_reason(|mac, address, (_, gateway)| Ok(Arp::request(mac, address, gateway).frame()))
}

/// Scenario 16, of packets.
#[test]
fn each_source_that_cannot_be_has_its_own_reason() -> Result<()> {
    told_each_by_its_reason(|mac, address, to| Datagram::new((mac, address), to, b"odd").frame())
}

fn told_each_by_its_reason(frame: impl Fn(MacAddr, Ipv4Addr, (MacAddr, Ipv4Addr)) -> Result<Vec<u8>>) -> Result<()> {
    let (bridge, dupip) = runner()?;
    let odd = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Enforce)?;
    for (_, address) in NOWHERE {
        odd.send_frame(&frame(odd.mac(), address.parse()?, (bridge.mac()?, bridge.gateway()))?)?;
    }
    settle(agent, &odd, 1)?;
    let told = told_but_marks(agent)?;
    let seen: Vec<_> = told.iter().map(|event| (text(event, "reason"), text(event, "address"))).collect();
    assert_eq!(seen, NOWHERE);
    for event in &told {
        assert_eq!((text(event, "kind"), text(event, "severity")), ("martian", "warning"), "{event}");
        assert_eq!((text(event, "port"), text(event, "mac")), ("vm1", odd.mac().to_string().as_str()), "{event}");
    }
    for (reason, address) in NOWHERE {
        let count = NOWHERE.iter().filter(|(other, _)| *other == reason).count();
        // The mark is one more of those outside.
        let marks = usize::from(reason == "outside_subnet");
        assert_eq!(martians(agent, reason)?, Some(f64::from(u32::try_from(count + marks)?)), "{reason}");
        assert_eq!(text(rows(agent, address.parse()?)?.first().context("no row")?, "state"), "martian");
    }
    assert_eq!((agent.conflicts()?, duplicates(agent)?), (Vec::<Value>::new(), Some(0.0)));
    Ok(())
}

#[test]
fn the_hosts_other_networks_and_those_that_an_operator_adds_are_at_home() -> Result<()> {
    let (bridge, dupip) = runner()?;
    bridge.runner().run(["ip", "address", "add", "10.9.0.1/24", "dev", "rt0"])?;
    let vm = bridge.tap("vm1")?;
    let agent = &mut dupip.start_with(Mode::Observe, &["--extra-network", "172.30.0.0/16"])?;
    for address in [[10, 9, 0, 7], [172, 30, 4, 4], [169, 254, 7, 7], [10, 8, 64, 7]] {
        vm.send_frame(&Arp::announcement(vm.mac(), address.into()).frame())?;
    }
    settle(agent, &vm, 1)?;
    assert_eq!(told_but_marks(agent)?, Vec::<Value>::new());
    assert!(rows(agent, [172, 30, 4, 4].into())?.iter().all(|row| text(row, "state") == "ok"));
    vm.send_frame(&Arp::announcement(vm.mac(), [172, 30, 0, 0].into()).frame())?;
    let edge = wait_told(agent, "the network's own number", |event| text(event, "address") == "172.30.0.0")?;
    assert_eq!(text(&edge, "reason"), "network");
    Ok(())
}

/// Scenario 16: nobody is at home there, so two cannot contest it.
#[test]
fn what_cannot_be_true_is_no_duplicate_however_many_say_it() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let vms = [bridge.tap("vm1")?, bridge.tap("vm2")?];
    let agent = &mut dupip.start(Mode::Enforce)?;
    for vm in &vms {
        vm.send_frame(&Arp::announcement(vm.mac(), [192, 0, 2, 7].into()).frame())?;
    }
    settle(agent, &vms[0], 1)?;
    let told = told_but_marks(agent)?;
    assert_eq!(told.iter().map(|event| text(event, "port")).collect::<Vec<_>>(), ["vm1", "vm2"]);
    assert_eq!((agent.conflicts()?, duplicates(agent)?), (Vec::<Value>::new(), Some(0.0)));
    Ok(())
}

/// Scenario 17.
#[test]
fn a_frame_of_another_source_is_martian_and_still_a_claim() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _owner = bridge.sandbox("owner").address("10.8.64.2/24").start()?;
    let vm = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Observe)?;
    let forger = MacAddr(2, 9, 9, 9, 9, 9);
    let forged = |address| Arp { source: forger, ..Arp::announcement(vm.mac(), address) };
    vm.send_frame(&forged([10, 8, 64, 7].into()).frame())?;
    let event = wait_told(agent, "the forged frame", |event| text(event, "address") == "10.8.64.7")?;
    assert_eq!((text(&event, "kind"), text(&event, "reason")), ("martian", "ether_mismatch"));
    assert_eq!(text(&event, "mac"), vm.mac().to_string());
    assert_eq!(text(field(&event, "detail"), "source_mac"), forger.to_string());
    let [row] = &rows(agent, [10, 8, 64, 7].into())?[..] else { anyhow::bail!("not one row") };
    assert_eq!((text(row, "mac"), text(row, "port")), (vm.mac().to_string().as_str(), "vm1"));

    vm.send_frame(&forged(CONTESTED).frame())?;
    let incident = judged(agent)?;
    assert_eq!((text(&incident, "verdict"), text(&incident, "first_evidence")), ("duplicate", "gratuitous_request"));
    assert_eq!(text(&party(&incident, "vm1")?, "mac"), vm.mac().to_string());
    assert_eq!((martians(agent, "ether_mismatch")?, duplicates(agent)?), (Some(2.0), Some(1.0)));
    Ok(())
}

/// Scenario 18, as the incident showed itself: the one line that there was, tied to what it was a sign of.
#[test]
fn a_martian_that_a_kernel_logs_is_tied_to_its_incident() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let [sports, review] = bridge.duplicate(["sportsagent", "reviewagent"], "10.8.64.2/24")?;
    let agent = &mut dupip.start(Mode::Observe)?;
    judged(agent)?;
    // The kernel's limit of such lines is one for the whole machine, so one may be swallowed.
    let event = agent.wait_until(3 * DEADLINE, "the kernel's martian", |agent| {
        sports.flush_neighbours()?;
        sports.ping(bridge.gateway(), 1)?;
        let is_its = |event: &Value| text(event, "reason") == "kernel" && text(event, "port") == sports.port();
        Ok(told(agent)?.into_iter().find(is_its))
    })?;
    assert_eq!((text(&event, "kind"), text(&event, "address")), ("martian", "10.8.64.2"));
    assert_eq!(text(&event, "mac"), sports.mac()?.to_string());
    assert_eq!(field(&event, "incident"), &json!(1));
    let detail = field(&event, "detail");
    assert_eq!((text(detail, "target"), text(detail, "device")), ("10.8.64.1", "eth0"));
    assert_eq!(event.pointer("/detail/parties/0/sandbox"), Some(&json!("sportsagent")));
    assert!(text(&event, "message").contains("sportsagent"), "{event}");
    assert!(martians(agent, "kernel")?.is_some_and(|count| count >= 1.0));
    let incidents = agent.conflicts()?;
    let sightings = incidents.first().map(|incident| field(incident, "sightings").clone()).unwrap_or_default();
    let of_kernel = sightings.as_array().into_iter().flatten().find(|sighting| text(sighting, "evidence") == "martian");
    assert!(of_kernel.is_some(), "{sightings}");
    assert_eq!((incidents.len(), review.addresses()?.len()), (1, 1));
    Ok(())
}

/// Scenario 19: whatever a frame would say if it were whole, it says nothing. `agent::detection` counts each reason.
#[test]
fn a_malformed_frame_contradicts_nobody() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _owner = bridge.sandbox("owner").address("10.8.64.2/24").start()?;
    let vm = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Enforce)?;
    let whole = Arp::reply(vm.mac(), CONTESTED, bridge.mac()?, bridge.gateway()).frame();
    let with = |at: usize, byte: u8| {
        let mut frame = whole.clone();
        frame.splice(at..=at, [byte]);
        frame
    };
    let short = whole.get(..41).unwrap_or_default().to_vec();
    let unknown = (3..=25).map(|operation| with(21, operation));
    for frame in [short, with(15, 6), with(16, 0x86), with(18, 8), with(19, 16), with(20, 1)].into_iter().chain(unknown)
    {
        vm.send_frame(&frame)?;
    }
    settle(agent, &vm, 1)?;
    for (reason, count) in [("short", 1.0), ("hardware_type", 1.0), ("protocol_type", 1.0), ("operation", 24.0)] {
        let series = format!("dupip_malformed_total{{bridge=\"rt0\",reason=\"{reason}\"}}");
        agent.wait_until(DEADLINE, &series, |agent| Ok((agent.metric(&series)? == Some(count)).then_some(())))?;
    }
    assert_eq!((told_but_marks(agent)?, agent.conflicts()?), (Vec::new(), Vec::<Value>::new()));
    assert_eq!(rows(agent, CONTESTED)?.len(), 1, "the owner's");
    Ok(())
}

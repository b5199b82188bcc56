//! Two have one address: seen by whatever shows it first, and named by port and hardware address.

use anyhow::Result;
use lab::{Arp, Datagram, MacAddr, Mode};
use serde_json::json;

use super::{
    CONTESTED, DEADLINE, closed, count, duplicates, field, judged, parties, party, role, rows, runner, settle, text,
    told, wait_incident, wait_row,
};

/// Scenario 1.
#[test]
fn two_answers_to_one_question_contradict_each_other() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let asker = bridge.sandbox("asker").address("10.8.64.9/24").start()?;
    let vms = [bridge.tap("vm1")?, bridge.tap("vm2")?];
    vms.iter().for_each(|vm| vm.answer([CONTESTED], vm.mac()));
    let mut agent = dupip.start(Mode::Enforce)?;
    asker.run(["arping", "-f", "-w", "5", "-I", "eth0", "10.8.64.2"])?;
    let incident = judged(&mut agent)?;
    assert_eq!((text(&incident, "verdict"), text(&incident, "first_evidence")), ("duplicate", "reply"));
    for vm in &vms {
        let party = party(&incident, vm.port())?;
        assert_eq!((text(&party, "mac"), field(&party, "netns")), (vm.mac().to_string().as_str(), &json!(null)));
    }
    assert_eq!((parties(&incident).len(), duplicates(&agent)?), (2, Some(1.0)));
    assert_eq!(count(&told(&agent)?, "duplicate"), 1);
    assert!(rows(&agent, CONTESTED)?.iter().all(|row| text(row, "state") == "duplicate"));
    Ok(())
}

/// Scenario 1.
#[test]
fn of_two_who_answer_the_one_without_the_lease_loses() -> Result<()> {
    let (bridge, dupip) = runner()?;
    dupip.allocate("keeper")?;
    let keeper = bridge.sandbox("keeper").address("10.8.64.2/24").start()?;
    let asker = bridge.sandbox("asker").address("10.8.64.9/24").start()?;
    let vm = bridge.tap("vm1")?;
    let mut agent = dupip.start(Mode::Enforce)?;
    vm.answer([CONTESTED], vm.mac());
    asker.run(["arping", "-f", "-w", "5", "-I", "eth0", "10.8.64.2"])?;
    let incident = judged(&mut agent)?;
    assert_eq!((text(&incident, "verdict"), text(&incident, "first_evidence")), ("duplicate", "reply"));
    assert_eq!((role(&incident, keeper.port())?.as_str(), role(&incident, "vm1")?.as_str()), ("winner", "loser"));
    assert!(text(&incident, "reason").contains("holds lease generation"), "{incident}");
    assert!(text(&incident, "held").contains("cannot be entered"), "{incident}");
    assert_eq!(keeper.addresses()?, ["10.8.64.2/24"]);
    Ok(())
}

/// Scenario 2: what the kernel logged as a martian source was such a request.
#[test]
fn one_question_of_each_is_enough() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let vms = [bridge.tap("vm1")?, bridge.tap("vm2")?];
    let mut agent = dupip.start(Mode::Observe)?;
    let [first, second] = &vms;
    vms.iter().for_each(|vm| vm.answer([CONTESTED], vm.mac()));
    for vm in [first, second] {
        vm.send_frame(&Arp::request(vm.mac(), CONTESTED, bridge.gateway()).frame())?;
    }
    let incident = judged(&mut agent)?;
    assert_eq!((text(&incident, "verdict"), text(&incident, "first_evidence")), ("duplicate", "request"));
    assert_eq!((role(&incident, "vm1")?.as_str(), role(&incident, "vm2")?.as_str()), ("winner", "loser"));
    let told = told(&agent)?;
    let duplicate = told.iter().find(|event| text(event, "kind") == "duplicate");
    assert_eq!(duplicate.map(|event| text(event, "reason")), Some("request"), "{told:?}");
    assert_eq!(duplicate.map(|event| text(event, "mac")), Some(second.mac().to_string().as_str()), "who came last");
    Ok(())
}

/// Scenario 3.
#[test]
fn of_two_who_start_at_one_time_the_one_without_the_lease_is_moved() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let lease = |owner| agent.dupip().ask(&["lease", "allocate", "--bridge", "rt0", "--owner", owner]);
    let (first, second) = (lease("first")?, lease("second")?);
    assert_eq!((text(&first, "address"), text(&second, "address")), ("10.8.64.2", "10.8.64.3"));
    let adopt = ["lease", "adopt", "--bridge", "rt0", "--address", "10.8.64.2", "--owner", "second"];
    assert!(agent.dupip().ask(&adopt).is_err(), "no address has two leases");
    let plan = |name| bridge.sandbox(name).address("10.8.64.2/24");
    let [first, second] = &bridge.start_all([plan("first"), plan("second")])?[..] else { anyhow::bail!("not two") };
    let incident = closed(&mut agent, "healed")?;
    assert_eq!(text(&incident, "verdict"), "duplicate");
    assert_eq!(
        (role(&incident, first.port())?.as_str(), role(&incident, second.port())?.as_str()),
        ("winner", "loser")
    );
    assert_eq!(first.addresses()?, ["10.8.64.2/24"]);
    assert_ne!(second.addresses()?, ["10.8.64.2/24"]);
    let addresses: Vec<_> = agent.leases()?.iter().map(|lease| text(lease, "address").to_owned()).collect();
    assert_eq!(addresses.iter().filter(|address| *address == "10.8.64.2").count(), 1, "{addresses:?}");
    Ok(())
}

/// Scenario 4, where there is no way into the newcomer: the kernel tells what is in there.
#[test]
fn a_used_address_configured_where_nobody_can_enter_is_seen_before_any_packet() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let owner = bridge.sandbox("owner").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let sealed = bridge.sealed(&[])?;
    sealed.address("10.8.64.2/24")?;
    let incident = judged(&mut agent)?;
    assert_eq!((text(&incident, "verdict"), text(&incident, "first_evidence")), ("duplicate", "configured"));
    let newcomer = party(&incident, sealed.port())?;
    assert_eq!((text(&newcomer, "mac"), text(&newcomer, "role")), (sealed.mac()?.to_string().as_str(), "loser"));
    assert_eq!(field(&newcomer, "configured"), &json!(true));
    assert_eq!(role(&incident, owner.port())?, "winner");
    let row = wait_row(&mut agent, CONTESTED, sealed.port())?;
    assert_eq!((text(&row, "reach"), text(&row, "state")), ("netns_by_id", "duplicate"));
    sealed.remove_address("10.8.64.2/24")?;
    closed(&mut agent, "gone").map(drop)
}

/// Scenario 5.
#[test]
fn whoever_says_no_word_of_arp_is_named_by_the_source_of_its_packets() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let owner = bridge.sandbox("owner").address("10.8.64.2/24").start()?;
    let vm = bridge.tap("vm1")?;
    let mut agent = dupip.start(Mode::Observe)?;
    let to = (bridge.mac()?, bridge.gateway());
    vm.send_frame(&Datagram::new((vm.mac(), CONTESTED), to, b"silent").frame()?)?;
    let incident = judged(&mut agent)?;
    assert_eq!((text(&incident, "verdict"), text(&incident, "first_evidence")), ("duplicate", "ipv4"));
    let silent = party(&incident, "vm1")?;
    assert_eq!((text(&silent, "evidence"), text(&silent, "mac")), ("ipv4", vm.mac().to_string().as_str()));
    assert_eq!(role(&incident, owner.port())?, "winner");
    Ok(())
}

/// Scenario 6. A port that does not forward yet has its first words swallowed by the bridge.
#[test]
fn an_announcement_that_the_bridge_swallows_is_heard_at_its_port() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _owner = bridge.sandbox("owner").address("10.8.64.2/24").start()?;
    let vm = bridge.tap("vm1")?;
    let mut agent = dupip.start(Mode::Observe)?;
    bridge.runner().run(["bridge", "link", "set", "dev", "vm1", "state", "1"])?;
    let capture = bridge.runner().capture("rt0")?;
    vm.send_frame(&Arp::announcement(vm.mac(), CONTESTED).frame())?;
    let incident = judged(&mut agent)?;
    assert_eq!((text(&incident, "verdict"), text(&incident, "first_evidence")), ("duplicate", "gratuitous_request"));
    assert_eq!(text(&party(&incident, "vm1")?, "mac"), vm.mac().to_string());
    let heard = bridge.runner().count(&capture.stop()?, &format!("arp and ether src {}", vm.mac()))?;
    assert_eq!(heard, 0, "the bridge itself has heard nothing");
    Ok(())
}

/// Scenario 8, with healthy sandboxes beside.
#[test]
fn duplicates_that_were_there_before_are_told_once_each_and_the_healthy_not_at_all() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let healthy = (20..40).map(|last| bridge.sandbox(&format!("h{last}")).address(&format!("10.8.64.{last}/24")));
    let twice = [2, 3, 4].into_iter().flat_map(|last| ["a", "b"].map(|side| (side, last)));
    let twice =
        twice.map(|(side, last)| bridge.sandbox(&format!("{side}{last}")).address(&format!("10.8.64.{last}/24")));
    bridge.start_all(healthy.chain(twice))?;
    let mut agent = dupip.start(Mode::Observe)?;
    agent.wait_until(DEADLINE, "all three to be judged", |agent| {
        let held = agent.conflicts()?.into_iter().filter(|incident| !field(incident, "held").is_null());
        Ok((held.count() == 3).then_some(()))
    })?;
    // Everybody is asked once at the start: when all have answered, the start is over.
    agent.wait_until(DEADLINE, "all to have answered", |agent| {
        let rows = agent.table()?;
        let answered = rows.iter().filter(|row| field(row, "host") == false && field(row, "hits").as_u64() > Some(0));
        Ok((answered.count() == 26).then_some(()))
    })?;
    let told = told(&agent)?;
    let mut duplicates: Vec<_> =
        told.iter().filter(|event| text(event, "kind") == "duplicate").map(|event| text(event, "address")).collect();
    duplicates.sort_unstable();
    assert_eq!(duplicates, ["10.8.64.2", "10.8.64.3", "10.8.64.4"]);
    let is_of_one = |address: &str| duplicates.contains(&address);
    assert!(told.iter().all(|event| is_of_one(text(event, "address"))), "{told:?}");
    assert_eq!(agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?, Some(3.0));
    Ok(())
}

/// Scenario 14.
#[test]
fn a_storm_of_claims_is_one_incident_with_a_rising_count_and_few_words() -> Result<()> {
    const EACH: u64 = 200;
    let (bridge, dupip) = runner()?;
    let [first, second, third] = [bridge.tap("vm1")?, bridge.tap("vm2")?, bridge.tap("vm3")?];
    for vm in [&first, &second] {
        vm.answer([CONTESTED], vm.mac());
    }
    let mut agent = dupip.start(Mode::Observe)?;
    let claim = |vm: &lab::Tap| vm.send_frame(&Arp::announcement(vm.mac(), CONTESTED).frame());
    [&first, &second].into_iter().try_for_each(claim)?;
    judged(&mut agent)?;
    for round in 1..=3 {
        let before = agent.conflicts()?.first().and_then(|one| field(one, "claims").as_u64()).unwrap_or_default();
        for _ in 0..EACH {
            [&first, &second].into_iter().try_for_each(claim)?;
        }
        wait_incident(&mut agent, &format!("the claims of round {round}"), |incident| {
            field(incident, "claims").as_u64().is_some_and(|claims| claims >= before + 2 * EACH)
        })?;
    }
    third.answer([CONTESTED], third.mac());
    claim(&third)?;
    let incident = wait_incident(&mut agent, "the third to join", |incident| parties(incident).len() == 3)?;
    assert_eq!(party(&incident, "vm3")?.get("mac"), Some(&json!(third.mac().to_string())));
    settle(&mut agent, &third, 1)?;
    let told = super::told_but_marks(&agent)?;
    assert_eq!((count(&told, "duplicate"), count(&told, "party_joined"), duplicates(&agent)?), (1, 1, Some(1.0)));
    assert!(told.len() <= 8, "{} events: {told:?}", told.len());
    assert_eq!(agent.conflicts()?.len(), 1);
    let kept = field(&incident, "sightings").as_array().map(Vec::len);
    assert!(kept.is_some_and(|kept| kept <= 32), "evidence is bounded: {kept:?}");
    let log = agent.log()?;
    let lines = log.lines().filter(|line| line.contains("10.8.64.2") && !line.contains("DEBUG"));
    assert!(lines.clone().count() <= 8, "{}", lines.collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// Several hardware addresses in turn from one port beside a real owner: one party more for each, and one incident.
#[test]
fn a_claimant_with_ever_new_hardware_addresses_makes_one_incident() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _owner = bridge.sandbox("owner").address("10.8.64.2/24").start()?;
    let vm = bridge.tap("vm1")?;
    let mut agent = dupip.start(Mode::Observe)?;
    for last in 0..20 {
        vm.send_frame(&Arp::announcement(MacAddr(2, 7, 7, 7, 7, last), CONTESTED).frame())?;
    }
    settle(&mut agent, &vm, 1)?;
    judged(&mut agent)?;
    assert_eq!((agent.conflicts()?.len(), duplicates(&agent)?), (1, Some(1.0)));
    assert_eq!(count(&told(&agent)?, "duplicate"), 1);
    Ok(())
}

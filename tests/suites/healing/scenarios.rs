//! The scenarios with somebody who cannot be moved, or comes back: what is seen of containment from outside.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use lab::{Agent, Arp, Mode, Runner, Sandbox, Tap};
use serde_json::Value;

use super::{
    CONTESTED, DEADLINE, arrived, cached_by, claims, closed, count, field, quarantine::Lab, role, runner, text, told,
    wait_incident, wait_row, wait_told,
};

/// Waits until whatever a port says of an address is dropped.
fn wait_contained(agent: &mut Agent, port: &str, address: Ipv4Addr) -> Result<Value> {
    wait_told(agent, &format!("{port} to be contained at {address}"), |event| {
        text(event, "kind") == "contained"
            && text(event, "port") == port
            && text(event, "address") == address.to_string()
    })
}

fn arrives(speaker: &Sandbox, witness: &Tap, address: Ipv4Addr) -> Result<Vec<bool>> {
    arrived(speaker, witness, &claims(speaker, witness, address)?)
}

/// Scenario 11, as the others on the bridge see it.
#[test]
fn whoever_claims_the_gateway_is_heard_by_nobody_and_all_reach_the_gateway() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let peer = bridge.sandbox("peer").without_ipv6().address("10.8.64.9/24").start()?;
    let thief = bridge.sandbox("thief").without_ipv6().address("10.8.64.5/24").start()?;
    let witness = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Enforce)?;
    assert_eq!(peer.ping(bridge.gateway(), 1)?.lost(), 0);
    thief.send_frame(&Arp::announcement(thief.mac()?, bridge.gateway()).frame())?;
    wait_contained(agent, thief.port(), bridge.gateway())?;
    assert_eq!(arrives(&thief, &witness, bridge.gateway())?, [false; 4]);
    assert_eq!(arrives(&thief, &witness, [10, 8, 64, 5].into())?, [true; 4], "its own address is its own");
    let mac = bridge.mac()?.to_string();
    agent.wait_until(DEADLINE, "the peer to know the gateway again", |_| {
        Ok((cached_by(&peer, bridge.gateway())? == mac).then_some(()))
    })?;
    assert_eq!(peer.ping(bridge.gateway(), 5)?.lost(), 0);
    assert_eq!(thief.ping(bridge.gateway(), 5)?.lost(), 0, "the thief too, from its own address");
    let incident = wait_incident(agent, "the incident", |incident| !field(incident, "held").is_null())?;
    assert_eq!((text(&incident, "severity"), role(&incident, "rt0")?.as_str()), ("critical", "winner"));
    Ok(())
}

/// Scenario 12, as whoever asks sees it.
#[test]
fn whoever_answers_for_many_is_contained_at_each_that_it_answered_for() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let victims = (2..=5u8).map(|last| (format!("v{last}"), format!("10.8.64.{last}/24")));
    let victims =
        bridge.start_all(victims.map(|(name, address)| bridge.sandbox(&name).without_ipv6().address(&address)))?;
    for victim in &victims {
        dupip.allocate(victim.name())?;
    }
    let proxy = bridge.tap("vm1")?;
    let addresses: Vec<_> = (2..=5).map(|last| Ipv4Addr::new(10, 8, 64, last)).collect();
    let agent = &mut dupip.start(Mode::Enforce)?;
    for (victim, address) in victims.iter().zip(&addresses) {
        wait_row(agent, *address, victim.port())?;
    }
    proxy.answer(addresses.iter().copied(), proxy.mac());
    for (victim, address) in victims.iter().zip(&addresses) {
        bridge.owners(*address)?;
        wait_contained(agent, "vm1", *address)?;
        let answered = proxy.answered();
        assert_eq!(bridge.owners(*address)?, [victim.mac()?].into());
        assert!(proxy.answered() > answered, "it did answer");
    }
    let incidents = agent.conflicts()?;
    let [incident] = &incidents[..] else { anyhow::bail!("not one incident: {incidents:?}") };
    assert_eq!((role(incident, "vm1")?.as_str(), count(&told(agent)?, "eviction_failed")), ("loser", 0));
    for victim in &victims {
        assert_ne!(role(incident, victim.port())?, "loser");
    }
    Ok(())
}

/// Scenario 14: it goes on for long, and the others hear only one of both.
#[test]
fn of_two_who_defend_the_address_again_and_again_only_the_holder_is_heard() -> Result<()> {
    let (bridge, dupip) = runner()?;
    dupip.allocate("holder")?;
    let holder = bridge.sandbox("holder").without_ipv6().address("10.8.64.2/24").start()?;
    let (rival, witness) = (bridge.tap("vm1")?, bridge.tap("vm2")?);
    let agent = &mut dupip.start(Mode::Enforce)?;
    wait_row(agent, CONTESTED, holder.port())?;
    let (defence, attack) = (Arp::announcement(holder.mac()?, CONTESTED), Arp::announcement(rival.mac(), CONTESTED));
    rival.send_frame(&attack.frame())?;
    wait_contained(agent, "vm1", CONTESTED)?;
    // Whatever was said before is behind this.
    holder.send_frame(&Arp::probe(holder.mac()?, [10, 8, 64, 99].into()).frame())?;
    witness.receive(DEADLINE, |frame| Arp::read(frame).filter(|arp| arp.target == Ipv4Addr::new(10, 8, 64, 99)))?;
    for _ in 0..50 {
        rival.send_frame(&attack.frame())?;
        holder.send_frame(&defence.frame())?;
    }
    let (mut attacks, mut defences) = (0, 0);
    witness.receive(DEADLINE, |frame| {
        let arp = Arp::read(frame)?;
        attacks += usize::from(arp == attack);
        defences += usize::from(arp == defence);
        (defences == 50).then_some(())
    })?;
    assert_eq!(attacks, 0);
    let claims = |incident: &Value| field(incident, "claims").as_u64().unwrap_or_default();
    let incident = wait_incident(agent, "all to be counted", |incident| claims(incident) >= 50)?;
    assert_eq!((agent.conflicts()?.len(), role(&incident, "vm1")?.as_str()), (1, "loser"));
    let told = told(agent)?;
    assert_eq!((count(&told, "duplicate"), count(&told, "contained")), (1, 1), "{told:?}");
    Ok(())
}

/// Scenario 15, as the others on the bridge see it.
#[test]
fn without_a_lease_the_newcomer_is_heard_by_nobody_until_somebody_says_whose_it_is() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let witness = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Enforce)?;
    let plan = |name: &str| bridge.sandbox(name).without_ipv6().address("10.8.64.2/24");
    let first = plan("first").start()?;
    wait_row(agent, CONTESTED, first.port())?;
    let second = plan("second").start()?;
    wait_contained(agent, second.port(), CONTESTED)?;
    assert_eq!(arrives(&second, &witness, CONTESTED)?, [false; 4]);
    assert_eq!(bridge.owners(CONTESTED)?, [first.mac()?].into());
    let held = wait_told(agent, "the alert", |event| text(event, "kind") == "held")?;
    assert!(
        text(&held, "severity") == "warning" && text(&held, "message").contains("no party holds a lease"),
        "{held}"
    );
    // An operator says that it is the newcomer's: it is free at once, and the other is contained and moved.
    agent.dupip().ask(&["lease", "adopt", "--bridge", "rt0", "--address", "10.8.64.2", "--owner", "second"])?;
    closed(agent, "healed")?;
    assert_eq!(arrives(&second, &witness, CONTESTED)?, [true; 4]);
    assert_eq!(
        (first.addresses()?, second.addresses()?),
        (vec!["10.8.64.3/24".to_owned()], vec!["10.8.64.2/24".to_owned()])
    );
    assert_eq!(bridge.owners(CONTESTED)?, [second.mac()?].into());
    Ok(())
}

/// Scenario 38.
#[test]
fn with_no_address_left_the_loser_stays_contained_until_there_is_room() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.start(&["--cooldown", "1s"])?;
    lab.wait_contained(&mut agent)?;
    assert_eq!(lab.arrives(CONTESTED)?, [false; 4]);
    let incident = wait_incident(&mut agent, "the incident", |incident| text(incident, "status") == "open")?;
    assert_eq!(role(&incident, lab.loser.port())?, "loser");
    let shown = agent.dupip().say(&["conflicts"])?;
    assert!(shown.contains("no address left"), "{shown}");
    assert_eq!(
        (lab.holder.ping(lab.bridge.gateway(), 3)?.lost(), lab.loser.addresses()?[0].as_str()),
        (0, "10.8.64.2/29")
    );
    let leases = agent.leases()?;
    let unused = leases.iter().find(|lease| text(lease, "owner") == "d").context("no lease")?;
    let named = ["--bridge", "rt0", "--address", text(unused, "address"), "--owner", "d"];
    let generation = field(unused, "generation").to_string();
    agent.dupip().ask(&[&["lease", "release"][..], &named, &["--generation", &generation]].concat())?;
    agent.wait_until(6 * DEADLINE, "it to be healed, now that there is room", |agent| {
        Ok(agent.conflicts()?.into_iter().find(|incident| text(incident, "status") == "healed"))
    })?;
    assert!(
        lab.loser.addresses()?.contains(&format!("{}/29", text(unused, "address"))),
        "{:?}",
        lab.loser.addresses()?
    );
    assert_eq!(lab.holder.addresses()?, ["10.8.64.2/29"]);
    assert_eq!(lab.arrives(CONTESTED)?, [true; 4], "nothing is dropped any more");
    Ok(())
}

/// Scenario 40.
#[test]
fn whoever_puts_its_old_address_back_is_moved_so_often_and_then_only_contained() -> Result<()> {
    /// How often somebody is moved before that ends, unless told otherwise.
    const STRIKES: u64 = 3;
    let (bridge, dupip) = runner()?;
    dupip.allocate("holder")?;
    let holder = bridge.sandbox("holder").without_ipv6().address("10.8.64.2/24").start()?;
    let witness = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Enforce)?;
    wait_row(agent, CONTESTED, holder.port())?;
    let stubborn = bridge.sandbox("stubborn").without_ipv6().address("10.8.64.2/24").start()?;
    for strike in 1..=STRIKES {
        agent.wait_until(DEADLINE, &format!("it to be moved {strike} times"), |agent| {
            let moved = agent.metric("dupip_evictions_total{result=\"healed\"}")?;
            Ok((moved == Some(f64::from(u32::try_from(strike)?))).then_some(()))
        })?;
        let addresses = stubborn.addresses()?;
        assert!(!addresses.contains(&"10.8.64.2/24".to_owned()) && !addresses.is_empty(), "{addresses:?}");
        stubborn.run(["ip", "address", "add", "10.8.64.2/24", "dev", "eth0"])?;
    }
    let incident = wait_incident(agent, "it to be contained only", |incident| {
        text(incident, "held").contains("moved away too often")
    })?;
    assert_eq!((text(&incident, "status"), role(&incident, stubborn.port())?.as_str()), ("open", "loser"));
    let eviction = incident.pointer("/evictions/0").context("no eviction")?;
    assert_eq!((field(eviction, "strikes").as_u64(), text(eviction, "way")), (Some(STRIKES), "contain"), "{eviction}");
    assert_eq!(arrives(&stubborn, &witness, CONTESTED)?, [false; 4]);
    assert!(stubborn.addresses()?.contains(&"10.8.64.2/24".to_owned()), "it has it and nobody hears of it");
    assert_eq!(
        (bridge.owners(CONTESTED)?, holder.addresses()?),
        ([holder.mac()?].into(), vec!["10.8.64.2/24".to_owned()])
    );
    let held = wait_told(agent, "the alert", |event| text(event, "reason").contains("moved away too often"))?;
    assert_eq!(text(&held, "severity"), "warning");
    assert_eq!(agent.metric("dupip_evictions_total{result=\"healed\"}")?, Some(3.0));
    Ok(())
}

/// Scenario 22, with an open incident: the winner restarts at another port, and it is the loser who is still contained.
#[test]
fn a_winner_that_comes_back_at_another_port_still_is_the_winner() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.start(&[])?;
    lab.wait_contained(&mut agent)?;
    let Lab { bridge, holder, loser, witness, .. } = lab;
    let runner: &Runner = bridge.runner();
    let plan = bridge.sandbox("holder").without_ipv6().address("10.8.64.2/29");
    holder.remove()?;
    let holder = plan.start()?;
    wait_incident(&mut agent, "the new port to be the winner", |incident| {
        text(incident, "status") == "open" && role(incident, holder.port()).is_ok_and(|role| role == "winner")
    })?;
    agent.wait_until(DEADLINE, "the loser to be heard no more", |_| {
        Ok((arrives(&loser, &witness, CONTESTED)? == [false; 4]).then_some(()))
    })?;
    assert_eq!(bridge.owners(CONTESTED)?, [holder.mac()?].into());
    assert_eq!(runner.command("ping").args(["-n", "-q", "-c", "1", "10.8.64.2"]).output()?.status.code(), Some(0));
    Ok(())
}

//! The incident with dupip in it: seen, named, and healed where that was asked for.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use lab::{Bridge, Dupip, Mode, Runner, Sandbox};
use serde_json::{Value, json};

use super::{DEADLINE, closed, duplicate_rows, field, runner, text};

const CONTESTED: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);

/// The incident's sandboxes; reviewagent holds the lease, sportsagent is the orphan.
struct Incident {
    bridge: Bridge,
    dupip: Dupip,
    sports: Sandbox,
    review: Sandbox,
    cal: Sandbox,
}

impl Incident {
    fn new() -> Result<Self> {
        let (bridge, dupip) = runner()?;
        let [sports, review] = bridge.duplicate(["sportsagent", "reviewagent"], "10.8.64.2/24")?;
        let cal = bridge.sandbox("calagent").address("10.8.64.3/24").start()?;
        for owner in ["reviewagent", "calagent"] {
            dupip.allocate(owner)?;
        }
        Ok(Self { bridge, dupip, sports, review, cal })
    }

    /// Whoever answers for each of the three, and that all of them reach the gateway.
    fn assert_one_owner_each(&self) -> Result<()> {
        for (sandbox, address) in
            [(&self.sports, [10, 8, 64, 4]), (&self.review, [10, 8, 64, 2]), (&self.cal, [10, 8, 64, 3])]
        {
            assert_eq!(self.bridge.owners(address.into())?, [sandbox.mac()?].into(), "{}", sandbox.name());
            assert_eq!(sandbox.ping(self.bridge.gateway(), 5)?.lost(), 0, "{}", sandbox.name());
        }
        Ok(())
    }
}

/// Scenarios 8 and 9.
#[test]
fn a_duplicate_that_was_there_before_is_named_and_healed() -> Result<()> {
    let lab = Incident::new()?;
    let (winner, mac) = (lab.review.routes()?, lab.review.mac()?);
    let mut agent = lab.dupip.start(Mode::Enforce)?;
    let incident = closed(&mut agent, "healed")?;

    let parties = incident.get("parties").and_then(Value::as_array).context("no parties")?;
    let names: Vec<_> =
        parties.iter().map(|party| (text(party, "sandbox"), text(party, "port"), text(party, "role"))).collect();
    assert!(names.contains(&("sportsagent", lab.sports.port(), "loser")), "{names:?}");
    assert!(names.contains(&("reviewagent", lab.review.port(), "winner")), "{names:?}");
    assert!(text(&incident, "reason").contains("holds lease generation"), "{incident}");
    assert!(field(&incident, "heal_ms").as_f64().is_some_and(|ms| ms > 0.0), "{incident}");

    assert_eq!(lab.sports.addresses()?, ["10.8.64.4/24"]);
    assert!(lab.sports.routes()?.iter().any(|route| route.starts_with("default via 10.8.64.1 dev eth0")));
    assert_eq!(
        (lab.review.addresses()?, lab.review.routes()?, lab.review.mac()?),
        (vec!["10.8.64.2/24".to_owned()], winner, mac)
    );
    lab.assert_one_owner_each()?;

    assert_eq!(agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?, Some(1.0));
    assert_eq!(agent.metric("duplicate_ip_active{bridge=\"rt0\"}")?, Some(0.0));
    assert_eq!(agent.metric("dupip_evictions_total{result=\"healed\"}")?, Some(1.0));
    assert_eq!(duplicate_rows(&agent, CONTESTED)?, 0);
    Ok(())
}

#[test]
fn observing_changes_nothing() -> Result<()> {
    let lab = Incident::new()?;
    let mut agent = lab.dupip.start(Mode::Observe)?;
    let held = agent.wait_until(DEADLINE, "the incident to be judged", |agent| {
        Ok(agent.conflicts()?.into_iter().find(|incident| !field(incident, "held").is_null()))
    })?;
    assert_eq!((text(&held, "status"), field(&held, "healed")), ("open", &json!(false)));
    assert_eq!(duplicate_rows(&agent, CONTESTED)?, 2, "one row for each station");
    for sandbox in [&lab.sports, &lab.review] {
        assert_eq!(sandbox.addresses()?, ["10.8.64.2/24"], "{}", sandbox.name());
    }
    assert_eq!(lab.bridge.owners(CONTESTED)?.len(), 2);
    let leases = agent.leases()?;
    assert_eq!(leases.len(), 2, "nobody was adopted: {leases:?}");
    Ok(())
}

/// Scenario 4.
#[test]
fn a_duplicate_configured_in_silence_is_healed_before_it_is_heard() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let holder = bridge.sandbox("holder").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let late = bridge.sandbox("late").address("10.8.64.2/24").start()?;
    let incident = closed(&mut agent, "healed")?;
    assert_eq!(text(&incident, "first_evidence"), "configured");
    assert_eq!(
        (holder.addresses()?, late.addresses()?),
        (vec!["10.8.64.2/24".to_owned()], vec!["10.8.64.3/24".to_owned()])
    );
    assert_eq!(late.ping(bridge.gateway(), 3)?.lost(), 0);
    Ok(())
}

#[test]
fn the_winners_pings_go_on_while_the_loser_is_moved() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let winner = bridge.sandbox("winner").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let pings = winner.keep_pinging(bridge.gateway())?;
    let _late = bridge.sandbox("late").address("10.8.64.2/24").announced().start()?;
    closed(&mut agent, "healed")?;
    let after = winner.ping(bridge.gateway(), 10)?;
    let during = pings.stop()?;
    assert_eq!(after.lost(), 0);
    assert!(during.lost() <= 2, "the caches that the loser spoilt are healed with it: {during}");
    Ok(())
}

/// Scenario 11.
#[test]
fn the_gateway_is_the_hosts() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let thief = bridge.sandbox("thief").address("10.8.64.1/24").start()?;
    let incident = closed(&mut agent, "healed")?;
    assert!(text(&incident, "reason").contains("host"), "{incident}");
    assert_eq!(thief.addresses()?, ["10.8.64.2/24"]);
    Ok(())
}

/// Scenario 15.
#[test]
fn without_a_lease_nobody_is_moved() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let first = bridge.sandbox("first").address("10.8.64.2/24").start()?;
    agent.wait_until(DEADLINE, "the first to be seen", |agent| {
        Ok(agent.table()?.into_iter().find(|row| text(row, "sandbox") == "first"))
    })?;
    let second = bridge.sandbox("second").address("10.8.64.2/24").start()?;
    let incident = agent.wait_until(DEADLINE, "the incident to be judged", |agent| {
        Ok(agent.conflicts()?.into_iter().find(|incident| !field(incident, "held").is_null()))
    })?;
    assert_eq!((field(&incident, "settled"), text(&incident, "status")), (&json!(false), "open"));
    let winner = incident
        .get("parties")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|party| text(party, "role") == "winner");
    assert_eq!(winner.map(|party| text(party, "sandbox")), Some("first"));
    for sandbox in [&first, &second] {
        assert_eq!(sandbox.addresses()?, ["10.8.64.2/24"], "{}", sandbox.name());
    }

    // Until an operator says whose it is.
    agent.dupip().ask(&["lease", "adopt", "--bridge", "rt0", "--address", "10.8.64.2", "--owner", "second"])?;
    closed(&mut agent, "healed")?;
    assert_eq!(
        (first.addresses()?, second.addresses()?),
        (vec!["10.8.64.3/24".to_owned()], vec!["10.8.64.2/24".to_owned()])
    );
    Ok(())
}

#[test]
fn whatever_hung_on_the_address_is_there_afterwards() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _holder = bridge.sandbox("holder").address("10.8.64.2/24").start()?;
    dupip.allocate("holder")?;
    let late = bridge.sandbox("late").address("10.8.64.77/24").address("10.8.64.2/24").start()?;
    late.run(["ip", "address", "add", "172.31.0.9/16", "dev", "eth0"])?;
    late.run(["ip", "route", "add", "192.0.2.0/24", "via", "10.8.64.9", "src", "10.8.64.2", "metric", "50"])?;
    let mut agent = dupip.start(Mode::Enforce)?;
    closed(&mut agent, "healed")?;
    let addresses = late.addresses()?;
    assert!(!addresses.contains(&"10.8.64.2/24".to_owned()), "{addresses:?}");
    for kept in ["10.8.64.77/24", "172.31.0.9/16"] {
        assert!(addresses.contains(&kept.to_owned()), "{addresses:?}");
    }
    let routes = late.routes()?;
    assert!(routes.iter().any(|route| route.starts_with("default via 10.8.64.1")), "{routes:?}");
    assert!(
        routes.iter().any(|route| route.starts_with("192.0.2.0/24 via 10.8.64.9") && route.contains("metric 50")),
        "{routes:?}"
    );
    Ok(())
}

#[test]
fn a_loser_stays_in_its_network() -> Result<()> {
    let (bridge, dupip) = runner()?;
    bridge.runner().run(["ip", "address", "add", "10.9.0.1/24", "dev", "rt0"])?;
    let _holder = bridge.sandbox("holder").address("10.9.0.5/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let late = bridge.sandbox("late").address("10.9.0.5/24").start()?;
    closed(&mut agent, "healed")?;
    assert_eq!(late.addresses()?, ["10.9.0.2/24"]);
    Ok(())
}

#[test]
fn a_duplicate_that_ends_while_the_loser_waits_moves_nobody() -> Result<()> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/30")?;
    let dupip = Dupip::on(&bridge)?;
    let holder = bridge.sandbox("holder").address("10.8.64.2/30").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let late = bridge.sandbox("late").address("10.8.64.2/30").start()?;
    agent.wait_until(DEADLINE, "the eviction to fail", |agent| {
        let failed = agent
            .conflicts()?
            .iter()
            .any(|incident| incident.pointer("/evictions/0/failure").is_some_and(Value::is_string));
        Ok(failed.then_some(()))
    })?;
    holder.remove()?;
    closed(&mut agent, "gone")?;
    assert_eq!(late.addresses()?, ["10.8.64.2/30"]);
    Ok(())
}

#[test]
fn a_loser_without_room_stays_and_the_reason_is_told() -> Result<()> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/30")?;
    let dupip = Dupip::on(&bridge)?;
    let _holder = bridge.sandbox("holder").address("10.8.64.2/30").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let late = bridge.sandbox("late").address("10.8.64.2/30").start()?;
    let failure = agent.wait_until(DEADLINE, "the eviction to fail", |agent| {
        let incidents = agent.conflicts()?;
        let evictions = incidents.iter().filter_map(|incident| incident.pointer("/evictions/0/failure"));
        Ok(evictions.filter_map(Value::as_str).map(str::to_owned).next())
    })?;
    assert!(failure.contains("no address left"), "{failure}");
    assert_eq!(late.addresses()?, ["10.8.64.2/30"]);
    assert!(agent.metric("dupip_evictions_total{result=\"failed\"}")?.is_some_and(|count| count >= 1.0));
    Ok(())
}

//! Who keeps the address, where it is not plain.

use anyhow::{Context as _, Result};
use lab::{Arp, Mode};
use serde_json::json;

use super::{
    CONTESTED, closed, count, field, judged, party, role, runner, text, told, wait_incident, wait_row, wait_told,
};

/// Scenario 9, while the agent watches.
#[test]
fn an_orphan_loses_to_whoever_holds_the_lease_now() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let agent = &mut dupip.start(Mode::Enforce)?;
    let lease = agent.dupip().ask(&["lease", "allocate", "--bridge", "rt0", "--owner", "orphan"])?;
    let orphan = bridge.sandbox("orphan").address("10.8.64.2/24").start()?;
    wait_row(agent, CONTESTED, orphan.port())?;
    // Somebody frees what is in use, and has it written to another: what a watchdog did, once.
    let generation = field(&lease, "generation").to_string();
    let named = ["--bridge", "rt0", "--address", "10.8.64.2", "--owner"];
    let adopt = || dupip.ask(&[&["lease", "adopt"][..], &named, &["holder"]].concat());
    let release = |how: &[&str]| dupip.ask(&[&["lease", "release"][..], &named, &["orphan"], how].concat());
    release(&["--generation", &generation])?;
    assert!(adopt().is_err(), "what drains is nobody else's");
    release(&["--generation", &generation, "--unsafe"])?;
    let holder = bridge.sandbox("holder").address("10.8.64.2/24").start()?;
    judged(agent)?;
    adopt()?;
    let incident = closed(agent, "healed")?;
    assert_eq!(
        (role(&incident, orphan.port())?.as_str(), role(&incident, holder.port())?.as_str()),
        ("loser", "winner")
    );
    assert_eq!(holder.addresses()?, ["10.8.64.2/24"]);
    assert_eq!(bridge.owners(CONTESTED)?, [holder.mac()?].into());
    assert_ne!(orphan.addresses()?, ["10.8.64.2/24"]);
    Ok(())
}

/// Scenario 10.
#[test]
fn of_two_namespaces_of_one_owner_the_older_loses() -> Result<()> {
    for is_there_before in [true, false] {
        let (bridge, dupip) = runner()?;
        let id = "7c1e5a90d3b2".repeat(6)[..64].to_owned();
        let task = |name| {
            let cgroup = format!("kubepods/pod7/cri-containerd-{id}.scope");
            bridge.sandbox(name).cgroup(&cgroup).address("10.8.64.2/24").start()
        };
        dupip.allocate(&id[..12])?;
        let older = task("older")?;
        let watched_before = (!is_there_before).then(|| dupip.start(Mode::Enforce)).transpose()?;
        let newer = task("newer")?;
        let agent = &mut watched_before.map_or_else(|| dupip.start(Mode::Enforce), Ok)?;
        let incident = judged(agent)?;
        assert_eq!(
            (role(&incident, older.port())?.as_str(), role(&incident, newer.port())?.as_str()),
            ("loser", "winner"),
            "{incident}"
        );
        assert!(text(&incident, "reason").contains("it is the newer"), "{incident}");
        assert_eq!(text(&party(&incident, newer.port())?, "sandbox"), &id[..12]);
        assert_eq!(newer.addresses()?, ["10.8.64.2/24"]);
    }
    Ok(())
}

/// Scenario 13: nobody knows more of the outside than what it says.
#[test]
fn whoever_is_beyond_an_uplink_is_named_and_ours_is_moved() -> Result<()> {
    let (bridge, dupip) = runner()?;
    dupip.allocate("ours")?;
    let ours = bridge.sandbox("ours").address("10.8.64.2/24").start()?;
    let foreign = bridge.tap("up0")?;
    let agent = &mut dupip.start_with(Mode::Enforce, &["--external", "up0"])?;
    foreign.answer([CONTESTED], foreign.mac());
    foreign.send_frame(&Arp::announcement(foreign.mac(), CONTESTED).frame())?;
    let incident = closed(agent, "healed")?;
    assert_eq!((text(&incident, "verdict"), text(&incident, "first_evidence")), ("duplicate", "gratuitous_request"));
    let outside = party(&incident, "up0")?;
    assert_eq!((field(&outside, "external"), text(&outside, "role")), (&json!(true), "winner"));
    assert_eq!(text(&outside, "mac"), foreign.mac().to_string());
    assert_eq!(role(&incident, ours.port())?, "loser");
    assert_eq!(ours.addresses()?, ["10.8.64.3/24"]);
    assert_eq!(bridge.owners(CONTESTED)?, [foreign.mac()].into());
    let told = wait_told(agent, "the duplicate", |event| text(event, "kind") == "duplicate")?;
    assert_eq!(text(&told, "port"), "up0");
    let leases = agent.leases()?;
    let left = leases.iter().find(|lease| text(lease, "address") == "10.8.64.2").context("no row")?;
    assert!(!["free", "bound"].contains(&text(left, "state")), "not given to the next: {left}");
    Ok(())
}

/// Scenario 13, with a host that the machine can look into: it is outside all the same.
#[test]
fn a_host_beyond_an_uplink_is_never_moved() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let foreign = bridge.uplink("up0", "10.8.64.2/24")?;
    let agent = &mut dupip.start_with(Mode::Enforce, &["--external", "up*"])?;
    let ours = bridge.sandbox("ours").address("10.8.64.2/24").start()?;
    let incident = closed(agent, "healed")?;
    assert_eq!((role(&incident, "up0")?.as_str(), role(&incident, ours.port())?.as_str()), ("winner", "loser"));
    assert!(text(&incident, "reason").contains("outside"), "{incident}");
    assert_eq!(foreign.addresses()?, ["10.8.64.2/24"]);
    assert_ne!(ours.addresses()?, ["10.8.64.2/24"]);
    Ok(())
}

/// Scenario 15, among those that nobody can look into; sandboxes are in `agent::healing`.
#[test]
fn without_a_lease_the_incumbent_is_named_and_nobody_is_moved() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let incumbent = bridge.tap("vm1")?;
    incumbent.answer([CONTESTED], incumbent.mac());
    let agent = &mut dupip.start(Mode::Enforce)?;
    incumbent.send_frame(&Arp::announcement(incumbent.mac(), CONTESTED).frame())?;
    wait_row(agent, CONTESTED, "vm1")?;
    let newcomer = bridge.sandbox("newcomer").address("10.8.64.2/24").start()?;
    let incident = wait_incident(agent, "the contest", |incident| !field(incident, "reason").is_null())?;
    assert_eq!((role(&incident, "vm1")?.as_str(), role(&incident, newcomer.port())?.as_str()), ("winner", "loser"));
    assert_eq!(field(&incident, "settled"), &json!(false));
    let held = wait_told(agent, "the reason", |event| text(event, "kind") == "held")?;
    assert!(text(&held, "reason").contains("no party holds a lease"), "{held}");
    assert_eq!(count(&told(agent)?, "eviction_step"), 0);
    assert_eq!(newcomer.addresses()?, ["10.8.64.2/24"]);
    Ok(())
}

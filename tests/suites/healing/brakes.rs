//! Fifty duplicates at once on one bridge: with the brake, and without.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lab::{Agent, Bridge, Dupip, Mode, Sandbox};
use serde_json::Value;

use super::{count, field, role, runner, text, told};

const MANY: u8 = 50;
/// How many evictions may begin within a minute, unless told otherwise.
const BRAKE: usize = 5;
/// A hundred sandboxes on a machine that does much else; it takes seconds on one that does not.
const LONG: Duration = Duration::from_secs(55);

/// Fifty who hold the lease for the address that they have, and fifty who have the same addresses and no lease.
struct Lab {
    bridge: Bridge,
    dupip: Dupip,
    winners: Vec<Sandbox>,
    losers: Vec<Sandbox>,
}

impl Lab {
    fn new() -> Result<Self> {
        let (bridge, dupip) = runner()?;
        let plans = |kind: &str| {
            let plan = |n: u8| bridge.sandbox(&format!("{kind}{n}")).without_ipv6().address(&format!("10.8.64.{n}/24"));
            (2..MANY + 2).map(plan).collect::<Vec<_>>()
        };
        let (winners, losers) = (bridge.start_all(plans("winner"))?, bridge.start_all(plans("loser"))?);
        for (winner, n) in winners.iter().zip(2..) {
            assert_eq!(text(&dupip.allocate(winner.name())?, "address"), format!("10.8.64.{n}"));
        }
        Ok(Self { bridge, dupip, winners, losers })
    }

    /// That every holder has what it had, and every incident names it as the one who keeps it.
    fn assert_winners_untouched(&self, agent: &Agent) -> Result<()> {
        let incidents = agent.conflicts()?;
        assert_eq!(incidents.len(), usize::from(MANY));
        for ((winner, loser), n) in self.winners.iter().zip(&self.losers).zip(2..) {
            let address = format!("10.8.64.{n}");
            let incident = incidents.iter().find(|incident| text(incident, "address") == address);
            let incident = incident.with_context(|| format!("no incident about {address}"))?;
            assert_eq!(
                [role(incident, winner.port())?, role(incident, loser.port())?],
                ["winner", "loser"],
                "{incident}"
            );
            assert_eq!(winner.addresses()?, [format!("{address}/24")], "{}", winner.name());
        }
        Ok(())
    }

    /// The losers that are elsewhere now, with the one address that each has.
    fn moved(&self) -> Result<BTreeMap<String, String>> {
        let mut moved = BTreeMap::new();
        for (loser, n) in self.losers.iter().zip(2..) {
            let [address] = &loser.addresses()?[..] else { anyhow::bail!("{} has not one address", loser.name()) };
            if *address != format!("10.8.64.{n}/24") {
                moved.insert(loser.name().to_owned(), address.clone());
            }
        }
        Ok(moved)
    }
}

fn status<'a>(incidents: &'a [Value], word: &'a str) -> impl Iterator<Item = &'a Value> {
    incidents.iter().filter(move |incident| text(incident, "status") == word)
}

/// The leases of losers: owner and address of each that is bound.
fn new_leases(agent: &Agent) -> Result<BTreeMap<String, String>> {
    let leases = agent.leases()?;
    let of_losers = leases.iter().filter(|lease| text(lease, "owner").starts_with("loser"));
    Ok(of_losers
        .map(|lease| {
            assert_eq!((text(lease, "state"), field(lease, "replaces")), ("bound", &Value::Null), "{lease}");
            (text(lease, "owner").to_owned(), format!("{}/24", text(lease, "address")))
        })
        .collect())
}

#[test]
fn with_the_brake_lifted_all_are_healed_and_nobody_else_is_touched() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.dupip.spawn(Mode::Enforce, &["--evictions-per-minute", "1000"])?;
    agent.wait_ready()?;
    agent.wait_until(LONG, "all to be healed", |agent| {
        Ok((status(&agent.conflicts()?, "healed").count() == usize::from(MANY)).then_some(()))
    })?;
    lab.assert_winners_untouched(&agent)?;
    let moved = lab.moved()?;
    assert_eq!(moved.len(), usize::from(MANY), "everybody else is elsewhere");
    assert_eq!(moved.values().collect::<BTreeSet<_>>().len(), usize::from(MANY), "and each at a place of its own");
    assert_eq!(new_leases(&agent)?, moved, "which is leased to it");
    assert_eq!(agent.leases()?.len(), 2 * usize::from(MANY));
    for (result, number) in [("healed", f64::from(MANY)), ("given_up", 0.0)] {
        assert_eq!(agent.metric(&format!("dupip_evictions_total{{result=\"{result}\"}}"))?, Some(number), "{result}");
    }
    assert_eq!(agent.metric("dupip_held_total{reason=\"brake\"}")?, Some(0.0));
    for sandbox in lab.winners.iter().chain(&lab.losers).step_by(10) {
        let address = sandbox.addresses()?.concat();
        let address = address.split('/').next().context("no address")?.parse()?;
        assert_eq!(lab.bridge.owners(address)?, [sandbox.mac()?].into(), "{}", sandbox.name());
    }
    report(&agent)
}

/// What is not asserted, for people.
fn report(agent: &Agent) -> Result<()> {
    let mut times: Vec<f64> =
        agent.conflicts()?.iter().filter_map(|incident| field(incident, "heal_ms").as_f64()).collect();
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get(part * (times.len() - 1) / 100).copied().unwrap_or_default();
    println!("{MANY} at once, to healed: p50 {:.1} ms, p99 {:.1} ms, last {:.1} ms", at(50), at(99), at(100));
    Ok(())
}

#[test]
fn the_brake_lets_five_begin_within_a_minute_and_says_so_of_the_others() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.dupip.spawn(Mode::Enforce, &[])?;
    agent.wait_ready()?;
    let incidents = agent.wait_until(LONG, "all to be healed or held", |agent| {
        let incidents = agent.conflicts()?;
        let waits = |incident: &&Value| text(incident, "held").contains("too many evictions in the last minute");
        let at_rest = status(&incidents, "open").filter(waits).count() + status(&incidents, "healed").count();
        Ok((at_rest == usize::from(MANY)).then_some(incidents))
    })?;
    assert_eq!(status(&incidents, "healed").count(), BRAKE);
    lab.assert_winners_untouched(&agent)?;
    let moved = lab.moved()?;
    assert_eq!((moved.len(), new_leases(&agent)?), (BRAKE, moved));
    assert_eq!(agent.leases()?.len(), usize::from(MANY) + BRAKE);
    assert_eq!(agent.metric("dupip_evictions_total{result=\"healed\"}")?, Some(5.0));
    let braked = agent.metric("dupip_held_total{reason=\"brake\"}")?;
    assert!(braked.is_some_and(|braked| braked >= f64::from(MANY) - 5.0), "{braked:?}");
    assert_eq!(agent.metric("dupip_held{reason=\"brake\"}")?, Some(f64::from(MANY) - 5.0), "they wait still");
    let told = told(&agent)?;
    let held: Vec<_> = told.iter().filter(|event| text(event, "kind") == "held").collect();
    assert!(held.iter().all(|event| text(event, "severity") == "warning"), "{:?}", held.first());
    let about: BTreeSet<_> = held.iter().map(|event| text(event, "address")).collect();
    assert_eq!(about.len(), usize::from(MANY) - BRAKE, "it is said of each");
    assert_eq!(count(&told, "contained"), BRAKE, "nothing was done about the others");
    Ok(())
}

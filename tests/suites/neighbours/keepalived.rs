//! keepalived moves a virtual address between two sandboxes, as it is meant to, and as it is not.

use std::collections::BTreeSet;

use anyhow::Result;
use lab::{Agent, Bridge, Mode, Sandbox, Vrrp};
use serde_json::Value;

use super::{Witness, field, kinds, parties, runner, story, text, wait_for_event};

const SHARED: [&str; 2] = ["--shared", "10.8.64.100"];

/// A cluster of two, watched in enforce.
struct Cluster {
    bridge: Bridge,
    agent: Agent,
    sandboxes: [Sandbox; 2],
    vrrp: Vrrp,
}

impl Cluster {
    fn new(virtual_mac: bool, args: &[&str]) -> Result<Self> {
        let (bridge, dupip) = runner()?;
        let start = |(name, address)| bridge.sandbox(name).address(address).start();
        let [first, second] = [("first", "10.8.64.2/24"), ("second", "10.8.64.3/24")].map(start);
        let agent = dupip.start_with(Mode::Enforce, args)?;
        let vrrp = Vrrp { id: 51, address: [10, 8, 64, 100].into(), virtual_mac };
        Ok(Self { bridge, agent, sandboxes: [first?, second?], vrrp })
    }

    /// The master stops as it should, and the backup takes over.
    fn hand_over(&mut self) -> Result<()> {
        let [first, second] = &self.sandboxes;
        let mut master = self.vrrp.start(first, 200)?;
        master.wait_master()?;
        let mut backup = self.vrrp.start(second, 100)?;
        wait_for_holders(&mut self.agent, &["first"])?;
        master.stop()?;
        backup.wait_master()?;
        wait_for_holders(&mut self.agent, &["second"])?;
        // What is killed with its handle would leave the address in place, which is another story.
        backup.stop()
    }
}

/// Who has the virtual address, according to the table. With a virtual router's hardware address, some packets go out with
/// the sandbox's own: one party, two stations.
fn holders(agent: &Agent) -> Result<BTreeSet<String>> {
    let rows = agent.table()?;
    let held = rows.iter().filter(|row| text(row, "address") == "10.8.64.100");
    Ok(held.map(|row| text(row, "sandbox").to_owned()).collect())
}

fn wait_for_holders(agent: &mut Agent, expected: &[&str]) -> Result<()> {
    agent.wait_until(super::DEADLINE, &format!("{expected:?} to hold the address"), |agent| {
        Ok(holders(agent)?.iter().eq(expected.iter().copied()).then_some(()))
    })
}

fn about_the_address(story: Vec<Value>) -> Vec<Value> {
    story.into_iter().filter(|event| text(event, "address") == "10.8.64.100").collect()
}

/// Handing over is one move and nothing else.
fn a_clean_hand_over_is_one_move(virtual_mac: bool, args: &[&str]) -> Result<()> {
    let mut cluster = Cluster::new(virtual_mac, args)?;
    let mut witness = Witness::on(&cluster.bridge)?;
    cluster.hand_over()?;
    let moved = wait_for_event(&mut cluster.agent, "moved")?;
    assert_eq!((text(&moved, "address"), parties(&moved)), ("10.8.64.100", vec!["first", "second"]));
    witness.mark(&mut cluster.agent)?;
    let story = story(&cluster.agent)?;
    assert_eq!(kinds(&story), ["moved"], "{story:#?}");
    assert_eq!(cluster.agent.conflicts()?, Vec::<Value>::new());
    Ok(())
}

#[test]
fn a_clean_hand_over_of_a_declared_address_is_one_move() -> Result<()> {
    a_clean_hand_over_is_one_move(false, &SHARED)
}

/// Nobody has told the agent of it: the hardware address says what it is.
#[test]
fn a_clean_hand_over_of_a_virtual_routers_address_is_one_move() -> Result<()> {
    a_clean_hand_over_is_one_move(true, &[])
}

/// Who is killed leaves the address where it is, while the other takes it: both hold it for good.
fn two_holders_are_told_of_and_nobody_is_moved(virtual_mac: bool, args: &[&str]) -> Result<()> {
    let mut cluster = Cluster::new(virtual_mac, args)?;
    let [first, second] = &cluster.sandboxes;
    let mut master = cluster.vrrp.start(first, 200)?;
    master.wait_master()?;
    let mut backup = cluster.vrrp.start(second, 100)?;
    wait_for_holders(&mut cluster.agent, &["first"])?;
    master.kill9()?;
    backup.wait_master()?;
    wait_for_holders(&mut cluster.agent, &["first", "second"])?;
    let duplicate = wait_for_event(&mut cluster.agent, "duplicate")?;
    assert_eq!(text(&duplicate, "address"), "10.8.64.100");
    let mut named = parties(&duplicate);
    named.sort_unstable();
    assert_eq!(named, ["first", "second"]);
    let held = wait_for_event(&mut cluster.agent, "held")?;
    assert!(text(&held, "reason").contains("shared"), "{held}");
    let addresses = |sandbox: &Sandbox| sandbox.run(["ip", "-4", "-o", "address"]);
    for sandbox in [first, second] {
        assert!(addresses(sandbox)?.contains("10.8.64.100/24"), "{}", sandbox.name());
    }
    let [incident] = cluster.agent.conflicts()?.try_into().map_err(|many| anyhow::anyhow!("not one: {many:?}"))?;
    assert_eq!((field(&incident, "evictions"), text(&incident, "status")), (&Value::Array(Vec::new()), "open"));
    // The one that was left behind is tidied up after: the other has the address alone.
    let device = if virtual_mac { "vrrp.51" } else { "eth0" };
    first.run(["ip", "address", "delete", "10.8.64.100/24", "dev", device])?;
    wait_for_event(&mut cluster.agent, "gone")?;
    let story = about_the_address(story(&cluster.agent)?);
    let kinds: Vec<_> = kinds(&story);
    assert!(kinds.iter().all(|kind| ["duplicate", "judged", "held", "moved", "gone"].contains(kind)), "{story:#?}");
    backup.stop()
}

#[test]
fn two_holders_of_a_declared_address_are_told_of_and_nobody_is_moved() -> Result<()> {
    two_holders_are_told_of_and_nobody_is_moved(false, &SHARED)
}

#[test]
fn two_holders_of_a_virtual_routers_address_are_told_of_and_nobody_is_moved() -> Result<()> {
    two_holders_are_told_of_and_nobody_is_moved(true, &[])
}

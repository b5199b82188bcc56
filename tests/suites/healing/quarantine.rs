//! What is contained goes nowhere, for as long as it should.

use std::net::Ipv4Addr;

use anyhow::Result;
use lab::{Agent, Bridge, Dupip, Mode, Sandbox, Tap};
use serde_json::Value;

use super::{CONTESTED, DEADLINE, arrived, claims, closed, field, role, steady, text, told, wait_incident, wait_told};

/// Another address of the loser, in a network that has nothing to do with the incident.
const OTHER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 9);

/// A holder and a loser that cannot be moved, since every address of the bridge's network is leased: it stays contained.
pub(super) struct Lab {
    pub(super) bridge: Bridge,
    pub(super) dupip: Dupip,
    pub(super) holder: Sandbox,
    pub(super) loser: Sandbox,
    pub(super) third: Sandbox,
    pub(super) witness: Tap,
}

impl Lab {
    pub(super) fn new() -> Result<Self> {
        let (bridge, dupip) = steady("10.8.64.1/29")?;
        for owner in ["holder", "third", "b", "c", "d"] {
            dupip.allocate(owner)?;
        }
        let plan = |name: &str| bridge.sandbox(name).without_ipv6();
        let holder = plan("holder").address("10.8.64.2/29").start()?;
        let third = plan("third").address("10.8.64.3/29").address("172.31.0.10/16").start()?;
        let loser = plan("loser").address("10.8.64.2/29").address("172.31.0.9/16").start()?;
        let witness = bridge.tap("vm1")?;
        Ok(Self { bridge, dupip, holder, loser, third, witness })
    }

    pub(super) fn start(&self, more: &[&str]) -> Result<Agent> {
        self.dupip.start_with(Mode::Enforce, &[&["--extra-network", "172.31.0.0/16"], more].concat())
    }

    /// Waits until the loser is contained, and that this is how it is left for now.
    pub(super) fn wait_contained(&self, agent: &mut Agent) -> Result<()> {
        wait_told(agent, "the loser to be contained", |event| {
            text(event, "kind") == "contained" && text(event, "port") == self.loser.port()
        })?;
        wait_incident(agent, "that there is no room to be told", |incident| {
            incident
                .pointer("/evictions/0/failure")
                .and_then(Value::as_str)
                .is_some_and(|said| said.contains("no address left"))
        })?;
        Ok(())
    }

    /// What of all that the loser may say in the name of an address comes to others.
    pub(super) fn arrives(&self, address: Ipv4Addr) -> Result<Vec<bool>> {
        arrived(&self.loser, &self.witness, &claims(&self.loser, &self.witness, address)?)
    }
}

#[test]
fn a_loser_is_dumb_at_the_contested_address_and_nowhere_else_until_the_agent_ends() -> Result<()> {
    let lab = Lab::new()?;
    assert_eq!(lab.arrives(CONTESTED)?, [true; 4], "before there is an agent");
    let mut agent = lab.start(&[])?;
    lab.wait_contained(&mut agent)?;
    assert_eq!(lab.arrives(CONTESTED)?, [false; 4]);
    assert_eq!(lab.arrives(OTHER)?, [true; 4]);
    assert_eq!(lab.loser.ping([172, 31, 0, 10].into(), 3)?.lost(), 0, "its other address works both ways");
    assert_eq!(lab.bridge.owners(CONTESTED)?, [lab.holder.mac()?].into());
    assert_eq!(
        arrived(&lab.third, &lab.witness, &claims(&lab.third, &lab.witness, CONTESTED)?)?,
        [true; 4],
        "at its port only"
    );
    assert!(agent.terminate()?.success());
    assert_eq!(lab.arrives(CONTESTED)?, [true; 4], "it ends with the agent");
    let agent = lab.start(&[])?;
    agent.kill9()?;
    lab::wait_until(DEADLINE, "it to end with a killed agent too", || {
        Ok((lab.arrives(CONTESTED)? == [true; 4]).then_some(()))
    })
}

/// What it said at its own port is heard by the agent all the same.
#[test]
fn a_contained_loser_is_still_heard_by_the_agent() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.start(&[])?;
    lab.wait_contained(&mut agent)?;
    let count = |agent: &Agent| -> Result<f64> {
        let incidents = agent.conflicts()?;
        Ok(incidents.first().and_then(|incident| field(incident, "claims").as_f64()).unwrap_or_default())
    };
    let before = count(&agent)?;
    assert_eq!(lab.arrives(CONTESTED)?, [false; 4]);
    agent.wait_until(DEADLINE, "its claims to be counted", |agent| Ok((count(agent)? > before).then_some(())))
}

#[test]
fn it_is_lifted_when_the_incident_is_healed() -> Result<()> {
    let (bridge, dupip) = steady("10.8.64.1/24")?;
    dupip.allocate("holder")?;
    let holder = bridge.sandbox("holder").without_ipv6().address("10.8.64.2/24").start()?;
    let loser = bridge.sandbox("loser").without_ipv6().address("10.8.64.2/24").start()?;
    let witness = bridge.tap("vm1")?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let incident = closed(&mut agent, "healed")?;
    assert_eq!([role(&incident, holder.port())?, role(&incident, loser.port())?], ["winner", "loser"]);
    let kinds: Vec<_> = told(&agent)?.iter().map(|event| text(event, "kind").to_owned()).collect();
    let at = |kind: &str| kinds.iter().position(|told| told == kind);
    assert!(at("contained").is_some() && at("contained") < at("lifted") && at("lifted") < at("healed"), "{kinds:?}");
    // The new address, and the old one: nothing is dropped at its port any more.
    for address in [Ipv4Addr::new(10, 8, 64, 3), CONTESTED] {
        assert_eq!(arrived(&loser, &witness, &claims(&loser, &witness, address)?)?, [true; 4], "{address}");
    }
    Ok(())
}

#[test]
fn a_kept_quarantine_outlives_a_killed_agent_and_the_next_one_takes_it_over() -> Result<()> {
    let lab = Lab::new()?;
    lab.bridge.runner().run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"])?;
    let mut agent = lab.start(&["--keep-quarantine"])?;
    lab.wait_contained(&mut agent)?;
    assert_eq!(lab.arrives(CONTESTED)?, [false; 4]);
    agent.kill9()?;
    assert_eq!(lab.arrives(CONTESTED)?, [false; 4], "though nobody is there");
    assert_eq!(lab.arrives(OTHER)?, [true; 4]);
    let mut agent = lab.start(&["--keep-quarantine"])?;
    assert_eq!(lab.arrives(CONTESTED)?, [false; 4], "while the next one finds its way");
    lab.wait_contained(&mut agent)?;
    assert_eq!(lab.arrives(CONTESTED)?, [false; 4]);
    assert_eq!(agent.conflicts()?.len(), 1, "it is the same incident");
    // One that keeps nothing clears what is kept.
    assert!(agent.terminate()?.success());
    assert_eq!(lab.arrives(CONTESTED)?, [false; 4], "it was stopped, not told to let go");
    let agent = lab.start(&[])?;
    assert!(agent.terminate()?.success());
    assert_eq!(lab.arrives(CONTESTED)?, [true; 4]);
    let left = lab.bridge.runner().run(["ls", "/sys/fs/bpf"])?;
    assert_eq!(left.trim(), "", "and nothing of it is left");
    Ok(())
}

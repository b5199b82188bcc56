//! `kill -9` of the agent before and after every step of a healing, and the next agent, which ends it the same way.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{Agent, Bridge, Dupip, MacAddr, Mode, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{CONTESTED, DEADLINE, field, runner, text};

/// The steps in their order. Before the first is after the one before it, which is the decision.
const STEPS: [&str; 9] = [
    "contain",
    "reallocate",
    "readdress",
    "announce_new",
    "announce_kept",
    "destroy_sockets",
    "verify",
    "bind",
    "release",
];
/// How often it is tried to kill an agent between a step and the next.
const TRIES: usize = 20;

/// Two sandboxes with one address, of which `winner` holds the lease.
struct Pair {
    bridge: Bridge,
    dupip: Dupip,
    winner: Sandbox,
    loser: Sandbox,
}

impl Pair {
    fn new() -> Result<Self> {
        let (bridge, dupip) = runner()?;
        let [loser, winner] = bridge.duplicate(["loser", "winner"], "10.8.64.2/24")?;
        dupip.allocate("winner")?;
        Ok(Self { bridge, dupip, winner, loser })
    }

    fn winners(&self) -> Result<(Vec<String>, Vec<String>, MacAddr)> {
        Ok((self.winner.addresses()?, self.winner.routes()?, self.winner.mac()?))
    }

    /// Runs an agent until its log has `line`, kills it at once, and tells which step it had told of last.
    fn killed_at(&self, line: &str) -> Result<Option<&'static str>> {
        let agent = self.dupip.spawn(Mode::Enforce, &[])?;
        let since = Instant::now();
        while !agent.log()?.contains(line) {
            ensure!(since.elapsed() < DEADLINE, "no line with `{line}`:\n{}", agent.log()?);
        }
        kill_process(Pid::from_raw(agent.pid().try_into()?).context("0 is no process")?, Signal::KILL)?;
        let log = agent.log()?;
        agent.kill9()?;
        let told = |step: &&&str| log.contains(&step_line(step));
        Ok(STEPS.iter().rfind(told).copied())
    }

    fn assert_healed(&self, agent: &Agent, winners: &(Vec<String>, Vec<String>, MacAddr)) -> Result<()> {
        assert_eq!(&self.winners()?, winners, "the winner is not touched");
        assert_eq!(self.loser.addresses()?, ["10.8.64.3/24"], "the loser has one new address");
        for (sandbox, address) in [(&self.winner, CONTESTED), (&self.loser, [10, 8, 64, 3].into())] {
            assert_eq!(self.bridge.owners(address)?, [sandbox.mac()?].into(), "{}", sandbox.name());
            assert_eq!(sandbox.ping(self.bridge.gateway(), 2)?.lost(), 0, "{}", sandbox.name());
        }
        let leases = agent.leases()?;
        let of_loser = leases.iter().filter(|lease| text(lease, "owner") == "loser");
        let states: Vec<&str> = of_loser.map(|lease| text(lease, "state")).collect();
        assert_eq!((leases.len(), states), (2, vec!["bound"]), "{leases:?}");
        let history = agent.dupip().ask(&["lease", "history", "10.8.64.3"])?;
        let entries = history.as_array().cloned().unwrap_or_default();
        let generations: BTreeSet<_> = entries.iter().map(|entry| field(entry, "generation").as_u64()).collect();
        assert_eq!(generations.len(), 1, "one new lease: {entries:?}");
        assert_eq!(agent.metric("duplicate_ip_active{bridge=\"rt0\"}")?, Some(0.0));
        assert_eq!(agent.dupip().ask(&["quarantine", "list"])?, json!([]));
        self.assert_one_story(agent)
    }

    /// There is one incident, and its story is told as if one agent had lived through it.
    fn assert_one_story(&self, agent: &Agent) -> Result<()> {
        let incidents = agent.conflicts()?;
        let ids: Vec<_> = incidents.iter().map(|incident| field(incident, "id").as_u64()).collect();
        assert_eq!(ids, [Some(1)], "{incidents:?}");
        let story = agent.dupip().say(&["explain", "1"])?;
        for words in ["winner", "loser", "10.8.64.2", "10.8.64.3", "holds lease generation"] {
            assert!(story.contains(words), "{words}:\n{story}");
        }
        let explained = agent.dupip().ask(&["explain", "1"])?;
        let taken = explained.pointer("/incident/evictions/0/steps").and_then(Value::as_array).cloned();
        let taken: BTreeSet<String> =
            taken.unwrap_or_default().iter().map(|step| text(step, "step").to_owned()).collect();
        assert_eq!(taken, STEPS.map(str::to_owned).into(), "{explained}");
        Ok(())
    }
}

fn step_line(step: &str) -> String {
    format!("step=\"{step}\"")
}

fn healed(agent: &mut Agent) -> Result<()> {
    agent.wait_until(DEADLINE, "the incident to be healed", |agent| {
        let is_healed = |incident: &Value| text(incident, "status") == "healed";
        Ok(agent.conflicts()?.iter().any(is_healed).then_some(()))
    })
}

/// Scenario 37. Whatever an agent did not live to say, the next one does; a kill that comes a step late is tried again.
fn kill_after(step: Option<&'static str>) -> Result<()> {
    let line = step.map_or_else(|| "both use 10.8.64.2".to_owned(), step_line);
    for _ in 0..TRIES {
        let pair = Pair::new()?;
        let winners = pair.winners()?;
        let at = pair.killed_at(&line)?;
        let mut agent = pair.dupip.start(Mode::Enforce)?;
        healed(&mut agent)?;
        pair.assert_healed(&agent, &winners).with_context(|| format!("killed after {at:?}"))?;
        if at == step {
            return Ok(());
        }
    }
    anyhow::bail!("no agent could be killed right after {step:?}")
}

macro_rules! kill_after {
    ($($name:ident: $step:expr),+ $(,)?) => { $(
        #[test]
        fn $name() -> Result<()> {
            kill_after($step)
        }
    )+ };
}

kill_after! {
    killed_before_containing: None,
    killed_between_containing_and_reallocating: Some("contain"),
    killed_between_reallocating_and_readdressing: Some("reallocate"),
    killed_between_readdressing_and_announcing: Some("readdress"),
    killed_between_the_announcements: Some("announce_new"),
    killed_between_announcing_and_destroying_sockets: Some("announce_kept"),
    killed_between_destroying_sockets_and_verifying: Some("destroy_sockets"),
    killed_between_verifying_and_binding: Some("verify"),
    killed_between_binding_and_releasing: Some("bind"),
    killed_after_releasing: Some("release"),
}

#[test]
fn whoever_is_only_contained_is_so_after_a_kill_too() -> Result<()> {
    let pair = Pair::new()?;
    let winners = pair.winners()?;
    let is_contained = |agent: &Agent| {
        let listed = agent.dupip().ask(&["quarantine", "list"]);
        listed.map(|listed| listed.as_array().map(Vec::len) == Some(1))
    };
    for _ in 0..2 {
        let mut agent = pair.dupip.start_with(Mode::Enforce, &["--resolve", "contain"])?;
        agent.wait_until(DEADLINE, "the loser to be contained", |agent| {
            let held = agent.conflicts()?.iter().any(|incident| !field(incident, "held").is_null());
            Ok((held && is_contained(agent)?).then_some(()))
        })?;
        let incidents = agent.conflicts()?;
        assert_eq!((incidents.len(), field(&incidents[0], "id")), (1, &json!(1)), "{incidents:?}");
        assert_eq!((text(&incidents[0], "status"), pair.loser.addresses()?), ("open", vec!["10.8.64.2/24".to_owned()]));
        assert_eq!(pair.winners()?, winners);
        agent.kill9()?;
    }
    // Whoever may do more does it.
    let mut agent = pair.dupip.start(Mode::Enforce)?;
    healed(&mut agent)?;
    pair.assert_healed(&agent, &winners)
}

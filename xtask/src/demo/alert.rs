//! The incident as an operator learns of it: a real Prometheus with the project's rules, in a lab that a browser can reach.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{Agent, AlertState, Bridge, Dupip, Kept, Mode, Pace, Prometheus, Runner, Sandbox};
use serde_json::{Value, json};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{forward::Forward, voice::Voice};
use crate::shell;

/// The alert that is waited for.
const ALERT: &str = "DuplicateAddressNotHealed";
/// A look every second instead of every quarter of a minute, and `for: 30s` in five seconds.
const PACE: Pace = Pace { every: Duration::from_secs(1), sooner: 6 };
/// How long anything is waited for. It takes some seconds.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often something is said while nothing happens.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// The lab with Prometheus in it, and the ways there. What is first is dropped first.
struct Watched {
    to_agent: Forward,
    to_prometheus: Forward,
    prometheus: Prometheus,
    sandboxes: Vec<Sandbox>,
    dupip: Dupip,
    bridge: Bridge,
    runner: Runner,
    voice: Voice,
    /// What the alert was, one after the other.
    states: Vec<AlertState>,
}

/// Plays it, and says as JSON what was seen. `keep` leaves all of it running until somebody interrupts.
pub(super) fn run(dupip: &Path, keep: bool, voice: Voice) -> Result<Value> {
    let mut watched = Watched::start(dupip, voice)?;
    let mut observer = watched.healthy()?;
    let summary = watched.fires(&mut observer)?;
    if keep && voice.speaks && io::stdin().is_terminal() {
        voice.line("\n    Look at it in the browser. Press Enter, and dupip heals it.");
        io::stdin().read_line(&mut String::new())?;
    }
    let (healer, incident) = watched.heals(observer)?;
    let facts = watched.facts(&summary, &incident);
    if keep {
        watched.go_on()?;
    }
    ended(healer)?;
    drop(watched);
    voice.line("\nEverything is removed.");
    Ok(facts)
}

/// Whether the alert went all the way.
pub(super) fn is_as_promised(facts: &Value) -> bool {
    let states = ["inactive", "pending", "firing", "inactive"];
    facts.get("states") == Some(&json!(states)) && facts.pointer("/incident/healed") == Some(&json!(true))
}

impl Watched {
    fn start(dupip: &Path, voice: Voice) -> Result<Self> {
        voice
            .act('a', "A private runner with two sandboxes, an agent that observes, and Prometheus. Nothing is wrong.");
        let runner = Runner::new()?;
        let bridge = runner.bridge("rt0", "10.8.64.1/24")?;
        let sandboxes = bridge.start_all([
            bridge.sandbox("reviewagent").address("10.8.64.2/24"),
            bridge.sandbox("calagent").address("10.8.64.3/24"),
        ])?;
        let dupip = Dupip::at(&bridge, dupip)?;
        sandboxes.iter().try_for_each(|sandbox| dupip.allocate(sandbox.name()).map(drop))?;
        voice.line("    Prometheus starts, with dashboards/prometheus/ as it is, only faster: it looks every second,");
        voice.line("    and `for: 30s` is five seconds.");
        let prometheus = Prometheus::start(&runner, &shell::workspace().join("dashboards/prometheus"), PACE)?;
        let to_agent = Forward::to(&runner, dupip.listen())?;
        let to_prometheus = Forward::to(&runner, prometheus.listen())?;
        Ok(Self { to_agent, to_prometheus, prometheus, sandboxes, dupip, bridge, runner, voice, states: Vec::new() })
    }

    /// Starts an agent, and waits until Prometheus has seen that all is well: only from then on it can see what is new.
    fn healthy(&mut self) -> Result<Agent> {
        let agent = self.dupip.start(Mode::Observe)?;
        self.say_addresses()?;
        let seen = |at: &mut Prometheus| Ok((!at.query("dupip_ready == 1")?.is_empty()).then_some(()));
        self.prometheus.wait(PATIENCE, "Prometheus to see an agent that is ready", seen)?;
        self.wait_for(AlertState::Inactive)?;
        Ok(agent)
    }

    fn say_addresses(&self) -> Result<()> {
        self.voice.line("\n    Open in a browser on this machine:");
        self.voice.line(&format!("      the agent             {}", self.to_agent.url("/")));
        self.voice.line(&format!("      its metrics           {}", self.to_agent.url("/metrics")));
        self.voice
            .line(&format!("      Prometheus' alerts    {}\n", self.to_prometheus.url(self.prometheus.alerts_page()?)));
        Ok(())
    }

    /// The incident, until the alert fires; returns what the alert says.
    fn fires(&mut self, agent: &mut Agent) -> Result<String> {
        self.voice.act('b', "The incident: sportsagent starts with 10.8.64.2, which reviewagent has.");
        self.sandboxes.push(self.bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?);
        let judged = |incident: &Value| incident.get("held").is_some_and(|held| !held.is_null());
        agent.wait_until(PATIENCE, "the duplicate to be judged", |agent| {
            Ok(agent.conflicts()?.iter().any(judged).then_some(()))
        })?;
        self.voice.quote("dupip conflicts", &self.dupip.say(&["conflicts"])?);
        self.wait_for(AlertState::Pending)?;
        self.wait_for(AlertState::Firing)?;
        let summary = self.summary()?;
        self.voice.line(&format!("      {summary}"));
        Ok(summary)
    }

    /// An agent that may act takes the place of the one that may not; returns it, and the incident.
    fn heals(&mut self, observer: Agent) -> Result<(Agent, Value)> {
        self.voice.act('c', "dupip run --bridge rt0 --mode enforce, in place of the agent that only observes");
        ended(observer)?;
        let mut healer = self.dupip.start(Mode::Enforce)?;
        let healed = |incident: &Value| incident.get("status") == Some(&json!("healed"));
        let incident = healer.wait_until(PATIENCE, "the incident to be healed", |agent| {
            Ok(agent.conflicts()?.into_iter().find(healed))
        })?;
        self.voice.quote("dupip conflicts", &self.dupip.say(&["conflicts"])?);
        self.wait_for(AlertState::Inactive)?;
        self.voice.line("    Resolved. DuplicateAddress, which tells of every duplicate, goes on for five minutes.");
        Ok((healer, incident))
    }

    /// Waits until the alert is in this state, and says every two seconds that it still waits.
    fn wait_for(&mut self, state: AlertState) -> Result<()> {
        let (start, mut said) = (Instant::now(), Instant::now());
        let voice = self.voice;
        self.prometheus.wait(PATIENCE, &format!("{ALERT} to be {state}"), |prometheus| {
            let now = prometheus.alert(ALERT)?;
            // It may have been pending between two looks.
            let is_there = now == state || (state != AlertState::Inactive && prometheus.times(ALERT, state)?.is_some());
            if !is_there && said.elapsed() >= SAY_EVERY {
                voice.line(&format!("    {ALERT} is {now}; waiting for {state}, {} s", start.elapsed().as_secs()));
                said = Instant::now();
            }
            Ok(is_there.then_some(()))
        })?;
        self.states.push(state);
        self.voice.line(&format!("    {ALERT} is {state}."));
        Ok(())
    }

    fn summary(&self) -> Result<String> {
        let rules = self.prometheus.alert_rules()?;
        let rule = rules.iter().find(|rule| rule.get("name").is_some_and(|name| name == ALERT));
        let summary = rule.and_then(|rule| rule.pointer("/alerts/0/annotations/summary")?.as_str());
        Ok(summary.context("the alert says nothing")?.to_owned())
    }

    fn facts(&self, summary: &str, incident: &Value) -> Value {
        json!({
            "agent": self.to_agent.url("/"),
            "prometheus": self.to_prometheus.url("/"),
            "alert": ALERT,
            "summary": summary,
            "states": self.states.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "incident": incident,
        })
    }

    /// Waits until somebody has seen enough.
    fn go_on(&self) -> Result<()> {
        let mut interrupts = Signals::new([SIGINT, SIGTERM])?;
        let (enter, program) = (Kept { holder: self.runner.holder() }.enter(), self.dupip.program().display());
        self.say_addresses()?;
        self.voice.line("    A harmless duplicate, to see the alerts once more (as root):");
        self.voice.line(&format!("      {enter} {program} drill --bridge rt0"));
        self.voice.line("    All of it runs until Ctrl-C.");
        interrupts.forever().next();
        Ok(())
    }
}

fn ended(agent: Agent) -> Result<()> {
    let status = agent.terminate()?;
    ensure!(status.success(), "the agent ended with {status}");
    Ok(())
}

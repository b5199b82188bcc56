//! Duplicates on a private runner, one after the other, and what the agent says of each.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Agent, Bridge, Dupip, Mode, Runner, Sandbox};
use serde_json::{Value, from_str};

use crate::bench::{samples::Samples, scratch::Scratch};

/// Newcomers that there are at a time, beside one holder: a bridge with many ports is slow by itself.
const AT_A_TIME: usize = 25;
/// How long a duplicate may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the agent waits at most before it answers that nothing has happened, in seconds.
const WAIT: u32 = 5;
/// The brake is not what is measured.
const ENFORCE: [&str; 2] = ["--evictions-per-minute", "60000"];

/// All duplicates together: times since the kernel saw the first contradicting frame, by what was then done.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) named: Samples,
    pub(super) contained: Samples,
    pub(super) healed: Samples,
    /// Each step of the evictions.
    pub(super) steps: Vec<(String, Samples)>,
    /// What the first contradictions were seen by, and how often.
    pub(super) evidence: BTreeMap<String, usize>,
}

/// The agent, and how far its events have been read.
struct Watched {
    agent: Agent,
    cursor: String,
}

/// Makes so many duplicates.
///
/// # Errors
/// When the lab cannot be made, or a duplicate is not healed.
pub(super) fn measure(scratch: &Scratch, dupip: &Path, incidents: usize) -> Result<Measured> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.0.1/16")?;
    let database = scratch.fresh("heal")?.join("leases.db");
    let dupip = Dupip::at(&bridge, dupip)?.keeping(&database.to_string_lossy()).logging("info");
    let agent = dupip.start_with(Mode::Enforce, &ENFORCE)?;
    let mut watched = Watched { agent, cursor: String::new() };
    let mut measured = Measured::default();
    while measured.healed.len() < incidents {
        eprintln!("bench: {} of {incidents} duplicates", measured.healed.len());
        let count = AT_A_TIME.min(incidents - measured.healed.len());
        round(scratch, &bridge, &mut watched, &mut measured, count)?;
    }
    Ok(measured)
}

/// One holder, and newcomers that come to its address one after the other. All of them go in the end: whoever was in a
/// duplicate once is never in another, so that each is an incident of its own.
fn round(
    scratch: &Scratch,
    bridge: &Bridge,
    watched: &mut Watched,
    measured: &mut Measured,
    count: usize,
) -> Result<()> {
    let number = measured.healed.len();
    let holder = format!("holder-{number}");
    let address = watched.lease(&holder)?;
    let holder = bridge.sandbox(&holder).without_ipv6().address(&address).start()?;
    let newcomers = (number..number + count).map(|n| bridge.sandbox(&format!("newcomer-{n}")).without_ipv6());
    let newcomers = bridge.start_all(newcomers)?;
    newcomers.iter().try_for_each(|newcomer| prepare(newcomer, &address))?;
    watched.wait_for(&holder)?;
    watched.skip()?;
    for newcomer in &newcomers {
        scratch.go_on()?;
        newcomer.run(["ip", "link", "set", "eth0", "up"])?;
        measured.add(&watched.incident()?)?;
    }
    newcomers.into_iter().chain([holder]).try_for_each(Sandbox::remove)
}

/// Gives it the address before its link is up, so that its kernel announces it then, as it does for containers.
fn prepare(newcomer: &Sandbox, address: &str) -> Result<()> {
    newcomer.run(["ip", "link", "set", "eth0", "down"])?;
    newcomer.run(["ip", "address", "add", address, "dev", "eth0"])?;
    newcomer.sysctl("net.ipv4.conf.eth0.arp_notify", "1")
}

impl Watched {
    /// An address for `owner`, with the length of its prefix.
    fn lease(&self, owner: &str) -> Result<String> {
        let lease = self.agent.dupip().ask(&["lease", "allocate", "--bridge", "rt0", "--owner", owner])?;
        let address = lease.get("address").and_then(Value::as_str).context("a lease without an address")?;
        Ok(format!("{address}/16"))
    }

    fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.agent.http(path)?;
        ensure!(status == 200, "{path} answers with status {status}: {body}");
        Ok(from_str(&body)?)
    }

    /// Waits until the agent knows where a sandbox is.
    fn wait_for(&mut self, sandbox: &Sandbox) -> Result<()> {
        let name = sandbox.name().to_owned();
        let is_there = |row: &Value| row.get("sandbox").and_then(Value::as_str) == Some(name.as_str());
        self.agent.wait_until(PATIENCE, &format!("{name} to be seen"), |agent| {
            Ok(agent.table()?.iter().any(is_there).then_some(()))
        })
    }

    /// The next events that are there or come within a while.
    fn events(&mut self, wait: u32) -> Result<Vec<Value>> {
        let after = if self.cursor.is_empty() { String::new() } else { format!("&after={}", self.cursor) };
        let page = self.get(&format!("/api/v1/events?kind=healed,given_up,gone&wait={wait}&limit=1024{after}"))?;
        let next = page.get("next").and_then(Value::as_str).context("events without a cursor")?;
        self.cursor = next.to_owned();
        Ok(page.get("events").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Leaves out what has happened so far.
    fn skip(&mut self) -> Result<()> {
        while !self.events(0)?.is_empty() {}
        Ok(())
    }

    /// The next incident that ends, which must be by being healed.
    fn incident(&mut self) -> Result<Value> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let Some(event) = self.events(WAIT)?.into_iter().next() else { continue };
            let number = event.get("incident").and_then(Value::as_u64).context("an end of no incident")?;
            let incident = self.get(&format!("/api/v1/incidents/{number}"))?;
            let incident = incident.get("incident").cloned().context("an explanation without an incident")?;
            ensure!(incident.get("healed") == Some(&Value::Bool(true)), "not healed: {incident:#}");
            return Ok(incident);
        }
        let open = self.agent.dupip().say(&["conflicts", "-o", "wide"])?;
        bail!("a duplicate was not healed within {} s:\n{open}", PATIENCE.as_secs())
    }
}

impl Measured {
    fn add(&mut self, incident: &Value) -> Result<()> {
        let steps = incident.pointer("/evictions/0/steps").and_then(Value::as_array).context("no eviction")?;
        let steps: BTreeMap<&str, f64> = steps.iter().filter_map(step).collect();
        let number = |name: &str| incident.get(name).and_then(Value::as_f64).with_context(|| format!("no {name}"));
        ensure!(incident.get("times") == Some(&Value::from(1)), "an incident came back: {incident:#}");
        self.named.add(number("named_us")?);
        self.contained.add(1000.0 * *steps.get("contain").context("never contained")?);
        self.healed.add(1000.0 * number("heal_ms")?);
        let mut in_order: Vec<_> = steps.into_iter().collect();
        in_order.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        in_order.into_iter().for_each(|(step, at_ms)| self.add_step(step, 1000.0 * at_ms));
        let evidence = incident.get("first_evidence").and_then(Value::as_str).unwrap_or_default();
        *self.evidence.entry(evidence.to_owned()).or_default() += 1;
        Ok(())
    }

    fn add_step(&mut self, name: &str, micros: f64) {
        if !self.steps.iter().any(|(known, _)| known == name) {
            self.steps.push((name.to_owned(), Samples::default()));
        }
        let known = self.steps.iter_mut().filter(|(known, _)| known == name);
        known.for_each(|(_, samples)| samples.add(micros));
    }
}

fn step(taken: &Value) -> Option<(&str, f64)> {
    Some((taken.get("step")?.as_str()?, taken.get("at_ms")?.as_f64()?))
}

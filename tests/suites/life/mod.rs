//! dupip through the days of a runner: what changes hands, what only looks like a conflict, what is lost, what is missing.

mod domains;
mod hand_over;
mod losses;
mod reach;
mod special;
mod teardown;
mod without_bpf;

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use lab::{Agent, Arp, Bridge, Dupip, MacAddr, Runner, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take on a machine that does much else; it takes milliseconds on one that does not.
const DEADLINE: Duration = Duration::from_secs(20);

const CONTESTED: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);

fn runner() -> Result<(Bridge, Dupip)> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let dupip = Dupip::on(&bridge)?;
    Ok((bridge, dupip))
}

fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    field(value, name).as_str().unwrap_or_default()
}

/// All that the agent has told so far, oldest first.
fn events(agent: &Agent) -> Result<Vec<Value>> {
    let (status, body) = agent.http("/api/v1/events?limit=1000")?;
    let page: Value = serde_json::from_str(&body).with_context(|| format!("status {status}: {body}"))?;
    Ok(field(&page, "events").as_array().cloned().unwrap_or_default())
}

/// What was told, by kind and address, without the marks.
fn told(agent: &Agent) -> Result<Vec<(String, String)>> {
    let kinds = events(agent)?.into_iter().filter(|event| !text(event, "address").starts_with("192.0.2."));
    Ok(kinds.map(|event| (text(&event, "kind").to_owned(), text(&event, "address").to_owned())).collect())
}

/// Waits for the first event of this kind.
fn event(agent: &mut Agent, kind: &str) -> Result<Value> {
    agent.wait_until(DEADLINE, &format!("an event of kind {kind}"), |agent| {
        Ok(events(agent)?.into_iter().find(|event| text(event, "kind") == kind))
    })
}

/// Waits until the agent has taken in all that was said before: it tells of a martian that is said now. The frames of all
/// ports are reported through one ring, in order.
fn mark(agent: &mut Agent, number: u8, say: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
    let address = Ipv4Addr::new(192, 0, 2, number);
    say(&Arp::announcement(MacAddr(2, 0, 0, 0, 0, number), address).frame())?;
    agent.wait_until(DEADLINE, &format!("the mark {address} to be told"), |agent| {
        let is_told = |event: &Value| text(event, "address") == address.to_string();
        Ok(events(agent)?.iter().any(is_told).then_some(()))
    })
}

/// The first row of the table that is about this address, once there is one.
fn row(agent: &mut Agent, address: Ipv4Addr) -> Result<Value> {
    agent.wait_until(DEADLINE, &format!("a row of {address}"), |agent| Ok(rows(agent, address)?.into_iter().next()))
}

fn rows(agent: &Agent, address: Ipv4Addr) -> Result<Vec<Value>> {
    let address = address.to_string();
    Ok(agent.table()?.into_iter().filter(|row| text(row, "address") == address).collect())
}

/// Waits for an incident that is judged, or that is told why it is not healed.
fn incident(agent: &mut Agent, status: &str) -> Result<Value> {
    agent.wait_until(DEADLINE, &format!("an incident to be {status}"), |agent| {
        Ok(agent.conflicts()?.into_iter().find(|incident| text(incident, "status") == status))
    })
}

/// Who is in an incident in which role: sandbox, port and role.
fn parties(incident: &Value) -> Vec<(String, String, String)> {
    let parties = field(incident, "parties").as_array().into_iter().flatten();
    let words = |name: &'static str| move |party: &Value| text(party, name).to_owned();
    let of = |party: &Value| (words("sandbox")(party), words("port")(party), words("role")(party));
    let mut all: Vec<_> = parties.map(of).collect();
    all.sort();
    all
}

fn duplicates(agent: &Agent) -> Result<Option<f64>> {
    agent.metric("duplicate_ip_total{bridge=\"rt0\"}")
}

/// Waits until so many ports have a tap: what is said at a port before is heard by nobody.
fn wait_tapped(agent: &mut Agent, ports: u8) -> Result<()> {
    agent.wait_until(DEADLINE, &format!("{ports} ports to have a tap"), |agent| {
        Ok((agent.metric("dupip_ports{bridge=\"rt0\"}")? == Some(f64::from(ports))).then_some(()))
    })
}

fn is_degraded(agent: &Agent, feature: &str) -> Result<bool> {
    Ok(agent.metric(&format!("dupip_degraded{{feature=\"{feature}\"}}"))? == Some(1.0))
}

/// Stops the agent where it is, until [`resume`].
fn pause(agent: &Agent) -> Result<()> {
    signal(agent, Signal::STOP)?;
    let stat = format!("/proc/{}/stat", agent.pid());
    let is_stopped =
        || Ok(fs::read_to_string(&stat)?.rsplit_once(") ").filter(|(_, state)| state.starts_with('T')).map(drop));
    wait_until(DEADLINE, "the agent to stop", is_stopped)
}

fn resume(agent: &Agent) -> Result<()> {
    signal(agent, Signal::CONT)
}

fn signal(agent: &Agent, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(agent.pid().try_into()?).context("0 is no process")?;
    Ok(kill_process(pid, signal)?)
}

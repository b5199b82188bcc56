//! What dupip must say of each situation on a bridge, one by one: the built program, and frames of real stacks.
//!
//! Where a number is named, it is that of the scenario in the list that dupip is measured by.

mod conflicts;
mod contests;
mod martians;
mod quiet;
mod spoofs;
mod telling;

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use lab::{Agent, Arp, Tap};
use serde_json::Value;

use crate::agent::{DEADLINE, closed, field, runner, text};

/// The address that everything is about.
const CONTESTED: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);

/// All that the agent has told, oldest first.
pub(crate) fn told(agent: &Agent) -> Result<Vec<Value>> {
    agent.dupip().say(&["events", "-o", "json"])?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// How often it has told of this kind.
pub(crate) fn count(told: &[Value], kind: &str) -> usize {
    told.iter().filter(|event| text(event, "kind") == kind).count()
}

/// Waits for the first event that is as it should be.
pub(crate) fn wait_told(agent: &mut Agent, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    agent.wait_until(DEADLINE, what, |agent| Ok(told(agent)?.into_iter().find(|event| is_it(event))))
}

/// Waits until the agent has taken in all that was said on the bridge before: a martian claim, said last, is told of. Each
/// `mark` does for one time.
fn settle(agent: &mut Agent, marker: &Tap, mark: u8) -> Result<()> {
    let address = Ipv4Addr::new(198, 51, 100, mark);
    marker.send_frame(&Arp::announcement(marker.mac(), address).frame())?;
    wait_told(agent, "the mark", |event| text(event, "address") == address.to_string()).map(drop)
}

/// What was told beside the marks.
fn told_but_marks(agent: &Agent) -> Result<Vec<Value>> {
    let is_mark = |event: &Value| text(event, "address").starts_with("198.51.100.");
    Ok(told(agent)?.into_iter().filter(|event| !is_mark(event)).collect())
}

/// Waits for the first incident that is as it should be.
pub(crate) fn wait_incident(agent: &mut Agent, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    agent.wait_until(DEADLINE, what, |agent| Ok(agent.conflicts()?.into_iter().find(|incident| is_it(incident))))
}

/// Waits for the first incident that it is decided of who keeps the address, or that this cannot be decided.
fn judged(agent: &mut Agent) -> Result<Value> {
    wait_incident(agent, "the incident to be judged", |incident| !field(incident, "held").is_null())
}

pub(crate) fn parties(incident: &Value) -> Vec<Value> {
    field(incident, "parties").as_array().cloned().unwrap_or_default()
}

/// The party behind a port.
pub(crate) fn party(incident: &Value, port: &str) -> Result<Value> {
    let found = parties(incident).into_iter().find(|party| text(party, "port") == port);
    found.with_context(|| format!("nobody at {port}: {incident}"))
}

/// The part that the party behind a port plays.
pub(crate) fn role(incident: &Value, port: &str) -> Result<String> {
    Ok(text(&party(incident, port)?, "role").to_owned())
}

fn duplicates(agent: &Agent) -> Result<Option<f64>> {
    agent.metric("duplicate_ip_total{bridge=\"rt0\"}")
}

fn martians(agent: &Agent, reason: &str) -> Result<Option<f64>> {
    agent.metric(&format!("dupip_martian_total{{bridge=\"rt0\",reason=\"{reason}\"}}"))
}

/// The rows of `dupip table` of one address.
fn rows(agent: &Agent, address: Ipv4Addr) -> Result<Vec<Value>> {
    let is_its = |row: &Value| text(row, "address") == address.to_string();
    Ok(agent.table()?.into_iter().filter(is_its).collect())
}

/// Waits until somebody behind a port is known to have an address.
pub(crate) fn wait_row(agent: &mut Agent, address: Ipv4Addr, port: &str) -> Result<Value> {
    agent.wait_until(DEADLINE, &format!("{address} to be seen at {port}"), |agent| {
        Ok(rows(agent, address)?.into_iter().find(|row| text(row, "port") == port))
    })
}

//! dupip in the lab: the built program, run as a real process against real sandboxes.

mod detection;
mod events;
mod healing;
pub(crate) mod life;
mod store;

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;
use lab::{Agent, Bridge, Dupip, Runner};
use serde_json::Value;

/// How long anything may take on a machine that does much else; it takes milliseconds on one that does not.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn runner() -> Result<(Bridge, Dupip)> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let dupip = Dupip::on(&bridge)?;
    Ok((bridge, dupip))
}

pub(super) fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    field(value, name).as_str().unwrap_or_default()
}

/// Waits for the first incident with this status.
pub(super) fn closed(agent: &mut Agent, status: &str) -> Result<Value> {
    agent.wait_until(DEADLINE, &format!("an incident to be {status}"), |agent| {
        Ok(agent.conflicts()?.into_iter().find(|incident| text(incident, "status") == status))
    })
}

pub(super) fn duplicate_rows(agent: &Agent, address: Ipv4Addr) -> Result<usize> {
    let address = address.to_string();
    let is_duplicate = |row: &&Value| text(row, "address") == address && text(row, "state") == "duplicate";
    Ok(agent.table()?.iter().filter(is_duplicate).count())
}

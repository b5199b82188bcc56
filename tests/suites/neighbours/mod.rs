//! dupip beside real neighbours: programs and devices that use addresses in every way that is right, or nearly; many
//! sandboxes at once; and what floods.
//!
//! Where nothing is to be found, a test waits for something that comes later ([`Witness::mark`]): whatever was sent or
//! configured before has been taken in then.

mod crowd;
mod differential;
mod flood;
mod keepalived;
mod macvlan;
mod memory;
mod probes;
mod routers;
mod vm;

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Agent, Arp, Bridge, Dupip, Runner, Sandbox};
use serde_json::Value;

/// How long anything may take on a machine that does much else; it takes milliseconds on one that does not.
const DEADLINE: Duration = Duration::from_secs(30);

fn runner() -> Result<(Bridge, Dupip)> {
    with_address("10.8.64.1/24")
}

/// A runner whose bridge has this address, for those who need more room.
fn with_address(address: &str) -> Result<(Bridge, Dupip)> {
    let bridge = Runner::new()?.bridge("rt0", address)?;
    let dupip = Dupip::on(&bridge)?;
    Ok((bridge, dupip))
}

fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    field(value, name).as_str().unwrap_or_default()
}

/// The sandboxes of an incident or an event, in its order.
fn parties(value: &Value) -> Vec<&str> {
    let parties = value.get("parties").or_else(|| value.pointer("/detail/parties")).and_then(Value::as_array);
    parties.into_iter().flatten().map(|party| text(party, "sandbox")).collect()
}

/// Everything that the agent has told so far, but for what a witness has made it tell.
fn story(agent: &Agent) -> Result<Vec<Value>> {
    let told = agent.dupip().say(&["events", "-o", "json"])?;
    let told = told.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")));
    let told: Vec<Value> = told.collect::<Result<_>>()?;
    Ok(told.into_iter().filter(|event| !text(event, "address").starts_with(MARKS)).collect())
}

/// The kinds of events, in order.
fn kinds(story: &[Value]) -> Vec<&str> {
    story.iter().map(|event| text(event, "kind")).collect()
}

/// Waits for the first event of a kind.
fn wait_for_event(agent: &mut Agent, kind: &str) -> Result<Value> {
    agent.wait_until(DEADLINE, &format!("an event of kind {kind}"), |agent| {
        Ok(story(agent)?.into_iter().find(|event| text(event, "kind") == kind))
    })
}

/// Waits for a series to have a value, such as `dupip_ports{bridge="rt0"}`.
fn wait_for_metric(agent: &mut Agent, series: &str, is_right: impl Fn(f64) -> bool) -> Result<f64> {
    agent.wait_until(DEADLINE, series, |agent| Ok(agent.metric(series)?.filter(|value| is_right(*value))))
}

/// What the agent may have of memory of its own, in KiB. With the pages of the program itself, of which one that is built
/// for speed has some ten thousand KiB and one that is built for tests three times as much, that is less than 64 MiB.
const MOST: u64 = 52 * 1024;

/// What a process has of memory that no file backs, in KiB (`RssAnon` and `RssShmem` in proc_pid_status(5)).
fn own_memory(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |field: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        Ok(line.with_context(|| format!("no {field} in the status"))?.trim().trim_end_matches(" kB").parse()?)
    };
    Ok(of("RssAnon:")? + of("RssShmem:")?)
}

/// Waits until so many ports of the bridge have a tap: attaching takes the kernel some ten milliseconds, and what is sent
/// before is not heard.
fn wait_for_ports(agent: &mut Agent, count: u16) -> Result<()> {
    wait_for_metric(agent, "dupip_ports{bridge=\"rt0\"}", |ports| ports == f64::from(count)).map(drop)
}

/// What a witness claims is in here (RFC 5737), where no bridge of a test is at home.
const MARKS: &str = "192.0.2.";

/// A sandbox that does something plain to see, after what is to be seen as nothing.
struct Witness {
    sandbox: Sandbox,
    marks: u8,
}

impl Witness {
    fn on(bridge: &Bridge) -> Result<Self> {
        Ok(Self { sandbox: bridge.sandbox("witness").without_ipv6().start()?, marks: 0 })
    }

    /// Waits until the agent has taken in what the kernel has configured, and what stood on the wire, up to now.
    fn mark(&mut self, agent: &mut Agent) -> Result<()> {
        self.marks += 1;
        // What is configured is absorbed when it is said, so another one is announced.
        let (configured, announced) = (format!("{MARKS}{}", self.marks), format!("{MARKS}{}", 128 + self.marks));
        let row = |mark: &str, evidence: &'static str| {
            let mark = mark.to_owned();
            move |agent: &mut Agent| {
                let is_it = |row: &Value| text(row, "address") == mark && text(row, "evidence") == evidence;
                Ok(agent.table()?.iter().any(is_it).then_some(()))
            }
        };
        self.sandbox.run(["ip", "address", "add", &format!("{configured}/32"), "dev", "eth0"])?;
        agent.wait_until(DEADLINE, "what is configured", row(&configured, "configured"))?;
        let sender = announced.parse()?;
        self.sandbox.send_frame(&Arp::announcement(self.sandbox.mac()?, sender).frame())?;
        agent.wait_until(DEADLINE, "what is announced", row(&announced, "gratuitous_request"))
    }
}

//! A bridge with many ports, an agent that watches it, and many addresses in use behind them.

use std::{
    net::Ipv4Addr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Agent, Arp, Bridge, Dupip, Mode, Runner, Sandbox, wait_until};

use crate::bench::{Bench, samples::Samples};

/// How many bindings there are in the end: as many as a bridge full of ports needs, many times over.
pub(super) const BINDINGS: usize = 65_536;

/// Room for the sandboxes' own addresses, for what else they claim, and for what newcomers claim.
const BRIDGE: &str = "10.8.0.1/13";
const OWN: Ipv4Addr = Ipv4Addr::new(10, 8, 1, 0);
const CLAIMED: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 0);

/// Ten ports claim more addresses than a port may, unless an operator says so.
const SETTINGS: [&str; 2] = ["--claims-per-port", "8192"];

/// What one port says at a time is less than it may say at once, and in a second.
const AT_A_TIME: usize = 900;
const PAUSE: Duration = Duration::from_secs(1);

/// How often that is said again of which something was lost.
const TRIES: usize = 5;

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same of a thousand links that the agent puts in the place of filters, one at a time.
const SETTLING: Duration = Duration::from_secs(180);

/// A bridge, its sandboxes and its agent.
pub(super) struct Crowd {
    pub(super) ports: usize,
    pub(super) bridge: Bridge,
    sandboxes: Vec<Sandbox>,
    /// From spawning the agent to its word that it is ready.
    pub(super) ready: Samples,
    pub(super) agent: Agent,
}

impl Crowd {
    /// Makes so many sandboxes, each with one address of its own, and starts the agent so many times.
    ///
    /// # Errors
    /// When the lab cannot be made, or an agent does not become ready.
    pub(super) fn gather(bench: &Bench, ports: usize, starts: usize) -> Result<Self> {
        eprintln!("bench: a bridge with {ports} ports");
        let bridge = Runner::new()?.bridge("rt0", BRIDGE)?;
        let plans = (0..ports).map(|n| {
            let address = format!("{}/13", nth(OWN, n));
            bridge.sandbox(&format!("sandbox-{n}")).without_ipv6().address(&address)
        });
        let sandboxes = bridge.start_all(plans)?;
        let database = bench.scratch.fresh(&format!("scale-{ports}"))?.join("leases.db");
        let dupip = Dupip::at(&bridge, &bench.programs.dupip)?.logging("info").keeping(&database.to_string_lossy());
        let mut ready = Samples::default();
        for _ in 1..starts {
            bench.scratch.go_on()?;
            start(&dupip, &mut ready)?.terminate()?;
        }
        let agent = start(&dupip, &mut ready)?;
        let crowd = Self { ports, bridge, sandboxes, ready, agent };
        crowd.settle()?;
        Ok(crowd)
    }

    /// Waits until the agent has put links in the place of filters, port by port in the order of their indices, which keeps the
    /// kernel from other changes meanwhile. Where there are no such links (before Linux 6.6), the filters stay.
    fn settle(&self) -> Result<()> {
        let runner = self.bridge.runner();
        let links = runner.run(["ip", "-o", "link", "show", "master", self.bridge.name()])?;
        let last = links.lines().filter_map(port).max().context("a bridge without ports")?;
        let filters = || runner.run(["tc", "filter", "show", "dev", last.1, "ingress"]);
        let settled = wait_until(SETTLING, "the last filter to go", || Ok(filters()?.is_empty().then_some(())));
        settled.unwrap_or_else(|error| eprintln!("bench: {error:#}"));
        Ok(())
    }

    /// Has the sandboxes claim addresses, each the same number, until the table has all [`BINDINGS`].
    ///
    /// # Errors
    /// When it never has.
    pub(super) fn fill(&mut self, bench: &Bench) -> Result<()> {
        // One is the host's own.
        let claims = BINDINGS - 1 - self.sandboxes.len();
        let block = claims.div_ceil(self.sandboxes.len()).next_power_of_two();
        let mut left = claims;
        let mut claimants = Vec::new();
        for (n, sandbox) in self.sandboxes.iter().enumerate() {
            let count = left.div_ceil(self.sandboxes.len() - n);
            left -= count;
            let first = nth(CLAIMED, n * block);
            // Who has the whole block answers for all of it.
            let prefix = format!("{first}/{}", u32::BITS - block.ilog2());
            sandbox.run(["ip", "route", "add", "local", &prefix, "dev", "lo"])?;
            claimants.push((sandbox, sandbox.mac()?, (0..count).map(|host| nth(first, host)).collect::<Vec<_>>()));
        }
        let (gateway, gateway_mac) = (self.bridge.gateway(), self.bridge.mac()?);
        for _ in 0..TRIES {
            let most = claimants.iter().map(|(_, _, addresses)| addresses.len()).max().unwrap_or_default();
            for from in (0..most).step_by(AT_A_TIME) {
                bench.scratch.go_on()?;
                let began = Instant::now();
                for (sandbox, mac, addresses) in &claimants {
                    let some = addresses.iter().skip(from).take(AT_A_TIME);
                    // Told to the host alone, so that it costs the others nothing.
                    sandbox.flood(
                        some.map(|address| Arp::reply(*mac, *address, gateway_mac, gateway).frame())
                            .collect::<Vec<_>>(),
                    )?;
                }
                sleep(PAUSE.saturating_sub(began.elapsed()));
            }
            // A queue may have been full.
            if bindings(&self.agent)? >= BINDINGS {
                return Ok(());
            }
        }
        bail!("{} bindings of {BINDINGS}", bindings(&self.agent)?)
    }

    /// `dupip table -o json`: how long it takes, and how long it is.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn table(&self, times: usize) -> Result<(Samples, usize)> {
        let mut took = Samples::default();
        let mut bytes = 0;
        for _ in 0..times {
            let began = Instant::now();
            let told = self.agent.dupip().outcome(&["table", "-o", "json"])?;
            took.add(micros(began));
            ensure!(told.status == Some(0), "dupip table fails: {}", told.complaint);
            bytes = told.output.len();
        }
        Ok((took, bytes))
    }

    /// `/metrics`: how long it takes, and how long it is.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub(super) fn metrics(&self, times: usize) -> Result<(Samples, usize)> {
        let mut took = Samples::default();
        let mut bytes = 0;
        for _ in 0..times {
            let began = Instant::now();
            let (status, body) = self.agent.http("/metrics")?;
            took.add(micros(began));
            ensure!(status == 200, "/metrics answers with status {status}");
            bytes = body.len();
        }
        Ok((took, bytes))
    }
}

fn start(dupip: &Dupip, ready: &mut Samples) -> Result<Agent> {
    let began = Instant::now();
    let mut agent = dupip.spawn(Mode::Observe, &SETTINGS)?;
    agent.wait_until(PATIENCE, "the agent to be ready", |agent| {
        Ok(agent.http("/readyz").is_ok_and(|(status, _)| status == 200).then_some(()))
    })?;
    ready.add(micros(began));
    Ok(agent)
}

fn bindings(agent: &Agent) -> Result<usize> {
    let count = agent.metric("dupip_bindings{bridge=\"rt0\"}")?.context("no dupip_bindings")?;
    Ok(format!("{count:.0}").parse()?)
}

/// So many addresses after `first`.
pub(super) fn nth(first: Ipv4Addr, n: usize) -> Ipv4Addr {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    Ipv4Addr::from(u32::from(first).saturating_add(n))
}

pub(super) fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// The index and the name of a port, of `5: veth0@if2: <BROADCAST,…`.
fn port(line: &str) -> Option<(u32, &str)> {
    let (index, rest) = line.split_once(": ")?;
    Some((index.parse().ok()?, rest.split(['@', ':']).next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_known_by_its_index() {
        let line = "1042: veth5ad3@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master rt0 state UP";
        assert_eq!(port(line), Some((1042, "veth5ad3")));
        assert_eq!(port("7: tap0: <UP>"), Some((7, "tap0")));
        assert_eq!(port("nothing"), None);
    }
}

//! New ports: how long after the kernel has told of one is what is said there heard.

use std::{
    io::ErrorKind,
    net::Ipv4Addr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Agent, Arp, Bridge, MacAddr, Sandbox, Wire};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkAttribute};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use serde_json::{Value, from_str};

use super::crowd::{Crowd, nth};
use crate::bench::{Bench, samples::Samples};

/// Newcomers that there are at a time: beside a thousand ports a bridge has room for few (`BR_MAX_PORTS` is 1024).
const AT_A_TIME: usize = 20;
/// What they claim.
const CLAIMED: Ipv4Addr = Ipv4Addr::new(10, 14, 0, 0);
/// How many addresses each may claim until it is heard; the time that this takes is the longest that can be measured.
const CLAIMS: usize = 1024;
/// How often a newcomer claims another address.
const PAUSE: Duration = Duration::from_micros(200);
/// After how many claims it is looked whether they are heard.
const LOOK_AFTER: usize = 48;
/// How long a claim that was seen may take to be in the table. It is far less.
const PATIENCE: Duration = Duration::from_secs(10);
/// `RTMGRP_LINK` (`include/uapi/linux/rtnetlink.h`).
const LINKS: u32 = 1;

/// Plugs so many newcomers in, one after the other. Each was unplugged before, and talks all the time from the moment on at
/// which the kernel tells of the new port; the first claim that is in the table came when the port was watched.
///
/// # Errors
/// When the lab cannot do it, or a newcomer is never heard.
pub(super) fn measure(bench: &Bench, crowd: &mut Crowd, count: usize) -> Result<Samples> {
    eprintln!("bench: {count} new ports beside {}", crowd.ports);
    let bridge = crowd.bridge.clone();
    let plans = (0..AT_A_TIME.min(count)).map(|n| bridge.sandbox(&format!("newcomer-{n}")).without_ipv6());
    let mut newcomers = bridge.start_all(plans)?.into_iter().map(Newcomer::new).collect::<Result<Vec<_>>>()?;
    let links = bridge.runner().inside(Links::open)?;
    newcomers.iter().try_for_each(|newcomer| newcomer.unplug(&bridge))?;
    let mut watched = Samples::default();
    for n in 0..count {
        bench.scratch.go_on()?;
        wait_for_ports(&mut crowd.agent, crowd.ports)?;
        let in_turn = n % newcomers.len();
        let newcomer = newcomers.get_mut(in_turn).context("no newcomers")?;
        watched.add(newcomer.plug(&crowd.agent, &bridge, &links, nth(CLAIMED, n * CLAIMS))?);
        newcomer.unplug(&bridge)?;
    }
    wait_for_ports(&mut crowd.agent, crowd.ports)?;
    Ok(watched)
}

/// A sandbox whose port is not one yet.
struct Newcomer {
    sandbox: Sandbox,
    mac: MacAddr,
    wire: Wire,
}

impl Newcomer {
    fn new(sandbox: Sandbox) -> Result<Self> {
        Ok(Self { mac: sandbox.mac()?, wire: sandbox.wire()?, sandbox })
    }

    fn unplug(&self, bridge: &Bridge) -> Result<()> {
        bridge.runner().run(["ip", "link", "set", self.sandbox.port(), "nomaster"]).map(drop)
    }

    /// Plugs it in, and returns how many microseconds after the kernel told of the port it was watched at the latest.
    fn plug(&mut self, agent: &Agent, bridge: &Bridge, links: &Links, first: Ipv4Addr) -> Result<f64> {
        links.skip()?;
        let plug = bridge.runner().command("ip").args(["link", "set", self.sandbox.port(), "master", bridge.name()]);
        let mut plug = plug.spawn()?;
        links.wait_for_port(self.sandbox.port())?;
        let told = Instant::now();
        let mut claims: Vec<(Ipv4Addr, Duration)> = Vec::new();
        loop {
            for _ in 0..LOOK_AFTER {
                let address = nth(first, claims.len());
                // To itself, so that nobody else hears it.
                self.wire.send(&Arp::reply(self.mac, address, self.mac, address).frame())?;
                claims.push((address, told.elapsed()));
                sleep(PAUSE);
            }
            let (last, _) = *claims.last().context("nothing was claimed")?;
            if is_known(agent, last)? {
                break;
            }
            ensure!(claims.len() < CLAIMS, "a new port is not watched after {:?}", told.elapsed());
        }
        plug.wait(PATIENCE)?;
        // What was said later was heard, too, up to what a port may claim.
        for (address, at) in claims {
            if is_known(agent, address)? {
                return Ok(at.as_secs_f64() * 1e6);
            }
        }
        bail!("no claim was heard")
    }
}

/// What the kernel tells of links, in the runner's network.
struct Links(Socket);

impl Links {
    fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, LINKS))?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Leaves out what was told so far.
    fn skip(&self) -> Result<()> {
        while self.next()?.is_some() {}
        Ok(())
    }

    /// Waits until the kernel says that an interface is a port.
    fn wait_for_port(&self, name: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.next()? {
                Some(datagram) if says_port(&datagram, name) => return Ok(()),
                Some(_) => {}
                None => sleep(Duration::from_micros(20)),
            }
        }
        bail!("the kernel does not tell of the port {name}")
    }

    /// The next datagram, if there is one.
    fn next(&self) -> Result<Option<Vec<u8>>> {
        match self.0.recv_from_full() {
            Ok((datagram, _)) => Ok(Some(datagram)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("the kernel tells of no links"),
        }
    }
}

/// Whether a notice, which is one message, says that the link of that name is a port.
fn says_port(datagram: &[u8], name: &str) -> bool {
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else { return false };
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload else { return false };
    let has = |wanted: &dyn Fn(&LinkAttribute) -> bool| link.attributes.iter().any(wanted);
    has(&|attribute| matches!(attribute, LinkAttribute::IfName(found) if found == name))
        && has(&|attribute| matches!(attribute, LinkAttribute::Controller(_)))
}

/// Whether an address is in the agent's table.
fn is_known(agent: &Agent, address: Ipv4Addr) -> Result<bool> {
    let (status, rows) = agent.http(&format!("/api/v1/table?bridge=rt0&address={address}"))?;
    ensure!(status == 200, "the table is answered with status {status}: {rows}");
    Ok(matches!(from_str(&rows)?, Value::Array(rows) if !rows.is_empty()))
}

/// Waits until the agent listens at so many ports.
fn wait_for_ports(agent: &mut Agent, ports: usize) -> Result<()> {
    let wanted = ports.to_string();
    let series = "dupip_ports{bridge=\"rt0\"}";
    agent.wait_until(PATIENCE, "the newcomer to be gone", |agent| {
        let count = agent.metric(series)?.context("no dupip_ports")?;
        Ok((format!("{count:.0}") == wanted).then_some(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_a_new_port() {
        let bridge = lab::Runner::new().unwrap().bridge("rt0", "10.8.64.1/24").unwrap();
        let runner = bridge.runner();
        runner.run(["ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"]).unwrap();
        let links = runner.inside(Links::open).unwrap();
        runner.run(["ip", "link", "set", "veth0", "up"]).unwrap();
        let is_port = |name| move |datagram: &Vec<u8>| says_port(datagram, name);
        let told = || std::iter::from_fn(|| links.next().unwrap()).collect::<Vec<_>>();
        assert!(!told().iter().any(is_port("veth0")));
        bridge.plug("veth0").unwrap();
        let told = told();
        assert!(told.iter().any(is_port("veth0")) && !told.iter().any(is_port("veth1")));
    }
}

//! Eight sandboxes that have many addresses, and stations beside them that come to claim those too.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lab::{Arp, Bridge, Datagram, MacAddr, Runner, Sandbox, Wire};

use crate::bench::scratch::Scratch;

/// Sandboxes, each behind a port of its own.
pub(super) const SANDBOXES: usize = 8;
/// The least time between two contradictions; they come up to twice as far apart, so that no observer's own rhythm is met.
const APART: Duration = Duration::from_micros(3500);
/// The time between an owner's word and the contradiction, and between two newcomers who say who they are.
const BEAT: Duration = Duration::from_millis(1);
/// How newcomers' hardware addresses begin.
const NEWCOMER: [u8; 2] = [0x02, 0x64];
/// What nobody has: who asks for it is not answered.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 8, 255, 254);

/// What a newcomer says by when it contradicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Requests, replies, and both kinds of announcement, in turn.
    Arp,
    /// Only datagrams.
    Silent,
}

/// One address, who has it, and who claims it then.
#[derive(Debug)]
pub(super) struct Contradiction {
    pub(super) address: Ipv4Addr,
    owner: usize,
    /// The sandbox by whose port the newcomer speaks.
    port: usize,
    /// The newcomer claims an address of its own, as everybody does who comes up.
    introduction: Vec<u8>,
    /// The owner says once more what it has.
    word: Vec<u8>,
    frame: Vec<u8>,
}

/// Everybody on the bridge.
pub(super) struct Scene {
    pub(super) bridge: Bridge,
    owners: Vec<(Sandbox, MacAddr)>,
    wires: Vec<Wire>,
}

impl Scene {
    /// Sandboxes with so many addresses together.
    ///
    /// # Errors
    /// When the lab cannot be made.
    pub(super) fn new(addresses: usize) -> Result<Self> {
        let bridge = Runner::new()?.bridge("rt0", "10.8.0.1/16")?;
        let plan = |number| {
            let plan = bridge.sandbox(&format!("owner-{number}")).without_ipv6();
            plan.address(&format!("{}/16", home(number)))
        };
        let sandboxes = bridge.start_all((0..SANDBOXES).map(plan))?;
        for (owner, sandbox) in sandboxes.iter().enumerate() {
            let own = (0..addresses).filter(|number| number % SANDBOXES == owner);
            let lines: String = own.map(|number| format!("address add {}/16 dev eth0\n", address(1, number))).collect();
            sandbox.command("ip").args(["-batch", "-"]).input(&lines)?.run()?;
        }
        let wires = sandboxes.iter().map(Sandbox::wire).collect::<Result<_>>()?;
        let owners = sandboxes.into_iter().map(|sandbox| {
            let mac = sandbox.mac()?;
            Ok((sandbox, mac))
        });
        Ok(Self { bridge, owners: owners.collect::<Result<_>>()?, wires })
    }

    /// The ports of the sandboxes.
    pub(super) fn ports(&self) -> Vec<&str> {
        self.owners.iter().map(|(sandbox, _)| sandbox.port()).collect()
    }

    /// Contradictions of these addresses, by number.
    ///
    /// # Errors
    /// When a frame cannot be made.
    pub(super) fn contradictions(
        &self,
        way: Way,
        numbers: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<Contradiction>> {
        numbers.into_iter().map(|number| self.contradiction(way, number)).collect()
    }

    fn contradiction(&self, way: Way, number: usize) -> Result<Contradiction> {
        let round = number / SANDBOXES;
        let owner = number % SANDBOXES;
        let port = (owner + 1 + round % (SANDBOXES - 1)) % SANDBOXES;
        let mac = |number: usize| self.owners.get(number % SANDBOXES).map(|(_, mac)| *mac).context("no such sandbox");
        let (owner_mac, newcomer) = (mac(owner)?, newcomer(number));
        let address_of = address(1, number);
        // Somebody else again, so that a word to one station does not reach the owner.
        let other = (owner + SANDBOXES / 2) % SANDBOXES;
        let other = if other == port { (port + 1) % SANDBOXES } else { other };
        let other = (mac(other)?, home(other));
        let frame = match (way, round % 4) {
            (Way::Silent, _) => Datagram::new((newcomer, address_of), other, b"silent").frame()?,
            (Way::Arp, 0) => Arp::request(newcomer, address_of, NOBODY).frame(),
            (Way::Arp, 1) => Arp::reply(newcomer, address_of, other.0, other.1).frame(),
            (Way::Arp, 2) => Arp::announcement(newcomer, address_of).frame(),
            (Way::Arp, _) => Arp::reply(newcomer, address_of, MacAddr::broadcast(), address_of).frame(),
        };
        Ok(Contradiction {
            address: address_of,
            owner,
            port,
            introduction: Arp::announcement(newcomer, address(100, number)).frame(),
            word: Arp::announcement(owner_mac, address_of).frame(),
            frame,
        })
    }

    /// Has all newcomers say who they are, and then each contradict an owner that has just spoken, whatever becomes of it.
    /// Returns the moment before each contradicting frame was sent.
    ///
    /// # Errors
    /// When a frame cannot be sent, or somebody wants this to end.
    pub(super) fn play(&mut self, scratch: &Scratch, all: &[Contradiction]) -> Result<Vec<Instant>> {
        for Contradiction { port, introduction, .. } in all {
            self.send(*port, introduction)?;
            thread::sleep(BEAT);
        }
        let mut due = Instant::now();
        let mut sent = Vec::new();
        for (number, Contradiction { owner, port, word, frame, .. }) in all.iter().enumerate() {
            scratch.go_on()?;
            // The golden ratio spreads them evenly and never repeats itself.
            due += APART.mul_f64(1.0 + (0.618_034 * number as f64).fract());
            thread::sleep((due - BEAT).saturating_duration_since(Instant::now()));
            self.send(*owner, word)?;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            sent.push(Instant::now());
            self.send(*port, frame)?;
        }
        Ok(sent)
    }

    fn send(&mut self, by: usize, frame: &[u8]) -> Result<()> {
        self.wires.get_mut(by).context("no such sandbox")?.send(frame)
    }
}

/// Whether a hardware address is a newcomer's, as text.
pub(super) fn is_newcomer(mac: &str) -> bool {
    mac.parse().is_ok_and(|mac: MacAddr| mac.octets().starts_with(&NEWCOMER))
}

fn newcomer(number: usize) -> MacAddr {
    let [.., high, low] = number.to_be_bytes();
    MacAddr::new(NEWCOMER[0], NEWCOMER[1], 0, 0, high, low)
}

/// The address that a sandbox has to itself.
fn home(sandbox: usize) -> Ipv4Addr {
    address(0, sandbox + 1)
}

/// One of 250 addresses in each of several networks from 10.8.`first`.0 on.
#[expect(clippy::cast_possible_truncation, reason = "there are a few thousand at most")]
fn address(first: u8, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 8, first + (number / 250) as u8, 1 + (number % 250) as u8)
}

//! Where it happens: a bridge with eight ports, of which one floods, one has what another then claims, and five only listen.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use lab::{Arp, Bridge, MacAddr, Runner, Sandbox, Storm, Wire};

use crate::bench::scratch::Scratch;

/// Ports of the bridge that only listen, beside the flooding, the owning and the contradicting one.
const LISTENERS: usize = 5;
/// How many different claims rotate, each an address and a hardware address of its own: 10.9.0.0 to 10.9.255.255.
pub(super) const CLAIMS: u32 = 65_536;
/// How many addresses there are to contradict: what a port may claim unless an operator says otherwise, with as many that
/// whoever contradicts has of its own.
pub(super) const CONTESTED: u32 = 400;
/// How far one contradiction is from the next.
pub(super) const EVERY: Duration = Duration::from_millis(20);
/// The same frame so often, so that as many go to the kernel at once as of different ones.
const REPEATS: usize = 64;
/// How many of the frames that teach go out before the next wait a moment.
const BURST: usize = 32;

/// What the flooding port says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flood {
    /// One claim, again and again.
    Repeated,
    /// [`CLAIMS`] different ones, from the first to the last and then anew.
    Rotating,
}

/// Who has the addresses that are contradicted later, when it speaks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The sandbox's interface, which has them configured.
    Sandbox,
    /// A station for each: there are programs that know one address of each station, the latest.
    Stations,
}

/// The bridge and its sandboxes, which are gone when this value is.
pub(super) struct Scene {
    pub(super) bridge: Bridge,
    flooder: Sandbox,
    owner: Sandbox,
    newcomer: Sandbox,
    _listeners: Vec<Sandbox>,
}

/// A contradiction that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contradiction {
    pub(super) address: Ipv4Addr,
    pub(super) sent: Instant,
}

impl Flood {
    pub(super) const ALL: [Self; 2] = [Self::Repeated, Self::Rotating];

    /// How many different claims it makes.
    pub(super) fn claims(self) -> u32 {
        match self {
            Self::Repeated => 1,
            Self::Rotating => CLAIMS,
        }
    }

    /// Answers that nobody asked for, to the host: every port of the bridge would get a copy of what is said to all, and the
    /// sender would be slower by what that takes.
    fn frames(self, (host_mac, host): (MacAddr, Ipv4Addr)) -> Vec<Vec<u8>> {
        let frame = |n| Arp::reply(mac(9, n), claimed(n), host_mac, host).frame();
        match self {
            Self::Repeated => vec![frame(0); REPEATS],
            Self::Rotating => (0..CLAIMS).map(frame).collect(),
        }
    }
}

/// Whether an address is one of those that the flood claims.
pub(super) fn is_claimed(address: Ipv4Addr) -> bool {
    address.octets().starts_with(&[10, 9])
}

fn claimed(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 9, 0, 0)) + n)
}

/// An address that has an owner, and that another station claims later.
fn contested(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 8, 16, 0)) + n)
}

/// An address that whoever contradicts has for itself.
fn own(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 8, 32, 0)) + n)
}

/// The hardware address of one of a kind of stations.
fn mac(kind: u8, n: u32) -> MacAddr {
    let [first, second, third, fourth] = n.to_be_bytes();
    MacAddr::new(2, kind, first, second, third, fourth)
}

impl Scene {
    /// Makes the bridge and its sandboxes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn new() -> Result<Self> {
        let bridge = Runner::new()?.bridge("rt0", "10.8.0.1/14")?;
        let listeners = (0..LISTENERS).map(|n| format!("listener-{n}"));
        let names = ["flooder", "owner", "newcomer"].into_iter().map(str::to_owned).chain(listeners);
        let plans: Vec<_> = names.map(|name| bridge.sandbox(&name).without_ipv6()).collect();
        let mut made = bridge.start_all(plans)?.into_iter();
        let mut next = || made.next().ok_or_else(|| anyhow::anyhow!("a sandbox is missing"));
        let (flooder, owner, newcomer) = (next()?, next()?, next()?);
        let addresses: String = (0..CONTESTED).map(|n| format!("address add {}/14 dev eth0\n", contested(n))).collect();
        owner.command("ip").args(["-batch", "-"]).input(&addresses)?.run()?;
        Ok(Self { bridge, flooder, owner, newcomer, _listeners: made.collect() })
    }

    /// Has everybody say what they have: the owner each address that is contradicted later, and whoever contradicts it then
    /// an address of its own.
    ///
    /// # Errors
    /// When a link is down.
    pub(super) fn teach(&self, owner: Owner) -> Result<()> {
        let interface = self.owner.mac()?;
        let station = |n| if owner == Owner::Sandbox { interface } else { mac(1, n) };
        let owned = (0..CONTESTED).map(|n| Arp::announcement(station(n), contested(n)).frame());
        say(&mut self.owner.wire()?, owned)?;
        let own = (0..CONTESTED).map(|n| Arp::announcement(mac(2, n), own(n)).frame());
        say(&mut self.newcomer.wire()?, own)
    }

    /// Floods with so many frames, and nothing else happens.
    ///
    /// # Errors
    /// When the link is down, or somebody wants this to end.
    pub(super) fn flood(&self, scratch: &Scratch, flood: Flood, frames: usize) -> Result<Storm> {
        let host = (self.bridge.mac()?, self.bridge.gateway());
        self.flooder.storm(&flood.frames(host), frames, || scratch.go_on())
    }

    /// The same, while one address after the other is contradicted, each once. Returns what was.
    ///
    /// # Errors
    /// When a link is down, or somebody wants this to end.
    pub(super) fn contest(&self, scratch: &Scratch, flood: Flood, frames: usize) -> Result<Vec<Contradiction>> {
        let (mut wire, is_over) = (self.newcomer.wire()?, AtomicBool::new(false));
        thread::scope(|scope| {
            let contradictions = scope.spawn(|| contradict(&mut wire, &is_over));
            let storm = self.flood(scratch, flood, frames);
            is_over.store(true, Ordering::Relaxed);
            let contradictions = contradictions.join().map_err(|_| anyhow::anyhow!("nobody contradicted"))?;
            storm.and(contradictions)
        })
    }
}

/// Puts frames on the wire that are not to be lost.
fn say(wire: &mut Wire, frames: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    for (n, frame) in frames.enumerate() {
        wire.send(&frame)?;
        if n % BURST == BURST - 1 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

fn contradict(wire: &mut Wire, is_over: &AtomicBool) -> Result<Vec<Contradiction>> {
    let mut all = Vec::new();
    for n in 0..CONTESTED {
        thread::sleep(EVERY);
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let (address, frame) = (contested(n), Arp::announcement(mac(2, n), contested(n)).frame());
        let sent = Instant::now();
        wire.send(&frame)?;
        all.push(Contradiction { address, sent });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_claim_of_a_flood_is_another() {
        let frames: Vec<_> =
            Flood::Rotating.frames((mac(0, 1), own(0))).iter().filter_map(|frame| Arp::read(frame)).collect();
        let claims: BTreeSet<_> = frames.iter().map(|arp| (arp.sender, arp.sender_mac.octets())).collect();
        let stations: BTreeSet<_> = frames.iter().map(|arp| arp.sender_mac.octets()).collect();
        assert_eq!([claims.len(), stations.len()], [CLAIMS as usize; 2]);
        assert!(claims.iter().all(|(address, _)| is_claimed(*address)));
        let others = (0..CONTESTED).flat_map(|n| [contested(n), own(n)]);
        let others: BTreeSet<_> = others.filter(|address| !is_claimed(*address)).collect();
        assert_eq!(others.len(), 2 * CONTESTED as usize);
    }
}

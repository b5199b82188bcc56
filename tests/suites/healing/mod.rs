//! Healing, as those notice it who are there: what goes on, what is dropped, and where everybody is afterwards.

mod brakes;
mod hostile;
mod killed;
mod operators;
mod quarantine;
mod scenarios;
mod tcp;

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use lab::{Arp, Bridge, Datagram, Dupip, MacAddr, Runner, Sandbox, Tap, wait_until};

use crate::{
    agent::{DEADLINE, closed, field, text},
    scenarios::{count, parties, role, told, wait_incident, wait_row, wait_told},
};

const CONTESTED: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);

/// A bridge that keeps its hardware address: one that takes another with each port has everybody forget it each time.
fn steady(address: &str) -> Result<(Bridge, Dupip)> {
    let bridge = Runner::new()?.bridge("rt0", address)?;
    bridge.runner().run(["ip", "link", "set", "rt0", "address", "02:00:00:00:00:01"])?;
    let dupip = Dupip::on(&bridge)?;
    Ok((bridge, dupip))
}

fn runner() -> Result<(Bridge, Dupip)> {
    steady("10.8.64.1/24")
}

/// The hardware address that a neighbour table has for an address; empty if none.
fn cached(neighbours: &str) -> &str {
    neighbours.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap_or_default()
}

fn cached_by_host(bridge: &Bridge, address: Ipv4Addr) -> Result<String> {
    let shown = bridge.runner().run(["ip", "neighbour", "show", &address.to_string(), "dev", bridge.name()])?;
    Ok(cached(&shown).to_owned())
}

fn cached_by(sandbox: &Sandbox, address: Ipv4Addr) -> Result<String> {
    Ok(cached(&sandbox.run(["ip", "neighbour", "show", &address.to_string(), "dev", "eth0"])?).to_owned())
}

/// By which port the bridge reaches a hardware address.
fn forwarded_by(bridge: &Bridge, mac: MacAddr) -> Result<String> {
    let shown = bridge.runner().run(["bridge", "fdb", "get", &mac.to_string(), "br", bridge.name()])?;
    Ok(shown.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap_or_default().to_owned())
}

/// Says these frames at a sandbox's port, in order and between two marks, and tells which of them came to the witness.
fn arrived(speaker: &Sandbox, witness: &Tap, frames: &[Vec<u8>]) -> Result<Vec<bool>> {
    // Nobody has this address, and no kernel sends such an answer by itself.
    let mac = speaker.mac()?;
    let [first, last] =
        [1, 2].map(|number| Arp::reply(mac, [198, 51, 100, number].into(), witness.mac(), CONTESTED).frame());
    let said: Vec<_> = [&first].into_iter().chain(frames).chain([&last]).cloned().collect();
    ensure!(speaker.flood(said)? == frames.len() + 2, "the kernel has no room for the frames");
    // What was said before is not meant.
    witness.receive(DEADLINE, |heard| heard.starts_with(&first).then_some(()))?;
    let mut arrived = vec![false; frames.len()];
    witness.receive(DEADLINE, |heard| {
        for (frame, arrived) in frames.iter().zip(&mut arrived) {
            *arrived |= heard.starts_with(frame);
        }
        heard.starts_with(&last).then_some(())
    })?;
    Ok(arrived)
}

/// What a sandbox may say in the name of an address: by ARP to everybody and to one, and by IPv4.
fn claims(speaker: &Sandbox, witness: &Tap, address: Ipv4Addr) -> Result<[Vec<u8>; 4]> {
    let (mac, nobody) = (speaker.mac()?, Ipv4Addr::new(10, 8, 64, 250));
    let datagram = Datagram::new((mac, address), (witness.mac(), nobody), b"in that name").frame()?;
    Ok([
        Arp::announcement(mac, address).frame(),
        Arp::request(mac, address, nobody).frame(),
        Arp::reply(mac, address, witness.mac(), nobody).frame(),
        datagram,
    ])
}

/// Waits until nothing that a sandbox says in the name of an address comes to others.
fn wait_dumb(speaker: &Sandbox, witness: &Tap, address: Ipv4Addr) -> Result<()> {
    wait_until(DEADLINE, &format!("{} to be dumb at {address}", speaker.name()), || {
        Ok((arrived(speaker, witness, &claims(speaker, witness, address)?)? == [false; 4]).then_some(()))
    })
}

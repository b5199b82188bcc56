//! Frames, as the kernel takes them.

use std::{net::Ipv4Addr, net::UdpSocket};

use anyhow::{Context as _, Result};
use lab::{Arp, Datagram, MacAddr, Tag, tagged, vlan};

use super::{DEADLINE, rt0};

const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 7);

#[test]
fn what_is_written_is_read_with_and_without_a_tag() {
    let arp = Arp::reply(MAC, [10, 8, 64, 7].into(), MacAddr::broadcast(), [0, 0, 0, 0].into());
    assert_eq!((vlan(&arp.frame()), Arp::read(&arp.frame())), (None, Some(arp)));
    assert_eq!((vlan(&arp.tagged(20)), Arp::read(&arp.tagged(20))), (Some(20), Some(arp)));
    let double = tagged(&arp.frame(), &[Tag::Service(30), Tag::Customer(20)]);
    assert_eq!(double.get(12..20), Some(&[0x88, 0xa8, 0, 30, 0x81, 0, 0, 20][..]));
    assert_eq!((vlan(&double), Arp::read(&double)), (Some(30), None));
    assert_eq!(Arp::read(&arp.frame()[..41]), None, "too short");
}

#[test]
fn tags_pass_a_bridge_that_keeps_no_vlans_apart() -> Result<()> {
    let bridge = rt0()?;
    let (sandbox, vm) = (bridge.sandbox("sender").start()?, bridge.tap("vm1")?);
    let arp = Arp::announcement(MAC, [10, 8, 64, 7].into());
    let double = tagged(&arp.frame(), &[Tag::Service(30), Tag::Customer(20)]);
    for frame in [arp.frame(), arp.tagged(20), double] {
        sandbox.send_frame(&frame)?;
        let received = vm.receive(DEADLINE, |heard| heard.starts_with(&frame).then(|| vlan(heard)))?;
        assert_eq!(received, vlan(&frame));
    }
    Ok(())
}

#[test]
fn a_datagram_that_nobody_asked_for_is_taken_by_the_kernel() -> Result<()> {
    let bridge = rt0()?;
    let sandbox = bridge.sandbox("receiver").address("10.8.64.2/24").start()?;
    let vm = bridge.tap("vm1")?;
    let socket = sandbox.inside(|| Ok(UdpSocket::bind("0.0.0.0:9")?))?;
    socket.set_read_timeout(Some(DEADLINE))?;
    let source = Ipv4Addr::new(10, 8, 64, 99);
    for (mac, said) in [(vm.mac(), "from the VM"), (MAC, "from another address")] {
        let datagram = Datagram::new((mac, source), (sandbox.mac()?, [10, 8, 64, 2].into()), said.as_bytes());
        vm.send_frame(&datagram.frame()?)?;
        let mut heard = [0; 64];
        let (length, from) = socket.recv_from(&mut heard).context("nothing is heard")?;
        assert_eq!((&heard[..length], from.ip()), (said.as_bytes(), source.into()));
    }
    Ok(())
}

fn claims(count: u32) -> impl Iterator<Item = Vec<u8>> + Send {
    (0..count).map(|n| Arp::announcement(MAC, (u32::from(Ipv4Addr::new(10, 0, 0, 0)) + n).into()).frame())
}

#[test]
fn a_flood_is_counted_and_comes_out_at_the_port() -> Result<()> {
    let bridge = rt0()?;
    let sandbox = bridge.sandbox("flooder").start()?;
    let received = || {
        let file = format!("/sys/class/net/{}/statistics/rx_packets", sandbox.port());
        Ok::<usize, anyhow::Error>(bridge.runner().run(["cat", &file])?.trim().parse()?)
    };
    let before = received()?;
    assert_eq!(sandbox.flood(claims(200_000))?, 200_000);
    assert!(received()? - before >= 200_000);
    Ok(())
}

#[test]
fn a_vm_may_flood_too() -> Result<()> {
    let bridge = rt0()?;
    let vm = bridge.tap("vm1")?;
    assert_eq!(vm.flood(claims(10_000))?, 10_000);
    let packets = bridge.runner().run(["cat", "/sys/class/net/vm1/statistics/rx_packets"])?;
    assert_eq!(packets.trim(), "10000");
    Ok(())
}

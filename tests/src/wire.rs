//! Frames, as bytes on the wire.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    os::fd::{IntoRawFd as _, RawFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use pnet::{
    datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender},
    packet::{
        Packet as _,
        arp::{ArpOperations, ArpPacket},
        ethernet::{EtherTypes, EthernetPacket},
    },
    util::MacAddr,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, eth, socket_with};

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Hardware type Ethernet, protocol type IPv4, hardware length 6, protocol length 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// An ARP packet for IPv4 over Ethernet (RFC 826) and the frame around it. Every field is open, for packets that no
/// kernel would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// The frame's source.
    pub source: MacAddr,
    /// The frame's destination.
    pub destination: MacAddr,
    /// 1 for a request, 2 for a reply.
    pub operation: u16,
    /// The sender's hardware address.
    pub sender_mac: MacAddr,
    /// The sender's protocol address: what it claims.
    pub sender: Ipv4Addr,
    /// The target's hardware address.
    pub target_mac: MacAddr,
    /// The target's protocol address.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Asks everybody who has `target`, as `sender` at `mac`.
    #[must_use]
    pub fn request(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            source: mac,
            destination: MacAddr::broadcast(),
            operation: ArpOperations::Request.0,
            sender_mac: mac,
            sender,
            target_mac: MacAddr::zero(),
            target,
        }
    }

    /// Asks everybody who has `target` and claims nothing (RFC 5227, section 2.1.1).
    #[must_use]
    pub fn probe(mac: MacAddr, target: Ipv4Addr) -> Self {
        Self::request(mac, Ipv4Addr::UNSPECIFIED, target)
    }

    /// Tells everybody that `mac` has `address` (RFC 5227, section 2.3).
    #[must_use]
    pub fn announcement(mac: MacAddr, address: Ipv4Addr) -> Self {
        Self::request(mac, address, address)
    }

    /// Tells one station, at `target_mac` and `target`, that `mac` has `sender`.
    #[must_use]
    pub fn reply(mac: MacAddr, sender: Ipv4Addr, target_mac: MacAddr, target: Ipv4Addr) -> Self {
        Self {
            destination: target_mac,
            operation: ArpOperations::Reply.0,
            target_mac,
            ..Self::request(mac, sender, target)
        }
    }

    /// The frame, without padding and checksum.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let ethernet = [&self.destination.octets()[..], &self.source.octets(), &ETHERTYPE_ARP];
        let sender = [&self.sender_mac.octets()[..], &self.sender.octets()];
        let target = [&self.target_mac.octets()[..], &self.target.octets()];
        let start = [&ETHERNET_IPV4[..], &self.operation.to_be_bytes()];
        [ethernet.concat(), start.concat(), sender.concat(), target.concat()].concat()
    }
}

/// Puts one frame on an interface of the calling thread's network namespace.
pub(crate) fn send(interface: &str, frame: &[u8]) -> Result<()> {
    let (mut sender, _) = open(interface, None)?;
    put(&mut *sender, frame)
}

/// Sends a probe and collects who answers for its target until the time is over.
pub(crate) fn answers(interface: &str, probe: &Arp, time: Duration) -> Result<BTreeSet<MacAddr>> {
    let (mut sender, mut receiver) = open(interface, Some(Duration::from_millis(20)))?;
    put(&mut *sender, &probe.frame())?;
    let end = Instant::now() + time;
    let mut owners = BTreeSet::new();
    while Instant::now() < end {
        // An error is a quiet moment: the read timed out.
        owners.extend(receiver.next().ok().and_then(|frame| owner(frame, probe.target)));
    }
    Ok(owners)
}

/// Whom `frame` says that `address` belongs to.
fn owner(frame: &[u8], address: Ipv4Addr) -> Option<MacAddr> {
    let frame = EthernetPacket::new(frame).filter(|frame| frame.get_ethertype() == EtherTypes::Arp)?;
    let reply = ArpPacket::new(frame.payload()).filter(|packet| packet.get_operation() == ArpOperations::Reply)?;
    (reply.get_sender_proto_addr() == address).then(|| reply.get_sender_hw_addr())
}

fn put(sender: &mut dyn DataLinkSender, frame: &[u8]) -> Result<()> {
    sender.send_to(frame, None).context("no room for the frame")?.context("the kernel does not send the frame")
}

fn open(name: &str, timeout: Option<Duration>) -> Result<(Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>)> {
    let interface = datalink::interfaces().into_iter().find(|interface| interface.name == name);
    let interface = interface.with_context(|| format!("there is no interface {name} here"))?;
    let config =
        Config { read_timeout: timeout, promiscuous: false, socket_fd: Some(packet_socket()?), ..Config::default() };
    match datalink::channel(&interface, config).with_context(|| format!("cannot open a packet socket on {name}"))? {
        Channel::Ethernet(sender, receiver) => Ok((sender, receiver)),
        _ => bail!("{name} is not an Ethernet interface"),
    }
}

/// Pnet's own socket would be inherited by whatever another thread starts meanwhile, and keep the namespace alive there.
fn packet_socket() -> Result<RawFd> {
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, Some(eth::ALL))?;
    Ok(socket.into_raw_fd())
}

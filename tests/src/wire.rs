//! Frames, as bytes on the wire.

use std::{
    collections::BTreeSet,
    io::IoSlice,
    net::Ipv4Addr,
    os::fd::{IntoRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use pnet::{
    datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender},
    packet::{
        Packet as _,
        arp::{ArpOperations, ArpPacket},
        ethernet::{EtherTypes, EthernetPacket},
        ipv4::{self, Ipv4Packet},
        udp::{self, UdpPacket},
        vlan::VlanPacket,
    },
    util::MacAddr,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{
        AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, eth, sendmmsg, socket_with,
    },
};

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// Hardware type Ethernet, protocol type IPv4, hardware length 6, protocol length 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// The length of a frame's destination and source.
const ADDRESSES: usize = 12;
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// How many frames that nobody has read yet are looked through when the time for answers is over.
const BACKLOG: usize = 256;
/// How many frames go to the kernel in one system call.
const BATCH: usize = 64;

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

    /// The frame with a tag of 802.1Q; for more, see [`tagged`].
    #[must_use]
    pub fn tagged(&self, vlan: u16) -> Vec<u8> {
        tagged(&self.frame(), &[Tag::Customer(vlan)])
    }

    /// Reads a frame of ARP for IPv4 over Ethernet, with at most one tag. `None` for every other.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let ethernet = EthernetPacket::new(frame)?;
        let inner = VlanPacket::new(ethernet.payload()).filter(|_| ethernet.get_ethertype() == EtherTypes::Vlan);
        let kind = inner.as_ref().map_or(ethernet.get_ethertype(), VlanPacket::get_ethertype);
        let payload = inner.as_ref().map_or(ethernet.payload(), |inner| inner.payload());
        let arp = ArpPacket::new(payload).filter(|_| kind == EtherTypes::Arp)?;
        (payload.starts_with(&ETHERNET_IPV4)).then(|| Self {
            source: ethernet.get_source(),
            destination: ethernet.get_destination(),
            operation: arp.get_operation().0,
            sender_mac: arp.get_sender_hw_addr(),
            sender: arp.get_sender_proto_addr(),
            target_mac: arp.get_target_hw_addr(),
            target: arp.get_target_proto_addr(),
        })
    }

    /// Whether it asks (operation 1), be it as a probe, an announcement or a question.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.operation == ArpOperations::Request.0
    }

    /// Whether it answers (operation 2).
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.operation == ArpOperations::Reply.0
    }
}

/// A VLAN tag: the id, below 4096, with priority 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// 802.1Q, ethertype 0x8100.
    Customer(u16),
    /// 802.1ad, ethertype 0x88a8: the outer one of two.
    Service(u16),
}

/// `frame` with tags between its source and its ethertype, the outermost first: `[Service(30), Customer(20)]` is QinQ. What
/// is too short to have a source stays as it is.
#[must_use]
pub fn tagged(frame: &[u8], tags: &[Tag]) -> Vec<u8> {
    let Some((addresses, rest)) = frame.split_at_checked(ADDRESSES) else { return frame.to_vec() };
    let tags = tags.iter().flat_map(|tag| tag.bytes());
    addresses.iter().copied().chain(tags).chain(rest.iter().copied()).collect()
}

/// The id of a frame's outermost tag, if it has one.
#[must_use]
pub fn vlan(frame: &[u8]) -> Option<u16> {
    let ethernet = EthernetPacket::new(frame)?;
    let has_tag = [EtherTypes::Vlan, EtherTypes::QinQ, EtherTypes::PBridge].contains(&ethernet.get_ethertype());
    VlanPacket::new(ethernet.payload()).filter(|_| has_tag).map(|tag| tag.get_vlan_identifier())
}

impl Tag {
    fn bytes(self) -> [u8; 4] {
        let (kind, id) = match self {
            Self::Customer(id) => (EtherTypes::Vlan, id),
            Self::Service(id) => (EtherTypes::PBridge, id),
        };
        let ([first, second], [third, fourth]) = (kind.0.to_be_bytes(), id.to_be_bytes());
        [first, second, third, fourth]
    }
}

/// A datagram over IPv4 (RFC 768, RFC 791) in a frame that nobody asked for by ARP. Every field is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The frame's source.
    pub source_mac: MacAddr,
    /// The frame's destination.
    pub destination_mac: MacAddr,
    /// The sender's protocol address.
    pub source: Ipv4Addr,
    /// The receiver's protocol address.
    pub destination: Ipv4Addr,
    /// Both ports of UDP.
    pub port: u16,
    /// What is said, up to some 1400 bytes.
    pub payload: Vec<u8>,
}

impl Datagram {
    /// To the port of `discard` (9), so that whoever gets it need not answer.
    #[must_use]
    pub fn new(from: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr), payload: &[u8]) -> Self {
        let ((source_mac, source), (destination_mac, destination)) = (from, to);
        Self { source_mac, destination_mac, source, destination, port: 9, payload: payload.to_vec() }
    }

    /// The frame, with both checksums right.
    ///
    /// # Errors
    /// If the payload is too long for a packet.
    pub fn frame(&self) -> Result<Vec<u8>> {
        let udp = self.udp()?;
        let length = u16::try_from(IPV4_HEADER + udp.len())?.to_be_bytes();
        let (source, destination) = (self.source.octets(), self.destination.octets());
        // Version 4, five words; don't fragment; 64 hops, protocol 17; the checksum comes after.
        let mut ip = [&[0x45, 0][..], &length, &[0, 0, 0x40, 0, 64, 17, 0, 0], &source, &destination].concat();
        let sum = Ipv4Packet::new(&ip).map(|packet| ipv4::checksum(&packet)).context("no header")?;
        ip.splice(10..12, sum.to_be_bytes());
        let ethernet = [&self.destination_mac.octets()[..], &self.source_mac.octets(), &ETHERTYPE_IPV4];
        Ok([ethernet.concat(), ip, udp].concat())
    }

    fn udp(&self) -> Result<Vec<u8>> {
        let (port, length) = (self.port.to_be_bytes(), u16::try_from(UDP_HEADER + self.payload.len())?.to_be_bytes());
        let mut udp = [&port[..], &port, &length, &[0, 0], &self.payload].concat();
        let sum = UdpPacket::new(&udp).map(|packet| udp::ipv4_checksum(&packet, &self.source, &self.destination));
        udp.splice(6..8, sum.context("no header")?.to_be_bytes());
        Ok(udp)
    }
}

/// A sandbox's way onto the wire. It keeps the namespace alive.
pub struct Wire {
    sender: Box<dyn DataLinkSender>,
}

impl Wire {
    pub(crate) fn open(interface: &str) -> Result<Self> {
        Ok(Self { sender: open(interface, None)?.0 })
    }

    /// Sends a frame as it is. When this returns, the bridge has passed it on.
    ///
    /// # Errors
    /// If the link is down.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        put(&mut *self.sender, frame)
    }
}

/// Puts frames on an interface of the calling thread's network namespace through one socket, and tells how many the kernel
/// took. What it had no room for (a full queue) is not sent again.
pub(crate) fn flood(interface: &str, frames: impl IntoIterator<Item = Vec<u8>>) -> Result<usize> {
    let socket = packet_socket()?;
    let bound = bind(interface, None, socket.try_clone()?)?;
    let mut frames = frames.into_iter();
    let mut taken = 0;
    loop {
        let batch: Vec<_> = frames.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            drop(bound);
            return Ok(taken);
        }
        taken += put_all(&socket, &batch)?;
    }
}

/// Sends a batch, past the frames that the kernel refuses for want of room; tells how many it took.
fn put_all(socket: &OwnedFd, batch: &[Vec<u8>]) -> Result<usize> {
    let (mut rest, mut taken) = (batch, 0);
    while !rest.is_empty() {
        let step = match put_some(socket, rest) {
            Ok(sent) => {
                taken += sent;
                sent
            }
            Err(Errno::NOBUFS) => 1,
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(socket, PollFlags::OUT)], None)?;
                0
            }
            Err(error) => return Err(error).context("the kernel does not send the frames"),
        };
        rest = rest.get(step..).unwrap_or_default();
    }
    Ok(taken)
}

/// One system call for all of them; tells how many went.
fn put_some(socket: &OwnedFd, frames: &[Vec<u8>]) -> rustix::io::Result<usize> {
    let slices: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
    let mut controls: Vec<_> = frames.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let messages = slices.iter().zip(&mut controls).map(|(slice, control)| MMsgHdr::new(slice, control));
    sendmmsg(socket, &mut messages.collect::<Vec<_>>(), SendFlags::empty())
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
    let mut late = 0;
    // What has come in time may be read late, if others have the processors meanwhile.
    while late < BACKLOG {
        let is_over = Instant::now() >= end;
        late += usize::from(is_over);
        match receiver.next() {
            Ok(frame) => owners.extend(owner(frame, probe.target)),
            Err(_) if is_over => break,
            // A quiet moment: the read timed out.
            Err(_) => {}
        }
    }
    Ok(owners)
}

/// Whom `frame` says that `address` belongs to.
fn owner(frame: &[u8], address: Ipv4Addr) -> Option<MacAddr> {
    Arp::read(frame).filter(|arp| arp.is_reply() && arp.sender == address).map(|arp| arp.sender_mac)
}

fn put(sender: &mut dyn DataLinkSender, frame: &[u8]) -> Result<()> {
    sender.send_to(frame, None).context("no room for the frame")?.context("the kernel does not send the frame")
}

type Channels = (Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>);

fn open(name: &str, timeout: Option<Duration>) -> Result<Channels> {
    bind(name, timeout, packet_socket()?)
}

fn bind(name: &str, timeout: Option<Duration>, socket: OwnedFd) -> Result<Channels> {
    let interface = datalink::interfaces().into_iter().find(|interface| interface.name == name);
    let interface = interface.with_context(|| format!("there is no interface {name} here"))?;
    let config = Config {
        read_timeout: timeout,
        promiscuous: false,
        socket_fd: Some(socket.into_raw_fd()),
        ..Config::default()
    };
    match datalink::channel(&interface, config).with_context(|| format!("cannot open a packet socket on {name}"))? {
        Channel::Ethernet(sender, receiver) => Ok((sender, receiver)),
        _ => bail!("{name} is not an Ethernet interface"),
    }
}

/// Pnet's own socket would be inherited by whatever another thread starts meanwhile, and keep the namespace alive there.
fn packet_socket() -> Result<OwnedFd> {
    Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, Some(eth::ALL))?)
}

//! Asks a bridge who uses an address, and waits for the answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};

use super::{
    Side,
    frame_sender::{FrameSender, SendError},
    packet_socket::{drops_of, hear_arp, make_room, receive, tell_tags},
};
use crate::net::{ArpPacket, ClaimKind, IfIndex, Mac, VlanId};

/// Probes that go out together, and the pause after them: more would fill the queues of the bridge's ports.
const BURST: usize = 64;
const PAUSE: Duration = Duration::from_millis(5);

/// As much as a flood brings until it is read, in bytes.
const BUFFER: libc::c_int = 4 << 20;

/// More frames than the socket's buffer has room for: so many were there when the time was over, at most.
const QUEUE: usize = 16 * 1024;

/// How often to ask, and how long to wait for an answer each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// How many probes; at least one goes out.
    pub count: u32,
    /// From one probe to the next, and from the last one to the end.
    pub interval: Duration,
}

impl Default for Probing {
    /// Two probes, 20 ms apart. RFC 5227 waits for seconds, since it does not know what is between it and the others; here
    /// that is one bridge.
    fn default() -> Self {
        Self { count: 2, interval: Duration::from_millis(20) }
    }
}

/// Why it cannot be said whether an address is in use.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The probe cannot be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The answers cannot be heard.
    #[error("cannot listen for ARP: {0}")]
    Listen(#[source] io::Error),
    /// There was more ARP than could be read in time, so an answer may be among what was lost.
    #[error("{0} ARP packets were lost while waiting for an answer: something floods the bridge")]
    Flooded(u64),
}

/// Asks on one bridge. Blocks for as long as it asks.
#[derive(Debug)]
pub struct Prober {
    bridge: IfIndex,
    mac: Mac,
    own: BTreeSet<Mac>,
    sender: FrameSender,
    heard: OwnedFd,
}

/// An ARP packet, with the VLAN that it came by.
struct Heard {
    packet: ArpPacket,
    vlan: Option<VlanId>,
}

impl Prober {
    /// Asks on `bridge`, as `mac`, in the network namespace of the calling thread. Nobody in `own` is a stranger.
    ///
    /// # Errors
    /// When the process may not have packet sockets, or the bridge is gone.
    pub fn open(bridge: IfIndex, mac: Mac, own: BTreeSet<Mac>) -> Result<Self, ProbeError> {
        let sender = FrameSender::open()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0 hears nothing before it is bound to the bridge, and so nothing of other interfaces.
        let heard = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None);
        let heard = heard.map_err(|errno| ProbeError::Listen(errno.into()))?;
        let ready = make_room(&heard, BUFFER)
            .and_then(|()| tell_tags(&heard))
            .and_then(|()| hear_arp(&heard, bridge, Side::Ingress));
        ready.map_err(ProbeError::Listen)?;
        Ok(Self { bridge, mac, own: own.into_iter().chain([mac]).collect(), sender, heard })
    }

    /// Who uses `address`, if anybody does: whoever answers, claims it or asks for it by a probe of its own (RFC 5227,
    /// section 2.1.1) while we ask. Comes back with the first one.
    ///
    /// # Errors
    /// When the bridge is gone or down, or answers may have been lost.
    pub fn ask(&self, address: Ipv4Addr, vlan: Option<VlanId>, probing: Probing) -> Result<Option<Mac>, ProbeError> {
        let mut user = None;
        self.listen_while_asking(&[address], vlan, probing, |heard| {
            user = self.uses(heard, vlan).filter(|(used, _)| *used == address).map(|(_, mac)| mac);
            user.is_some()
        })?;
        Ok(user)
    }

    /// Everybody who uses one of `addresses`, as in [`ask`](Self::ask); addresses that nobody uses are left out.
    ///
    /// # Errors
    /// As in [`ask`](Self::ask).
    pub fn ask_many(
        &self,
        addresses: &[Ipv4Addr],
        vlan: Option<VlanId>,
        probing: Probing,
    ) -> Result<BTreeMap<Ipv4Addr, BTreeSet<Mac>>, ProbeError> {
        let asked: BTreeSet<_> = addresses.iter().collect();
        let mut users: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        self.listen_while_asking(addresses, vlan, probing, |heard| {
            if let Some((address, mac)) = self.uses(heard, vlan).filter(|(used, _)| asked.contains(used)) {
                users.entry(address).or_default().insert(mac);
            }
            false
        })?;
        Ok(users)
    }

    /// Sends the probes and hands over what is heard, until that is enough or the time is over.
    fn listen_while_asking(
        &self,
        addresses: &[Ipv4Addr],
        vlan: Option<VlanId>,
        probing: Probing,
        mut enough: impl FnMut(&Heard) -> bool,
    ) -> Result<(), ProbeError> {
        self.forget();
        for _ in 0..probing.count.max(1) {
            for burst in addresses.chunks(BURST) {
                for address in burst {
                    let probe = ArpPacket::probe(self.mac, *address);
                    self.sender.send(self.bridge, &probe.broadcast_frame(vlan))?;
                }
                if addresses.len() > BURST {
                    thread::sleep(PAUSE);
                }
            }
            if self.listen(Instant::now() + probing.interval, &mut enough)? {
                return Ok(());
            }
        }
        match drops_of(&self.heard).map_err(ProbeError::Listen)? {
            0 => Ok(()),
            lost => Err(ProbeError::Flooded(lost)),
        }
    }

    /// Which address a packet shows in use, and by whom, if it is not one of us and in the right VLAN.
    fn uses(&self, heard: &Heard, vlan: Option<VlanId>) -> Option<(Ipv4Addr, Mac)> {
        let ArpPacket { sender_mac, sender, target, .. } = heard.packet;
        let address = if heard.packet.kind() == ClaimKind::Probe { target } else { sender };
        (heard.vlan == vlan && !self.own.contains(&sender_mac)).then_some((address, sender_mac))
    }

    /// Reads away what came before there was a question.
    fn forget(&self) {
        let _ = self.listen(Instant::now(), &mut |_| false);
        let _ = drops_of(&self.heard);
    }

    /// Hands over what comes before `end`, read by then or not; `true` if that was enough. A flood that does not stop
    /// keeps nobody longer than it takes to read what was there at the end.
    fn listen(&self, end: Instant, enough: &mut impl FnMut(&Heard) -> bool) -> Result<bool, ProbeError> {
        let mut late = 0;
        while late < QUEUE {
            match self.read() {
                Ok(Some(heard)) if enough(&heard) => return Ok(true),
                Err(Errno::EAGAIN) if !self.wait(end)? => return Ok(false),
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                // The bridge went down; what is sent next says so, too.
                Err(Errno::ENETDOWN) => return Err(SendError::Down { port: self.bridge }.into()),
                Err(errno) => return Err(ProbeError::Listen(errno.into())),
            }
            late += usize::from(Instant::now() >= end);
        }
        Ok(false)
    }

    /// Waits until something has come; `false` if the time is over.
    fn wait(&self, end: Instant) -> Result<bool, ProbeError> {
        let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
            return Ok(false);
        };
        let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.heard, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(true),
            Err(errno) => Err(ProbeError::Listen(errno.into())),
        }
    }

    /// One frame, if it is a sound ARP packet.
    fn read(&self) -> nix::Result<Option<Heard>> {
        let frame = receive(&self.heard)?;
        let vlan = frame.tag.and_then(|tag| VlanId::new(tag & 0x0fff));
        Ok(ArpPacket::parse(frame.bytes()).map(|packet| Heard { packet, vlan }))
    }
}

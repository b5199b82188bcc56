//! What changes: links, ports and addresses, here and in every namespace that has a veth to here.

use std::{
    collections::VecDeque,
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd as _, RawFd},
};

use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{InfoKind, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use tokio::io::unix::AsyncFd;

use super::{
    Error, addresses,
    links::{self, Bridge, Port},
    netns::Nsid,
    vlans::{self, Vlans},
    wire::messages,
};
use crate::net::{IfIndex, Ipv4Net, Mac};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_NSID` and `RTNLGRP_BRVLAN` (`include/uapi/linux/rtnetlink.h`).
const GROUPS: [u32; 4] = [1, 5, 28, 33];
/// `NETLINK_LISTEN_ALL_NSID` (`include/uapi/linux/netlink.h`), the option and the control message.
const LISTEN_ALL_NSID: libc::c_int = 8;
/// Bytes that may wait in the socket. A thousand sandboxes started at once stay well below it.
const RECEIVE_BUFFER: usize = 32 << 20;
/// Bytes for one datagram; a notification is one message of 1 to 2 KiB.
const DATAGRAM: usize = 64 << 10;

/// Something that the kernel said has changed. Indexes are those of the namespace that the event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A bridge in the agent's namespace is new or has changed. If whether it filters VLANs has changed, all of its ports
    /// must be looked at anew.
    BridgeUp(Bridge),
    /// A bridge in the agent's namespace is gone. Its ports were told of before.
    BridgeGone(Bridge),
    /// A port, of any bridge here, is new or has changed. Comes with the first word of the kernel that it is a port;
    /// may come again with nothing new.
    PortUp(Port),
    /// An interface here is no port of `bridge` any more: deleted, moved away or taken out.
    PortDown {
        /// The port.
        index: IfIndex,
        /// The bridge that it left.
        bridge: IfIndex,
    },
    /// The VLANs of a port here, or of a bridge itself, have changed, and with them perhaps where its untagged frames
    /// belong. Means nothing if the bridge filters no VLANs; the kernel tells of them all the same for each new port.
    VlansChanged {
        /// The port, or the bridge.
        index: IfIndex,
    },
    /// A VLAN device here is new, has changed, or is gone.
    VlanDeviceChanged {
        /// What it stands on: a bridge perhaps.
        on: IfIndex,
        /// The device itself.
        index: IfIndex,
    },
    /// An address was put on an interface.
    AddressAdded {
        /// Whose interface; `None` is the agent's own namespace.
        nsid: Option<Nsid>,
        /// The interface in that namespace.
        index: IfIndex,
        /// The address and its prefix length.
        address: Ipv4Net,
    },
    /// An address was taken off an interface. The same address may still be there with another prefix length.
    AddressRemoved {
        /// Whose interface; `None` is the agent's own namespace.
        nsid: Option<Nsid>,
        /// The interface in that namespace.
        index: IfIndex,
        /// The address and its prefix length.
        address: Ipv4Net,
    },
    /// An interface in another namespace is new or has changed.
    PeerChanged {
        /// The namespace.
        nsid: Nsid,
        /// The interface there.
        index: IfIndex,
        /// Its hardware address.
        mac: Mac,
        /// Whether it is set up.
        up: bool,
    },
    /// The agent's namespace has no such id any more; it may be given to another namespace next.
    NetnsGone(Nsid),
    /// The socket's buffer was full and events were lost: everything must be read anew. What comes after this event
    /// is complete again.
    Overflow,
}

/// A subscription to [`Event`]s. Open it before the first survey, so that nothing falls between the two.
pub struct Events {
    socket: AsyncFd<Socket>,
    waiting: VecDeque<Event>,
    buffer: Vec<u8>,
    malformed: u64,
}

impl Events {
    /// Subscribes in the network namespace of the calling thread. Needs the Tokio runtime's context.
    ///
    /// # Errors
    /// [`Error::Open`] if the kernel does not let us: other namespaces' events take CAP_NET_BROADCAST, the large buffer
    /// CAP_NET_ADMIN.
    pub fn open() -> Result<Self, Error> {
        let socket = subscribe().and_then(register).map_err(Error::Open)?;
        Ok(Self { socket, waiting: VecDeque::new(), buffer: vec![0; DATAGRAM], malformed: 0 })
    }

    /// The next event. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`Error::Socket`] if the socket itself fails; it is of no more use then.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            self.receive().await.map_err(|source| Error::Socket { what: "hear of changes", source })?;
        }
    }

    /// How many messages were passed over because they could not be decoded.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    async fn receive(&mut self) -> io::Result<()> {
        let mut ready = self.socket.readable().await?;
        let result = ready.try_io(|socket| receive(socket.as_raw_fd(), &mut self.buffer));
        match result {
            Ok(Ok(datagram)) => self.take(datagram),
            Ok(Err(error)) if lost(&error) => self.start_over()?,
            Ok(Err(error)) => return Err(error),
            Err(_not_ready) => {}
        }
        Ok(())
    }

    fn take(&mut self, datagram: Datagram) {
        let bytes = self.buffer.get(..datagram.len).unwrap_or_default();
        for told in told(bytes, datagram.nsid) {
            match told {
                Ok(event) => self.waiting.extend(event),
                Err(_) => self.malformed = self.malformed.saturating_add(1),
            }
        }
    }

    /// Throws away what still waits. The kernel drops every new message until the reader has emptied the socket
    /// (`netlink_overrun` and `netlink_rcv_wake` in `net/netlink/af_netlink.c`), so only then has a new look at
    /// everything a chance to miss nothing.
    fn start_over(&mut self) -> io::Result<()> {
        loop {
            match receive(self.socket.as_raw_fd(), &mut self.buffer) {
                Ok(_) => {}
                Err(error) if lost(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.waiting.push_back(Event::Overflow);
        Ok(())
    }
}

/// A message of a kind that was subscribed to.
enum Heard {
    Route(RouteNetlinkMessage),
    Vlans(Vlans),
}

impl NetlinkDeserializable for Heard {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        match header.message_type {
            vlans::NEW | vlans::DELETED => Vlans::deserialize(header, payload).map(Self::Vlans),
            _ => RouteNetlinkMessage::deserialize(header, payload).map(Self::Route),
        }
    }
}

fn subscribe() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
    socket.set_listen_all_namespaces(true)?;
    socket.bind_auto()?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

#[expect(unsafe_code, reason = "the runtime must be told of a file descriptor that it does not own")]
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: `socket` owns its file descriptor and closes it only when it is dropped, together with the `AsyncFd`.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

fn lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// What each message of a datagram says, if it is news to us.
pub(super) fn told(datagram: &[u8], nsid: Option<Nsid>) -> impl Iterator<Item = Result<Option<Event>, DecodeError>> {
    messages(datagram).map(move |message| {
        Ok(match message?.payload {
            NetlinkPayload::InnerMessage(Heard::Route(message)) => event(&message, nsid),
            NetlinkPayload::InnerMessage(Heard::Vlans(vlans)) => vlans_changed(&vlans, nsid),
            _ => None,
        })
    })
}

/// What a message says, if it is news to us. `nsid` is the namespace that it comes from; `None` is our own.
fn event(message: &RouteNetlinkMessage, nsid: Option<Nsid>) -> Option<Event> {
    match (message, nsid) {
        (RouteNetlinkMessage::NewLink(link), None) if links::is_plain(link) => changed(link),
        (RouteNetlinkMessage::DelLink(link), None) if links::is_plain(link) => gone(link),
        (RouteNetlinkMessage::DelLink(link), None) => port_down(link),
        (RouteNetlinkMessage::NewLink(link), Some(nsid)) if links::is_plain(link) => peer_changed(link, nsid),
        (RouteNetlinkMessage::NewAddress(address), _) => {
            address_of(address).map(|(index, address)| Event::AddressAdded { nsid, index, address })
        }
        (RouteNetlinkMessage::DelAddress(address), _) => {
            address_of(address).map(|(index, address)| Event::AddressRemoved { nsid, index, address })
        }
        (RouteNetlinkMessage::DelNsId(gone), None) => netns_gone(gone),
        _ => None,
    }
}

fn changed(link: &LinkMessage) -> Option<Event> {
    let port = || Port::of(link).map(Event::PortUp);
    port().or_else(|| Bridge::of(link).map(Event::BridgeUp)).or_else(|| vlan_device(link))
}

fn gone(link: &LinkMessage) -> Option<Event> {
    Bridge::of(link).map(Event::BridgeGone).or_else(|| vlan_device(link))
}

fn vlan_device(link: &LinkMessage) -> Option<Event> {
    let is_one = links::kind(link) == Some(&InfoKind::Vlan);
    is_one.then_some(Event::VlanDeviceChanged { on: links::lower(link)?, index: links::index(link)? })
}

/// A bridge in another namespace has VLANs of its own.
fn vlans_changed(vlans: &Vlans, nsid: Option<Nsid>) -> Option<Event> {
    match nsid {
        None => vlans.interface.map(|index| Event::VlansChanged { index }),
        Some(_) => None,
    }
}

/// A bridge says itself which port left it, however it left (`del_nbp` in `net/bridge/br_if.c`).
fn port_down(link: &LinkMessage) -> Option<Event> {
    let of_bridge = link.header.interface_family == AddressFamily::Bridge;
    of_bridge.then_some(Event::PortDown { index: links::index(link)?, bridge: links::master(link)? })
}

fn peer_changed(link: &LinkMessage, nsid: Nsid) -> Option<Event> {
    let index = links::index(link)?;
    Some(Event::PeerChanged { nsid, index, mac: links::mac(link), up: links::is_up(link) })
}

fn address_of(address: &AddressMessage) -> Option<(IfIndex, Ipv4Net)> {
    Some((IfIndex::new(address.header.index)?, addresses::network(address)?))
}

fn netns_gone(message: &NsidMessage) -> Option<Event> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) if *id >= 0 => Some(Event::NetnsGone(Nsid(*id))),
        _ => None,
    })
}

/// How much of the buffer a datagram filled, and which namespace it comes from.
struct Datagram {
    len: usize,
    nsid: Option<Nsid>,
}

/// Control messages are read as C structures, so their buffer is aligned like one.
#[repr(align(8))]
struct Control([u8; 128]);

/// Receives one datagram without waiting. Own code, because no library hands out this control message.
#[expect(unsafe_code, reason = "recvmsg and the walk over its control messages have no safe binding")]
fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut control = Control([0; 128]);
    let mut parts = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is a C structure of integers and pointers, for which all zeros is a valid value.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut parts;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = size_of::<Control>() as _;
    // SAFETY: `header` names `buffer` and `control` with their true lengths, and both outlive the call.
    let len = unsafe { libc::recvmsg(socket, &raw mut header, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled `header`, which still names `control`, and set how much of it is in use.
    let nsid = unsafe { nsid_in(&header) };
    Ok(Datagram { len, nsid })
}

/// The namespace's id among the control messages of `header`; the kernel adds it only for other namespaces
/// (`netlink_cmsg_listen_all_nsid`).
///
/// # Safety
/// `header` must have been filled by recvmsg, and its control buffer must still be there.
#[expect(unsafe_code, reason = "recvmsg and the walk over its control messages have no safe binding")]
unsafe fn nsid_in(header: &libc::msghdr) -> Option<Nsid> {
    // SAFETY: as the caller promises.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: the two macros yield null or a header that lies within the control buffer.
    while let Some(control) = unsafe { message.as_ref() } {
        if (control.cmsg_level, control.cmsg_type) == (libc::SOL_NETLINK, LISTEN_ALL_NSID) {
            // SAFETY: the kernel puts an `int` into this control message; it need not be aligned for one.
            return Some(Nsid(unsafe { libc::CMSG_DATA(control).cast::<i32>().read_unaligned() }));
        }
        // SAFETY: as the caller promises, and `control` is a header of this buffer.
        message = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    None
}

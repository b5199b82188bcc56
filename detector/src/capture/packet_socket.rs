//! What packet sockets can do and no library in use says (`packet(7)`).

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::Side;
use crate::net::IfIndex;

#[expect(clippy::cast_possible_truncation, reason = "address families are small numbers")]
const FAMILY: libc::sa_family_t = libc::AF_PACKET as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "the structure has 20 bytes")]
const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
#[expect(clippy::cast_possible_truncation, reason = "EtherTypes have 16 bits")]
const ALL: u16 = libc::ETH_P_ALL as u16;

/// Where a classic filter finds the packet's type (`SKF_AD_OFF + SKF_AD_PKTTYPE` in `include/uapi/linux/filter.h`).
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// Where the EtherType is, if there is no tag before it or the kernel has taken that off; it comes later by as much as a tag
/// takes for each that is left.
const ETHERTYPE: u32 = 12;
const TAG_LEN: u32 = 4;
/// Of each frame, as much as an ARP packet behind two tags takes.
const FRAME: u32 = 64;

/// How many instructions [`arp_of`] has.
const INSTRUCTIONS: libc::c_ushort = 14;
const ACCEPT: u8 = 12;
const DROP: u8 = 13;

/// ARP behind at most two tags, that came in by the interface or that went out by it.
const fn arp_of(side: Side) -> [libc::sock_filter; INSTRUCTIONS as usize] {
    const ARP: u32 = libc::ETH_P_ARP as u32;
    const VLAN: u32 = libc::ETH_P_8021Q as u32;
    const PROVIDER_VLAN: u32 = libc::ETH_P_8021AD as u32;
    let is_outgoing = match side {
        Side::Ingress => [DROP, 2],
        Side::Egress => [2, DROP],
    };
    [
        load(PACKET_TYPE),
        go(1, libc::PACKET_OUTGOING as u32, is_outgoing),
        load(ETHERTYPE),
        go(3, ARP, [ACCEPT, 4]),
        go(4, VLAN, [6, 5]),
        go(5, PROVIDER_VLAN, [6, DROP]),
        load(ETHERTYPE + TAG_LEN),
        go(7, ARP, [ACCEPT, 8]),
        go(8, VLAN, [10, 9]),
        go(9, PROVIDER_VLAN, [10, DROP]),
        load(ETHERTYPE + 2 * TAG_LEN),
        go(11, ARP, [ACCEPT, DROP]),
        instruction(libc::BPF_RET | libc::BPF_K, FRAME, [0, 0]),
        instruction(libc::BPF_RET | libc::BPF_K, 0, [0, 0]),
    ]
}

/// What the kernel tells beside a frame, where it may write it: `struct tpacket_auxdata` and `struct timespec`, each behind
/// a header.
#[repr(align(8))]
struct Told([u8; 128]);

/// A frame, or its beginning.
pub(super) struct HeardFrame {
    bytes: [u8; FRAME as usize],
    len: usize,
    /// The control word of the outermost VLAN tag, if the kernel has taken that off.
    pub(super) tag: Option<u16>,
    /// When it came, since 1970, if the socket was asked to tell.
    pub(super) came: Option<Duration>,
}

impl HeardFrame {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl detector_ebpf::Frame for HeardFrame {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes().get(offset..)?.first_chunk().copied()
    }

    fn taken_tag(&self) -> Option<u16> {
        self.tag
    }
}

/// The next frame.
pub(super) fn receive(socket: &OwnedFd) -> nix::Result<HeardFrame> {
    let (mut bytes, mut told) = ([0; _], Told([0; _]));
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let read = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut told.0), MsgFlags::empty())?;
    let (mut tag, mut came) = (None, None);
    for told in read.cmsgs()? {
        tag = tag.or_else(|| tag_of(&told));
        came = came.or_else(|| time_of(&told));
    }
    let len = read.bytes;
    Ok(HeardFrame { bytes, len, tag, came })
}

/// The tag that the kernel has taken off (`struct tpacket_auxdata`, `include/uapi/linux/if_packet.h`).
fn tag_of(told: &ControlMessageOwned) -> Option<u16> {
    let ControlMessageOwned::Unknown(told) = told else { return None };
    let status = u32::from_ne_bytes(told.data_bytes.get(..4)?.try_into().ok()?);
    let tag = u16::from_ne_bytes(told.data_bytes.get(16..18)?.try_into().ok()?);
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(tag)
}

fn time_of(told: &ControlMessageOwned) -> Option<Duration> {
    let ControlMessageOwned::ScmTimestampns(time) = told else { return None };
    Some(Duration::new(time.tv_sec().try_into().ok()?, time.tv_nsec().try_into().ok()?))
}

/// Sends `frame` out of `port`. It brings its own addresses, and protocol 0 lets the kernel find the EtherType in it
/// (`packet_parse_headers` in `net/packet/af_packet.c`).
#[expect(unsafe_code, reason = "no library in use makes a link-layer socket address")]
pub(super) fn send_to(socket: &OwnedFd, port: IfIndex, frame: &[u8]) -> io::Result<()> {
    let to = link_address(port, 0);
    // SAFETY: both pointers are to live borrows, each passed with the length of what it points to, and the kernel only
    // reads them.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            std::ptr::from_ref(&to).cast(),
            ADDRESS_LEN,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the socket hear the ARP that comes in by `port`, or goes out by it, as it is.
///
/// It listens to everything and lets a filter pick the ARP: before the kernel hands a frame to those who listen to ARP
/// only, it takes a VLAN's tag away without a trace (`__netif_receive_skb_core` in `net/core/dev.c`).
pub(super) fn hear_arp(socket: &OwnedFd, port: IfIndex, side: Side) -> io::Result<()> {
    keep_only(socket, &arp_of(side))?;
    bind_to(socket, port)
}

#[expect(unsafe_code, reason = "no library in use makes a link-layer socket address")]
fn bind_to(socket: &OwnedFd, port: IfIndex) -> io::Result<()> {
    let address = link_address(port, ALL);
    // SAFETY: the pointer is to a live borrow, passed with its length, and the kernel only reads it.
    done(unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), ADDRESS_LEN) })
}

/// Has the socket hear only what `program` lets through (`SO_ATTACH_FILTER`).
#[expect(unsafe_code, reason = "no library in use attaches a classic filter")]
fn keep_only(socket: &OwnedFd, program: &[libc::sock_filter; INSTRUCTIONS as usize]) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "the structure has 16 bytes")]
    const LEN: libc::socklen_t = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let program = libc::sock_fprog { len: INSTRUCTIONS, filter: program.as_ptr().cast_mut() };
    // SAFETY: the pointer is to a live borrow, passed with its length; `filter` points to as many live instructions as
    // `len` says, which the kernel copies and does not write to.
    done(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&program).cast(),
            LEN,
        )
    })
}

/// Has the kernel tell, with each frame, the VLAN tag that it has taken off (`PACKET_AUXDATA`).
pub(super) fn tell_tags(socket: &OwnedFd) -> io::Result<()> {
    set(socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)
}

/// Has the kernel tell, with each frame, when it came (`SO_TIMESTAMPNS`).
pub(super) fn tell_times(socket: &OwnedFd) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

/// Makes room for a flood of so many bytes, or as much as the process may have.
pub(super) fn make_room(socket: &OwnedFd, bytes: libc::c_int) -> io::Result<()> {
    let forced = set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes);
    forced.or_else(|_| set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

/// How many frames found no room since this was last asked (`PACKET_STATISTICS`).
#[expect(unsafe_code, reason = "no library in use reads a packet socket's statistics")]
pub(super) fn drops_of(socket: &OwnedFd) -> io::Result<u64> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    #[expect(clippy::cast_possible_truncation, reason = "the structure has 8 bytes")]
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: both pointers are to live, exclusive borrows, and `len` says how much the first one has room for.
    done(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            std::ptr::from_mut(&mut stats).cast(),
            std::ptr::from_mut(&mut len),
        )
    })?;
    Ok(stats.tp_drops.into())
}

#[expect(unsafe_code, reason = "no library in use sets a packet socket's options")]
fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "an int has 4 bytes")]
    const LEN: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live borrow, passed with its length, and the kernel only reads it.
    done(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), LEN) })
}

const fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, offset, [0, 0])
}

/// The instruction at place `here`: goes to one of `places`, if what was loaded is `value` or not.
const fn go(here: u8, value: u32, [is, is_not]: [u8; 2]) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, [is - here - 1, is_not - here - 1])
}

/// One instruction, which goes on by `jumps` if the comparison is true or false.
#[expect(clippy::cast_possible_truncation, reason = "operations have 16 bits")]
const fn instruction(code: u32, k: u32, [jt, jf]: [u8; 2]) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

fn link_address(port: IfIndex, protocol: u16) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: FAMILY,
        sll_protocol: protocol.to_be(),
        sll_ifindex: port.get().cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

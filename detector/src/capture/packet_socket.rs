//! What packet sockets can do and no library in use says (`packet(7)`).

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use crate::net::IfIndex;

#[expect(clippy::cast_possible_truncation, reason = "address families are small numbers")]
const FAMILY: libc::sa_family_t = libc::AF_PACKET as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "the structure has 20 bytes")]
const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
#[expect(clippy::cast_possible_truncation, reason = "EtherTypes have 16 bits")]
const ALL: u16 = libc::ETH_P_ALL as u16;

/// Where a classic filter finds the packet's type (`SKF_AD_OFF + SKF_AD_PKTTYPE` in `include/uapi/linux/filter.h`).
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// Where the EtherType is, if there is no tag before it or the kernel has taken that off.
const ETHERTYPE: u32 = 12;

/// ARP that we did not send ourselves, and of each frame as much as an ARP packet takes.
const OTHERS_ARP: [libc::sock_filter; 6] = [
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, PACKET_TYPE, [0, 0]),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::PACKET_OUTGOING as u32, [3, 0]),
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, ETHERTYPE, [0, 0]),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::ETH_P_ARP as u32, [0, 1]),
    instruction(libc::BPF_RET | libc::BPF_K, 64, [0, 0]),
    instruction(libc::BPF_RET | libc::BPF_K, 0, [0, 0]),
];

/// As much as a flood brings until it is read, in bytes.
const BUFFER: libc::c_int = 4 << 20;

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

/// Has the socket hear the ARP that others send to `port`, as it comes.
///
/// It listens to everything and lets a filter pick the ARP: before the kernel hands a frame to those who listen to ARP
/// only, it takes a VLAN's tag away without a trace (`__netif_receive_skb_core` in `net/core/dev.c`).
pub(super) fn hear_arp(socket: &OwnedFd, port: IfIndex) -> io::Result<()> {
    keep_only(socket, &OTHERS_ARP)?;
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
fn keep_only(socket: &OwnedFd, program: &[libc::sock_filter; 6]) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "the structure has 16 bytes")]
    const LEN: libc::socklen_t = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let program = libc::sock_fprog { len: 6, filter: program.as_ptr().cast_mut() };
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

/// Makes room for a flood, as much as the process may have.
pub(super) fn wide_open(socket: &OwnedFd) -> io::Result<()> {
    let forced = set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER);
    forced.or_else(|_| set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER))
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

//! Filters of the clsact discipline that are the tap's, told from everybody else's and removed.
//!
//! Own code, because aya looks for a program's name in filters of every kind: of one by `u32` with an action it takes that
//! for a name, and fails.

use std::io;

use detector_ebpf::PROGRAMS;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcHeader, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;

use super::Side;
use crate::net::IfIndex;

/// `TC_H_CLSACT` (`include/uapi/linux/pkt_sched.h`).
const CLSACT: u16 = 0xffff;
/// `TCA_BPF_NAME` (`include/uapi/linux/pkt_cls.h`).
const BPF_NAME: u16 = 7;

impl Side {
    /// The place of this side's filters in the clsact discipline: `TC_H_MIN_INGRESS` or `TC_H_MIN_EGRESS`.
    #[must_use]
    pub const fn clsact(self) -> TcHandle {
        match self {
            Self::Ingress => TcHandle { major: CLSACT, minor: 0xfff2 },
            Self::Egress => TcHandle { major: CLSACT, minor: 0xfff3 },
        }
    }
}

/// The name of the program that a filter runs, with its section or file as whoever attached it has it; `None` of filters
/// that run none.
#[must_use]
pub fn filter_program(filter: &TcMessage) -> Option<String> {
    let runs_one = filter.attributes.iter().any(|one| matches!(one, TcAttribute::Kind(kind) if kind == "bpf"));
    let options = filter.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.filter(|_| runs_one)?.iter().find_map(name)
}

/// The library knows not every option of every filter, but each one's number and bytes.
fn name(option: &TcOption) -> Option<String> {
    (option.kind() == BPF_NAME && matches!(option, TcOption::Bpf(_) | TcOption::Other(_))).then_some(())?;
    let mut bytes = vec![0; option.value_len()];
    option.emit_value(&mut bytes);
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
}

/// The tap's filters at one side of an interface, by the programs' names: nobody else's. An interface that is gone has
/// none.
pub(super) fn own_filters(port: IfIndex, side: Side) -> io::Result<Vec<TcHeader>> {
    let mut request = TcMessage::with_index(port.get().cast_signed());
    request.header.parent = side.clsact();
    let shown = exchange(&open()?, RouteNetlinkMessage::GetTrafficFilter(request), NLM_F_DUMP);
    let is_own = |filter: &TcMessage| filter_program(filter).is_some_and(|name| PROGRAMS.contains(&name.as_str()));
    Ok(unless_gone(shown)?.into_iter().filter(is_own).map(|filter| filter.header).collect())
}

/// Removes filters. From an interface that is gone they have gone, too.
pub(super) fn remove_filters(filters: Vec<TcHeader>) -> io::Result<()> {
    let socket = open()?;
    for filter in filters {
        let message = RouteNetlinkMessage::DelTrafficFilter(TcMessage::from_parts(filter, Vec::new()));
        unless_gone(exchange(&socket, message, NLM_F_ACK))?;
    }
    Ok(())
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn unless_gone(answer: io::Result<Vec<TcMessage>>) -> io::Result<Vec<TcMessage>> {
    match answer {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NODEV | Errno::NXIO)) => Ok(Vec::new()),
        done => done,
    }
}

/// Asks the kernel, and returns the filters that it tells of until it says that this is all.
fn exchange(socket: &Socket, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<TcMessage>> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut filters = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for answer in split(&datagram) {
            match NetlinkMessage::deserialize(answer).map(|answer| answer.payload) {
                Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(filter))) => filters.push(filter),
                Ok(NetlinkPayload::Done(_)) => return Ok(filters),
                Ok(NetlinkPayload::Error(error)) if error.code.is_some() => return Err(error.to_io()),
                Ok(NetlinkPayload::Error(_)) => return Ok(filters),
                // What the library cannot read is none of ours.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// The messages in a datagram; a length that leads out of it ends it.
fn split(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32::from_ne_bytes(*datagram.first_chunk()?)).ok()?;
        let message = datagram.get(..len).filter(|message| !message.is_empty())?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

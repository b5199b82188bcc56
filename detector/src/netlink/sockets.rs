//! Sockets in a sandbox that hang on an address it does not have any more (`sock_diag(7)`).
//!
//! Whoever reads from such a connection would wait for its peer until a timer ends it, minutes later perhaps. Destroyed,
//! it fails at once (`ECONNABORTED`), and its owner connects anew, from the address that is there now. The peer is told
//! nothing: the kernel sends no segment from an address that it does not have.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_sock_diag::{
    SOCK_DESTROY, SOCK_DIAG_BY_FAMILY, SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use rustix::io::Errno;

use super::{
    Error,
    netns::{self, NetnsFile},
    route::{Message, Route},
};

/// Asked of both: an IPv6 socket may talk IPv4 (`::ffff:10.8.64.2`, RFC 4291 section 2.5.5.2), as most servers that listen
/// on every address do.
const FAMILIES: [u8; 2] = [AF_INET, AF_INET6];

/// What became of the sockets on an address. None for a protocol whose sockets this kernel cannot list or destroy
/// (`CONFIG_INET_DIAG_DESTROY`, `CONFIG_INET_UDP_DIAG`): their owners find out by themselves, later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    /// TCP connections that were destroyed, in whatever state. One in `TIME_WAIT` is nobody's any more, and is left.
    pub tcp: Option<usize>,
    /// Connected UDP sockets that were disconnected from their peer, and whose owner is told.
    pub udp: Option<usize>,
    /// Sockets that wait for anybody at this very address and were left: listening TCP, unconnected UDP. Nobody can reach
    /// them there, and they fail at nothing; only their owner can bind them to another address.
    pub listeners_left: usize,
}

/// Destroys what is connected from or to `address` in `netns`, so that its owners connect anew at once. What is bound to
/// no address, or to another one, stays. To be called when `address` is not configured there any more.
///
/// # Errors
/// [`Error::Enter`] if we are not let in; [`Error::Refused`] if we may not destroy there (CAP_NET_ADMIN), or what else kept
/// the kernel from it. That the kernel cannot do it at all is no error: see [`Destroyed`].
pub async fn destroy_sockets(netns: &NetnsFile, address: Ipv4Addr) -> Result<Destroyed, Error> {
    let mut diag = match netns::open_inside(netns, Route::open_sock_diag).await {
        Err(Error::Enter { source, .. }) if source.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
            return Ok(Destroyed::default());
        }
        diag => diag?,
    };
    let (tcp, listening) = destroy_of(&mut diag, IPPROTO_TCP, address).await?;
    let (udp, unconnected) = destroy_of(&mut diag, IPPROTO_UDP, address).await?;
    Ok(Destroyed { tcp, udp, listeners_left: listening + unconnected })
}

/// How many sockets of `protocol` were destroyed, and how many were left because they wait for anybody.
async fn destroy_of(diag: &mut Route, protocol: u8, address: Ipv4Addr) -> Result<(Option<usize>, usize), Error> {
    let mut sockets = Vec::new();
    for family in FAMILIES {
        match diag.dump("list the sandbox's sockets", Sockets::all(family, protocol)).await {
            // Nobody has registered for this protocol (`inet_diag_lock_handler` in `net/ipv4/inet_diag.c`).
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok((None, 0)),
            found => sockets.extend(found?.into_iter().filter(|socket| socket.is_on(address))),
        }
    }
    let (waiting, connected): (Vec<_>, Vec<_>) = sockets.into_iter().partition(Sockets::wait_for_anybody);
    let connected = connected.into_iter().map(|socket| Sockets { message: SOCK_DESTROY, protocol, ..socket });
    Ok((destroy_each(diag, connected).await?, waiting.len()))
}

/// How many of `sockets` were destroyed; none if the kernel cannot.
///
/// Older kernels refuse this for single sockets, too: those in the last state before they are gone (`tcp_abort` in
/// `net/ipv4/tcp.c`).
async fn destroy_each(diag: &mut Route, sockets: impl Iterator<Item = Sockets>) -> Result<Option<usize>, Error> {
    let (mut destroyed, mut impossible) = (0, false);
    for socket in sockets {
        match diag.change("destroy a socket in the sandbox", socket, 0).await {
            Ok(()) => destroyed += 1,
            Err(error) => match error.errno() {
                // It ended by itself meanwhile.
                Some(Errno::NOENT) => {}
                Some(Errno::OPNOTSUPP) => impossible = true,
                _ => return Err(error),
            },
        }
    }
    Ok((destroyed > 0 || !impossible).then_some(destroyed))
}

/// The sockets that are asked for, or the one that is told of; as with the kernel's own structures both are much the same
/// (`inet_diag_req_v2` and `inet_diag_msg` in `include/uapi/linux/inet_diag.h`). What else is told of one is not kept:
/// there may be very many.
#[derive(Clone, Debug)]
pub(super) struct Sockets {
    /// What is to be done about them.
    message: u16,
    /// `AF_INET` or `AF_INET6`.
    family: u8,
    /// The kernel does not tell it: it is the one that was asked for.
    protocol: u8,
    /// One bit for each state, by its number.
    states: StateFlags,
    id: SocketId,
}

impl Sockets {
    /// All but the connections that are nobody's any more.
    fn all(family: u8, protocol: u8) -> Self {
        let states = StateFlags::all().difference(StateFlags::TIME_WAIT);
        Self { message: SOCK_DIAG_BY_FAMILY, family, protocol, states, id: SocketId::new_v4() }
    }

    /// The local address, if it is one of IPv4.
    pub(super) fn local(&self) -> Option<Ipv4Addr> {
        match self.id.source_address.to_canonical() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn is_on(&self, address: Ipv4Addr) -> bool {
        self.local() == Some(address)
    }

    /// Whether it has no peer: an unconnected UDP socket is in the state `CLOSE`.
    fn wait_for_anybody(&self) -> bool {
        self.states.intersects(StateFlags::LISTEN | StateFlags::CLOSE)
    }
}

impl Message for Sockets {}

impl NetlinkSerializable for Sockets {
    fn message_type(&self) -> u16 {
        self.message
    }

    fn buffer_len(&self) -> usize {
        request(self).buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        request(self).serialize(buffer);
    }
}

impl NetlinkDeserializable for Sockets {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let SockDiagMessage::InetResponse(told) = SockDiagMessage::deserialize(header, payload)? else {
            return Err("sockets of another family than was asked for".into());
        };
        let state = 1u32.checked_shl(told.header.state.into()).unwrap_or_default();
        Ok(Self {
            message: header.message_type,
            family: told.header.family,
            protocol: 0,
            states: StateFlags::from_bits_retain(state),
            id: told.header.socket_id,
        })
    }
}

fn request(sockets: &Sockets) -> SockDiagMessage {
    let Sockets { family, protocol, .. } = *sockets;
    let (states, socket_id) = (sockets.states.clone(), sockets.id.clone());
    SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_sock_diag::constants::AF_UNIX;

    use super::*;

    #[tokio::test]
    async fn what_the_kernel_cannot_do_is_said_and_is_no_error() {
        // There are no sockets of this protocol (EGP), and none of Unix can be destroyed.
        let mut diag = Route::open_sock_diag().unwrap();
        assert_eq!(destroy_of(&mut diag, 8, Ipv4Addr::LOCALHOST).await.unwrap(), (None, 0));
        let unix = || Sockets { message: SOCK_DESTROY, ..Sockets::all(AF_UNIX, 0) };
        let refused = diag.change("destroy", unix(), 0).await.unwrap_err();
        assert_eq!(refused.errno(), Some(Errno::OPNOTSUPP));
        assert_eq!(destroy_each(&mut diag, [unix(), unix()].into_iter()).await.unwrap(), None);
        assert_eq!(destroy_each(&mut diag, std::iter::empty()).await.unwrap(), Some(0));
    }

    #[tokio::test]
    async fn what_has_ended_meanwhile_is_not_counted() {
        let mut diag = Route::open_sock_diag().unwrap();
        let gone = Sockets { message: SOCK_DESTROY, ..Sockets::all(AF_INET, IPPROTO_TCP) };
        assert_eq!(destroy_each(&mut diag, [gone].into_iter()).await.unwrap(), Some(0));
    }
}

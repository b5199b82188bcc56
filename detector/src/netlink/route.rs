//! One conversation with the kernel over netlink: a request, and everything that answers it.

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket,
    protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG},
};
use rustix::io::Errno;

use super::{
    Error,
    wire::{explanation, messages},
};

/// How often a dump is started anew because what it lists changed meanwhile.
const DUMP_TRIES: u32 = 8;

/// What can be asked and answered: the messages of rtnetlink, and those that the library does not know.
pub(super) trait Message: NetlinkSerializable + NetlinkDeserializable + Clone {}

impl Message for RouteNetlinkMessage {}

/// A netlink socket in one network namespace: that of the thread that opened it.
pub(super) struct Route {
    socket: TokioSocket,
    sequence: u32,
}

impl Route {
    /// A socket in the calling thread's namespace. Needs the Tokio runtime's context.
    pub(super) fn open() -> std::io::Result<Self> {
        Self::speaking(NETLINK_ROUTE)
    }

    /// As [`Route::open`], to ask about sockets instead (`NETLINK_SOCK_DIAG`).
    pub(super) fn open_sock_diag() -> std::io::Result<Self> {
        Self::speaking(NETLINK_SOCK_DIAG)
    }

    fn speaking(protocol: isize) -> std::io::Result<Self> {
        let mut socket = TokioSocket::new(protocol)?;
        let inner = socket.socket_mut();
        inner.bind_auto()?;
        inner.set_cap_ack(true)?;
        inner.set_ext_ack(true)?;
        // Without it the kernel ignores what a dump is to be narrowed to.
        inner.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Everything that a dump lists, read in one consistent go.
    pub(super) async fn dump<M: Message>(&mut self, what: &'static str, request: M) -> Result<Vec<M>, Error> {
        for _ in 0..DUMP_TRIES {
            let answers = self.exchange(what, request.clone(), NLM_F_DUMP).await?;
            if answers.iter().all(|answer| answer.header.flags & NLM_F_DUMP_INTR == 0) {
                return Ok(answers.into_iter().filter_map(inner).collect());
            }
        }
        Err(Error::Unsettled { what, tries: DUMP_TRIES })
    }

    /// The one thing asked for; none if the kernel acknowledges without naming any.
    pub(super) async fn one(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        let answers = self.exchange(what, request, NLM_F_ACK).await?;
        Ok(answers.into_iter().find_map(inner))
    }

    /// Creates something. `flags` (`NLM_F_EXCL`, `NLM_F_APPEND`) say what to do if there is something like it.
    pub(super) async fn create(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        self.change(what, request, NLM_F_CREATE | flags).await
    }

    /// Changes or deletes something.
    pub(super) async fn change<M: Message>(&mut self, what: &'static str, request: M, flags: u16) -> Result<(), Error> {
        self.exchange(what, request, NLM_F_ACK | flags).await.map(drop)
    }

    /// Sends a request and collects what answers it. If the future is dropped midway, the next request passes over the
    /// answers that were left.
    async fn exchange<M: Message>(
        &mut self,
        what: &'static str,
        request: M,
        flags: u16,
    ) -> Result<Vec<NetlinkMessage<M>>, Error> {
        self.send(request, flags).await.map_err(|source| Error::Socket { what, source })?;
        let mut answers = Vec::new();
        loop {
            let (datagram, from) =
                self.socket.recv_from_full().await.map_err(|source| Error::Socket { what, source })?;
            if from.port_number() == 0 && self.take(what, &datagram, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    async fn send<M: Message>(&mut self, request: M, flags: u16) -> std::io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(request));
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0)).await.map(drop)
    }

    /// Adds a datagram's answers to those before; `true` if it held the last one.
    fn take<M: Message>(
        &self,
        what: &'static str,
        datagram: &[u8],
        answers: &mut Vec<NetlinkMessage<M>>,
    ) -> Result<bool, Error> {
        for message in messages(datagram) {
            let message = message.map_err(|source| Error::Undecodable { what, source })?;
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match &message.payload {
                NetlinkPayload::Done(done) => verdict(what, done.code, String::new)?,
                NetlinkPayload::Error(error) => refusal(what, &message.header, error)?,
                _ => {
                    answers.push(message);
                    continue;
                }
            }
            answers.push(message);
            return Ok(true);
        }
        Ok(false)
    }
}

pub(super) fn refusal(what: &'static str, header: &NetlinkHeader, error: &ErrorMessage) -> Result<(), Error> {
    verdict(what, error.raw_code(), || explanation(header, &error.header))
}

/// 0 is success, a negative number an error (`struct nlmsgerr`).
fn verdict(what: &'static str, code: i32, explanation: impl FnOnce() -> String) -> Result<(), Error> {
    match code {
        0 => Ok(()),
        code => match errno(code) {
            Some(errno) => Err(Error::Refused { what, errno, explanation: explanation() }),
            None => {
                Err(Error::Undecodable { what, source: format!("{code}, which is no error of the kernel's").into() })
            }
        },
    }
}

/// The kernel has errors from 1 to 4095 (`MAX_ERRNO` in `include/linux/err.h`); another number would be an invalid value.
fn errno(code: i32) -> Option<Errno> {
    let number = code.saturating_abs();
    (1..=4095).contains(&number).then(|| Errno::from_raw_os_error(number))
}

fn inner<M: Message>(message: NetlinkMessage<M>) -> Option<M> {
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_error_is_not_taken_for_one() {
        let errno = |code| verdict("ask", code, String::new).unwrap_err().errno();
        assert_eq!([-19, -4095].map(errno), [Some(Errno::NODEV), Some(Errno::from_raw_os_error(4095))]);
        assert_eq!([-4096, i32::MIN, i32::MAX, 70_000].map(errno), [None; 4]);
        assert!(verdict("ask", 0, String::new).is_ok());
    }
}

//! Hears ARP without eBPF: by a packet socket at each interface.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use detector_ebpf::{Bucket, Claim, Fate, Frame, Limit, Malformed, Report, TapCounters, Tapped, Verdict, read_frame};
use nix::errno::Errno;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use tracing::debug;

use super::{
    CaptureError, Claims, Post, TapSettings,
    claims::claim_of,
    hook::name_of,
    packet_socket::{HeardFrame, drops_of, hear_arp, make_room, receive, tell_tags, tell_times},
};
use crate::{engine, net::IfIndex};

/// As much as one port may say until it is read, in bytes: some thousand frames.
const BUFFER: libc::c_int = 1 << 20;

/// Interfaces that are read from in one go.
const READY: usize = 64;

/// Hears the same claims as the [`Tap`](super::Tap), where there is no eBPF: ARP at every interface that it is attached to,
/// with its tags, and each port's share of it. It absorbs nothing, does not look at IPv4, and costs much more: every
/// ARP frame comes to user space.
///
/// Each interface has a socket of its own, so that one that floods makes only itself unheard, and what is lost is known to be
/// its. It works in the network namespace of the thread that calls it. Dropped, and its claims too, it listens nowhere.
#[derive(Debug)]
pub struct Ear {
    hearing: Arc<Hearing>,
}

/// What is shared with whoever reads the claims.
#[derive(Debug)]
pub(super) struct Hearing {
    /// Readable if one of the sockets is.
    ready: OwnedFd,
    limit: Limit,
    posts: Mutex<BTreeMap<IfIndex, Listening>>,
}

#[derive(Debug)]
struct Listening {
    socket: OwnedFd,
    heard: Heard,
}

/// What was heard at one interface.
#[derive(Debug, Default)]
struct Heard {
    news: Bucket,
    /// The latest moment of a frame, in nanoseconds since boot. The kernel begins to stamp packets soon after it was asked to:
    /// one without a stamp is as old as its reading, which may be later than the stamp of the next.
    latest: u64,
    counters: TapCounters,
}

impl Ear {
    /// Listens nowhere yet. Of the settings only rate and burst concern it.
    ///
    /// # Errors
    /// The process may not have packet sockets.
    pub fn open(settings: &TapSettings) -> Result<Self, CaptureError> {
        let nowhere = |error| CaptureError::listen("any interface".to_owned(), error);
        packet_socket().map_err(nowhere)?;
        // One for each port may be more than what a process has unless it asks.
        let files = getrlimit(Resource::Nofile);
        let most = Rlimit { current: files.maximum, ..files };
        setrlimit(Resource::Nofile, most).unwrap_or_else(|errno| debug!(%errno, "open files stay limited"));
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| nowhere(errno.into()))?;
        let posts = Mutex::default();
        Ok(Self { hearing: Arc::new(Hearing { ready, limit: settings.limit(), posts }) })
    }

    /// What it hears, for whoever waits for that. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The runtime cannot wait for it.
    pub fn claims(&self) -> Result<Claims, CaptureError> {
        Claims::of_ear(Arc::clone(&self.hearing)).map_err(CaptureError::Wait)
    }

    /// Waits until something is heard, at most until `end`, and returns it; nothing if the time is over. Blocks, for those
    /// who have no runtime; takes from the same sockets as [`claims`](Self::claims).
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn listen(&self, end: Instant) -> io::Result<Vec<engine::Claim>> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let heard = self.hearing.read(left)?;
            if left.is_zero() || heard.as_ref().is_some_and(|claims| !claims.is_empty()) {
                return Ok(heard.unwrap_or_default());
            }
        }
    }

    /// Listens at `port` too, counting from zero; anew, if it does already.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses. It does not listen there then.
    pub fn attach(&mut self, port: IfIndex, post: Post) -> Result<(), CaptureError> {
        self.detach(port);
        let refused = |error| CaptureError::listen(name_of(port).unwrap_or_else(|_| port.to_string()), error);
        let socket = packet_socket().map_err(refused)?;
        let ready = make_room(&socket, BUFFER).and_then(|()| tell_tags(&socket)).and_then(|()| tell_times(&socket));
        ready.map_err(refused)?;
        let mut posts = self.hearing.posts();
        let data = epoll::EventData::new_u64(port.get().into());
        epoll::add(&self.hearing.ready, &socket, data, epoll::EventFlags::IN).map_err(|errno| refused(errno.into()))?;
        hear_arp(&socket, port, post.side).map_err(refused)?;
        posts.insert(port, Listening { socket, heard: Heard::default() });
        Ok(())
    }

    /// Listens at `port` no longer, and returns what was counted there; `None` if it did not listen. What was not read yet
    /// is lost, and is counted so only as far as the kernel had counted it.
    pub fn detach(&mut self, port: IfIndex) -> Option<TapCounters> {
        let mut listening = self.hearing.posts().remove(&port)?;
        // A process that is just being forked may keep it open for a moment.
        let _ = epoll::delete(&self.hearing.ready, &listening.socket);
        Some(listening.counters())
    }

    /// What was counted at `port` since it was attached; `None` if it does not listen there.
    #[must_use]
    pub fn counters(&self, port: IfIndex) -> Option<TapCounters> {
        self.hearing.posts().get_mut(&port).map(Listening::counters)
    }
}

impl Hearing {
    fn posts(&self) -> MutexGuard<'_, BTreeMap<IfIndex, Listening>> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until an interface has something, for `wait` at most, and reads at most a batch, a little from each that has.
    /// `None` if there was nothing; no claims if there was only what is not to be told.
    pub(super) fn read(&self, wait: Duration) -> io::Result<Option<Vec<engine::Claim>>> {
        let ready = self.ready(wait)?;
        if ready.is_empty() {
            return Ok(None);
        }
        let (share, clocks) = ((Claims::BATCH / ready.len()).max(1), Clocks::read());
        let mut posts = self.posts();
        let mut claims = Vec::new();
        for port in ready {
            if let Some(listening) = posts.get_mut(&port) {
                listening.read(port, share, self.limit, &clocks, &mut claims);
            }
        }
        claims.sort_by_key(|claim| claim.at);
        Ok(Some(claims))
    }

    fn ready(&self, wait: Duration) -> io::Result<Vec<IfIndex>> {
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(READY);
        match epoll::wait(&self.ready, spare_capacity(&mut events), Some(&wait)) {
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
            Ok(_) => Ok(events.iter().filter_map(|event| IfIndex::new(event.data.u64().try_into().ok()?)).collect()),
        }
    }
}

impl AsRawFd for Hearing {
    fn as_raw_fd(&self) -> RawFd {
        self.ready.as_raw_fd()
    }
}

impl Listening {
    fn read(&mut self, port: IfIndex, share: usize, limit: Limit, clocks: &Clocks, claims: &mut Vec<engine::Claim>) {
        for _ in 0..share {
            match receive(&self.socket) {
                Ok(frame) => {
                    let tapped = Tapped { nanos: clocks.since_boot(&frame), ifindex: port.get() };
                    claims.extend(self.heard.hear(&frame, tapped, limit));
                }
                Err(Errno::EAGAIN) => return,
                // That the interface went down is told once, and it is heard again when it comes up.
                Err(errno) => debug!(%port, %errno, "cannot hear for a moment"),
            }
        }
    }

    fn counters(&mut self) -> TapCounters {
        match drops_of(&self.socket) {
            Ok(lost) => self.heard.counters.lost += lost,
            Err(error) => debug!(%error, "cannot tell what was lost"),
        }
        self.heard.counters
    }
}

impl Heard {
    /// What the tap does with a frame, but for what it knows.
    fn hear(&mut self, frame: &impl Frame, tapped: Tapped, limit: Limit) -> Option<engine::Claim> {
        let read = Read::default();
        read_frame(frame, &read);
        match read.0.into_inner()? {
            Err(reason) => {
                self.counters.add_malformed(reason);
                None
            }
            Ok(claim) => {
                self.latest = self.latest.max(tapped.nanos);
                let is_let_through = self.news.take(self.latest, limit);
                self.counters.add_arp(claim.kind, if is_let_through { Fate::Reported } else { Fate::Limited });
                claim_of(tapped, &claim).filter(|_| is_let_through)
            }
        }
    }
}

/// What a frame is.
#[derive(Default)]
struct Read(std::cell::Cell<Option<Result<Claim, Malformed>>>);

impl Report for Read {
    fn arp(&self, claim: &Claim) -> Verdict {
        self.0.set(Some(Ok(*claim)));
        Verdict::Pass
    }

    /// The filter lets none through.
    fn ipv4(&self, _: &Claim) -> Verdict {
        Verdict::Pass
    }

    fn malformed(&self, reason: Malformed) {
        self.0.set(Some(Err(reason)));
    }
}

/// The time by both clocks: the kernel stamps packets with the one that anybody may set.
struct Clocks {
    since_boot: Duration,
    since_1970: Duration,
}

impl Clocks {
    fn read() -> Self {
        let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
        // In this order: who is interrupted in between takes a frame for younger than it is, and never for older.
        let since_1970 = read(ClockId::Realtime);
        Self { since_boot: read(ClockId::Boottime), since_1970 }
    }

    /// When the frame came, in nanoseconds since boot; now, if it is not known.
    fn since_boot(&self, frame: &HeardFrame) -> u64 {
        let age = frame.came.map_or(Duration::ZERO, |came| self.since_1970.saturating_sub(came));
        u64::try_from(self.since_boot.saturating_sub(age).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A socket that hears nothing before it is bound to an interface, since its protocol is 0.
fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{ArpPacket, Mac};

    struct Bytes(Vec<u8>);

    impl Frame for Bytes {
        fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
            self.0.get(offset..)?.first_chunk().copied()
        }

        fn taken_tag(&self) -> Option<u16> {
            None
        }
    }

    #[test]
    fn a_frame_without_a_stamp_takes_no_more_than_its_share() {
        let announced = ArpPacket::announcement(Mac([2, 0, 0, 0, 0, 1]), [10, 8, 64, 2].into());
        let frame = Bytes(announced.broadcast_frame(None));
        let mut heard = Heard::default();
        // The first is as old as its reading, which is later than the stamps of the rest.
        let moments = [7_000_000].into_iter().chain([5_000_000; 10]);
        let claims = moments.filter_map(|nanos| heard.hear(&frame, Tapped { nanos, ifindex: 1 }, Limit::new(1, 10)));
        assert_eq!(claims.count(), 10);
    }

    #[test]
    fn each_part_may_live_in_any_task() {
        fn is_send<T: Send>() {}
        is_send::<Ear>();
    }
}

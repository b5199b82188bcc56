//! Taps: ports with no namespace behind them, as micro VMs have.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{PipeReader, PipeWriter, pipe},
    net::Ipv4Addr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use pnet::util::MacAddr;
use rustix::event::{PollFd, PollFlags, poll};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::{Bridge, wire};

/// As much as the kernel queues for a tap that nobody reads, doubled: the oldest frames go first.
const QUEUE: usize = 1024;

/// The longest frame, with two tags.
const FRAME: usize = 1522;

/// A station behind a tap, as a micro VM is: the machine sees a port and what comes out of it, and nothing behind it.
///
/// A thread of its own hears all that the bridge sends there: it answers questions by ARP as it was told, and keeps the
/// frames for [`Tap::receive`]. When this value goes, the tap goes with it, as it does with a VM.
pub struct Tap {
    /// Closed to stop the listener.
    stop: Option<PipeWriter>,
    listener: Option<JoinHandle<()>>,
    line: Arc<Line>,
    name: String,
    mac: MacAddr,
    bridge: Bridge,
}

/// What the tap's owner and its listener share.
struct Line {
    device: SyncDevice,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Vec<u8>>,
    /// Who is said to have an address, in which VLAN.
    answers: BTreeMap<(Option<u16>, Ipv4Addr), MacAddr>,
    silent: bool,
    answered: usize,
}

impl Tap {
    pub(crate) fn new(bridge: &Bridge, name: &str) -> Result<Self> {
        // The kernel makes the device in the network namespace of whoever opens the file.
        let open = || Ok(DeviceBuilder::new().name(name).layer(Layer::L2).enable(false).build_sync()?);
        let device = bridge.runner().inside(open).with_context(|| format!("cannot make the tap {name}"))?;
        let line = Arc::new(Line { device, state: Mutex::default(), news: Condvar::new() });
        let (stopped, stop) = pipe()?;
        let listener = thread::spawn({
            let line = Arc::clone(&line);
            move || line.listen(&stopped)
        });
        let tap = Self {
            stop: Some(stop),
            listener: Some(listener),
            line,
            name: name.to_owned(),
            mac: random_mac(),
            bridge: bridge.clone(),
        };
        bridge.plug(name)?;
        bridge.wait_forwarding(name)?;
        Ok(tap)
    }

    /// The port's name on the runner.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.name
    }

    /// The station's own hardware address, below QEMU's prefix. The tap's is another, as always.
    #[must_use]
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Sends a frame out of the VM, whatever it says.
    ///
    /// # Errors
    /// If the bridge or the tap is gone or down.
    pub fn send_frame(&self, frame: &[u8]) -> Result<()> {
        self.line.device.send(frame).map(drop).context("the tap takes no frame")
    }

    /// Sends frames out of the VM as fast as it can, and returns how many the kernel took.
    ///
    /// # Errors
    /// If the bridge or the tap is gone or down.
    pub fn flood(&self, frames: impl IntoIterator<Item = Vec<u8>>) -> Result<usize> {
        frames.into_iter().try_fold(0, |sent, frame| self.send_frame(&frame).map(|()| sent + 1))
    }

    /// Takes what came to the VM, in order and the first ones first, until `pick` returns something of a frame.
    ///
    /// # Errors
    /// If it does not within `deadline`.
    pub fn receive<T>(&self, deadline: Duration, mut pick: impl FnMut(&[u8]) -> Option<T>) -> Result<T> {
        let end = Instant::now() + deadline;
        let mut state = self.line.state();
        loop {
            while let Some(frame) = state.frames.pop_front() {
                if let Some(picked) = pick(&frame) {
                    return Ok(picked);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no such frame came to {} within {deadline:?}", self.name);
            }
            state = self.line.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// From now on, says that `mac` has these addresses to whoever asks, probes included (sender 0.0.0.0).
    pub fn answer(&self, addresses: impl IntoIterator<Item = Ipv4Addr>, mac: MacAddr) {
        self.line.state().answers.extend(addresses.into_iter().map(|address| ((None, address), mac)));
    }

    /// As [`Tap::answer`], for questions that come with the 802.1Q tag of `vlan`: the answers bear it too.
    pub fn answer_in(&self, vlan: u16, addresses: impl IntoIterator<Item = Ipv4Addr>, mac: MacAddr) {
        self.line.state().answers.extend(addresses.into_iter().map(|address| ((Some(vlan), address), mac)));
    }

    /// Answers for this address no more, in any VLAN.
    pub fn forget(&self, address: Ipv4Addr) {
        self.line.state().answers.retain(|(_, one), _| *one != address);
    }

    /// Answers nobody until [`Tap::speak`]: once this returns, no answer is under way.
    pub fn hush(&self) {
        self.line.state().silent = true;
    }

    /// Answers again.
    pub fn speak(&self) {
        self.line.state().silent = false;
    }

    /// How many questions were answered so far.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.line.state().answered
    }

    /// Ends the VM and waits until its port is gone from the bridge.
    ///
    /// # Errors
    /// If the port stays.
    pub fn remove(self) -> Result<()> {
        let (bridge, name) = (self.bridge.clone(), self.name.clone());
        drop(self);
        bridge.wait_unplugged(&name)
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears the tap until the pipe is closed or the tap is gone.
    fn listen(&self, stopped: &PipeReader) {
        let mut buffer = [0; FRAME];
        loop {
            let mut files = [PollFd::new(&self.device, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
            let polled = poll(&mut files, None);
            let [_, stop] = &files;
            if polled.is_err() || !stop.revents().is_empty() {
                return;
            }
            let Ok(length) = self.device.recv(&mut buffer) else { return };
            self.hear(buffer.get(..length).unwrap_or_default());
        }
    }

    /// Answers under the lock, so that nobody is answered after a hush.
    fn hear(&self, frame: &[u8]) {
        let mut state = self.state();
        if let Some(answer) = state.answer(frame) {
            state.answered += usize::from(self.device.send(&answer).is_ok());
        }
        state.frames.push_back(frame.to_vec());
        let surplus = state.frames.len().saturating_sub(QUEUE);
        state.frames.drain(..surplus);
        self.news.notify_all();
    }
}

impl State {
    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let question = wire::Arp::read(frame).filter(|arp| arp.is_request() && !self.silent)?;
        let vlan = wire::vlan(frame);
        let mac = *self.answers.get(&(vlan, question.target))?;
        let answer = wire::Arp::reply(mac, question.target, question.sender_mac, question.sender);
        Some(vlan.map_or_else(|| answer.frame(), |vlan| answer.tagged(vlan)))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("name", &self.name).field("mac", &self.mac).finish_non_exhaustive()
    }
}

fn random_mac() -> MacAddr {
    let [a, b, c, ..] = RandomState::new().build_hasher().finish().to_be_bytes();
    MacAddr(0x52, 0x54, 0, a, b, c)
}

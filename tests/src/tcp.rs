//! TCP between the lab's places: a service that says again what it hears, and conversations that go on all the while.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::net::{Shutdown, shutdown};
use serde_json::Value;

use crate::{Runner, Sandbox, host::Place};

/// How long an answer may take. A lost packet is sent again far sooner, so that a conversation that is cut off does not
/// look like a slow one.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a conversation rests between two messages, so that it leaves the processors to others.
const REST: Duration = Duration::from_millis(1);

/// Whoever has connected to a service, and from where.
type Guests = Arc<Mutex<Vec<(TcpStream, SocketAddr)>>>;

/// A TCP service on every address of its sandbox, which says again whatever it hears. It ends when this value goes.
#[derive(Debug)]
pub struct Echo {
    listener: Arc<TcpListener>,
    guests: Guests,
    host: Option<JoinHandle<()>>,
}

/// An open connection over which numbered messages go to and fro, one at a time, until this value goes.
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
    shared: Arc<Shared>,
    talker: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
    ends: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    answered: u64,
    rests: bool,
    is_resting: bool,
    trouble: Option<io::Error>,
}

/// What TCP had to do again in one network namespace, since that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// How often the retransmission timer of a connection ran out (`TcpExtTCPTimeouts`).
    pub timeouts: u64,
    /// How many segments were sent once more, for whatever reason (`TcpRetransSegs`).
    pub segments: u64,
}

impl Sandbox {
    /// Starts a service on this port.
    ///
    /// # Errors
    /// If the port is taken, or the sandbox is gone.
    pub fn echo(&self, port: u16) -> Result<Echo> {
        Echo::start(self.place(), port)
    }

    /// Connects to a service, from whatever address the kernel takes.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn connect(&self, address: Ipv4Addr, port: u16) -> Result<TcpStream> {
        connect(self.place(), address, port)
    }

    /// Connects to a service and talks to it from now on.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn converse(&self, address: Ipv4Addr, port: u16) -> Result<Conversation> {
        Conversation::over(self.connect(address, port)?)
    }

    /// What TCP had to do again here.
    ///
    /// # Errors
    /// If the sandbox is gone.
    pub fn done_again(&self) -> Result<Again> {
        Again::at(self.place())
    }
}

impl Runner {
    /// As [`Sandbox::connect`], as the host.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn connect(&self, address: Ipv4Addr, port: u16) -> Result<TcpStream> {
        connect(self.place(), address, port)
    }

    /// As [`Sandbox::converse`], as the host.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn converse(&self, address: Ipv4Addr, port: u16) -> Result<Conversation> {
        Conversation::over(self.connect(address, port)?)
    }

    /// What TCP had to do again on the host.
    ///
    /// # Errors
    /// If the runner is gone.
    pub fn done_again(&self) -> Result<Again> {
        Again::at(self.place())
    }
}

impl Echo {
    fn start(place: &Place, port: u16) -> Result<Self> {
        let bind = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("no service can be started");
        let listener = Arc::new(place.inside(bind)?);
        let guests = Guests::default();
        let host = thread::spawn({
            let (listener, guests) = (Arc::clone(&listener), Arc::clone(&guests));
            move || welcome(&listener, &guests)
        });
        Ok(Self { listener, guests, host: Some(host) })
    }

    /// Whoever has connected so far, in order, as the service sees them.
    #[must_use]
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, peer)| *peer).collect()
    }
}

/// Lets everybody in until the listener is shut down.
fn welcome(listener: &TcpListener, guests: &Guests) {
    thread::scope(|scope| {
        while let Ok((guest, peer)) = listener.accept() {
            let Ok(mut own) = guest.try_clone() else { return };
            guests.lock().unwrap_or_else(PoisonError::into_inner).push((guest, peer));
            scope.spawn(move || echo(&mut own));
        }
    });
}

/// A guest that goes, in whatever way, ends its conversation and nothing else.
fn echo(guest: &mut TcpStream) {
    let mut heard = [0; 1024];
    while let Ok(length) = guest.read(&mut heard)
        && length > 0
        && guest.write_all(heard.get(..length).unwrap_or_default()).is_ok()
    {}
}

impl Drop for Echo {
    fn drop(&mut self) {
        // What has ended by itself cannot be shut down.
        let _ = shutdown(&self.listener, Shutdown::Both);
        for (guest, _) in self.guests.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = guest.shutdown(std::net::Shutdown::Both);
        }
        if let Some(host) = self.host.take() {
            let _ = host.join();
        }
    }
}

fn connect(place: &Place, address: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let to = (address, port).into();
    let stream =
        place.inside(|| TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("no way to {to}")))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends a number and takes it back.
///
/// # Errors
/// Whatever ended the connection; [`io::ErrorKind::InvalidData`] if something else came back.
fn exchange(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let mut answer = [0; 8];
    stream.write_all(&number.to_be_bytes())?;
    stream.read_exact(&mut answer)?;
    if u64::from_be_bytes(answer) == number { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

impl Conversation {
    fn over(stream: TcpStream) -> Result<Self> {
        let (shared, mut own) = (Arc::new(Shared::default()), stream.try_clone()?);
        let talker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.talk(&mut own)
        });
        Ok(Self { stream, shared, talker: Some(talker) })
    }

    /// Waits until so many more messages than now have come back.
    ///
    /// # Errors
    /// If the connection has come to any harm, or is silent for `deadline`.
    pub fn wait_for(&self, more: u64, deadline: Duration) -> Result<()> {
        let state = self.shared.state();
        let want = state.answered + more;
        let goes_on = |state: &mut State| state.answered < want && state.trouble.is_none();
        let (state, late) =
            self.shared.news.wait_timeout_while(state, deadline, goes_on).unwrap_or_else(PoisonError::into_inner);
        match &state.trouble {
            Some(trouble) => bail!("{}: after {} messages: {trouble}", self.title(), state.answered),
            None if late.timed_out() => {
                bail!("{}: {} of {want} messages after {deadline:?}", self.title(), state.answered)
            }
            None => Ok(()),
        }
    }

    /// Says nothing until [`Conversation::go_on`]; once this returns, no message is under way.
    pub fn rest(&self) {
        let mut state = self.shared.state();
        state.rests = true;
        let is_busy = |state: &mut State| !state.is_resting && state.trouble.is_none();
        drop(self.shared.news.wait_while(state, is_busy));
    }

    /// Goes on.
    pub fn go_on(&self) {
        self.shared.state().rests = false;
        self.shared.news.notify_all();
    }

    /// What ended the connection, if anything did.
    #[must_use]
    pub fn trouble(&self) -> Option<io::ErrorKind> {
        self.shared.state().trouble.as_ref().map(io::Error::kind)
    }

    fn title(&self) -> String {
        let end = |end: io::Result<SocketAddr>| end.map_or_else(|_| "nobody".to_owned(), |end| end.to_string());
        format!("{} to {}", end(self.stream.local_addr()), end(self.stream.peer_addr()))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn talk(&self, stream: &mut TcpStream) {
        while !self.ends.load(Ordering::Relaxed) {
            let number = self.next();
            match exchange(stream, number) {
                Ok(()) => self.state().answered += 1,
                Err(error) => {
                    self.state().trouble = Some(error);
                    return self.news.notify_all();
                }
            }
            self.news.notify_all();
            sleep(REST);
        }
    }

    /// The number of the next message, when it is time for it.
    fn next(&self) -> u64 {
        let mut state = self.state();
        state.is_resting = state.rests;
        self.news.notify_all();
        let is_to_rest = |state: &mut State| state.rests && !self.ends.load(Ordering::Relaxed);
        let mut state = self.news.wait_while(state, is_to_rest).unwrap_or_else(PoisonError::into_inner);
        state.is_resting = false;
        state.answered
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.go_on();
        // One that is broken already cannot be shut down.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(talker) = self.talker.take() {
            let _ = talker.join();
        }
    }
}

impl Again {
    fn at(place: &Place) -> Result<Self> {
        let counts: Value = serde_json::from_str(&place.run(["nstat", "-asz", "-j"])?)?;
        let count = |name: &str| {
            let value = counts.pointer(&format!("/kernel/{name}")).and_then(Value::as_u64);
            value.with_context(|| format!("nstat knows no {name}"))
        };
        Ok(Self { timeouts: count("TcpExtTCPTimeouts")?, segments: count("TcpRetransSegs")? })
    }
}

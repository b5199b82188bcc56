//! Those who hear of a contradiction, and how it is heard from them.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{Agent, Dupip, Mode, Runner};
use serde_json::{Value, from_str};

use super::scene::{Scene, is_newcomer};
use crate::bench::{
    Bench, Programs,
    peers::{Heard, Peer, Running},
    samples::Samples,
};

/// How long an observer may take to listen, and to know everybody.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is heard when an observer says that it listens: nobody has this address.
const READY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observer {
    /// A program at every port that tells of every ARP frame, and a reader that only prints.
    Reader,
    /// The agent's log.
    Log,
    /// The agent's API: a client that waits for the next event.
    Event,
    /// The agent's API: a client of the stream.
    Stream,
    /// Another program.
    Peer(Peer),
}

/// One that listens; it ends when this value goes.
pub(super) struct Listening {
    pub(super) heard: Heard,
    /// The agent, if it is one.
    agent: Option<Agent>,
    _program: Option<Running>,
}

impl Observer {
    /// How it is called in the answer.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reader => "bare reader",
            Self::Log => "dupip log",
            Self::Event => "dupip API event",
            Self::Stream => "dupip API stream",
            Self::Peer(peer) => peer.name(),
        }
    }

    /// Whether it is the agent.
    pub(super) const fn is_dupip(self) -> bool {
        matches!(self, Self::Log | Self::Event | Self::Stream)
    }

    /// Whether there is such a program.
    pub(super) fn is_there(self) -> bool {
        match self {
            Self::Peer(peer) => peer.is_installed(),
            _ => true,
        }
    }

    /// Starts it. It listens when this returns, and the agent knows so many addresses.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn start(self, scene: &Scene, bench: &Bench, addresses: usize) -> Result<Listening> {
        match self {
            Self::Reader => Listening::reader(scene, &bench.programs),
            Self::Peer(peer) => {
                let running = peer.start(&scene.bridge)?;
                Ok(Listening::program(running))
            }
            Self::Log => {
                let (agent, log) = agent(scene, bench)?.start_piped(Mode::Observe, &[])?;
                Listening::agent(agent, Heard::of(log, log_line), addresses)
            }
            Self::Event => {
                let agent = agent(scene, bench)?.start(Mode::Observe)?;
                let heard = events(scene.bridge.runner(), &agent)?;
                Listening::agent(agent, heard, addresses)
            }
            Self::Stream => {
                let agent = agent(scene, bench)?.start(Mode::Observe)?;
                let heard = stream(scene.bridge.runner(), agent.dupip().listen())?;
                Listening::agent(agent, heard, addresses)
            }
        }
    }
}

impl Listening {
    /// How long it took the agent to name each duplicate since its frame was at the port, as it tells itself.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub(super) fn inside(&self) -> Result<Samples> {
        let agent = self.agent.as_ref().context("this is no agent")?;
        let (_, page) = agent.http("/api/v1/events?kind=duplicate&limit=1024")?;
        let mut times = Samples::default();
        let page: Value = from_str(&page)?;
        events_of(&page)
            .filter_map(|event| event.pointer("/detail/after_us")?.as_f64())
            .for_each(|micros| times.add(micros));
        Ok(times)
    }

    fn reader(scene: &Scene, programs: &Programs) -> Result<Self> {
        let reader = scene.bridge.runner().command(&programs.yardsticks).args(["attach", "reader"]);
        let running = Running::start(reader.args(scene.ports()), reader_line)?;
        ensure!(running.heard().wait_for(&[READY], PATIENCE), "the bare reader does not listen");
        Ok(Self::program(running))
    }

    fn program(running: Running) -> Self {
        Self { heard: running.heard().clone(), agent: None, _program: Some(running) }
    }

    fn agent(mut agent: Agent, heard: Heard, addresses: usize) -> Result<Self> {
        agent.wait_until(PATIENCE, &format!("{addresses} addresses in the table"), |agent| {
            Ok((agent.table()?.len() >= addresses).then_some(()))
        })?;
        Ok(Self { heard, agent: Some(agent), _program: None })
    }
}

/// An agent that has a database to itself: what another one has left open would be no news to it.
fn agent(scene: &Scene, bench: &Bench) -> Result<Dupip> {
    let database = bench.scratch.fresh("latency")?.join("leases.db");
    let dupip = Dupip::at(&scene.bridge, &bench.programs.dupip)?.logging("info");
    Ok(dupip.keeping(&database.to_string_lossy()))
}

/// Asks for the next duplicates again and again, until the agent is gone.
fn events(runner: &Runner, agent: &Agent) -> Result<Heard> {
    let server = agent.dupip().listen();
    let (_, page) = agent.http("/api/v1/events?kind=duplicate")?;
    let mut cursor = next(&from_str(&page)?).context("events without a cursor")?;
    let (runner, heard) = (runner.clone(), Heard::default());
    let told = heard.clone();
    thread::spawn(move || {
        runner.inside(|| {
            loop {
                let path = format!("/api/v1/events?kind=duplicate&wait=30&limit=1024&after={cursor}");
                let mut answer = String::new();
                ask(server, &path)?.read_to_string(&mut answer)?;
                let at = Instant::now();
                let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
                let page: Value = from_str(body)?;
                events_of(&page).filter_map(duplicate).for_each(|address| told.add(address, at));
                cursor = next(&page).context("events without a cursor")?;
            }
            #[expect(unreachable_code, reason = "the loop ends by an error, when nobody answers any more")]
            Ok(())
        })
    });
    Ok(heard)
}

fn events_of(page: &Value) -> impl Iterator<Item = &Value> {
    page.get("events").and_then(Value::as_array).into_iter().flatten()
}

fn next(page: &Value) -> Option<String> {
    page.get("next").and_then(Value::as_str).map(str::to_owned)
}

/// Reads the agent's stream of events.
fn stream(runner: &Runner, server: SocketAddr) -> Result<Heard> {
    let heard = Heard::of(runner.inside(|| ask(server, "/api/v1/stream"))?, stream_line);
    ensure!(heard.wait_for(&[READY], PATIENCE), "the agent's stream does not begin");
    Ok(heard)
}

fn ask(server: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(server)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    Ok(stream)
}

/// `claim 02:64:00:00:00:05 10.8.1.6`. Only what newcomers claim is heard.
fn reader_line(line: &str) -> Option<Ipv4Addr> {
    if line == "ready" {
        return Some(READY);
    }
    let (mac, address) = line.strip_prefix("claim ")?.split_once(' ')?;
    is_newcomer(mac).then(|| address.parse().ok())?
}

/// A line of the log that names a duplicate.
fn log_line(line: &str) -> Option<Ipv4Addr> {
    if !line.contains("event=\"duplicate\"") {
        return None;
    }
    line.split(' ').find_map(|word| word.strip_prefix("address="))?.parse().ok()
}

/// A line of the stream: the beginning of the answer, or an event.
fn stream_line(line: &str) -> Option<Ipv4Addr> {
    if line.starts_with("HTTP/1.") {
        return Some(READY);
    }
    duplicate(&from_str(line.strip_prefix("data: ")?).ok()?)
}

/// The address of an event, if that is a duplicate.
fn duplicate(event: &Value) -> Option<Ipv4Addr> {
    if event.get("kind")?.as_str()? != "duplicate" {
        return None;
    }
    event.get("address")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 8, 1, 2));

    #[test]
    fn the_bare_reader_is_heard_of_newcomers_only() {
        assert_eq!(reader_line("ready"), Some(READY));
        assert_eq!(reader_line("claim 02:64:00:00:00:01 10.8.1.2"), ADDRESS);
        assert_eq!(reader_line("claim b6:0d:24:28:73:90 10.8.1.2"), None, "an owner");
    }

    #[test]
    fn the_log_names_a_duplicate_in_one_line_of_several() {
        let line = "2026-11-26T16:17:05.301371Z ERROR owner-1 (port veth0cb9a9de, b6:0d:24:28:73:90) and owner-2 (port \
                    veth5bd67bcb, 02:64:00:00:00:01) both use 10.8.1.2 on rt0 event=\"duplicate\" incident=2 domain=rt0 \
                    address=10.8.1.2 port=\"veth5bd67bcb\" ifindex=5 mac=02:64:00:00:00:01 reason=\"request\" after_us=132";
        assert_eq!(log_line(line), ADDRESS);
        assert_eq!(log_line(&line.replace("event=\"duplicate\"", "event=\"judged\"")), None);
    }

    #[test]
    fn the_stream_has_an_event_in_each_line_of_data() {
        let line = |kind: &str| format!("data: {{\"kind\":\"{kind}\",\"address\":\"10.8.1.2\",\"after_us\":132}}");
        assert_eq!(stream_line("HTTP/1.0 200 OK"), Some(READY));
        assert_eq!(stream_line(&line("duplicate")), ADDRESS);
        assert_eq!([&*line("judged"), "id: 1a2b:7", ""].map(stream_line), [None; 3]);
    }
}

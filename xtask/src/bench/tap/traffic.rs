//! Real traffic between two sandboxes, past whoever looks.

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lab::{Process, Sandbox};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::Value;

use super::{PATIENCE, lab, observer::Observer};
use crate::bench::{
    Bench,
    peers::Peer,
    report::{Column, Line, Ratio, Section, Target, Unit, Wanted},
    samples::Samples,
};

const ROUNDS: usize = 7;
const ROUNDS_QUICK: usize = 2;
/// Small frames that one socket sends in a burst, and bursts in a round: the fastest counts, since what else the machine does
/// can only take time.
const BURST: u32 = 30_000;
const BURSTS: usize = 16;
/// As much as fits into the shortest frame.
const PAYLOAD: [u8; 18] = [0x42; 18];
/// Where nobody reads.
const DISCARD: u16 = 9;

const COLUMNS: [Column; 4] = [
    Column { title: "FRAME", key: "frame_ns", unit: Unit::Nanos },
    Column { title: "ADDED", key: "added_ns", unit: Unit::Nanos },
    Column { title: "TCP", key: "tcp_mbit_per_second", unit: Unit::Megabits },
    Column { title: "UDP", key: "udp_packets_per_second", unit: Unit::PerSecond },
];

/// What one has to know to read the table.
const NOTES: &str = "\
FRAME   what one small UDP datagram costs its sender on a CPU of its own, up to the other sandbox's socket: the fastest of the
        bursts of a round, and of the rounds the median; ADDED is what the fastest of all bursts takes more than the fastest
        with nothing attached, since what else the machine does can only take time
TCP     megabits in a second that arrive (iperf3, one connection); UDP datagrams of 64 bytes that arrive (iperf3, unlimited)
RATIO   of added times, and of arrivals by the median of the rounds' ratios; arrivals are to be no lower than the noise
        makes them, which is the empty program's slowest round beside its fastest
";

/// What one observer's rounds gave.
struct Measured {
    observer: Observer,
    frame: Samples,
    tcp: Samples,
    udp: Samples,
}

/// Two sandboxes of a lab that talk.
struct Talk<'a> {
    from: &'a Sandbox,
    to: Ipv4Addr,
    /// Never read: what is too much for it is dropped.
    _sink: UdpSocket,
    _server: Process,
}

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let rounds = if bench.quick { ROUNDS_QUICK } else { ROUNDS };
    let (bridge, sandboxes) = lab()?;
    let [from, to, ..] = &sandboxes[..] else { anyhow::bail!("a lab without sandboxes") };
    let ports: Vec<_> = sandboxes.iter().map(Sandbox::port).collect();
    let talk = Talk::between(from, to)?;
    let mut all = Observer::ALL.map(Measured::new);
    for round in 0..rounds {
        eprintln!("bench: traffic, round {} of {rounds}", round + 1);
        // Whoever comes first in one round comes last in another.
        let shift = round % all.len();
        all.rotate_left(shift);
        for measured in &mut all {
            bench.scratch.go_on()?;
            let looking = measured.observer.look(&bridge, &ports, &bench.programs)?;
            measured.add(&talk)?;
            looking.end()?;
        }
        all.rotate_right(shift);
    }
    let about = vec![format!(
        "{rounds} rounds; 8 sandboxes on a bridge, of which two talk; {BURSTS} bursts of {BURST} frames, a second of TCP and one \
         of UDP for each observer in each round"
    )];
    let lines = all.iter().map(|measured| measured.line(&all)).collect::<Result<_>>()?;
    Ok(Section { name: "tap: real traffic", about, columns: &COLUMNS, lines, notes: NOTES })
}

impl<'a> Talk<'a> {
    fn between(from: &'a Sandbox, to: &Sandbox) -> Result<Self> {
        let address = to.addresses()?.first().context("a sandbox without an address")?.clone();
        let address: Ipv4Addr = address.split('/').next().unwrap_or_default().parse()?;
        let sink = to.inside(|| Ok(UdpSocket::bind((address, DISCARD))?))?;
        let mut server = to.command("iperf3").args(["--server", "--forceflush"]).spawn()?;
        server.wait_for_line("Server listening", PATIENCE)?;
        Ok(Self { from, to: address, _sink: sink, _server: server })
    }

    /// What a frame costs, in nanoseconds, by the fastest burst.
    fn frame(&self) -> Result<f64> {
        self.from.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(SocketAddr::from((self.to, DISCARD)))?;
            let mut first = CpuSet::new();
            first.set(0)?;
            // This thread is gone when it comes back from inside.
            sched_setaffinity(Pid::from_raw(0), &first)?;
            let bursts = (0..BURSTS).map(|_| burst(&socket)).collect::<Result<Vec<_>>>()?;
            let fastest = bursts.into_iter().min().context("no burst")?;
            Ok(fastest.as_secs_f64() * 1e9 / f64::from(BURST))
        })
    }

    /// What iperf3 measures in a second.
    fn iperf(&self, how: &[&str]) -> Result<Value> {
        let client = self.from.command("iperf3").args(["--client", &self.to.to_string(), "--time", "1", "--json"]);
        Ok(serde_json::from_str(&client.args(how).run()?)?)
    }

    /// Megabits that arrive.
    fn tcp(&self) -> Result<f64> {
        Ok(figure(&self.iperf(&[])?, "/end/sum_received/bits_per_second")? / 1e6)
    }

    /// Datagrams that arrive.
    fn udp(&self) -> Result<f64> {
        let said = self.iperf(&["--udp", "--length", "64", "--bitrate", "0"])?;
        let of = |name| figure(&said, &format!("/end/sum/{name}"));
        Ok((of("packets")? - of("lost_packets")?) / of("seconds")?)
    }
}

fn figure(said: &Value, place: &str) -> Result<f64> {
    said.pointer(place).and_then(Value::as_f64).with_context(|| format!("iperf3 tells no {place}: {said}"))
}

fn burst(socket: &UdpSocket) -> Result<Duration> {
    let began = Instant::now();
    for _ in 0..BURST {
        socket.send(black_box(&PAYLOAD))?;
    }
    Ok(began.elapsed())
}

impl Measured {
    fn new(observer: Observer) -> Self {
        let [frame, tcp, udp] = [(); 3].map(|()| Samples::default());
        Self { observer, frame, tcp, udp }
    }

    fn add(&mut self, talk: &Talk<'_>) -> Result<()> {
        self.frame.add(talk.frame()?);
        self.tcp.add(talk.tcp()?);
        self.udp.add(talk.udp()?);
        Ok(())
    }

    fn line(&self, all: &[Self]) -> Result<Line> {
        let of = |observer| all.iter().find(|other| other.observer == observer).context("an observer was not measured");
        let (nobody, empty) = (of(Observer::Nobody)?, of(Observer::Empty)?);
        let added = |of: &Self| of.frame.min().zip(nobody.frame.min()).map(|(this, nothing)| this - nothing);
        let beside =
            |other: &Self, of| added(self).zip(added(other)).map(|(this, other)| Ratio { times: this / other, of });
        let is_it = |observers: &[Observer]| observers.contains(&self.observer);
        let added_beside_empty =
            beside(empty, "empty's added").filter(|_| !is_it(&[Observer::Nobody, Observer::Empty]));
        let arrived = |of: fn(&Self) -> &Samples, name| {
            let times = of(self).median_of_ratios(of(empty)).filter(|_| !is_it(&[Observer::Empty]));
            let noise = of(empty).min().zip(of(empty).max()).map(|(slowest, fastest)| slowest / fastest);
            times.map(|times| Ratio { times, of: name }).zip(noise)
        };
        let (tcp, udp) = (arrived(|of| &of.tcp, "empty's TCP"), arrived(|of| &of.udp, "empty's UDP"));
        let arrivals = tcp.into_iter().chain(udp);
        let mut targets = Vec::new();
        if self.observer == Observer::Dupip {
            targets.extend(added_beside_empty.map(|ratio| Target::ratio(ratio, Wanted::AtMost(1.3))));
            let arpwatch = beside(of(Observer::Peer(Peer::Arpwatch))?, "arpwatch's added");
            targets.extend(arpwatch.map(|ratio| Target::ratio(ratio, Wanted::Below(1.0 / 3.0))));
            targets.extend(arrivals.clone().map(|(ratio, noise)| Target::ratio(ratio, Wanted::AtLeast(noise))));
        }
        Ok(Line {
            what: self.observer.title(),
            cells: vec![
                self.frame.median(),
                added(self).filter(|_| !is_it(&[Observer::Nobody])),
                self.tcp.median(),
                self.udp.median(),
            ],
            ratios: added_beside_empty.into_iter().chain(arrivals.map(|(ratio, _)| ratio)).collect(),
            targets,
        })
    }
}

//! `cargo xtask bench flood`.

mod observer;
mod scene;

use std::time::Duration;

use anyhow::Result;

use super::{
    Bench,
    cpu::CpuTime,
    peers::Peer,
    report::{Column, Line, Ratio, Section, Target, Unit, Wanted},
    samples::Samples,
};
use observer::{Missed, Observer, Watching};
use scene::{CLAIMS, Contradiction, Flood, Scene};

/// What is sent in one flood.
const FRAMES: usize = 1_000_000;
const QUICK: usize = 250_000;
/// How long the last duplicates of a flood may take to be named.
const PATIENCE: Duration = Duration::from_secs(3);

const COLUMNS: [Column; 11] = [
    Column { title: "SENT", key: "frames_per_second", unit: Unit::PerSecond },
    Column { title: "CPU PER MILLION", key: "cpu_us_per_million", unit: Unit::Micros },
    Column { title: "USER", key: "user_us_per_million", unit: Unit::Micros },
    Column { title: "OF A CORE", key: "cpu_percent", unit: Unit::Percent },
    Column { title: "LOST", key: "lost", unit: Unit::Count },
    Column { title: "MISSING", key: "missing_claims", unit: Unit::Count },
    Column { title: "NAMED P50", key: "named_p50_us", unit: Unit::Micros },
    Column { title: "P99", key: "named_p99_us", unit: Unit::Micros },
    Column { title: "NAMED", key: "named", unit: Unit::Count },
    Column { title: "UNNAMED", key: "unnamed", unit: Unit::Count },
    Column { title: "PEAK RSS", key: "peak_rss_mib", unit: Unit::Mebibytes },
];

const NOTES: &str = "\
SENT             what the flooding port got rid of, in a flood during which nothing else happened
CPU PER MILLION  of the observer's processes, user and system, for a million frames of that flood, with what it did
                 after it; USER is the part outside the kernel. What the kernel does for an observer in the sender's
                 time shows in SENT
OF A CORE        the same for each second of the flood
LOST             frames that the observer says it has lost
MISSING          claims of the flood that are not in what it keeps: dupip's table, arpwatch's database, arpalert's
                 leases. With its guard on, dupip takes in 1,000 new claims of a port in a second, and 1,024 in all
NAMED            duplicates that another port showed in a second flood, one every 20 ms, each on an address that had
                 an owner before: from before the frame is sent until the line that names it can be read
";

/// What came of one observer in one flood.
#[derive(Debug)]
struct Round {
    observer: Observer,
    per_second: f64,
    cpu: Option<Cpu>,
    missed: Missed,
    named: Samples,
    unnamed: usize,
    /// At most, in bytes.
    peak: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Cpu {
    per_million: Duration,
    user_per_million: Duration,
    /// Of each second of the flood.
    share: f64,
}

/// Floods, watched by everybody in turn.
///
/// # Errors
/// When the lab cannot be made, an observer does not start, or somebody wants this to end.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Section>> {
    let frames = if bench.quick { QUICK } else { FRAMES };
    Flood::ALL.into_iter().map(|flood| section(bench, flood, frames)).collect()
}

fn section(bench: &Bench, flood: Flood, frames: usize) -> Result<Section> {
    let scene = Scene::new()?;
    let (mut rounds, mut absent) = (Vec::new(), Vec::new());
    for observer in Observer::ALL {
        bench.scratch.go_on()?;
        if observer.is_installed() {
            eprintln!("bench: {}, watched by {}", flood.name(), observer.name());
            rounds.push(Round::of(bench, &scene, (flood, frames), observer)?);
        } else {
            absent.push(observer.name());
        }
    }
    let mut about = vec![format!("{frames} frames from one port of eight at full speed: {}", flood.about())];
    about.extend(absent.iter().map(|name| format!("{name} is not installed: no package brings it")));
    let lines = rounds.iter().map(|round| round.line(flood, &rounds));
    let absent = absent.iter().map(|name| Line { what: (*name).to_owned(), ..Line::default() });
    let lines = lines.chain(absent).collect();
    Ok(Section { name: flood.name(), about, columns: &COLUMNS, lines, notes: NOTES })
}

impl Flood {
    fn name(self) -> &'static str {
        match self {
            Self::Repeated => "flood of one claim",
            Self::Rotating => "flood of many claims",
        }
    }

    fn about(self) -> String {
        match self {
            Self::Repeated => "one announcement, again and again".to_owned(),
            Self::Rotating => format!(
                "{CLAIMS} announcements in turn, each of an address and a hardware address of its own: a claim is the pair"
            ),
        }
    }
}

impl Round {
    /// Two floods, each with an observer that has just begun: what the first costs, and whether duplicates are named in the
    /// second.
    fn of(bench: &Bench, scene: &Scene, (flood, frames): (Flood, usize), observer: Observer) -> Result<Self> {
        let watching = observer.watch(bench, scene)?;
        let before = watching.cpu()?;
        let storm = scene.flood(&bench.scratch, flood, frames)?;
        watching.rest()?;
        let used = watching.cpu()?.zip(before).map(|(now, before)| now.since(before));
        let peak = watching.resident()?.map(|resident| resident.peak);
        let missed = watching.missed(flood.claims())?;
        let mut round = Self {
            observer,
            per_second: count(storm.taken) / storm.time.as_secs_f64(),
            cpu: used.map(|used| Cpu::of(used, storm.taken, storm.time)),
            missed,
            named: Samples::default(),
            unnamed: 0,
            peak,
        };
        if observer.names() {
            let watching = observer.watch(bench, scene)?;
            let contradictions = scene.contest(&bench.scratch, flood, frames)?;
            round.add_named(&watching, &contradictions);
            round.missed = round.missed.or_worse(watching.missed(flood.claims())?);
        }
        Ok(round)
    }

    fn add_named(&mut self, watching: &Watching, contradictions: &[Contradiction]) {
        let heard = watching.heard();
        let addresses: Vec<_> = contradictions.iter().map(|contradiction| contradiction.address).collect();
        heard.wait_for(&addresses, PATIENCE);
        for Contradiction { address, sent } in contradictions {
            match heard.first(*address) {
                Some(named) => self.named.add(1e6 * named.saturating_duration_since(*sent).as_secs_f64()),
                None => self.unnamed += 1,
            }
        }
    }

    fn line(&self, flood: Flood, all: &[Self]) -> Line {
        let Self { observer, per_second, cpu, missed, named, unnamed, peak } = self;
        let names = observer.names();
        let cells = vec![
            Some(*per_second),
            cpu.map(|cpu| micros(cpu.per_million)),
            cpu.map(|cpu| micros(cpu.user_per_million)),
            cpu.map(|cpu| 100.0 * cpu.share),
            missed.lost,
            missed.claims,
            named.median(),
            named.p99(),
            names.then(|| count(named.len())),
            names.then(|| count(*unnamed)),
            peak.map(mebibytes),
        ];
        let ratios = [self.rate_beside_nobodys(all), self.cpu_beside(Observer::Peer(Peer::Arpwatch), all)];
        let ratios = ratios.into_iter().flatten().collect();
        Line { what: observer.name().to_owned(), cells, ratios, targets: self.targets(flood, all) }
    }

    fn rate_beside_nobodys(&self, all: &[Self]) -> Option<Ratio> {
        let nobody = all.iter().find(|round| round.observer == Observer::Nobody)?;
        let times = self.per_second / nobody.per_second;
        (self.observer != Observer::Nobody).then_some(Ratio { times, of: "nobody's rate" })
    }

    fn cpu_beside(&self, other: Observer, all: &[Self]) -> Option<Ratio> {
        let of = match other {
            Observer::Unguarded => "the CPU with the guard off",
            Observer::Peer(Peer::Addrwatch) => "addrwatch's CPU",
            Observer::Peer(Peer::Arpwatch) => "arpwatch's CPU",
            _ => return None,
        };
        let other = all.iter().find(|round| round.observer == other && round.observer != self.observer)?;
        Some(Ratio { times: self.cpu?.per_million.div_duration_f64(other.cpu?.per_million), of })
    }

    fn targets(&self, flood: Flood, all: &[Self]) -> Vec<Target> {
        if !self.observer.is_dupip() {
            return Vec::new();
        }
        let cheap = match (flood, self.observer) {
            (Flood::Repeated, _) => (Observer::Peer(Peer::Arpwatch), 0.01),
            (Flood::Rotating, Observer::Guarded) => (Observer::Unguarded, 1.0),
            (Flood::Rotating, _) => (Observer::Peer(Peer::Addrwatch), 1.0),
        };
        let cheap = self.cpu_beside(cheap.0, all).map(|ratio| Target::ratio(ratio, Wanted::Below(cheap.1)));
        let none = |name, measured| Target { name, measured, unit: Some(Unit::Count), wanted: Wanted::AtMost(0.0) };
        // With its guard on, it takes in no more than a port's share.
        let is_complete = flood == Flood::Repeated || self.observer == Observer::Unguarded;
        let missing = self.missed.claims.filter(|_| is_complete).map(|claims| none("missing", claims));
        let lost = self.missed.lost.map(|lost| none("lost", lost));
        let late = self.named.p99().map(|p99| Target {
            name: "named p99",
            measured: p99,
            unit: Some(Unit::Micros),
            wanted: Wanted::Below(1_000.0),
        });
        let unnamed = none("unnamed", count(self.unnamed));
        cheap.into_iter().chain(missing).chain(lost).chain(late).chain([unnamed]).collect()
    }
}

impl Cpu {
    fn of(used: CpuTime, frames: usize, time: Duration) -> Self {
        let per_million = |time: Duration| time.div_f64(count(frames) / 1e6);
        Self {
            per_million: per_million(used.total()),
            user_per_million: per_million(used.user()),
            share: used.total().div_duration_f64(time),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "memory is less than 2⁵³ bytes")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn micros(time: Duration) -> f64 {
    1e6 * time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "there are some millions at most")]
fn count(number: usize) -> f64 {
    number as f64
}

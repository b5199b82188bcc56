//! `cargo xtask bench latency`.

mod observers;
mod scene;

use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use super::{
    Bench,
    peers::{Heard, Peer},
    report::{Column, Line, Ratio, Section, Target, Unit, Wanted},
    samples::Samples,
};
use observers::Observer;
use scene::{Contradiction, SANDBOXES, Scene, Way};

/// Those who are compared, in the order of the lines.
const OBSERVERS: [Observer; 8] = [
    Observer::Reader,
    Observer::Log,
    Observer::Event,
    Observer::Stream,
    Observer::Peer(Peer::Arpwatch),
    Observer::Peer(Peer::Arpalert),
    Observer::Peer(Peer::Addrwatch),
    Observer::Peer(Peer::Tshark),
];
/// How long an observer has for the last of it. Those that buffer what they hear take about a second.
const PATIENCE: Duration = Duration::from_secs(3);

/// In microseconds, what 99 of 100 are to be named within.
const AT_ONCE: f64 = 1_000.0;

const COLUMNS: [Column; 5] = [
    Column { title: "P50", key: "p50_us", unit: Unit::Micros },
    Column { title: "P99", key: "p99_us", unit: Unit::Micros },
    Column { title: "MAX", key: "max_us", unit: Unit::Micros },
    Column { title: "MISSED", key: "missed", unit: Unit::Count },
    Column { title: "OF", key: "of", unit: Unit::Count },
];

const NOTES: &str = "\
bare reader       a program at every port that tells of every ARP frame, and a reader that only prints: the limit
dupip log         the agent as it is shipped, in observe mode: its log line can be read
dupip API event   the answer to a client that waits at /api/v1/events has come
dupip API stream  a client of /api/v1/stream has it
dupip, inside     by the agent's own account, from the frame at the port to its name
dupip, silent     by its log: who uses an address without a word of ARP, which nobody else here can see
arpwatch          by its reports; on the bridge, as all of these; addresses that changed their station
arpalert          by its log, flood guard raised; it knows one address of each station, so owners speak just before
addrwatch         every pair that it prints, compared; a line without figures: not installed, no package brings it
tshark            by its display filter arp.duplicate-address-detected, which leaves out replies to one station
";

/// What is measured of an observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What comes by ARP, as all of them hear it.
    Arp,
    /// The same by the agent's own account.
    Inside,
    /// What only the agent can hear.
    Silent,
}

/// What one observer named, of what was there to be named.
#[derive(Debug)]
struct Named {
    observer: Observer,
    part: Part,
    latencies: Samples,
    missed: usize,
}

/// How many contradictions there are.
#[derive(Clone, Copy, Debug)]
struct Counts {
    by_arp: usize,
    silent: usize,
}

/// Measures.
///
/// # Errors
/// When the lab cannot be made, or an observer does not start.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Section>> {
    let counts = if bench.quick { Counts { by_arp: 200, silent: 40 } } else { Counts { by_arp: 1000, silent: 200 } };
    let mut scene = Scene::new(counts.by_arp + counts.silent)?;
    let mut all = Vec::new();
    for observer in OBSERVERS {
        eprintln!("bench: {} contradictions before {}", counts.by_arp, observer.name());
        all.extend(observe(bench, &mut scene, observer, counts)?);
    }
    let about = format!(
        "{} contradictions by ARP (requests, replies to one station, and both kinds of announcement, in turn) and {} by plain \
         datagrams, over {SANDBOXES} ports, 3.5 to 7 ms apart; from the moment before send(2) until it can be read",
        counts.by_arp, counts.silent
    );
    Ok(vec![Section {
        name: "latency: from a contradicting frame to its name",
        about: vec![about],
        columns: &COLUMNS,
        lines: lines(&all),
        notes: NOTES,
    }])
}

/// Has one observer hear all of it. What is not installed has a line of its own all the same.
fn observe(bench: &Bench, scene: &mut Scene, observer: Observer, counts: Counts) -> Result<Vec<Named>> {
    bench.scratch.go_on()?;
    if !observer.is_there() {
        return Ok(vec![Named::nothing(observer, Part::Arp)]);
    }
    let Counts { by_arp, silent } = counts;
    let listening = observer.start(scene, bench, by_arp + silent)?;
    let mut hear = |part, way, numbers| {
        let all = scene.contradictions(way, numbers)?;
        let sent = scene.play(&bench.scratch, &all)?;
        Ok::<_, Error>(Named::nothing(observer, part).of(&all, &sent, &listening.heard))
    };
    let named = hear(Part::Arp, Way::Arp, 0..by_arp)?;
    if observer != Observer::Log {
        return Ok(vec![named]);
    }
    let inside = Named { latencies: listening.inside()?, ..Named::nothing(observer, Part::Inside) };
    Ok(vec![named, inside, hear(Part::Silent, Way::Silent, by_arp..by_arp + silent)?])
}

impl Named {
    fn nothing(observer: Observer, part: Part) -> Self {
        Self { observer, part, latencies: Samples::default(), missed: 0 }
    }

    /// What was heard of all these, after some patience.
    fn of(mut self, all: &[Contradiction], sent: &[Instant], heard: &Heard) -> Self {
        let addresses: Vec<_> = all.iter().map(|contradiction| contradiction.address).collect();
        heard.wait_for(&addresses, PATIENCE);
        for (address, sent) in addresses.iter().zip(sent) {
            match heard.first(*address) {
                Some(at) => self.latencies.add(1e6 * at.saturating_duration_since(*sent).as_secs_f64()),
                None => self.missed += 1,
            }
        }
        self
    }

    fn what(&self) -> &'static str {
        match self.part {
            Part::Arp => self.observer.name(),
            Part::Inside => "dupip, inside",
            Part::Silent => "dupip, silent",
        }
    }

    /// How many times that median its own is.
    fn beside(&self, median: Option<f64>, of: &'static str) -> Option<Ratio> {
        Some(Ratio { times: self.latencies.median()? / median?, of })
    }

    /// What the agent is to reach.
    fn targets(&self, of_reader: Option<Ratio>, peer: Option<f64>) -> Vec<Target> {
        if !self.observer.is_dupip() || self.part == Part::Inside {
            return Vec::new();
        }
        let is_compared = self.part == Part::Arp;
        let limit = of_reader.map(|ratio| Target::ratio(ratio, Wanted::AtMost(1.5)));
        let ahead = self.beside(peer, "the fastest other").map(|ratio| Target::ratio(ratio, Wanted::Below(1.0)));
        let compared = [limit, ahead].into_iter().flatten().filter(|_| is_compared);
        compared.chain(self.in_time()).chain([self.complete()]).collect()
    }

    fn in_time(&self) -> Option<Target> {
        let measured = self.latencies.p99()?;
        Some(Target { name: "p99", measured, unit: Some(Unit::Micros), wanted: Wanted::Below(AT_ONCE) })
    }

    fn complete(&self) -> Target {
        let measured = self.missed as f64;
        Target { name: "missed", measured, unit: Some(Unit::Count), wanted: Wanted::AtMost(0.0) }
    }

    fn line(&self, reader: Option<f64>, peer: Option<f64>) -> Line {
        let of_reader = self.beside(reader, "the bare reader").filter(|_| self.observer != Observer::Reader);
        let all = self.latencies.len() + self.missed;
        let counts = [self.missed, all].map(|count| (all > 0).then_some(count as f64));
        let times = [self.latencies.median(), self.latencies.p99(), self.latencies.max()];
        let targets = self.targets(of_reader, peer);
        let cells = times.into_iter().chain(counts).collect();
        Line { what: self.what().to_owned(), cells, ratios: of_reader.into_iter().collect(), targets }
    }
}

/// Each beside the bare reader, and the agent also beside the fastest of the others.
fn lines(all: &[Named]) -> Vec<Line> {
    let medians = |is_wanted: fn(Observer) -> bool| {
        all.iter().filter(move |named| is_wanted(named.observer)).filter_map(|named| named.latencies.median())
    };
    let reader = medians(|observer| observer == Observer::Reader).next();
    let peer = medians(|observer| matches!(observer, Observer::Peer(_))).min_by(f64::total_cmp);
    all.iter().map(|named| named.line(reader, peer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(observer: Observer, part: Part, micros: f64, missed: usize) -> Named {
        let mut named = Named { missed, ..Named::nothing(observer, part) };
        named.latencies.add(micros);
        named
    }

    #[test]
    fn the_agent_is_compared_with_the_limit_and_with_the_fastest_of_the_others() {
        let lines = lines(&[
            named(Observer::Reader, Part::Arp, 40.0, 0),
            named(Observer::Log, Part::Arp, 100.0, 1),
            named(Observer::Log, Part::Inside, 60.0, 0),
            named(Observer::Log, Part::Silent, 1500.0, 0),
            Named::nothing(Observer::Peer(Peer::Addrwatch), Part::Arp),
            named(Observer::Peer(Peer::Arpalert), Part::Arp, 5000.0, 0),
            named(Observer::Peer(Peer::Arpwatch), Part::Arp, 500_000.0, 0),
        ]);
        let ratios: Vec<_> = lines.iter().flat_map(|line| &line.ratios).map(|ratio| ratio.times).collect();
        assert_eq!(ratios, [2.5, 1.5, 37.5, 125.0, 12_500.0]);
        let measured: Vec<Vec<f64>> =
            lines.iter().map(|line| line.targets.iter().map(|of| of.measured).collect()).collect();
        assert_eq!(measured, [vec![], vec![2.5, 0.02, 100.0, 1.0], vec![], vec![1500.0, 0.0], vec![], vec![], vec![]]);
        assert_eq!(lines[4].cells, [None; 5], "a program that is not there has no figures");
        assert_eq!(lines[1].cells[3..], [Some(1.0), Some(2.0)]);
    }
}

//! One frame after another through one program after another, in the kernel, without a network.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use lab::Runner;

use crate::bench::{
    Bench,
    report::{Column, Line, Ratio, Section, Target, Unit, Wanted},
    samples::Samples,
};

const ROUNDS: usize = 11;
const ROUNDS_QUICK: usize = 5;
/// Runs of one program with one frame, in each round.
const TIMES: u32 = 1_000_000;

const COLUMNS: [Column; 2] = [
    Column { title: "MEDIAN", key: "median_ns", unit: Unit::Nanos },
    Column { title: "LOWEST", key: "lowest_ns", unit: Unit::Nanos },
];

/// What one has to know to read the table.
const NOTES: &str = "\
empty      a program that answers TCX_NEXT; its time is that of the kernel's loop around it
ethertype  a program that looks at the EtherType
arp_tap    the tap where IPv4 is nobody's claim; ipv4_tap also looks at the source of every IPv4 packet (--watch-ipv4, the default)
RATIO      the median of the rounds' ratios
";

/// Frames and what is said of them, programs and what they are called, in the order of the table.
const FRAMES: [(&str, &str); 5] = [
    ("ipv4_tcp", "IPv4 TCP"),
    ("ipv6", "IPv6"),
    ("known_claim", "known ARP claim"),
    ("new_claim", "new ARP claim"),
    ("malformed", "malformed ARP"),
];
const PROGRAMS: [&str; 4] = ["empty", "ethertype", "arp_tap", "ipv4_tap"];

/// What a frame costs in a program, in nanoseconds, in each round.
type Costs = BTreeMap<(String, String), Vec<f64>>;

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let rounds = if bench.quick { ROUNDS_QUICK } else { ROUNDS };
    eprintln!("bench: frames through programs, {rounds} rounds");
    let worker = Runner::new()?.command(&bench.programs.yardsticks);
    let costs = read(&worker.args(["frames", &rounds.to_string(), &TIMES.to_string()]).run()?)?;
    let all = FRAMES.iter().flat_map(|frame| PROGRAMS.map(|program| (*frame, program)));
    let lines = all.map(|(frame, program)| line(frame, program, &costs)).collect::<Result<_>>()?;
    let about =
        vec![format!("{rounds} rounds, in each {TIMES} runs of every program with every frame (BPF_PROG_TEST_RUN)")];
    Ok(Section { name: "tap: one frame through one program", about, columns: &COLUMNS, lines, notes: NOTES })
}

/// `known_claim arp_tap 119.42` in each line.
fn read(said: &str) -> Result<Costs> {
    let mut costs = Costs::new();
    for line in said.lines() {
        let mut words = line.split(' ');
        let mut word = || words.next().with_context(|| format!("the yardsticks say {line:?}"));
        let (frame, program, nanos) = (word()?, word()?, word()?.parse()?);
        costs.entry((frame.to_owned(), program.to_owned())).or_default().push(nanos);
    }
    ensure!(!costs.is_empty(), "the yardsticks say nothing");
    Ok(costs)
}

fn line((frame, title): (&str, &str), program: &str, costs: &Costs) -> Result<Line> {
    let of = |program: &str| {
        let costs = costs.get(&(frame.to_owned(), program.to_owned()));
        costs
            .map(|costs| Samples::of(costs.iter().copied()))
            .with_context(|| format!("no times of {frame} in {program}"))
    };
    let (samples, empty) = (of(program)?, of("empty")?);
    let times = samples.median_of_ratios(&empty).filter(|_| program != "empty");
    let ratio = times.map(|times| Ratio { times, of: "empty" });
    let wanted = wanted(frame, program);
    Ok(Line {
        what: format!("{title}, {program}"),
        cells: vec![samples.median(), samples.min()],
        ratios: ratio.into_iter().collect(),
        targets: ratio.zip(wanted).map(|(ratio, wanted)| Target::ratio(ratio, wanted)).into_iter().collect(),
    })
}

/// What is to be reached beside the empty program.
fn wanted(frame: &str, program: &str) -> Option<Wanted> {
    match (frame, program) {
        ("ipv6", "arp_tap" | "ipv4_tap") | ("ipv4_tcp", "arp_tap") => Some(Wanted::AtMost(1.3)),
        ("ipv4_tcp", "ipv4_tap") => Some(Wanted::AtMost(2.0)),
        ("known_claim", "arp_tap" | "ipv4_tap") => Some(Wanted::AtMost(4.0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_costs_what_it_costs_beside_the_empty_program() {
        let costs = read("ipv6 empty 30.00\nipv6 ipv4_tap 45.5\nipv6 empty 40.00\nipv6 ipv4_tap 50").unwrap();
        let line = line(("ipv6", "IPv6"), "ipv4_tap", &costs).unwrap();
        assert_eq!((line.what.as_str(), line.cells), ("IPv6, ipv4_tap", vec![Some(45.5), Some(45.5)]));
        assert_eq!((line.ratios[0].times, line.targets.len()), (50.0 / 40.0, 1));
        assert!(read("").is_err() && read("ipv6 empty").is_err() && read("ipv6 empty much").is_err());
    }
}

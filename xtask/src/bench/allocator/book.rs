//! Books of leases that are worked on, beside a bare table.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{Effort, line};
use crate::{
    bench::{
        report::{Line, Ratio, Target, Wanted},
        samples::Samples,
        scratch::Scratch,
    },
    shell,
};

/// Leases held when the work begins.
const HELD: [usize; 4] = [0, 1_000, 10_000, 60_000];
const HELD_QUICK: [usize; 2] = [0, 60_000];

/// Processes that work at the same time.
const CROWD: usize = 8;

/// Commits that do not count, by all processes together: after them the write-ahead log has been moved into the file
/// once, and from then on it is written over, as that of an agent is that has run for a while.
const WARM_UP_BARE: usize = 1_200;
const WARM_UP: usize = 160;

/// A bare commit writes about a tenth as much, so it takes more of them until the log is full.
const BARE_TIMES: usize = 5;

/// One way to work on a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    how: How,
    held: usize,
    processes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Bare,
    Allocate,
    Reserve,
}

/// A process that works on a book, until it has told what it measured.
struct Worker {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

pub(super) fn lines(scratch: &Scratch, program: &Path, effort: Effort) -> Result<Vec<Line>> {
    let held = if effort.quick { &HELD_QUICK[..] } else { &HELD[..] };
    held.iter().try_for_each(|held| prepare(scratch, program, *held).map(drop))?;
    let mut measured: Vec<_> = cases(held).into_iter().map(|case| (case, Samples::default())).collect();
    for round in 1..=effort.rounds {
        eprintln!("bench: books, round {round} of {}", effort.rounds);
        for (case, samples) in &mut measured {
            let (times, wall) = case.run(scratch, program, effort.operations)?;
            samples.add_round(&times, wall);
        }
    }
    Ok(measured.iter().map(|(case, samples)| case.line(samples, &measured)).collect())
}

/// Makes a book with `held` leases, in memory, and answers where it is. It may be there already.
pub(super) fn prepare(scratch: &Scratch, program: &Path, held: usize) -> Result<PathBuf> {
    scratch.go_on()?;
    let book = scratch.memory().join(format!("held-{held}"));
    if !book.exists() {
        eprintln!("bench: a book with {held} leases");
        shell::read(Command::new(program).arg("prepare").arg(&book).arg(held.to_string()).arg("0"))?;
    }
    Ok(book)
}

/// One after another, and each in one process and in many.
fn cases(held: &[usize]) -> Vec<Case> {
    let books = held.iter().flat_map(|held| [(How::Allocate, *held), (How::Reserve, *held)]);
    let hows = [(How::Bare, 0)].into_iter().chain(books);
    let of = |processes| hows.clone().map(move |(how, held)| Case { how, held, processes });
    of(1).chain(of(CROWD)).collect()
}

impl Case {
    /// Works on a fresh copy. Answers how long each operation took, and how long they took together.
    fn run(self, scratch: &Scratch, program: &Path, operations: usize) -> Result<(Vec<Duration>, Duration)> {
        let book = scratch.fresh("round")?.join("book");
        let (warm, times) = match self.how {
            How::Bare => (WARM_UP_BARE, BARE_TIMES * operations),
            How::Allocate | How::Reserve => (WARM_UP, operations),
        };
        if self.how != How::Bare {
            scratch.copy(&prepare(scratch, program, self.held)?, &book)?;
        }
        let start = || Worker::start(program, self.how, &book, warm / self.processes, times / self.processes);
        let mut workers = (0..self.processes).map(|_| start()).collect::<Result<Vec<_>>>()?;
        workers.iter_mut().try_for_each(Worker::wait_until_ready)?;
        workers.iter_mut().try_for_each(Worker::go)?;
        let spans = workers.into_iter().map(Worker::finish).collect::<Result<Vec<_>>>()?.concat();
        let first = spans.iter().map(|(began, _)| *began).min().context("no operation was measured")?;
        let last = spans.iter().map(|(_, ended)| *ended).max().context("no operation was measured")?;
        let times = spans.into_iter().map(|(began, ended)| Duration::from_nanos(ended - began)).collect();
        Ok((times, Duration::from_nanos(last - first)))
    }

    fn line(self, samples: &Samples, all: &[(Self, Samples)]) -> Line {
        let of = |how, held| {
            let case = Self { how, held, processes: self.processes };
            all.iter().find(|(other, _)| *other == case).map(|(_, samples)| samples)
        };
        let of_bare = of(How::Bare, 0).and_then(|bare| samples.speed_beside(bare)).filter(|_| self.how != How::Bare);
        let of_bare = of_bare.map(|times| Ratio { times, of: "bare" });
        let slower = of(How::Allocate, 0).and_then(|empty| empty.speed_beside(samples));
        let slower = slower.map(|times| Ratio { times, of: "the time with 0 held" });
        let held = (self.how != How::Bare).then_some(self.held);
        let line = line(self.how.what().to_owned(), held, self.processes, samples);
        line.beside(of_bare, self.targets(of_bare, slower))
    }

    fn targets(self, of_bare: Option<Ratio>, slower: Option<Ratio>) -> Vec<Target> {
        if self.how != How::Allocate || self.processes != 1 {
            return Vec::new();
        }
        let of_bare = of_bare.map(|ratio| Target::ratio(ratio, Wanted::AtLeast(0.6)));
        let slower = slower.filter(|_| self.held == 60_000);
        of_bare.into_iter().chain(slower.map(|ratio| Target::ratio(ratio, Wanted::AtMost(1.3)))).collect()
    }
}

impl How {
    /// What the worker calls it.
    const fn word(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Allocate => "allocate",
            Self::Reserve => "reserve",
        }
    }

    /// What people read.
    const fn what(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Allocate => "allocate",
            Self::Reserve => "reserve+bind",
        }
    }
}

impl Worker {
    fn start(program: &Path, how: How, book: &Path, warm: usize, times: usize) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["work", how.word()]).arg(book).args([warm, times].map(|count| count.to_string()));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start a worker")?;
        let stdout = child.stdout.take().context("a worker has no output")?;
        Ok(Self { child, said: BufReader::new(stdout).lines() })
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let line = self.said.next().transpose()?;
        ensure!(line.as_deref() == Some("ready"), "a worker is not ready, see above");
        Ok(())
    }

    fn go(&mut self) -> Result<()> {
        let mut stdin = self.child.stdin.take().context("a worker has no input")?;
        stdin.write_all(b"go\n").context("a worker is gone")
    }

    /// When each operation began and ended, in nanoseconds since boot.
    fn finish(mut self) -> Result<Vec<(u64, u64)>> {
        let spans = self.said.by_ref().map(|line| span(&line?)).collect::<Result<_>>()?;
        ensure!(self.child.wait()?.success(), "a worker failed, see above");
        Ok(spans)
    }
}

/// A worker must not outlive what it works for: it may be waiting for a line, and then ends for want of one.
impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn span(line: &str) -> Result<(u64, u64)> {
    let (began, ended) = line.split_once(' ').context("a worker tells no times")?;
    Ok((began.parse()?, ended.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(micros: u64) -> Samples {
        let mut samples = Samples::default();
        samples.add_round(&[Duration::from_micros(micros)], Duration::from_micros(micros));
        samples
    }

    #[test]
    fn every_way_is_measured_alone_and_in_a_crowd() {
        let cases = cases(&HELD);
        assert_eq!(cases.len(), 2 * (1 + 2 * HELD.len()));
        assert_eq!(cases[0], Case { how: How::Bare, held: 0, processes: 1 });
        assert_eq!(cases[9], Case { how: How::Bare, held: 0, processes: CROWD });
    }

    #[test]
    fn a_line_is_beside_the_limit_of_as_many_processes() {
        let case = |how, held, processes| Case { how, held, processes };
        let all = [
            (case(How::Bare, 0, 1), samples(300)),
            (case(How::Allocate, 0, 1), samples(400)),
            (case(How::Allocate, 60_000, 1), samples(600)),
            (case(How::Bare, 0, CROWD), samples(600)),
            (case(How::Allocate, 0, CROWD), samples(600)),
        ];
        let lines: Vec<_> = all.iter().map(|(case, samples)| case.line(samples, &all)).collect();
        let speed = |line: &Line| line.ratios.first().map(|ratio| (ratio.times * 100.0).round());
        let speeds: Vec<_> = lines.iter().map(speed).collect();
        assert_eq!(speeds, [None, Some(75.0), Some(50.0), None, Some(100.0)]);
        assert_eq!(lines.iter().map(|line| line.targets.len()).collect::<Vec<_>>(), [0, 1, 2, 0, 0]);
        assert!((lines[2].targets[1].measured - 1.5).abs() < 1e-9);
    }

    #[test]
    fn a_workers_line_is_two_moments() {
        assert_eq!(span("12 34").unwrap(), (12, 34));
        assert!(span("12").is_err() && span("a b").is_err());
    }
}

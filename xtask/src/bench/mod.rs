//! `cargo xtask bench`: how fast it is, beside the limit and beside others, in one run.

mod allocator;
mod cpu;
mod flood;
mod heal;
mod latency;
mod machine;
mod peers;
mod report;
mod samples;
mod scale;
mod scratch;
mod tap;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use serde_json::json;

use crate::{
    build,
    setup::{self, Purpose},
    shell,
};
use machine::Machine;
use report::Section;
use scratch::{Interrupted, Scratch};

/// What a shell says of a program that ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// What `cargo xtask bench` is told.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench                                  everything, in about a quarter of an hour
  cargo xtask bench heal allocator                   two of them
  cargo xtask bench tap --quick                      fewer rounds, to see where one stands
  cargo xtask bench all -o json > before.json        numbers to compare with
  cargo xtask bench allocator --directory /mnt/nvme  on another disk")]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    what: Vec<What>,
    /// Fewer rounds and operations
    #[arg(long)]
    quick: bool,
    /// Where to put the files that are measured on: a commit waits for their disk [default: target]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How to show the answer
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// The programs that are measured, already built: for the part that runs as root, or to compare one agent with another
    #[arg(long, num_args = 3, value_names = ["DUPIP", "ALLOCATOR", "YARDSTICKS"])]
    built: Option<Vec<PathBuf>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// All of them, in this order
    All,
    /// The tap: what a frame costs in the program, and what it costs those that talk past it
    ///
    /// Frames through the tap in the kernel, beside an empty program; then real traffic between two of eight sandboxes with
    /// nothing attached, with an empty program, with dupip, arpwatch, tcpdump, tshark and arpalert, in turns.
    Tap,
    /// A contradicting frame, until it is named: the agent beside a bare reader and beside what a user would take instead
    ///
    /// A thousand contradictions over eight ports, by every kind of ARP frame, on a private runner, for one observer after
    /// the other. Times begin just before the frame is sent, and end when what the observer says of it can be read.
    Latency,
    /// A million ARP frames at full speed from one port: what they cost whoever watches, and what is still seen
    ///
    /// One claim again and again, and 65,536 in turn, on a bridge with eight ports; watched by nobody, by dupip with its rate
    /// guard on and off, and by each of the others. Then once more, while another port shows duplicates.
    Flood,
    /// A duplicate, from its first frame to its end: how long until it is named, contained and healed
    ///
    /// Hundreds of duplicates, one after the other, on a private runner with an agent as it is shipped. Each is a sandbox that
    /// comes up with an address that another one holds by right, as its kernel announces it. Times are the agent's own, from
    /// the moment at which the kernel saw the announcement.
    Heal,
    /// Handing out leases: the store beside bare SQLite, the CNI plugin beside host-local
    ///
    /// Every round begins with fresh copies of books that hold 0 to 60,000 leases. Rounds go through all rows in turn, so
    /// that what else the machine does meets all of them alike; a ratio is the median of the rounds' ratios.
    Allocator,
    /// Many ports and many addresses: the agent at 10, 100 and 1,000 ports with 65,536 bindings
    ///
    /// A lab for each, with an agent as it is shipped, in observe mode: how long it takes to be ready, to watch a new port and
    /// to tell its table and its metrics, and what memory and processor it takes while nothing happens.
    Scale,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

/// What every bench works with.
struct Bench {
    scratch: Scratch,
    programs: Programs,
    quick: bool,
}

/// Built as they are shipped.
struct Programs {
    /// The agent.
    dupip: PathBuf,
    /// Works on books of leases.
    allocator: PathBuf,
    /// What the tap is measured beside.
    yardsticks: PathBuf,
}

/// Builds, measures, prints. Success does not depend on the figures.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let programs = Programs::ready(args.built.as_deref())?;
    if !shell::is_root() {
        return as_root(&programs);
    }
    let directory = args.directory.clone().unwrap_or_else(|| shell::workspace().join("target"));
    match measure(args, programs, &directory) {
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("bench: {error}");
            Ok(ExitCode::from(INTERRUPTED))
        }
        done => done.map(|()| ExitCode::SUCCESS),
    }
}

fn measure(args: &Args, programs: Programs, directory: &Path) -> Result<()> {
    let began = Instant::now();
    let bench = Bench { scratch: Scratch::new(directory)?, programs, quick: args.quick };
    let machine = Machine::here(bench.scratch.disk())?;
    scratch::ensure_disk(&machine.file_system, directory)?;
    eprintln!("bench: {machine}");
    let mut sections = Vec::new();
    for what in What::named(&args.what) {
        eprintln!("bench: {what}");
        // What fails after Ctrl-C failed because of it.
        let measured = what.measure(&bench).or_else(|error| bench.scratch.go_on().and(Err(error)));
        sections.extend(measured.with_context(|| format!("cannot measure {what}"))?);
    }
    let seconds = began.elapsed().as_secs();
    match args.output {
        Output::Table => {
            let texts: Vec<_> = sections.iter().map(Section::text).collect();
            print!("{machine}\n\n{}\nMeasured in {seconds} s.\n", texts.join("\n"));
        }
        Output::Json => {
            let sections: Vec<_> = sections.iter().map(Section::json).collect();
            let answer = json!({ "machine": machine.json(), "seconds": seconds, "sections": sections });
            println!("{}", serde_json::to_string_pretty(&answer)?);
        }
    }
    Ok(())
}

/// Namespaces and the tap need root. What was built stays the caller's own.
fn as_root(programs: &Programs) -> Result<ExitCode> {
    eprintln!("bench: not root, so the lab is made through sudo");
    let mut again = Command::new("sudo");
    again.arg(env::current_exe()?).args(env::args_os().skip(1)).arg("--built");
    again.args([&programs.dupip, &programs.allocator, &programs.yardsticks]);
    let status = again.status().context("there is no sudo: run this as root")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

impl Programs {
    /// Those that are `built`, or else sets up and builds them.
    fn ready(built: Option<&[PathBuf]>) -> Result<Self> {
        let of = |[dupip, allocator, yardsticks]: [PathBuf; 3]| Self { dupip, allocator, yardsticks };
        if let Some(built) = built {
            return Ok(of(built.to_vec().try_into().ok().context("--built takes three programs")?));
        }
        setup::ready(Purpose::Bench)?;
        build::to_measure().map(of)
    }
}

impl What {
    /// Those that are asked for, each once, in the order in which they are measured.
    fn named(asked: &[Self]) -> Vec<Self> {
        let is_asked = |what: &Self| asked.contains(&Self::All) || asked.contains(what);
        Self::value_variants().iter().copied().filter(|what| *what != Self::All && is_asked(what)).collect()
    }

    fn measure(self, bench: &Bench) -> Result<Vec<Section>> {
        match self {
            Self::All => Ok(Vec::new()),
            Self::Tap => tap::measure(bench),
            Self::Latency => latency::measure(bench),
            Self::Flood => flood::measure(bench),
            Self::Heal => heal::measure(bench),
            Self::Allocator => allocator::measure(bench),
            Self::Scale => scale::measure(bench),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("", |value| value.get_name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bench_is_measured_once_and_in_order() {
        let all = What::named(&[What::All]);
        assert_eq!(all.len(), What::value_variants().len() - 1);
        assert_eq!(What::named(&[What::Allocator, What::Heal, What::Allocator]), [What::Heal, What::Allocator]);
        assert_eq!(What::Allocator.to_string(), "allocator");
    }
}

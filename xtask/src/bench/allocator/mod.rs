//! `cargo xtask bench allocator`.

mod book;
mod cni;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use serde_json::json;

use super::{
    Output,
    machine::Machine,
    row::{self, Row},
    scratch::{self, Interrupted, Scratch},
};
use crate::{
    build,
    setup::{self, Purpose},
    shell,
};

/// What a shell says of a program that ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// What `cargo xtask bench allocator` is told.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench allocator                        everything, in about two minutes
  cargo xtask bench allocator --quick                a third of it, to see where one stands
  cargo xtask bench allocator -o json > before.json  numbers to compare with
  cargo xtask bench allocator --directory /mnt/nvme  on another disk")]
pub(crate) struct Args {
    /// Fewer rounds, operations and books
    #[arg(long)]
    quick: bool,
    /// Rounds that go through everything; 7, or 3 with --quick
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: Option<u8>,
    /// Where to put the files that are measured on: their file system is what is measured [default: target]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How to show the answer
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    rounds: u8,
    /// Operations of each row in a round.
    operations: usize,
    /// Calls of a plugin in a round.
    calls: usize,
    quick: bool,
}

/// Builds, measures, prints. Success does not depend on the figures.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    setup::ready(Purpose::Bench)?;
    let programs = build::to_measure()?;
    let directory = args.directory.clone().unwrap_or_else(|| shell::workspace().join("target"));
    match measure(args, &programs, &directory) {
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("bench: {error}");
            Ok(ExitCode::from(INTERRUPTED))
        }
        done => done.map(|()| ExitCode::SUCCESS),
    }
}

fn measure(args: &Args, [dupip, worker]: &[PathBuf; 2], directory: &Path) -> Result<()> {
    let scratch = Scratch::new(directory)?;
    let machine = Machine::here(scratch.disk())?;
    scratch::ensure_disk(&machine.file_system, directory)?;
    eprintln!("bench: {machine}");
    let effort = Effort::new(args);
    // What fails after Ctrl-C failed because of it.
    let rows = rows(&scratch, worker, dupip, effort).or_else(|error| scratch.go_on().and(Err(error)))?;
    match args.output {
        Output::Table => print!("{machine}\n{} rounds\n\n{}\n{NOTES}", effort.rounds, row::table(&rows)),
        Output::Json => {
            let rows: Vec<_> = rows.iter().map(Row::json).collect();
            let answer = json!({ "machine": machine.json(), "rounds": effort.rounds, "rows": rows });
            println!("{}", serde_json::to_string_pretty(&answer)?);
        }
    }
    Ok(())
}

/// What one has to know to read the table.
const NOTES: &str = "\
bare       one row of 100 bytes in one commit of SQLite with the same settings (WAL, synchronous FULL): the limit
allocate   one lease, one commit; reserve+bind is the same in two, with time in between to look at the wire
RATE       of all processes together, by the median round; SPEED is the median of the rounds' ratios
CNI ADD    from the start of the process to its end, without agent; dupip's is on disk by then, host-local's is not
";

fn rows(scratch: &Scratch, worker: &Path, dupip: &Path, effort: Effort) -> Result<Vec<Row>> {
    let mut rows = book::rows(scratch, worker, effort)?;
    rows.extend(cni::rows(scratch, worker, dupip, effort)?);
    Ok(rows)
}

impl Effort {
    fn new(args: &Args) -> Self {
        let quick = args.quick;
        let (rounds, operations, calls) = if quick { (3, 80, 12) } else { (7, 200, 25) };
        Self { rounds: args.rounds.unwrap_or(rounds), operations, calls, quick }
    }
}

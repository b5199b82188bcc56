//! `cargo xtask bench heal`.

mod duplicates;
mod table;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{
    Output,
    machine::Machine,
    scratch::{self, Interrupted, Scratch},
};
use crate::{
    build,
    setup::{self, Purpose},
    shell,
};
use duplicates::Measured;

/// What a shell says of a program that ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// What `cargo xtask bench heal` is told.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench heal                        250 duplicates, in about a minute
  cargo xtask bench heal --incidents 1000       more of them
  cargo xtask bench heal -o json > before.json  numbers to compare with
  cargo xtask bench heal --directory /mnt/nvme  with the agent's database on another disk")]
pub(crate) struct Args {
    /// How many duplicates
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u16).range(1..=5000))]
    incidents: u16,
    /// Where to put the agent's database: each step waits for its disk [default: target]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How to show the answer
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// The agent, already built: for the part that runs as root, or to compare one with another
    #[arg(long, value_name = "PROGRAM")]
    built: Option<PathBuf>,
}

/// Builds, measures, prints. Success does not depend on the figures.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let dupip = match &args.built {
        Some(dupip) => dupip.clone(),
        None => {
            setup::ready(Purpose::Lab)?;
            build::shipped()?
        }
    };
    if !shell::is_root() {
        return as_root(args, &dupip);
    }
    let directory = args.directory.clone().unwrap_or_else(|| shell::workspace().join("target"));
    match measure(args, &dupip, &directory) {
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("bench: {error}");
            Ok(ExitCode::from(INTERRUPTED))
        }
        done => done.map(|()| ExitCode::SUCCESS),
    }
}

fn measure(args: &Args, dupip: &Path, directory: &Path) -> Result<()> {
    let scratch = Scratch::new(directory)?;
    let machine = Machine::here(scratch.disk())?;
    scratch::ensure_disk(&machine.file_system, directory)?;
    eprintln!("bench: {machine}");
    // What fails after Ctrl-C failed because of it.
    let measured = duplicates::measure(&scratch, dupip, args.incidents.into());
    let measured: Measured = measured.or_else(|error| scratch.go_on().and(Err(error)))?;
    match args.output {
        Output::Table => print!("{machine}\n{}", table::text(&measured)),
        Output::Json => {
            let answer = json!({ "machine": machine.json(), "heal": table::json(&measured) });
            println!("{}", serde_json::to_string_pretty(&answer)?);
        }
    }
    Ok(())
}

/// Namespaces and the tap need root. What was built stays the caller's own.
fn as_root(args: &Args, dupip: &Path) -> Result<ExitCode> {
    eprintln!("bench: not root, so the lab is made through sudo");
    let mut again = Command::new("sudo");
    again.arg(env::current_exe()?).args(["bench", "heal", "--built"]).arg(dupip);
    again.args(["--incidents", &args.incidents.to_string()]);
    again.args(args.directory.iter().flat_map(|directory| ["--directory".as_ref(), directory.as_os_str()]));
    again.args(["--output", if args.output == Output::Json { "json" } else { "table" }]);
    let status = again.status().context("there is no sudo: run this as root")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

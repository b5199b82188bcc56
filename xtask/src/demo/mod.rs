//! `cargo xtask demo`: the incident that dupip was made for, seen and healed on a private runner.

mod alert;
mod connection;
mod facts;
mod forward;
mod play;
mod voice;

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    build,
    setup::{self, Purpose},
    shell,
};
use play::Play;
use voice::Voice;

/// What `cargo xtask demo` is told.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask demo                     seen, named and healed
  cargo xtask demo --observe           seen and named; nothing is changed
  cargo xtask demo --keep              leaves the lab and the agent, with the commands to enter and to remove them
  cargo xtask demo --prometheus        with a real Prometheus, until the alert fires and is resolved; the addresses to open
  cargo xtask demo --prometheus --keep the same, with time to look around, until Ctrl-C
  cargo xtask demo -o json | jq .      the facts alone")]
pub(crate) struct Args {
    /// Run the agent without letting it act
    #[arg(long)]
    observe: bool,
    /// Leave the lab running at the end, to play with
    ///
    /// With --prometheus all of it runs until Ctrl-C, since your browser reaches the lab through this program.
    #[arg(long)]
    keep: bool,
    /// Show the incident as an alert of a real Prometheus: pending, firing, resolved
    ///
    /// Prometheus runs in the lab with the rules of `dashboards/prometheus`. Its page and the agent's are reached at
    /// 127.0.0.1 of this machine; the addresses are printed.
    #[arg(long, conflicts_with = "observe")]
    prometheus: bool,
    /// Tell the story, or print the facts as JSON
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// The agent, already built: for the part of the demo that runs as root
    #[arg(long, hide = true)]
    built: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Sets up, builds, plays. Success is a healed incident, or one that was only watched if that was asked for.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let dupip = match &args.built {
        Some(dupip) => dupip.clone(),
        None => {
            setup::ready(if args.prometheus { Purpose::Alerts } else { Purpose::Lab })?;
            build::dupip()?
        }
    };
    if !shell::is_root() {
        return as_root(args, &dupip);
    }
    let voice = Voice { speaks: args.output == Output::Text };
    let (facts, is_as_promised) = if args.prometheus {
        let facts = alert::run(&dupip, args.keep, voice)?;
        let is_as_promised = alert::is_as_promised(&facts);
        (facts, is_as_promised)
    } else {
        let facts = Play::new(&dupip, args.observe, args.keep, voice)?.run()?;
        (facts.json(), facts.is_as_promised())
    };
    if args.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&facts)?);
    }
    Ok(if is_as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Namespaces and the tap need root. What was built stays the caller's own.
fn as_root(args: &Args, dupip: &PathBuf) -> Result<ExitCode> {
    eprintln!("demo: not root, so the lab is made through sudo");
    let mut again = Command::new("sudo");
    again.arg(env::current_exe()?).arg("demo").arg("--built").arg(dupip);
    again.args(args.observe.then_some("--observe")).args(args.keep.then_some("--keep"));
    again.args(args.prometheus.then_some("--prometheus"));
    again.args(["--output", if args.output == Output::Json { "json" } else { "text" }]);
    let status = again.status().context("there is no sudo: run this as root")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

//! The command line: one file for each verb.
//!
//! `run` is the agent. The other verbs ask a running one over its Unix socket and show what it says (`render`); nothing
//! is known here that the API does not say. `exit` is how it all ends.

mod completions;
mod config;
mod conflicts;
mod doctor;
mod drill;
mod environment;
mod events;
mod exit;
mod explain;
mod healing;
mod hooks;
mod lease;
mod listening;
mod logging;
mod man;
mod meant;
mod openapi;
mod pause;
mod policy;
mod pool;
mod preflight;
mod quarantine;
mod reload;
mod render;
mod replay;
mod run;
mod scan;
mod service;
mod support_bundle;
mod table;
mod target;
mod watch;

use std::{panic, path::PathBuf};

use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use serde::de::DeserializeOwned;
use tokio::runtime::{self, Runtime};

pub use exit::Exit;
use exit::Failure;

use crate::http::{Client, SOCKET};

/// How long a released address rests unless something else is said.
const COOLDOWN: &str = "10m";

const EXAMPLES: &str = "\
Examples:
  dupip run --bridge rt0                   watch rt0 and tell; change nothing
  dupip run --bridge rt0 --mode enforce    also move the loser of a settled contest
  dupip table                              who has which address
  dupip table --watch                      the same, live
  dupip conflicts                          duplicates, open and lately closed
  dupip explain 3                          the story of one of them
  dupip quarantine list                    whose claims are dropped, and how many by now
  dupip events -f                          everything that happens, as it happens
  dupip lease list -o json                 the allocator's book, for a program
  dupip drill --bridge rt0                 a harmless duplicate, to see it named and healed

Exit codes:
  0   fine
  1   the answer is no: a duplicate is open (conflicts --fail), a lease was not the one
      that was named, or what was asked for cannot be as things stand
  2   wrong usage
  3   the agent cannot be reached
  4   not permitted
  5   the kernel cannot do it
  65  a file that was read is damaged (replay)
  70  a bug";

/// Every IP address on a sandbox runner has exactly one live owner.
///
/// dupip watches Linux bridges from the kernel, names both parties of a duplicate address by sandbox, port and MAC, and,
/// if it may, moves the loser to a fresh address while the winner feels nothing.
#[derive(Debug, Parser)]
#[command(name = "dupip", version, after_help = EXAMPLES)]
pub struct Cli {
    /// The agent's Unix socket
    #[arg(long, global = true, value_name = "PATH", env = "DUPIP_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
    /// When to use colours: on a terminal, unless NO_COLOR is set; always; or never
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent: watch bridges, name duplicates and, in enforce mode, heal them
    Run(Box<run::Args>),
    /// Show the live table: who has which address
    Table(table::Args),
    /// Show duplicates, open and lately closed: who, since when, who keeps the address and why
    Conflicts(conflicts::Args),
    /// Tell the story of one incident, from first sight to its end
    Explain(explain::Args),
    /// Show whose claims are dropped, and let somebody go
    Quarantine(quarantine::Args),
    /// Have the agent do nothing new for a while, or go on; without a time, say whether it is paused
    Pause(pause::Args),
    /// Show what the agent has told, and what it tells
    Events(events::Args),
    /// Allocate, list, release and reconcile leases; see what became of them
    Lease(lease::Args),
    /// Make, list and remove the pools that addresses are leased from
    Pool(pool::Args),
    /// Look once and ask once who has which address, without an agent; find duplicates and martians
    Scan(scan::Args),
    /// Judge recorded frames as the agent would have: pcap and pcapng files
    Replay(replay::Args),
    /// Print, check and show what the agent is told
    Config(config::Args),
    /// Have the agent read its configuration file again
    Reload(reload::Args),
    /// Say what is there, what is missing, what that means and what to do
    Doctor(doctor::Args),
    /// Gather what a bug report needs into one archive, without secrets
    SupportBundle(support_bundle::Args),
    /// Plant a harmless duplicate and see it named, contained and healed
    Drill(drill::Args),
    /// Print a shell's completion script
    Completions(completions::Args),
    /// Print the manual page, or write one for each verb
    Man(man::Args),
    /// Print the description of the HTTP API, for programs (OpenAPI 3.1)
    Openapi(openapi::Args),
}

impl Cli {
    /// What this process's command line and environment say; ends the process where that is help, or makes no sense.
    #[must_use]
    pub fn of_process() -> Self {
        let matches = environment::heard(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Does what was asked for, tells on standard error what went wrong, and says how it ended.
    #[must_use]
    pub fn run(self) -> Exit {
        let Self { socket, color, verb } = self;
        render::choose(color);
        let done = panic::catch_unwind(|| match verb {
            Verb::Run(_) => run::run(&socket),
            Verb::Table(args) => args.run(&socket),
            Verb::Conflicts(args) => args.run(&socket),
            Verb::Explain(args) => args.run(socket),
            Verb::Quarantine(args) => args.run(&socket),
            Verb::Pause(args) => args.run(&socket),
            Verb::Events(args) => args.run(&socket),
            Verb::Lease(args) => args.run(socket),
            Verb::Pool(args) => args.run(socket),
            Verb::Scan(args) => args.run(),
            Verb::Replay(args) => args.run(),
            Verb::Config(args) => args.run(&socket),
            Verb::Reload(args) => args.run(&socket),
            Verb::Doctor(args) => args.run(&socket),
            Verb::SupportBundle(args) => args.run(socket),
            Verb::Drill(args) => args.run(&socket),
            Verb::Completions(args) => args.run(),
            Verb::Man(args) => args.run(),
            Verb::Openapi(args) => args.run(),
        });
        // A panic has said already where it came from.
        done.unwrap_or(Ok(Exit::Bug)).unwrap_or_else(|failure| failure.tell())
    }
}

/// What the agent answers to `path`.
fn ask<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, Failure> {
    Ok(small_runtime()?.block_on(client.ask(path))?)
}

fn small_runtime() -> Result<Runtime, Failure> {
    runtime::Builder::new_current_thread().enable_all().build().map_err(exit::no_runtime)
}

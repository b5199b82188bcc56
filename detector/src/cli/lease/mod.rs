//! `dupip lease`: the allocator's book, one file for each verb.

mod adopt;
mod allocate;
mod book;
mod check;
mod history;
mod import;
mod list;
mod place;
mod reclaim;
mod release;

use std::path::PathBuf;

use clap::Subcommand;
pub(super) use place::{Place, Within, vlan};

use super::exit::{Exit, Failure};

const LIFE: &str = "\
The life of a lease:
  free         nobody has the address. Addresses that nobody ever had are given first, lowest
               first; then the one that has rested longest
  reserved     given, while dupip looks whether anybody else uses the address (two ARP probes,
               and the agent's live table), or until a sandbox has been moved to it. What is
               not confirmed in time drains
  bound        held by its owner, until it is released. Asking again for the same owner and
               interface gives the same lease
  draining     given back, and not given to others before it is proven that nothing uses the
               address: no namespace has it, no claim is seen, no probe is answered
  cooldown     proven to be out of use; it rests for the pool's cooldown, by a clock that
               nobody can set. A pool of which all rest says when the next one is ready
  quarantined  somebody without a lease was seen to use it; kept back for a while, with the MAC

A lease is named by bridge, address, owner and generation, and changed by that full name only:
a release that comes too late changes nothing, is counted and is written to the journal.

Addresses come from the bridge's pools: those of the agent's own networks are there by
themselves, others are made with `dupip pool create`.

Examples:
  dupip lease allocate --bridge rt0 --owner sportsagent --interface eth0
  dupip lease list
  dupip lease release --bridge rt0 --address 10.8.64.2 --owner sportsagent --generation 7
  dupip lease history 10.8.64.2
  dupip lease adopt --bridge rt0 --address 10.8.64.2 --owner sportsagent
  dupip lease check --report report.json && dupip lease reclaim --from-report report.json
  dupip lease import --from host-local /var/lib/cni/networks/rt0 --bridge rt0

The verbs ask the agent. When none runs they work on the lease database itself, as any number
of processes may at once.";

/// Allocate, list, release and reconcile leases; see what became of them
#[derive(Debug, clap::Args)]
#[command(after_help = LIFE)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show every lease
    List(list::Args),
    /// Get an address that nobody has, durably
    Allocate(allocate::Args),
    /// Say whose an address is that is in use already
    Adopt(adopt::Args),
    /// Give a lease back
    Release(release::Args),
    /// Show what became of an address: every change, when, by whom and why
    History(history::Args),
    /// Compare leases with what really uses addresses; changes nothing
    Check(check::Args),
    /// Take back what a check has found to be used by nothing, if that is still so
    Reclaim(reclaim::Args),
    /// Take over what another allocator's book says: host-local's, or Miren's
    Import(import::Args),
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        match self.verb {
            Verb::List(args) => args.run(socket),
            Verb::Allocate(args) => args.run(socket),
            Verb::Adopt(args) => args.run(socket),
            Verb::Release(args) => args.run(socket),
            Verb::History(args) => args.run(socket),
            Verb::Check(args) => args.run(&socket),
            Verb::Reclaim(args) => args.run(&socket),
            Verb::Import(args) => args.run(socket),
        }
    }
}

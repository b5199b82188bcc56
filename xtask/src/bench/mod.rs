//! `cargo xtask bench`: how fast it is, beside the limit and beside others, in one run.

mod allocator;
mod cpu;
mod heal;
mod machine;
mod row;
mod samples;
mod scratch;

use std::process::ExitCode;

use anyhow::Result;

/// What `cargo xtask bench` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Handing out leases: the store beside bare SQLite, the CNI plugin beside host-local
    ///
    /// Every round begins with fresh copies of books that hold 0 to 60,000 leases. Rounds go through all rows in turn, so
    /// that what else the machine does meets all of them alike; a ratio is the median of the rounds' ratios.
    Allocator(allocator::Args),
    /// A duplicate, from its first frame to its end: how long until it is named, contained and healed
    ///
    /// Hundreds of duplicates, one after the other, on a private runner with an agent as it is shipped. Each is a sandbox that
    /// comes up with an address that another one holds by right, as its kernel announces it. Times are the agent's own, from
    /// the moment at which the kernel saw the announcement.
    Heal(heal::Args),
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Allocator(args) => allocator::run(args),
        What::Heal(args) => heal::run(args),
    }
}

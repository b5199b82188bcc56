//! `cargo xtask`: everything a contributor types. One file per verb.

mod bench;
mod build;
mod dashboards;
mod demo;
mod fuzz;
mod lint;
mod manifests;
mod package;
mod rooms;
mod setup;
mod shell;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything a contributor types.
///
/// From a fresh clone, `cargo xtask test` is enough: it sets up what is missing, builds, and runs every test.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the build and the tests need and this machine lacks
    ///
    /// The Rust toolchain's parts, the command line tools of the lab, a compiler for eBPF and its linker, and a small Debian
    /// for the tests to install the package into, in /var/cache/dupip-tests. What is there already is left alone, so it may
    /// be run at any time. Packages need root: without it, setup goes through sudo. The other verbs install what they need
    /// themselves.
    Setup(setup::Args),
    /// Replay the incident on a private runner, and show it seen and healed
    ///
    /// Sets up and builds what is missing, makes a runner out of namespaces (nothing of this machine's is touched), shows
    /// the duplicate without dupip and then with it. Everything is removed at the end. Needs root, or sudo.
    Demo(demo::Args),
    /// Check format, clippy with warnings denied, the room rules, and the dashboards
    ///
    /// The room rules keep the architecture true: who may use whom, what stays pure, where unsafe code and metric names
    /// may stand, how long a file may be. Each violation is printed as `file:line`, with how to put it right.
    Lint,
    /// Write what the Kubernetes manifests have from elsewhere
    ///
    /// The PrometheusRule has every group of `dashboards/prometheus/*.rules.yml`. A test fails until they are the same.
    Manifests,
    /// Set up, build, and run every test
    ///
    /// The tests of packages `detector` and `tests` make network namespaces and load eBPF programs, so they need root:
    /// without it, they (and only they) are run through sudo.
    Test(test::Args),
    /// Make the Debian package: the program, its unit, configuration, manual pages and completions
    ///
    /// The program is built as it is shipped, which takes some minutes, unless `--profile dev` asks for the one that tests
    /// run. Where the package is stands on standard output; `apt install ./dupip_….deb` installs it.
    Package(package::Args),
    /// Measure how fast it is, beside the limit and beside others
    ///
    /// All that is compared is measured in turns in one run, on this machine. Nothing is asserted: a target that is missed
    /// is said, and the exit code is 0.
    Bench(bench::Args),
    /// Look for bytes that break a parser, for some seconds each
    ///
    /// There is a target for every parser of bytes that others wrote: frames, the kernel's log and netlink, captures,
    /// control groups, CNI calls, HTTP requests, host-local's files, records of incidents. Bytes that break one are kept
    /// below `target/fuzz`, with the command that shows it again, and the exit code is 1. Installs cargo-fuzz if it is
    /// missing. `cargo xtask test` tries the same properties, with the seeds and with random bytes, for a moment.
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Lint => lint::run(),
        Verb::Manifests => manifests::run(),
        Verb::Test(args) => test::run(&args),
        Verb::Package(args) => package::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

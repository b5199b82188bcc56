//! The program `dupip`.

use std::process::ExitCode;

use clap::Parser as _;
use detector::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run().into()
}

//! `cargo xtask lint`: format, room rules, clippy.

use std::process::ExitCode;

use anyhow::Result;

use crate::{rooms, setup, shell};

/// Runs all three, so that one run tells all; fails if any of them did.
pub(crate) fn run() -> Result<ExitCode> {
    // Clippy builds the eBPF programs, as every build of the agent does.
    setup::run()?;
    let clean = [
        ("format", cargo("fmt --all --check")?),
        ("room rules", room_rules()?),
        ("clippy", cargo("clippy --workspace --all-targets --locked -- -D warnings")?),
    ];
    for (check, passed) in &clean {
        eprintln!("lint: {check:<10} {}", if *passed { "clean" } else { "FAILED, see above" });
    }
    Ok(if clean.iter().all(|(_, passed)| *passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo(arguments: &str) -> Result<bool> {
    eprintln!("lint: cargo {arguments}");
    Ok(shell::status(&mut shell::command("cargo", arguments.split(' ')))?.success())
}

fn room_rules() -> Result<bool> {
    let violations = rooms::check(shell::workspace())?;
    for violation in &violations {
        println!("{violation}");
    }
    Ok(violations.is_empty())
}

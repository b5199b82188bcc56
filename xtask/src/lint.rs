//! `cargo xtask lint`: format, the fuzz targets' manifest, room rules, dashboards, clippy.

use std::process::{ExitCode, Stdio};

use anyhow::Result;

use crate::{
    dashboards, rooms,
    setup::{self, Purpose},
    shell,
};

/// Runs all of them, so that one run tells all; fails if any of them did.
pub(crate) fn run() -> Result<ExitCode> {
    // Clippy builds the eBPF programs, as every build of the agent does.
    setup::ready(Purpose::Lint)?;
    let clean = [
        ("format", cargo("fmt --all --check")?),
        ("fuzz", cargo("fmt --manifest-path tests/fuzz/Cargo.toml --check")? && is_locked()?),
        ("room rules", room_rules()?),
        ("dashboards", dashboards()?),
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

/// Whether the fuzz targets' own lock file says what there is now: else building them would write to the tree.
fn is_locked() -> Result<bool> {
    let mut locked = shell::command("cargo", "tree --quiet --locked --manifest-path tests/fuzz/Cargo.toml".split(' '));
    let is_locked = shell::status(locked.stdout(Stdio::null()))?.success();
    if !is_locked {
        println!(
            "tests/fuzz/Cargo.lock is behind; run: cargo update --workspace --manifest-path tests/fuzz/Cargo.toml"
        );
    }
    Ok(is_locked)
}

fn dashboards() -> Result<bool> {
    let faults = dashboards::check(shell::workspace())?;
    for fault in &faults {
        println!("{fault}");
    }
    Ok(faults.is_empty())
}

fn room_rules() -> Result<bool> {
    let violations = rooms::check(shell::workspace())?;
    for violation in &violations {
        println!("{violation}");
    }
    Ok(violations.is_empty())
}

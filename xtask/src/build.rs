//! The programs that other verbs run.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::shell;

/// Builds the agent that the suites and the demo start as a process. Cargo itself tells where it put it, whatever the target folder.
pub(crate) fn dupip() -> Result<PathBuf> {
    let [dupip] = build("build --package detector --bin dupip", ["dupip"])?;
    Ok(dupip)
}

/// Builds the agent as it is shipped.
pub(crate) fn shipped() -> Result<PathBuf> {
    let [dupip] = build("build --release --package detector --bin dupip", ["dupip"])?;
    Ok(dupip)
}

/// Builds the agent as it is shipped, the program that works on books of leases, and what the tap is measured beside.
pub(crate) fn to_measure() -> Result<[PathBuf; 3]> {
    let programs = "--bin dupip --bench allocator --bench yardsticks";
    build(&format!("build --release --package detector {programs}"), ["dupip", "allocator", "yardsticks"])
}

/// Where the programs called `names` are once cargo has built them.
fn build<const N: usize>(arguments: &str, names: [&str; N]) -> Result<[PathBuf; N]> {
    let arguments = format!("{arguments} --locked --message-format json-render-diagnostics");
    eprintln!("build: cargo {arguments}");
    let mut cargo = shell::command("cargo", arguments.split(' '));
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "{} does not build, see above", names.join(" or "));
    let told = String::from_utf8_lossy(&output.stdout);
    let found = names.map(|name| told.lines().find_map(|line| executable(line, name)));
    let found: Option<Vec<_>> = found.into_iter().collect();
    found.and_then(|found| found.try_into().ok()).context("cargo built everything and told no path")
}

/// The executable that a line of cargo's messages names, if it is the one called `name`.
fn executable(line: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_it = message.pointer("/target/name")?.as_str()? == name;
    is_it.then(|| message.get("executable")?.as_str().map(PathBuf::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_program_that_is_named_is_taken() {
        let line = |name: &str| format!(r#"{{"reason":"x","target":{{"name":"{name}"}},"executable":"/t/{name}"}}"#);
        assert_eq!(executable(&line("dupip"), "dupip"), Some(PathBuf::from("/t/dupip")));
        assert_eq!(executable(&line("arp_tap"), "dupip"), None);
        assert_eq!(executable("not json", "dupip"), None);
    }
}

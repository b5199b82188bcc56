//! The agent's program, as the suites and the demo run it.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::shell;

/// Builds the agent that the suites and the demo start as a process. Cargo itself tells where it put it, whatever the target folder.
pub(crate) fn dupip() -> Result<PathBuf> {
    let arguments = "build --package detector --bin dupip --locked --message-format json-render-diagnostics";
    eprintln!("build: cargo {arguments}");
    let mut cargo = shell::command("cargo", arguments.split(' '));
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "dupip does not build, see above");
    String::from_utf8_lossy(&output.stdout).lines().find_map(executable).context("cargo built dupip and told no path")
}

/// The executable that a line of cargo's messages names, if it is the agent's.
fn executable(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_dupip = message.pointer("/target/name")?.as_str()? == "dupip";
    is_dupip.then(|| message.get("executable")?.as_str().map(PathBuf::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agents_program_is_taken() {
        let line = |name: &str| format!(r#"{{"reason":"x","target":{{"name":"{name}"}},"executable":"/t/{name}"}}"#);
        assert_eq!(executable(&line("dupip")), Some(PathBuf::from("/t/dupip")));
        assert_eq!(executable(&line("arp_tap")), None);
        assert_eq!(executable("not json"), None);
    }
}

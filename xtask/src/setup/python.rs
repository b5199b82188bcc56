//! What the tests have from PyPI, in an environment of its own below `target`.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::apt;
use crate::shell;

/// What is wanted, one package with its version a line.
const REQUIREMENTS: &str = "tests/requirements.txt";
/// Where it is put.
const ENVIRONMENT: &str = "target/python";

/// Makes the environment anew if something else is wanted than when it was made.
pub(super) fn ready() -> Result<String> {
    let (wanted, folder) = (shell::workspace().join(REQUIREMENTS), shell::workspace().join(ENVIRONMENT));
    // Written last: an environment that was not finished has none.
    let had = folder.join("requirements.txt");
    let text = fs::read_to_string(&wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    if fs::read_to_string(&had).is_ok_and(|had| had == text) {
        return Ok(format!("{ENVIRONMENT} has all that {REQUIREMENTS} names, nothing to do"));
    }
    make(&folder)?;
    install(&folder)?;
    fs::write(had, text)?;
    Ok(format!("{ENVIRONMENT} has all that {REQUIREMENTS} names, just installed"))
}

fn make(folder: &Path) -> Result<()> {
    if !has_venv() {
        ensure!(apt::is_here(), "python3 makes no environments: install its module venv with your own package manager");
        apt::install("Python makes no environments of its own", &["python3-venv"])?;
    }
    let why = format!("{ENVIRONMENT} is not what {REQUIREMENTS} names");
    shell::step(&why, shell::command("python3", ["-m", "venv", "--clear"]).arg(folder))
}

/// Debian's `python3` has the module, and not what it puts into an environment.
fn has_venv() -> bool {
    shell::read(&mut shell::command("python3", ["-c", "import ensurepip, venv"])).is_ok()
}

fn install(folder: &Path) -> Result<()> {
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.current_dir(shell::workspace());
    pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary=:all:",
        "--no-deps",
        "--requirement",
    ]);
    shell::step("the tests render and check manifests", pip.arg(REQUIREMENTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_a_version() {
        let text = fs::read_to_string(shell::workspace().join(REQUIREMENTS)).unwrap();
        let packages: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(!packages.is_empty() && packages.iter().all(|line| line.contains("==")), "{packages:?}");
    }
}

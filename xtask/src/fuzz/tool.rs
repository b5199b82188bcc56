//! `cargo-fuzz`, and what it builds.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::FOLDER;
use crate::shell;

/// Where everything goes, from the workspace.
pub(super) const BUILT: &str = "target/fuzz";

/// The release that is installed if there is none.
const VERSION: &str = "0.13.2";

/// Installs what only this verb needs.
pub(super) fn ready() -> Result<()> {
    ensure!(
        shell::find("c++").is_some(),
        "there is no C++ compiler, which libFuzzer is compiled with; install one: apt-get install g++"
    );
    if shell::find("cargo-fuzz").is_some() {
        return Ok(());
    }
    let arguments = format!("install cargo-fuzz --version {VERSION} --locked");
    let why = "builds programs that watch which way through a parser bytes take. Takes a minute or two";
    shell::step(why, &mut shell::command("cargo", arguments.split(' ')))
        .with_context(|| format!("cargo-fuzz is not installed; run: cargo {arguments}"))?;
    ensure!(
        shell::find("cargo-fuzz").is_some(),
        "cargo-fuzz is installed and not found: put cargo's `bin` on your PATH"
    );
    Ok(())
}

/// Builds the targets and tells where their programs are. All of them at once if there are several: what takes long is
/// what they have in common.
pub(super) fn build(targets: &[String]) -> Result<Vec<PathBuf>> {
    let mut arguments = vec!["fuzz", "build", "--fuzz-dir", FOLDER, "--target-dir", BUILT];
    if let [only] = targets {
        arguments.push(only);
    }
    let mut cargo = shell::command("cargo", arguments);
    // The address sanitizer is there in every toolchain, behind a flag that a stable one takes only so.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    shell::step("the targets, with the address sanitizer; the first time takes minutes", &mut cargo)?;
    let host = shell::read(&mut shell::command("rustc", ["--print", "host-tuple"]))?;
    let folder = shell::workspace().join(BUILT).join(host).join("release");
    let program = |target: &String| {
        let program = folder.join(target);
        ensure!(program.is_file(), "cargo-fuzz built everything, and there is no {}", program.display());
        Ok(program)
    };
    targets.iter().map(program).collect()
}

//! The Rust toolchain that builds everything but the eBPF programs.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::version::Version;
use crate::shell;

/// The oldest compiler that the workspace allows.
pub(super) const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// What `cargo xtask lint` calls: the program, and the component of rustup that it comes with.
const COMPONENTS: [(&str, &str); 2] = [("cargo-clippy", "clippy"), ("cargo-fmt", "rustfmt")];

pub(super) fn ready() -> Result<String> {
    ensure!(
        shell::find("rustup").is_some(),
        "rustup is missing: it keeps the eBPF compiler apart from yours; see https://rustup.rs"
    );
    Ok(format!("rustc {}, nothing to do", version()?))
}

/// What `cargo xtask lint` calls.
pub(super) fn linters_ready() -> Result<String> {
    let missing = missing(&shell::read(&mut shell::command("rustc", ["--print", "sysroot"]))?);
    if missing.is_empty() {
        return Ok("clippy and rustfmt, nothing to do".to_owned());
    }
    let arguments = [&["component", "add"], &*missing].concat();
    shell::step("clippy and rustfmt are what `cargo xtask lint` runs", &mut shell::command("rustup", arguments))?;
    Ok(format!("{}, just installed", missing.join(" and ")))
}

fn version() -> Result<Version> {
    let said = shell::read(&mut shell::command("rustc", ["--version"]))?;
    let version = Version::find(&said).with_context(|| format!("`rustc --version` tells no version: {said}"))?;
    let is_enough = Version::find(OLDEST).is_some_and(|oldest| version >= oldest);
    ensure!(is_enough, "rustc {version} is older than {OLDEST}; run: rustup update stable");
    Ok(version)
}

fn missing(sysroot: &str) -> Vec<&'static str> {
    let is_missing = |program: &str| !Path::new(sysroot).join("bin").join(program).exists();
    COMPONENTS.iter().filter(|(program, _)| is_missing(program)).map(|(_, component)| *component).collect()
}

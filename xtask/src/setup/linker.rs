//! `bpf-linker`: links the bitcode of the eBPF compiler to an object that the kernel loads.

use anyhow::{Context as _, Result, ensure};

use super::version::Version;
use crate::shell;

/// The first release that reads the bitcode of LLVM 22, which is what Rust 1.95 to 1.97 write.
const OLDEST: Version = Version(0, 10, 3);

pub(super) fn ready() -> Result<String> {
    if let Some(version) = installed().filter(|version| *version >= OLDEST) {
        return Ok(format!("{version}, nothing to do"));
    }
    let arguments = format!("install bpf-linker --version {OLDEST} --locked");
    let why = "links eBPF programs; must read the bitcode of LLVM 22. Takes a minute or two";
    shell::step(why, &mut shell::command("cargo", arguments.split(' ')))
        .with_context(|| format!("bpf-linker is not installed; run: cargo {arguments}"))?;
    let version =
        installed().context("bpf-linker is installed and not found: put cargo's `bin` folder on your PATH")?;
    ensure!(version >= OLDEST, "another bpf-linker, {version}, stands before the new one on your PATH; remove it");
    Ok(format!("{version}, just installed"))
}

fn installed() -> Option<Version> {
    Version::find(&shell::read(&mut shell::command("bpf-linker", ["--version"])).ok()?)
}

//! `cargo xtask setup`: installs what the build and the tests need and this machine lacks.
//!
//! Each part first looks whether it is there; only what is missing is installed, and each step is announced with its
//! reason. A part that cannot be had ends setup with the command that a person can run.

mod apt;
mod compiler;
mod ebpf;
mod from_cargo;
mod linker;
mod packager;
mod python;
mod rust;
mod tools;
mod version;

use std::process::ExitCode;

use anyhow::Result;

/// What a part of setup did: a few words for its line.
type Ready = fn() -> Result<String>;

/// In the order in which they need each other: packages may bring a compiler, the linker is built with Rust.
const PARTS: [(&str, Ready); 6] = [
    ("rust", rust::ready),
    ("tools", tools::ready),
    ("python", python::ready),
    ("ebpf", ebpf::ready),
    ("bpf-linker", linker::ready),
    ("cargo-deb", packager::ready),
];

/// Brings every part to readiness.
pub(crate) fn run() -> Result<ExitCode> {
    for (part, ready) in PARTS {
        eprintln!("setup: {part:<10} {}", ready()?);
    }
    Ok(ExitCode::SUCCESS)
}

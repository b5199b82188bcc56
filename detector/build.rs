//! Compiles the eBPF programs of `detector-ebpf`, for the agent to carry inside itself.

use std::process::{Command, ExitCode, Stdio};

/// The toolchain of rustup that `cargo xtask setup` makes.
const TOOLCHAIN: &str = "dupip-bpf";

fn main() -> anyhow::Result<ExitCode> {
    if !(runs("rustup", &["run", TOOLCHAIN, "rustc", "--version"]) && runs("bpf-linker", &["--version"])) {
        println!("cargo::error=the eBPF toolchain is missing; run: cargo xtask setup");
        return Ok(ExitCode::FAILURE);
    }
    let programs = aya_build::Package { name: "detector-ebpf", root_dir: "../detector-ebpf", ..Default::default() };
    aya_build::build_ebpf([programs], aya_build::Toolchain::Custom(TOOLCHAIN))?;
    Ok(ExitCode::SUCCESS)
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

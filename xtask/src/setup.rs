//! `cargo xtask setup`: installs what this machine lacks of what a verb needs.
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
mod root;
mod rust;
mod tools;
mod version;

use std::process::ExitCode;

use anyhow::Result;

/// What `cargo xtask setup` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only what `cargo build` needs: a compiler, one for eBPF, and its linker
    #[arg(long)]
    build: bool,
}

/// What something is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To build the agent, and so for everything.
    Build,
    /// To judge the sources.
    Lint,
    /// To make the Debian package.
    Package,
    /// To make a runner out of namespaces, and to play on it.
    Lab,
    /// The lab with a Prometheus in it.
    Alerts,
    /// The lab with an allocator to be compared with.
    Bench,
    /// To test: this is for nothing else, and whoever tests needs all of the others.
    Tests,
}

/// What a part of setup did: a few words for its line.
type Ready = fn(Purpose) -> Result<String>;

/// In the order in which they need each other: packages may bring a compiler, the linker is built with Rust.
const PARTS: [(&str, Purpose, Ready); 8] = [
    ("rust", Purpose::Build, |_| rust::ready()),
    ("linters", Purpose::Lint, |_| rust::linters_ready()),
    ("tools", Purpose::Build, tools::ready),
    ("python", Purpose::Tests, |_| python::ready()),
    ("ebpf", Purpose::Build, |_| ebpf::ready()),
    ("bpf-linker", Purpose::Build, |_| linker::ready()),
    ("cargo-deb", Purpose::Package, |_| packager::ready()),
    ("clean root", Purpose::Tests, |_| root::ready()),
];

/// Brings everything to readiness, or what a build needs.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ready(if args.build { Purpose::Build } else { Purpose::Tests })?;
    Ok(ExitCode::SUCCESS)
}

/// Brings every part to readiness that this purpose needs.
pub(crate) fn ready(purpose: Purpose) -> Result<()> {
    for (part, _, ready) in PARTS.iter().filter(|(_, of, _)| purpose.needs(*of)) {
        eprintln!("setup: {part:<10} {}", ready(purpose)?);
    }
    Ok(())
}

impl Purpose {
    /// Whether it needs what is there for `other`.
    fn needs(self, other: Self) -> bool {
        let has_a_lab = matches!(self, Self::Alerts | Self::Bench);
        self == Self::Tests || other == Self::Build || self == other || (has_a_lab && other == Self::Lab)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(purpose: Purpose) -> Vec<&'static str> {
        PARTS.iter().filter(|(_, of, _)| purpose.needs(*of)).map(|(part, ..)| *part).collect()
    }

    #[test]
    fn who_builds_or_looks_at_the_demo_need_not_have_what_the_tests_have() {
        let build = ["rust", "tools", "ebpf", "bpf-linker"];
        for purpose in [Purpose::Build, Purpose::Lab, Purpose::Alerts, Purpose::Bench] {
            assert_eq!(parts(purpose), build, "{purpose:?}");
        }
        assert_eq!(parts(Purpose::Package), [&build[..], &["cargo-deb"]].concat());
        assert_eq!(parts(Purpose::Tests).len(), PARTS.len());
    }
}

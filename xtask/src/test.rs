//! `cargo xtask test`: every test, from a fresh clone on.

use std::{
    io::{BufRead as _, BufReader, Write as _, stdout},
    process::{Command, ExitCode, ExitStatus, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result};

use crate::{
    build,
    package::{self, Profile},
    setup::{self, Purpose},
    shell,
};

/// Packages whose tests make network namespaces and load eBPF programs.
const NEED_ROOT: [&str; 3] = ["detector", "tests", "xtask"];

/// The packages of the workspace whose tests touch nothing.
const REST: [&str; 1] = ["detector-ebpf"];

/// The random test of the allocator, and how often it acts in a long run unless something else is asked for.
const MODEL: &str = "allocator::tests::model::";
const MODEL_OPS: (&str, &str) = ("DUPIP_MODEL_OPS", "1000000");

/// What `cargo xtask test` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also do a million random things to the allocator, with processes that die, which takes some minutes
    ///
    /// `DUPIP_MODEL_OPS` asks for another number, `DUPIP_MODEL_SEED` for others.
    #[arg(long)]
    long: bool,
    /// Passed on to the test programs: a part of the tests' names, `--nocapture`, ...
    #[arg(last = true)]
    harness: Vec<String>,
}

/// What the test programs reported, added up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    suites: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Sets up, builds `dupip`, runs the tests; the exit code is cargo's.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    setup::ready(Purpose::Tests)?;
    let start = Instant::now();
    let dupip = build::dupip()?;
    let package = package::make(Profile::Dev)?;
    let mut tally = Tally::default();
    let mut worst = None;
    let host = host()?;
    let mut runs = runs(shell::is_root(), &host);
    for run in &mut runs {
        run.arg("--").args(&args.harness);
    }
    runs.extend(args.long.then(|| long_run(shell::is_root(), &host)));
    for mut tests in runs {
        let status = pass_on(tests.env("DUPIP_BIN", &dupip).env("DUPIP_DEB", &package), &mut tally)?;
        worst = worst.or((!status.success()).then_some(status));
    }
    eprintln!("test: {tally} in {:.0} s, with {}", start.elapsed().as_secs_f32(), dupip.display());
    Ok(worst.map_or(ExitCode::SUCCESS, exit_code))
}

/// One run of cargo for root; two for others, of which the second has its test programs started by sudo.
fn runs(is_root: bool, host: &str) -> Vec<Command> {
    let cargo = |selected: &[String]| {
        let arguments = ["test", "--locked", "--no-fail-fast", "--workspace"].map(str::to_owned);
        shell::command("cargo", [&arguments, selected].concat())
    };
    if is_root {
        return vec![cargo(&[])];
    }
    eprintln!("test: not root, so the tests of {} are run through `sudo -E`", NEED_ROOT.join(" and "));
    let mut with_root = cargo(&REST.map(|package| format!("--exclude={package}")));
    with_root.env(runner_variable(host), "sudo -E");
    vec![cargo(&NEED_ROOT.map(|package| format!("--exclude={package}"))), with_root]
}

/// The allocator's random test alone, optimised, for a million acts.
fn long_run(is_root: bool, host: &str) -> Command {
    let arguments = ["test", "--locked", "--release", "--package=detector", "--lib", "--", MODEL, "--nocapture"];
    let mut run = shell::command("cargo", arguments.map(str::to_owned));
    let (name, acts) = MODEL_OPS;
    run.env(name, std::env::var_os(name).unwrap_or_else(|| acts.into()));
    if !is_root {
        run.env(runner_variable(host), "sudo -E");
    }
    run
}

/// The variable that tells cargo what starts the programs of a target (The Cargo Book, Configuration).
fn runner_variable(triple: &str) -> String {
    format!("CARGO_TARGET_{}_RUNNER", triple.to_uppercase().replace('-', "_"))
}

fn host() -> Result<String> {
    shell::read(&mut shell::command("rustc", ["--print", "host-tuple"]))
}

/// Runs the tests with their output passed on line by line, and counts what they report.
fn pass_on(tests: &mut Command, tally: &mut Tally) -> Result<ExitStatus> {
    eprintln!("test: {}", shell::text(tests));
    let mut child = tests.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).split(b'\n') {
        let line = line?;
        tally.count(&String::from_utf8_lossy(&line));
        stdout().write_all(&line)?;
        stdout().write_all(b"\n")?;
    }
    Ok(child.wait()?)
}

fn exit_code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

impl Tally {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …` of Rust's test harness.
    fn count(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result:") else { return };
        let words: Vec<_> = result.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
        let before = |name: &str| {
            words.array_windows().find_map(|[number, word]| (*word == name).then(|| number.parse().ok())).flatten()
        };
        self.suites += 1;
        self.passed += before("passed").unwrap_or(0_u64);
        self.failed += before("failed").unwrap_or(0);
        self.ignored += before("ignored").unwrap_or(0);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { suites, passed, failed, ignored } = self;
        write!(f, "{passed} passed, {failed} failed, {ignored} ignored, of {suites} test programs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1.50s",
        ] {
            tally.count(line);
        }
        assert_eq!(tally, Tally { suites: 2, passed: 8, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_long_run_acts_a_million_times() {
        let run = long_run(true, "x86_64-unknown-linux-gnu");
        assert!(shell::text(&run).ends_with("--lib -- allocator::tests::model:: --nocapture"), "{}", shell::text(&run));
        let acts = std::env::var("DUPIP_MODEL_OPS").unwrap_or_else(|_| "1000000".to_owned());
        assert_eq!(run.get_envs().collect::<Vec<_>>(), [("DUPIP_MODEL_OPS".as_ref(), Some(acts.as_ref()))]);
    }

    #[test]
    fn root_is_asked_for_only_where_it_is_needed() {
        assert_eq!(runs(true, "x86_64-unknown-linux-gnu").len(), 1);
        let [without, with] = runs(false, "x86_64-unknown-linux-gnu").try_into().unwrap();
        assert!(
            shell::text(&without).ends_with("--exclude=detector --exclude=tests --exclude=xtask")
                && without.get_envs().len() == 0
        );
        assert!(shell::text(&with).ends_with("--exclude=detector-ebpf"));
        let variable = (std::ffi::OsStr::new("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER"), Some("sudo -E".as_ref()));
        assert_eq!(with.get_envs().collect::<Vec<_>>(), [variable]);
    }
}

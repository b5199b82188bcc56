//! One run of one target.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result};

use super::{kept, seeds};
use crate::shell;

/// A parser that takes so many seconds for a few KiB is stuck.
const STUCK: u32 = 10;
/// MiB that a program may take, and that it may ask for at once.
const MEMORY: (u32, u32) = (1024, 256);

/// What came of a run.
pub(super) struct Run {
    target: String,
    program: PathBuf,
    runs: u64,
    seconds: f32,
    corpus: usize,
    /// The bytes that broke it, and how it ended.
    broken: Option<(Option<PathBuf>, ExitStatus)>,
}

/// What libFuzzer says of itself, line by line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    runs: u64,
    input: Option<PathBuf>,
}

impl Run {
    /// Runs `program` for so many seconds, from the seeds in the tree and from what earlier runs found.
    pub(super) fn of(target: &str, program: &Path, seconds: u32) -> Result<Self> {
        let (found, broken) = (kept("corpus", target)?, kept("artifacts", target)?);
        let mut command = command(program, seconds, &broken);
        command.args([&found, &seeds(target)?]);
        eprintln!("fuzz: {target} for {seconds} s");
        let start = Instant::now();
        let (said, status) = listen(&mut command)?;
        Ok(Self {
            target: target.to_owned(),
            program: program.to_owned(),
            runs: said.runs,
            seconds: start.elapsed().as_secs_f32(),
            corpus: count(&found)? + count(&seeds(target)?)?,
            broken: (!status.success()).then_some((said.input, status)),
        })
    }

    pub(super) const fn is_clean(&self) -> bool {
        self.broken.is_none()
    }

    pub(super) fn row(&self) -> [String; 5] {
        let result = if self.is_clean() { "clean" } else { "BROKEN" };
        let Self { target, runs, seconds, corpus, .. } = self;
        [target.clone(), runs.to_string(), format!("{seconds:.0}"), corpus.to_string(), result.to_owned()]
    }

    /// What broke it and how to see that again.
    pub(super) fn complaint(&self) -> Option<String> {
        let (input, status) = self.broken.as_ref()?;
        let (target, program) = (&self.target, self.program.display());
        Some(match input {
            None => format!("{target} ended ({status}) and left no input; see what it said above"),
            Some(input) => format!(
                "{target} is broken by {input}\n  again:      {program} {input}\n  when fixed: move it to \
                 tests/fuzz/corpus/{target}, where `cargo xtask test` tries it for ever",
                input = input.display()
            ),
        })
    }
}

fn command(program: &Path, seconds: u32, broken: &Path) -> Command {
    let (resident, at_once) = MEMORY;
    let mut command = shell::command(
        program,
        [
            format!("-max_total_time={seconds}"),
            format!("-timeout={STUCK}"),
            format!("-rss_limit_mb={resident}"),
            format!("-malloc_limit_mb={at_once}"),
            format!("-artifact_prefix={}/", broken.display()),
            "-print_final_stats=1".to_owned(),
        ],
    );
    // As cargo-fuzz runs it.
    command.env("ASAN_OPTIONS", "detect_odr_violation=0");
    command
}

/// Lets it run to its end. All that it says is kept back until something breaks.
fn listen(command: &mut Command) -> Result<(Said, ExitStatus)> {
    let context = || format!("cannot run `{}`", shell::text(command));
    let context = context();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context(context)?;
    let (mut said, mut lines) = (Said::default(), Vec::new());
    for line in BufReader::new(child.stderr.take().context("it has no output")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        said.hear(&line);
        lines.push(line);
    }
    let status = child.wait()?;
    if !status.success() {
        lines.iter().for_each(|line| eprintln!("      {line}"));
    }
    Ok((said, status))
}

impl Said {
    /// Takes `stat::number_of_executed_units: 7`, or `artifact_prefix='…'; Test unit written to FILE`; a run that breaks
    /// has said last how far it was, as `#7 NEW …`.
    fn hear(&mut self, line: &str) {
        let stat = line.strip_prefix("stat::number_of_executed_units:").map(str::trim);
        let progress = || line.strip_prefix('#')?.split_whitespace().next();
        if let Some(runs) = stat.or_else(progress).and_then(|number| number.parse::<u64>().ok()) {
            self.runs = self.runs.max(runs);
        }
        if let Some((_, input)) = line.split_once("Test unit written to ") {
            self.input = Some(input.into());
        }
    }
}

fn count(folder: &Path) -> Result<usize> {
    Ok(fs::read_dir(folder).with_context(|| format!("cannot read folder {}", folder.display()))?.count())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn said(lines: &[&str]) -> Said {
        let mut said = Said::default();
        lines.iter().for_each(|line| said.hear(line));
        said
    }

    #[test]
    fn runs_are_counted_and_what_broke_it_is_found() {
        let clean = ["#2\tINITED cov: 3", "#1024\tpulse  cov: 9", "stat::number_of_executed_units: 70000"];
        assert_eq!(said(&clean), Said { runs: 70_000, input: None });
        let broken = ["#7\tNEW    cov: 5", "    #1 0x5 in f", "artifact_prefix='/a/'; Test unit written to /a/crash-1"];
        assert_eq!(said(&broken), Said { runs: 7, input: Some("/a/crash-1".into()) });
    }

    #[test]
    fn a_broken_run_says_by_what_and_how_to_see_it_again() {
        let run = |broken| Run {
            target: "cni".to_owned(),
            program: "/t/cni".into(),
            runs: 7,
            seconds: 1.2,
            corpus: 4,
            broken,
        };
        assert_eq!((run(None).row()[4].as_str(), run(None).complaint()), ("clean", None));
        let failed = ExitStatus::from_raw(77 << 8);
        let broken = run(Some((Some("/a/crash-1".into()), failed)));
        assert_eq!(broken.row(), ["cni", "7", "1", "4", "BROKEN"]);
        let complaint = broken.complaint().unwrap();
        assert!(complaint.starts_with("cni is broken by /a/crash-1\n  again:      /t/cni /a/crash-1\n"), "{complaint}");
        assert!(run(Some((None, failed))).complaint().unwrap().contains("(exit status: 77)"));
    }

    #[test]
    fn a_program_that_fails_is_told_of_with_its_input() {
        let mut failing = shell::command("sh", ["-c", "echo 'Test unit written to /a/b' >&2; exit 77"]);
        let (said, status) = listen(&mut failing).unwrap();
        assert_eq!((said.input, status.code()), (Some("/a/b".into()), Some(77)));
        assert!(listen(&mut shell::command("/no/such/program", [""; 0])).is_err());
    }
}

//! `cargo xtask fuzz`: looks for bytes that a parser cannot take.
//!
//! The targets are in `tests/fuzz`, a workspace of its own, and so are their seeds. What a run finds of new seeds and of
//! bytes that break something goes to the target folder: nothing here writes to the tree.

mod run;
mod tool;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use comfy_table::{Table, presets};

use self::run::Run;
use crate::{
    setup::{self, Purpose},
    shell,
};

/// The folder of the targets.
const FOLDER: &str = "tests/fuzz";

/// What `cargo xtask fuzz` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only this target; may be given several times
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// Print the targets' names, and run nothing
    #[arg(long)]
    list: bool,
}

/// Builds the targets, runs each, and prints what came of it; fails if one of them broke.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let all = targets()?;
    if args.list {
        all.iter().for_each(|target| println!("{target}"));
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = wanted(&all, &args.targets)?;
    // The eBPF programs are part of what is built.
    setup::ready(Purpose::Build)?;
    tool::ready()?;
    let programs = tool::build(&wanted)?;
    let runs = wanted.iter().zip(&programs).map(|(target, program)| Run::of(target, program, args.seconds));
    let runs = runs.collect::<Result<Vec<_>>>()?;
    println!("{}", table(&runs));
    runs.iter().filter_map(Run::complaint).for_each(|complaint| eprintln!("\n{complaint}"));
    Ok(if runs.iter().all(Run::is_clean) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every target, by its file's name.
fn targets() -> Result<BTreeSet<String>> {
    let folder = shell::workspace().join(FOLDER).join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read folder {}", folder.display()))?;
    let name = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
    let names = entries.map(|entry| Ok(name(&entry?.path())));
    Ok(names.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn wanted(all: &BTreeSet<String>, named: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = named.iter().find(|name| !all.contains(*name)) {
        let known = all.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        anyhow::bail!("there is no target `{unknown}`; there are {known}");
    }
    Ok(all.iter().filter(|name| named.is_empty() || named.contains(name)).cloned().collect())
}

/// A folder below the target folder, made if it is not there.
fn kept(what: &str, target: &str) -> Result<PathBuf> {
    let folder = shell::workspace().join(tool::BUILT).join(what).join(target);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make folder {}", folder.display()))?;
    Ok(folder)
}

/// The seeds of a target.
fn seeds(target: &str) -> Result<PathBuf> {
    let folder = shell::workspace().join(FOLDER).join("corpus").join(target);
    ensure!(folder.is_dir(), "target {target} has no seeds: put some into {}", folder.display());
    Ok(folder)
}

fn table(runs: &[Run]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["TARGET", "RUNS", "SECONDS", "CORPUS", "RESULT"]);
    table.add_rows(runs.iter().map(Run::row));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_target_is_a_file_a_program_and_a_folder_of_seeds() {
        let all = targets().unwrap();
        let manifest = fs::read_to_string(shell::workspace().join(FOLDER).join("Cargo.toml")).unwrap();
        let programs: BTreeSet<_> = manifest
            .lines()
            .filter_map(|line| Some(line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\"")?.to_owned()))
            .collect();
        assert_eq!(programs, all);
        assert!(!all.is_empty() && all.iter().all(|target| seeds(target).is_ok()));
    }

    #[test]
    fn all_run_unless_some_are_named() {
        let all = names(&["cni", "frame"]).into_iter().collect();
        assert_eq!(wanted(&all, &[]).unwrap(), ["cni", "frame"]);
        assert_eq!(wanted(&all, &names(&["frame"])).unwrap(), ["frame"]);
        let error = wanted(&all, &names(&["frames"])).unwrap_err().to_string();
        assert_eq!(error, "there is no target `frames`; there are cni, frame");
    }
}

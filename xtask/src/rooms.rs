//! The room rules: what keeps the architecture true while many hands change it.
//!
//! A room is a folder or file of `detector/src`. Sources are parsed, not searched, so comments and texts do not count;
//! inside macros, where the grammar ends, every token that looks like a path is taken for one.

mod metric_names;
mod order;
mod paths;
mod purity;
mod size;
mod source;
mod unsafe_code;
mod words;

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
pub(crate) use metric_names::Metrics;
use serde_json::Value;
use source::Source;

use crate::shell;

/// The rooms of `detector/src` from the ground up: each may use only those before it.
const ROOMS: [&str; 21] = [
    "net",
    "time",
    "engine",
    "allocator",
    "evidence",
    "capture",
    "netlink",
    "sandbox",
    "witness",
    "telemetry",
    "hooks",
    "replay",
    "agent",
    "scan",
    "http",
    "reconcile",
    "cni",
    "doctor",
    "bundle",
    "cli",
    "fuzzing",
];

/// The folder that the rooms are in.
const HOUSE: &str = "detector/src";

/// One line that breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    file: PathBuf,
    line: usize,
    rule: &'static str,
    what: String,
    cure: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, rule, what, cure } = self;
        write!(f, "{}:{line}: {what} [{rule}]; {cure}", file.display())
    }
}

/// Everything in the workspace that breaks a rule, by file and line.
///
/// # Errors
/// A file cannot be read or is no Rust, or cargo does not tell what `detector` depends on.
pub(crate) fn check(workspace: &Path) -> Result<Vec<Violation>> {
    let crates = dependencies()?;
    let mut violations = BTreeSet::new();
    let mut sources = Vec::new();
    for file in files(workspace, Path::new(""))? {
        let Ok(text) = String::from_utf8(fs::read(workspace.join(&file))?) else { continue };
        violations.extend(words::check(&file, &text));
        if file.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source::parse(file, &text)?);
        }
    }
    let test_modules = sources.iter().flat_map(Source::test_modules).map(Path::to_owned).collect();
    for source in &mut sources {
        source.mark_if_within(&test_modules);
        violations.extend(check_source(source, &crates));
    }
    Ok(violations.into_iter().collect())
}

/// The metrics that the agent has, from its code.
///
/// # Errors
/// A file cannot be read or is no Rust.
pub(crate) fn metrics(workspace: &Path) -> Result<Metrics> {
    let files = files(workspace, &Path::new(HOUSE).join("telemetry"))?;
    let parse = |file: PathBuf| Source::parse(file.clone(), &fs::read_to_string(workspace.join(file))?);
    let sources = files.into_iter().map(parse).collect::<Result<Vec<_>>>()?;
    Ok(Metrics::registered_in(&sources))
}

fn check_source(source: &Source, crates: &BTreeSet<String>) -> Vec<Violation> {
    let rooms = [order::check(source), purity::check(source, crates), metric_names::check(source)];
    rooms.into_iter().flatten().chain(unsafe_code::check(source)).chain(size::check(source)).collect()
}

/// The files below a folder of the workspace, as paths from the workspace. What cargo and git keep there is left out.
fn files(workspace: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(workspace.join(folder)).with_context(|| format!("cannot read folder {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() && [".git", "target"].iter().all(|name| entry.file_name() != *name) => {
                found.extend(files(workspace, &path)?);
            }
            kind if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    Ok(found)
}

/// The names by which sources of `detector` can call the crates it depends on.
fn dependencies() -> Result<BTreeSet<String>> {
    let metadata = shell::read(&mut shell::command("cargo", ["metadata", "--no-deps", "--format-version", "1"]))?;
    crate_names(&serde_json::from_str(&metadata)?).context("cargo metadata tells nothing of package detector")
}

fn crate_names(metadata: &Value) -> Option<BTreeSet<String>> {
    let packages = metadata.get("packages")?.as_array()?;
    let detector = packages.iter().find(|package| package.get("name").is_some_and(|name| name == "detector"))?;
    let dependencies = detector.get("dependencies")?.as_array()?;
    let called = |dependency: &Value| {
        let name = dependency.get("rename").filter(|name| !name.is_null()).or_else(|| dependency.get("name"))?;
        Some(name.as_str()?.replace('-', "_"))
    };
    Some(dependencies.iter().filter_map(called).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_known_by_the_names_that_sources_use() {
        let metadata = serde_json::json!({"packages": [{"name": "detector", "dependencies": [
            {"name": "netlink-sys", "rename": null}, {"name": "tests", "rename": "lab"},
        ]}]});
        assert_eq!(crate_names(&metadata), Some(["lab", "netlink_sys"].map(str::to_owned).into()));
        assert_eq!(crate_names(&serde_json::json!({"packages": []})), None);
    }

    #[test]
    fn a_violation_reads_as_compilers_say_it() {
        let source = Source::snippet("engine/mod.rs", "\nuse tokio::time::sleep;");
        let [violation] = check_source(&source, &["tokio".to_owned()].into()).try_into().unwrap();
        assert!(violation.to_string().starts_with("detector/src/engine/mod.rs:2: uses crate `tokio` [purity]; "));
    }
}

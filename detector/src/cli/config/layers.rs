//! Where the agent's settings come from: flags go before the environment, that before the file, and that before what is
//! usual.

use std::{collections::BTreeMap, env, ffi::OsString, path::PathBuf};

use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _, parser::ValueSource};

use super::{file, keys};
use crate::cli::{
    Cli, environment,
    exit::{Exit, Failure},
    run,
};

/// What the process was started with, and may be read again.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Layers {
    words: Vec<OsString>,
}

/// What each key says: its values, none if it says nothing.
pub(in crate::cli) type Values = BTreeMap<String, Vec<String>>;

/// What all layers say together.
#[derive(Debug)]
pub(in crate::cli) struct Told {
    /// For the agent.
    pub(in crate::cli) args: Box<run::Args>,
    /// The same, key by key.
    pub(in crate::cli) values: Values,
    /// Who says so, key by key.
    pub(in crate::cli) from: BTreeMap<String, &'static str>,
    /// The file, if there is one.
    pub(in crate::cli) file: Option<PathBuf>,
}

impl Layers {
    /// Those of this process.
    pub(in crate::cli) fn of_process() -> Self {
        Self { words: env::args_os().collect() }
    }

    /// The environment and the file alone, as if `dupip run` was called without a flag but this.
    pub(in crate::cli) fn of_file(file: Option<PathBuf>) -> Self {
        let config = file.into_iter().flat_map(|file| ["--config".into(), file.into()]);
        Self { words: ["dupip".into(), "run".into()].into_iter().chain(config).collect() }
    }

    /// What they say now.
    ///
    /// # Errors
    /// When one cannot be read, or says what cannot be.
    pub(in crate::cli) fn read(&self) -> Result<Told, Failure> {
        let given = matches(self.words.clone())?;
        let path = file::found(given.get_one("config"));
        let written = path.as_deref().map(file::read).transpose()?.unwrap_or_default();
        let is_given =
            |name: &str| matches!(source(&given, name), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        let more = written.keys.into_iter().filter(|(name, _)| !is_given(name));
        let more: BTreeMap<String, Vec<String>> = more.collect();
        let words = more.values().flatten().map(OsString::from);
        let all = matches(self.words.iter().cloned().chain(words))?;
        let mut told = told(&all)?;
        for (name, from) in &mut told.from {
            *from = if more.contains_key(name) { "file" } else { layer(source(&given, name)) };
        }
        Ok(Told { file: path, ..told })
    }
}

/// What would be told if each key said this.
///
/// # Errors
/// When they cannot be together.
pub(in crate::cli) fn with(values: &Values) -> Result<Told, Failure> {
    let keys = keys::keys();
    let words = keys.iter().flat_map(|key| {
        let values = values.get(keys::name(key)).into_iter().flatten();
        keys::words(key, values.map(String::as_str))
    });
    told(&matches(run_with(words))?)
}

/// What these words say by themselves, as where no variable is set.
///
/// # Errors
/// When they say what cannot be.
pub(super) fn alone(words: impl IntoIterator<Item = String>) -> Result<Told, Failure> {
    told(&parsed(environment::unheard(Cli::command()), run_with(words))?)
}

fn run_with(words: impl IntoIterator<Item = String>) -> impl Iterator<Item = OsString> {
    ["dupip".to_owned(), "run".to_owned()].into_iter().chain(words).map(OsString::from)
}

const fn layer(source: Option<ValueSource>) -> &'static str {
    match source {
        Some(ValueSource::CommandLine) => "flag",
        Some(ValueSource::EnvVariable) => "environment",
        _ => "default",
    }
}

/// By the long name of its flag; the parser knows it by another.
fn source(given: &ArgMatches, name: &str) -> Option<ValueSource> {
    let keys = keys::keys();
    let key = keys.iter().find(|key| keys::name(key) == name)?;
    given.value_source(key.get_id().as_str())
}

fn matches(words: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, Failure> {
    parsed(environment::heard(Cli::command()), words)
}

fn parsed(command: Command, words: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, Failure> {
    let no_run = || Failure::new(Exit::Bug, "these are not the words of an agent");
    let matches = command.try_get_matches_from(words);
    let mut matches = matches.map_err(|error| Failure::new(Exit::Usage, file::reason(&error)))?;
    matches.remove_subcommand().map(|(_, matches)| matches).ok_or_else(no_run)
}

fn told(matches: &ArgMatches) -> Result<Told, Failure> {
    let args = run::Args::from_arg_matches(matches).map_err(|error| Failure::new(Exit::Usage, file::reason(&error)))?;
    let values = keys::keys().into_iter().map(|key| {
        let raw = matches.get_raw(key.get_id().as_str()).into_iter().flatten();
        (keys::name(&key).to_owned(), raw.map(|value| value.to_string_lossy().into_owned()).collect())
    });
    let values: Values = values.collect();
    let from = values.keys().map(|name| (name.clone(), "default")).collect();
    Ok(Told { args: Box::new(args), values, from, file: None })
}

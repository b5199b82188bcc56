//! The keys of the configuration file. Each is a flag of `dupip run`: what a flag takes, a key takes, and nothing is told
//! twice what it means.

use clap::{Arg, ArgAction, CommandFactory as _};

use crate::cli::Cli;

/// Keys whose new value counts in a running agent. All others count when it is started anew.
pub(in crate::cli) const LIVE: [&str; 14] = [
    "claims-per-port",
    "evictions-per-minute",
    "keep-sockets",
    "mode",
    "move-newcomers",
    "pin",
    "protect-port",
    "recycle-timeout",
    "resolve",
    "resolve-on",
    "resolve-owner",
    "shared",
    "strikes",
    "suppress",
];

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `true` or `false`.
    Switch,
    /// One value.
    One,
    /// One value, or `true` for the usual one.
    OneOrTrue,
    /// A list of values, or one.
    Many,
}

/// The keys, in the order of `dupip run --help`.
pub(super) fn keys() -> Vec<Arg> {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").map(clap::Command::get_arguments);
    let is_key = |arg: &&Arg| arg.get_long().is_some_and(|long| long != "config");
    run.into_iter().flatten().filter(is_key).cloned().collect()
}

pub(super) fn name(key: &Arg) -> &str {
    key.get_long().unwrap_or_default()
}

pub(super) fn kind(key: &Arg) -> Kind {
    match key.get_action() {
        ArgAction::SetTrue => Kind::Switch,
        ArgAction::Append => Kind::Many,
        _ if key.get_num_args().is_some_and(|range| range.min_values() == 0) => Kind::OneOrTrue,
        _ => Kind::One,
    }
}

/// Whether what the key says is nobody else's business.
pub(in crate::cli) fn is_secret(name: &str) -> bool {
    name == "hook"
}

pub(in crate::cli) fn is_live(name: &str) -> bool {
    LIVE.contains(&name)
}

/// The words of a command line that say it.
pub(super) fn words<'a>(key: &Arg, values: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let name = name(key);
    let word = |value: &str| match (kind(key), value) {
        (Kind::Switch, "true") => Some(format!("--{name}")),
        (Kind::Switch, _) => None,
        _ => Some(format!("--{name}={value}")),
    };
    values.into_iter().filter_map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_counts_at_once_is_a_key() {
        let keys = keys();
        let names: Vec<&str> = keys.iter().map(name).collect();
        assert_eq!(LIVE.iter().find(|live| !names.contains(live)), None, "{names:?}");
        assert!(LIVE.is_sorted() && !is_live("bridge"));
    }

    #[test]
    fn a_key_takes_what_its_flag_takes() {
        let keys = keys();
        let kind = |of: &str| kind(keys.iter().find(|key| name(key) == of).unwrap());
        assert_eq!(
            ["bridge", "mode", "wait", "keep-quarantine"].map(kind),
            [Kind::Many, Kind::One, Kind::Switch, Kind::OneOrTrue]
        );
    }

    #[test]
    fn what_help_hides_is_secret() {
        for key in keys() {
            assert_eq!(is_secret(name(&key)), key.is_hide_env_values_set(), "{}", name(&key));
        }
    }
}

//! The configuration file to begin with: every key, what it means, and what holds without it.

use clap::{Arg, builder::StyledStr};

use super::keys::{self, Kind};

/// How long a line may be.
const WIDTH: usize = 100;

const HEAD: &str = "\
# dupip: what the agent is told. A flag of `dupip run` and its environment variable go before what stands here.
#
# Keys are the flags of `dupip run` without the dashes. What is marked `live` counts after `dupip reload` (or SIGHUP, or
# `systemctl reload dupip`), the rest when the agent is started anew. `dupip config check` says what is wrong here,
# `dupip config show` what the running agent goes by. Who can read this file can read the passwords of its hooks.
";

/// What is to be said in any case, or by most: the rest stands behind a number sign.
const SAID: [(&str, &str); 2] = [("bridge", "[\"rt0\"]"), ("wait", "true")];

/// The whole file.
pub(super) fn default() -> String {
    let mut text = HEAD.to_owned();
    let mut section = None;
    let (plain, headed): (Vec<Arg>, Vec<Arg>) =
        keys::keys().into_iter().partition(|key| key.get_help_heading().is_none());
    for key in plain.iter().chain(&headed) {
        if key.get_help_heading() != section {
            section = key.get_help_heading();
            text += &section.map(|section| format!("\n# ---- {section} ----\n")).unwrap_or_default();
        }
        text += &one(key);
    }
    text
}

fn one(key: &Arg) -> String {
    let name = keys::name(key);
    let value = match SAID.iter().find(|(said, _)| *said == name) {
        Some((_, value)) => format!("{name} = {value}\n"),
        None => format!("# {name} = {}\n", usual(key)),
    };
    format!("\n{}{value}", commented(&meaning(key)))
}

fn meaning(key: &Arg) -> String {
    let mut meaning = key.get_long_help().or_else(|| key.get_help()).map(StyledStr::to_string).unwrap_or_default();
    let possible = key.get_possible_values();
    let possible: Vec<&str> = possible
        .iter()
        .filter(|_| keys::kind(key) != Kind::Switch)
        .map(clap::builder::PossibleValue::get_name)
        .collect();
    if !possible.is_empty() {
        meaning += &format!("; one of {}", possible.join(", "));
    }
    let variable = key.get_env().map(|name| format!(", {}", name.display())).unwrap_or_default();
    let live = if keys::is_live(keys::name(key)) { "; live" } else { "" };
    format!("{meaning} (--{}{variable}{live})", keys::name(key))
}

/// What holds without it, or, if that is nothing, how it is written.
fn usual(key: &Arg) -> String {
    let values: Vec<String> = key.get_default_values().iter().map(|value| written(&value.to_string_lossy())).collect();
    let named = || key.get_value_names().and_then(|names| names.first()).map(|name| written(name)).unwrap_or_default();
    match (keys::kind(key), &values[..]) {
        (Kind::Switch, _) => "false".to_owned(),
        (Kind::Many, []) => format!("[{}]", named()),
        (Kind::Many, values) => format!("[{}]", values.join(", ")),
        (_, [value]) => value.clone(),
        _ => named(),
    }
}

fn written(value: &str) -> String {
    if value.parse::<i64>().is_ok() { value.to_owned() } else { toml::Value::from(value).to_string() }
}

fn commented(text: &str) -> String {
    let lines =
        textwrap::wrap(text, textwrap::Options::new(WIDTH).word_splitter(textwrap::WordSplitter::NoHyphenation))
            .into_iter()
            .map(|line| format!("# {line}\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::cli::config::{file, layers::Layers};

    fn saved(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dupip.toml");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn it_can_be_used_as_it_is() {
        let (_directory, path) = saved(&default());
        let told = Layers::of_file(Some(path)).read().unwrap();
        assert_eq!((told.values["bridge"].as_slice(), told.from["bridge"]), (["rt0".to_owned()].as_slice(), "file"));
        assert_eq!((told.from["wait"], told.from["mode"]), ("file", "default"));
    }

    #[test]
    fn every_key_is_there_with_what_it_means() {
        let text = default();
        for key in keys::keys() {
            let name = keys::name(&key);
            let at = text.lines().position(|line| line.trim_start_matches("# ").starts_with(&format!("{name} = ")));
            let before = text.lines().nth(at.unwrap_or_else(|| panic!("{name}")) - 1).unwrap();
            assert!(before.starts_with("# ") && before.ends_with(')'), "{name}: {before}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    /// What has a usual value says it in a way that is accepted.
    #[test]
    fn what_stands_behind_a_number_sign_is_what_holds_without_it() {
        let usual: Vec<(Arg, String)> = keys::keys().into_iter().map(|key| (key.clone(), usual(&key))).collect();
        let with_default =
            usual.iter().filter(|(key, _)| !key.get_default_values().is_empty() || keys::kind(key) == Kind::Switch);
        let said: String = with_default.map(|(key, value)| format!("{} = {value}\n", keys::name(key))).collect();
        let (_directory, path) = saved(&format!("bridge = \"rt0\"\n{said}"));
        assert!(file::read(&path).unwrap().keys.len() > 10);
        let (_other, bare) = saved("bridge = \"rt0\"\n");
        let values = |path| Layers::of_file(Some(path)).read().unwrap().values;
        assert_eq!(values(path), values(bare));
    }
}

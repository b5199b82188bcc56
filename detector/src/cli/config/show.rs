//! `dupip config show`: what the running agent goes by.

use std::path::Path;

use super::{keys, layers::Told};
use crate::{
    cli::{
        ask,
        exit::Failure,
        render::{Column, Format, Output, columns, json, or_dash, print},
    },
    http::{Client, api::Setting},
};

const EXAMPLES: &str = "\
Examples:
  dupip config show
  dupip config show -o json | jq -r '.[] | select(.from != \"default\") | .key'

FROM is flag, environment, file, or default. LIVE is yes for what `dupip reload` can change. Hooks are not
shown, since they may have passwords.";

/// Show what the running agent goes by, and who says so
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    format: Format,
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<(), Failure> {
        let settings: Vec<Setting> = ask(&Client::new(socket), "/api/v1/settings")?;
        print(show(&settings, self.format.output)?)
    }
}

fn show(settings: &[Setting], output: Output) -> Result<String, Failure> {
    let all: [Column<'_, Setting>; 4] = [
        ("KEY", false, &|setting| setting.key.clone()),
        ("VALUE", false, &value),
        ("FROM", false, &|setting| setting.from.clone()),
        ("LIVE", false, &|setting| if setting.live { "yes" } else { "no" }.to_owned()),
    ];
    match output {
        Output::Json => json(&settings),
        _ => Ok(columns(&all, settings, output == Output::Wide)),
    }
}

fn value(setting: &Setting) -> String {
    match (setting.hidden, &setting.values[..]) {
        (true, _) => "(hidden)".to_owned(),
        (false, []) => or_dash(None::<&str>),
        (false, values) => values.join(", "),
    }
}

/// What all layers say, key by key, without what is secret.
pub(in crate::cli) fn settings(told: &Told) -> Vec<Setting> {
    let setting = |key: clap::Arg| {
        let name = keys::name(&key);
        let values = told.values.get(name).cloned().unwrap_or_default();
        let hidden = keys::is_secret(name) && !values.is_empty();
        Setting {
            key: name.to_owned(),
            values: if hidden { Vec::new() } else { values },
            hidden,
            from: told.from.get(name).copied().unwrap_or("default").to_owned(),
            live: keys::is_live(name),
        }
    };
    keys::keys().into_iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_who_says_what_and_no_passwords() {
        let setting = |key: &str, values: &[&str], hidden, from: &str| Setting {
            key: key.to_owned(),
            values: values.iter().map(ToString::to_string).collect(),
            hidden,
            from: from.to_owned(),
            live: keys::is_live(key),
        };
        let settings = [
            setting("bridge", &["rt0", "rt1"], false, "file"),
            setting("mode", &["enforce"], false, "flag"),
            setting("cooldown", &[], false, "default"),
            setting("hook", &[], true, "environment"),
        ];
        let want = "\
KEY       VALUE     FROM         LIVE
bridge    rt0, rt1  file         no
mode      enforce   flag         yes
cooldown  -         default      no
hook      (hidden)  environment  no
";
        assert_eq!(show(&settings, Output::Table).unwrap(), want);
    }

    #[test]
    fn hooks_are_not_told() {
        let mut values = super::super::Values::new();
        values.insert("bridge".to_owned(), vec!["rt0".to_owned()]);
        values.insert("hook".to_owned(), vec!["opened=https://user:secret@example.org/".to_owned()]);
        let settings = settings(&super::super::with(&values).unwrap());
        let hook = settings.iter().find(|setting| setting.key == "hook").unwrap();
        assert!(hook.hidden && hook.values.is_empty(), "{hook:?}");
    }
}

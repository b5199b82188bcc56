//! `dupip config show`: what the running agent goes by.

use std::path::Path;

use super::{keys, layers::Told};
use crate::{
    cli::{
        ask,
        exit::Failure,
        render::{Column, List, Listed, or_dash},
    },
    http::{Client, api::Setting},
};

const EXAMPLES: &str = "\
Examples:
  dupip config show
  dupip config show --filter 'from!=default'
  dupip config show --filter live=yes -o csv

FROM is flag, environment, file, or default. LIVE is yes for what `dupip reload` can change. Hooks are not
shown, since they may have passwords.";

/// Show what the running agent goes by, and who says so
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    list: List<Setting>,
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<(), Failure> {
        let settings: Vec<Setting> = ask(&Client::new(socket), "/api/v1/settings")?;
        self.list.print(settings, "the agent goes by nothing")
    }
}

impl Listed for Setting {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("KEY", |setting| setting.key.clone()),
        Column::prose("VALUE", value),
        Column::text("FROM", |setting| setting.from.clone()),
        Column::text("LIVE", |setting| if setting.live { "yes" } else { "no" }.to_owned()),
    ];
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
    use expect_test::expect_file;

    use super::*;
    use crate::cli::render::golden::forms;

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
        expect_file!["../golden/config_show.txt"].assert_eq(&forms(&settings));
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

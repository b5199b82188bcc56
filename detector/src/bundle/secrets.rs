//! What of a configuration may be shown: only what is known to be none of anybody's secrets.
//!
//! A value is shown if its key is a flag of `dupip run` whose values are no secrets. Hooks are shown as they show
//! themselves, without arguments, and of URLs only scheme and host; what is unknown is not shown at all, for it may be a secret under a
//! misspelled name.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::hooks::Hook;

/// Stands for what is not shown.
const HIDDEN: &str = "<not shown>";

/// The keys of a configuration that are known, as in `evictions-per-minute`.
#[derive(Clone, Debug, Default)]
pub struct Known(BTreeSet<String>);

impl FromIterator<String> for Known {
    fn from_iter<T: IntoIterator<Item = String>>(keys: T) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl Known {
    /// A configuration file as it may be shown, or why it cannot be read. Comments are gone.
    pub(super) fn configuration(&self, text: &str) -> Result<String, String> {
        // The error itself would show the line.
        let table: Table =
            text.parse().map_err(|error: toml::de::Error| format!("it is no TOML: {}", error.message()))?;
        toml::to_string(&self.table(table)).map_err(|error| error.to_string())
    }

    fn table(&self, table: Table) -> Table {
        table.into_iter().map(|(key, value)| (scrub(&key), self.value(&key, value))).collect()
    }

    fn value(&self, key: &str, value: Value) -> Value {
        match value {
            Value::Table(table) => Value::Table(self.table(table)),
            Value::Array(values) => Value::Array(values.into_iter().map(|value| self.value(key, value)).collect()),
            Value::String(text) => Value::String(self.shown(key, &text)),
            other if self.0.contains(key) && !may_be_secret(key, "") => other,
            _ => Value::String(HIDDEN.to_owned()),
        }
    }

    /// One value as it may be shown.
    pub(super) fn shown(&self, key: &str, text: &str) -> String {
        match key {
            "hook" | "hooks" => text.lines().map(hook).collect::<Vec<_>>().join("\n"),
            _ if may_be_secret(key, text) || !self.0.contains(key) => HIDDEN.to_owned(),
            _ => scrub(text),
        }
    }

    /// The arguments of a process, as they may be shown.
    pub(super) fn arguments<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let (mut shown, mut flag) = (Vec::new(), None::<&str>);
        for argument in arguments {
            let (said, next) = match (argument.strip_prefix("--"), flag.take()) {
                (Some(named), _) => match named.split_once('=') {
                    Some((key, value)) => (format!("--{key}={}", self.shown(key, value)), None),
                    None => (argument.to_owned(), Some(named)),
                },
                (None, Some(key)) => (self.shown(key, argument), None),
                (None, None) => (if shown.len() < 2 { scrub(argument) } else { HIDDEN.to_owned() }, None),
            };
            shown.push(said);
            flag = next;
        }
        shown
    }

    /// A variable of the environment, if it is dupip's.
    pub(super) fn variable(&self, text: &str) -> Option<String> {
        let (name, value) = text.split_once('=')?;
        let key = name.strip_prefix("DUPIP_")?.to_ascii_lowercase().replace('_', "-");
        let is_plain = ["log", "socket"].contains(&key.as_str());
        Some(format!("{name}={}", if is_plain { scrub(value) } else { self.shown(&key, value) }))
    }
}

/// A path to a secret is none; but whoever takes the flag for another writes the secret itself there.
fn may_be_secret(key: &str, text: &str) -> bool {
    match ["-file", "-key", "-certificate"].iter().any(|end| key.ends_with(end)) {
        true => !text.starts_with('/'),
        false => ["secret", "token", "password", "credential", "key"].iter().any(|word| key.contains(word)),
    }
}

fn hook(text: &str) -> String {
    match text.parse::<Hook>() {
        Ok(hook) => {
            let occasions: Vec<_> = hook.occasions.iter().map(ToString::to_string).collect();
            format!("{}={} (arguments, login, path and query are not shown)", occasions.join(","), hook.target)
        }
        Err(_) => HIDDEN.to_owned(),
    }
}

/// `text` with only scheme and host of the URLs in it, and without what follows `Bearer` or `Basic`.
pub(super) fn scrub(text: &str) -> String {
    let mut after_scheme = false;
    let word = |word: &str| {
        let (bare, end) = word.split_at(word.trim_end().len());
        let hidden =
            std::mem::replace(&mut after_scheme, ["bearer", "basic"].iter().any(|of| bare.eq_ignore_ascii_case(of)));
        let shown = if hidden && !bare.is_empty() { HIDDEN.to_owned() } else { url(bare) };
        shown + end
    };
    text.split_inclusive(char::is_whitespace).map(word).collect()
}

fn url(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let rest = rest.trim_end_matches(|c: char| c.is_ascii_punctuation() && !matches!(c, '/' | ']'));
    let end = word.get(scheme.len() + "://".len() + rest.len()..).unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let login = authority.rsplit_once('@').map_or("", |_| "<not shown>@");
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    format!("{scheme}://{login}{place}{}{end}", if path.is_empty() { "" } else { "/…" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let keys = [
            "bridge",
            "mode",
            "hook",
            "hook-secret-file",
            "hook-timeout",
            "token-file",
            "tls-key",
            "listen",
            "wait",
            "token",
        ];
        keys.map(str::to_owned).into_iter().collect()
    }

    #[test]
    fn a_configuration_is_shown_without_its_secrets() {
        let text = r#"
            # comment hush0
            bridge = ["rt0"]
            mode = "enforce"
            wait = true
            hook = ["opened=/bin/tell hush1 --key hush2", "evicted=https://me:hush3@h.example/hush3?t=hush4", "odd hush5"]
            hook-secret-file = "/etc/dupip/secret"
            token = "hush6"
            token-file = "hush6"
            tokn = "hush7"
            pin = 5
            [http]
            tls-key = "/etc/dupip/key.pem"
            authorization = ["hush8"]
        "#;
        let shown = known().configuration(text).unwrap();
        assert!(!shown.contains("hush"), "{shown}");
        for kept in [
            "rt0",
            "enforce",
            "wait = true",
            "/bin/tell",
            "https://h.example/…",
            "/etc/dupip/secret",
            "key.pem",
            "tokn",
        ] {
            assert!(shown.contains(kept), "no {kept} in {shown}");
        }
        let error = known().configuration("bridge = \"rt0\nhook = hush").unwrap_err();
        assert!(error.starts_with("it is no TOML: ") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn arguments_and_variables_are_shown_without_their_secrets() {
        let line = [
            "dupip",
            "run",
            "--bridge",
            "rt0",
            "--wait",
            "--hook",
            "opened=/bin/tell hush",
            "--hook=failed=/bin/x hush",
            "--tokn",
            "hush",
            "hush",
        ];
        let shown = known().arguments(line).join(" ");
        assert!(
            !shown.contains("hush") && shown.starts_with("dupip run --bridge rt0 --wait --hook opened=/bin/tell"),
            "{shown}"
        );
        let shown = [
            "DUPIP_HOOKS=opened=/bin/a hush\nfailed=https://u:hush@h/",
            "DUPIP_TOKEN=hush",
            "PATH=/bin",
            "DUPIP_MODE=observe",
        ]
        .map(|text| known().variable(text).unwrap_or_default());
        assert!(!shown.concat().contains("hush"), "{shown:?}");
        assert_eq!(shown[2..], ["", "DUPIP_MODE=observe"]);
    }

    #[test]
    fn logins_queries_and_credentials_are_scrubbed() {
        let text = "told https://me:hush@h.example:8/p?key=hush\nAuthorization: Bearer hush and  basic hush, /plain?x \
                    (at https://h.example/services/hush), \"http://h.example\": a=https://h/hush,b=https://h/hush";
        let want = "told https://<not shown>@h.example:8/…\nAuthorization: Bearer <not shown> and  basic <not shown> /plain?x \
                    (at https://h.example/…), \"http://h.example\": a=https://h/…";
        assert_eq!(scrub(text), want);
        assert_eq!(scrub("https://h.example/… and"), "https://h.example/… and");
    }
}

//! Which words of an archive are somebody's names: by where they stand, never by how they look.

use std::{collections::BTreeSet, fs, net::IpAddr};

use rustix::system::uname;
use serde_json::Value;

use super::Part;
use crate::{doctor::TOPICS, net::Mac};

/// Where answers, metrics and the lease database have names.
pub(super) const NAMED: [&str; 8] =
    ["sandbox", "owner", "port", "port_name", "interface", "interface_name", "device", "netns_name"];
/// Where they have words of dupip's own, or the bridges' names.
pub(super) const OWN: [&str; 19] = [
    "bridge",
    "bridges",
    "event",
    "evidence",
    "first_evidence",
    "kind",
    "level",
    "mode",
    "op",
    "reach",
    "role",
    "severity",
    "side",
    "state",
    "status",
    "step",
    "table",
    "verdict",
    "way",
];
/// What no name may be taken for, wherever it stands.
const PLAIN: [&str; 8] = ["agent", "host", "the host", "eth0", "lo", "root", "null", "-"];
/// Checks of the doctor whose subject is a name.
const CHECKS: [&str; 4] = ["log_martians", "namespace", "hooks", "port"];
/// Keys of a configuration with a name before or after the first or last `=`, or alone.
const KEYS: [&str; 5] = ["pin", "resolve-owner", "protect-port", "external", "ignore-port"];
/// Where `ip netns` and CNI bind namespaces to names.
const NAMESPACES: &str = "/run/netns";

/// What is found in an archive.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Somebody's.
    pub(super) names: BTreeSet<String>,
    /// Words of dupip's own, and keys: as part of a text they are no names.
    pub(super) own: BTreeSet<String>,
    /// Bridges: they keep their names everywhere.
    bridges: BTreeSet<String>,
}

impl Names {
    /// Those in `parts`, in `/run/netns`, and the machine's own.
    pub(super) fn of(parts: &[Part]) -> Self {
        let mut found = Self::default();
        found.own.extend(TOPICS.iter().map(|topic| topic.name.to_owned()).chain(["true".into(), "false".into()]));
        for part in parts {
            let Ok(content) = &part.content else { continue };
            match part.name.as_str() {
                "configuration/dupip.toml" => found.configuration(&String::from_utf8_lossy(content)),
                "process/arguments.txt" => found.arguments(&String::from_utf8_lossy(content)),
                "process/environment.txt" => found.environment(&String::from_utf8_lossy(content)),
                _ => serde_json::from_slice::<Value>(content).iter().for_each(|value| found.value(value)),
            }
        }
        let namespaces = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
        found.names.extend(namespaces.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        found.names.insert(uname().nodename().to_string_lossy().into_owned());
        let Self { names, bridges, .. } = &mut found;
        names.retain(|name| !name.is_empty() && !PLAIN.contains(&name.as_str()) && !is_address(name));
        names.retain(|name| !bridges.contains(name));
        found
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.value(value)),
            Value::Object(fields) => {
                let check = fields.get("name").and_then(Value::as_str).filter(|name| CHECKS.contains(name));
                if let Some(subject) = check.and(fields.get("subject")).and_then(Value::as_str) {
                    self.subject(subject);
                }
                for (field, value) in fields {
                    self.own.insert(field.clone());
                    self.field(field, value);
                }
            }
            // A record of the lease database.
            Value::String(text) => nested(text).iter().for_each(|value| self.value(value)),
            _ => {}
        }
    }

    fn field(&mut self, field: &str, value: &Value) {
        match value {
            Value::Array(values) if OWN.contains(&field) => values.iter().for_each(|value| self.field(field, value)),
            Value::String(name) if NAMED.contains(&field) => drop(self.names.insert(name.clone())),
            Value::String(word) if OWN.contains(&field) => {
                let of = if field.starts_with("bridge") { &mut self.bridges } else { &mut self.own };
                of.insert(word.clone());
            }
            value => self.value(value),
        }
    }

    /// A namespace, a port, or a port after its bridge.
    fn subject(&mut self, subject: &str) {
        let name = subject.split_once('/').map_or(subject, |(_, port)| port);
        if !name.starts_with("net:[") {
            self.names.insert(name.to_owned());
        }
    }

    fn configuration(&mut self, text: &str) {
        let Ok(table) = text.parse::<toml::Table>() else { return };
        for (key, value) in table {
            match value {
                toml::Value::Array(values) => {
                    values.iter().filter_map(toml::Value::as_str).for_each(|text| self.setting(&key, text));
                }
                toml::Value::String(text) => self.setting(&key, &text),
                _ => {}
            }
        }
    }

    fn arguments(&mut self, text: &str) {
        let mut flag = None::<&str>;
        for line in text.lines() {
            match (line.strip_prefix("--"), flag.take()) {
                (Some(named), _) => match named.split_once('=') {
                    Some((key, value)) => self.setting(key, value),
                    None => flag = Some(named),
                },
                (None, Some(key)) => self.setting(key, line),
                (None, None) => {}
            }
        }
    }

    fn environment(&mut self, text: &str) {
        for (variable, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let key = variable.trim_start_matches("DUPIP_").to_ascii_lowercase().replace('_', "-");
            self.setting(&key, value);
        }
    }

    fn setting(&mut self, key: &str, text: &str) {
        if key == "bridge" {
            self.bridges.extend(text.split(',').map(str::to_owned));
        }
        for one in text.split(',').filter(|_| KEYS.contains(&key)) {
            let name = match key {
                "pin" => one.split_once('=').map(|(_, owner)| owner),
                "resolve-owner" => one.rsplit_once('=').map(|(owner, _)| owner),
                _ => Some(one),
            };
            self.names.extend(name.iter().flat_map(|name| name.split('*')).map(str::to_owned));
        }
    }
}

/// What a text says, if it is a JSON object or list.
pub(super) fn nested(text: &str) -> Option<Value> {
    text.starts_with(['{', '[']).then(|| serde_json::from_str(text).ok()).flatten()
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || text.parse::<Mac>().is_ok()
}

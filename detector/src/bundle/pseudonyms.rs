//! Other words for addresses and names, the same word for the same thing everywhere.
//!
//! Addresses are known by their form. Names are those that stand where answers have names of sandboxes, owners and ports,
//! and the machine's own. Bridges keep theirs, and so do addresses that mean the same everywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use rustix::system::uname;
use serde_json::Value;

use super::Part;
use crate::net::Mac;

/// Where answers, and the lease database, have names.
const NAMES: [&str; 9] =
    ["sandbox", "owner", "port", "port_name", "interface", "interface_name", "actor", "device", "netns_name"];
/// What no name may be taken for: words that stand everywhere.
const PLAIN: [&str; 6] = ["agent", "host", "eth0", "lo", "root", "null"];
/// Addresses that stand for others (RFC 2544, section C.2.2).
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// What stands for what.
#[derive(Debug)]
pub(super) struct Pseudonyms {
    /// Names that are one word.
    words: BTreeMap<String, String>,
    /// Names that are more, the longest first.
    phrases: Vec<(String, String)>,
    addresses: Mutex<BTreeMap<String, String>>,
}

impl Pseudonyms {
    /// Those for the names in `parts`.
    pub(super) fn of(parts: &[Part]) -> Self {
        let mut names = BTreeSet::new();
        let contents = parts.iter().filter_map(|part| part.content.as_deref().ok());
        for value in contents.filter_map(|content| serde_json::from_slice::<Value>(content).ok()) {
            collect(&value, &mut names);
        }
        names.insert(uname().nodename().to_string_lossy().into_owned());
        names.retain(|name| name.len() > 1 && !PLAIN.contains(&name.as_str()) && name.parse::<u64>().is_err());
        let named = (1..).zip(names).map(|(number, name)| (name, format!("name{number}")));
        let (words, mut phrases): (BTreeMap<_, _>, Vec<_>) = {
            let (words, phrases): (Vec<_>, Vec<_>) = named.partition(|(name, _)| name.chars().all(is_of_word));
            (words.into_iter().collect(), phrases)
        };
        phrases.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self { words, phrases, addresses: Mutex::default() }
    }

    /// `bytes` with the other words; what is no text becomes text.
    pub(super) fn replace(&self, bytes: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let text = self.phrases.iter().fold(text, |text, (name, other)| text.replace(name, other));
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let is_word = is_of_word(first);
            let end = rest.find(|c| is_of_word(c) != is_word).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(end);
            replaced += &if is_word { self.word(piece) } else { piece.to_owned() };
            rest = after;
        }
        replaced.into_bytes()
    }

    fn word(&self, word: &str) -> String {
        if let Some(other) = self.words.get(word) {
            return other.clone();
        }
        let bare = word.trim_end_matches(['.', ':']);
        let (end, port) =
            (&word[bare.len()..], bare.rsplit_once(':').filter(|(host, _)| host.parse::<Ipv4Addr>().is_ok()));
        match (self.words.get(bare), self.address(bare), port) {
            (Some(other), ..) => format!("{other}{end}"),
            (None, Some(other), _) => other + end,
            (None, None, Some((host, port))) => {
                format!("{}:{port}{end}", self.address(host).unwrap_or_else(|| host.to_owned()))
            }
            (None, None, None) => word.to_owned(),
        }
    }

    /// Another address, if it is one that is somebody's.
    fn address(&self, text: &str) -> Option<String> {
        let is_mac = text.parse::<Mac>().is_ok() && !["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"].contains(&text);
        let is_v4 =
            text.parse::<Ipv4Addr>().is_ok_and(|of| !of.is_loopback() && !of.is_unspecified() && !of.is_broadcast());
        let is_v6 = text.parse::<Ipv6Addr>().is_ok_and(|of| !of.is_loopback() && !of.is_unspecified());
        let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let number = u32::try_from(known.len()).unwrap_or(u32::MAX);
        let [_, _, a, b] = number.to_be_bytes();
        let other = match (is_mac, is_v4, is_v6) {
            (true, ..) => format!("02:00:5e:00:{a:02x}:{b:02x}"),
            (_, true, _) => Ipv4Addr::from_bits(FIRST.to_bits().saturating_add(number)).to_string(),
            (.., true) => format!("2001:db8::{number:x}"),
            _ => return None,
        };
        Some(known.entry(text.to_ascii_lowercase()).or_insert(other).clone())
    }
}

const fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')
}

fn collect(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
        Value::Object(fields) => {
            for (field, value) in fields {
                match value {
                    Value::String(name) if NAMES.contains(&field.as_str()) => drop(names.insert(name.clone())),
                    value => collect(value, names),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_has_the_same_other_word_everywhere() {
        let part = |text: &str| Part::new("x.json", "x", Ok(text.as_bytes().to_vec()));
        let table =
            r#"[{"sandbox":"sports","port":"vethA","address":"10.8.64.2"},{"sandbox":"my app","bridge":"rt0"}]"#;
        let pseudonyms = Pseudonyms::of(&[part(table)]);
        let replaced = |text: &str| String::from_utf8(pseudonyms.replace(text.as_bytes())).unwrap();
        let table = replaced(table);
        let line = replaced(
            "sports (port vethA, 7A:d4:6d:15:9f:11) and my app both use 10.8.64.2: 10.8.64.2/24, 10.8.64.2:80.",
        );
        for gone in ["sports", "vethA", "10.8", "my app", "9f:11"] {
            assert!(!table.contains(gone) && !line.contains(gone), "{gone} in {table} {line}");
        }
        assert!(table.contains("rt0") && table.contains("198.18.0.1"), "{table}");
        assert!(line.contains("use 198.18.0.1: 198.18.0.1/24, 198.18.0.1:80."), "{line}");
        assert_eq!(replaced("7a:d4:6d:15:9f:11"), replaced("7A:D4:6D:15:9F:11"));
        let same = "at 127.0.0.1:9477 and 0.0.0.0, 12:30:05.123, sportsman, ff:ff:ff:ff:ff:ff, 6.18.5";
        assert_eq!(replaced(same), same);
    }
}

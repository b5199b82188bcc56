//! Other words for addresses and names, the same word for the same thing everywhere.
//!
//! Addresses are known by their form, names by where they stand ([`Names`]). JSON is walked as what it is: a name's own
//! place has the other word, in a text a name counts where it stands as a word of its own, and no key, number or word of
//! dupip's is touched. What is no JSON is a text, in which `KEY="VALUE"` is taken for such a place.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use super::{
    Part,
    names::{NAMED, Names, OWN, nested},
};
use crate::net::Mac;

/// Addresses that stand for others (RFC 2544, section C.2.2).
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// What stands for what.
#[derive(Debug)]
pub(super) struct Pseudonyms {
    names: BTreeMap<String, String>,
    /// Those that count in a text, too.
    clear: BTreeSet<String>,
    /// How long, in bytes, those of them are that are more than one word, by how they begin: the longest last.
    phrases: BTreeMap<char, BTreeSet<usize>>,
    addresses: Mutex<BTreeMap<String, String>>,
}

impl Pseudonyms {
    /// Those for the names in `parts`.
    pub(super) fn of(parts: &[Part]) -> Self {
        let Names { names, own, .. } = Names::of(parts);
        let is_clear = |name: &&String| name.len() > 1 && !own.contains(*name) && name.parse::<u64>().is_err();
        let clear: BTreeSet<_> = names.iter().filter(is_clear).cloned().collect();
        let mut phrases: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for name in clear.iter().filter(|name| !name.chars().all(is_of_word)) {
            phrases.entry(name.chars().next().unwrap_or_default()).or_default().insert(name.len());
        }
        let names = (1..).zip(names).map(|(number, name)| (name, format!("name{number}"))).collect();
        Self { names, clear, phrases, addresses: Mutex::default() }
    }

    /// `bytes` with the other words; what is no text becomes text.
    pub(super) fn replace(&self, bytes: &[u8]) -> Vec<u8> {
        let walked = serde_json::from_slice::<Value>(bytes).ok().filter(|value| value.is_object() || value.is_array());
        let written = walked.and_then(|value| serde_json::to_vec_pretty(&self.value("", value)).ok());
        written.unwrap_or_else(|| self.lines(&String::from_utf8_lossy(bytes)).into_bytes())
    }

    fn value(&self, field: &str, value: Value) -> Value {
        match value {
            Value::Array(values) => values.into_iter().map(|value| self.value(field, value)).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(field, value)| (field.clone(), self.value(&field, value))).collect()
            }
            Value::String(text) => Value::String(self.of_field(field, text)),
            plain => plain,
        }
    }

    fn of_field(&self, field: &str, text: String) -> String {
        if OWN.contains(&field) {
            return self.address(&text).unwrap_or(text);
        }
        if let Some(other) = self.names.get(&text).filter(|_| NAMED.contains(&field)) {
            return other.clone();
        }
        match nested(&text) {
            Some(value) => self.value(field, value).to_string(),
            None => self.text(&text),
        }
    }

    /// A text of lines, but for what tells what a metric is.
    fn lines(&self, text: &str) -> String {
        let is_head = |line: &str| line.starts_with("# HELP ") || line.starts_with("# TYPE ");
        let line = |line: &str| if is_head(line) { line.to_owned() } else { self.text(line) };
        text.split_inclusive('\n').map(line).collect()
    }

    fn text(&self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (piece, other) = match self.phrase(rest) {
                Some((piece, other)) => (piece, other.to_owned()),
                None if !is_of_word(first) => (rest.split_at(first.len_utf8()).0, first.to_string()),
                None => self.word_of(rest),
            };
            replaced += &other;
            rest = rest.get(piece.len()..).unwrap_or_default();
        }
        replaced
    }

    /// The name of several words that `rest` begins with, and what stands for it.
    fn phrase<'a>(&self, rest: &'a str) -> Option<(&'a str, &str)> {
        let lengths = self.phrases.get(&rest.chars().next()?)?;
        lengths.iter().rev().find_map(|length| {
            let (piece, after) = rest.split_at_checked(*length)?;
            let goes_on = piece.ends_with(is_of_word) && after.starts_with(|c| is_of_word(c) && !is_end(c));
            let other = self.clear.get(piece).filter(|_| !goes_on).and_then(|name| self.names.get(name))?;
            Some((piece, other.as_str()))
        })
    }

    /// The word that `rest` begins with, with the value that it is the key of, and what stands for it.
    fn word_of<'a>(&self, rest: &'a str) -> (&'a str, String) {
        let (word, after) = rest.split_at(rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()));
        let value = after.strip_prefix("=\"").and_then(|value| value.split_once(['"', '\n']));
        match value.filter(|_| OWN.contains(&word) || NAMED.contains(&word)) {
            None => (word, self.word(word)),
            Some((value, _)) => {
                let length = word.len() + "=\"".len() + value.len();
                let other = self.of_field(word, value.to_owned());
                (rest.split_at(length).0, format!("{word}=\"{other}"))
            }
        }
    }

    fn word(&self, word: &str) -> String {
        if let Some(other) = self.known(word) {
            return other;
        }
        let bare = word.trim_end_matches(is_end);
        let end = word.get(bare.len()..).unwrap_or_default();
        if let Some(other) = self.known(bare) {
            return other + end;
        }
        // As in `sports:eth0`, `10.8.64.2:80` and `veth1.12`.
        let parts = |at| bare.split(at).map(|part| self.known(part).unwrap_or_else(|| part.to_owned()));
        match bare.contains(':') {
            true => parts(':').collect::<Vec<_>>().join(":") + end,
            false => parts('.').collect::<Vec<_>>().join(".") + end,
        }
    }

    fn known(&self, word: &str) -> Option<String> {
        let name = self.clear.get(word).and_then(|name| self.names.get(name)).cloned();
        name.or_else(|| self.address(word))
    }

    /// Another address, if it is one that is somebody's.
    fn address(&self, text: &str) -> Option<String> {
        let is_mac = text.parse::<Mac>().is_ok() && !["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"].contains(&text);
        let is_v4 =
            text.parse::<Ipv4Addr>().is_ok_and(|of| !of.is_loopback() && !of.is_unspecified() && !of.is_broadcast());
        let is_v6 = text.parse::<Ipv6Addr>().is_ok_and(|of| !of.is_loopback() && !of.is_unspecified());
        let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let number = u32::try_from(known.len()).unwrap_or(u32::MAX);
        let [_, a, b, c] = number.to_be_bytes();
        let other = match (is_mac, is_v4, is_v6) {
            (true, ..) => format!("02:00:5e:{a:02x}:{b:02x}:{c:02x}"),
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

/// What may end a sentence, too.
const fn is_end(c: char) -> bool {
    matches!(c, '.' | ':')
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
    fn of(parts: &[(&str, String)]) -> Pseudonyms {
        let part = |(name, text): &(&str, String)| Part::new(*name, "x", Ok(text.clone().into_bytes()));
        Pseudonyms::of(&parts.iter().map(part).collect::<Vec<_>>())
    }

    fn replaced(pseudonyms: &Pseudonyms, text: &str) -> String {
        String::from_utf8(pseudonyms.replace(text.as_bytes())).unwrap()
    }

    #[test]
    fn names_that_are_everyday_words_break_nothing() {
        let table = r#"[{"sandbox":"bound","port":"true","bridge":"rt0","state":"bound","live":true},
                        {"sandbox":"host","port":"rt0","bridge":"rt0","state":"held"},{"sandbox":"state","port":"4"},
                        {"sandbox":"martian","port":"x","kind":"martian","text":"port true, state bound, at rt0"},
                        {"sandbox":"a b"},{"record":"{\"sandbox\":\"bound\",\"up\":true}"}]"#;
        let pseudonyms = of(&[("table.json", table.to_owned())]);
        let after: Value = serde_json::from_str(&replaced(&pseudonyms, table)).unwrap();
        for (at, field, want) in [
            (0, "bridge", "rt0"),
            (0, "state", "bound"),
            (1, "port", "rt0"),
            (1, "sandbox", "host"),
            (3, "kind", "martian"),
            (3, "text", "port true, state bound, at rt0"),
        ] {
            assert_eq!(after[at][field], want, "{after:#}");
        }
        assert_eq!(after[0]["live"], true);
        for (at, field) in [(0, "sandbox"), (0, "port"), (2, "sandbox"), (2, "port"), (3, "sandbox"), (4, "sandbox")] {
            assert!(after[at][field].as_str().unwrap().starts_with("name"), "{after:#}");
        }
        let record: Value = serde_json::from_str(after[5]["record"].as_str().unwrap()).unwrap();
        assert_eq!((&record["sandbox"], &record["up"]), (&after[0]["sandbox"], &true.into()));
        let metrics = "# TYPE dupip_state gauge\ndupip_state{state=\"bound\",port=\"true\",bridge=\"rt0\"} 1\n";
        let port = after[0]["port"].as_str().unwrap();
        assert_eq!(replaced(&pseudonyms, metrics), metrics.replace("\"true\"", &format!("\"{port}\"")));
        assert_eq!(replaced(&pseudonyms, "a bc, data b, xa b"), "a bc, data b, xa b");
    }

    #[test]
    fn names_are_found_where_the_doctor_and_settings_have_them() {
        let doctor = r#"{"checks":[{"name":"log_martians","subject":"hush1","meaning":"m"},{"name":"disk","subject":"/var/lib"},
            {"name":"port","subject":"rt0/hush2"},{"name":"namespace","subject":"net:[402]"},{"name":"bridge","subject":"rt0"}]}"#;
        let configuration = "pin = [\"10.8.64.2=hush3\"]\nresolve-owner = \"hush=4=contain\"\nprotect-port = [\"hush5*\"]\nmode = \"observe\"";
        let arguments = "dupip\nrun\n--external\nhush6,hush7\n--pin=10.8.64.3=hush8\n--mode\nobserve";
        let pseudonyms = of(&[
            ("doctor.json", doctor.to_owned()),
            ("configuration/dupip.toml", configuration.to_owned()),
            ("process/arguments.txt", arguments.to_owned()),
            ("process/environment.txt", "DUPIP_RESOLVE_OWNER=hush9=contain".to_owned()),
        ]);
        for text in
            [doctor, configuration, arguments, "nsenter --net=/run/netns/hush1 x", "hush9=contain hush1:eth0 hush2.7"]
        {
            let after = replaced(&pseudonyms, text);
            assert!(!after.contains("hush"), "{after}");
        }
        let same = "rt0, net:[402], /var/lib, observe, contain";
        assert_eq!(replaced(&pseudonyms, same), same);
    }

    #[test]
    fn many_phrases_take_no_more_time_than_their_lengths() {
        let names: Vec<_> = (0..20_000).map(|number| serde_json::json!({"sandbox": format!("a b {number}")})).collect();
        let pseudonyms = of(&[("table.json", serde_json::to_string(&names).unwrap())]);
        assert_eq!(pseudonyms.phrases.values().map(BTreeSet::len).collect::<Vec<_>>(), [5]);
        assert!(replaced(&pseudonyms, &"a b 19999 a b x ".repeat(1000)).starts_with("name"));
    }
}

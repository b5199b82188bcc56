//! The resolver's configuration (`resolv.conf(5)`), for results that tell a container its name servers.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde::Serialize;

/// The largest file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// What a result says about names ("DNS", CNI 1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nameservers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
}

/// What stands in the file at `path`.
pub(super) fn read(path: &Path) -> io::Result<Dns> {
    let mut text = String::new();
    File::open(path)?.take(LIMIT).read_to_string(&mut text)?;
    Ok(parse(&text))
}

pub(super) fn parse(text: &str) -> Dns {
    text.lines().fold(Dns::default(), |mut dns, line| {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().or(dns.domain),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
        dns
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_domain_search_and_options_are_read_and_all_else_is_not() {
        let dns = parse(
            "# nameserver 9.9.9.9\n; domain no\n\nnameserver 10.8.64.1\n  nameserver fd00::1 # home\nnameserver\n\
             domain example.org\nsearch a.example b.example\noptions ndots:5 edns0\nsortlist 10.0.0.0\n",
        );
        let want = Dns {
            nameservers: vec!["10.8.64.1".to_owned(), "fd00::1".to_owned()],
            domain: Some("example.org".to_owned()),
            search: vec!["a.example".to_owned(), "b.example".to_owned()],
            options: vec!["ndots:5".to_owned(), "edns0".to_owned()],
        };
        assert_eq!(dns, want);
        assert_eq!(parse(""), Dns::default());
    }
}

//! Rule "purity": `net`, `time` and `engine` have no clock, no IO, no randomness and no unordered maps, so that every
//! verdict can be replayed from what went in.
//!
//! Both lists below name what is allowed: what nobody has thought of is refused until somebody has.

use std::collections::BTreeSet;

use super::{
    Violation,
    paths::{Form, Mention, mentions},
    source::Source,
};

const RULE: &str = "purity";

const PURE: [&str; 3] = ["net", "time", "engine"];

/// Crates of values, without effects.
const CRATES: [&str; 1] = ["ipnet"];

/// Modules of `std` and `core`; where items are listed, only those.
const STD: [(&str, &[&str]); 24] = [
    ("array", &[]),
    ("borrow", &[]),
    ("boxed", &[]),
    ("cell", &[]),
    ("clone", &[]),
    ("cmp", &[]),
    (
        "collections",
        &["BTreeMap", "BTreeSet", "BinaryHeap", "VecDeque", "binary_heap", "btree_map", "btree_set", "vec_deque"],
    ),
    ("convert", &[]),
    ("default", &[]),
    ("error", &[]),
    ("fmt", &[]),
    ("hash", &["Hash", "Hasher"]),
    ("iter", &[]),
    ("marker", &[]),
    ("mem", &[]),
    ("net", &["AddrParseError", "IpAddr", "Ipv4Addr", "Ipv6Addr"]),
    ("num", &[]),
    ("ops", &[]),
    ("option", &[]),
    ("rc", &[]),
    ("slice", &[]),
    ("str", &[]),
    ("string", &[]),
    ("time", &["Duration"]),
];

/// Macros that need no path and do something.
const MACROS: [&str; 6] = ["dbg", "eprint", "eprintln", "print", "println", "thread_local"];

/// What stands in tests is not checked: they may use clocks, files and crates of their own.
pub(super) fn check(source: &Source, crates: &BTreeSet<String>) -> Vec<Violation> {
    if !source.room().is_some_and(|room| PURE.contains(&room)) {
        return Vec::new();
    }
    let mentions = source.code().flat_map(|piece| mentions(piece.tokens.clone()));
    let violation = |mention: Mention| {
        let (what, cure) = wrong(&mention, crates)?;
        Some(source.violation(mention.line, RULE, what, cure))
    };
    mentions.filter_map(violation).collect()
}

/// What is wrong with a mention, and how to put it right.
fn wrong(mention: &Mention, crates: &BTreeSet<String>) -> Option<(String, String)> {
    let first = mention.path.first()?.as_str();
    let path = mention.path.join("::");
    if mention.form == Form::Macro && mention.path.last().is_some_and(|name| MACROS.contains(&name.as_str())) {
        return Some((format!("calls `{path}!`"), "return a finding, and let a room below tell it".into()));
    }
    let is_crate = mention.form != Form::Macro || mention.path.len() > 1;
    match first {
        "std" | "core" if is_crate => std_wrong(mention).map(|cure| (format!("uses `{path}`"), cure)),
        _ if is_crate && is_foreign(first, crates) => {
            let cure = format!(
                "only std, core and {} are allowed here; do it in a room below, and pass the value in",
                CRATES.join(", ")
            );
            Some((format!("uses crate `{first}`"), cure))
        }
        _ => None,
    }
}

/// Whether it is a crate, and not one of those allowed.
fn is_foreign(name: &str, crates: &BTreeSet<String>) -> bool {
    (crates.contains(name) || ["alloc", "proc_macro", "test"].contains(&name)) && !CRATES.contains(&name)
}

/// How to put a path of `std` or `core` right, if it is wrong. A module of which only some items are allowed cannot be
/// imported as a whole, nor by `*`: its other items could then be named without saying so.
fn std_wrong(mention: &Mention) -> Option<String> {
    let not_allowed = || {
        Some(
            "pure rooms get time, files and numbers passed in; what they may use is in xtask/src/rooms/purity.rs"
                .to_owned(),
        )
    };
    let Some(module) = mention.path.get(1) else {
        return Some("name the items that you use, one by one".into());
    };
    let Some((_, items)) = STD.iter().find(|(allowed, _)| allowed == module) else {
        return not_allowed();
    };
    match mention.path.get(2) {
        _ if items.is_empty() => None,
        Some(item) if items.contains(&item.as_str()) => None,
        Some(_) => not_allowed(),
        None => Some(format!("of this module, import one by one: {}", items.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrongs(file: &str, text: &str) -> Vec<String> {
        let crates = ["ipnet", "netlink_sys", "proptest", "serde", "tokio"].map(str::to_owned).into();
        check(&Source::snippet(file, text), &crates).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn values_are_allowed() {
        for text in [
            "use std::{collections::{BTreeMap, btree_map::Entry}, fmt::{self, Write as _}, net::Ipv4Addr, time::Duration};",
            "pub use ipnet::Ipv4Net; use core::ops::Add;",
            "mod mac; pub use mac::Mac; fn f() { mac::parse(fmt::Error); Self::g(); }",
            "/// Reads `std::fs` and `tokio::spawn`.\nfn f() { g(\"std::env::var\"); time.now(); matches!(a, b) }",
            "#[cfg(test)] mod tests { use proptest::prelude::*; use std::collections::HashSet; fn f() { println!(); } }",
        ] {
            assert_eq!(wrongs("net/mod.rs", text), [] as [&str; 0], "{text}");
        }
    }

    #[test]
    fn rooms_below_may_do_what_they_like() {
        assert_eq!(wrongs("agent/mod.rs", "use tokio::spawn; use std::fs;"), [] as [&str; 0]);
        assert_eq!(wrongs("main.rs", "use tokio::spawn; use std::fs;"), [] as [&str; 0]);
    }

    #[test]
    fn crates_are_refused_however_they_are_named() {
        for text in [
            "use tokio::time::sleep;",
            "use ::tokio as t;",
            "use {std::fmt, tokio};",
            "fn f() { tokio::spawn(g()); }",
            "fn f(x: impl tokio::io::AsyncRead) {}",
            "fn f() { format!(\"{}\", tokio::id()); }",
            "fn f() { tokio::select! {} }",
            "#[tokio::main] async fn f() {}",
            "mod inner { use tokio::spawn; }",
            "#[cfg(test)] use a::b; fn f() { use tokio::spawn; }",
        ] {
            assert_eq!(wrongs("engine/mod.rs", text), ["uses crate `tokio`"], "{text}");
        }
        assert_eq!(wrongs("engine/mod.rs", "#[derive(serde::Serialize)] struct S;"), ["uses crate `serde`"]);
        assert_eq!(wrongs("engine/mod.rs", "use netlink_sys::Socket;"), ["uses crate `netlink_sys`"]);
    }

    #[test]
    fn clocks_io_randomness_and_unordered_maps_are_refused() {
        for (text, path) in [
            ("fn f() { let _ = std::time::Instant::now(); }", "std::time::Instant::now"),
            ("use std::time::{Duration, SystemTime};", "std::time::SystemTime"),
            ("use std::{env, fmt};", "std::env"),
            ("use std::collections::HashMap;", "std::collections::HashMap"),
            ("use std::collections::hash_map::{Entry};", "std::collections::hash_map::Entry"),
            ("use std::net::{IpAddr, UdpSocket};", "std::net::UdpSocket"),
            ("use std::sync::atomic::AtomicU64;", "std::sync::atomic::AtomicU64"),
            ("use core::hash::BuildHasher;", "core::hash::BuildHasher"),
            ("fn f() { assert!(std::path::Path::new(a).exists()); }", "std::path::Path::new"),
        ] {
            assert_eq!(wrongs("net/mac.rs", text), [format!("uses `{path}`")], "{text}");
        }
    }

    #[test]
    fn a_second_name_is_no_way_around() {
        for text in [
            "use std as s;",
            "use std::*;",
            "use std::{time};",
            "use std::time as t;",
            "use std::time::*;",
            "use std::collections;",
        ] {
            assert_eq!(wrongs("time.rs", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn printing_is_refused() {
        assert_eq!(wrongs("net/mac.rs", "fn f() { println!(); }"), ["calls `println!`"]);
        assert_eq!(wrongs("net/mac.rs", "fn f() { std::eprint!(\"a\"); }"), ["calls `std::eprint!`"]);
        assert_eq!(wrongs("net/mac.rs", "fn f() { assert!(dbg!(a) != b) }"), ["calls `dbg!`"]);
    }
}

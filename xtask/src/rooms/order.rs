//! Rule "order": a room uses only rooms above it, so that each can be understood, tested and lifted out on its own.

use proc_macro2::{Delimiter, Group, TokenTree};

use super::{
    ROOMS, Violation,
    paths::{Form, Mention, mentions},
    source::{Piece, Source},
};

const RULE: &str = "order";

pub(super) fn check(source: &Source) -> Vec<Violation> {
    let Some(room) = source.room() else { return Vec::new() };
    let Some(own) = place(room) else {
        let what = format!("`{room}` is not among the rooms");
        return vec![source.violation(1, RULE, what, "give it its place in ROOMS of xtask/src/rooms.rs")];
    };
    source.pieces.iter().flat_map(|piece| check_piece(source, piece, own)).collect()
}

fn place(room: &str) -> Option<usize> {
    ROOMS.iter().position(|known| *known == room)
}

fn check_piece(source: &Source, piece: &Piece, own: usize) -> Vec<Violation> {
    let mentions = mentions(piece.tokens.clone());
    let violation = |mention: &Mention| {
        let (what, cure) = wrong(mention, &piece.module, own)?;
        Some(source.violation(mention.line, RULE, what, cure))
    };
    mentions.iter().filter_map(violation).chain(elsewhere(source, piece, &mentions)).collect()
}

/// What is wrong with a mention, and how to put it right.
fn wrong(mention: &Mention, module: &[String], own: usize) -> Option<(String, String)> {
    let path = mention.path.join("::");
    let target = from_root(&mention.path, module)?;
    let Some(room) = target.first() else {
        let cure = "name the rooms that you use, one by one, so that their order can be checked";
        return Some((format!("`{path}` is the whole crate"), cure.into()));
    };
    match place(room) {
        None => Some((format!("`{path}` is in no room"), "name the thing by the room that it is in".into())),
        Some(other) if other > own => {
            let cure = format!("pass it in from outside, or move it up; from the ground: {}", ROOMS.join(", "));
            Some((format!("`{path}` is in a room below this one"), cure))
        }
        Some(_) => None,
    }
}

/// The path from the crate's root on, if it is a path of this crate that says so.
fn from_root(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let (keep, skip) = match path.first()?.as_str() {
        "crate" => (0, 1),
        "self" => (module.len(), 1),
        "super" => (module.len().saturating_sub(ups), ups),
        _ => return None,
    };
    Some(module.iter().take(keep).chain(path.iter().skip(skip)).cloned().collect())
}

/// Sources that are taken from another place than their module's are in two rooms at once. Tests may share theirs.
fn elsewhere(source: &Source, piece: &Piece, mentions: &[Mention]) -> Option<Violation> {
    if piece.is_test {
        return None;
    }
    let is_include =
        |mention: &&Mention| mention.form == Form::Macro && mention.path.last().is_some_and(|name| name == "include");
    let include = mentions.iter().find(is_include).map(|mention| (mention.line, "`include!`"));
    let (line, what) = include.or_else(|| has_path(piece).then_some((piece.lines.0, "`#[path]`")))?;
    let what = format!("{what} takes sources from elsewhere");
    Some(source.violation(line, RULE, what, "let the file stand where its module's name says"))
}

/// Whether one of its attributes is `#[path = "…"]`.
fn has_path(piece: &Piece) -> bool {
    let is_path = |group: &Group| {
        let words: Vec<_> = group.stream().into_iter().take(2).map(|token| token.to_string()).collect();
        group.delimiter() == Delimiter::Bracket && words == ["path", "="]
    };
    piece.tokens.clone().into_iter().any(|token| matches!(&token, TokenTree::Group(group) if is_path(group)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrongs(file: &str, text: &str) -> Vec<(usize, String)> {
        check(&Source::snippet(file, text)).into_iter().map(|violation| (violation.line, violation.what)).collect()
    }

    #[test]
    fn a_room_may_use_itself_and_those_above() {
        for (file, text) in [
            ("engine/rules.rs", "use crate::{engine::Input, net::Mac, time::*}; use super::bindings; use self::a::b;"),
            ("engine/rules.rs", "pub(crate) fn f() { crate::net::Mac::ZERO; }"),
            ("cli/table.rs", "use crate::http; mod tests { use super::super::show; }"),
            ("time.rs", "#[cfg(test)] mod tests { use super::*; }"),
            ("lib.rs", "pub mod cli; pub use cli::Cli; use self::net as n;"),
            ("main.rs", "use detector::cli; mod crates {}"),
        ] {
            assert_eq!(wrongs(file, text), [], "{file}: {text}");
        }
    }

    #[test]
    fn a_room_may_not_use_those_below() {
        for text in [
            "use crate::netlink::Links;",
            "use crate::{net::Mac, netlink::{Links as L}};",
            "use super::super::netlink;",
            "fn f() { crate::netlink::links(); }",
            "fn f() -> impl Fn(crate::netlink::Links) {}",
            "fn f() { println!(\"{}\", crate::netlink::links()); }",
            "pub use crate::netlink::*;",
            "mod inner { use super::super::super::netlink; }",
            "#[cfg(test)] mod tests { use crate::netlink; }",
            "macro_rules! links { () => { $crate::netlink::links() } }",
        ] {
            let [(line, what)] = wrongs("engine/rules.rs", text).try_into().unwrap();
            assert!(line == 1 && what.ends_with("is in a room below this one"), "{text}: {what}");
        }
    }

    #[test]
    fn the_crate_has_no_second_name() {
        for text in [
            "use crate as c;",
            "use crate::{self as c};",
            "use crate::*;",
            "use super::super as c;",
            "extern crate self as c;",
        ] {
            let [(_, what)] =
                wrongs("engine/rules.rs", text).try_into().unwrap_or_else(|all| panic!("{text}: {all:?}"));
            assert!(what.ends_with("is the whole crate"), "{text}: {what}");
        }
    }

    #[test]
    fn what_is_in_no_room_is_named() {
        assert_eq!(wrongs("engine/rules.rs", "\nuse crate::Thing;"), [(2, "`crate::Thing` is in no room".into())]);
        assert_eq!(wrongs("utils/mod.rs", ""), [(1, "`utils` is not among the rooms".into())]);
    }

    #[test]
    fn sources_stand_in_their_own_room() {
        let path = wrongs("net/mod.rs", "\n#[path = \"../netlink/links.rs\"]\nmod links;");
        assert_eq!(path, [(2, "`#[path]` takes sources from elsewhere".into())]);
        assert_eq!(wrongs("net/mod.rs", "#[cfg(test)]\n#[path = \"../../tests/runner.rs\"]\nmod runner;"), []);
        assert_eq!(wrongs("net/mod.rs", "include!(\"../netlink/links.rs\");").len(), 1);
    }
}

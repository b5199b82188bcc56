//! A source file, cut into the pieces that the rules look at.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use proc_macro2::TokenStream;
use quote::ToTokens as _;
use syn::{Attribute, Item, Meta, spanned::Spanned as _};

use super::{HOUSE, Violation};

/// A parsed file.
pub(super) struct Source {
    /// From the workspace.
    pub file: PathBuf,
    /// How many lines it has.
    pub lines: usize,
    /// All of it.
    pub tokens: TokenStream,
    /// Its items; those of modules inside it stand for themselves.
    pub pieces: Vec<Piece>,
}

/// An item that is not a module with a body, or the attributes of one that is.
pub(super) struct Piece {
    /// The module that it is in, from the crate's root.
    pub module: Vec<String>,
    /// Whether it is compiled for tests only.
    pub is_test: bool,
    pub tokens: TokenStream,
    /// The first and last line.
    pub lines: (usize, usize),
    /// The module whose file this declares, without the file's ending.
    declares: Option<PathBuf>,
}

impl Source {
    pub(super) fn parse(file: PathBuf, text: &str) -> Result<Self> {
        let parsed = syn::parse_file(text).with_context(|| format!("{} is no Rust", file.display()))?;
        let mut pieces = Vec::new();
        cut(&parsed.items, &module_of(&file), is_suite(&file), &mut pieces);
        Ok(Self { lines: text.lines().count(), tokens: parsed.into_token_stream(), file, pieces })
    }

    /// The files of modules that are declared for tests only, without their endings.
    pub(super) fn test_modules(&self) -> impl Iterator<Item = &Path> {
        self.pieces.iter().filter(|piece| piece.is_test).filter_map(|piece| piece.declares.as_deref())
    }

    /// Notes that the whole file is for tests, if it is of one of these modules or below it.
    pub(super) fn mark_if_within(&mut self, test_modules: &BTreeSet<PathBuf>) {
        if self.file.with_extension("").ancestors().any(|path| test_modules.contains(path)) {
            self.pieces.iter_mut().for_each(|piece| piece.is_test = true);
        }
    }

    /// The room of `detector` that the file is in. None for its root files and for other packages.
    pub(super) fn room(&self) -> Option<&str> {
        let path = self.file.strip_prefix(HOUSE).ok()?;
        let is_root = ["lib.rs", "main.rs"].iter().any(|root| path == Path::new(root));
        let room = path.iter().next()?.to_str()?;
        (!is_root).then(|| room.strip_suffix(".rs").unwrap_or(room))
    }

    /// What is compiled into the program.
    pub(super) fn code(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(|piece| !piece.is_test)
    }

    pub(super) fn violation(
        &self,
        line: usize,
        rule: &'static str,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) -> Violation {
        Violation { file: self.file.clone(), line, rule, what: what.into(), cure: cure.into() }
    }

    /// A file of a room, for tests.
    #[cfg(test)]
    pub(super) fn snippet(file: &str, text: &str) -> Self {
        Self::parse(Path::new(HOUSE).join(file), text).unwrap()
    }
}

fn cut(items: &[Item], module: &[String], is_test: bool, pieces: &mut Vec<Piece>) {
    for item in items {
        let is_test = is_test || attributes(item).iter().any(is_cfg_test);
        let (tokens, inside) = match item {
            Item::Mod(inner) => {
                let attributes = inner.attrs.iter().map(|attribute| attribute.to_token_stream()).collect();
                (attributes, inner.content.as_ref().map(|(_, items)| (inner.ident.to_string(), items)))
            }
            other => (other.to_token_stream(), None),
        };
        let lines = (item.span().start().line, item.span().end().line);
        let declares = declared(item, module);
        pieces.push(Piece { module: module.to_vec(), is_test, tokens, lines, declares });
        if let Some((name, items)) = inside {
            cut(items, &[module, &[name]].concat(), is_test, pieces);
        }
    }
}

/// `detector/src/net/mac.rs` is `net::mac`, `detector/src/net/mod.rs` is `net`.
fn module_of(file: &Path) -> Vec<String> {
    let path = file.strip_prefix(HOUSE).unwrap_or(file).with_extension("");
    let mut names: Vec<_> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| ["mod", "lib", "main"].contains(&name.as_str())) {
        names.pop();
    }
    names
}

/// The file of `mod name;` in a module of `detector`, without its ending.
fn declared(item: &Item, module: &[String]) -> Option<PathBuf> {
    let Item::Mod(inner) = item else { return None };
    let name = inner.ident.to_string();
    inner.content.is_none().then(|| Path::new(HOUSE).join(module.join("/")).join(name))
}

/// Whether it is in a suite: what cargo builds from a package's folder `tests`, and package `tests` but for the lab.
fn is_suite(file: &Path) -> bool {
    let is_of_lab = file.starts_with("tests/src");
    file.iter().take(2).any(|part| part == "tests") && !is_of_lab
}

/// Whether it is `#[cfg(test)]`.
fn is_cfg_test(attribute: &Attribute) -> bool {
    match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_module_that_its_path_says() {
        for (file, module) in [("net/mod.rs", "net"), ("net/mac.rs", "net::mac"), ("time.rs", "time"), ("lib.rs", "")] {
            assert_eq!(module_of(&Path::new(HOUSE).join(file)).join("::"), module, "{file}");
        }
    }

    #[test]
    fn pieces_know_their_module_and_whether_they_are_tests() {
        let source =
            Source::snippet("net/mac.rs", "fn a() {}\nmod b { fn c() {} }\n#[cfg(test)]\nmod tests {\n fn d() {}\n}");
        let seen: Vec<_> =
            source.pieces.iter().map(|piece| (piece.module.join("::"), piece.is_test, piece.lines)).collect();
        let piece = |module: &str, is_test, first, last| (module.to_owned(), is_test, (first, last));
        assert_eq!(
            seen,
            [
                piece("net::mac", false, 1, 1),
                piece("net::mac", false, 2, 2),
                piece("net::mac::b", false, 2, 2),
                piece("net::mac", true, 3, 6),
                piece("net::mac::tests", true, 5, 5),
            ]
        );
    }

    #[test]
    fn root_files_are_in_no_room() {
        let room = |file| Source::snippet(file, "").room().map(str::to_owned);
        assert_eq!(room("main.rs"), None);
        assert_eq!(room("engine/contest.rs").as_deref(), Some("engine"));
        assert_eq!(room("time.rs").as_deref(), Some("time"));
        assert_eq!(Source::parse("xtask/src/main.rs".into(), "").unwrap().room(), None);
    }

    #[test]
    fn suites_are_known_by_their_folder() {
        for (file, is_test) in [
            ("tests/suites/heal.rs", true),
            ("detector/tests/runner/mod.rs", true),
            ("tests/src/lib.rs", false),
            ("xtask/src/test.rs", false),
        ] {
            assert_eq!(is_suite(Path::new(file)), is_test, "{file}");
        }
    }

    #[test]
    fn files_of_tests_are_those_declared_so() {
        let parent =
            Source::snippet("engine/mod.rs", "mod rules;\n#[cfg(test)]\nmod scenarios;\n#[cfg(test)] mod inside {}");
        let test_modules: BTreeSet<_> = parent.test_modules().map(Path::to_owned).collect();
        assert_eq!(test_modules, [Path::new(HOUSE).join("engine/scenarios")].into());
        for (file, is_test) in [
            ("engine/scenarios.rs", true),
            ("engine/scenarios/faults.rs", true),
            ("engine/rules.rs", false),
            ("engine/scenarios2.rs", false),
        ] {
            let mut source = Source::snippet(file, "fn f() {}");
            source.mark_if_within(&test_modules);
            assert_eq!(source.code().count() == 0, is_test, "{file}");
        }
    }
}

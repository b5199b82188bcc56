//! Every path that a piece of source mentions, also inside macros and attributes.
//!
//! The tokens are read, not the syntax tree: what stands in `format!(…)` or in an attribute has no tree, and a rule that
//! sees less there would be a way around it.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

/// A path such as `std::fmt::Display`, where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mention {
    pub path: Vec<String>,
    pub form: Form,
    pub line: usize,
}

/// How a path is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In code: two names or more, or `crate`.
    Code,
    /// A leaf of a `use`, without a closing `self`.
    Import,
    /// The path before `::*` in a `use`.
    Glob,
    /// A macro that is called.
    Macro,
}

/// All paths in the tokens, groups included.
pub(super) fn mentions(tokens: TokenStream) -> Vec<Mention> {
    let mut found = Vec::new();
    scan(tokens, &mut found);
    found
}

fn scan(tokens: TokenStream, found: &mut Vec<Mention>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at = match token {
            TokenTree::Ident(word) if word == "use" => import(&tokens, at + 1, &[], found),
            TokenTree::Ident(word) if starts_path(&tokens, at) => code(&tokens, at, word, found),
            TokenTree::Group(group) => {
                if !is_visibility(&tokens, at, group) {
                    scan(group.stream(), found);
                }
                at + 1
            }
            _ => at + 1,
        };
    }
}

/// Reads a path in code from its first word on; returns where it ends.
fn code(tokens: &[TokenTree], mut at: usize, first: &Ident, found: &mut Vec<Mention>) -> usize {
    let mut path = vec![first.to_string()];
    at += 1;
    while let (true, Some(TokenTree::Ident(word))) = (is_colons(tokens, at), tokens.get(at + 2)) {
        path.push(word.to_string());
        at += 3;
    }
    let form = if is_punct(tokens, at, '!') { Form::Macro } else { Form::Code };
    if form == Form::Macro || path.len() > 1 || first == "crate" {
        found.push(Mention { path, form, line: first.span().start().line });
    }
    at
}

/// Reads a tree of `use` below `before`; returns where it ends.
fn import(tokens: &[TokenTree], mut at: usize, before: &[String], found: &mut Vec<Mention>) -> usize {
    let mut path = before.to_vec();
    loop {
        let mut push = |path: &[String], form, token: &TokenTree| {
            found.push(Mention { path: path.to_vec(), form, line: token.span().start().line });
        };
        match tokens.get(at) {
            Some(TokenTree::Ident(word)) => {
                if path.is_empty() || word != "self" {
                    path.push(word.to_string());
                }
                if !is_colons(tokens, at + 1) {
                    push(&path, Form::Import, &TokenTree::Ident(word.clone()));
                    return at + 1;
                }
                at += 3;
            }
            Some(token @ TokenTree::Punct(punct)) if punct.as_char() == '*' => {
                push(&path, Form::Glob, token);
                return at + 1;
            }
            Some(TokenTree::Group(group)) => {
                branches(group, &path, found);
                return at + 1;
            }
            Some(TokenTree::Punct(punct)) if punct.as_char() == ':' => at += 1,
            _ => return at,
        }
    }
}

/// The trees between the braces of a `use`.
fn branches(group: &Group, before: &[String], found: &mut Vec<Mention>) {
    let tokens: Vec<_> = group.stream().into_iter().collect();
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
    for branch in tokens.split(is_comma) {
        import(branch, 0, before, found);
    }
}

/// Not so a field or method (`a.b`), nor what goes on after generics (`<T>::b`). A range (`a..b`) is no field.
fn starts_path(tokens: &[TokenTree], at: usize) -> bool {
    let before = |distance: usize, c: char| at.checked_sub(distance).is_some_and(|at| is_punct(tokens, at, c));
    let is_member = before(1, '.') && !before(2, '.');
    let goes_on = before(1, ':') && before(2, ':') && before(3, '>');
    !is_member && !goes_on
}

/// The brackets of `pub(crate)` and `pub(in crate::net)` say who may look, not what is used.
fn is_visibility(tokens: &[TokenTree], at: usize, group: &Group) -> bool {
    let after_pub = at.checked_sub(1).and_then(|at| tokens.get(at)).is_some_and(|token| token.to_string() == "pub");
    let words: Vec<_> = group.stream().into_iter().map(|token| token.to_string()).collect();
    let restricts = match words.as_slice() {
        [only] => ["crate", "self", "super"].contains(&only.as_str()),
        [first, ..] => first == "in",
        [] => false,
    };
    after_pub && group.delimiter() == Delimiter::Parenthesis && restricts
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens, at, ':') && is_punct(tokens, at + 1, ':')
}

fn is_punct(tokens: &[TokenTree], at: usize, c: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(source: &str) -> Vec<(Form, String)> {
        mentions(source.parse().unwrap()).into_iter().map(|mention| (mention.form, mention.path.join("::"))).collect()
    }

    fn only(form: Form, paths: &[&str]) -> Vec<(Form, String)> {
        paths.iter().map(|path| (form, (*path).to_owned())).collect()
    }

    #[test]
    fn a_tree_of_imports_comes_apart() {
        let paths = ["std::fmt", "std::fmt::Write", "std::time::Instant", "tokio"];
        let source = "use std::{fmt::{self, Write as _}, time::Instant as Now}; use {::tokio};";
        assert_eq!(seen(source), only(Form::Import, &paths));
        assert_eq!(seen("pub use crate::net::*;"), only(Form::Glob, &["crate::net"]));
        assert_eq!(seen("use crate as c;"), only(Form::Import, &["crate"]));
    }

    #[test]
    fn code_macros_and_attributes_are_read_alike() {
        assert_eq!(seen("let t = std::time::Instant::now();"), only(Form::Code, &["std::time::Instant::now"]));
        assert_eq!(
            seen("f::<a::B>(<c::D as e::F>::g(), 0..h::i)"),
            only(Form::Code, &["a::B", "c::D", "e::F", "h::i"])
        );
        assert_eq!(seen("#[derive(Debug, serde::Serialize)] struct S;"), only(Form::Code, &["serde::Serialize"]));
        let inside = [(Form::Macro, "write".to_owned()), (Form::Code, "std::env::var".to_owned())];
        assert_eq!(seen("write!(f, \"{}\", std::env::var(name))"), inside);
        assert_eq!(
            seen("macro_rules! m { () => { use tokio::{task}; } }").pop(),
            Some((Form::Import, "tokio::task".into()))
        );
    }

    #[test]
    fn what_is_no_path_is_left_alone() {
        for source in [
            "pub(crate) struct S(pub(in crate::net) u8);",
            "self.time.now",
            "a.b::<C>()",
            "fn f<'a>() -> impl Fn() + use<'a> {}",
        ] {
            assert_eq!(seen(source), [], "{source}");
        }
    }
}

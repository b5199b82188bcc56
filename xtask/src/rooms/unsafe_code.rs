//! Rule "unsafe": only where the kernel is spoken to, so that a reader knows where to look.

use proc_macro2::{TokenStream, TokenTree};

use super::{Violation, source::Source};

const ALLOWED: [&str; 3] = ["detector/src/capture", "detector/src/netlink", "detector-ebpf"];

pub(super) fn check(source: &Source) -> Vec<Violation> {
    if ALLOWED.iter().any(|folder| source.file.starts_with(folder)) {
        return Vec::new();
    }
    let cure = format!("use a safe call, or do it in one of: {}", ALLOWED.join(", "));
    let violation = |line| source.violation(line, "unsafe", "`unsafe` outside of its places", &cure);
    lines(source.tokens.clone()).into_iter().map(violation).collect()
}

/// The lines with the keyword, in macros too.
fn lines(tokens: TokenStream) -> Vec<usize> {
    let lines_of = |token| match token {
        TokenTree::Ident(word) if word == "unsafe" => vec![word.span().start().line],
        TokenTree::Group(group) => lines(group.stream()),
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(lines_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_is_found_in_every_form() {
        for text in [
            "fn f() { unsafe { g() } }",
            "unsafe fn f() {}",
            "unsafe impl A for B {}",
            "m!(unsafe { g() });",
            "#[unsafe(no_mangle)] fn f() {}",
        ] {
            assert_eq!(check(&Source::snippet("agent/mod.rs", text)).len(), 1, "{text}");
            assert_eq!(check(&Source::snippet("netlink/setns.rs", text)), [], "{text}");
        }
    }

    #[test]
    fn words_about_unsafe_are_no_unsafe() {
        let text = "// unsafe\n/// unsafe\n#[expect(unsafe_code)]\nfn f() { g(\"unsafe\") }";
        assert_eq!(check(&Source::snippet("agent/mod.rs", text)), []);
    }
}

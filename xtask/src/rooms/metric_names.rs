//! Rule "metric names": they are a contract with dashboards and alerts, so they stand in one place.

use proc_macro2::{TokenStream, TokenTree};
use syn::Lit;

use super::{Violation, source::Source};

const PREFIXES: [&str; 2] = ["dupip_", "duplicate_ip_"];

pub(super) fn check(source: &Source) -> Vec<Violation> {
    if source.room().is_none_or(|room| room == "telemetry") {
        return Vec::new();
    }
    let violation = |(line, name): (usize, String)| {
        source.violation(
            line,
            "metric names",
            format!("`{name}` is a metric's name"),
            "emit an event of telemetry instead",
        )
    };
    source.code().flat_map(|piece| names(piece.tokens.clone())).map(violation).collect()
}

/// The texts that start as a metric does, with their lines.
fn names(tokens: TokenStream) -> Vec<(usize, String)> {
    let names_of = |token| match token {
        TokenTree::Group(group) => names(group.stream()),
        TokenTree::Literal(literal) => {
            let line = literal.span().start().line;
            match Lit::new(literal) {
                Lit::Str(text) => Vec::from_iter(is_name(&text.value()).then(|| (line, text.value()))),
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(names_of).collect()
}

fn is_name(text: &str) -> bool {
    PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_telemetry_only() {
        let text = "\nfn f() { g(\"dupip_ports\"); h!(r#\"duplicate_ip_total{bridge=\"rt0\"}\"#) }";
        let lines: Vec<_> = check(&Source::snippet("http/metrics.rs", text)).iter().map(|found| found.line).collect();
        assert_eq!(lines, [2, 2]);
        assert_eq!(check(&Source::snippet("telemetry/mod.rs", text)), []);
    }

    #[test]
    fn other_texts_comments_and_tests_are_free() {
        for text in [
            "/// Counts `dupip_ports`.\nfn f() { g(\"dupip\"); h(\"see dupip_ports\"); i(b\"dupip_\") }",
            "#[cfg(test)] mod tests { const NAME: &str = \"dupip_ports\"; }",
        ] {
            assert_eq!(check(&Source::snippet("http/metrics.rs", text)), [], "{text}");
        }
    }
}

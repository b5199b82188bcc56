//! Rule "metric names": they are a contract with dashboards and alerts, so they stand in one place.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::Lit;

use super::{Violation, source::Source};

const PREFIXES: [&str; 2] = ["dupip_", "duplicate_ip_"];

/// The metrics that there are, and whether each is a histogram.
#[derive(Debug)]
pub(crate) struct Metrics(BTreeMap<String, bool>);

impl Metrics {
    pub(super) fn registered_in(sources: &[Source]) -> Self {
        let mut metrics = BTreeMap::new();
        for piece in sources.iter().flat_map(Source::code) {
            for (_, name) in names(piece.tokens.clone()).into_iter().filter(|(_, text)| is_whole(text)) {
                metrics.entry(name).or_insert(false);
            }
            metrics.extend(histograms(piece.tokens.clone()).into_iter().map(|name| (name, true)));
        }
        Self(metrics)
    }

    /// Some metrics, for tests.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(metrics: [(&str, bool); N]) -> Self {
        Self(metrics.map(|(name, is_histogram)| (name.to_owned(), is_histogram)).into())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The metric that a series is of: a histogram's have endings of their own.
    pub(crate) fn of_series<'a>(&self, series: &'a str) -> Option<&'a str> {
        let metric = ["_bucket", "_sum", "_count"].iter().find_map(|ending| series.strip_suffix(ending));
        let of_histogram = metric.filter(|metric| self.0.get(*metric) == Some(&true));
        of_histogram.or_else(|| (self.0.get(series) == Some(&false)).then_some(series))
    }
}

/// The first text in the brackets after each word `histogram`.
fn histograms(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        match before {
            Some(TokenTree::Ident(word)) if word == "histogram" => {
                found.extend(names(group.stream()).into_iter().map(|(_, name)| name).next());
            }
            _ => found.extend(histograms(group.stream())),
        }
    }
    found
}

/// Whether a text is a name and nothing more.
fn is_whole(text: &str) -> bool {
    text.chars().all(|sign| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '_')
}

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
    fn metrics_are_what_is_registered() {
        let text =
            "const D: &str = \"dupip_degraded\"; fn f() -> R { g(S { a: counter(at, \"dupip_a\", \"dupip_a b\")?,
            h: histogram(at, \"dupip_h_seconds\", \"x\")? }) }
            #[cfg(test)] mod tests { const T: &str = \"dupip_test\"; }";
        let metrics = Metrics::registered_in(&[Source::snippet("telemetry/metrics.rs", text)]);
        assert_eq!(metrics.names().collect::<Vec<_>>(), ["dupip_a", "dupip_degraded", "dupip_h_seconds"]);
        assert_eq!(metrics.of_series("dupip_h_seconds_bucket"), Some("dupip_h_seconds"));
        assert_eq!(metrics.of_series("dupip_a"), Some("dupip_a"));
        assert_eq!(metrics.of_series("dupip_h_seconds").or(metrics.of_series("dupip_a_sum")), None);
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

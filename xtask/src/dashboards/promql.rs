//! Which metrics an expression of PromQL names. Prometheus itself tells whether it is one.

use std::collections::BTreeSet;

/// Words that are no metric where one could stand.
const KEYWORDS: [&str; 8] = ["and", "or", "unless", "bool", "offset", "inf", "nan", "atan2"];

/// Words before a list of labels.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The names of metrics, without those of functions, labels and what stands in braces, brackets or quotes.
pub(super) fn metrics(expression: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|sign: char| sign.is_alphanumeric() || "_:\"'{[$".contains(sign)) {
        rest = rest.get(start..).unwrap_or_default();
        let (word, after) = take(rest);
        let (labels, after) = labels(word, after);
        if is_name(word) && !labels && !is_called(after) && !KEYWORDS.contains(&word) {
            found.insert(word);
        }
        rest = after;
    }
    found
}

/// The names of alerts that an expression is about.
pub(super) fn alerts(expression: &str) -> impl Iterator<Item = &str> {
    expression.split("alertname=\"").skip(1).filter_map(|rest| rest.split('"').next())
}

/// The words of a text that could be names.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|sign: char| !sign.is_alphanumeric() && !"_:".contains(sign));
    words.map(|word| word.trim_end_matches(':')).filter(|word| !word.is_empty())
}

/// What begins here: a word, or all of a text, of braces or of brackets.
fn take(rest: &str) -> (&str, &str) {
    let first = rest.chars().next().unwrap_or_default();
    let end = match first {
        '{' => end_of_braces(rest),
        '[' => rest.find(']').map(|at| at + 1),
        '"' | '\'' => rest.get(1..).and_then(|inside| inside.find(first)).map(|at| at + 2),
        _ => rest.find(|sign: char| !sign.is_alphanumeric() && !"_:$".contains(sign)),
    };
    rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or((rest, ""))
}

/// Braces may stand in quotes within braces.
fn end_of_braces(rest: &str) -> Option<usize> {
    let mut is_quoted = false;
    let end = |(at, sign): (usize, char)| {
        is_quoted ^= sign == '"';
        (sign == '}' && !is_quoted).then_some(at + 1)
    };
    rest.char_indices().find_map(end)
}

/// Whether a list of labels follows a word, and what comes after it.
fn labels<'a>(word: &str, after: &'a str) -> (bool, &'a str) {
    if !BEFORE_LABELS.contains(&word) {
        return (false, after);
    }
    let list = after.trim_start().strip_prefix('(').and_then(|list| list.split_once(')'));
    (true, list.map_or(after, |(_, rest)| rest))
}

/// Whether what comes after a word makes it a function: `(`, or the labels by which an aggregation adds up.
fn is_called(after: &str) -> bool {
    let after = after.trim_start();
    let next = after.split(|sign: char| !sign.is_alphanumeric()).next().unwrap_or_default();
    after.starts_with('(') || ["by", "without"].contains(&next)
}

fn is_name(word: &str) -> bool {
    word.starts_with(|sign: char| sign.is_alphabetic() || sign == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metrics_are_named() {
        for (expression, names) in [
            ("up", vec!["up"]),
            ("sum by (le, bridge) (rate(a_b{c=\"d}\", e=~\"$f\"}[$__rate_interval])) > 0", vec!["a_b"]),
            ("histogram_quantile(0.5, sum(increase(x_bucket[5m])) by (le))", vec!["x_bucket"]),
            ("a:b:sum offset 1h or vector(0) unless on (job) c", vec!["a:b:sum", "c"]),
            ("label_replace(m, \"to\", 'x', \"from\", \"y\") / 3 * 1e3", vec!["m"]),
            ("a * on(i) group_left(v) b + bool c == inf", vec!["a", "b", "c"]),
            ("1 + 2", vec![]),
            ("{", vec![]),
        ] {
            assert_eq!(metrics(expression).into_iter().collect::<Vec<_>>(), names, "{expression}");
        }
    }

    #[test]
    fn alerts_are_those_that_are_named_exactly() {
        let expression = "ALERTS{alertname=\"A\",x=\"y\"} or ALERTS{alertname=~\"B.*\"}";
        assert_eq!(alerts(expression).collect::<Vec<_>>(), ["A"]);
    }
}

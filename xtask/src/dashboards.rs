//! What keeps dashboards and alert rules true to the code: they use only metrics that there are, and every metric is used.

mod grafana;
mod promql;

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::rooms::{self, Metrics};

/// Metrics that are on no dashboard and in no rule, and why.
const NOT_SHOWN: [(&str, &str); 0] = [];

/// What Prometheus itself makes of targets and alerts.
const OF_PROMETHEUS: [&str; 3] = ["up", "ALERTS", "ALERTS_FOR_STATE"];

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    file: PathBuf,
    /// The panel or variable, if it is about one.
    place: String,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, what } = self;
        write!(f, "{}: ", file.display())?;
        if !place.is_empty() {
            write!(f, "`{place}`: ")?;
        }
        write!(f, "{what} [dashboards]")
    }
}

/// What rules and dashboards use, and which names they may use.
struct Uses<'a> {
    metrics: &'a Metrics,
    /// Names that recording rules make.
    recorded: BTreeSet<String>,
    alerts: BTreeSet<String>,
    seen: BTreeSet<String>,
}

/// Everything in the folder `dashboards` that is not as it should be.
///
/// # Errors
/// A file cannot be read, or a dashboard is no JSON.
pub(crate) fn check(workspace: &Path) -> Result<Vec<Fault>> {
    let metrics = rooms::metrics(workspace)?;
    let rules = texts(workspace, "dashboards/prometheus", "yml")?;
    let mut uses = Uses::new(&metrics, &rules);
    let mut faults: Vec<_> = rules.iter().flat_map(|(file, text)| uses.check_rules(file, text)).collect();
    let mut uids = BTreeSet::new();
    for (file, text) in texts(workspace, "dashboards/grafana", "json")? {
        let parsed: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
        let found = grafana::check(&parsed, &mut uids, &mut |expression| uses.check_expression(expression));
        faults.extend(found.into_iter().map(|(place, what)| Fault { file: file.clone(), place, what }));
    }
    faults.extend(uses.orphans(&NOT_SHOWN));
    faults.sort();
    Ok(faults)
}

/// The files of a folder with this ending, by their paths from the workspace.
fn texts(workspace: &Path, folder: &str, ending: &str) -> Result<Vec<(PathBuf, String)>> {
    let entries = fs::read_dir(workspace.join(folder)).with_context(|| format!("there is no {folder}"))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|of| of == ending) {
            found.push((path.strip_prefix(workspace)?.to_owned(), fs::read_to_string(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

impl<'a> Uses<'a> {
    fn new(metrics: &'a Metrics, rules: &[(PathBuf, String)]) -> Self {
        let named = |key: &str| {
            let lines = rules.iter().flat_map(|(_, text)| text.lines());
            lines.filter_map(|line| line.trim().strip_prefix(key)).map(|name| name.trim().to_owned()).collect()
        };
        Self { metrics, recorded: named("- record:"), alerts: named("- alert:"), seen: BTreeSet::new() }
    }

    /// What a file of rules names that is not there. Texts count too: they tell people what to look at.
    fn check_rules(&mut self, file: &Path, text: &str) -> Vec<Fault> {
        let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let names = code.flat_map(promql::words).filter(|word| is_ours(word));
        let fault = |what| Fault { file: file.to_owned(), place: String::new(), what };
        names.filter_map(|name| self.use_name(name)).map(fault).collect()
    }

    /// What an expression names that is not there.
    fn check_expression(&mut self, expression: &str) -> Vec<String> {
        let alerts = promql::alerts(expression).filter(|name| !self.alerts.contains(*name));
        let mut faults: Vec<_> = alerts.map(|name| format!("there is no alert {name}")).collect();
        let names = promql::metrics(expression);
        if names.is_empty() {
            faults.push(format!("`{expression}` names no metric"));
        }
        faults.extend(names.into_iter().filter_map(|name| self.use_name(name)));
        faults
    }

    /// Notes that a name is used; says so if there is no such thing.
    fn use_name(&mut self, name: &str) -> Option<String> {
        if self.recorded.contains(name) || OF_PROMETHEUS.contains(&name) {
            return None;
        }
        match self.metrics.of_series(name) {
            Some(metric) => {
                self.seen.insert(metric.to_owned());
                None
            }
            None => Some(format!("there is no metric {name}")),
        }
    }

    /// Metrics that nobody sees, and exceptions that are none.
    fn orphans(&self, not_shown: &[(&str, &str)]) -> Vec<Fault> {
        let excepted: BTreeSet<_> = not_shown.iter().map(|(name, _)| *name).collect();
        let orphans = self.metrics.names().filter(|name| !self.seen.contains(*name) && !excepted.contains(name));
        let stale = excepted.iter().filter(|name| self.seen.contains(**name) || !self.metrics.has(name));
        let orphan =
            |name: &str| format!("{name} is on no dashboard and in no rule; show it, or say why not in NOT_SHOWN");
        let stale = stale.map(|name| format!("{name} needs no exception in NOT_SHOWN"));
        let fault = |what| Fault { file: "dashboards".into(), place: String::new(), what };
        orphans.map(orphan).chain(stale).map(fault).collect()
    }
}

/// Whether a word of a rule is a metric's name of ours, or of what a recording rule makes of one.
fn is_ours(word: &str) -> bool {
    ["dupip_", "duplicate_ip_"].iter().any(|prefix| word.starts_with(prefix))
        || (word.contains(':') && word.starts_with(char::is_alphabetic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

    fn metrics() -> Metrics {
        Metrics::of([("dupip_ports", false), ("dupip_heal_seconds", true)])
    }

    fn rules(text: &str) -> Vec<(PathBuf, String)> {
        vec![("x.rules.yml".into(), text.to_owned())]
    }

    #[test]
    fn what_is_there_is_as_it_should_be() {
        assert_eq!(check(shell::workspace()).unwrap(), []);
    }

    #[test]
    fn a_name_that_is_not_there_is_found() {
        let metrics = metrics();
        let rules = rules("- record: a:dupip_ports:sum\n  expr: sum(dupip_port)\n# dupip_gone\n- alert: A\n");
        let mut uses = Uses::new(&metrics, &rules);
        let faults = uses.check_rules(&rules[0].0, &rules[0].1);
        assert_eq!(faults.iter().map(|of| of.what.as_str()).collect::<Vec<_>>(), ["there is no metric dupip_port"]);
        assert_eq!(uses.check_expression("a:dupip_ports:sum > 0 and up"), [""; 0]);
        assert_eq!(uses.check_expression("rate(dupip_heal_seconds_bucket[5m])"), [""; 0]);
        assert_eq!(uses.check_expression("dupip_heal_seconds"), ["there is no metric dupip_heal_seconds"]);
        assert_eq!(uses.check_expression("ALERTS{alertname=\"B\"}"), ["there is no alert B"]);
        assert_eq!(uses.check_expression("vector(0)"), ["`vector(0)` names no metric"]);
    }

    #[test]
    fn a_metric_that_nobody_sees_is_found() {
        let metrics = metrics();
        let mut uses = Uses::new(&metrics, &[]);
        let whats = |faults: Vec<Fault>| faults.into_iter().map(|of| of.what).collect::<Vec<_>>();
        assert_eq!(uses.check_expression("dupip_heal_seconds_count"), [""; 0]);
        let orphans = whats(uses.orphans(&[]));
        assert!(matches!(&orphans[..], [only] if only.starts_with("dupip_ports is on no dashboard")), "{orphans:?}");
        assert_eq!(uses.orphans(&[("dupip_ports", "a reason")]), []);
        assert_eq!(uses.check_expression("dupip_ports"), [""; 0]);
        let stale = whats(uses.orphans(&[("dupip_ports", "a reason"), ("dupip_gone", "a reason")]));
        assert_eq!(stale.len(), 2, "{stale:?}");
    }
}

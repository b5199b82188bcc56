//! The panels of the dashboards: what their queries come to.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::Prometheus;
use serde_json::{Map, Value};

use super::text_of;
use crate::agent::text;

const DASHBOARDS: [&str; 2] = ["dupip.json", "dupip-fleet.json"];

/// What a panel's query ends with that says 0 where there is nothing to say.
const ELSE_ZERO: &str = " or vector(0)";
/// Panels that have nothing else to say of a runner on which all is well again.
const NOTHING_WRONG: [&str; 4] = [
    "dupip.json: Open since",
    "dupip-fleet.json: Open since",
    "dupip-fleet.json: Agents down",
    "dupip-fleet.json: Not ready",
];
/// Panels that are empty then, since they name who it is; Grafana shows what the panel says for that.
const EMPTY: [&str; 2] = ["dupip-fleet.json: Open, by runner", "dupip-fleet.json: Losses"];
/// Aggregations that come to one number without labels.
const ONE_NUMBER: [&str; 4] = ["count(", "max(", "min(", "sum("];

/// One query of a panel.
struct Query {
    panel: String,
    expression: String,
}

/// Every query of a dashboard, as Grafana would send it.
fn queries(dashboard: &str) -> Result<Vec<Query>> {
    let parsed: Value = serde_json::from_str(&text_of(&format!("grafana/{dashboard}"))?)?;
    let panels = parsed.get("panels").and_then(Value::as_array).context("no panels")?;
    let of_panel = |panel: &Value| {
        let title = format!("{dashboard}: {}", text(panel, "title"));
        let targets = panel.get("targets").and_then(Value::as_array).cloned().unwrap_or_default();
        targets.into_iter().map(move |target| Query { panel: title.clone(), expression: sent(text(&target, "expr")) })
    };
    Ok(panels.iter().flat_map(of_panel).collect())
}

/// With the variables that a person would have chosen, or Grafana itself.
fn sent(expression: &str) -> String {
    let variables = [("$__rate_interval", "1m"), ("$__range", "1h"), ("$instance", "runner-1"), ("$bridge", ".*")];
    variables.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// Whether a query comes to at least one number.
fn shows(prometheus: &Prometheus, expression: &str) -> Result<bool> {
    ensure!(!expression.contains('$'), "a variable of `{expression}` is not known");
    let series = prometheus.query(expression)?;
    let number = |series: &Value| series.pointer("/value/1")?.as_str()?.parse::<f64>().ok();
    Ok(series.iter().filter_map(number).any(|number| !number.is_nan()))
}

/// That no panel of either dashboard is empty after an incident, nor shows the 0 that stands for nothing if there should be
/// more. What is counted is there with the next scrape.
pub(super) fn assert_all_show_something(prometheus: &mut Prometheus, deadline: Duration) -> Result<()> {
    let mut count = 0;
    for Query { panel, expression } in DASHBOARDS.into_iter().map(queries).collect::<Result<Vec<_>>>()?.iter().flatten()
    {
        assert_only_one_number_may_be_zero(panel, expression);
        assert_all_or_none_have_labels(prometheus, panel, expression)?;
        if EMPTY.contains(&panel.as_str()) {
            continue;
        }
        let is_zero = NOTHING_WRONG.contains(&panel.as_str());
        let expression = if is_zero { expression } else { expression.trim_end_matches(ELSE_ZERO) };
        let what = format!("panel `{panel}` to show something: {expression}");
        prometheus.wait(deadline, &what, |at| Ok(shows(at, expression)?.then_some(())))?;
        count += 1;
    }
    assert!(count > 50, "only {count} queries were found");
    Ok(())
}

/// A 0 that stands for nothing is one series more beside those that have names.
fn assert_only_one_number_may_be_zero(panel: &str, expression: &str) {
    let Some(counted) = expression.strip_suffix(ELSE_ZERO) else { return };
    let is_one = ONE_NUMBER.iter().any(|aggregation| counted.starts_with(aggregation)) && counted.ends_with(')');
    assert!(is_one, "{panel} keeps labels: say what it shows for nothing in `noValue`: {expression}");
}

fn assert_all_or_none_have_labels(prometheus: &Prometheus, panel: &str, expression: &str) -> Result<()> {
    let series = prometheus.query(expression)?;
    let is_bare = |of: &&Value| of.get("metric").and_then(Value::as_object).is_none_or(Map::is_empty);
    let bare = series.iter().filter(is_bare).count();
    assert!(bare == 0 || bare == series.len(), "{panel} shows a series that is nobody's: {expression}");
    Ok(())
}

/// That both dashboards tell of a duplicate that is open, and since when.
pub(super) fn assert_say_that_it_is_open(prometheus: &Prometheus) -> Result<()> {
    for dashboard in DASHBOARDS {
        let all = queries(dashboard)?;
        for Query { panel, expression } in &all {
            assert_all_or_none_have_labels(prometheus, panel, expression)?;
        }
        let by_runner = (dashboard == "dupip-fleet.json").then_some(("Open, by runner", 1.0));
        for (panel, at_least) in
            [("Open duplicates", 1.0), ("Open since", 3.0), ("Found", 1.0)].into_iter().chain(by_runner)
        {
            let title = format!("{dashboard}: {panel}");
            let query = all.iter().find(|query| query.panel == title).context(title.clone())?;
            let series = prometheus.query(&query.expression)?;
            let value = series.first().and_then(|of| of.pointer("/value/1")?.as_str()?.parse::<f64>().ok());
            assert!(value.is_some_and(|value| value >= at_least), "{title}: {series:?}");
        }
    }
    Ok(())
}

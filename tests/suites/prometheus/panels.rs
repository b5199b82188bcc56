//! The panels of the dashboards: what their queries come to.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::Prometheus;
use serde_json::Value;

use super::text_of;
use crate::agent::text;

const DASHBOARDS: [&str; 2] = ["dupip.json", "dupip-fleet.json"];

/// What a panel's query ends with that says 0 where there is nothing to say.
const ELSE_ZERO: &str = " or vector(0)";
/// Panels that have nothing else to say of a runner on which all is well again.
const NOTHING_WRONG: [&str; 6] = [
    "dupip.json: Open since",
    "dupip-fleet.json: Open since",
    "dupip-fleet.json: Agents down",
    "dupip-fleet.json: Not ready",
    "dupip-fleet.json: Open, by runner",
    "dupip-fleet.json: Losses",
];

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
    let variables =
        [("$__rate_interval", "1m"), ("$__range", "1h"), ("$instance", "127.0.0.1:9477"), ("$bridge", ".*")];
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
        let is_zero = NOTHING_WRONG.contains(&panel.as_str());
        let expression = if is_zero { expression } else { expression.trim_end_matches(ELSE_ZERO) };
        let what = format!("panel `{panel}` to show something: {expression}");
        prometheus.wait(deadline, &what, |at| Ok(shows(at, expression)?.then_some(())))?;
        count += 1;
    }
    assert!(count > 50, "only {count} queries were found");
    Ok(())
}

/// That both dashboards tell of a duplicate that is open, and since when.
pub(super) fn assert_say_that_it_is_open(prometheus: &Prometheus) -> Result<()> {
    for dashboard in DASHBOARDS {
        for (panel, at_least) in [("Open duplicates", 1.0), ("Open since", 3.0), ("Found", 1.0)] {
            let title = format!("{dashboard}: {panel}");
            let all = queries(dashboard)?;
            let query = all.iter().find(|query| query.panel == title).context(title.clone())?;
            let series = prometheus.query(&query.expression)?;
            let value = series.first().and_then(|of| of.pointer("/value/1")?.as_str()?.parse::<f64>().ok());
            assert!(value.is_some_and(|value| value >= at_least), "{title}: {series:?}");
        }
    }
    Ok(())
}

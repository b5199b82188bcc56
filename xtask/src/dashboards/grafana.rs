//! What a dashboard must be so that Grafana loads it with any data source and people can read it.

use std::collections::BTreeSet;

use serde_json::Value;

/// The version of the dashboard's own form: that of Grafana 10.3 and newer, which reads older ones too.
const SCHEMA: u64 = 39;
/// How many columns a dashboard has.
const COLUMNS: u64 = 24;
/// Kinds of panels that show data. All come with Grafana.
const DATA: [&str; 6] = ["bargauge", "heatmap", "stat", "state-timeline", "table", "timeseries"];

/// The place (a panel's title, or nothing) and what is not as it should be.
type Found = (String, String);

/// Where a panel is, in cells.
#[derive(Clone, Copy)]
struct Rectangle {
    x: u64,
    y: u64,
    w: u64,
    h: u64,
}

/// Everything that is not as it should be. `check` says what is wrong with an expression.
pub(super) fn check(
    dashboard: &Value,
    uids: &mut BTreeSet<String>,
    check: &mut dyn FnMut(&str) -> Vec<String>,
) -> Vec<Found> {
    let mut found: Vec<Found> = frame(dashboard, uids).into_iter().map(|what| (String::new(), what)).collect();
    let source = data_source(dashboard);
    if source.is_none() {
        found.push((String::new(), "has no variable of type `datasource` for Prometheus".to_owned()));
    }
    let source = source.unwrap_or_default();
    for panel in list(dashboard, "/panels").chain(list(dashboard, "/templating/list").filter(|of| is_query(of))) {
        let name = [text(panel, "/title"), text(panel, "/name")].concat();
        let faults = panel_faults(panel, &source, check);
        found.extend(faults.into_iter().map(|what| (name.clone(), what)));
    }
    found.extend(layout(dashboard));
    found
}

fn frame(dashboard: &Value, uids: &mut BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut demand = |holds: bool, what: &str| faults.extend((!holds).then(|| what.to_owned()));
    let uid = text(dashboard, "/uid");
    demand(dashboard.get("schemaVersion") == Some(&SCHEMA.into()), &format!("schemaVersion is not {SCHEMA}"));
    demand(dashboard.get("id").is_none_or(Value::is_null), "has the id of one Grafana; make it null");
    demand(!uid.is_empty() && uid.len() <= 40, "has no uid of up to 40 signs");
    demand(uids.insert(uid.to_owned()), "has the uid of another dashboard");
    demand(!text(dashboard, "/title").is_empty(), "has no title");
    demand(!text(dashboard, "/description").is_empty(), "has no description");
    faults
}

/// How panels must name their data source.
fn data_source(dashboard: &Value) -> Option<String> {
    let is_it = |of: &&Value| text(of, "/type") == "datasource" && text(of, "/query") == "prometheus";
    let variable = list(dashboard, "/templating/list").find(is_it)?;
    Some(format!("${{{}}}", text(variable, "/name")))
}

fn is_query(variable: &Value) -> bool {
    text(variable, "/type") == "query"
}

fn panel_faults(panel: &Value, source: &str, check: &mut dyn FnMut(&str) -> Vec<String>) -> Vec<String> {
    match text(panel, "/type") {
        "row" => missing(panel, &["/title"]),
        "text" => missing(panel, &["/title", "/description", "/options/content"]),
        "query" => [other_source(panel, source), check(of_variable(text(panel, "/query/query")))].concat(),
        kind if DATA.contains(&kind) => data_faults(panel, source, check),
        other => vec![format!("is of a kind that is not known here: {other}")],
    }
}

fn data_faults(panel: &Value, source: &str, check: &mut dyn FnMut(&str) -> Vec<String>) -> Vec<String> {
    let mut faults = missing(panel, &["/title", "/description", "/fieldConfig/defaults/unit"]);
    faults.extend(other_source(panel, source));
    let targets: Vec<_> = list(panel, "/targets").collect();
    let names: BTreeSet<_> = targets.iter().map(|target| text(target, "/refId")).collect();
    if targets.is_empty() || names.len() < targets.len() || names.contains("") {
        faults.push("has no queries, or two of one refId".to_owned());
    }
    for target in targets {
        faults.extend(other_source(target, source));
        faults.extend(check(text(target, "/expr")));
    }
    faults
}

/// `label_values(METRIC{…}, label)` is Grafana's, not Prometheus'.
fn of_variable(query: &str) -> &str {
    let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    inside.and_then(|inside| inside.rsplit_once(',')).map_or(query, |(metric, _)| metric)
}

fn missing(panel: &Value, paths: &[&str]) -> Vec<String> {
    paths.iter().filter(|path| text(panel, path).is_empty()).map(|path| format!("has no {path}")).collect()
}

fn other_source(of: &Value, source: &str) -> Vec<String> {
    let is_it = text(of, "/datasource/uid") == source && text(of, "/datasource/type") == "prometheus";
    Vec::from_iter((!is_it).then(|| format!("has a data source of its own; name the variable {source}")))
}

/// Panels that lie on each other or beyond the edge, and two of one id.
fn layout(dashboard: &Value) -> Vec<Found> {
    let mut placed: Vec<(&str, Rectangle)> = Vec::new();
    let (mut ids, mut found) = (BTreeSet::new(), Vec::new());
    for panel in list(dashboard, "/panels") {
        let title = text(panel, "/title");
        let mut fault = |what: String| found.push((title.to_owned(), what));
        if !panel.get("id").and_then(Value::as_u64).is_some_and(|id| ids.insert(id)) {
            fault("has no id of its own".to_owned());
        }
        let Some(place) = Rectangle::of(panel) else {
            fault("has no place, or one beyond the edge".to_owned());
            continue;
        };
        let under = placed.iter().filter(|(_, other)| place.overlaps(other));
        under.for_each(|(other, _)| fault(format!("lies on `{other}`")));
        placed.push((title, place));
    }
    found
}

impl Rectangle {
    fn of(panel: &Value) -> Option<Self> {
        let number = |name: &str| panel.pointer(&format!("/gridPos/{name}"))?.as_u64();
        let place = Self { x: number("x")?, y: number("y")?, w: number("w")?, h: number("h")? };
        (place.w > 0 && place.h > 0 && place.x.checked_add(place.w)? <= COLUMNS).then_some(place)
    }

    const fn overlaps(&self, other: &Self) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }
}

fn text<'a>(of: &'a Value, path: &str) -> &'a str {
    of.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(of: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dashboard() -> Value {
        let source = json!({ "type": "prometheus", "uid": "${datasource}" });
        json!({
            "uid": "x", "title": "X", "description": "An x.", "schemaVersion": SCHEMA,
            "templating": { "list": [
                { "name": "datasource", "type": "datasource", "query": "prometheus" },
                { "name": "instance", "type": "query", "datasource": source, "query": { "query": "label_values(up, instance)" } },
            ] },
            "panels": [
                { "id": 1, "type": "row", "title": "Row", "gridPos": { "x": 0, "y": 0, "w": 24, "h": 1 } },
                {
                    "id": 2, "type": "stat", "title": "Up", "description": "Whether.", "datasource": source,
                    "fieldConfig": { "defaults": { "unit": "none" } }, "gridPos": { "x": 0, "y": 1, "w": 4, "h": 4 },
                    "targets": [{ "refId": "A", "expr": "up", "datasource": source }],
                },
            ],
        })
    }

    fn faults(dashboard: &Value) -> Vec<String> {
        let mut judge = |of: &str| Vec::from_iter((of != "up").then(|| format!("wrong: {of}")));
        check(dashboard, &mut BTreeSet::new(), &mut judge).into_iter().map(|(_, what)| what).collect()
    }

    /// The faults of a dashboard that is good but for one value.
    fn with(path: &str, value: Value) -> Vec<String> {
        let mut dashboard = dashboard();
        *dashboard.pointer_mut(path).unwrap() = value;
        faults(&dashboard)
    }

    #[test]
    fn a_good_one_is_let_through() {
        assert_eq!(faults(&dashboard()), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (path, value, what) in [
            ("/schemaVersion", json!(16), "schemaVersion is not 39"),
            ("/uid", json!(""), "has no uid of up to 40 signs"),
            ("/description", json!(null), "has no description"),
            ("/panels/1/title", json!(""), "has no /title"),
            ("/panels/1/description", json!(""), "has no /description"),
            ("/panels/1/fieldConfig", json!({}), "has no /fieldConfig/defaults/unit"),
            ("/panels/1/type", json!("graph"), "is of a kind that is not known here: graph"),
            ("/panels/1/targets", json!([]), "has no queries, or two of one refId"),
            ("/panels/1/targets/0/expr", json!("down"), "wrong: down"),
            ("/templating/list/1/query/query", json!("label_values(down, x)"), "wrong: down"),
            ("/panels/1/id", json!(1), "has no id of its own"),
            ("/panels/1/gridPos/x", json!(21), "has no place, or one beyond the edge"),
            ("/panels/1/gridPos/y", json!(0), "lies on `Row`"),
        ] {
            assert_eq!(with(path, value), [what], "{path}");
        }
        for path in ["/panels/1/datasource", "/panels/1/targets/0/datasource/uid", "/templating/list/1/datasource"] {
            let found = with(path, json!("mine"));
            assert_eq!(found, ["has a data source of its own; name the variable ${datasource}"], "{path}");
        }
        let found = with("/templating/list/0/type", json!("textbox"));
        assert!(found.contains(&"has no variable of type `datasource` for Prometheus".to_owned()), "{found:?}");
    }

    #[test]
    fn two_dashboards_have_two_uids() {
        let mut uids = BTreeSet::from(["x".to_owned()]);
        let found = check(&dashboard(), &mut uids, &mut |_| Vec::new());
        assert_eq!(found, [(String::new(), "has the uid of another dashboard".to_owned())]);
    }
}

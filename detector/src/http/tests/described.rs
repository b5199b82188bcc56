//! Whether the description of the API is one, and is of what there is.

use std::collections::BTreeSet;

use axum::Router;
use oas3::{Spec, spec::Operation};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{mpsc, watch},
};

use super::{Served, body, get, say, status};
use crate::{
    agent::Handle,
    http::{
        document,
        routes::{Common, changing},
    },
};

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

fn spec() -> Spec {
    oas3::from_json(document().to_json().unwrap()).unwrap()
}

/// What the router itself says that it routes.
fn routed(agent: Handle) -> BTreeSet<String> {
    let router: Router = changing(Common::new(agent, mpsc::channel(1).0, watch::channel(()).1));
    let shown = format!("{router:?}");
    let paths = shown.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/'));
    // The fallback is routed, too, and the page is for people.
    let of_page = |path: &str| path == "/" || path.starts_with("/assets/");
    paths.filter(|path| !path.contains("__private__") && !of_page(path)).map(str::to_owned).collect()
}

/// What is answered may have no end.
async fn status_alone(served: &Served, request: &str) -> String {
    let mut stream = UnixStream::connect(served.socket()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut line = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut line).await.unwrap();
    status(&String::from_utf8_lossy(&line)).to_owned()
}

#[tokio::test]
async fn every_route_is_described_and_everything_described_is_routed() {
    let served = Served::start().await;
    let described: BTreeSet<String> = spec().paths.unwrap().keys().cloned().collect();
    assert!(described.contains("/api/v1/table"), "{described:?}");
    assert_eq!(routed(served.agent.handle.clone()), described);
    let operations: BTreeSet<(String, String)> =
        spec().operations().map(|(path, method, _)| (path, method.to_string())).collect();
    for path in described {
        for method in METHODS {
            let asked = path.replace("{number}", "1");
            let request = get(&asked).replacen("GET", method, 1);
            let refused = status_alone(&served, &request).await == "405";
            assert_eq!(!refused, operations.contains(&(path.clone(), method.to_owned())), "{method} {path}");
        }
    }
}

#[test]
fn the_description_is_openapi_3_1() {
    let spec = spec();
    assert_eq!(spec.validate_version().unwrap().minor, 1);
    assert_eq!((spec.info.title.as_str(), spec.info.version.as_str()), ("dupip", env!("CARGO_PKG_VERSION")));
    let mut names = BTreeSet::new();
    for (path, method, operation) in spec.operations() {
        let Operation { summary, operation_id, tags, .. } = operation;
        let at = format!("{method} {path}");
        assert!(summary.as_ref().is_some_and(|text| text.len() > 10), "{at} is not described");
        assert!(names.insert(operation_id.clone().unwrap()), "{at}: {operation_id:?} is another's name");
        assert_eq!(tags.len(), 1, "{at}");
        for parameter in operation.parameters(&spec).unwrap() {
            assert!(parameter.description.is_some_and(|text| text.len() > 5), "{at}: {}", parameter.name);
        }
        let responses = operation.responses(&spec);
        assert_eq!(responses.keys().map(String::as_str).collect::<BTreeSet<_>>(), ["200", "default"].into(), "{at}");
        let refusal = &responses["default"].content["application/problem+json"];
        assert!(refusal.schema(&spec).unwrap().is_some(), "{at}");
    }
}

/// A type that only its own name describes would be asked for in vain.
#[test]
fn everything_that_is_named_is_there_and_every_field_has_words() {
    let document: Value = serde_json::to_value(document()).unwrap();
    let mut named = BTreeSet::new();
    references(&document, &mut named);
    assert!(named.contains("#/components/schemas/Row"), "{named:?}");
    for name in &named {
        assert!(document.pointer(name.trim_start_matches('#')).is_some(), "{name} is not there");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(named.contains(&format!("#/components/schemas/{name}")), "nobody names {name}");
        let fields = schema["properties"].as_object();
        for (field, schema) in fields.into_iter().flatten() {
            // What may be null says it at its first kind.
            let words = [&schema["description"], &schema["oneOf"][0]["description"]];
            let is_told = words.iter().any(|words| words.as_str().is_some_and(|text| text.len() > 3));
            assert!(is_told, "{name}.{field}: {schema}");
        }
    }
}

fn references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            into.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| references(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, into)),
        _ => {}
    }
}

#[tokio::test]
async fn the_description_is_served() {
    let served = Served::start().await;
    let told: Value = serde_json::from_str(body(&served.over_tcp(&get("/api/v1/openapi.json")).await)).unwrap();
    assert_eq!(told, serde_json::to_value(document()).unwrap());
    let stream = UnixStream::connect(served.socket()).await.unwrap();
    assert_eq!(status(&say(stream, &get("/api/v1/openapi.json")).await), "200");
}

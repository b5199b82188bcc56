//! Each bad call and what it is told.

use serde_json::json;
use tokio::net::UnixStream;

use super::{Served, connect_as_stranger, get, post, problem, say, status};

/// A refusal with all of its words, or, if they end in `…`, with their beginning.
fn assert_refused(answer: &str, call: &str, want: (u16, &str)) {
    let (status, detail) = problem(answer);
    let fits = match want.1.strip_suffix('…') {
        Some(beginning) => detail.starts_with(beginning),
        None => detail == want.1,
    };
    assert!(status == want.0 && fits, "{call}: {status} {detail}");
    for header in ["x-content-type-options: nosniff", "cache-control: no-store", "x-frame-options: DENY"] {
        assert!(answer.contains(header), "{call}: no {header} in {answer}");
    }
    assert!(!answer.to_lowercase().contains("access-control"), "{call}: {answer}");
}

#[tokio::test]
async fn a_bad_question_is_told_what_is_wrong() {
    let served = Served::start().await;
    let stream = served.client().ask::<crate::http::api::Events>("/api/v1/events").await.unwrap().stream;
    let future = format!("/api/v1/events?after={stream}:999");
    for (path, want) in [
        ("/api/v2/table", (404, "there is no such resource")),
        ("/api/v1/incidents/x", (400, "Invalid URL: Cannot parse `x` to a `u64`")),
        ("/api/v1/incidents/9", (404, "there is no incident 9; the newest: 1")),
        (
            "/api/v1/table?address=10.8.64",
            (400, "Failed to deserialize query string: address: invalid IPv4 address syntax"),
        ),
        ("/api/v1/table?vlan=x", (400, "Failed to deserialize query string: vlan: invalid digit found in string")),
        ("/api/v1/table?bridge=a/b", (422, "`a/b` cannot be an interface's name…")),
        ("/api/v1/table?bridge=rt0&vlan=4095", (422, "4095 is not a VLAN…")),
        (
            "/api/v1/table?adress=10.8.64.2",
            (
                400,
                "Failed to deserialize query string: adress: unknown field `adress`, expected one of `bridge`, `vlan`, `address`",
            ),
        ),
        ("/api/v1/leases/history", (400, "Failed to deserialize query string: missing field `address`")),
        ("/api/v1/events?after=7", (400, "`7` is no cursor: one reads STREAM:NUMBER…")),
        (future.as_str(), (400, "cursor…")),
        ("/api/v1/events?limit=0", (400, "0 events cannot be given…")),
        ("/api/v1/events?wait=31", (400, "nobody waits for 31 s: at most 30…")),
        ("/api/v1/events?kind=odd", (400, "there is no kind of event `odd`; there are …")),
    ] {
        for answer in [served.over_tcp(&get(path)).await, served.over_unix(&get(path)).await] {
            assert_refused(&answer, path, want);
        }
    }
}

#[tokio::test]
async fn a_bad_change_is_told_what_is_wrong() {
    let served = Served::start().await;
    served.agent.become_ready();
    let long = format!(r#"{{"bridge": "rt0", "owner": "{}"}}"#, "x".repeat(20_000));
    for (body, want) in [
        ("", (400, "Failed to parse the request body as JSON: EOF while parsing…")),
        ("{", (400, "Failed to parse the request body as JSON: EOF while parsing…")),
        (
            r#"{"bridge": "rt0"}"#,
            (422, "Failed to deserialize the JSON body into the target type: missing field `owner`…"),
        ),
        (
            r#"{"bridge": "rt0", "owner": "a", "vlna": 3}"#,
            (
                422,
                "Failed to deserialize the JSON body into the target type: vlna: unknown field `vlna`, expected one of…",
            ),
        ),
        (
            r#"{"bridge": "rt0", "owner": "a", "vlan": 65536}"#,
            (422, "Failed to deserialize the JSON body into the target type: vlan: invalid value: integer `65536`…"),
        ),
        (r#"{"bridge": "a/b", "owner": "a"}"#, (422, "`a/b` cannot be an interface's name…")),
        (
            r#"{"bridge": "rt0", "owner": "a b"}"#,
            (422, "an owner's name is 1 to 512 bytes without white space or control characters"),
        ),
        (r#"{"bridge": "rt0", "owner": "a", "vlan": 4095}"#, (422, "4095 is not a VLAN…")),
        (r#"{"bridge": "rt0", "owner": "a", "vlan": 7}"#, (404, "rt0.7 has no pool…")),
        (long.as_str(), (413, "Failed to buffer the request body: length limit exceeded")),
    ] {
        let answer = served.over_unix(&post("/api/v1/leases", body)).await;
        assert_refused(&answer, body.get(..80).unwrap_or(body), want);
    }
    let plain = post("/api/v1/leases", "{}").replace("application/json", "text/plain");
    let want = (415, "Expected request with `Content-Type: application/json`");
    assert_refused(&served.over_unix(&plain).await, "plain text", want);
    let no_method = (405, "there is such a resource, but not with this method");
    assert_refused(&served.over_unix(&post("/api/v1/table", "{}")).await, "POST table", no_method);
    assert_eq!(status(&served.over_unix("nonsense\r\n\r\n").await), "400");
}

#[tokio::test]
async fn a_body_without_an_end_is_not_taken_in() {
    let served = Served::start().await;
    let piece = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let head = "POST /api/v1/leases HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    // The second piece is beyond the limit, and there is no last one.
    let answer = say(UnixStream::connect(served.socket()).await.unwrap(), &format!("{head}{piece}{piece}")).await;
    assert_refused(&answer, "endless", (413, "Failed to buffer the request body: length limit exceeded"));
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let served = Served::start().await;
    served.let_everybody_in();
    let lease = post("/api/v1/leases", &json!({"bridge": "rt0", "owner": "calagent"}).to_string());
    let refused = say(connect_as_stranger(served.socket()), &lease).await;
    assert_refused(&refused, "a stranger", (403, "user 54321 may change nothing here; be root, or …"));
    let read_only = (405, "this socket only answers questions; changes are made over the Unix socket");
    assert_refused(&served.over_tcp(&lease).await, "over TCP", read_only);
    assert_refused(&served.over_tcp(&post("/api/v1/table", "{}")).await, "POST table over TCP", read_only);
}

#[tokio::test]
async fn a_page_of_somebody_else_is_not_answered_on_loopback() {
    let served = Served::start().await;
    let rebound = get("/api/v1/table").replace("localhost", "rebound.example:9477");
    let want = (421, "on loopback, ask for localhost, 127.0.0.1 or [::1]: the Host header names somebody else");
    assert_refused(&served.over_tcp(&rebound).await, "rebound", want);
    assert_refused(&served.over_tcp(&rebound.replace("/api/v1/table", "/nowhere")).await, "nowhere", want);
    assert_eq!(status(&served.over_unix(&rebound).await), "200");
    let metrics = served.over_tcp(&get("/metrics")).await;
    assert!(metrics.contains("dupip_http_refused_total{reason=\"host\"} 2\n"), "{metrics}");
}

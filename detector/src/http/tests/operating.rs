//! What operators ask of a running agent: who is in quarantine, to let somebody go, and to pause.

use serde_json::json;

use super::{Served, body, connect_as_stranger, get, post, problem, say, status};
use crate::http::api::{Lift, Pause, Paused, Quarantined};

fn lift(port: &str, address: &str, vlan: Option<u16>) -> Lift {
    Lift { port: port.to_owned(), address: address.parse().unwrap(), vlan }
}

#[tokio::test]
async fn a_contained_loser_is_told_of_and_let_go_once() {
    let served = Served::start().await;
    let contained: Vec<Quarantined> =
        serde_json::from_str(body(&served.over_tcp(&get("/api/v1/quarantine")).await)).unwrap();
    let [mut loser] = <[Quarantined; 1]>::try_from(contained).unwrap();
    assert!(loser.since.take().is_some_and(|since| humantime::parse_rfc3339(&since).is_ok()));
    let want = json!({
        "bridge": "rt0", "vlan": null, "address": "10.8.64.2", "port": "veth3", "ifindex": 3, "sandbox": "sportsagent",
        "incident": 1, "since": null, "dropped": 7,
    });
    assert_eq!(serde_json::to_value(&loser).unwrap(), want);
    let client = served.client();
    for (asked, reason) in [
        (
            lift("veth2", "10.8.64.2", None),
            "10.8.64.2 is not in quarantine at veth2; `dupip quarantine list` shows what is",
        ),
        (lift("veth3", "10.8.64.3", None), "10.8.64.3 is not in quarantine at veth3;"),
        (lift("veth3", "10.8.64.2", Some(7)), "10.8.64.2 is not in quarantine at veth3 in VLAN 7;"),
        (lift("veth3", "10.8.64.2", Some(4095)), "4095 is not a VLAN"),
        (lift("a/b", "10.8.64.2", None), "cannot be an interface's name"),
    ] {
        let refused = client.change::<Quarantined>("/api/v1/quarantine/lift", &asked).await.unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    let lifted: Quarantined =
        client.change("/api/v1/quarantine/lift", &lift("veth3", "10.8.64.2", None)).await.unwrap();
    assert_eq!((lifted.port.as_str(), lifted.incident, lifted.dropped), ("veth3", Some(1), Some(7)));
    assert_eq!(client.ask::<Vec<Quarantined>>("/api/v1/quarantine").await.unwrap(), []);
    let again = post("/api/v1/quarantine/lift", &json!({"port": "veth3", "address": "10.8.64.2"}).to_string());
    assert_eq!(problem(&served.over_unix(&again).await).0, 409);
}

#[tokio::test]
async fn a_stranger_may_see_who_is_contained_and_let_nobody_go() {
    let served = Served::start().await;
    served.let_everybody_in();
    let body = json!({"port": "veth3", "address": "10.8.64.2"}).to_string();
    let seen = say(connect_as_stranger(served.socket()), &get("/api/v1/quarantine")).await;
    assert_eq!(status(&seen), "200");
    let refused = say(connect_as_stranger(served.socket()), &post("/api/v1/quarantine/lift", &body)).await;
    let (status, detail) = problem(&refused);
    assert_eq!((status, detail.contains("may change nothing here; be root, or ")), (403, true), "{detail}");
    assert_eq!(problem(&served.over_tcp(&post("/api/v1/quarantine/lift", &body)).await).0, 404);
    assert_eq!(served.client().ask::<Vec<Quarantined>>("/api/v1/quarantine").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_pause_is_written_down_before_it_is_answered() {
    let served = Served::start().await;
    let client = served.client();
    let state = async || client.ask::<Paused>("/api/v1/pause").await.unwrap();
    let setting = async || {
        let read = served.agent.handle.with_store(|store| store.setting("paused_until")).await;
        read.unwrap().unwrap()
    };
    assert_eq!((state().await.paused, setting().await), (false, None));
    let asked = Pause { for_ms: Some(600_000), end: false };
    let paused: Paused = client.change("/api/v1/pause", &asked).await.unwrap();
    assert!(paused.paused && paused.left_ms.is_some_and(|left| (590_000..=600_000).contains(&left)), "{paused:?}");
    assert_eq!(paused.lost_with_agent, None);
    let written = humantime::parse_rfc3339(&setting().await.unwrap()).unwrap();
    let told = humantime::parse_rfc3339(&paused.until.unwrap()).unwrap();
    let apart = told.duration_since(written).unwrap_or_else(|before| before.duration());
    assert!(apart < std::time::Duration::from_secs(1), "{apart:?}");
    assert!(state().await.paused);
    let over_tcp = served.over_tcp(&get("/api/v1/pause")).await;
    assert!(serde_json::from_str::<Paused>(body(&over_tcp)).unwrap().paused);
    let ended: Paused = client.change("/api/v1/pause", &json!({"end": true})).await.unwrap();
    assert_eq!((ended.paused, ended.until, state().await.paused, setting().await), (false, None, false, None));
}

#[tokio::test]
async fn a_pause_that_cannot_be_written_down_holds_all_the_same() {
    let served = Served::start().await;
    let database = served.directory.path().join("leases.db");
    let broken = rusqlite::Connection::open(&database).unwrap();
    broken.execute_batch("DROP TABLE setting").unwrap();
    let client = served.client();
    let paused: Paused = client.change("/api/v1/pause", &json!({"for_ms": 60_000})).await.unwrap();
    assert!(paused.paused && paused.lost_with_agent.is_some_and(|why| why.contains("setting")));
    assert!(client.ask::<Paused>("/api/v1/pause").await.unwrap().paused);
}

#[tokio::test]
async fn nobody_pauses_for_ever_or_without_a_right() {
    let served = Served::start().await;
    served.let_everybody_in();
    for (body, reason) in [
        (r#"{"for_ms": 86400001}"#, "a pause lasts 1 ms to 24 h, which is 86400000 ms; 86400001 ms were asked for"),
        (r#"{"for_ms": 0}"#, "a pause lasts 1 ms"),
        (r#"{"for_ms": 5, "end": true}"#, "say either `for_ms`"),
        ("{}", "say either `for_ms`"),
        (r#"{"for": 5}"#, "unknown field `for`"),
    ] {
        let (status, detail) = problem(&served.over_unix(&post("/api/v1/pause", body)).await);
        assert_eq!((status, detail.contains(reason)), (422, true), "{body}: {detail}");
    }
    let pause = post("/api/v1/pause", r#"{"for_ms": 60000}"#);
    assert_eq!(problem(&say(connect_as_stranger(served.socket()), &pause).await).0, 403);
    assert_eq!(problem(&served.over_tcp(&pause).await).0, 405);
    let state = say(connect_as_stranger(served.socket()), &get("/api/v1/pause")).await;
    assert!(!serde_json::from_str::<Paused>(body(&state)).unwrap().paused);
}

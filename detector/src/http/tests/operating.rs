//! What operators ask of a running agent: who is in quarantine, and to let somebody go.

use serde_json::json;

use super::{Served, body, connect_as_stranger, get, post, problem, say, status};
use crate::http::api::{Lift, Quarantined};

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

//! The event log as it is asked for over a socket.

use std::time::Duration;

use serde_json::json;
use tokio::{
    net::{TcpStream, UnixStream},
    task::yield_now,
    time::timeout,
};

use super::{Served, body, get, problem, say};
use crate::{
    agent::stand_in::{StandIn, domain},
    engine::Finding,
    http::{
        api::{Event, Events},
        events::WAITING,
    },
    net::{IfIndex, Mac, MartianReason, Station},
};

impl Served {
    async fn events(&self, query: &str) -> Events {
        self.client().wait_for(&format!("/api/v1/events{query}"), Duration::from_secs(30)).await.unwrap()
    }

    /// Until so many requests wait for events.
    async fn have_waiting(&self, count: usize) {
        let there = async {
            while self.agent.handle.events().waiting() != count {
                yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), there).await.expect("requests to wait");
    }
}

/// Has the agent find that a port claims what it cannot have.
pub(super) fn find_martian(agent: &StandIn, last: u8) {
    let (mac, port) = (Mac([2, 0, 0, 0, 0, last]), IfIndex::new(7).unwrap());
    agent.telemetry().finding(&Finding::Martian {
        domain: domain(),
        station: Station { port, mac },
        port_name: "veth7".to_owned(),
        address: [192, 0, 2, last].into(),
        ether_source: mac,
        reason: MartianReason::OutsideSubnet,
        news: true,
    });
}

fn addresses(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.address.unwrap().to_string()).collect()
}

#[tokio::test]
async fn both_sockets_tell_what_was_told() {
    let served = Served::start().await;
    let over_tcp: Events = serde_json::from_str(body(&served.over_tcp(&get("/api/v1/events")).await)).unwrap();
    let events = served.events("").await;
    assert_eq!(events, over_tcp);
    assert_eq!((events.missed, events.restarted), (0, false));
    assert!(events.events.iter().map(|event| event.seq).eq(1..=events.events.len() as u64));
    let duplicate = &events.events[0];
    assert_eq!((duplicate.kind.as_str(), duplicate.severity.as_str()), ("duplicate", "error"));
    assert_eq!(duplicate.cursor, format!("{}:1", events.stream));
    assert_eq!((duplicate.port.as_deref(), duplicate.incident), (Some("veth3"), Some(1)));
    let parties: Vec<_> = duplicate.detail["parties"].as_array().unwrap().iter().map(|of| &of["sandbox"]).collect();
    assert_eq!(parties, ["reviewagent", "sportsagent"]);
    assert!(duplicate.detail["after_us"].as_u64().is_some() && !duplicate.detail.contains_key("sightings"));
    assert!(humantime::parse_rfc3339(&duplicate.time).is_ok(), "{duplicate:?}");
    assert!(events.events.iter().any(|event| event.kind == "judged"), "{events:?}");
}

#[tokio::test]
async fn an_event_is_a_contract() {
    let served = Served::start().await;
    let before = served.events("").await.next;
    find_martian(&served.agent, 9);
    let mut events = served.events(&format!("?after={before}")).await;
    let mut event = serde_json::to_value(events.events.remove(0)).unwrap();
    for field in ["seq", "cursor", "time", "boot_us"] {
        assert!(!event[field].take().is_null(), "no {field} in {event}");
    }
    let want = json!({
        "seq": null, "cursor": null, "time": null, "boot_us": null, "kind": "martian", "severity": "warning",
        "bridge": "rt0", "vlan": null, "address": "192.0.2.9", "incident": null, "port": "veth7", "ifindex": 7,
        "mac": "02:00:00:00:00:09", "reason": "outside_subnet",
        "message": "port veth7: 02:00:00:00:00:09 claims 192.0.2.9, which nobody on rt0 can have: outside_subnet",
        "detail": {"source_mac": "02:00:00:00:00:09"},
    });
    assert_eq!(event, want);
}

#[tokio::test]
async fn who_waits_is_told_at_once_and_goes_on_from_there() {
    let served = Served::start().await;
    let before = served.events("").await.next;
    let question = format!("?wait=30&kind=martian&after={before}");
    let tell = async {
        served.have_waiting(1).await;
        find_martian(&served.agent, 8);
    };
    let (first, ()) = tokio::join!(served.events(&question), tell);
    assert_eq!(addresses(&first.events), ["192.0.2.8"]);
    find_martian(&served.agent, 9);
    let second = served.events(&format!("?wait=30&after={}", first.next)).await;
    assert_eq!((addresses(&second.events), second.missed), (vec!["192.0.2.9".to_owned()], 0));
    let none = served.events(&format!("?after={}", second.next)).await;
    assert_eq!((none.events, none.next), (Vec::new(), second.next));
}

#[tokio::test]
async fn the_end_of_the_agent_ends_a_wait() {
    let served = Served::start().await;
    let before = served.events("").await.next;
    let question = get(&format!("/api/v1/events?wait=30&after={before}"));
    let over_unix = UnixStream::connect(served.socket()).await.unwrap();
    let over_tcp = TcpStream::connect(served.tcp).await.unwrap();
    let waits = tokio::spawn(async move { tokio::join!(say(over_unix, &question), say(over_tcp, &question)) });
    // Only who is being answered is answered at the end.
    served.have_waiting(2).await;
    served.stop.send(()).unwrap();
    let (over_unix, over_tcp) = waits.await.unwrap();
    served.server.await.unwrap();
    for answer in [over_unix, over_tcp] {
        let events: Events = serde_json::from_str(body(&answer)).unwrap();
        assert_eq!((events.events, &events.next), (Vec::new(), &before));
    }
}

#[tokio::test]
async fn some_may_wait_and_the_others_are_still_answered() {
    let served = Served::start().await;
    let before = served.events("").await.next;
    let question = get(&format!("/api/v1/events?wait=30&after={before}"));
    let mut crowd = Vec::new();
    for _ in 0..WAITING {
        let stream = TcpStream::connect(served.tcp).await.unwrap();
        crowd.push(tokio::spawn({
            let question = question.clone();
            async move { say(stream, &question).await }
        }));
    }
    served.have_waiting(WAITING).await;
    let (status, detail) = problem(&served.over_tcp(&question).await);
    assert_eq!((status, detail.starts_with("too many wait for events already")), (503, true), "{detail}");
    assert_eq!(body(&served.over_tcp(&get("/healthz")).await), "ok\n");
    let on_the_other = UnixStream::connect(served.socket()).await.unwrap();
    let on_the_other = tokio::spawn(async move { say(on_the_other, &question).await });
    served.have_waiting(WAITING + 1).await;
    // Who goes makes room.
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
    served.have_waiting(1).await;
    find_martian(&served.agent, 9);
    let events: Events = serde_json::from_str(body(&on_the_other.await.unwrap())).unwrap();
    assert_eq!(addresses(&events.events), ["192.0.2.9"]);
}

#[tokio::test]
async fn what_fell_out_is_counted() {
    let served = Served::start().await;
    let before = served.events("").await;
    (0..5000).for_each(|_| find_martian(&served.agent, 9));
    let after = served.events(&format!("?limit=10&after={}", before.next)).await;
    assert_eq!((after.events.len(), after.missed), (10, 5000 - 4096));
    let last_seen = before.events.last().unwrap().seq;
    assert_eq!(after.events[0].seq, last_seen + 1 + after.missed);
    assert_eq!(after.next, after.events[9].cursor);
    let anew = served.events("?limit=1&after=0123456789abcdef:7").await;
    assert_eq!((anew.restarted, anew.missed), (true, last_seen + 5000 - 4096));
    assert_eq!(anew.events[0], after.events[0]);
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused() {
    let served = Served::start().await;
    let stream = served.events("").await.stream;
    for (query, reason) in [
        ("after=7".to_owned(), "`7` is no cursor: one reads STREAM:NUMBER"),
        (format!("after={stream}:999"), "was never given out: the last event is "),
        ("kind=martian,odd".to_owned(), "there is no kind of event `odd`; there are duplicate, "),
        ("wait=31".to_owned(), "nobody waits for 31 s: at most 30"),
        ("wait=-1".to_owned(), "wait: invalid digit"),
        ("limit=0".to_owned(), "0 events cannot be given"),
        ("limit=1025".to_owned(), "ask for 1 to 1024"),
        ("since=7".to_owned(), "unknown field `since`"),
    ] {
        let (status, detail) = problem(&served.over_tcp(&get(&format!("/api/v1/events?{query}"))).await);
        assert_eq!((status, detail.contains(reason)), (400, true), "{query}: {detail}");
    }
}

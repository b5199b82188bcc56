//! How much anybody may take: of connections, of headers and of time. Time is made to pass here.

use std::convert::Infallible;

use axum::{Router, body::Body, routing};
use futures_util::stream;
use tokio::io::{DuplexStream, duplex};

use super::{guarded::Guarded, *};
use crate::http::{
    crowd::PER_PEER,
    server::{converse, shake_hands},
};

#[tokio::test]
async fn a_crowd_on_one_socket_does_not_close_the_other() {
    let served = Served::start().await;
    let mut crowd = Vec::new();
    for _ in 0..64 {
        crowd.push(TcpStream::connect(served.tcp).await.unwrap());
    }
    // The kernel takes the connection, but it is not served before another one leaves.
    let mut late = TcpStream::connect(served.tcp).await.unwrap();
    late.write_all(get("/healthz").as_bytes()).await.unwrap();
    assert_eq!(body(&served.over_unix(&get("/healthz")).await), "ok\n");
    drop(crowd);
    assert_eq!(body(&say(late, "").await), "ok\n");
}

#[tokio::test]
async fn a_peer_from_elsewhere_has_its_share_of_connections() {
    let guarded = Guarded::start().await;
    let mut crowd = Vec::new();
    for _ in 0..PER_PEER {
        crowd.push(guarded.connect("127.0.0.1").await.unwrap());
    }
    let mut refused = TcpStream::connect(guarded.served.tcp).await.unwrap();
    assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
    assert_eq!(status(&guarded.ask_from("127.0.0.2", &get("/healthz")).await), "200");
    drop(crowd.pop());
    guarded.counts("crowd", 1).await;
}

#[tokio::test]
async fn a_request_has_an_end_and_so_many_headers() {
    let served = Served::start().await;
    let with = |headers: &str| get("/healthz").replace("\r\n\r\n", &format!("\r\n{headers}\r\n"));
    let fits = with(&format!("Cookie: {}\r\n", "x".repeat(20_000)));
    assert_eq!(status(&served.over_tcp(&fits).await), "200");
    let many = with(&"X: y\r\n".repeat(64));
    assert_eq!(status(&served.over_tcp(&many).await), "431");
    let mut long = TcpStream::connect(served.tcp).await.unwrap();
    // The answer may come, and the connection end, before all of it is sent.
    let _ = long.write_all(with(&format!("Cookie: {}\r\n", "x".repeat(200_000))).as_bytes()).await;
    let mut answer = Vec::new();
    let _ = long.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || status(&String::from_utf8_lossy(&answer)) == "431");
    let metrics = served.over_tcp(&get("/metrics")).await;
    assert!(metrics.contains("dupip_http_refused_total{reason=\"malformed\"} 2\n"), "{metrics}");
}

/// Answers one connection that is made of memory, where time passes as soon as there is nothing else to do.
fn conversation(served: &Served, routes: Router) -> (DuplexStream, JoinHandle<()>) {
    let (near, far) = duplex(64 * 1024);
    let agent = served.agent.handle.clone();
    (near, tokio::spawn(async move { converse(routes, far, agent).await }))
}

fn slow(served: &Served) -> String {
    let metrics = String::from_utf8(served.agent.telemetry().render().unwrap()).unwrap();
    metrics.lines().find(|line| line.contains("reason=\"slow\"")).unwrap().rsplit_once(' ').unwrap().1.to_owned()
}

#[tokio::test(start_paused = true)]
async fn who_does_not_say_what_it_wants_is_not_waited_for() {
    let served = Served::start().await;
    let (mut silent, ended) = conversation(&served, Router::new());
    ended.await.unwrap();
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    let (mut slow_one, ended) = conversation(&served, Router::new());
    slow_one.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
    ended.await.unwrap();
    assert_eq!(slow(&served), "2");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_shake_hands_is_not_waited_for() {
    let guarded = Guarded::start().await;
    let (_silent, far) = duplex(64);
    let Err(late) = shake_hands(guarded.secrets(), far).await else { panic!("a handshake with nobody") };
    assert_eq!(late.to_string(), "deadline has elapsed");
}

/// An answer that does not come to an end.
fn endless() -> Router {
    let ticks = || {
        stream::unfold((), async |()| {
            tokio::time::sleep(std::time::Duration::from_secs(7)).await;
            Some((Ok::<_, Infallible>("tick"), ()))
        })
    };
    Router::new().route("/", routing::get(move || async move { Body::from_stream(ticks()) }))
}

#[tokio::test(start_paused = true)]
async fn who_does_not_come_to_an_end_is_cut_off() {
    let served = Served::start().await;
    let (mut stream, ended) = conversation(&served, endless());
    stream.write_all(get("/").as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    ended.await.unwrap();
    assert_eq!((status(&String::from_utf8_lossy(&heard)), slow(&served).as_str()), ("200", "1"));
}

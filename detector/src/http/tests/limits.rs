//! How much anybody may take: of connections, of headers and of time. Time is made to pass here.

use std::convert::Infallible;

use axum::{Router, body::Body, routing};
use futures_util::stream;
use tokio::io::{DuplexStream, duplex};

use super::{
    events::find_martian,
    guarded::{Guarded, bearing},
    *,
};
use crate::{
    allocator::{Pool, Wish},
    http::{
        books::BOOKS,
        crowd::PER_PEER,
        events::WAITING,
        server::{CONNECTION_LIFE, converse, shake_hands},
        stream::STREAMS,
    },
    time::Span,
};

#[tokio::test]
async fn who_says_nothing_keeps_nobody_out() {
    let served = Served::start().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(served.tcp).await.unwrap());
        silent.last_mut().unwrap().write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    }
    assert_eq!(body(&served.over_tcp(&get("/healthz")).await), "ok\n");
    assert_eq!(status(&served.over_tcp(&get("/metrics")).await), "200");
    assert_eq!(body(&served.over_unix(&get("/healthz")).await), "ok\n");
    // The oldest had to go, and the last one is still heard.
    assert!(matches!(silent[0].read(&mut [0]).await, Ok(0) | Err(_)));
    assert_eq!(status(&say(silent.pop().unwrap(), "Host: localhost\r\n\r\n").await), "200");
}

/// Each is served in its turn, even if they come all at once.
#[tokio::test]
async fn who_says_what_it_wants_is_answered_in_any_crowd() {
    let served = Served::start().await;
    let mut crowd = Vec::new();
    for _ in 0..300 {
        let mut stream = UnixStream::connect(served.socket()).await.unwrap();
        stream.write_all(get("/healthz").as_bytes()).await.unwrap();
        crowd.push(stream);
    }
    for stream in crowd {
        assert_eq!(body(&say(stream, "").await), "ok\n");
    }
}

#[tokio::test]
async fn who_is_known_has_a_place_and_more_wait() {
    let served = Served::start().await;
    let mut waiting = Vec::new();
    let newest = served.agent.handle.events().newest();
    for place in 0..WAITING + STREAMS {
        let path = if place < WAITING {
            format!("/api/v1/events?wait=30&after={newest}")
        } else {
            "/api/v1/stream".to_owned()
        };
        let mut stream = TcpStream::connect(served.tcp).await.unwrap();
        stream.write_all(get(&path).as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    // None of them has to go for those who come and say nothing.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(served.tcp).await.unwrap());
    }
    assert_eq!(status(&served.over_tcp(&get("/metrics")).await), "200");
    find_martian(&served.agent, 9);
    for stream in waiting.drain(..WAITING) {
        assert!(say(stream, "").await.contains("192.0.2.9"));
    }
}

#[tokio::test]
async fn strangers_from_elsewhere_keep_out_nobody_who_has_the_token() {
    let guarded = Guarded::start().await;
    let mut silent = Vec::new();
    for peer in 1..=4 {
        for _ in 0..PER_PEER {
            silent.push(guarded.dial(&format!("127.0.0.{peer}")).await.unwrap());
        }
    }
    for peer in ["127.0.0.5", "127.0.0.1"] {
        assert_eq!(status(&guarded.ask_from(peer, &get("/healthz")).await), "200", "{peer}");
        assert_eq!(status(&guarded.ask_from(peer, &bearing("/metrics")).await), "200", "{peer}");
    }
    assert!(matches!(silent[0].read(&mut [0]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_peer_from_elsewhere_has_its_share_of_connections() {
    let guarded = Guarded::start().await;
    let mut streams = Vec::new();
    for _ in 0..PER_PEER {
        let mut stream = guarded.connect("127.0.0.1").await.unwrap();
        stream.write_all(bearing("/api/v1/stream").as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
        streams.push(stream);
    }
    let mut refused = guarded.dial("127.0.0.1").await.unwrap();
    assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
    assert_eq!(status(&guarded.ask_from("127.0.0.2", &get("/healthz")).await), "200");
    guarded.counts("crowd", 1).await;
}

/// Who does not read has an answer in memory all the while.
#[tokio::test]
async fn few_read_a_whole_list_at_a_time() {
    let served = Served::start().await;
    let bridge = Domain::untagged("rt1".parse().unwrap());
    let network = "10.9.0.0/20".parse().unwrap();
    let fill = move |store: &dyn Store| {
        store.ensure_pool(&Pool::new(bridge, network, None, Span::from_secs(600)).unwrap()).unwrap();
        for at in 0..1500 {
            let owner = format!("{at}-{}", "x".repeat(100)).parse().unwrap();
            store.allocate(&Wish::new(bridge, owner)).unwrap();
        }
    };
    served.agent.handle.with_store(fill).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..BOOKS {
        let mut reader = UnixStream::connect(served.socket()).await.unwrap();
        reader.write_all(get("/api/v1/leases").as_bytes()).await.unwrap();
        reader.read_exact(&mut [0; 12]).await.unwrap();
        readers.push(reader);
    }
    let ask = async |path| problem(&served.over_tcp(&get(path)).await);
    let refusals = tokio::join!(
        ask("/api/v1/table"),
        ask("/api/v1/table?bridge=rt0"),
        ask("/api/v1/incidents"),
        ask("/api/v1/leases")
    );
    let want = (503, "too many read a whole list already: ask again in a moment".to_owned());
    assert_eq!(<[_; 4]>::from(refusals), [want.clone(), want.clone(), want.clone(), want]);
    let one = served.over_tcp(&get("/api/v1/table?bridge=rt0&address=10.8.64.2")).await;
    assert_eq!(status(&one), "200");
    drop(readers.pop());
    assert_eq!(status(&served.over_tcp(&get("/api/v1/table")).await), "200");
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

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_cut_off_before_its_time() {
    let served = Served::start().await;
    let long = Router::new().route("/", routing::get(|| async { "x".repeat(1 << 20) }));
    let began = tokio::time::Instant::now();
    let (mut deaf, ended) = conversation(&served, long);
    deaf.write_all(get("/").as_bytes()).await.unwrap();
    ended.await.unwrap();
    // Here time is what was waited for, and nothing else.
    assert!(began.elapsed() < CONNECTION_LIFE);
    assert_eq!(slow(&served), "1");
}

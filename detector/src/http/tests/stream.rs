//! The stream of events, read from a socket as a browser does.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Served, events::find_martian, get, problem, status};
use crate::http::stream::STREAMS;

/// A stream that is being read.
struct Reader {
    socket: TcpStream,
    read: String,
}

impl Served {
    /// Asks for the stream, with more lines in the head of the request.
    async fn stream(&self, query: &str, head: &str) -> Reader {
        let mut socket = TcpStream::connect(self.tcp).await.unwrap();
        let request = get(&format!("/api/v1/stream{query}")).replace("\r\n\r\n", &format!("\r\n{head}\r\n"));
        socket.write_all(request.as_bytes()).await.unwrap();
        Reader { socket, read: String::new() }
    }
}

impl Reader {
    /// Reads on until the stream has said this.
    async fn until(&mut self, words: &str) {
        while !self.read.contains(words) {
            let more = self.more().await;
            assert!(more > 0, "ended without `{words}`: {}", self.read);
        }
    }

    async fn more(&mut self) -> usize {
        let mut piece = [0; 4096];
        let count = self.socket.read(&mut piece).await.unwrap();
        self.read.push_str(str::from_utf8(&piece[..count]).unwrap());
        count
    }

    /// What the last message with an id has for one.
    fn last_id(&self) -> &str {
        self.read.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("a message with an id")
    }

    fn count(&self, words: &str) -> usize {
        self.read.matches(words).count()
    }
}

#[tokio::test]
async fn it_begins_with_what_comes_next_and_says_when_to_look() {
    let served = Served::start().await;
    let mut reader = served.stream("", "").await;
    reader.until("event: view\n").await;
    assert!(reader.read.contains("content-type: text/event-stream\r\n"), "{}", reader.read);
    assert!(reader.read.contains("retry: 500\n") && !reader.read.contains("\"kind\""), "{}", reader.read);
    find_martian(&served.agent, 9);
    reader.until("\"address\":\"192.0.2.9\"").await;
    assert_eq!(reader.count("event: view\n"), 1, "nothing new is to be seen: {}", reader.read);
    served.agent.become_ready();
    while reader.count("event: view\n") < 2 {
        assert!(reader.more().await > 0, "{}", reader.read);
    }
    assert_eq!(reader.count("event: reload\n"), 0);
}

#[tokio::test]
async fn who_comes_again_has_missed_nothing() {
    let served = Served::start().await;
    let mut reader = served.stream("", "").await;
    reader.until("event: view\n").await;
    find_martian(&served.agent, 7);
    reader.until("\"address\":\"192.0.2.7\"").await;
    let last = reader.last_id().to_owned();
    drop(reader);
    find_martian(&served.agent, 8);
    // What a browser sends by itself counts more than what it was once told to ask for.
    let mut reader = served
        .stream(&format!("?after={}", served.agent.handle.events().newest()), &format!("Last-Event-ID: {last}\r\n"))
        .await;
    reader.until("\"address\":\"192.0.2.8\"").await;
    assert_eq!((reader.count("192.0.2.7"), reader.count("event: reload\n")), (0, 0), "{}", reader.read);
}

#[tokio::test]
async fn who_comes_from_elsewhere_is_told_to_look_at_everything() {
    let served = Served::start().await;
    let newest = served.agent.handle.events().newest();
    for last in ["0123456789abcdef:4".to_owned(), "garbled".to_owned(), format!("{}:99999", newest.stream)] {
        let mut reader = served.stream("", &format!("Last-Event-ID: {last}\r\n")).await;
        reader.until("event: view\n").await;
        let reload = "event: reload\n";
        let (reload, view) = (reader.read.find(reload), reader.read.find("event: view\n"));
        assert!(reload.is_some() && reload < view, "{last}: {}", reader.read);
        assert!(reader.last_id() == newest.to_string(), "{last}: {}", reader.read);
    }
    // A program that asks for what cannot be is told so.
    for (query, wants) in [("?after=x", "`x` is no cursor"), ("?before=1", "unknown field `before`")] {
        let (status, detail) = problem(&served.over_tcp(&get(&format!("/api/v1/stream{query}"))).await);
        assert!(status == 400 && detail.contains(wants), "{query}: {status} {detail}");
    }
    let never = get(&format!("/api/v1/stream?after={}:99999", newest.stream));
    assert!(problem(&served.over_tcp(&never).await).1.contains("was never given out"));
}

#[tokio::test]
async fn who_is_too_slow_for_the_log_is_told_what_it_missed() {
    let served = Served::start().await;
    let before = served.agent.handle.events().newest();
    (0..5000).for_each(|_| find_martian(&served.agent, 9));
    let mut reader = served.stream(&format!("?after={before}"), "").await;
    reader.until("event: reload\n").await;
    let missed = 5000 - 4096;
    reader.until(&format!("data: {{\"missed\":{missed},\"restarted\":false}}\n")).await;
    reader.until("event: view\n").await;
}

#[tokio::test]
async fn streams_are_few_and_end_with_the_agent() {
    let served = Served::start().await;
    let mut readers = Vec::new();
    for _ in 0..STREAMS {
        let mut reader = served.stream("", "").await;
        reader.until("event: view\n").await;
        readers.push(reader);
    }
    let (status_of, detail) = problem(&served.over_tcp(&get("/api/v1/stream")).await);
    assert!(status_of == 503 && detail.starts_with("too many watch already"), "{detail}");
    assert_eq!(status(&served.over_tcp(&get("/")).await), "200", "the page itself is there for everybody");
    served.stop.send(()).unwrap();
    for mut reader in readers {
        while reader.more().await > 0 {}
        assert!(reader.read.ends_with("0\r\n\r\n"), "cut off, not ended: {}", reader.read);
    }
    served.server.await.unwrap();
}

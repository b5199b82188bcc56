//! The page as it comes over a socket.

use super::{Served, body, get, post, problem, status};

#[tokio::test]
async fn the_page_and_its_files_come_with_a_policy() {
    let served = Served::start().await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/assets/page.css", "text/css; charset=utf-8"),
        ("/assets/page.js", "text/javascript; charset=utf-8"),
        ("/assets/icon.svg", "image/svg+xml"),
    ] {
        let answer = served.over_tcp(&get(path)).await;
        assert_eq!(status(&answer), "200", "{answer}");
        for header in [
            format!("content-type: {kind}\r\n"),
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; ".to_owned(),
            "x-content-type-options: nosniff\r\n".to_owned(),
            "cache-control: no-store\r\n".to_owned(),
        ] {
            assert!(answer.contains(&header), "no {header} in {answer}");
        }
    }
}

#[tokio::test]
async fn both_parties_are_named_without_a_script() {
    let served = Served::start().await;
    let answer = served.over_tcp(&get("/")).await;
    let page = body(&answer);
    for words in [
        "10.8.64.2 has more than one owner.",
        "reviewagent keeps 10.8.64.2: holds lease generation 1; sportsagent has none",
        "Waits for taps on every port and the first inventory of every sandbox",
        "moving to 10.8.64.3",
        "contained, 7 dropped",
    ] {
        assert!(page.contains(words), "no `{words}` in {page}");
    }
    // Nothing in it that the policy forbids.
    for forbidden in [" style=", "<style", "javascript:", " onclick=", "http://", "https://"] {
        assert!(!page.contains(forbidden), "`{forbidden}` in {page}");
    }
    assert_eq!(page.matches("<script").count(), 1);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_words() {
    let served = Served::start().await;
    assert_eq!(problem(&served.over_tcp(&get("/?page=first")).await).0, 400);
    assert_eq!(problem(&served.over_tcp(&get("/assets/other.js")).await).0, 404);
    assert_eq!(problem(&served.over_tcp(&post("/", "")).await).0, 405);
}

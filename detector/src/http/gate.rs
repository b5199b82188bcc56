//! Who is answered over TCP.
//!
//! On loopback, whoever is on this machine; but not the page of a stranger that a browser here shows, whose name has come
//! to stand for this machine (DNS rebinding): it gives itself away by the Host header. Beyond loopback, whoever bears the
//! token, in a header and nowhere else: what is in an address ends up in logs.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri,
        header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE},
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{api::Problem, crowd::Seat, secrets::Token};
use crate::{agent::Handle, telemetry::Unanswered};

/// What probes ask, which have no token.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// Answers whoever has asked for this machine by a name of its own.
pub(super) async fn by_own_name(State(agent): State<Handle>, request: Request, next: Next) -> Response {
    match is_own_name(request.uri(), request.headers()) {
        true => next.run(request).await,
        false => {
            agent.telemetry().unanswered(Unanswered::Host);
            let refusal = "on loopback, ask for localhost, 127.0.0.1 or [::1]: the Host header names somebody else";
            Problem::new(StatusCode::MISDIRECTED_REQUEST, refusal).into_response()
        }
    }
}

/// Who speaks HTTP/1.0 may have no Host header, and is no browser.
fn is_own_name(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let named = [host, uri.authority().cloned().map(Some)];
    hosts.next().is_none() && named.into_iter().flatten().all(|name| name.is_some_and(|name| is_loopback(name.host())))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(is_own)
}

/// Whether only this machine has it, however it is written.
pub(super) const fn is_own(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Answers whoever bears the token.
pub(super) async fn by_token(
    State(agent): State<Handle>,
    Extension(token): Extension<Arc<Token>>,
    Extension(seat): Extension<Arc<Seat>>,
    request: Request,
    next: Next,
) -> Response {
    let is_open = OPEN.contains(&request.uri().path());
    match bearer(request.headers()) {
        _ if is_open => next.run(request).await,
        Some(said) if token.is(said) => {
            seat.take_place().await;
            next.run(request).await
        }
        said => {
            agent.telemetry().unanswered(Unanswered::Token);
            unauthorized(said.is_some())
        }
    }
}

/// What the one Authorization header says, if it is of this scheme (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut said = headers.get_all(AUTHORIZATION).iter();
    let (scheme, token) = said.next()?.as_bytes().split_at_checked("Bearer ".len())?;
    (said.next().is_none() && scheme.eq_ignore_ascii_case(b"Bearer ")).then_some(token.trim_ascii())
}

fn unauthorized(has_token: bool) -> Response {
    let (challenge, detail) = match has_token {
        true => {
            ("Bearer realm=\"dupip\", error=\"invalid_token\"", "this is not the token of the agent's --token-file")
        }
        false => {
            ("Bearer realm=\"dupip\"", "say `Authorization: Bearer TOKEN`, with what the agent's --token-file has")
        }
    };
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_own_names() {
        for (uri, host, is_own) in [
            ("/", Some("localhost"), true),
            ("/", Some("LocalHost:9477"), true),
            ("/", Some("127.0.0.1:9477"), true),
            ("/", Some("127.8.9.1"), true),
            ("/", Some("[::1]:9477"), true),
            ("/", Some("[::ffff:127.0.0.1]:9477"), true),
            ("/", Some("[::ffff:10.8.64.1]:9477"), false),
            ("/", None, true),
            ("http://localhost/", Some("localhost"), true),
            ("/", Some("rebound.example:9477"), false),
            ("/", Some("localhost.rebound.example"), false),
            ("/", Some("127.0.0.1.rebound.example"), false),
            ("/", Some("10.8.64.1:9477"), false),
            ("/", Some("[::1"), false),
            ("/", Some(""), false),
            ("http://rebound.example/", Some("localhost"), false),
            ("http://localhost/", Some("rebound.example"), false),
        ] {
            let headers = host.map(|host| (HOST, HeaderValue::from_static(host)));
            let headers = HeaderMap::from_iter(headers);
            assert_eq!(is_own_name(&uri.parse().unwrap(), &headers), is_own, "{uri} {host:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(HOST, HeaderValue::from_static("localhost"));
        twice.append(HOST, HeaderValue::from_static("rebound.example"));
        assert!(!is_own_name(&Uri::from_static("/"), &twice));
    }

    #[test]
    fn a_token_is_what_one_header_says() {
        for (headers, token) in [
            (&[][..], None),
            (&["Bearer abc"], Some("abc")),
            (&["bearer  abc "], Some("abc")),
            (&["Bearer"], None),
            (&["Basic abc"], None),
            (&["Bearer abc", "Bearer abc"], None),
        ] {
            let mut map = HeaderMap::new();
            for said in headers {
                map.append(AUTHORIZATION, HeaderValue::from_static(said));
            }
            assert_eq!(bearer(&map), token.map(str::as_bytes), "{headers:?}");
        }
    }
}

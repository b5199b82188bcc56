//! Tells a server: the message as the body of a POST.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Bytes,
    header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use ring::hmac;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier, crypto, pki_types::CertificateDer};
use tokio::time::timeout;

use super::{
    courier::{Attempt, Letter},
    endpoint::Endpoint,
    settings::{HookSettings, Secret, hex},
};
use crate::telemetry::with_causes;

/// Tells servers, each time by a connection of its own.
#[derive(Clone, Debug)]
pub(super) struct Webhooks {
    /// An error if this program has been built without what TLS needs.
    client: Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, rustls::Error>,
    key: Option<hmac::Key>,
}

impl Webhooks {
    pub(super) fn new(settings: &HookSettings) -> Self {
        Self::with(settings, builder().map(|tls| if settings.has_tls() { of_machine(tls) } else { of(tls, []) }))
    }

    fn with(settings: &HookSettings, tls: Result<ClientConfig, rustls::Error>) -> Self {
        let client = tls.map(|tls| {
            let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
        });
        let key = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
        Self { client, key: settings.secret.as_ref().map(key) }
    }

    /// One that trusts this authority alone.
    #[cfg(test)]
    pub(super) fn trusting(settings: &HookSettings, authority: CertificateDer<'static>) -> Self {
        Self::with(settings, builder().map(|tls| of(tls, [authority])))
    }

    /// Tells it once.
    pub(super) async fn tell(&self, to: &Endpoint, letter: &Letter, limit: Duration) -> Attempt {
        let (client, request) = match (&self.client, self.request(to, letter)) {
            (Ok(client), Ok(request)) => (client, request),
            (Err(error), _) => return Attempt::Refused(error.to_string()),
            (_, Err(error)) => return Attempt::Refused(error.to_string()),
        };
        match timeout(limit, client.request(request)).await {
            Ok(Ok(response)) => answered(&response, SystemTime::now()),
            Ok(Err(error)) => Attempt::again(with_causes(&error)),
            Err(_) => Attempt::again(format_args!("took longer than {limit:?}")),
        }
    }

    fn request(&self, to: &Endpoint, letter: &Letter) -> hyper::http::Result<Request<Full<Bytes>>> {
        let mut request = Request::post(to.uri())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("dupip/", env!("CARGO_PKG_VERSION")))
            .header("Dupip-Delivery", letter.message.id.to_string())
            .header("Dupip-Occasion", letter.message.occasion().as_str());
        if let Some(authorization) = to.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(key) = &self.key {
            let signature = hex(hmac::sign(key, &letter.body).as_ref());
            request = request.header("Dupip-Signature", format!("sha256={signature}"));
        }
        request.body(Bytes::from(Arc::clone(&letter.body).to_vec()).into())
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(crypto::ring::default_provider().into()).with_safe_default_protocol_versions()
}

/// Trusts whom the machine trusts. Where that cannot be read, nobody, which every message to such a server then tells.
fn of_machine(tls: ConfigBuilder<ClientConfig, WantsVerifier>) -> ClientConfig {
    match tls.clone().with_native_roots() {
        Ok(tls) => tls.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(event = "no_authorities", "no https webhook can be trusted: {error}");
            of(tls, [])
        }
    }
}

fn of<const N: usize>(
    tls: ConfigBuilder<ClientConfig, WantsVerifier>,
    authorities: [CertificateDer<'static>; N],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    tls.with_root_certificates(roots).with_no_client_auth()
}

/// What a server's answer means: what will be the same the next time is not asked again.
fn answered<B>(response: &Response<B>, now: SystemTime) -> Attempt {
    let status = response.status();
    let why = format!("answered {status}");
    match status {
        _ if status.is_success() => Attempt::Delivered,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Attempt::Again { why, after: retry_after(response, now) }
        }
        _ if status.is_server_error() => Attempt::Again { why, after: retry_after(response, now) },
        _ => Attempt::Refused(why),
    }
}

/// How long the server wants to be left alone: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after<B>(response: &Response<B>, now: SystemTime) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let until = || httpdate::parse_http_date(value).ok()?.duration_since(now).ok();
    value.parse().map(Duration::from_secs).ok().or_else(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Attempt {
        let mut response = Response::builder().status(status);
        if let Some(value) = retry_after {
            response = response.header(RETRY_AFTER, value);
        }
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        answered(&response.body(()).unwrap(), now)
    }

    #[test]
    fn only_what_may_be_otherwise_the_next_time_is_asked_again() {
        for status in [200, 202, 204] {
            assert_eq!(answer(status, None), Attempt::Delivered);
        }
        for status in [301, 400, 401, 404, 410] {
            assert!(matches!(answer(status, Some("1")), Attempt::Refused(_)), "{status}");
        }
        for status in [408, 429, 500, 503] {
            assert!(matches!(answer(status, None), Attempt::Again { after: None, .. }), "{status}");
        }
    }

    #[test]
    fn a_server_says_when() {
        let wait = |value| match answer(429, Some(value)) {
            Attempt::Again { after, .. } => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        for none in ["Sun, 06 Nov 1994 08:49:27 GMT", "soon", "-1"] {
            assert_eq!(wait(none), None, "{none}");
        }
    }
}

//! Servers that are told.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use ring::hmac;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    runtime,
};
use tokio_rustls::TlsAcceptor;
use tracing::Level;

use super::{
    super::{courier::Hooks, webhook::Webhooks, *},
    fixture::{Lab, message, over, settings, shell, stopped},
};
use crate::telemetry::tests::log_of;

/// A server that gives these answers in turn, and then that all is well.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<Vec<u16>>>,
    heard: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Server {
    async fn start(answers: &[u16]) -> (Self, SocketAddr) {
        let server = Self { answers: Arc::new(Mutex::new(answers.to_vec())), ..Self::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let routes = Router::new().route("/{*path}", post(answer)).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (server, at)
    }

    fn heard(&self) -> Vec<(HeaderMap, Bytes)> {
        self.heard.lock().unwrap().clone()
    }
}

async fn answer(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> StatusCode {
    server.heard.lock().unwrap().push((headers, body));
    let mut answers = server.answers.lock().unwrap();
    if answers.is_empty() { StatusCode::NO_CONTENT } else { StatusCode::from_u16(answers.remove(0)).unwrap() }
}

#[tokio::test]
async fn a_server_that_fails_is_told_the_same_again() {
    let lab = Lab::new();
    let (server, at) = Server::start(&[503, 429]).await;
    let mut settings = settings(&[format!("evicted=http://robot:pass@{at}/dupip?a=b")]);
    settings.secret = Secret::read(b"sesame\n");
    let (hooks, mut done) = lab.start(settings);
    let told = message(7, "evicted");
    hooks.tell(&told);
    over(&mut done, "7-evicted-1").await;
    assert_eq!((lab.count("evicted", "retried"), lab.count("evicted", "delivered")), (2, 1));
    let heard = server.heard();
    assert_eq!(heard.len(), 3);
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"sesame");
    let signature = format!("sha256={}", settings::hex(hmac::sign(&key, &told.to_json()).as_ref()));
    for (headers, body) in heard {
        assert_eq!(body, told.to_json());
        for (name, value) in [
            ("content-type", "application/json"),
            ("dupip-delivery", "7-evicted-1"),
            ("dupip-occasion", "evicted"),
            ("dupip-signature", &signature),
            ("authorization", "Basic cm9ib3Q6cGFzcw=="),
            ("host", &at.to_string()),
        ] {
            assert_eq!(headers.get(name).map(|value| value.to_str().unwrap()), Some(value), "{name}");
        }
    }
}

#[tokio::test]
async fn what_a_server_refuses_is_not_told_again() {
    let lab = Lab::new();
    let (server, at) = Server::start(&[404]).await;
    let (hooks, mut done) = lab.start(settings(&[format!("opened,resolved=http://{at}/dupip")]));
    hooks.tell(&message(7, "opened"));
    over(&mut done, "7-opened-1").await;
    assert_eq!((lab.count("opened", "retried"), lab.count("opened", "failed")), (0, 1));
    assert!(lab.is_degraded());
    hooks.tell(&message(7, "resolved"));
    over(&mut done, "7-resolved-1").await;
    assert_eq!((server.heard().len(), lab.is_degraded()), (2, false));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let lab = Lab::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(&[format!("opened=http://{}/", silent.local_addr().unwrap())]);
    settings.timeout = Duration::from_millis(20);
    settings.patience.attempts = 2;
    let (hooks, mut done) = lab.start(settings);
    hooks.tell(&message(7, "opened"));
    over(&mut done, "7-opened-1").await;
    assert_eq!((lab.count("opened", "retried"), lab.count("opened", "failed")), (1, 1));
}

/// A server behind TLS that answers one request, and who vouches for it.
async fn tls_server() -> (rustls::pki_types::CertificateDer<'static>, SocketAddr) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (own.cert.der().clone(), own.signing_key.serialize_der().try_into().unwrap());
    let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 64 * 1024];
            let _ = stream.read(&mut request).await;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    });
    (certificate, at)
}

#[tokio::test]
async fn a_server_is_told_over_tls_only_if_it_is_trusted() {
    let lab = Lab::new();
    let (certificate, at) = tls_server().await;
    let mut settings = settings(&[format!("recycle=https://localhost:{}/", at.port())]);
    settings.patience.attempts = 1;
    let ask = async |webhooks| {
        let hooks = Hooks::start_with(settings.clone(), Arc::new(lab.spool()), Arc::clone(&lab.telemetry), webhooks);
        let (tell, answer) = tokio::sync::oneshot::channel();
        hooks.ask(&message(7, "recycle"), move |done| tell.send(done).unwrap());
        answer.await.unwrap()
    };
    assert_eq!(ask(Webhooks::trusting(&settings, certificate)).await, Ok(()));
    let error = ask(Webhooks::new(&settings)).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn no_secret_is_ever_logged_or_kept() {
    let lab = Lab::new();
    let log = log_of(Level::TRACE, || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_, at) = Server::start(&[500, 400]).await;
            let mut settings = settings(&[
                format!("opened=http://sesame:sesame@{at}/sesame?token=sesame"),
                shell("opened", ": sesame; exit 1"),
                // Nobody listens at port 1.
                "opened=https://sesame@127.0.0.1:1/tls?sesame".to_owned(),
            ]);
            settings.secret = Secret::read(b"sesame");
            settings.patience.attempts = 2;
            tracing::info!("{settings:?}");
            let (hooks, mut done) = lab.start(settings);
            hooks.tell(&message(7, "opened"));
            for _ in 0..3 {
                over(&mut done, "7-opened-1").await;
            }
            for name in lab.kept() {
                assert!(!std::fs::read_to_string(lab.path("hooks").join(name)).unwrap().contains("sesame"));
            }
            stopped(hooks).await;
        });
    });
    assert_eq!(lab.count("opened", "failed"), 3, "{log}");
    for shown in ["/… was not told `opened` of incident 7: answered 400", "/bin/sh was not", "https://127.0.0.1:1/…"]
    {
        assert!(log.contains(shown), "{shown} in {log}");
    }
    let leaks: Vec<_> = log.lines().filter(|line| line.contains("sesame")).collect();
    assert_eq!(leaks, Vec::<&str>::new());
}

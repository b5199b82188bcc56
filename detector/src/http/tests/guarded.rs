//! A socket that other machines can reach: TLS, and a token. It is on loopback here.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use rcgen::{CertifiedKey, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::yield_now,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::http::{
    endpoints::OverTcp,
    secrets::{SecretFiles, Secrets},
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// A served agent that asks for a token, and who is trusted to be it.
pub(super) struct Guarded {
    pub(super) served: Served,
    trusted: CertificateDer<'static>,
}

impl Guarded {
    pub(super) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let agent = StandIn::start(&directory.path().join("leases.db"));
        let trusted = certify(directory.path());
        write(directory.path(), "token", TOKEN);
        let secrets = Some(Arc::new(Secrets::open(files(directory.path())).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut endpoints =
            Endpoints::bind(&directory.path().join("run/dupip.sock"), &Listening::default()).await.unwrap();
        endpoints.tcp.push(OverTcp { listener, secrets });
        Self { served: Served::on(directory, agent, endpoints), trusted }
    }

    fn path(&self) -> &Path {
        self.served.directory.path()
    }

    pub(super) fn secrets(&self) -> Arc<Secrets> {
        Arc::new(Secrets::open(files(self.path())).unwrap())
    }

    /// A connection from one of this machine's own addresses, on which nothing is said yet.
    pub(super) async fn dial(&self, from: &str) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from.parse::<IpAddr>().unwrap(), 0).into()).unwrap();
        socket.connect(self.served.tcp).await
    }

    /// The same, with keys agreed on.
    pub(super) async fn connect(&self, from: &str) -> io::Result<TlsStream<TcpStream>> {
        let stream = self.dial(from).await?;
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("runner.example").unwrap();
        TlsConnector::from(Arc::new(tls)).connect(name, stream).await
    }

    pub(super) async fn ask_from(&self, from: &str, request: &str) -> String {
        say(self.connect(from).await.unwrap(), request).await
    }

    async fn ask(&self, path: &str, headers: &str) -> String {
        self.ask_from("127.0.0.1", &get(path).replace("\r\n\r\n", &format!("\r\n{headers}\r\n"))).await
    }

    async fn ask_with(&self, token: &str) -> String {
        self.ask("/api/v1/about", &format!("Authorization: Bearer {token}\r\n")).await
    }

    /// Until so many were turned away for this reason.
    pub(super) async fn counts(&self, reason: &str, count: u64) {
        let line = format!("dupip_http_refused_total{{reason=\"{reason}\"}} {count}\n");
        let there = async {
            while !String::from_utf8(self.served.agent.telemetry().render().unwrap()).unwrap().contains(&line) {
                yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), there).await.expect(&line);
    }
}

/// A request of who has the token.
pub(super) fn bearing(path: &str) -> String {
    get(path).replace("\r\n\r\n", &format!("\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"))
}

fn files(directory: &Path) -> SecretFiles {
    let at = |name| directory.join(name);
    SecretFiles { certificate: at("certificate"), key: at("key"), token: at("token") }
}

fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
}

/// Writes a new certificate and its key.
fn certify(directory: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["runner.example".to_owned()]).unwrap();
    write(directory, "certificate", &cert.pem());
    write(directory, "key", &signing_key.serialize_pem());
    cert.der().clone()
}

#[tokio::test]
async fn only_who_has_the_token_is_answered() {
    let guarded = Guarded::start().await;
    assert_eq!(status(&guarded.ask_with(TOKEN).await), "200");
    let missing = "say `Authorization: Bearer TOKEN`, with what the agent's --token-file has";
    let wrong = "this is not the token of the agent's --token-file";
    let short = format!("Authorization: Bearer {}\r\n", &TOKEN[..31]);
    let other = format!("Authorization: Bearer {OTHER}\r\n");
    for (path, headers, detail) in [
        ("/api/v1/about", "", missing),
        ("/metrics", "", missing),
        ("/nowhere", "", missing),
        ("/healthz/", "", missing),
        ("/api/v1/about?token=0123456789abcdef0123456789abcdef", "", missing),
        ("/api/v1/about", "Authorization: Basic ZHVwaXA6ZHVwaXA=\r\n", missing),
        ("/api/v1/about", "Authorization: Bearer \r\n", missing),
        ("/api/v1/about", short.as_str(), wrong),
        ("/api/v1/about", other.as_str(), wrong),
    ] {
        let answer = guarded.ask(path, headers).await;
        assert_eq!(problem(&answer), (401, detail.to_owned()), "{path} {headers}");
        assert!(answer.contains("www-authenticate: Bearer realm=\"dupip\""), "{answer}");
        assert_eq!(answer.contains("error=\"invalid_token\""), detail == wrong, "{answer}");
    }
    guarded.counts("token", 9).await;
}

#[tokio::test]
async fn probes_need_no_token_and_nobody_changes_anything() {
    let guarded = Guarded::start().await;
    assert_eq!(body(&guarded.ask("/healthz", "").await), "ok\n");
    assert_eq!(problem(&guarded.ask("/readyz", "").await).0, 503);
    let lease = post("/api/v1/leases", &json!({"bridge": "rt0", "owner": "calagent"}).to_string());
    assert_eq!(problem(&guarded.ask_from("127.0.0.1", &lease).await).0, 401);
    let lease = lease.replace("Host:", &format!("Authorization: Bearer {TOKEN}\r\nHost:"));
    assert_eq!(problem(&guarded.ask_from("127.0.0.1", &lease).await).0, 405);
}

#[tokio::test]
async fn nobody_is_answered_in_plain_words() {
    let guarded = Guarded::start().await;
    let mut plain = TcpStream::connect(guarded.served.tcp).await.unwrap();
    plain.write_all(get("/healthz").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("ok"), "{answer:?}");
    guarded.counts("handshake", 1).await;
}

#[tokio::test]
async fn what_is_replaced_is_used_from_the_next_connection_on() {
    let mut guarded = Guarded::start().await;
    write(guarded.path(), "token", &format!("{OTHER}\n"));
    assert_eq!(status(&guarded.ask_with(TOKEN).await), "401");
    assert_eq!(status(&guarded.ask_with(OTHER).await), "200");
    write(guarded.path(), "token", "too short");
    assert_eq!(status(&guarded.ask_with(OTHER).await), "200");

    let old = guarded.trusted.clone();
    let new = certify(guarded.path());
    guarded.connect("127.0.0.1").await.unwrap_err();
    guarded.trusted = new;
    assert_eq!(status(&guarded.ask_with(OTHER).await), "200");
    // A key without its certificate, as between the two writes of whoever replaces both.
    write(guarded.path(), "key", &KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(status(&guarded.ask_with(OTHER).await), "200");
    guarded.trusted = old;
    guarded.connect("127.0.0.1").await.unwrap_err();
}

#[test]
fn what_would_keep_nobody_out_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refusal = || Secrets::open(files(directory.path())).unwrap_err().to_string();
    assert!(refusal().starts_with("--tls-certificate /") && refusal().contains("No such file"), "{}", refusal());
    certify(directory.path());
    for (token, reason) in [
        ("", "a token of 0 characters can be guessed; take at least 32, as from: openssl rand -hex 32"),
        (&TOKEN[..31], "a token of 31 characters can be guessed;"),
        ("0123456789abcdef 0123456789abcdef", "a token has letters, digits and -._~+/= (RFC 6750)"),
        (&TOKEN.repeat(33), "a token has at most 1024 characters"),
    ] {
        write(directory.path(), "token", token);
        assert!(refusal().starts_with("--token-file /") && refusal().contains(reason), "{}", refusal());
    }
    write(directory.path(), "token", TOKEN);
    Secrets::open(files(directory.path())).unwrap();
    for (name, text, reason) in [
        ("certificate", "", "there is no certificate in it"),
        ("key", "", "no private key in PEM: "),
        ("key", &KeyPair::generate().unwrap().serialize_pem(), "not for this certificate: "),
    ] {
        certify(directory.path());
        write(directory.path(), name, text);
        assert!(refusal().contains(reason), "{}", refusal());
    }
    certify(directory.path());
    for name in ["key", "token"] {
        let path = directory.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refusal().contains("mode 0644 lets others than its owner and group open it"), "{}", refusal());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    Secrets::open(files(directory.path())).unwrap();
}

//! The agent's endpoints on real sockets, asked as a peer would.

mod described;
mod events;
mod guarded;
mod limits;
mod operating;
mod page;
mod refusals;
mod stream;

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::PathBuf,
    thread,
};

use rustix::{process::Uid, thread::set_thread_res_uid};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
};

use super::*;
use crate::{
    agent::stand_in::StandIn,
    allocator::{Kept, Store},
    net::Domain,
};

/// A served agent, in a directory of its own.
struct Served {
    directory: TempDir,
    agent: StandIn,
    tcp: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let agent = StandIn::start(&directory.path().join("leases.db"));
        let loopback = on_loopback(0);
        let endpoints = Endpoints::bind(&directory.path().join("run/dupip.sock"), &loopback).await.unwrap();
        Self::on(directory, agent, endpoints)
    }

    fn on(directory: TempDir, agent: StandIn, endpoints: Endpoints) -> Self {
        let tcp = endpoints.tcp_addresses()[0];
        let (stop, stopped) = oneshot::channel::<()>();
        let server =
            tokio::spawn(serve(endpoints, agent.handle.clone(), mpsc::channel(1).0, async { drop(stopped.await) }));
        Self { directory, agent, tcp, stop, server }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/dupip.sock")
    }

    /// As an operator may have done who wants everybody to read.
    fn let_everybody_in(&self) {
        for (path, mode) in [(self.directory.path().to_owned(), 0o755), (self.socket(), 0o666)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    async fn over_tcp(&self, request: &str) -> String {
        say(TcpStream::connect(self.tcp).await.unwrap(), request).await
    }

    async fn over_unix(&self, request: &str) -> String {
        say(UnixStream::connect(self.socket()).await.unwrap(), request).await
    }
}

fn on_loopback(port: u16) -> Listening {
    Listening::new(vec![([127, 0, 0, 1], port).into()], Guards::default()).unwrap()
}

/// Sends a request as it stands and reads until the other end closes.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

/// What is wrong, from an answer that must be a problem of RFC 9457.
fn problem(answer: &str) -> (u16, String) {
    assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
    let problem: api::Problem = serde_json::from_str(body(answer)).unwrap();
    assert_eq!(problem.status.to_string(), status(answer));
    (problem.status, problem.detail)
}

#[tokio::test]
async fn both_sockets_tell_the_same_table() {
    let served = Served::start().await;
    // Whoever speaks HTTP/1.0 gets what is sent in pieces without a word between them.
    let question = get("/api/v1/table").replace("HTTP/1.1", "HTTP/1.0");
    let over_tcp: Vec<api::Row> = serde_json::from_str(body(&served.over_tcp(&question).await)).unwrap();
    let over_unix: Vec<api::Row> = served.client().ask("/api/v1/table").await.unwrap();
    assert_eq!(
        over_tcp.into_iter().map(timeless).collect::<Vec<_>>(),
        over_unix.iter().cloned().map(timeless).collect::<Vec<_>>()
    );
    let summary: Vec<_> = over_unix
        .iter()
        .map(|row| (row.address.to_string(), row.port.as_str(), row.host, row.state.as_str()))
        .collect();
    assert_eq!(
        summary,
        [
            ("10.8.64.1".to_owned(), "rt0", true, "ok"),
            ("10.8.64.2".to_owned(), "veth2", false, "duplicate"),
            ("10.8.64.2".to_owned(), "veth3", false, "duplicate"),
        ]
    );
    let want = json!({
        "bridge": "rt0", "vlan": null, "address": "10.8.64.2", "mac": "02:00:00:00:00:02", "port": "veth2", "ifindex": 2,
        "netns": 2, "sandbox": "reviewagent", "host": false, "external": false, "reach": "netns",
        "first_seen": "", "last_seen": "",
        "evidence": "configured", "hits": 0, "state": "duplicate",
        "lease": {"owner": "reviewagent", "generation": 1, "state": "bound"}, "lease_known": true,
    });
    assert_eq!(serde_json::to_value(timeless(over_unix[1].clone())).unwrap(), want);
}

/// Without its times, which must be times: the clocks are read anew for each answer, and a millisecond may lie between.
fn timeless(mut row: api::Row) -> api::Row {
    for time in [&mut row.first_seen, &mut row.last_seen] {
        assert!(time.len() == "2026-06-12T09:00:00.000Z".len() && humantime::parse_rfc3339(time).is_ok(), "{time}");
        time.clear();
    }
    row
}

#[tokio::test]
async fn an_incident_names_both_parties_and_what_is_done() {
    let served = Served::start().await;
    let incidents: Vec<api::Incident> = served.client().ask("/api/v1/incidents").await.unwrap();
    let [incident] = incidents.as_slice() else { panic!("{incidents:?}") };
    let api::Incident { id: 1, status, healed: false, settled: true, closed: None, heal_ms: None, .. } = incident
    else {
        panic!("{incident:?}")
    };
    assert_eq!((status.as_str(), incident.first_evidence.as_str()), ("open", "configured"));
    assert_eq!((incident.verdict.as_str(), incident.severity.as_str(), incident.times), ("duplicate", "error", 1));
    assert_eq!(incident.addresses, [incident.address]);
    assert!(incident.parties.iter().all(|party| !party.external));
    assert_eq!(incident.reason.as_deref(), Some("holds lease generation 1"));
    let parties: Vec<_> = incident
        .parties
        .iter()
        .map(|party| (party.sandbox.as_deref().unwrap(), party.role.as_str(), party.new_address))
        .collect();
    let fresh = Some([10, 8, 64, 3].into());
    assert_eq!(parties, [("reviewagent", "winner", None), ("sportsagent", "loser", fresh)]);
    let [eviction] = incident.evictions.as_slice() else { panic!("{incident:?}") };
    assert_eq!(
        (eviction.owner.as_deref().unwrap(), eviction.port.as_str(), eviction.step.as_str()),
        ("sportsagent", "veth3", "readdress")
    );
    let lease = eviction.new_lease.as_ref().unwrap();
    assert_eq!(
        (Some(lease.address), lease.state.as_str(), lease.replaces),
        (fresh, "reserved", Some(incident.address))
    );
    let steps: Vec<_> = eviction.steps.iter().map(|taken| taken.step.as_str()).collect();
    assert_eq!(steps, ["contain", "reallocate"]);
    assert!(eviction.steps[0].at_ms >= 1.0 && incident.named_us >= 1000, "{incident:?}");
}

/// What the agent has in mind comes before what is kept, and what it has forgotten out of the store.
#[tokio::test]
async fn an_incident_is_explained_with_the_history_of_its_address() {
    let served = Served::start().await;
    let record = include_str!("../../../tests/fuzz/corpus/incident_record/moving").to_owned();
    let forgotten = Kept {
        number: 3,
        boot: "7d4c".to_owned(),
        domain: Domain::untagged("rt0".parse().unwrap()),
        address: [10, 8, 64, 2].into(),
        is_open: true,
        opened: std::time::UNIX_EPOCH,
        record,
    };
    let older = Kept { number: 1, record: "{}".to_owned(), ..forgotten.clone() };
    let keep = move |store: &dyn Store| store.keep(&[older, forgotten]);
    served.agent.handle.with_store(keep).await.unwrap().unwrap();
    for (number, sandbox) in [(1, "reviewagent"), (3, "reviewagent")] {
        let told: api::Explained = served.client().ask(&format!("/api/v1/incidents/{number}")).await.unwrap();
        assert_eq!((told.incident.id, told.incident.parties[0].sandbox.as_deref()), (number, Some(sandbox)));
        let life: Vec<_> = told.history.iter().map(|entry| (entry.op.as_str(), entry.owner.as_deref())).collect();
        assert_eq!(life, [("allocate", Some("reviewagent"))], "{number}");
    }
    let (status, detail) = problem(&served.over_tcp(&get("/api/v1/incidents/2")).await);
    assert_eq!((status, detail.as_str()), (404, "there is no incident 2; the newest: 3, 1"));
    let (status, detail) = problem(&served.over_tcp(&get("/api/v1/incidents/x")).await);
    assert_eq!((status, detail.contains("Cannot parse")), (400, true), "{detail}");
}

#[tokio::test]
async fn an_agent_that_does_not_know_everybody_yet_watches_nothing() {
    let served = Served::start().await;
    let watched = Domain::untagged("rt0".parse().unwrap());
    let other = Domain::untagged("elsewhere".parse().unwrap());
    let watches = async || {
        let socket = served.socket();
        let table = spawn_blocking(move || LiveTable::connect(&socket)).await.unwrap().unwrap().unwrap();
        [watched, other].map(|domain| table.watches(domain))
    };
    assert_eq!(watches().await, [false, false]);
    served.agent.become_ready();
    assert_eq!(watches().await, [true, false]);
}

#[tokio::test]
async fn a_lease_is_given_once_and_taken_back_once() {
    let served = Served::start().await;
    served.agent.become_ready();
    let ask = api::Allocate {
        bridge: "rt0".to_owned(),
        vlan: None,
        owner: "calagent".to_owned(),
        interface: Some("eth0".to_owned()),
        address: None,
        probe: false,
    };
    let lease: api::Lease = served.client().change("/api/v1/leases", &ask).await.unwrap();
    assert_eq!((lease.address.octets(), lease.state.as_str()), ([10, 8, 64, 4], "bound"));
    let again: api::Lease = served.client().change("/api/v1/leases", &ask).await.unwrap();
    assert_eq!(again, lease);
    let api::Lease { bridge, vlan, address, owner, generation, .. } = lease;
    let give_back = api::Release { bridge, vlan, address, owner, generation, force: false };
    let released: api::Released = served.client().change("/api/v1/leases/release", &give_back).await.unwrap();
    assert_eq!((released.released, released.lease.unwrap().state.as_str()), (true, "draining"));
    let stale: api::Released = served.client().change("/api/v1/leases/release", &give_back).await.unwrap();
    assert_eq!((stale.released, stale.lease.unwrap().state.as_str()), (false, "draining"));
    let leases: Vec<api::Lease> = served.client().ask("/api/v1/leases").await.unwrap();
    assert_eq!(leases.iter().map(|lease| lease.address.octets()[3]).collect::<Vec<_>>(), [2, 3, 4]);
}

#[tokio::test]
async fn what_became_of_an_address_is_told_with_who_did_it() {
    let served = Served::start().await;
    served.agent.become_ready();
    let ask = json!({"bridge": "rt0", "owner": "calagent", "interface": "eth0", "address": "10.8.64.9"});
    let lease: api::Lease = served.client().change("/api/v1/leases", &ask).await.unwrap();
    assert_eq!((lease.address.octets(), lease.interface.as_deref()), ([10, 8, 64, 9], Some("eth0")));
    let stale = json!({"bridge": "rt0", "address": "10.8.64.9", "owner": "calagent", "generation": 77});
    let refused: api::Released = served.client().change("/api/v1/leases/release", &stale).await.unwrap();
    assert!(!refused.released);
    let force = json!({
        "bridge": "rt0", "address": "10.8.64.9", "owner": "calagent", "generation": lease.generation, "force": true,
    });
    let forced: api::Released = served.client().change("/api/v1/leases/release", &force).await.unwrap();
    assert_eq!((forced.released, forced.lease.unwrap().state.as_str()), (true, "cooldown"));

    let life: Vec<api::JournalEntry> =
        served.client().ask("/api/v1/leases/history?address=10.8.64.9&bridge=rt0").await.unwrap();
    let told: Vec<_> = life.iter().map(|entry| (entry.op.as_str(), entry.to.as_deref())).collect();
    let want =
        [("reserve", Some("reserved")), ("bind", Some("bound")), ("release", None), ("discard", Some("cooldown"))];
    assert_eq!(told, want);
    let asker = format!("agent for uid {}, pid {}", rustix::process::getuid().as_raw(), std::process::id());
    assert!(life.iter().all(|entry| entry.actor == asker), "{life:?}");
    let client = served.client();
    let elsewhere: Vec<api::JournalEntry> =
        client.ask("/api/v1/leases/history?address=10.8.64.9&bridge=rt1").await.unwrap();
    assert_eq!(elsewhere, []);
    let fenced = "dupip_fenced_total{op=\"release\"} 1";
    assert!(body(&served.over_tcp(&get("/metrics")).await).lines().any(|line| line == fenced));
}

#[tokio::test]
async fn the_table_is_told_in_part() {
    let served = Served::start().await;
    let rows = async |query: &str| {
        let rows: Vec<api::Row> = served.client().ask(&format!("/api/v1/table{query}")).await.unwrap();
        rows.iter().map(|row| (row.address.octets()[3], row.port.clone())).collect::<Vec<_>>()
    };
    let contested = [(2, "veth2".to_owned()), (2, "veth3".to_owned())];
    assert_eq!(rows("?bridge=rt0&address=10.8.64.2").await, contested);
    assert_eq!(rows("?address=10.8.64.2").await, contested);
    assert_eq!(rows("?bridge=rt0").await.len(), 3);
    assert_eq!(rows("?bridge=rt0&vlan=7&address=10.8.64.2").await, []);
    let (status, detail) = problem(&served.over_unix(&get("/api/v1/table?adress=10.8.64.2")).await);
    assert_eq!((status, detail.contains("unknown field `adress`")), (400, true), "{detail}");
}

#[tokio::test]
async fn an_agent_says_which_it_is() {
    let served = Served::start().await;
    let about: api::About = served.client().ask("/api/v1/about").await.unwrap();
    assert_eq!((about.mode.as_str(), about.bridges), ("enforce", vec!["rt0".to_owned()]));
    assert_eq!(about.database, served.directory.path().join("leases.db"));
}

#[tokio::test]
async fn tcp_changes_nothing() {
    let served = Served::start().await;
    let body = json!({"bridge": "rt0", "owner": "calagent"}).to_string();
    let (status, detail) = problem(&served.over_tcp(&post("/api/v1/leases", &body)).await);
    assert_eq!((status, detail.contains("Unix socket")), (405, true), "{detail}");
    let (status, _) = problem(&served.over_tcp(&post("/api/v1/leases/release", &body)).await);
    assert_eq!(status, 404);
    assert_eq!(served.agent.handle.leases().await.unwrap().len(), 2);
}

#[tokio::test]
async fn nothing_is_handed_out_before_everybody_is_known() {
    let served = Served::start().await;
    let body = json!({"bridge": "rt0", "owner": "calagent"}).to_string();
    let (refusal, detail) = problem(&served.over_unix(&post("/api/v1/leases", &body)).await);
    assert_eq!((refusal, detail.contains("ask again soon")), (503, true), "{detail}");
    served.agent.become_ready();
    assert_eq!(status(&served.over_unix(&post("/api/v1/leases", &body)).await), "200");
}

#[tokio::test]
async fn health_and_readiness_are_told_apart() {
    let served = Served::start().await;
    assert_eq!(body(&served.over_tcp(&get("/healthz")).await), "ok\n");
    let (status, detail) = problem(&served.over_tcp(&get("/readyz")).await);
    let want = "waits for taps on every port and the first inventory of every sandbox";
    assert_eq!((status, detail.as_str()), (503, want));
    served.agent.become_ready();
    assert_eq!(body(&served.over_tcp(&get("/readyz")).await), "ok\n");
}

#[tokio::test]
async fn an_agent_that_ended_is_not_healthy() {
    let Served { agent, tcp, directory, server, stop } = Served::start().await;
    agent.stop_answering().await;
    for path in ["/healthz", "/metrics", "/api/v1/table"] {
        let answer = say(TcpStream::connect(tcp).await.unwrap(), &get(path)).await;
        assert_eq!(problem(&answer), (503, "the agent is stopping".to_owned()));
    }
    stop.send(()).unwrap();
    server.await.unwrap();
    drop(directory);
}

#[tokio::test]
async fn metrics_are_in_prometheus_format() {
    let served = Served::start().await;
    let answer = served.over_tcp(&get("/metrics")).await;
    assert!(answer.contains("content-type: text/plain; version=0.0.4\r\n"), "{answer}");
    for line in ["duplicate_ip_total{bridge=\"rt0\"} 1", "dupip_leases{pool=\"rt0\",state=\"bound\"} 1"] {
        assert!(answer.lines().any(|found| found == line), "no `{line}` in\n{answer}");
    }
    let is_ready = async |value: &str| {
        let answer = served.over_tcp(&get("/metrics")).await;
        answer.lines().any(|line| line.strip_prefix("dupip_ready ") == Some(value))
    };
    assert!(is_ready("0").await);
    served.agent.become_ready();
    assert!(is_ready("1").await);
}

#[tokio::test]
async fn a_stranger_reads_but_does_not_change() {
    let served = Served::start().await;
    served.let_everybody_in();
    let body = json!({"bridge": "rt0", "owner": "calagent"}).to_string();
    let refused = say(connect_as_stranger(served.socket()), &post("/api/v1/leases", &body)).await;
    let (status, detail) = problem(&refused);
    assert_eq!((status, detail.contains("may change nothing here; be root, or ")), (403, true), "{detail}");
    assert_eq!(served.agent.handle.leases().await.unwrap().len(), 2);
    let table = say(connect_as_stranger(served.socket()), &get("/api/v1/table")).await;
    assert_eq!(self::status(&table), "200");
}

/// The kernel notes the credentials of the thread that connects, so a thread of its own becomes somebody else.
fn connect_as_stranger(socket: PathBuf) -> UnixStream {
    let connected = thread::spawn(move || {
        let stranger = Uid::from_raw(54321);
        set_thread_res_uid(stranger, stranger, stranger).unwrap();
        StdUnixStream::connect(socket).unwrap()
    });
    let stream = connected.join().unwrap();
    stream.set_nonblocking(true).unwrap();
    UnixStream::from_std(stream).unwrap()
}

#[tokio::test]
async fn the_socket_is_for_root_and_the_group_and_goes_with_the_agent() {
    let served = Served::start().await;
    let mode = fs::metadata(served.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // A connection that says nothing must not keep the agent from ending.
    let silent = UnixStream::connect(served.socket()).await.unwrap();
    let socket = served.socket();
    served.stop.send(()).unwrap();
    served.server.await.unwrap();
    assert!(!socket.exists());
    drop(silent);
}

#[tokio::test]
async fn one_agent_answers_on_a_socket() {
    let served = Served::start().await;
    let error = Endpoints::bind(&served.socket(), &Listening::default()).await.unwrap_err();
    assert!(matches!(&error, BindError::Running(path) if *path == served.socket()), "{error}");
    let taken = on_loopback(served.tcp.port());
    let error = Endpoints::bind(&served.directory.path().join("other.sock"), &taken).await.unwrap_err();
    assert!(error.to_string().contains("turn it off with --listen none"), "{error}");
    assert!(served.client().ask::<Value>("/api/v1/table").await.is_ok());
}

#[tokio::test]
async fn what_a_dead_agent_left_is_replaced_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dupip.sock");
    drop(StdUnixListener::bind(&socket).unwrap());
    drop(Endpoints::bind(&socket, &Listening::default()).await.unwrap());
    assert!(!socket.exists());
    fs::write(&socket, "precious").unwrap();
    assert!(matches!(Endpoints::bind(&socket, &Listening::default()).await, Err(BindError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
    assert!(!fs::metadata(&socket).unwrap().file_type().is_socket());
}

#[tokio::test]
async fn a_client_says_why_it_has_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dupip.sock");
    let error = Client::new(&socket).ask::<Value>("/").await.unwrap_err();
    assert!(matches!(&error, ClientError::Unreachable { source, .. } if source.kind() == io::ErrorKind::NotFound));
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    for (answer, want) in [
        ("", "the agent's answer broke off"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[1,", "the agent's answer broke off"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[1", "the agent's answer cannot be understood"),
        ("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno", "the agent answered 502 Bad Gateway"),
    ] {
        let client = Client::new(&socket);
        let other_end = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let (error, ()) = tokio::join!(client.ask::<Value>("/"), other_end);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(want), "{answer:?}: {error}");
    }
}

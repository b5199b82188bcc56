//! Serves requests: one to a connection, within a bounded time, over a bounded number of connections.

use std::{
    error::Error as _,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router, middleware, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    join,
    net::{TcpStream, UnixListener, UnixStream},
    select,
    sync::watch,
    task::{JoinSet, spawn_blocking, yield_now},
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::debug;

use super::{
    crowd::{Crowd, Seat, known},
    endpoints::{Endpoints, OverTcp},
    gate::{by_own_name, by_token},
    peer::Peer,
    reload::Reloads,
    routes::{Common, changing, reading},
    secrets::{Secrets, Token},
    shield::shielded,
};
use crate::{agent::Handle, telemetry::Unanswered};

/// How long a connection may last, from its first byte to its last. A lease may wait a minute for the database.
pub(super) const CONNECTION_LIFE: Duration = Duration::from_secs(90);
/// How long a peer may take to agree on keys.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a peer may take to say what it wants.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a peer may take none of its answer.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// The longest request up to its body, in bytes: a browser may bring the cookies of all that is on localhost.
const HEADER_LIMIT: usize = 32 * 1024;
/// Headers that a request may have.
const HEADERS: usize = 64;
/// How long requests that are being answered may take to finish when the agent ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Answers on `endpoints` until `shutdown` comes, and removes the Unix socket then.
pub async fn serve(endpoints: Endpoints, agent: Handle, reloads: Reloads, shutdown: impl Future<Output = ()>) {
    let Endpoints { unix, file, tcp } = endpoints;
    let (running, stopped) = watch::channel(());
    let common = Common::new(agent, reloads, stopped);
    let over_tcp: JoinSet<()> = tcp.into_iter().map(|tcp| over_tcp(tcp, common.clone())).collect();
    let over_unix = over_unix(unix, common);
    let end = async {
        shutdown.await;
        // Nobody finds the socket any more before it stops to answer.
        drop(file);
        drop(running);
    };
    join!(over_tcp.join_all(), over_unix, end);
}

async fn over_unix(unix: UnixListener, common: Common) {
    let Common { agent, stopped, .. } = common.clone();
    let routes = shielded(changing(common).layer(middleware::from_fn(known)));
    let served = |io: UnixStream, seat| {
        let routes = with_peer(&routes, Peer::of(&io).ok()).layer(Extension(seat));
        converse(routes, io, agent.clone())
    };
    accept(unix, Crowd::near(), |_| None, served, &agent, stopped).await;
}

/// Without a `Peer`, which the kernel never fails to tell, no change is admitted.
fn with_peer(routes: &Router, peer: Option<Peer>) -> Router {
    peer.map_or_else(|| routes.clone(), |peer| routes.clone().layer(Extension(peer)))
}

async fn over_tcp(tcp: OverTcp, common: Common) {
    let OverTcp { listener, secrets } = tcp;
    let Common { agent, stopped, .. } = common.clone();
    let routes = reading(common);
    match secrets {
        None => {
            let routes = routes.layer(middleware::from_fn_with_state(agent.clone(), by_own_name));
            let routes = shielded(routes.layer(middleware::from_fn(known)));
            let plain =
                |io: TcpStream, seat| converse(routes.clone().layer(Extension(seat)), at_once(io), agent.clone());
            accept(listener, Crowd::near(), |_| None, plain, &agent, stopped).await;
        }
        Some(secrets) => {
            let routes = shielded(routes.layer(middleware::from_fn_with_state(agent.clone(), by_token)));
            let guarded = |io: TcpStream, seat| {
                in_secret(Arc::clone(&secrets), routes.clone().layer(Extension(seat)), at_once(io), agent.clone())
            };
            let ip = |peer: SocketAddr| Some(peer.ip());
            accept(listener, Crowd::far(), ip, guarded, &agent, stopped).await;
        }
    }
}

/// Has each piece of an answer sent when it is written: news are short, and the next one would wait until the peer has
/// acknowledged the one before (RFC 896), which it puts off.
fn at_once(io: TcpStream) -> TcpStream {
    // If it cannot be had, answers come all the same.
    let _ = io.set_nodelay(true);
    io
}

/// Takes connections and lets them be served, those that are not turned away.
async fn accept<L: Listener, F: Future<Output = ()> + Send + 'static>(
    mut listener: L,
    crowd: Crowd,
    ip: impl Fn(L::Addr) -> Option<IpAddr>,
    served: impl Fn(L::Io, Arc<Seat>) -> F,
    agent: &Handle,
    mut stopped: watch::Receiver<()>,
) {
    loop {
        let next = async {
            crowd.room().await;
            listener.accept().await
        };
        let (io, peer) = select! {
            next = next => next,
            _ = stopped.changed() => break,
        };
        let Some((seat, go)) = crowd.enter(ip(peer)) else {
            agent.telemetry().unanswered(Unanswered::Crowd);
            continue;
        };
        let (connection, agent) = (served(io, Arc::clone(&seat)), agent.clone());
        tokio::spawn(async move {
            select! {
                () = connection => {}
                Ok(()) = go => agent.telemetry().unanswered(Unanswered::Crowd),
            }
            drop(seat);
        });
        // What it has said already is heard before the next one comes.
        yield_now().await;
    }
    drop(listener);
    crowd.gone(LAST_WORDS).await;
}

/// Serves a peer beyond loopback, once keys are agreed on.
async fn in_secret(secrets: Arc<Secrets>, routes: Router, io: TcpStream, agent: Handle) {
    match shake_hands(secrets, io).await {
        Ok((token, io)) => converse(routes.layer(Extension(token)), io, agent).await,
        Err(reason) => {
            agent.telemetry().unanswered(Unanswered::Handshake);
            debug!(event = "http_no_tls", "a connection without TLS: {reason}");
        }
    }
}

pub(super) async fn shake_hands<Io: AsyncRead + AsyncWrite + Unpin>(
    secrets: Arc<Secrets>,
    io: Io,
) -> Result<(Arc<Token>, TlsStream<Io>), Box<dyn std::error::Error + Send + Sync>> {
    let (tls, token) = spawn_blocking(move || secrets.now()).await?;
    let io = timeout(HANDSHAKE_PATIENCE, TlsAcceptor::from(tls).accept(io)).await??;
    Ok((token, io))
}

pub(super) async fn converse(routes: Router, io: impl AsyncRead + AsyncWrite + Unpin, agent: Handle) {
    let service = TowerToHyperService::new(routes);
    let mut http = http1::Builder::new();
    http.keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_buf_size(HEADER_LIMIT)
        .max_headers(HEADERS);
    let mut io = TimeoutStream::new(io);
    io.set_write_timeout(Some(WRITE_PATIENCE));
    let reason = match timeout(CONNECTION_LIFE, http.serve_connection(TokioIo::new(Box::pin(io)), service)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => broken(&error),
        Err(_) => Some(Unanswered::Slow),
    };
    reason.iter().for_each(|reason| agent.telemetry().unanswered(*reason));
}

/// Whether a connection that ended early is one that could not be answered. Who only goes away is none.
fn broken(error: &hyper::Error) -> Option<Unanswered> {
    debug!(event = "http_broken", "a connection ended early: {error}");
    match error {
        _ if error.is_timeout() || is_late(error) => Some(Unanswered::Slow),
        _ if error.is_parse() => Some(Unanswered::Malformed),
        _ => None,
    }
}

/// Whether its answer was not taken in time.
fn is_late(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &io::Error| cause.kind() == io::ErrorKind::TimedOut)
}

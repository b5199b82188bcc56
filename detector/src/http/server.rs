//! Serves requests: one to a connection, within a bounded time, over a bounded number of connections.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, middleware, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    join,
    net::{TcpStream, UnixStream},
    select,
    sync::{Semaphore, watch},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::debug;

use super::{
    crowd::{Crowd, Seat},
    endpoints::{Endpoints, OverTcp},
    gate::{by_own_name, by_token},
    peer::Peer,
    reload::Reloads,
    routes::{changing, reading},
    secrets::{Secrets, Token},
    shield::shielded,
};
use crate::{agent::Handle, telemetry::Unanswered};

/// Connections that each socket serves at a time; more wait in the kernel.
const CONNECTIONS: u32 = 64;
/// How long a connection may last, from its first byte to its last. A lease may wait a minute for the database.
pub(super) const CONNECTION_LIFE: Duration = Duration::from_secs(90);
/// How long a peer may take to agree on keys.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a peer may take to say what it wants.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
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
    let over_tcp: JoinSet<()> =
        tcp.into_iter().map(|tcp| over_tcp(tcp, agent.clone(), reloads.clone(), stopped.clone())).collect();
    let changers = shielded(changing(agent.clone(), reloads, stopped.clone()));
    let over_unix = accept(
        unix,
        |stream: UnixStream, _| {
            let routes = with_peer(&changers, Peer::of(&stream).ok());
            Some(converse(routes, stream, agent.clone()))
        },
        stopped.clone(),
    );
    let end = async {
        shutdown.await;
        // Nobody finds the socket any more before it stops to answer.
        drop(file);
        drop(running);
    };
    join!(over_tcp.join_all(), over_unix, end);
}

/// Without a `Peer`, which the kernel never fails to tell, no change is admitted.
fn with_peer(routes: &Router, peer: Option<Peer>) -> Router {
    peer.map_or_else(|| routes.clone(), |peer| routes.clone().layer(Extension(peer)))
}

async fn over_tcp(tcp: OverTcp, agent: Handle, reloads: Reloads, stopped: watch::Receiver<()>) {
    let OverTcp { listener, secrets } = tcp;
    let routes = reading(agent.clone(), reloads, stopped.clone());
    match secrets {
        None => {
            let routes = shielded(routes.layer(middleware::from_fn_with_state(agent.clone(), by_own_name)));
            let plain = |io: TcpStream, _| Some(converse(routes.clone(), io, agent.clone()));
            accept(listener, plain, stopped).await;
        }
        Some(secrets) => {
            let routes = shielded(routes.layer(middleware::from_fn_with_state(agent.clone(), by_token)));
            let crowd = Crowd::default();
            let guarded = |io: TcpStream, peer: SocketAddr| {
                let Some(seat) = crowd.seat(peer.ip()) else {
                    agent.telemetry().unanswered(Unanswered::Crowd);
                    return None;
                };
                Some(in_secret(Arc::clone(&secrets), routes.clone(), io, agent.clone(), seat))
            };
            accept(listener, guarded, stopped).await;
        }
    }
}

/// Takes connections and lets them be served, those that are not turned away.
async fn accept<L: Listener, F: Future<Output = ()> + Send + 'static>(
    mut listener: L,
    mut served: impl FnMut(L::Io, L::Addr) -> Option<F>,
    mut stopped: watch::Receiver<()>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS as usize));
    loop {
        let next = async { (Arc::clone(&slots).acquire_owned().await, listener.accept().await) };
        let (slot, (io, peer)) = select! {
            next = next => next,
            _ = stopped.changed() => break,
        };
        let Some(connection) = served(io, peer) else { continue };
        tokio::spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    drop(listener);
    let _ = timeout(LAST_WORDS, slots.acquire_many(CONNECTIONS)).await;
}

/// Serves a peer beyond loopback, once keys are agreed on.
async fn in_secret(secrets: Arc<Secrets>, routes: Router, io: TcpStream, agent: Handle, _seat: Seat) {
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
    let reason = match timeout(CONNECTION_LIFE, http.serve_connection(TokioIo::new(io), service)).await {
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
        _ if error.is_timeout() => Some(Unanswered::Slow),
        _ if error.is_parse() => Some(Unanswered::Malformed),
        _ => None,
    }
}

//! Serves requests: one to a connection, within a bounded time, over a bounded number of connections.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{Extension, Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    join, select,
    sync::{Semaphore, watch},
    time::timeout,
};
use tracing::debug;

use super::{
    endpoints::Endpoints,
    peer::Peer,
    reload::Reloads,
    routes::{changing, reading},
};
use crate::agent::Handle;

/// Connections that each socket serves at a time; more wait in the kernel.
const CONNECTIONS: u32 = 64;
/// How long a connection may last, from its first byte to its last. A lease may wait a minute for the database.
pub(super) const CONNECTION_LIFE: Duration = Duration::from_secs(90);
/// How long a peer may take to say what it wants.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// How long requests that are being answered may take to finish when the agent ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Answers on `endpoints` until `shutdown` comes, and removes the Unix socket then.
pub async fn serve(endpoints: Endpoints, agent: Handle, reloads: Reloads, shutdown: impl Future<Output = ()>) {
    let Endpoints { unix, file, tcp } = endpoints;
    let (running, stopped) = watch::channel(());
    let (readers, changers) =
        (reading(agent.clone(), reloads.clone(), stopped.clone()), changing(agent, reloads, stopped.clone()));
    let over_tcp = async {
        if let Some(tcp) = tcp {
            accept(tcp, |_| readers.clone(), stopped.clone()).await;
        }
    };
    let over_unix = accept(unix, |stream| with_peer(&changers, Peer::of(stream).ok()), stopped.clone());
    let end = async {
        shutdown.await;
        // Nobody finds the socket any more before it stops to answer.
        drop(file);
        drop(running);
    };
    join!(over_tcp, over_unix, end);
}

/// Without a `Peer`, which the kernel never fails to tell, no change is admitted.
fn with_peer(routes: &Router, peer: Option<Peer>) -> Router {
    peer.map_or_else(|| routes.clone(), |peer| routes.clone().layer(Extension(peer)))
}

async fn accept<L: Listener>(
    mut listener: L,
    mut routes: impl FnMut(&L::Io) -> Router,
    mut stopped: watch::Receiver<()>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS as usize));
    loop {
        let next = async { (Arc::clone(&slots).acquire_owned().await, listener.accept().await.0) };
        let (slot, io) = select! {
            next = next => next,
            _ = stopped.changed() => break,
        };
        let connection = converse(routes(&io), io);
        tokio::spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    drop(listener);
    let _ = timeout(LAST_WORDS, slots.acquire_many(CONNECTIONS)).await;
}

async fn converse(routes: Router, io: impl AsyncRead + AsyncWrite + Unpin) {
    let service = TowerToHyperService::new(routes);
    let mut http = http1::Builder::new();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
    let connection = http.serve_connection(TokioIo::new(io), service);
    match timeout(CONNECTION_LIFE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(event = "http_broken", "a connection ended early: {error}"),
        Err(_) => debug!(event = "http_slow", "a connection took too long"),
    }
}

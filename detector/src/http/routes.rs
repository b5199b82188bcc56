//! What is answered, and to whom.

use std::time::Duration;

use axum::{
    BoxError, Extension, Json, Router,
    body::Body,
    extract::{
        DefaultBodyLimit, Path, Query, Request, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use futures_util::stream::try_unfold;
use tokio::{sync::watch, task::spawn_blocking, time::timeout};
use tracing::info;
use utoipa::openapi::OpenApi;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use super::{
    api::{
        About, Address, Adopt, Allocate, Explained, Incident, JournalEntry, Lease, Lift, Pause, Paused, Problem,
        Quarantined, Release, Released, Row, Standing, TableFilter,
    },
    books::{Books, Reader},
    events::{self, Waiting},
    explain::{explained, with_history},
    look::Looks,
    openapi::{self, Refusal},
    page,
    peer::Peer,
    reload::{self, Reloads},
    stream::{self, Streaming},
    view::{self, Wall},
};
use crate::{
    agent::{self, Handle, Latch, TableRow, TableWalk},
    engine::Containment,
};

/// The longest request: an owner's name and a few numbers.
const BODY_LIMIT: usize = 16 * 1024;
/// How long the agent's loop may take to answer before it counts as stuck.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);

/// What all sockets have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) agent: Handle,
    pub(super) stopped: watch::Receiver<()>,
    reloads: Reloads,
    looks: Looks,
    books: Books,
}

impl Common {
    /// Who waits does so until the agent has `stopped`.
    pub(super) fn new(agent: Handle, reloads: Reloads, stopped: watch::Receiver<()>) -> Self {
        Self { looks: Looks::at(agent.clone()), books: Books::default(), agent, stopped, reloads }
    }
}

/// What can be read.
pub(super) fn reading(common: Common) -> Router {
    let routes = questions(common.stopped.clone());
    finish(routes, common, "this socket only answers questions; changes are made over the Unix socket")
}

/// What can be read, and changed by whom `Peer` admits. Each request must bear its `Peer`.
pub(super) fn changing(common: Common) -> Router {
    let routes = questions(common.stopped.clone()).merge(changes());
    finish(routes, common, "there is such a resource, but not with this method")
}

/// Every question and every change, as they are described to programs.
pub(super) fn described() -> OpenApi {
    let (_, stopped) = watch::channel(());
    openapi::router().merge(questions(stopped)).merge(changes()).into_openapi()
}

fn questions(stopped: watch::Receiver<()>) -> OpenApiRouter<Handle> {
    OpenApiRouter::new()
        .routes(routes!(metrics))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(table))
        .routes(routes!(incidents))
        .routes(routes!(explain))
        .routes(routes!(quarantine))
        .routes(routes!(paused))
        .routes(routes!(events::events).layer(Extension(Waiting::until(stopped))))
        .routes(routes!(stream::stream))
        .routes(routes!(about))
        .routes(routes!(reload::settings))
        .routes(routes!(leases))
        .routes(routes!(history))
        .routes(routes!(openapi::openapi))
}

fn changes() -> OpenApiRouter<Handle> {
    OpenApiRouter::new()
        .routes(routes!(allocate))
        .routes(routes!(adopt))
        .routes(routes!(release))
        .routes(routes!(lift))
        .routes(routes!(pause))
        .routes(routes!(reload::reload))
        .route_layer(middleware::from_fn(admit))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

/// The page is not described: it is for people.
fn finish(routes: OpenApiRouter<Handle>, common: Common, no_method: &'static str) -> Router {
    let Common { agent, stopped, reloads, looks, books } = common;
    Router::from(routes)
        .merge(page::routes(&looks))
        .layer(Extension(Streaming::until(stopped, looks)))
        .layer(Extension(books))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such resource") })
        .method_not_allowed_fallback(move || async move { Problem::new(StatusCode::METHOD_NOT_ALLOWED, no_method) })
        .layer(Extension(reloads))
        .with_state(agent)
}

async fn admit(Extension(peer): Extension<Peer>, request: Request, next: Next) -> Result<Response, Problem> {
    let verdict = spawn_blocking(move || peer.admit()).await;
    match verdict.unwrap_or_else(|broken| Err(broken.to_string())) {
        Ok(()) => Ok(next.run(request).await),
        Err(refusal) => Err(Problem::new(StatusCode::FORBIDDEN, refusal)),
    }
}

/// Every metric, in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, description = "The metrics as of now", body = String, content_type = "text/plain"), Refusal)
)]
async fn metrics(State(agent): State<Handle>) -> Result<impl IntoResponse, Problem> {
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], agent.metrics().await?))
}

/// Whether the agent's loop still turns. Needs no token.
#[utoipa::path(
    get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "It does: `ok`", body = String, content_type = "text/plain"), Refusal)
)]
async fn healthz(State(agent): State<Handle>) -> Result<&'static str, Problem> {
    let answer = timeout(HEALTH_PATIENCE, agent.overview()).await;
    let late = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the agent's loop does not answer");
    answer.map_err(late)?.map(|_| "ok\n").map_err(Into::into)
}

/// Whether what the agent says can be taken for the whole truth; if not, what it waits for. Needs no token.
#[utoipa::path(
    get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, description = "It can: `ok`", body = String, content_type = "text/plain"), Refusal)
)]
async fn readyz(State(agent): State<Handle>) -> Result<&'static str, Problem> {
    match agent.readiness().waits_for().as_slice() {
        [] => Ok("ok\n"),
        waits_for => {
            let waits_for: Vec<_> = waits_for.iter().map(|latch: &Latch| latch.as_str()).collect();
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("waits for {}", waits_for.join(" and "))))
        }
    }
}

/// Which agent this is.
#[utoipa::path(
    get, path = "/api/v1/about", tag = "state",
    responses((status = 200, description = "Its version, mode and bridges", body = About), Refusal)
)]
async fn about(State(agent): State<Handle>) -> Json<About> {
    Json(view::about(&agent))
}

/// The live table: who has which address. A duplicate address has one row for each station.
#[utoipa::path(
    get, path = "/api/v1/table", tag = "state", params(TableFilter),
    responses((status = 200, description = "The rows that were asked for", body = Vec<Row>), Refusal)
)]
async fn table(
    State(agent): State<Handle>,
    reader: Reader,
    filter: Result<Query<TableFilter>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Query(filter) = filter?;
    let (domain, address) = (filter.domain()?, filter.address);
    if domain.is_none() || address.is_none() {
        reader.open().await?;
    }
    let mut walk = agent.table(domain, address).await?;
    // Whoever cannot be answered at all is told so.
    let first = walk.next().await?;
    let pieces = Pieces { walk, first: Some(first), before: Some(b'['), wall: Wall::read() };
    let body =
        try_unfold(pieces, async |mut pieces| Ok::<_, BoxError>(pieces.next().await?.map(|piece| (piece, pieces))));
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(body)))
}

/// The table as one JSON list, piece by piece. An answer that breaks off says so by being no JSON.
struct Pieces {
    walk: TableWalk,
    /// What has been read before there was a piece to write.
    first: Option<Option<Vec<TableRow>>>,
    /// What stands before the next row; nothing is to come any more if there is none.
    before: Option<u8>,
    wall: Wall,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, BoxError> {
        let Some(mut before) = self.before else { return Ok(None) };
        let rows = match self.first.take() {
            Some(first) => first,
            None => self.walk.next().await?,
        };
        let Some(rows) = rows else {
            self.before = None;
            return Ok(Some(if before == b'[' { b"[]".to_vec() } else { b"]".to_vec() }));
        };
        let mut piece = Vec::new();
        for row in &rows {
            piece.push(before);
            serde_json::to_writer(&mut piece, &view::row(row, self.wall))?;
            before = b',';
        }
        self.before = Some(before);
        Ok(Some(piece))
    }
}

/// Duplicates, open and lately closed.
#[utoipa::path(
    get, path = "/api/v1/incidents", tag = "state",
    responses((status = 200, description = "Those that the agent has in mind", body = Vec<Incident>), Refusal)
)]
async fn incidents(State(agent): State<Handle>, reader: Reader) -> Result<Json<Vec<Incident>>, Problem> {
    reader.open().await?;
    let (incidents, wall) = (agent.incidents().await?, Wall::read());
    Ok(Json(incidents.iter().map(|incident| view::incident(incident, wall)).collect()))
}

/// One incident with the history of its address. What the agent has in mind is newer than what is kept.
#[utoipa::path(
    get, path = "/api/v1/incidents/{number}", tag = "state",
    params(("number" = u64, Path, description = "The incident's number, from 1")),
    responses((status = 200, description = "The incident", body = Explained), Refusal)
)]
async fn explain(
    State(agent): State<Handle>,
    number: Result<Path<u64>, PathRejection>,
) -> Result<Json<Explained>, Problem> {
    let Path(number) = number?;
    let (incidents, wall) = (agent.incidents().await?, Wall::read());
    let Some(incident) = incidents.iter().find(|incident| incident.id.0 == number) else {
        let remembered: Vec<_> = incidents.iter().map(|incident| incident.id.0).collect();
        return Ok(Json(agent.with_store(move |store| explained(store, number, &remembered)).await??));
    };
    let history = agent.history(Some(incident.domain), incident.address).await.ok();
    Ok(Json(with_history(view::incident(incident, wall), history.as_deref())))
}

/// Whose claims are dropped, and how many were.
#[utoipa::path(
    get, path = "/api/v1/quarantine", tag = "state",
    responses((status = 200, description = "Who is in quarantine", body = Vec<Quarantined>), Refusal)
)]
async fn quarantine(State(agent): State<Handle>) -> Result<Json<Vec<Quarantined>>, Problem> {
    let (contained, wall) = (agent.quarantined().await?, Wall::read());
    Ok(Json(contained.iter().map(|of| view::quarantined(of, wall)).collect()))
}

/// Whether the agent is paused.
#[utoipa::path(
    get, path = "/api/v1/pause", tag = "state",
    responses((status = 200, description = "Whether, and until when", body = Paused), Refusal)
)]
async fn paused(State(agent): State<Handle>) -> Result<Json<Paused>, Problem> {
    Ok(Json(view::paused(agent.paused_until().await?, Wall::read())))
}

/// Every row of the allocator's book.
#[utoipa::path(
    get, path = "/api/v1/leases", tag = "leases",
    responses((status = 200, description = "The leases, with how long they are in their states", body = Vec<Standing>), Refusal)
)]
async fn leases(State(agent): State<Handle>, reader: Reader) -> Result<Json<Vec<Standing>>, Problem> {
    reader.open().await?;
    Ok(Json(agent.standings().await?.iter().map(Into::into).collect()))
}

/// What became of an address, oldest first.
#[utoipa::path(
    get, path = "/api/v1/leases/history", tag = "leases", params(Address),
    responses((status = 200, description = "The journal's lines", body = Vec<JournalEntry>), Refusal)
)]
async fn history(
    State(agent): State<Handle>,
    address: Result<Query<Address>, QueryRejection>,
) -> Result<Json<Vec<JournalEntry>>, Problem> {
    let (domain, address) = address?.named()?;
    Ok(Json(agent.history(domain, address).await?.iter().map(Into::into).collect()))
}

/// Gives an owner an address, or says which it has.
#[utoipa::path(
    post, path = "/api/v1/leases", tag = "changes", request_body = Allocate,
    responses((status = 200, description = "The lease", body = Lease), Refusal)
)]
async fn allocate(
    State(agent): State<Handle>,
    Extension(peer): Extension<Peer>,
    request: Result<Json<Allocate>, JsonRejection>,
) -> Result<Json<Lease>, Problem> {
    let Json(request) = request?;
    let (agent, probe) = (agent.on_behalf_of(&peer.to_string()), request.probe);
    let lease = agent.allocate(request.wish()?, probe).await?;
    Ok(Json((&lease).into()))
}

/// Writes down whose an address is that is in use already.
#[utoipa::path(
    post, path = "/api/v1/leases/adopt", tag = "changes", request_body = Adopt,
    responses((status = 200, description = "The lease", body = Lease), Refusal)
)]
async fn adopt(
    State(agent): State<Handle>,
    Extension(peer): Extension<Peer>,
    request: Result<Json<Adopt>, JsonRejection>,
) -> Result<Json<Lease>, Problem> {
    let Json(request) = request?;
    let (domain, address, owner, interface) = request.named()?;
    let lease = agent.on_behalf_of(&peer.to_string()).adopt(domain, address, owner, interface).await?;
    Ok(Json((&lease).into()))
}

/// Takes a lease back. A lease other than the one that is named stays as it is.
#[utoipa::path(
    post, path = "/api/v1/leases/release", tag = "changes", request_body = Release,
    responses((status = 200, description = "What became of it", body = Released), Refusal)
)]
async fn release(
    State(agent): State<Handle>,
    Extension(peer): Extension<Peer>,
    request: Result<Json<Release>, JsonRejection>,
) -> Result<Json<Released>, Problem> {
    let Json(request) = request?;
    let (agent, force) = (agent.on_behalf_of(&peer.to_string()), request.force);
    let fence = request.named()?;
    let change = if force { agent.discard(fence).await? } else { agent.release(fence).await? };
    Ok(Json((&change).into()))
}

/// Lets a port claim an address again that is in quarantine there.
#[utoipa::path(
    post, path = "/api/v1/quarantine/lift", tag = "changes", request_body = Lift,
    responses((status = 200, description = "What was in quarantine", body = Quarantined), Refusal)
)]
async fn lift(
    State(agent): State<Handle>,
    Extension(peer): Extension<Peer>,
    request: Result<Json<Lift>, JsonRejection>,
) -> Result<Json<Quarantined>, Problem> {
    let Json(request) = request?;
    let lifted = agent.release_contained(request.named()?).await?;
    let Containment { address, port_name, .. } = &lifted.containment;
    info!(event = "lifted_for", %peer, "{address} was lifted at {port_name} by {peer}");
    Ok(Json(view::quarantined(&lifted, Wall::read())))
}

/// Has the agent do nothing new for a while, or go on.
#[utoipa::path(
    post, path = "/api/v1/pause", tag = "changes", request_body = Pause,
    responses((status = 200, description = "How it stands now", body = Paused), Refusal)
)]
async fn pause(
    State(agent): State<Handle>,
    Extension(peer): Extension<Peer>,
    request: Result<Json<Pause>, JsonRejection>,
) -> Result<Json<Paused>, Problem> {
    let Json(request) = request?;
    let agent::Pause { until, forgotten } = agent.pause(request.asked()?).await?;
    let told =
        Paused { lost_with_agent: forgotten.map(|error| error.to_string()), ..view::paused(until, Wall::read()) };
    match &told.until {
        Some(until) => info!(event = "paused_for", %peer, until, "paused until {until} by {peer}"),
        None => info!(event = "pause_ended_for", %peer, "the pause was ended by {peer}"),
    }
    Ok(Json(told))
}

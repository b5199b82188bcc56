//! What is answered, and to whom.

use std::time::Duration;

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State, rejection::JsonRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    api::{Adopt, Allocate, Incident, Lease, Problem, Release, Released, Row},
    peer::Peer,
    view::{self, Wall},
};
use crate::agent::{Handle, Latch};

/// The longest request: an owner's name and a few numbers.
const BODY_LIMIT: usize = 16 * 1024;
/// How long the agent's loop may take to answer before it counts as stuck.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);

/// What can be read.
pub(super) fn reading(agent: Handle) -> Router {
    finish(questions(), agent, "this socket only answers questions; changes are made over the Unix socket")
}

/// What can be read, and changed by whom `Peer` admits. Each request must bear its `Peer`.
pub(super) fn changing(agent: Handle) -> Router {
    finish(questions().merge(changes()), agent, "there is such a resource, but not with this method")
}

fn questions() -> Router<Handle> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/table", get(table))
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/leases", get(leases))
}

fn changes() -> Router<Handle> {
    Router::new()
        .route("/api/v1/leases", post(allocate))
        .route("/api/v1/leases/adopt", post(adopt))
        .route("/api/v1/leases/release", post(release))
        .route_layer(middleware::from_fn(admit))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

fn finish(routes: Router<Handle>, agent: Handle, no_method: &'static str) -> Router {
    routes
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such resource") })
        .method_not_allowed_fallback(move || async move { Problem::new(StatusCode::METHOD_NOT_ALLOWED, no_method) })
        .with_state(agent)
}

async fn admit(Extension(peer): Extension<Peer>, request: Request, next: Next) -> Result<Response, Problem> {
    let verdict = spawn_blocking(move || peer.admit()).await;
    match verdict.unwrap_or_else(|broken| Err(broken.to_string())) {
        Ok(()) => Ok(next.run(request).await),
        Err(refusal) => Err(Problem::new(StatusCode::FORBIDDEN, refusal)),
    }
}

async fn metrics(State(agent): State<Handle>) -> Result<impl IntoResponse, Problem> {
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], agent.metrics().await?))
}

/// Whether the loop still turns.
async fn healthz(State(agent): State<Handle>) -> Result<&'static str, Problem> {
    let answer = timeout(HEALTH_PATIENCE, agent.incidents()).await;
    let late = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the agent's loop does not answer");
    answer.map_err(late)?.map(|_| "ok\n").map_err(Into::into)
}

/// Whether what the agent says can be taken for the whole truth.
async fn readyz(State(agent): State<Handle>) -> Result<&'static str, Problem> {
    match agent.readiness().waits_for().as_slice() {
        [] => Ok("ok\n"),
        waits_for => {
            let waits_for: Vec<_> = waits_for.iter().map(|latch: &Latch| latch.as_str()).collect();
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("waits for {}", waits_for.join(" and "))))
        }
    }
}

async fn table(State(agent): State<Handle>) -> Result<Json<Vec<Row>>, Problem> {
    let (rows, wall) = (agent.table().await?, Wall::read());
    Ok(Json(rows.iter().map(|row| view::row(row, wall)).collect()))
}

async fn incidents(State(agent): State<Handle>) -> Result<Json<Vec<Incident>>, Problem> {
    let (incidents, wall) = (agent.incidents().await?, Wall::read());
    Ok(Json(incidents.iter().map(|incident| view::incident(incident, wall)).collect()))
}

async fn leases(State(agent): State<Handle>) -> Result<Json<Vec<Lease>>, Problem> {
    Ok(Json(agent.leases().await?.iter().map(Into::into).collect()))
}

async fn allocate(
    State(agent): State<Handle>,
    request: Result<Json<Allocate>, JsonRejection>,
) -> Result<Json<Lease>, Problem> {
    let Json(request) = request?;
    let (domain, owner) = request.named()?;
    Ok(Json((&agent.allocate(domain, owner).await?).into()))
}

async fn adopt(
    State(agent): State<Handle>,
    request: Result<Json<Adopt>, JsonRejection>,
) -> Result<Json<Lease>, Problem> {
    let Json(request) = request?;
    let (domain, address, owner) = request.named()?;
    Ok(Json((&agent.adopt(domain, address, owner).await?).into()))
}

async fn release(
    State(agent): State<Handle>,
    request: Result<Json<Release>, JsonRejection>,
) -> Result<Json<Released>, Problem> {
    let Json(request) = request?;
    let change = agent.release(request.named()?).await?;
    Ok(Json((&change).into()))
}

//! What whoever has the configuration is asked over HTTP: to read it again, and what it says.

use axum::{Extension, Json, http::StatusCode};
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use super::{
    api::{Problem, Reloaded, Setting},
    openapi::Refusal,
    peer::Peer,
};

/// What is wanted of whoever has the configuration, and where the answer goes.
#[derive(Debug)]
pub enum Reloading {
    /// Reads it again, and says what came of it or why nothing did.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
    /// Says what the agent goes by.
    Show(oneshot::Sender<Vec<Setting>>),
}

/// Where it is asked for.
pub type Reloads = mpsc::Sender<Reloading>;

/// Has the agent read its configuration again; what is wrong in it changes nothing.
#[utoipa::path(
    post, path = "/api/v1/reload", tag = "changes",
    responses((status = 200, description = "What counts from now on, and what after a restart", body = Reloaded), Refusal)
)]
pub(super) async fn reload(
    Extension(reloads): Extension<Reloads>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<Reloaded>, Problem> {
    info!(event = "reload_wanted", %peer, "asked to read the configuration again by {peer}");
    let done = ask(&reloads, Reloading::Reload).await?;
    done.map(Json).map_err(|why| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why))
}

/// What the agent goes by, and who says so.
#[utoipa::path(
    get, path = "/api/v1/settings", tag = "state",
    responses((status = 200, description = "Every key of the configuration", body = Vec<Setting>), Refusal)
)]
pub(super) async fn settings(Extension(reloads): Extension<Reloads>) -> Result<Json<Vec<Setting>>, Problem> {
    ask(&reloads, Reloading::Show).await.map(Json)
}

async fn ask<T>(reloads: &Reloads, what: impl FnOnce(oneshot::Sender<T>) -> Reloading) -> Result<T, Problem> {
    let stopping = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping");
    let (reply, answer) = oneshot::channel();
    reloads.send(what(reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

//! `/api/v1/events`: the event log, and waiting for what it will have.
//!
//! Whoever waits keeps a connection busy. So only some of those that a socket serves may wait at a time, no longer than
//! half a minute, and they are answered at once when the agent ends.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use tokio::{
    select,
    sync::{Semaphore, watch},
};

use super::{
    api::{Events, EventsAfter, Problem},
    openapi::Refusal,
    view::{self, Invalid},
};
use crate::{
    agent::Handle,
    telemetry::{Asked, BadCursor, Kind, Page},
};

/// Requests that may wait for events at a time, on each socket: half of what it serves.
pub(super) const WAITING: usize = 32;
/// How long a request may wait, in seconds.
const PATIENCE: u64 = 30;
/// Events in an answer, unless something else is asked for, and at most.
const LIMIT: usize = 256;
const MOST: usize = 1024;

/// The room for those who wait, on one socket.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    seats: Arc<Semaphore>,
    /// Changes, or is closed, when the agent ends.
    stopped: watch::Receiver<()>,
}

impl Waiting {
    pub(super) fn until(stopped: watch::Receiver<()>) -> Self {
        Self { seats: Arc::new(Semaphore::new(WAITING)), stopped }
    }

    /// Waits for what is asked for. At the agent's end the answer is what there is then.
    async fn wait(mut self, agent: &Handle, asked: &Asked, patience: Duration) -> Result<Page, Problem> {
        let full = "too many wait for events already: ask again in a moment, or without `wait`";
        let _seat = self.seats.try_acquire().map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, full))?;
        let page = select! {
            page = agent.events().wait(asked, patience) => page,
            _ = self.stopped.changed() => agent.events().read(asked),
        };
        page.map_err(refusal)
    }
}

/// What was told, oldest first, after a cursor. With `wait`, the answer comes when there is something, or the time is over.
#[utoipa::path(
    get, path = "/api/v1/events", tag = "state", params(EventsAfter),
    responses((status = 200, description = "Some events, and what to ask next", body = Events), Refusal)
)]
pub(super) async fn events(
    State(agent): State<Handle>,
    Extension(waiting): Extension<Waiting>,
    query: Result<Query<EventsAfter>, QueryRejection>,
) -> Result<Json<Events>, Problem> {
    let Query(query) = query?;
    let patience = Duration::from_secs(query.wait.unwrap_or_default());
    let asked = query.asked().map_err(|invalid| Problem::new(StatusCode::BAD_REQUEST, invalid))?;
    let page = agent.events().read(&asked).map_err(refusal)?;
    let page = match page.events.is_empty() && !patience.is_zero() {
        true => waiting.wait(&agent, &asked, patience).await?,
        false => page,
    };
    Ok(Json(view::events(&page)))
}

fn refusal(error: BadCursor) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, error)
}

impl EventsAfter {
    pub(super) fn asked(self) -> Result<Asked, Invalid> {
        let after = self.after.map(|after| after.parse()).transpose()?;
        let kinds = self.kind.iter().flat_map(|kinds| kinds.split(','));
        let kinds: BTreeSet<Kind> = kinds.map(str::parse).collect::<Result<_, _>>()?;
        let limit = self.limit.unwrap_or(LIMIT);
        match self.wait.unwrap_or_default() {
            wait if wait > PATIENCE => Err(Invalid::Wait(wait)),
            _ if limit == 0 || limit > MOST => Err(Invalid::Limit(limit)),
            _ => Ok(Asked { after, kinds, limit }),
        }
    }
}

//! `/api/v1/stream`: what happens, as it happens, as server-sent events (HTML, section 9.2).
//!
//! - A message without a name is an event as `/api/v1/events` has it; its id is the event's cursor.
//! - `view` says that the table, the incidents or the agent's state are not what they were, with a name for what they are.
//! - `reload` says that something was missed: look at everything anew.
//!
//! A stream ends by itself before the server would cut it off, and its reader comes again with the id that it read last: the
//! event log has what came meanwhile. A reader that is too slow for the log misses what the log has dropped, and is told so.
//! So nothing is kept for a reader but its place. Streams are few on each socket, and end at once when the agent does.

use std::{collections::VecDeque, convert::Infallible, future::pending, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream::unfold};
use serde::Serialize;
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    api::{Problem, Reload, StreamAfter, Viewed},
    look::{HOLDS, Look, Looks, PAUSE},
    openapi::Refusal,
    server::CONNECTION_LIFE,
    view::{self, Invalid},
};
use crate::{
    agent::Handle,
    telemetry::{Asked, Cursor, Page},
};

/// Streams at a time, on each socket: a quarter of what it serves.
pub(super) const STREAMS: usize = 16;
/// How long a stream lasts: less than the server lets a connection last.
const LIFE: Duration = Duration::from_secs(60);
const _: () = assert!(LIFE.as_secs() < CONNECTION_LIFE.as_secs());
/// After what time a reader comes again.
const RETRY: Duration = Duration::from_millis(500);
/// How often something is sent, so that nobody on the way takes the connection for dead.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// Events that are taken from the log at a time.
const LIMIT: usize = 256;

/// The room for streams, on one socket.
#[derive(Clone)]
pub(super) struct Streaming {
    seats: Arc<Semaphore>,
    looks: Looks,
    /// How long each lasts.
    life: Duration,
    /// Changes, or is closed, when the agent ends.
    stopped: watch::Receiver<()>,
}

impl Streaming {
    pub(super) fn until(stopped: watch::Receiver<()>, looks: Looks) -> Self {
        Self { seats: Arc::new(Semaphore::new(STREAMS)), looks, life: LIFE, stopped }
    }

    fn begin(self, agent: Handle, start: Start) -> Result<Telling, Problem> {
        let full = "too many watch already: close a page or a stream, or ask `/api/v1/events`";
        let seat = self.seats.try_acquire_owned();
        let seat = seat.map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, full))?;
        let Start { after, is_unknown } = start;
        let Self { looks, stopped, life, .. } = self;
        let mut due = VecDeque::new();
        if is_unknown {
            due.push_back(reload(&Reload { missed: 0, restarted: true }));
        }
        let ends = Instant::now() + life;
        Ok(Telling {
            agent,
            looks,
            after,
            seen: None,
            patience: Duration::ZERO,
            looking: None,
            due,
            ends,
            stopped,
            _seat: seat,
        })
    }
}

/// Where a stream begins.
struct Start {
    after: Cursor,
    /// Whether the reader has named a place that this log never had.
    is_unknown: bool,
}

impl Start {
    /// What a browser sends by itself is never refused: it would not come again.
    fn asked(agent: &Handle, headers: &HeaderMap, query: StreamAfter) -> Result<Self, Invalid> {
        let newest = agent.events().newest();
        if let Some(last) = headers.get("last-event-id") {
            let last: Option<Cursor> = last.to_str().ok().and_then(|last| last.parse().ok());
            let last = last.filter(|last| last.stream != newest.stream || last.seq <= newest.seq);
            return Ok(Self { is_unknown: last.is_none(), after: last.unwrap_or(newest) });
        }
        Ok(Self { after: query.place()?.unwrap_or(newest), is_unknown: false })
    }
}

impl StreamAfter {
    /// The place that is asked for, if there is one.
    pub(super) fn place(self) -> Result<Option<Cursor>, Invalid> {
        Ok(self.after.map(|after| after.parse()).transpose()?)
    }
}

/// What happens, as it happens, as server-sent events: without a name, an event as `/api/v1/events` has it; `view`, that
/// the table, the incidents or the agent's state have changed; `reload`, that something was missed. A stream ends by itself
/// after a minute; come again with the header `Last-Event-ID`.
#[utoipa::path(
    get, path = "/api/v1/stream", tag = "state", params(StreamAfter),
    responses((status = 200, description = "Events", body = String, content_type = "text/event-stream"), Refusal)
)]
pub(super) async fn stream(
    State(agent): State<Handle>,
    Extension(streaming): Extension<Streaming>,
    headers: HeaderMap,
    query: Result<Query<StreamAfter>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Query(query) = query?;
    let refusal = |invalid| Problem::new(StatusCode::BAD_REQUEST, invalid);
    let start = Start::asked(&agent, &headers, query).map_err(refusal)?;
    let asked = Asked { after: Some(start.after.clone()), limit: 1, ..Asked::default() };
    agent.events().read(&asked).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error))?;
    let told = streaming.begin(agent, start)?.told();
    Ok(Sse::new(told).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)))
}

/// One stream.
struct Telling {
    agent: Handle,
    looks: Looks,
    /// What has been told.
    after: Cursor,
    /// The revision that the reader knows of.
    seen: Option<String>,
    /// How long to wait for an event before the next look.
    patience: Duration,
    /// A look that has not ended.
    looking: Option<Looking>,
    /// What is to be sent.
    due: VecDeque<Event>,
    ends: Instant,
    stopped: watch::Receiver<()>,
    _seat: OwnedSemaphorePermit,
}

impl Telling {
    fn told(self) -> impl Stream<Item = Result<Event, Infallible>> {
        unfold(self, |mut telling| async { Some((Ok(telling.next().await?), telling)) })
    }

    async fn next(&mut self) -> Option<Event> {
        let (ends, mut stopped) = (self.ends, self.stopped.clone());
        while self.due.is_empty() {
            select! {
                more = self.watch() => more?,
                () = sleep_until(ends) => return None,
                _ = stopped.changed() => return None,
            }
        }
        self.due.pop_front()
    }

    /// Waits for something to tell. `None` when the agent is stopping. A look takes time, and news do not wait for it.
    async fn watch(&mut self) -> Option<()> {
        let asked = Asked { after: Some(self.after.clone()), limit: LIMIT, ..Asked::default() };
        select! {
            page = self.agent.events().wait(&asked, self.patience) => {
                self.tell(page.ok()?);
                let looks = self.looks.clone();
                self.looking.get_or_insert_with(|| tokio::spawn(async move { looks.latest().await.ok() }));
                self.patience = HOLDS;
            }
            look = ended(&mut self.looking) => {
                self.looking = None;
                let look = look?;
                self.see(&look);
            }
        }
        Some(())
    }

    fn see(&mut self, look: &Look) {
        if self.seen.as_ref() != Some(&look.revision) {
            let viewed = Viewed { revision: look.revision.clone() };
            self.seen = Some(viewed.revision.clone());
            self.due.push_back(message(&viewed).event("view").id(self.after.to_string()).retry(RETRY));
        }
        self.patience = if look.cursor == self.after { HOLDS } else { PAUSE };
    }

    fn tell(&mut self, page: Page) {
        let Page { events, next, missed, restarted } = page;
        if missed > 0 || restarted {
            self.due.push_back(reload(&Reload { missed, restarted }));
        }
        let stream = &next.stream;
        let told = events.iter().map(|entry| view::event(stream, entry));
        self.due.extend(told.map(|event| message(&event).id(&event.cursor)));
        self.after = next;
    }
}

type Looking = JoinHandle<Option<Arc<Look>>>;

/// Waits for a look; for ever if there is none. `None` when the agent is stopping.
async fn ended(looking: &mut Option<Looking>) -> Option<Arc<Look>> {
    match looking {
        Some(looking) => looking.await.ok()?,
        None => pending().await,
    }
}

fn reload(reload: &Reload) -> Event {
    message(reload).event("reload")
}

fn message(of: &impl Serialize) -> Event {
    // What goes over the API always is JSON.
    Event::default().json_data(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::StreamExt as _;

    use super::*;
    use crate::agent::stand_in::StandIn;

    /// Whoever comes again after that is another stream, which the tests over a socket see to.
    #[tokio::test]
    async fn a_stream_ends_by_itself_and_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        let agent = StandIn::start(&directory.path().join("leases.db")).handle;
        let (_running, stopped) = watch::channel(());
        let streaming = Streaming { life: Duration::ZERO, ..Streaming::until(stopped, Looks::at(agent.clone())) };
        let start = Start { after: agent.events().newest(), is_unknown: true };
        let told = streaming.clone().begin(agent, start).ok().unwrap().told();
        assert_eq!(streaming.seats.available_permits(), STREAMS - 1);
        assert!(pin!(told).count().await > 0, "what is due is told before the end");
        assert_eq!(streaming.seats.available_permits(), STREAMS);
    }

    /// A look at a long table takes its time.
    #[tokio::test(start_paused = true)]
    async fn news_do_not_wait_for_a_look() {
        let directory = tempfile::tempdir().unwrap();
        let stand_in = StandIn::start(&directory.path().join("leases.db"));
        let (agent, (_running, stopped)) = (stand_in.handle.clone(), watch::channel(()));
        let looks = Looks::at(agent.clone());
        let _look = looks.looking().await;
        let start = Start { after: agent.events().newest(), is_unknown: false };
        let mut told = pin!(Streaming::until(stopped, looks.clone()).begin(agent, start).ok().unwrap().told());
        for _ in 0..2 {
            stand_in.telemetry().lost("rt0".parse().unwrap(), 7);
            assert!(told.next().await.is_some(), "the stream has ended, and told nothing");
        }
    }
}

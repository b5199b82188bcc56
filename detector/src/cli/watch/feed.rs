//! What the agent says, whenever it has news.
//!
//! An event is the sign that there is some; what is shown is always what the agent says of the whole then. A flood of
//! events asks for no more looks than a few in a second, and the longer an answer takes, the fewer.

use std::time::{Duration, Instant};

use tokio::{sync::mpsc::Sender, time::sleep};

use crate::http::{
    Client, ClientError,
    api::{About, Events, Incident, Paused, Row},
    encoded,
};

/// How long the agent may wait for an event before it is asked for the table all the same: that an address was seen
/// again is no event.
const WAIT: Duration = Duration::from_secs(2);
/// The shortest time between two looks.
const LEAST: Duration = Duration::from_millis(200);
/// How many times as long as a look took nothing is asked.
const REST: u32 = 4;
/// How long an agent that does not answer is left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// What there is to tell whoever watches.
#[derive(Debug)]
pub(super) enum News {
    /// The agent answered.
    Said(Box<Picture>),
    /// It did not.
    Silent(String),
}

/// All that is shown of an agent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) about: About,
    pub(super) paused: Paused,
    pub(super) rows: Vec<Row>,
    pub(super) incidents: Vec<Incident>,
}

/// An agent, and up to where its events are known.
#[derive(Debug)]
pub(super) struct Feed {
    client: Client,
    after: Option<String>,
}

impl Feed {
    pub(super) fn new(client: Client) -> Self {
        Self { client, after: None }
    }

    /// Asks for everything. What happens meanwhile comes as an event afterwards.
    pub(super) async fn look(&mut self) -> Result<Picture, ClientError> {
        while self.after.is_none() && self.events(Duration::ZERO).await? {}
        Ok(Picture {
            about: self.client.ask("/api/v1/about").await?,
            paused: self.client.ask("/api/v1/pause").await?,
            rows: self.client.ask("/api/v1/table").await?,
            incidents: self.client.ask("/api/v1/incidents").await?,
        })
    }

    /// Tells for as long as somebody listens.
    pub(super) async fn tell(mut self, news: Sender<News>) {
        loop {
            // That the agent is away shows at the next look.
            let _ = self.events(WAIT).await;
            let began = Instant::now();
            let (said, rest) = match self.look().await {
                Ok(picture) => (News::Said(Box::new(picture)), LEAST.max(began.elapsed() * REST)),
                Err(error) => (News::Silent(error.to_string()), PAUSE),
            };
            if news.send(said).await.is_err() {
                return;
            }
            sleep(rest).await;
        }
    }

    /// Waits for events and says whether there were any.
    async fn events(&mut self, wait: Duration) -> Result<bool, ClientError> {
        let after = self.after.as_ref().map(|after| format!("&after={}", encoded(after))).unwrap_or_default();
        let question = format!("/api/v1/events?limit=1024&wait={}{after}", wait.as_secs());
        let Events { events, next, .. } = self.client.wait_for(&question, wait).await?;
        self.after = Some(next);
        Ok(!events.is_empty())
    }
}

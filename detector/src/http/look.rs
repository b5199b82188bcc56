//! One look at the agent, shared by all who watch it: however many they are, the agent's loop is asked as often as if there
//! was one.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};

use super::{
    api::{About, Incident, Paused, Quarantined, Row},
    view::{self, Wall},
};
use crate::{
    agent::{AskError, Handle},
    telemetry::Cursor,
};

/// Rows that are looked at: more than any page shows, and a bound on what is kept.
const ROWS: usize = 10_000;
/// How long what was seen holds, whatever has happened since; as long as it took to see it, if that is longer.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// How long it holds if nothing was told since: rows come and go without a word.
pub(super) const HOLDS: Duration = Duration::from_secs(1);

/// What there was to be seen at a moment.
#[derive(Debug)]
pub(super) struct Look {
    /// Names what was seen: the same name, the same sight.
    pub(super) revision: String,
    /// What had been told by then.
    pub(super) cursor: Cursor,
    /// When, by the wall clock.
    pub(super) wall: Wall,
    pub(super) state: State,
    pub(super) rows: Vec<Row>,
    /// Whether these are all rows.
    pub(super) is_whole: bool,
    pub(super) incidents: Vec<Incident>,
    pub(super) quarantined: Vec<Quarantined>,
    began: Instant,
    ended: Instant,
}

/// How the agent is.
#[derive(Debug, Serialize)]
pub(super) struct State {
    pub(super) about: About,
    /// Until when nothing new is done.
    pub(super) paused_until: Option<String>,
    /// What it cannot do fully, and why.
    pub(super) degraded: Vec<(&'static str, String)>,
    /// Claims that were seen and not reported.
    pub(super) lost: u64,
}

/// The latest look.
#[derive(Clone)]
pub(super) struct Looks {
    agent: Handle,
    latest: Arc<Mutex<Option<Arc<Look>>>>,
}

impl Looks {
    pub(super) fn at(agent: Handle) -> Self {
        Self { agent, latest: Arc::default() }
    }

    /// A look that ended a second ago at most; if something was told since, a tenth of one or as long ago as it lasted.
    /// Who comes while somebody else looks waits for that one, and all who waited share the next look.
    pub(super) async fn latest(&self) -> Result<Arc<Look>, AskError> {
        let came = Instant::now();
        let mut latest = self.latest.lock().await;
        if let Some(look) = latest.as_ref().filter(|look| look.began >= came || self.holds(look)) {
            return Ok(Arc::clone(look));
        }
        let look = Arc::new(look(&self.agent).await?);
        *latest = Some(Arc::clone(&look));
        Ok(look)
    }

    /// As while somebody looks whose look does not end.
    #[cfg(test)]
    pub(super) async fn looking(&self) -> impl Drop {
        Arc::clone(&self.latest).lock_owned().await
    }

    fn holds(&self, look: &Look) -> bool {
        let (age, lasted) = (look.ended.elapsed(), look.ended.duration_since(look.began));
        age < PAUSE.max(lasted) || age < HOLDS && look.cursor == self.agent.events().newest()
    }
}

async fn look(agent: &Handle) -> Result<Look, AskError> {
    let (began, cursor, wall) = (Instant::now(), agent.events().newest(), Wall::read());
    let (rows, is_whole) = rows(agent, wall).await?;
    let incidents: Vec<_> = agent.incidents().await?.iter().map(|of| view::incident(of, wall)).collect();
    let quarantined: Vec<_> = agent.quarantined().await?.iter().map(|of| view::quarantined(of, wall)).collect();
    let Paused { until, .. } = view::paused(agent.paused_until().await?, wall);
    let state =
        State { about: view::about(agent), paused_until: until, degraded: agent.shortcomings(), lost: agent.lost() };
    let revision = revision(&state, &rows, &incidents, &quarantined);
    let ended = Instant::now();
    Ok(Look { revision, cursor, wall, state, rows, is_whole, incidents, quarantined, began, ended })
}

/// The first rows, and whether there are no more.
async fn rows(agent: &Handle, wall: Wall) -> Result<(Vec<Row>, bool), AskError> {
    let mut walk = agent.table(None, None).await?;
    let mut rows = Vec::new();
    while let Some(more) = walk.next().await? {
        for row in &more {
            if rows.len() == ROWS {
                return Ok((rows, false));
            }
            rows.push(view::row(row, wall));
        }
    }
    Ok((rows, true))
}

/// Without what changes with every packet. Moments are not looked at: the same moment may read one millisecond later by a
/// wall clock that is being set.
fn revision(state: &State, rows: &[Row], incidents: &[Incident], quarantined: &[Quarantined]) -> String {
    let mut hasher = DefaultHasher::new();
    let State { about, paused_until, degraded, lost } = state;
    (&about.version, &about.mode, &about.bridges, &about.waits_for, paused_until.is_some(), degraded, lost)
        .hash(&mut hasher);
    for Row { bridge, vlan, address, mac, port, sandbox, state, lease, host, external, .. } in rows {
        (bridge, vlan, address, mac, port, sandbox, state, host, external).hash(&mut hasher);
        lease.as_ref().map(|lease| (&lease.owner, lease.generation, &lease.state)).hash(&mut hasher);
    }
    for incident in incidents {
        let Incident { id, status, addresses, times, parties, decision, held, evictions, contained, .. } = incident;
        (id, status, addresses, times, decision, held).hash(&mut hasher);
        for party in parties {
            (&party.sandbox, &party.port, &party.mac, &party.role, party.new_address).hash(&mut hasher);
        }
        for of in evictions.iter().chain(contained) {
            (&of.step, &of.failure, of.steps.len()).hash(&mut hasher);
        }
    }
    for Quarantined { bridge, vlan, address, port, dropped, .. } in quarantined {
        (bridge, vlan, address, port, dropped).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
impl Look {
    /// A look at which these are to be seen, of an agent that is ready.
    pub(super) fn of(rows: Vec<Row>, incidents: Vec<Incident>) -> Self {
        let about = About {
            version: "0.0.0".to_owned(),
            database: "/x/leases.db".into(),
            mode: "observe".to_owned(),
            bridges: vec!["rt0".to_owned()],
            waits_for: vec![],
        };
        Self {
            revision: "r".to_owned(),
            cursor: "a:1".parse().unwrap(),
            wall: Wall::read(),
            state: State { about, paused_until: None, degraded: vec![], lost: 0 },
            rows,
            is_whole: true,
            incidents,
            quarantined: vec![],
            began: Instant::now(),
            ended: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::agent::stand_in::StandIn;

    /// Whoever looks slowly is not asked to look all the time.
    #[tokio::test(start_paused = true)]
    async fn what_took_long_to_see_holds_as_long() {
        let directory = tempfile::tempdir().unwrap();
        let agent = StandIn::start(&directory.path().join("leases.db")).handle;
        let looks = Looks::at(agent);
        // Something was told since: its cursor is another.
        let mut slow = Look::of(vec![], vec![]);
        slow.ended = slow.began + Duration::from_secs(5);
        let slow = Arc::new(slow);
        *looks.latest.lock().await = Some(Arc::clone(&slow));
        advance(Duration::from_secs(9)).await;
        assert!(Arc::ptr_eq(&looks.latest().await.unwrap(), &slow));
        advance(Duration::from_secs(2)).await;
        let next = looks.clone().latest().await.unwrap();
        assert!(!Arc::ptr_eq(&next, &slow) && Arc::ptr_eq(&looks.latest().await.unwrap(), &next));
    }
}

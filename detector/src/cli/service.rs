//! What the service manager is told of the agent (sd_notify(3)); nothing where there is none.
//!
//! It is ready when every port has a tap and every sandbox has been looked at: `systemctl start` returns then. A bridge
//! that is waited for keeps nobody waiting; it is in the status. Life is what the loop itself shows: each time it has
//! answered a question, the watchdog hears of it, and an agent whose loop stands still is killed and started anew.

use std::{
    convert::Infallible,
    env,
    future::pending,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::{
    select,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use crate::agent::{Handle, Latch, Overview};

/// How often the loop is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long `systemctl start` waits for an agent that has not looked at everything yet. It goes on looking after that, and
/// its status says what it waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far the service manager has been told that the agent is.
static TOLD: Mutex<Stage> = Mutex::new(Stage::Starting);

/// What an agent goes through, as the service manager sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Ready,
    Stopping,
}

/// What news is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Life,
    Ready,
    Reload,
    End,
}

impl Stage {
    /// Whether it may be told, and counts from then on. The end of a reload is told as readiness, which an agent that
    /// starts has not yet, and one that stops not any more.
    const fn takes(&mut self, news: News) -> bool {
        match (*self, news) {
            (Self::Stopping, _) | (Self::Starting, News::Reload) => return false,
            (_, News::End) => *self = Self::Stopping,
            (_, News::Ready) => *self = Self::Ready,
            (_, News::Life | News::Reload) => {}
        }
        true
    }
}

/// Tells how the agent does for as long as it runs.
pub(super) async fn accompany<T>(run: impl Future<Output = T>, agent: Handle) -> T {
    select! {
        ended = run => ended,
        never = tell(agent) => match never {},
    }
}

async fn tell(agent: Handle) -> Infallible {
    if env::var_os("NOTIFY_SOCKET").is_some() {
        tell_until_the_end(&agent).await;
    }
    pending().await
}

async fn tell_until_the_end(agent: &Handle) {
    let (began, every) = (Instant::now(), pace(watchdog_enabled()));
    let (mut is_ready, mut told) = (false, String::new());
    while let Ok(overview) = agent.overview().await {
        let waits_for = agent.readiness().waits_for();
        let status = status(&overview, &waits_for);
        let becomes_ready = !is_ready && (waits_for.is_empty() || began.elapsed() >= PATIENCE);
        is_ready |= becomes_ready;
        let about = if becomes_ready { News::Ready } else { News::Life };
        let news = [
            becomes_ready.then_some(NotifyState::Ready),
            (status != told).then_some(NotifyState::Status(&status)),
            Some(NotifyState::Watchdog),
        ];
        send(about, &news.into_iter().flatten().collect::<Vec<_>>());
        told = status;
        if is_ready {
            sleep(every).await;
        } else {
            // Asked again as soon as it is ready, and in any case after a while.
            let _ = timeout(every, agent.readiness().ready()).await;
        }
    }
}

/// The agent ends, and it was asked to.
pub(super) fn stopping() {
    send(News::End, &[NotifyState::Stopping, NotifyState::Status("stops")]);
}

/// The configuration is read again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(News::Reload, &[NotifyState::Reloading, now]),
        Err(error) => debug!(event = "not_notified", "there is no time to tell: {error}"),
    }
}

/// It has been read, for better or worse.
pub(super) fn reloaded() {
    send(News::Reload, &[NotifyState::Ready]);
}

/// Twice in the time after which the watchdog bites, at least.
fn pace(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(LOOK_EVERY, |bites_after| LOOK_EVERY.min(bites_after / 2))
}

fn send(about: News, news: &[NotifyState<'_>]) {
    // Held meanwhile, so that it is told in this order.
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if !told.takes(about) {
        return;
    }
    if let Err(error) = notify(news) {
        debug!(event = "not_notified", "the service manager does not listen: {error}");
    }
}

/// One line of `systemctl status`.
fn status(overview: &Overview, waits_for: &[Latch]) -> String {
    let waits_for = waits_for.iter().map(|latch| latch.as_str().to_owned());
    let absent = overview.absent.iter().map(|bridge| format!("{bridge} to appear"));
    let awaited: Vec<String> = waits_for.chain(absent).collect();
    match awaited.as_slice() {
        [] => overview.to_string(),
        awaited => format!("{overview}; waits for {}", awaited.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_what_is_watched_and_what_is_waited_for() {
        let mut overview = Overview { bridges: 1, absent: Vec::new(), ports: 3, duplicates: 0 };
        assert_eq!(status(&overview, &[]), "watches 1 bridge with 3 ports; no duplicate");
        overview.absent.push("rt1".parse().unwrap());
        overview.duplicates = 2;
        assert_eq!(
            status(&overview, &[Latch::Taps]),
            "watches 1 bridge with 3 ports; 2 duplicates are open; waits for taps on every port and rt1 to appear"
        );
    }

    #[test]
    fn a_reload_makes_nobody_ready_who_starts_or_stops() {
        use News::{End, Life, Ready, Reload};
        let mut stage = Stage::Starting;
        let taken = [Life, Reload, Reload, Ready, Reload, Reload, Life, End, Reload, Ready, Life, End]
            .map(|news| stage.takes(news));
        let [before, running, after] = [[true, false, false], [true; 3], [true, true, false]];
        assert_eq!(taken[..9], [before, running, after].concat());
        assert_eq!((&taken[9..], stage), (&[false; 3][..], Stage::Stopping));
    }

    #[test]
    fn the_watchdog_hears_twice_before_it_bites() {
        let seconds = Duration::from_secs;
        let paces = [None, Some(seconds(30)), Some(seconds(1))].map(pace);
        assert_eq!(paces, [seconds(1), seconds(1), Duration::from_millis(500)]);
    }
}

//! The event log: the latest events, numbered without gaps, for whoever asks and whoever waits.
//!
//! It is bound in number and in bytes; the oldest go first, and who asks is told how many it has missed. Numbers begin anew
//! with each start of the agent, so a place in the log is a number together with the name of the stream.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    hash::{BuildHasher as _, RandomState},
    num::ParseIntError,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::timeout};

use super::event::{Event, Kind};
use crate::{allocator::since_boot, engine::IncidentId, time::Timestamp};

/// Events that are kept.
const ENTRIES: usize = 4096;
/// How much memory they may take together, in bytes.
const BYTES: usize = 16 << 20;

/// Names the events of one start of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream(String);

/// A place in the log: after the event with this number, of this stream. Reads `STREAM:NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Whose events.
    pub stream: Stream,
    /// The event's number; 0 is before the first.
    pub seq: u64,
}

/// Why a text names no place in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCursor {
    /// It does not read like one.
    #[error("`{0}` is no cursor: one reads STREAM:NUMBER, as events bear it")]
    Garbled(String),
    /// This stream has not come so far.
    #[error("cursor {asked} was never given out: the last event is {newest}")]
    Future {
        /// What was asked for.
        asked: Cursor,
        /// The last place that there is.
        newest: Cursor,
    },
}

/// An event with its place and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// When it was told, in nanoseconds since boot.
    pub at: Timestamp,
    /// When it was told, by the wall clock.
    pub time: SystemTime,
    /// What was told.
    pub event: Event,
}

/// Which events are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Those after this place; `None`: from the oldest that is kept.
    pub after: Option<Cursor>,
    /// Of these kinds; none: of all.
    pub kinds: BTreeSet<Kind>,
    /// At most so many.
    pub limit: usize,
}

/// Some events, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The events, oldest first.
    pub events: Vec<Arc<Entry>>,
    /// After what to ask next.
    pub next: Cursor,
    /// How many events, of any kind, were dropped after the place that was asked for and before the first that is kept.
    pub missed: u64,
    /// Whether the place was one of another start of the agent; then it goes on from the oldest event that is kept.
    pub restarted: bool,
}

/// The latest events. Telling one never waits for those who read.
#[derive(Debug)]
pub struct EventLog {
    stream: Stream,
    ring: watch::Sender<Ring>,
}

/// What is kept.
#[derive(Debug)]
struct Ring {
    entries: VecDeque<(usize, Arc<Entry>)>,
    bytes: usize,
    newest: u64,
    room: Room,
}

#[derive(Clone, Copy, Debug)]
struct Room {
    entries: usize,
    bytes: usize,
}

impl Stream {
    /// A name that no other start of the agent has: the standard library's hashers are keyed by the kernel's randomness.
    fn random() -> Self {
        Self(format!("{:016x}", RandomState::new().hash_one(since_boot())))
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.stream, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let garbled = || BadCursor::Garbled(text.to_owned());
        let (stream, seq) = text.split_once(':').ok_or_else(garbled)?;
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_plain(stream) || !is_plain(seq) {
            return Err(garbled());
        }
        let seq = seq.parse().map_err(|_: ParseIntError| garbled())?;
        Ok(Self { stream: Stream(stream.to_owned()), seq })
    }
}

impl EventLog {
    pub(super) fn new() -> Self {
        Self::with_room(Room { entries: ENTRIES, bytes: BYTES })
    }

    fn with_room(room: Room) -> Self {
        let ring = Ring { entries: VecDeque::new(), bytes: 0, newest: 0, room };
        Self { stream: Stream::random(), ring: watch::Sender::new(ring) }
    }

    pub(super) fn push(&self, event: Event) {
        self.ring.send_modify(|ring| ring.push(event));
    }

    /// What was last told of an incident, if that is kept.
    pub(super) fn last_of(&self, incident: IncidentId) -> Option<Arc<Entry>> {
        let is_of = |entry: &Entry| entry.event.snapshot.is_some() && entry.event.incident == Some(incident);
        let ring = self.ring.borrow();
        ring.entries.iter().rev().map(|(_, entry)| entry).find(|entry| is_of(entry)).map(Arc::clone)
    }

    /// The name of this start's events.
    #[must_use]
    pub const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The place after the last event that was told.
    #[must_use]
    pub fn newest(&self) -> Cursor {
        self.cursor(self.ring.borrow().newest)
    }

    /// How many wait for events now.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.ring.receiver_count()
    }

    /// What is kept of what is asked for.
    ///
    /// # Errors
    /// When the place is one that this stream has not come to.
    pub fn read(&self, asked: &Asked) -> Result<Page, BadCursor> {
        let ring = self.ring.borrow();
        match &asked.after {
            Some(after) if after.stream == self.stream && after.seq > ring.newest => {
                Err(BadCursor::Future { asked: after.clone(), newest: self.cursor(ring.newest) })
            }
            Some(after) if after.stream == self.stream => Ok(self.page(&ring, after.seq, asked)),
            Some(_) => Ok(Page { restarted: true, ..self.page(&ring, 0, asked) }),
            None => Ok(Page { missed: 0, ..self.page(&ring, 0, asked) }),
        }
    }

    /// As [`EventLog::read`]; if there is nothing yet, waits until there is, but no longer than `patience`.
    ///
    /// # Errors
    /// When the place is one that this stream has not come to.
    pub async fn wait(&self, asked: &Asked, patience: Duration) -> Result<Page, BadCursor> {
        let mut told = self.ring.subscribe();
        let mut page = self.read(asked)?;
        let something = async {
            while page.events.is_empty() && told.changed().await.is_ok() {
                let more = self.page(&told.borrow_and_update(), page.next.seq, asked);
                page = Page { missed: page.missed + more.missed, restarted: page.restarted, ..more };
            }
        };
        // Late or not, the page says what there is.
        let _ = timeout(patience, something).await;
        Ok(page)
    }

    fn page(&self, ring: &Ring, after: u64, asked: &Asked) -> Page {
        let missed = ring.oldest().saturating_sub(after + 1);
        let is_asked = |entry: &&Arc<Entry>| asked.kinds.is_empty() || asked.kinds.contains(&entry.event.kind);
        let events: Vec<_> = ring.after(after).filter(is_asked).take(asked.limit).cloned().collect();
        // A full page may have left some out; whatever else there is was not asked for.
        let last = events.last().filter(|_| events.len() >= asked.limit).map_or(ring.newest, |entry| entry.seq);
        Page { events, next: self.cursor(last), missed, restarted: false }
    }

    fn cursor(&self, seq: u64) -> Cursor {
        Cursor { stream: self.stream.clone(), seq }
    }
}

impl Ring {
    fn push(&mut self, event: Event) {
        let weight = event.weight();
        self.newest += 1;
        let entry = Entry { seq: self.newest, at: since_boot(), time: SystemTime::now(), event };
        self.entries.push_back((weight, Arc::new(entry)));
        self.bytes += weight;
        while self.is_over() {
            let dropped = self.entries.pop_front();
            self.bytes -= dropped.map_or(0, |(weight, _)| weight);
        }
    }

    /// The newest event is kept, however great it is.
    fn is_over(&self) -> bool {
        self.entries.len() > 1 && (self.entries.len() > self.room.entries || self.bytes > self.room.bytes)
    }

    /// The number of the oldest event that is kept; the next one's if there is none.
    fn oldest(&self) -> u64 {
        self.entries.front().map_or(self.newest + 1, |(_, entry)| entry.seq)
    }

    fn after(&self, seq: u64) -> impl Iterator<Item = &Arc<Entry>> {
        let skipped = usize::try_from((seq + 1).saturating_sub(self.oldest())).unwrap_or(usize::MAX);
        self.entries.range(skipped.min(self.entries.len())..).map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::event::Severity;

    fn event(kind: Kind) -> Event {
        Event::new(kind, Severity::Info, "so it is")
    }

    fn log(entries: usize) -> EventLog {
        EventLog::with_room(Room { entries, bytes: BYTES })
    }

    fn asked(log: &EventLog, after: u64) -> Asked {
        Asked { after: Some(log.cursor(after)), kinds: BTreeSet::new(), limit: 100 }
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.events.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn events_are_numbered_and_given_once() {
        let log = log(10);
        (0..5).for_each(|_| log.push(event(Kind::Moved)));
        let first = log.read(&Asked { limit: 2, ..Asked::default() }).unwrap();
        assert_eq!((numbers(&first), first.next.seq, first.missed, first.restarted), (vec![1, 2], 2, 0, false));
        let rest = log.read(&asked(&log, 2)).unwrap();
        assert_eq!((numbers(&rest), rest.next.seq), (vec![3, 4, 5], 5));
        let none = log.read(&asked(&log, 5)).unwrap();
        assert_eq!((numbers(&none), none.next.seq), (vec![], 5));
        let times: Vec<_> = rest.events.iter().map(|entry| entry.at).collect();
        assert!(times.is_sorted());
    }

    #[test]
    fn what_was_dropped_is_counted() {
        let log = log(3);
        (0..8).for_each(|_| log.push(event(Kind::Moved)));
        let page = log.read(&asked(&log, 2)).unwrap();
        assert_eq!((numbers(&page), page.missed), (vec![6, 7, 8], 3));
        assert_eq!(log.read(&asked(&log, 5)).unwrap().missed, 0);
        assert_eq!(log.read(&Asked { limit: 9, ..Asked::default() }).unwrap().missed, 0);
    }

    #[test]
    fn the_log_is_bound_in_bytes_too_and_keeps_the_newest() {
        let log = EventLog::with_room(Room { entries: 100, bytes: 3 * event(Kind::Info).weight() });
        (0..5).for_each(|_| log.push(event(Kind::Info)));
        assert_eq!(numbers(&log.read(&asked(&log, 0)).unwrap()), [3, 4, 5]);
        log.push(Event::new(Kind::Info, Severity::Info, "x".repeat(10_000)));
        assert_eq!(numbers(&log.read(&asked(&log, 0)).unwrap()), [6]);
        log.push(event(Kind::Info));
        assert_eq!(numbers(&log.read(&asked(&log, 0)).unwrap()), [7]);
    }

    #[test]
    fn kinds_are_chosen_and_the_others_passed_over() {
        let log = log(10);
        [Kind::Moved, Kind::Info, Kind::Moved, Kind::Info].into_iter().for_each(|kind| log.push(event(kind)));
        let only = |limit| Asked { kinds: [Kind::Moved].into(), limit, ..asked(&log, 0) };
        let page = log.read(&only(1)).unwrap();
        assert_eq!((numbers(&page), page.next.seq), (vec![1], 1));
        let page = log.read(&only(5)).unwrap();
        assert_eq!((numbers(&page), page.next.seq, page.missed), (vec![1, 3], 4, 0));
    }

    #[test]
    fn a_cursor_of_another_start_begins_anew_and_one_of_the_future_is_refused() {
        let (before, log) = (log(10), log(2));
        assert_ne!(before.stream(), log.stream());
        (0..3).for_each(|_| log.push(event(Kind::Moved)));
        let page = log.read(&asked(&before, 9)).unwrap();
        assert_eq!((numbers(&page), page.missed, page.restarted), (vec![2, 3], 1, true));
        let error = log.read(&asked(&log, 4)).unwrap_err();
        assert_eq!(error, BadCursor::Future { asked: log.cursor(4), newest: log.cursor(3) });
    }

    #[test]
    fn a_cursor_reads_as_it_is_written() {
        let cursor = log(1).cursor(42);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", ":", "abc", "abc:", ":1", "abc:-1", "abc:+1", "a b:1", "abc:1:2", "abc:99999999999999999999"] {
            assert_eq!(text.parse::<Cursor>(), Err(BadCursor::Garbled(text.to_owned())));
        }
    }

    #[tokio::test]
    async fn who_waits_is_given_the_next_event() {
        let log = Arc::new(log(2));
        log.push(event(Kind::Moved));
        let only = Asked { kinds: [Kind::Gone].into(), ..asked(&log, 1) };
        let tell = async {
            // Those that are not asked for do not end the wait, and are not missed when they are dropped.
            for kind in [Kind::Info, Kind::Info, Kind::Info, Kind::Gone] {
                log.push(event(kind));
                tokio::task::yield_now().await;
            }
        };
        let (page, ()) = tokio::join!(log.wait(&only, Duration::from_secs(60)), tell);
        let page = page.unwrap();
        assert_eq!((numbers(&page), page.next.seq, page.missed), (vec![5], 5, 0));
    }

    #[tokio::test]
    async fn a_wait_ends_with_what_there_is() {
        let log = log(2);
        log.push(event(Kind::Moved));
        let page = log.wait(&asked(&log, 1), Duration::from_millis(1)).await.unwrap();
        assert_eq!((numbers(&page), page.next.seq), (vec![], 1));
    }
}

//! Carries messages to hooks: each hook hears of one incident in order, a few hooks at a time, again if need be.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    fmt::Display,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    disk::Disk,
    message::{Message, Occasion},
    settings::{HookSettings, Target},
    spool::{Kept, Outbox, Pending},
    trouble::Trouble,
    webhook::Webhooks,
};
use crate::{engine::IncidentId, telemetry::Telemetry};

/// How many messages may wait to be told, each hook's counted for itself.
const ROOM: usize = 1024;
/// How long what an earlier run has left is waited for, before what is new is told ahead of it.
const LOOK_BACK: Duration = Duration::from_secs(5);
/// How long attempts that are under way may take to finish when the agent ends.
const LAST_ATTEMPTS: Duration = Duration::from_secs(3);

/// One message as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) message: Message,
    pub(super) body: Arc<[u8]>,
}

impl Letter {
    fn new(message: Message) -> Self {
        Self { body: message.to_json().into(), message }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Delivered,
    /// It may be otherwise the next time, which is to be after so long.
    Again {
        why: String,
        after: Option<Duration>,
    },
    /// It will be the same the next time.
    Refused(String),
}

impl Attempt {
    pub(super) fn again(why: impl Display) -> Self {
        Self::Again { why: why.to_string(), after: None }
    }
}

/// Why what was asked for was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// Nobody is there to be asked.
    #[error("no hook is configured for {0}; give --hook {0}=…")]
    NoHook(Occasion),
    /// Too much waits to be told already.
    #[error("{ROOM} messages wait to be told to hooks already")]
    NoRoom,
    /// A hook did not do it.
    #[error("{hook}: {why}")]
    Failed {
        /// What may be shown of the hook.
        hook: String,
        /// Why not.
        why: String,
    },
}

/// Tells hooks. When it is dropped, attempts that are under way may take a few seconds more, and what is not told by then
/// is told by the next run.
#[derive(Debug)]
pub struct Hooks {
    settings: Arc<HookSettings>,
    trouble: Arc<Trouble>,
    telemetry: Arc<Telemetry>,
    room: Arc<Semaphore>,
    orders: mpsc::UnboundedSender<Order>,
    /// Closed when the courier has ended.
    ended: watch::Receiver<()>,
}

/// One message for one hook.
#[derive(Debug)]
struct Order {
    hook: usize,
    letter: Letter,
    /// Whoever waits for how it ends. What somebody waits for is not kept on disk: they ask again.
    answer: Option<oneshot::Sender<Result<(), NotDone>>>,
    room: OwnedSemaphorePermit,
}

impl Hooks {
    /// Tells what an earlier run has left in the outbox, and from then on whatever it is given. Has to be called on a
    /// tokio runtime.
    #[must_use]
    pub fn start(settings: HookSettings, outbox: Arc<dyn Outbox>, telemetry: Arc<Telemetry>) -> Self {
        let webhooks = Webhooks::new(&settings);
        Self::start_with(settings, outbox, telemetry, webhooks)
    }

    pub(super) fn start_with(
        settings: HookSettings,
        outbox: Arc<dyn Outbox>,
        telemetry: Arc<Telemetry>,
        webhooks: Webhooks,
    ) -> Self {
        telemetry.watch_hooks(Occasion::ALL.map(Occasion::as_str));
        let (settings, trouble) = (Arc::new(settings), Arc::new(Trouble::new(Arc::clone(&telemetry))));
        let room = Arc::new(Semaphore::new(ROOM));
        let (orders, incoming) = mpsc::unbounded_channel();
        let round = Round {
            settings: Arc::clone(&settings),
            webhooks,
            turns: Semaphore::new(settings.concurrency.max(1)),
            telemetry: Arc::clone(&telemetry),
            trouble: Arc::clone(&trouble),
        };
        let courier = Courier {
            round: Arc::new(round),
            disk: Disk::new(outbox, Arc::clone(&trouble)),
            room: Arc::clone(&room),
            stop: watch::channel(false).0,
            lanes: BTreeMap::new(),
            under_way: JoinSet::new(),
            papers: JoinSet::new(),
            sequence: nanos(SystemTime::now()),
        };
        let (alive, ended) = watch::channel(());
        tokio::spawn(async move {
            courier.run(incoming).await;
            drop(alive);
        });
        Self { settings, trouble, telemetry, room, orders, ended }
    }

    /// Tells everybody who is to hear of this occasion. Never waits: beyond what may wait to be told, what is new is
    /// dropped, which is counted and told to people.
    pub fn tell(&self, message: &Message) {
        for hook in self.hooks_for(message.occasion()) {
            // How it ended is counted and told by itself.
            let _ = self.order(hook, message, None);
        }
    }

    /// Asks everybody who is there for this occasion. `done` is called when all have done it, or with the first who did
    /// not; at once if nobody can be asked, and never if the agent ends before. Never waits. Has to be called on the runtime.
    pub fn ask(&self, message: &Message, done: impl FnOnce(Result<(), NotDone>) + Send + 'static) {
        let hooks: Vec<_> = self.hooks_for(message.occasion()).collect();
        if hooks.is_empty() {
            return done(Err(NotDone::NoHook(message.occasion())));
        }
        let mut answers = Vec::new();
        for hook in hooks {
            let (answer, answered) = oneshot::channel();
            if let Err(error) = self.order(hook, message, Some(answer)) {
                return done(Err(error));
            }
            answers.push(answered);
        }
        tokio::spawn(async move {
            if let Some(all) = all_of(answers).await {
                done(all);
            }
        });
    }

    /// Ends a few seconds after this was dropped at the latest: when no attempt is under way any more, and what is not told
    /// is kept for the next run. For whoever lets the agent go, and then waits before the runtime ends.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    }

    fn hooks_for(&self, occasion: Occasion) -> impl Iterator<Item = usize> {
        let hooks = self.settings.hooks().iter().enumerate();
        hooks.filter(move |(_, hook)| hook.occasions.contains(&occasion)).map(|(at, _)| at)
    }

    fn order(
        &self,
        hook: usize,
        message: &Message,
        answer: Option<oneshot::Sender<Result<(), NotDone>>>,
    ) -> Result<(), NotDone> {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            self.drop_for_want_of_room(hook, message);
            return Err(NotDone::NoRoom);
        };
        if self.room.available_permits() > ROOM / 2 {
            self.trouble.full(None);
        }
        let letter = Letter::new(message.clone());
        // The courier ends only with this.
        let _ = self.orders.send(Order { hook, letter, answer, room });
        Ok(())
    }

    fn drop_for_want_of_room(&self, hook: usize, message: &Message) {
        self.trouble.full(Some(NotDone::NoRoom.to_string()));
        let target = self.settings.hooks().get(hook).map(|hook| hook.target.to_string()).unwrap_or_default();
        let (occasion, incident) = (message.occasion().as_str(), message.incident());
        self.telemetry.hook_dropped(occasion, incident, target, NotDone::NoRoom);
    }
}

/// `None` if the agent ends before all have answered.
async fn all_of(answers: Vec<oneshot::Receiver<Result<(), NotDone>>>) -> Option<Result<(), NotDone>> {
    for answer in answers {
        if let Err(error) = answer.await.ok()? {
            return Some(Err(error));
        }
    }
    Some(Ok(()))
}

/// Greater than any number of an earlier run, as long as nobody sets the clock back.
fn nanos(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What is told in order: what one hook is to hear of one incident.
type Lane = (usize, IncidentId);

/// One message on its way to one hook.
#[derive(Debug)]
struct Parcel {
    hook: usize,
    letter: Letter,
    answer: Option<oneshot::Sender<Result<(), NotDone>>>,
    hold: Hold,
}

/// What a parcel holds until it is over.
#[derive(Debug)]
enum Hold {
    /// Its file; whoever keeps that holds its room.
    File(oneshot::Sender<()>),
    /// Only its room.
    Room { _held: OwnedSemaphorePermit },
}

impl Parcel {
    const fn lane(&self) -> Lane {
        (self.hook, self.incident())
    }

    const fn incident(&self) -> IncidentId {
        self.letter.message.incident()
    }

    const fn occasion(&self) -> &'static str {
        self.letter.message.occasion().as_str()
    }

    fn answer(&mut self, answer: Result<(), NotDone>) {
        // Whoever asked may have given up.
        let _ = self.answer.take().map(|to| to.send(answer));
    }

    /// It is told, or never will be.
    fn close(self) {
        if let Hold::File(over) = self.hold {
            // Nobody keeps it any more only while the agent ends.
            let _ = over.send(());
        }
    }
}

/// The loop that owns all parcels.
struct Courier {
    round: Arc<Round>,
    disk: Disk,
    room: Arc<Semaphore>,
    /// Whether no further attempt is to begin.
    stop: watch::Sender<bool>,
    /// What waits behind the one parcel of each lane that is under way.
    lanes: BTreeMap<Lane, VecDeque<Parcel>>,
    under_way: JoinSet<(Lane, Option<Parcel>)>,
    /// Who keeps the files.
    papers: JoinSet<()>,
    sequence: u64,
}

impl Courier {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        self.resume().await;
        loop {
            select! {
                order = orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => break,
                },
                Some(ended) = self.under_way.join_next() => self.ended(ended.ok()),
                Some(_) = self.papers.join_next() => {}
            }
        }
        self.finish().await;
    }

    /// What an earlier run has left comes first.
    async fn resume(&mut self) {
        let Ok(Kept { pending, mut left, damaged }) = timeout(LOOK_BACK, self.disk.pending(ROOM)).await else {
            let why = format!("what was to be told before was not read within {LOOK_BACK:?}");
            return self.round.trouble.disk(Some(why));
        };
        for file in &damaged {
            self.round.telemetry.hooks_damaged(file);
        }
        for pending in pending {
            left += usize::from(!self.take_up(pending).await);
        }
        if left > 0 {
            tracing::warn!(event = "hooks_left", "{left} older messages to hooks wait for the next start");
        }
    }

    /// Whether there is room for it.
    async fn take_up(&mut self, pending: Pending) -> bool {
        let hooks = self.round.settings.hooks();
        let Some(hook) = hooks.iter().position(|hook| hook.target.key() == pending.hook) else {
            let (occasion, incident) = (pending.message.occasion().as_str(), pending.message.incident());
            let why = "it is not configured any more";
            self.round.telemetry.hook_dropped(occasion, incident, "a hook of an earlier run", why);
            self.disk.forget(Arc::new(pending)).await;
            return true;
        };
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else { return false };
        let letter = Letter::new(pending.message.clone());
        let hold = self.keep(pending, true, room);
        self.send(Parcel { hook, letter, answer: None, hold });
        true
    }

    fn take(&mut self, order: Order) {
        let Order { hook, letter, answer, room } = order;
        let target = self.round.settings.hooks().get(hook).map(|hook| hook.target.key());
        let hold = match target {
            Some(key) if answer.is_none() => {
                self.sequence += 1;
                let pending = Pending { sequence: self.sequence, hook: key, message: letter.message.clone() };
                self.keep(pending, false, room)
            }
            _ => Hold::Room { _held: room },
        };
        self.send(Parcel { hook, letter, answer, hold });
    }

    fn keep(&mut self, pending: Pending, is_kept: bool, room: OwnedSemaphorePermit) -> Hold {
        let (over, when_over) = oneshot::channel();
        self.papers.spawn(self.disk.clone().keep_until(Arc::new(pending), is_kept, when_over, room));
        Hold::File(over)
    }

    fn send(&mut self, parcel: Parcel) {
        match self.lanes.entry(parcel.lane()) {
            Entry::Occupied(mut lane) => lane.get_mut().push_back(parcel),
            Entry::Vacant(lane) => {
                lane.insert(VecDeque::new());
                self.set_out(parcel);
            }
        }
    }

    fn set_out(&mut self, parcel: Parcel) {
        let (round, stop) = (Arc::clone(&self.round), self.stop.subscribe());
        self.under_way.spawn(async move { (parcel.lane(), round.bring(parcel, stop).await) });
    }

    /// A parcel that comes back is left for the next run. Only a panic, which is a bug, leaves its lane standing.
    fn ended(&mut self, ended: Option<(Lane, Option<Parcel>)>) {
        let Some((lane, _left)) = ended else { return };
        match self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) {
            Some(next) => self.set_out(next),
            None => drop(self.lanes.remove(&lane)),
        }
    }

    async fn finish(mut self) {
        self.stop.send_replace(true);
        let attempts = async {
            while let Some(ended) = self.under_way.join_next().await {
                self.ended(ended.ok());
            }
        };
        // What is late is killed, and told again by the next run.
        let _ = timeout(LAST_ATTEMPTS, attempts).await;
        self.under_way.shutdown().await;
        self.lanes.clear();
        let papers = async { while self.papers.join_next().await.is_some() {} };
        let _ = timeout(LAST_ATTEMPTS, papers).await;
    }
}

/// What every attempt needs.
struct Round {
    settings: Arc<HookSettings>,
    webhooks: Webhooks,
    /// Attempts that may be made at one time.
    turns: Semaphore,
    telemetry: Arc<Telemetry>,
    trouble: Arc<Trouble>,
}

impl Round {
    /// Tells one hook, until it has taken the message or is given up. The parcel comes back if the agent ends before.
    async fn bring(&self, parcel: Parcel, mut stop: watch::Receiver<bool>) -> Option<Parcel> {
        let Some(target) = self.settings.hooks().get(parcel.hook).map(|hook| &hook.target) else { return Some(parcel) };
        let (id, mut attempts, mut first) = (parcel.letter.message.id, 0, None);
        let why = loop {
            let turn = select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Some(parcel),
                turn = self.turns.acquire() => turn,
            };
            let first = *first.get_or_insert_with(Instant::now);
            attempts += 1;
            let attempt = self.attempt(target, &parcel.letter).await;
            drop(turn);
            let (why, after) = match attempt {
                Attempt::Delivered => return self.delivered(target, parcel),
                Attempt::Refused(why) => break why,
                Attempt::Again { why, after } => (why, after),
            };
            let Some(wait) = self.settings.patience.wait(id, attempts, first.elapsed(), after) else {
                break format!("{why} (attempt {attempts}, the last)");
            };
            self.telemetry.hook_retried(id.occasion.as_str(), id.incident, target, why);
            select! {
                _ = stop.wait_for(|stop| *stop) => return Some(parcel),
                () = sleep(wait) => {}
            }
        };
        self.given_up(target, parcel, why)
    }

    async fn attempt(&self, target: &Target, letter: &Letter) -> Attempt {
        let limit = self.settings.timeout;
        match target {
            Target::Command(command) => command.tell(letter, limit).await,
            Target::Webhook(endpoint) => self.webhooks.tell(endpoint, letter, limit).await,
        }
    }

    fn delivered(&self, target: &Target, mut parcel: Parcel) -> Option<Parcel> {
        self.telemetry.hook_delivered(parcel.occasion(), parcel.incident(), target);
        self.trouble.heard(target);
        parcel.answer(Ok(()));
        parcel.close();
        None
    }

    fn given_up(&self, target: &Target, mut parcel: Parcel, why: String) -> Option<Parcel> {
        self.telemetry.hook_failed(parcel.occasion(), parcel.incident(), target, &why);
        self.trouble.deaf(target);
        parcel.answer(Err(NotDone::Failed { hook: target.to_string(), why }));
        parcel.close();
        None
    }
}

//! The loop: takes in one thing at a time, and carries out what the engine then wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};

use caps::{CapSet, Capability};
use tokio::{
    runtime,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    clock,
    error::Error,
    handle::{Handle, Query},
    keeper::Keeper,
    loop_thread::{Looping, OwnRuntime},
    readiness::{Latches, latches},
    restoring::last_incident,
    settings::Settings,
    surveyor::{Errand, News, Surveyor},
    tapper::{Order, Tapper},
    told,
};
use crate::{
    allocator::{Clock, Late, Store, StoreError},
    capture::{
        CaptureError, Claims, FrameSender, Hook, KernelMartian, Known, Listener, MartianLog, Quarantine, Started,
    },
    engine::{self, Action, Engine, Input},
    hooks::Hooks,
    net::{BridgeName, IfIndex, Ipv4Net},
    netlink::{self, Bridge, Events, Host, Port, VlanDevice},
    telemetry::{BridgeGauges, Feature, Telemetry},
    time::{Span, Timestamp},
};

/// How often the taps' counters are read for losses.
const TICK: Duration = Duration::from_secs(1);
/// How often what could not be looked at is looked at again, and released addresses are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How often it is read what the tap has absorbed: well before a silent station is asked whether it is still there.
const HEAR_EVERY: Span = Span::from_secs(15);
/// How old that may be for whoever looks at the table.
const JUST_HEARD: Span = Span::from_secs(1);
/// How many rows of the table are told at a time: what the loop does in well under a millisecond.
const PAGE: usize = 64;
/// Questions that may wait for an answer.
const QUERIES: usize = 64;

/// Everything the loop owns.
pub(super) struct Agent {
    pub(super) settings: watch::Sender<Arc<Settings>>,
    pub(super) engine: Engine,
    pub(super) tapper: Tapper,
    /// How the tap hooks in.
    pub(super) hook: Option<Hook>,
    /// What the tap need not report again.
    pub(super) known: Known,
    /// What the tap drops.
    pub(super) quarantine: Quarantine,
    pub(super) keeper: Keeper,
    pub(super) hooks: Hooks,
    /// The machine's boot.
    pub(super) boot: String,
    /// When it was last read what the tap has absorbed.
    pub(super) heard_at: Timestamp,
    pub(super) sender: Arc<FrameSender>,
    pub(super) store: Arc<dyn Store>,
    pub(super) telemetry: Arc<Telemetry>,
    /// The watched bridges; `None` for one that is not there.
    pub(super) bridges: BTreeMap<BridgeName, Option<Watched>>,
    pub(super) ports: BTreeMap<IfIndex, Port>,
    /// Subnets whose pool is in the store.
    pub(super) pools: BTreeSet<(BridgeName, Ipv4Net)>,
    /// Bridges whose pools the store has been asked to keep and has not answered yet.
    pub(super) keeping: BTreeSet<BridgeName>,
    /// Whether the engine knows of what the store says was under way.
    pub(super) left_told: bool,
    /// Whether an operator has paused this agent, or had it go on.
    pub(super) pause_told: bool,
    /// Looks at bridges that have not ended yet, and what the kernel has told of since the first of them began.
    pub(super) looks: usize,
    pub(super) told: BTreeMap<IfIndex, Timestamp>,
    /// Ports of bridges that are not known to be watched while a look is under way.
    pub(super) early: BTreeMap<IfIndex, Port>,
    /// Bridges that the first inventory, or one after lost events, still waits for.
    pub(super) inventory: BTreeSet<BridgeName>,
    /// Ports behind which there is a namespace that could not be looked into.
    pub(super) blind: BTreeSet<IfIndex>,
    /// Lines of the kernel's log that are known to be lost, and were told of.
    pub(super) lost_lines: u64,
    pub(super) latches: Latches,
    pub(super) news: mpsc::UnboundedSender<News>,
    pub(super) errands: mpsc::UnboundedSender<Errand>,
    /// Where others than the loop work.
    pub(super) workers: runtime::Handle,
}

/// A watched bridge that is there.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) bridge: Bridge,
    /// The host's addresses on it.
    pub(super) networks: Vec<Ipv4Net>,
    /// The host's interfaces in its VLANs.
    pub(super) vlans: Vec<VlanDevice>,
}

/// What the loop takes its inputs from.
struct Sources {
    news: mpsc::UnboundedReceiver<News>,
    claims: Claims,
    events: Events,
    queries: mpsc::Receiver<Query>,
    /// The kernel's log; `None` if it cannot be read.
    martians: Option<MartianLog>,
}

/// Starts to watch, and to tell these hooks. The future runs the agent until it is dropped; the taps go with it.
///
/// # Errors
/// When the kernel cannot do it or does not let us, a bridge is missing that was not to be waited for, or the lease
/// database is damaged, newer or another program's. One that cannot be reached is waited for while the agent watches.
pub async fn start(
    settings: &Settings,
    telemetry: Arc<Telemetry>,
    hooks: Hooks,
) -> Result<(Handle, impl Future<Output = Result<(), Error>> + use<>), Error> {
    let (news_in, news) = mpsc::unbounded_channel();
    let clock = Clock::system().map_err(Error::Clock)?;
    let boot = clock.boot().to_owned();
    let store = open_store(settings, clock, Arc::clone(&telemetry), news_in.clone())?;
    let own = OwnRuntime::new()?;
    // From here on nothing is missed: events wait in the socket until the first survey is done.
    let events = own.within(Events::open)?;
    let mut host = Host::open()?;
    for name in &settings.bridges {
        require_bridge(&mut host, *name, settings.wait).await?;
        telemetry.watch(*name);
    }
    let Started { listener, claims, known, quarantine, refused } = own.within(|| Listener::start(&settings.tap))?;
    tell_how(&telemetry, settings, refused.as_ref());
    tell_rights(&telemetry);
    let (errands, errands_out) = mpsc::unbounded_channel();
    let (queries_in, queries) = mpsc::channel(QUERIES);
    let (latches, readiness) = latches();
    let (settings_in, settings_out) = watch::channel(Arc::new(settings.clone()));
    let handle = Handle {
        queries: queries_in,
        store: Arc::clone(&store),
        readiness,
        telemetry: Arc::clone(&telemetry),
        settings: settings_out,
        pausing: Arc::default(),
    };
    let agent = Agent {
        settings: settings_in,
        engine: Engine::new(engine::Config {
            can_contain: quarantine.can_contain(),
            last_incident: last_incident(store.as_ref()),
            ..settings.engine.clone()
        }),
        hook: listener.hook(),
        known,
        quarantine,
        keeper: Keeper::start(Arc::clone(&store), boot.clone(), news_in.clone()).map_err(Error::Thread)?,
        hooks,
        boot,
        heard_at: Timestamp::default(),
        tapper: Tapper::start(listener, Arc::clone(&telemetry), news_in.clone()).map_err(Error::Thread)?,
        sender: Arc::new(FrameSender::open()?),
        store,
        telemetry,
        bridges: settings.bridges.iter().map(|name| (*name, None)).collect(),
        ports: BTreeMap::new(),
        pools: BTreeSet::new(),
        keeping: BTreeSet::new(),
        left_told: false,
        pause_told: false,
        looks: 0,
        told: BTreeMap::new(),
        early: BTreeMap::new(),
        inventory: BTreeSet::new(),
        blind: BTreeSet::new(),
        lost_lines: 0,
        latches,
        news: news_in.clone(),
        errands,
        workers: runtime::Handle::current(),
    };
    let surveyor = AbortOnDrop(tokio::spawn(Surveyor::new(host, errands_out, news_in).run()));
    let martians = own.within(|| agent.open_kernel_log());
    let run = agent.run(Sources { events, claims, news, queries, martians }, surveyor);
    Ok((handle, Looping::start(own, run).map_err(Error::Thread)?.ended()))
}

/// Says what there is to listen with, if that is less than there could be.
fn tell_how(telemetry: &Telemetry, settings: &Settings, refused: Option<&CaptureError>) {
    if let Some(refused) = refused {
        let reason = format!("listens by packet sockets, which takes more of the processor: {refused}");
        telemetry.degraded(Feature::Ebpf, Some(&reason));
        if settings.tap.watch_ipv4 {
            let reason = "without eBPF, whoever uses an address without a word of ARP is not seen on the wire";
            telemetry.degraded(Feature::Ipv4Watch, Some(&reason));
        }
        let reason = "without eBPF, nobody is contained: a loser's word is heard until it is moved";
        telemetry.degraded(Feature::Quarantine, Some(&reason));
    }
}

/// Says what may not be done in sandboxes' namespaces. Where the kernel does not tell what the process may, the first
/// failure will.
fn tell_rights(telemetry: &Telemetry) {
    const RIGHTS: [(Capability, &str); 2] = [
        (
            Capability::CAP_SYS_ADMIN,
            "nobody can be moved, and what is in a namespace is known only if the kernel tells by id",
        ),
        (Capability::CAP_SYS_PTRACE, "namespaces without a name of their own are not known by whom they belong to"),
    ];
    let lacks = |capability| caps::has_cap(None, CapSet::Effective, capability).is_ok_and(|has| !has);
    let lacking = RIGHTS.into_iter().filter(|(capability, _)| lacks(*capability));
    let reasons: Vec<_> = lacking.map(|(capability, loss)| format!("without {capability}, {loss}")).collect();
    if !reasons.is_empty() {
        telemetry.degraded(Feature::Namespaces, Some(&reasons.join("; ")));
    }
}

/// Opens the store, now or later, and has it told aloud when it fails and to the loop when it works again.
fn open_store(
    settings: &Settings,
    clock: Clock,
    telemetry: Arc<Telemetry>,
    news: mpsc::UnboundedSender<News>,
) -> Result<Arc<dyn Store>, Error> {
    let tell = move |failure: Option<&StoreError>| {
        telemetry.degraded(Feature::Store, failure.map(|failure| failure as &dyn Display));
        if failure.is_none() {
            // Nobody listens any more only while the agent stops.
            let _ = news.send(News::StoreRestored);
        }
    };
    Ok(Arc::new(Late::open(&settings.database, "agent", clock, tell)?))
}

async fn require_bridge(host: &mut Host, name: BridgeName, wait: bool) -> Result<(), Error> {
    match host.bridge(name).await {
        Err(netlink::Error::NoBridge(_)) if wait => {
            tracing::info!(event = "waiting", bridge = %name, "waits for {name} to appear");
            Ok(())
        }
        found => Ok(found.map(drop)?),
    }
}

impl Agent {
    async fn run(mut self, mut sources: Sources, mut surveyor: AbortOnDrop<()>) -> Result<(), Error> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut again = interval(LOOK_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.begin();
        loop {
            let timeout = self.until_timeout();
            // Whatever is ready gets its turn, in random order: nothing that a sandbox can send in a flood starves the rest.
            tokio::select! {
                Some(news) = sources.news.recv() => self.news(news),
                event = sources.events.next() => self.event(event?),
                Some(query) = sources.queries.recv() => self.answer_query(query),
                _ = &mut surveyor.0 => return Err(Error::Surveyor),
                () = timeout => self.tell(Input::Timeout),
                _ = tick.tick() => {
                    self.tapper.order(Order::Count);
                    self.telemetry.unreadable("netlink", sources.events.malformed());
                    self.telemetry.unreadable("tap", sources.claims.unreadable());
                    self.count_lost_lines(sources.martians.as_ref());
                    self.telemetry.tell_repeats();
                }
                _ = again.tick() => {
                    self.look_again();
                    self.begin_to_hear(HEAR_EVERY);
                    self.tell_draining();
                }
                () = ready(()), if self.known.is_being_read() => self.hear_some(),
                martian = next_martian(&mut sources.martians) => match martian {
                    Ok(martian) => self.martian(martian),
                    Err(error) => {
                        sources.martians = None;
                        self.telemetry.degraded(Feature::KernelLog, Some(&format!("the kernel's log cannot be read any more: {error}")));
                    }
                },
                claims = sources.claims.next_batch() => self.claims(claims.map_err(Error::Ring)?),
            }
            self.settle();
        }
    }

    /// Tells what the store still knows of, and asks for a first look at everything.
    fn begin(&mut self) {
        self.tell_left_contained();
        self.tell_what_was_left();
        self.look_at_everything();
    }

    pub(super) fn look_at_everything(&mut self) {
        self.inventory = self.bridges.keys().copied().collect();
        self.inventory.clone().into_iter().for_each(|name| self.look_at(name));
    }

    pub(super) fn tell(&mut self, input: Input) {
        self.engine.handle(input, clock::now());
    }

    /// Carries out and tells whatever the engine has to say. What changes the bridge comes first: whoever reads the log may
    /// be slow. Then come the news, and what the book says of them. What is only to be written down comes last: who writes
    /// it takes a processor, and keeps whoever waits for the news from it.
    pub(super) fn settle(&mut self) {
        let mut to_keep = Vec::new();
        loop {
            let mut to_look_up = Vec::new();
            while let Some(action) = self.engine.next_action() {
                match action {
                    Action::Keep { .. } => to_keep.push(action),
                    Action::LookUpLeases { .. } => to_look_up.push(action),
                    _ => self.carry_out(action),
                }
            }
            self.tell_findings();
            if to_look_up.is_empty() {
                break;
            }
            to_look_up.into_iter().for_each(|question| self.carry_out(question));
        }
        to_keep.into_iter().for_each(|keep| self.carry_out(keep));
    }

    fn tell_findings(&mut self) {
        while let Some(finding) = self.engine.next_finding() {
            self.telemetry.finding(&finding);
            if let Some(message) = told::message(&finding) {
                self.hooks.tell(&message);
            }
        }
    }

    pub(super) fn send_errand(&self, errand: Errand) {
        // The surveyor ends only with the loop.
        let _ = self.errands.send(errand);
    }

    fn until_timeout(&self) -> impl Future<Output = ()> + use<> {
        let wait = self.engine.poll_timeout().map(|at| Duration::from(at.since(clock::now())));
        async move {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        }
    }

    fn answer_query(&mut self, query: Query) {
        // Who asked may have given up; then nobody needs the answer.
        match query {
            Query::Page(after, reply) => {
                self.hear(JUST_HEARD);
                let _ = reply.send(self.engine.rows_after(after, PAGE));
            }
            Query::Incidents(reply) => drop(reply.send(self.engine.incidents().cloned().collect())),
            Query::On(domain, address, reply) => drop(reply.send(self.engine.rows_on(domain, address).collect())),
            Query::Pause(until, reply) => {
                self.pause(until);
                let _ = reply.send(());
            }
            Query::PausedUntil(reply) => drop(reply.send(self.engine.paused_until())),
            Query::Quarantined(reply) => drop(reply.send(self.quarantined())),
            Query::Release(release, reply) => drop(reply.send(self.release(release))),
            Query::Overview(reply) => drop(reply.send(self.overview())),
            Query::Reconfigure(engine, reply) => {
                self.reconfigure(*engine);
                let _ = reply.send(());
            }
            Query::Gauges(reply) => {
                self.set_gauges();
                let _ = reply.send(());
            }
        }
    }

    fn set_gauges(&self) {
        for name in self.bridges.keys() {
            let gauges = BridgeGauges {
                bindings: self.engine.binding_count(*name),
                duplicates: self.engine.open_count(*name),
                quarantined: self.engine.contained_count(*name),
            };
            self.telemetry.set_bridge(*name, gauges);
        }
        self.telemetry.set_held(&self.engine.held_counts());
    }

    /// The watched bridge with this index.
    pub(super) fn bridge_name(&self, index: IfIndex) -> Option<BridgeName> {
        let found =
            self.bridges.iter().find(|(_, bridge)| bridge.as_ref().is_some_and(|known| known.bridge.index == index));
        found.map(|(name, _)| *name)
    }

    /// The watched bridge that an interface is, or is a port of.
    pub(super) fn bridge_of(&self, interface: IfIndex) -> Option<BridgeName> {
        let bridge = self.ports.get(&interface).map_or(interface, |port| port.bridge);
        self.bridge_name(bridge)
    }
}

async fn next_martian(log: &mut Option<MartianLog>) -> std::io::Result<KernelMartian> {
    match log {
        Some(log) => log.next().await,
        None => std::future::pending().await,
    }
}

/// Ends a task with its owner.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

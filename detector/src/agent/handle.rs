//! How the rest of the process asks the running agent.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::{
    clock,
    operating::{NotLifted, Quarantined, Release},
    overview::Overview,
    readiness::{Latch, Readiness},
    settings::Settings,
};
use crate::{
    allocator::{
        AdoptError, AllocateError, Change, Fence, JournalEntry, Standing, Store, StoreError, Terms, Unwitnessed, User,
        Wish, Witness, hand_out,
    },
    capture::Probing,
    engine::{Config, Incident, Row},
    net::{Domain, IfName, Lease, Owner},
    telemetry::{EventLog, Telemetry},
    time::Timestamp,
    witness::Wire,
};

/// A question to the agent's loop, answered between two inputs.
#[derive(Debug)]
pub(super) enum Query {
    /// Some rows of the live table, from behind an address on.
    Page(Option<(Domain, Ipv4Addr)>, oneshot::Sender<Vec<Row>>),
    Incidents(oneshot::Sender<Vec<Incident>>),
    /// The live table's rows of one address.
    On(Domain, Ipv4Addr, oneshot::Sender<Vec<Row>>),
    /// Nothing new is to be done until then, or it goes on.
    Pause(Option<Timestamp>, oneshot::Sender<()>),
    PausedUntil(oneshot::Sender<Option<Timestamp>>),
    Quarantined(oneshot::Sender<Vec<Quarantined>>),
    Release(Release, oneshot::Sender<Result<Quarantined, NotLifted>>),
    Overview(oneshot::Sender<Overview>),
    /// The engine is to judge and act by this.
    Reconfigure(Box<Config>, oneshot::Sender<()>),
    /// Brings the metrics up to date that nobody keeps while nobody looks.
    Gauges(oneshot::Sender<()>),
}

/// A row of the live table with what the allocator says of its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// What is seen.
    pub row: Row,
    /// What is written; `None` if nobody has a lease on the address, or that is not known.
    pub lease: Option<Lease>,
    /// Whether the store could be asked for it.
    pub lease_is_known: bool,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The agent is shutting down.
    #[error("the agent is stopping")]
    Stopping,
    /// Nothing is handed out before it is known who is there.
    #[error(
        "the agent has not yet looked at every sandbox, so it cannot tell which addresses are free: ask again soon"
    )]
    NotReady,
    /// The lease database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No lease was given.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    /// An address was not adopted.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// Nobody was let go.
    #[error(transparent)]
    NotLifted(#[from] NotLifted),
    /// The metrics cannot be written down, which is a bug.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Asks the agent; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) queries: mpsc::Sender<Query>,
    pub(super) store: Arc<dyn Store>,
    pub(super) readiness: Readiness,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    /// Held by whoever writes down that the agent is paused.
    pub(super) pausing: Arc<Mutex<()>>,
}

/// The agent's live table, as the one that is asked before an address is handed out, and the wire.
struct Seen<'a> {
    queries: &'a mpsc::Sender<Query>,
    /// Asked besides, if it was wished for or the agent does not watch the bridge.
    wire: Option<Wire>,
}

impl Witness for Seen<'_> {
    fn user_of(&self, domain: Domain, address: Ipv4Addr, owner: &Owner) -> Result<Option<User>, Unwitnessed> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Unwitnessed(AskError::Stopping.to_string());
        self.queries.blocking_send(Query::On(domain, address, reply)).map_err(|_| stopping())?;
        let rows = answer.blocking_recv().map_err(|_| stopping())?;
        let foreign = rows.into_iter().find(|row| !row.sandbox.owners.contains(owner));
        match (foreign, &self.wire) {
            (Some(row), _) => Ok(Some(User { mac: row.station.mac, shown_by: "is in the live table" })),
            (None, Some(wire)) => wire.user_of(domain, address, owner),
            (None, None) => Ok(None),
        }
    }
}

/// A walk through the live table, a few rows at a time: the table may be long, and neither the loop nor the memory is to
/// feel it. What changes meanwhile is seen or not; no address is seen twice.
pub struct TableWalk {
    agent: Handle,
    domain: Option<Domain>,
    address: Option<Ipv4Addr>,
    leases: BTreeMap<(Domain, Ipv4Addr), Lease>,
    lease_is_known: bool,
    /// Behind which address to go on; `None` at the end.
    next: Option<Option<(Domain, Ipv4Addr)>>,
}

impl TableWalk {
    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn next(&mut self) -> Result<Option<Vec<TableRow>>, AskError> {
        let Some(after) = self.next else { return Ok(None) };
        let rows = match (self.domain, self.address) {
            (Some(domain), Some(address)) => self.agent.ask(|reply| Query::On(domain, address, reply)).await?,
            _ => self.agent.ask(|reply| Query::Page(after, reply)).await?,
        };
        let is_whole = self.domain.is_some() && self.address.is_some();
        self.next = rows.last().filter(|_| !is_whole).map(|last| Some((last.domain, last.address)));
        let is_wanted = |row: &Row| {
            self.domain.is_none_or(|of| of == row.domain) && self.address.is_none_or(|of| of == row.address)
        };
        Ok(Some(rows.into_iter().filter(is_wanted).map(|row| self.with_lease(row)).collect()))
    }

    fn with_lease(&self, row: Row) -> TableRow {
        let lease = self.leases.get(&(row.domain, row.address)).cloned();
        TableRow { lease, lease_is_known: self.lease_is_known, row }
    }
}

impl Handle {
    /// A walk through the live table, by domain, address and station, each row with the lease on its address; only the rows
    /// of a domain or an address, if one is named. Who is there is told even if the store cannot be read.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn table(&self, domain: Option<Domain>, address: Option<Ipv4Addr>) -> Result<TableWalk, AskError> {
        let leases = self.with_store(move |store| match domain.zip(address) {
            Some((domain, address)) => store.lease(domain, address).map(|lease| lease.into_iter().collect()),
            None => store.leases(domain),
        });
        let leases: Result<Vec<Lease>, _> = leases.await?;
        let lease_is_known = leases.is_ok();
        let leases = leases.unwrap_or_default().into_iter().map(|lease| ((lease.domain, lease.address), lease));
        let leases = leases.collect();
        Ok(TableWalk { agent: self.clone(), domain, address, leases, lease_is_known, next: Some(None) })
    }

    /// The incidents, open and lately closed, oldest first.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn incidents(&self) -> Result<Vec<Incident>, AskError> {
        self.ask(Query::Incidents).await
    }

    /// Every lease, by domain and address.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn leases(&self) -> Result<Vec<Lease>, AskError> {
        Ok(self.with_store(|store| store.leases(None)).await??)
    }

    /// The same agent, for somebody else: the journal will say that `actor` has made the changes.
    #[must_use]
    pub fn on_behalf_of(&self, actor: &str) -> Self {
        Self { store: self.store.on_behalf_of(actor), ..self.clone() }
    }

    /// What the agent was told to do, last.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// Has the agent judge and act by `engine` from now on. The rest of its settings stays as it was.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn reconfigure(&self, engine: Config) -> Result<(), AskError> {
        self.ask(|reply| Query::Reconfigure(Box::new(engine), reply)).await
    }

    /// The leases with how they stand, by domain and address.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn standings(&self) -> Result<Vec<Standing>, AskError> {
        Ok(self.with_store(|store| store.standings(None)).await??)
    }

    /// What the journal has of an address, in one domain or in all, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn history(&self, domain: Option<Domain>, address: Ipv4Addr) -> Result<Vec<JournalEntry>, AskError> {
        Ok(self.with_store(move |store| store.history(domain, address)).await??)
    }

    /// The lease of whom `wish` names, a new one if there is none. Never an address that the live table shows in use, nor,
    /// if it is to `probe` or does not watch the bridge, one that somebody answers for.
    ///
    /// # Errors
    /// When no lease can be given, the store fails, or the agent is stopping or has not looked at every sandbox yet.
    pub async fn allocate(&self, wish: Wish, probe: bool) -> Result<Lease, AskError> {
        if self.readiness.waits_for().contains(&Latch::Inventory) {
            return Err(AskError::NotReady);
        }
        let watched = self.settings().bridges.contains(&wish.domain.bridge);
        let wire = (probe || !watched).then(|| Wire::new(Probing::default()));
        let queries = self.queries.clone();
        let began = clock::now();
        let hand_out = move |store: &dyn Store| {
            let seen = Seen { queries: &queries, wire };
            hand_out(store, &wish, &seen, Terms::default())
        };
        let lease = self.with_store(hand_out).await??;
        self.telemetry.allocated(clock::now().since(began));
        Ok(lease)
    }

    /// Writes down whose an address is that is in use already.
    ///
    /// # Errors
    /// When somebody else holds the address, the owner holds another, the address is in no pool, or the store fails.
    pub async fn adopt(
        &self,
        domain: Domain,
        address: Ipv4Addr,
        owner: Owner,
        interface: Option<IfName>,
    ) -> Result<Lease, AskError> {
        Ok(self.with_store(move |store| store.adopt(domain, address, &owner, interface)).await??)
    }

    /// Gives a lease back, if it is still the one that is named.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn release(&self, fence: Fence) -> Result<Change, AskError> {
        let named = format!("{} at {}", fence.owner, fence.address);
        let change = self.with_store(move |store| store.release(&fence)).await??;
        if matches!(change, Change::Fenced { .. }) {
            self.telemetry.tell_fenced("release", named);
        }
        Ok(change)
    }

    /// Lets a lease rest without proof that nothing uses its address, if it is still the one that is named.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn discard(&self, fence: Fence) -> Result<Change, AskError> {
        let named = format!("{} at {}", fence.owner, fence.address);
        let change = self.with_store(move |store| store.discard(&fence)).await??;
        if matches!(change, Change::Fenced { .. }) {
            self.telemetry.tell_fenced("discard", named);
        }
        Ok(change)
    }

    /// What was told lately, and what will be: whoever reads it or waits takes nothing of the loop's time.
    #[must_use]
    pub fn events(&self) -> &EventLog {
        self.telemetry.events()
    }

    /// Where it is counted who was not answered.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// What the agent cannot do fully, each in one word and with the reason.
    #[must_use]
    pub fn shortcomings(&self) -> Vec<(&'static str, String)> {
        self.telemetry.shortcomings()
    }

    /// Claims that the tap could not report, so far, on all bridges.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.settings().bridges.iter().map(|bridge| self.telemetry.lost_on(*bridge)).sum()
    }

    /// Every metric as of now, in Prometheus' text format. A store that cannot be read leaves its own as they were, or out if it never could be.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn metrics(&self) -> Result<Vec<u8>, AskError> {
        self.ask(Query::Gauges).await?;
        self.telemetry.set_ready(self.readiness.waits_for().is_empty());
        let read = |store: &dyn Store| Ok::<_, StoreError>((store.leases(None)?, store.pools()?, store.fenced()?));
        // The store itself sees to it that its failures are told.
        if let Ok((leases, pools, fenced)) = self.with_store(read).await? {
            self.telemetry.set_pools(&pools, &leases);
            self.telemetry.set_fenced(&fenced);
        }
        Ok(self.telemetry.render()?)
    }

    /// What the agent has still to do before its word counts.
    #[must_use]
    pub const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    pub(super) async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.queries.send(query(reply)).await.map_err(|_| AskError::Stopping)?;
        answer.await.map_err(|_| AskError::Stopping)
    }

    /// The store waits for the disk, so it is asked where waiting blocks nobody.
    pub(crate) async fn with_store<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Store) -> T + Send + 'static,
    ) -> Result<T, AskError> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || ask(store.as_ref())).await.map_err(|_| AskError::Stopping)
    }
}

//! A book that may not be there yet: opened as soon as it can be, and looked after from then on.
//!
//! A thread of its own opens the database and tries again until it has; until then every call answers at once that it
//! could not be opened. Later, when a call has failed, the same thread makes changes of its own until one reaches the
//! disk. Whoever has it opened is told of both, so nobody else has to try or to remember.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        mpsc::{Receiver, RecvTimeoutError, SendError, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use super::{
    AdoptError, AllocateError, Change, Clock, Fence, Incidents, JournalEntry, Kept, OpenError, Pool, PoolError,
    Quarantine, Refusal, SqliteStore, Standing, Store, StoreError, Wish, error::MayBeOfStore,
};
use crate::{
    net::{Domain, IfName, Ipv4Net, Lease, Owner},
    time::Span,
};

/// How long [`Late::open`] waits for the first attempt. It takes milliseconds unless another process is writing, or the
/// disk is slow and the file large.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after a failed attempt the next one is made.
const AGAIN: Duration = Duration::from_secs(1);
/// The same where it failed for what is in the file: to find that out may mean to read all of it.
const AGAIN_IF_REFUSED: Duration = Duration::from_secs(30);

/// Is told that the store does not work, and why, at every failure; and once, with nothing, that it works again.
type Tell = Box<dyn Fn(Option<&StoreError>) + Send + Sync>;

/// A book of leases in an SQLite file that is opened when it can be.
#[derive(Clone, Debug)]
pub struct Late {
    shared: Arc<Shared>,
    actor: Arc<str>,
}

struct Shared {
    opened: OnceLock<SqliteStore>,
    state: Mutex<State>,
    tell: Tell,
    /// Wakes the keeper when something has failed; it ends when this is gone.
    wake: Sender<()>,
}

#[derive(Default)]
struct State {
    /// How often something failed since it worked last.
    failures: u64,
    /// Why it is not open, unless it is.
    unopened: String,
}

impl Late {
    /// Opens the lease database at `path`, as [`SqliteStore::open`] does; if that cannot be done now, as soon as it can.
    ///
    /// `tell` is called at every failure with what has failed, and with nothing when a change reaches the disk after that.
    /// It must not ask this store anything.
    ///
    /// # Errors
    /// When there is a file that is damaged, of a newer dupip, or another program's. One that turns out to be so only
    /// later is left alone too, but does not end anything: it is told, and tried again in case it is mended.
    pub fn open(
        path: &Path,
        actor: &str,
        clock: Clock,
        tell: impl Fn(Option<&StoreError>) + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        Self::open_within(PATIENCE, path, actor, clock, tell)
    }

    pub(super) fn open_within(
        patience: Duration,
        path: &Path,
        actor: &str,
        clock: Clock,
        tell: impl Fn(Option<&StoreError>) + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let (wake, woken) = channel();
        let state = Mutex::default();
        let shared = Arc::new(Shared { opened: OnceLock::new(), state, tell: Box::new(tell), wake });
        // Without room for a message, so that it is known whether a refusal was heard or came too late.
        let (refuse, refused) = sync_channel(0);
        let opening = Opening { path: path.to_owned(), actor: actor.to_owned(), clock };
        let keeper = Keeper { shared: Arc::downgrade(&shared), woken, opening };
        let started = thread::Builder::new().name("store".to_owned()).spawn(move || keeper.run(refuse));
        started.map_err(|error| OpenError { path: path.to_owned(), reason: error.into() })?;
        match refused.recv_timeout(patience) {
            Ok(error) => return Err(error),
            Err(RecvTimeoutError::Timeout) => shared.is_slow(path),
            Err(RecvTimeoutError::Disconnected) => {}
        }
        Ok(Self { shared, actor: actor.into() })
    }

    fn ask<T, E: MayBeOfStore>(&self, ask: impl FnOnce(&dyn Store) -> Result<T, E>) -> Result<T, E> {
        let Some(store) = self.shared.opened.get() else { return Err(self.shared.unopened().into()) };
        let answer = ask(store.on_behalf_of(&self.actor).as_ref());
        if let Some(error) = answer.as_ref().err().and_then(E::of_store) {
            self.shared.failed(error);
        }
        answer
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unopened(&self) -> StoreError {
        StoreError::Unopened(self.state().unopened.clone())
    }

    /// What is told is told under the lock, so that the last word is what is true.
    fn not_opened(&self, reason: String) {
        let mut state = self.state();
        if self.opened.get().is_none() {
            state.failures += 1;
            state.unopened.clone_from(&reason);
            (self.tell)(Some(&StoreError::Unopened(reason)));
        }
    }

    fn is_slow(&self, path: &Path) {
        let path = path.display();
        self.not_opened(format!("{path}: it is still being opened; another process may be writing to it"));
    }

    fn is_open(&self, store: SqliteStore) {
        let mut state = self.state();
        // Only the keeper opens it, and only once.
        let _ = self.opened.set(store);
        if std::mem::take(&mut state.failures) > 0 {
            (self.tell)(None);
        }
    }

    fn failed(&self, error: &StoreError) {
        let mut state = self.state();
        state.failures += 1;
        (self.tell)(Some(error));
        if state.failures == 1 {
            // The keeper ends only with the store.
            let _ = self.wake.send(());
        }
    }

    /// Tries whether it works; whatever fails meanwhile counts for more.
    fn works_again(&self, store: &SqliteStore) -> bool {
        let before = self.state().failures;
        if let Err(error) = store.prove() {
            self.failed(&error);
            return false;
        }
        let mut state = self.state();
        let works = state.failures == before;
        if works {
            state.failures = 0;
            (self.tell)(None);
        }
        works
    }
}

/// What it takes to open the database.
struct Opening {
    path: PathBuf,
    actor: String,
    clock: Clock,
}

impl Opening {
    fn attempt(&self) -> Result<SqliteStore, OpenError> {
        let store = SqliteStore::open(&self.path, &self.actor, self.clock.clone())?;
        let writable: Result<(), Refusal> = store.require_writable();
        writable.map_err(|reason| OpenError { path: self.path.clone(), reason })?;
        Ok(store)
    }
}

/// Who opens the database, and tries it after a failure. Holds the store only while it does so, and ends with it.
struct Keeper {
    shared: Weak<Shared>,
    woken: Receiver<()>,
    opening: Opening,
}

impl Keeper {
    fn run(self, refuse: SyncSender<OpenError>) {
        let Some(store) = self.open(refuse) else { return };
        while self.woken.recv().is_ok() {
            while self.shared.upgrade().is_some_and(|shared| !shared.works_again(&store)) {
                thread::sleep(AGAIN);
            }
        }
    }

    /// Tries until it is open; nothing once nobody wants it any more, or if the first attempt was refused.
    fn open(&self, refuse: SyncSender<OpenError>) -> Option<SqliteStore> {
        // Whoever waits for the first attempt goes on when this is gone.
        let mut refuse = Some(refuse);
        loop {
            let error = match self.opening.attempt() {
                Ok(store) => {
                    self.shared.upgrade()?.is_open(store.clone());
                    return Some(store);
                }
                Err(error) => unheard(refuse.as_ref(), error)?,
            };
            self.shared.upgrade()?.not_opened(error.to_string());
            drop(refuse.take());
            let pause = if error.reason.is_for_content() { AGAIN_IF_REFUSED } else { AGAIN };
            if let Err(RecvTimeoutError::Disconnected) = self.woken.recv_timeout(pause) {
                return None;
            }
        }
    }
}

/// The error, unless it is a refusal and somebody has heard it.
fn unheard(refuse: Option<&SyncSender<OpenError>>, error: OpenError) -> Option<OpenError> {
    match refuse {
        Some(refuse) if error.reason.is_for_content() => refuse.send(error).err().map(|SendError(error)| error),
        _ => Some(error),
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("opened", &self.opened).finish_non_exhaustive()
    }
}

impl Incidents for Late {
    fn keep(&self, records: &[Kept]) -> Result<(), StoreError> {
        self.ask(|store| store.keep(records))
    }

    fn kept(&self, number: u64) -> Result<Option<Kept>, StoreError> {
        self.ask(|store| store.kept(number))
    }

    fn kept_lately(&self, limit: usize) -> Result<Vec<Kept>, StoreError> {
        self.ask(|store| store.kept_lately(limit))
    }

    fn kept_open(&self) -> Result<Vec<Kept>, StoreError> {
        self.ask(|store| store.kept_open())
    }

    fn last_incident(&self) -> Result<u64, StoreError> {
        self.ask(|store| store.last_incident())
    }

    fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.ask(|store| store.setting(name))
    }

    fn set(&self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        self.ask(|store| store.set(name, value))
    }
}

impl Store for Late {
    fn on_behalf_of(&self, actor: &str) -> Arc<dyn Store> {
        Arc::new(Self { shared: Arc::clone(&self.shared), actor: actor.into() })
    }

    fn ensure_pool(&self, pool: &Pool) -> Result<(), PoolError> {
        self.ask(|store| store.ensure_pool(pool))
    }

    fn remove_pool(&self, domain: Domain, subnet: Ipv4Net) -> Result<(), PoolError> {
        self.ask(|store| store.remove_pool(domain, subnet))
    }

    fn pools(&self) -> Result<Vec<Pool>, StoreError> {
        self.ask(|store| store.pools())
    }

    fn allocate(&self, wish: &Wish) -> Result<Lease, AllocateError> {
        self.ask(|store| store.allocate(wish))
    }

    fn reserve(&self, wish: &Wish, hold_for: Span) -> Result<Lease, AllocateError> {
        self.ask(|store| store.reserve(wish, hold_for))
    }

    fn reallocate(
        &self,
        domain: Domain,
        owner: &Owner,
        contested: Ipv4Addr,
        avoid: &BTreeSet<Ipv4Addr>,
    ) -> Result<Lease, AllocateError> {
        self.ask(|store| store.reallocate(domain, owner, contested, avoid))
    }

    fn adopt(
        &self,
        domain: Domain,
        address: Ipv4Addr,
        owner: &Owner,
        interface: Option<IfName>,
    ) -> Result<Lease, AdoptError> {
        self.ask(|store| store.adopt(domain, address, owner, interface))
    }

    fn bind(&self, fence: &Fence) -> Result<Change, StoreError> {
        self.ask(|store| store.bind(fence))
    }

    fn release(&self, fence: &Fence) -> Result<Change, StoreError> {
        self.ask(|store| store.release(fence))
    }

    fn retire(&self, fence: &Fence) -> Result<Change, StoreError> {
        self.ask(|store| store.retire(fence))
    }

    fn discard(&self, fence: &Fence) -> Result<Change, StoreError> {
        self.ask(|store| store.discard(fence))
    }

    fn quarantine(&self, fence: &Fence, quarantine: &Quarantine) -> Result<Change, StoreError> {
        self.ask(|store| store.quarantine(fence, quarantine))
    }

    fn lease(&self, domain: Domain, address: Ipv4Addr) -> Result<Option<Lease>, StoreError> {
        self.ask(|store| store.lease(domain, address))
    }

    fn held(&self, domain: Domain, owner: &Owner, interface: Option<IfName>) -> Result<Vec<Lease>, StoreError> {
        self.ask(|store| store.held(domain, owner, interface))
    }

    fn leases(&self, domain: Option<Domain>) -> Result<Vec<Lease>, StoreError> {
        self.ask(|store| store.leases(domain))
    }

    fn standings(&self, domain: Option<Domain>) -> Result<Vec<Standing>, StoreError> {
        self.ask(|store| store.standings(domain))
    }

    fn draining(&self) -> Result<Vec<Lease>, StoreError> {
        self.ask(|store| store.draining())
    }

    fn pending_moves(&self) -> Result<Vec<Lease>, StoreError> {
        self.ask(|store| store.pending_moves())
    }

    fn history(&self, domain: Option<Domain>, address: Ipv4Addr) -> Result<Vec<JournalEntry>, StoreError> {
        self.ask(|store| store.history(domain, address))
    }

    fn fenced(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.ask(|store| store.fenced())
    }
}

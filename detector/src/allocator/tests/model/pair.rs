//! A store and its model, to which the same is done, and processes that die while they do it.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
};

use proptest::test_runner::TestCaseError;

use super::{
    super::*,
    book::{Answer, Model, seen},
    call::{Act, Call, End},
    rules::Rules,
};

/// What the rules and the comparison say of an act: nothing, or what is wrong.
pub(super) type Verdict = Result<(), TestCaseError>;

pub(super) struct Pair {
    home: Home,
    store: SqliteStore,
    model: Model,
    rules: Rules,
}

/// `Err` with both, unless they are the same.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, want: &T) -> Verdict {
    if found == want {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{what}\n  is        {found:?}\n  should be {want:?}")))
}

impl Pair {
    pub(super) fn new() -> Self {
        let home = Home::in_memory();
        let store = home.open_in("boot-0");
        let mut model = Model::default();
        let pool = pool(rt0(), "10.8.64.0/28");
        store.ensure_pool(&pool).unwrap();
        model.call(&Call::SetPool(pool));
        let rules = Rules::new(&store);
        Self { home, store, model, rules }
    }

    /// Does `act` to both, compares what they answer and what they hold then, and checks the rules. Returns the answer.
    pub(super) fn act(&mut self, act: &Act) -> Result<Option<Answer>, TestCaseError> {
        let answer = match act.end {
            End::Reply => self.reply(&act.call)?,
            End::BeforeCommit => self.die_before_commit(&act.call)?,
            End::Torn { part, rubbish } => self.die_in_commit(&act.call, part, rubbish)?,
            End::BeforeReply => self.die_before_reply(&act.call)?,
        };
        same("the book", &self.store.standings(None).unwrap(), &self.model.standings())?;
        same("the pools", &self.store.pools().unwrap(), &self.model.pools())?;
        self.rules.check(&self.store, self.model.now)?;
        Ok(answer)
    }

    fn reply(&mut self, call: &Call) -> Result<Option<Answer>, TestCaseError> {
        let found = self.ask(call);
        let want = self.model.call(call);
        same("the answer", &found, &want)?;
        Ok(found)
    }

    /// Nothing of the call may be seen, unless it had nothing to commit.
    fn die_before_commit(&mut self, call: &Call) -> Result<Option<Answer>, TestCaseError> {
        self.store.connection().commit_hook(Some(|| true)).unwrap();
        let before = self.model.clone();
        let (found, want) = (self.ask(call), self.model.call(call));
        if matches!(found, Some(Answer::Failed(_))) {
            self.model = before;
        } else {
            same("the answer", &found, &want)?;
        }
        self.come_back(None);
        Ok(found)
    }

    /// What the log was given only in part has not happened.
    fn die_in_commit(&mut self, call: &Call, part: u16, rubbish: bool) -> Result<Option<Answer>, TestCaseError> {
        let (before, from) = (self.model.clone(), self.log_len());
        let answer = self.reply(call)?;
        let to = self.log_len();
        let cut = from + (to.saturating_sub(from) * u64::from(part)) / 65_536;
        // A log that has not grown was begun anew, or nothing was written to it.
        let torn = (cut < to).then_some((cut, rubbish));
        // A machine that was booted stays so: whoever comes next writes it down.
        if torn.is_some() && !matches!(call, Call::Reboot) {
            self.model = before;
        }
        self.come_back(torn);
        Ok(answer)
    }

    /// What was done is there, and asking again brings the same.
    fn die_before_reply(&mut self, call: &Call) -> Result<Option<Answer>, TestCaseError> {
        let unheard = self.reply(call)?;
        self.come_back(None);
        let again = self.reply(call)?;
        if let (Some(Answer::Lease(_)), false) =
            (&unheard, matches!(call, Call::Release(_) | Call::Retire(_) | Call::Discard(_)))
        {
            same("the answer to one who asks again", &again, &unheard)?;
        }
        Ok(again)
    }

    fn log_len(&self) -> u64 {
        fs::metadata(log(&self.home.path())).map_or(0, |log| log.len())
    }

    /// Has the next process find what the last one left: the files as they are while it still has them open, with the
    /// log torn where that is said.
    fn come_back(&mut self, torn: Option<(u64, bool)>) {
        let left = Home { time: self.home.time.clone(), ..Home::in_memory() };
        fs::copy(self.home.path(), left.path()).unwrap();
        if fs::copy(log(&self.home.path()), log(&left.path())).is_ok()
            && let Some((at, rubbish)) = torn
        {
            tear(&log(&left.path()), at, rubbish);
        }
        self.store = left.open_in(&format!("boot-{}", self.model.boots));
        self.home = left;
    }

    /// What the store answers.
    fn ask(&mut self, call: &Call) -> Option<Answer> {
        let store = &self.store;
        let fence = |which: &super::call::Which| which.fence(&self.model.given);
        Some(match call {
            Call::Allocate(wish) => allocated(store.allocate(wish)),
            Call::Reserve(wish, hold) => allocated(store.reserve(wish, Span::from_secs(*hold))),
            Call::Reallocate { domain, owner, contested, avoid } => {
                allocated(store.reallocate(*domain, owner, *contested, avoid))
            }
            Call::Adopt { domain, address, owner, interface } => {
                adopted(store.adopt(*domain, *address, owner, *interface))
            }
            Call::Bind(which) => changed(store.bind(&fence(which)?)),
            Call::Release(which) => changed(store.release(&fence(which)?)),
            Call::Retire(which) => changed(store.retire(&fence(which)?)),
            Call::Discard(which) => changed(store.discard(&fence(which)?)),
            Call::Quarantine(which, lasts) => changed(store.quarantine(&fence(which)?, &seen(*lasts))),
            Call::Sweep => store.draining().map_or_else(failed, Answer::Leases),
            Call::SetPool(pool) => altered(store.ensure_pool(pool)),
            Call::RemovePool(domain, subnet) => altered(store.remove_pool(*domain, *subnet)),
            Call::Pass(seconds) => return self.pass(*seconds),
            Call::SetWallClock(seconds) => return self.set_wall_clock(*seconds),
            Call::Reopen => return self.reopen(),
            Call::Reboot => return self.reboot(),
        })
    }

    fn pass(&self, seconds: u64) -> Option<Answer> {
        self.home.time.pass(Span::from_secs(seconds));
        None
    }

    /// Whatever the book knows of the wall clock stands in the journal. To shift that is to shift the clock for all that
    /// comes.
    fn set_wall_clock(&self, seconds: i64) -> Option<Answer> {
        let conn = self.store.connection();
        drop(conn.execute("UPDATE journal SET wall_ms = max(0, wall_ms + ?1 * 1000)", [seconds]));
        None
    }

    fn reopen(&mut self) -> Option<Answer> {
        self.store = self.home.open_in(&format!("boot-{}", self.model.boots));
        None
    }

    fn reboot(&mut self) -> Option<Answer> {
        self.home.time.set(Span::ZERO);
        self.store = self.home.open_in(&format!("boot-{}", self.model.boots + 1));
        None
    }
}

fn log(database: &Path) -> PathBuf {
    format!("{}-wal", database.display()).into()
}

/// Ends the file at `at`, or spoils what is there.
fn tear(log: &Path, at: u64, rubbish: bool) {
    if rubbish {
        let file = OpenOptions::new().read(true).write(true).open(log).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    } else {
        File::options().write(true).open(log).unwrap().set_len(at).unwrap();
    }
}

fn failed(error: StoreError) -> Answer {
    Answer::Failed(error.to_string())
}

fn allocated(answer: Result<Lease, AllocateError>) -> Answer {
    match answer {
        Ok(lease) => Answer::Lease(lease),
        Err(AllocateError::NoPool(_)) => Answer::NoPool,
        Err(AllocateError::Exhausted { ready_in, in_use, .. }) => Answer::Exhausted { ready_in, in_use },
        Err(AllocateError::HoldsUseless(lease)) => Answer::HoldsUseless(*lease),
        Err(AllocateError::HoldsAnother(lease)) => Answer::HoldsAnother(*lease),
        Err(AllocateError::Leased(lease)) => Answer::Leased(*lease),
        Err(AllocateError::NotInPool { .. }) => Answer::NotInPool,
        Err(AllocateError::Store(error)) => failed(error),
        Err(error @ AllocateError::Unwitnessed(..)) => panic!("{error}"),
    }
}

fn adopted(answer: Result<Lease, AdoptError>) -> Answer {
    match answer {
        Ok(lease) => Answer::Lease(lease),
        Err(AdoptError::Leased(lease)) => Answer::Leased(*lease),
        Err(AdoptError::HoldsAnother(lease)) => Answer::HoldsAnother(*lease),
        Err(AdoptError::NotInPool { .. }) => Answer::NotInPool,
        Err(AdoptError::Store(error)) => failed(error),
    }
}

fn changed(answer: Result<Change, StoreError>) -> Answer {
    match answer {
        Ok(Change::Applied(lease)) => Answer::Lease(lease),
        Ok(Change::Fenced { current }) => Answer::Fenced(current),
        Err(error) => failed(error),
    }
}

fn altered(answer: Result<(), PoolError>) -> Answer {
    match answer {
        Ok(()) => Answer::Done,
        Err(PoolError::Overlap { .. }) => Answer::Overlap,
        Err(PoolError::Leased(lease)) => Answer::Leased(*lease),
        Err(PoolError::NoSuchPool { .. }) => Answer::NoSuchPool,
        Err(PoolError::Store(error)) => failed(error),
    }
}

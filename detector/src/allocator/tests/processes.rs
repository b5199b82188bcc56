//! Many processes on one file, and processes that die.
//!
//! A test starts itself again, as often as it needs partners; those find their part in the environment.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use super::*;

const FILE: &str = "DUPIP_TEST_LEASES";
const PART: &str = "DUPIP_TEST_PART";

/// A process that plays a part in a test, and what it says.
pub(super) struct Partner {
    process: Child,
    start: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
}

impl Partner {
    fn new(test: &str, file: &Path, part: usize) -> Self {
        Self::with(&format!("processes::{test}"), file, part, &[])
    }

    /// As [`new`](Self::new), for the test of any module here, with more in the environment.
    pub(super) fn with(test: &str, file: &Path, part: usize, environment: &[(&str, &OsStr)]) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", &format!("allocator::tests::{test}")])
            .envs(environment.iter().copied())
            .env(FILE, file)
            .env(PART, part.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { start: process.stdin.take(), process, said }
    }

    /// The next thing it says; the test harness in it says things too, without the mark.
    pub(super) fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            if let Some((_, said)) = line.trim_end().split_once('@') {
                return Some(said.to_owned());
            }
            line.clear();
        }
        None
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.start.as_mut().unwrap(), "{line}").unwrap();
    }

    fn start(&mut self) {
        drop(self.start.take());
    }

    /// What it says until it ends, or is ended.
    pub(super) fn hear_out(mut self) -> Vec<String> {
        let said = std::iter::from_fn(|| self.hear()).collect();
        self.process.wait().unwrap();
        said
    }

    fn finish(mut self) -> Vec<String> {
        let said = std::iter::from_fn(|| self.hear()).collect();
        assert!(self.process.wait().unwrap().success(), "{said:?}");
        said
    }

    /// Ends it as `kill -9` does, and returns what it had said by then.
    pub(super) fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        let said = std::iter::from_fn(|| self.hear()).collect();
        assert!(!self.process.wait().unwrap().success());
        said
    }
}

pub(super) fn say(what: &str) {
    println!("@{what}");
}

/// The part that this process has in the test, with the file it is about; `None` if it is the test itself.
pub(super) fn part() -> Option<(PathBuf, usize)> {
    Some((env::var_os(FILE)?.into(), env::var(PART).unwrap().parse().unwrap()))
}

fn open(file: &Path) -> SqliteStore {
    SqliteStore::open(file, "partner", Clock::system().unwrap()).unwrap()
}

fn bare_pool(subnet: &str) -> Pool {
    Pool::new(rt0(), subnet.parse().unwrap(), None, COOLDOWN).unwrap()
}

/// Eight threads with a connection each, all of which begin when the test closes the pipe.
fn rush(file: &Path, part: usize) {
    say("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let ask = |n: usize| {
        let store = open(file);
        store.ensure_pool(&bare_pool("10.8.64.0/27")).unwrap();
        store.ensure_pool(&bare_pool("10.8.64.32/31")).unwrap();
        match store.allocate(&wish(rt0(), &owner(&format!("owner-{part}-{n}")), &nothing())) {
            Ok(lease) => say(&format!("{} {}", lease.address, lease.generation)),
            Err(AllocateError::Exhausted { .. }) => say("exhausted"),
            Err(error) => say(&format!("error: {error}")),
        }
    };
    thread::scope(|scope| (0..8).for_each(|n| drop(scope.spawn(move || ask(n)))));
}

/// Scenario 46.
#[test]
fn of_64_who_ask_at_once_32_get_the_32_addresses() {
    if let Some((file, part)) = part() {
        return rush(&file, part);
    }
    let home = Home::new();
    let test = "of_64_who_ask_at_once_32_get_the_32_addresses";
    // The file is not there yet: to make it is part of the rush.
    let mut partners: Vec<_> = (0..8).map(|n| Partner::new(test, &home.path(), n)).collect();
    partners.iter_mut().for_each(|partner| assert_eq!(partner.hear().as_deref(), Some("ready")));
    partners.iter_mut().for_each(Partner::start);
    let said: Vec<_> = partners.into_iter().flat_map(Partner::finish).collect();

    assert_eq!(said.len(), 64, "{said:?}");
    assert_eq!(said.iter().filter(|said| *said == "exhausted").count(), 32, "{said:?}");
    let given: BTreeMap<Ipv4Addr, u64> = said
        .iter()
        .filter_map(|said| said.split_once(' '))
        .map(|(address, generation)| (address.parse().unwrap(), generation.parse().unwrap()))
        .collect();
    assert_eq!(given.keys().copied().collect::<Vec<_>>(), (1..=30).chain(32..=33).map(ip).collect::<Vec<_>>());
    assert_eq!(given.values().copied().collect::<BTreeSet<_>>(), (1..=32).collect());
    assert_eq!(home.open().leases(None).unwrap().len(), 32);
}

/// Moves one owner after the other to another address, and says each step when it is done.
fn move_owners(file: &Path, first: usize) {
    let store = open(file);
    for n in first.. {
        let lease = store.give(&n.to_string());
        say(&format!("gave {n} {} {}", lease.address, lease.generation));
        let lease = store.reallocate(rt0(), &owner(&n.to_string()), lease.address, &nothing()).unwrap();
        say(&format!("moved {n} {} {}", lease.address, lease.generation));
        let lease = applied(store.bind(&Fence::from(&lease)).unwrap());
        say(&format!("bound {n} {} {}", lease.address, lease.generation));
    }
}

/// Does again what was cut off, for one owner, and returns what each step brought, as [`move_owners`] says it.
fn resume(store: &SqliteStore, n: usize) -> [String; 3] {
    let text = |step, lease: &Lease| format!("{step} {n} {} {}", lease.address, lease.generation);
    let name = owner(&n.to_string());
    let drained = |lease: &Lease| lease.owner == name && lease.state == LeaseState::Draining;
    let first = store.leases(None).unwrap().into_iter().find(drained).unwrap_or_else(|| store.give(name.as_str()));
    let moved = store.reallocate(rt0(), &name, first.address, &nothing()).unwrap();
    let bound = applied(store.bind(&Fence::from(&moved)).unwrap());
    [text("gave", &first), text("moved", &moved), text("bound", &bound)]
}

/// Scenario 41.
#[test]
fn what_was_said_before_kill_9_holds_and_the_rest_can_be_resumed() {
    if let Some((file, first)) = part() {
        return move_owners(&file, first);
    }
    let home = Home::new();
    let store = SqliteStore::open(&home.path(), "test", Clock::system().unwrap()).unwrap();
    store.ensure_pool(&pool(rt0(), "10.8.64.0/20")).unwrap();
    let test = "what_was_said_before_kill_9_holds_and_the_rest_can_be_resumed";
    let mut owners = 0;
    for heard in [1, 2, 3, 20, 31, 45] {
        let mut partner = Partner::new(test, &home.path(), owners);
        let mut said: Vec<_> = (0..heard).map(|_| partner.hear().unwrap()).collect();
        said.extend(partner.kill());
        // The next owner may have been given something, too, of which there was no time to speak.
        let reached = owners + said.len() / 3 + 1;
        let steps: Vec<_> = (owners..reached).flat_map(|n| resume(&store, n)).collect();
        assert_eq!(said, steps[..said.len()]);
        owners = reached;
    }

    let leases = store.leases(None).unwrap();
    let mut states: BTreeMap<&Owner, Vec<LeaseState>> = BTreeMap::new();
    leases.iter().for_each(|lease| states.entry(&lease.owner).or_default().push(lease.state));
    assert_eq!(states.len(), owners);
    for (owner, mut states) in states {
        states.sort_unstable();
        assert_eq!(states, [LeaseState::Bound, LeaseState::Draining], "{owner}");
    }
    let generations: BTreeSet<_> = leases.iter().map(|lease| lease.generation).collect();
    assert_eq!(generations.len(), leases.len());
    assert_eq!(home.sql("PRAGMA integrity_check"), ["ok"]);
}

/// Scenario 46, the long way: so many processes that each allocate so often that they always wait for each other.
#[test]
fn eight_processes_that_allocate_a_thousand_times_each_get_8000_addresses() {
    const EACH: usize = 1_000;
    if let Some((file, part)) = part() {
        return give_many(&file, part, EACH);
    }
    let home = Home::new();
    let store = SqliteStore::open(&home.path(), "test", Clock::system().unwrap()).unwrap();
    store.ensure_pool(&bare_pool("10.8.64.0/19")).unwrap();
    let test = "eight_processes_that_allocate_a_thousand_times_each_get_8000_addresses";
    let mut partners: Vec<_> = (0..8).map(|n| Partner::new(test, &home.path(), n)).collect();
    partners.iter_mut().for_each(|partner| assert_eq!(partner.hear().as_deref(), Some("ready")));
    partners.iter_mut().for_each(Partner::start);
    let said: Vec<_> = partners.into_iter().flat_map(Partner::finish).collect();

    let told: BTreeSet<_> = said.iter().cloned().collect();
    let leases = store.leases(None).unwrap();
    let booked: BTreeSet<_> = leases.iter().map(told_of).collect();
    assert_eq!((said.len(), told.len()), (8 * EACH, 8 * EACH), "an error, or somebody was told what another was");
    assert!(told == booked, "the book has other leases than were told");
    let distinct = |of: fn(&Lease) -> u64| leases.iter().map(of).collect::<BTreeSet<_>>().len();
    assert_eq!(distinct(|lease| lease.address.to_bits().into()), 8 * EACH);
    assert_eq!(distinct(|lease| lease.generation.0), 8 * EACH);
    assert_eq!(home.sql("PRAGMA integrity_check"), ["ok"]);
}

fn give_many(file: &Path, part: usize, count: usize) {
    say("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let store = open(file);
    for n in 0..count {
        let name = owner(&format!("owner-{part}-{n}"));
        match store.allocate(&Wish::new(rt0(), name)) {
            Ok(lease) => say(&told_of(&lease)),
            Err(error) => say(&format!("error: {error}")),
        }
    }
}

/// A lease in a line.
pub(super) fn told_of(lease: &Lease) -> String {
    format!("{} {} {}", lease.owner, lease.address, lease.generation)
}

/// Scenario 47: who releases what somebody allocates for the same owner at the same time either comes first, and then
/// there is a new lease, or later, and then there is none; both are told what is so.
#[test]
fn to_allocate_and_to_release_for_one_owner_at_once_has_one_of_two_outcomes() {
    if let Some((file, part)) = part() {
        return allocate_or_release(&file, part);
    }
    let home = Home::new();
    let store = SqliteStore::open(&home.path(), "test", Clock::system().unwrap()).unwrap();
    store.ensure_pool(&bare_pool("10.8.64.0/22")).unwrap();
    let test = "to_allocate_and_to_release_for_one_owner_at_once_has_one_of_two_outcomes";
    let mut partners = [0, 1].map(|n| Partner::new(test, &home.path(), n));
    partners.iter_mut().for_each(|partner| assert_eq!(partner.hear().as_deref(), Some("ready")));
    let mut outcomes = BTreeMap::new();
    for round in 0..150 {
        let before = store.give("web");
        for partner in &mut partners {
            partner.tell(&format!("{} {}", before.address, before.generation));
        }
        let [given, released] = partners.each_mut().map(|partner| partner.hear().unwrap());
        let held = store.held(rt0(), &owner("web"), None).unwrap();
        let drained = store.lease(rt0(), before.address).unwrap().unwrap();
        assert_eq!((released.as_str(), drained.state), ("released", LeaseState::Draining), "round {round}");
        let outcome = match &held[..] {
            [] => "the same, and then released",
            [new] if new.generation > before.generation => "released, and then another",
            other => panic!("round {round}: {other:?}"),
        };
        let told = held.first().unwrap_or(&before);
        assert_eq!(given, told_of(told), "round {round}: {outcome}");
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    println!("{outcomes:?}");
    partners.into_iter().for_each(|mut partner| {
        partner.start();
        drop(partner.finish());
    });
}

fn allocate_or_release(file: &Path, part: usize) {
    let store = open(file);
    say("ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (address, generation) = line.split_once(' ').unwrap();
        let (address, generation) = (address.parse().unwrap(), Generation(generation.parse().unwrap()));
        if part == 0 {
            say(&told_of(&store.give("web")));
        } else {
            let fence = Fence { domain: rt0(), address, owner: owner("web"), generation };
            say(if matches!(store.release(&fence).unwrap(), Change::Applied(_)) { "released" } else { "fenced" });
        }
    }
}

/// Scenarios 41 and 51 with real processes: whatever one was told before `kill -9` is so, nothing is there twice, and
/// what nobody was told of is found again by its owner.
#[test]
fn after_200_kills_everything_that_was_told_is_so_and_nothing_is_there_twice() {
    if let Some((file, part)) = part() {
        return come_and_go(&file, part);
    }
    let home = Home::new();
    let store = SqliteStore::open(&home.path(), "test", Clock::system().unwrap()).unwrap();
    store.ensure_pool(&bare_pool("10.8.0.0/16")).unwrap();
    let test = "after_200_kills_everything_that_was_told_is_so_and_nothing_is_there_twice";
    let (mut told, mut owners) = (BTreeMap::new(), BTreeSet::new());
    for round in 0..50_usize {
        let parts = [0, 1, 2, 3].map(|n| round * 4 + n);
        let mut partners = parts.map(|part| Partner::new(test, &home.path(), part));
        for (part, partner) in parts.into_iter().zip(partners.each_mut()) {
            // How much each has done by then differs; when in its next step it dies is left to the machine.
            for _ in 0..=part * 7 % 11 {
                note(&mut told, &partner.hear().unwrap());
            }
        }
        for (part, partner) in parts.into_iter().zip(partners) {
            partner.kill().iter().for_each(|said| note(&mut told, said));
            owners.insert(part.to_string());
        }
    }

    assert_eq!(home.sql("PRAGMA integrity_check"), ["ok"]);
    let leases = store.leases(None).unwrap();
    let generations: BTreeSet<_> = leases.iter().map(|lease| lease.generation).collect();
    assert_eq!(generations.len(), leases.len());
    let found: BTreeMap<_, _> = leases.iter().map(|lease| (told_of(lease), lease.state)).collect();
    for (lease, said) in &told {
        let state = found.get(lease).copied();
        // One step further than was told: the process did it, and died before it could tell.
        assert!(state.is_some_and(|state| said.contains(&state)), "{lease} was told {said:?}, and is {state:?}");
    }
    let untold = found.iter().filter(|(lease, _)| !told.contains_key(*lease)).count();
    assert!(untold <= owners.len(), "{untold} leases were given that nobody was told of, in {} deaths", owners.len());
    for owner_name in &owners {
        let held = store.held(rt0(), &owner(owner_name), None).unwrap();
        assert!(held.len() <= 1, "{held:?}");
        assert!(held.is_empty() || store.give(owner_name) == held[0], "who asks again gets what it held");
    }
    println!("{} deaths, {} leases, {untold} of which nobody had been told", owners.len(), leases.len());
}

/// Allocates and releases, and says each step when it is done.
fn come_and_go(file: &Path, part: usize) {
    let store = open(file);
    for _ in 0..100_000 {
        let lease = store.give(&part.to_string());
        say(&format!("bound {}", told_of(&lease)));
        applied(store.release(&Fence::from(&lease)).unwrap());
        say(&format!("draining {}", told_of(&lease)));
    }
}

/// Writes down in which states a lease may be after what was told of it.
fn note(told: &mut BTreeMap<String, Vec<LeaseState>>, said: &str) {
    let (state, lease) = said.split_once(' ').unwrap();
    let may_be = match state {
        "bound" => vec![LeaseState::Bound, LeaseState::Draining],
        _ => vec![LeaseState::Draining],
    };
    told.insert(lease.to_owned(), may_be);
}

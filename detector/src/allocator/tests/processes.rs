//! Many processes on one file, and processes that die.
//!
//! A test starts itself again, as often as it needs partners; those find their part in the environment.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use super::*;

const FILE: &str = "DUPIP_TEST_LEASES";
const PART: &str = "DUPIP_TEST_PART";

/// A process that plays a part in a test, and what it says.
struct Partner {
    process: Child,
    start: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
}

impl Partner {
    fn new(test: &str, file: &Path, part: usize) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", &format!("allocator::tests::processes::{test}")])
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
    fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            if let Some((_, said)) = line.trim_end().split_once('@') {
                return Some(said.to_owned());
            }
            line.clear();
        }
        None
    }

    fn start(&mut self) {
        drop(self.start.take());
    }

    fn finish(mut self) -> Vec<String> {
        let said = std::iter::from_fn(|| self.hear()).collect();
        assert!(self.process.wait().unwrap().success(), "{said:?}");
        said
    }

    /// Ends it as `kill -9` does, and returns what it had said by then.
    fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        let said = std::iter::from_fn(|| self.hear()).collect();
        assert!(!self.process.wait().unwrap().success());
        said
    }
}

fn say(what: &str) {
    println!("@{what}");
}

/// The part that this process has in the test, with the file it is about; `None` if it is the test itself.
fn part() -> Option<(PathBuf, usize)> {
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

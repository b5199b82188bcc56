//! Disks that fail, fill up or tear, and what is made of the file then.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command, thread};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::{processes::Partner, *};
use crate::net::Mac;

/// What is done to a file's bytes.
type Damage = fn(&mut Vec<u8>);

const V1: &str = include_str!("../sqlite/v1.sql");
const V2: &str = include_str!("../sqlite/v2.sql");

/// Does `test` on a file system of its own, in memory, of so many bytes.
pub(super) fn on_a_small_disk(bytes: usize, test: impl FnOnce(Home) + Send) {
    let home = Home::new();
    let alone = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        mount("tmpfs", home.directory.path(), "tmpfs", MountFlags::empty(), size.as_c_str()).unwrap();
        test(home);
    };
    thread::scope(|scope| scope.spawn(alone).join().unwrap());
}

/// Leaves no room on the disk that `ballast` is on.
pub(super) fn fill(ballast: &Path) {
    let mut file = fs::File::create(ballast).unwrap();
    let error = loop {
        if let Err(error) = std::io::Write::write_all(&mut file, &[7; 4096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

/// Each call that writes, by its name, as what it answers if it did so.
fn every_call(store: &SqliteStore, leases: &[Lease; 3]) -> Vec<(&'static str, Result<(), String>)> {
    fn of<T, E: ToString>(answer: Result<T, E>) -> Result<(), String> {
        answer.map(drop).map_err(|error| error.to_string())
    }
    let [bound, reserved, draining] = leases;
    let seen = Quarantine { mac: Mac([2; 6]), reason: "answered".to_owned(), lasts: COOLDOWN };
    vec![
        ("allocate", of(store.allocate(&Wish::new(rt0(), owner("new"))))),
        ("reserve", of(store.reserve(&Wish::new(rt0(), owner("newer")), COOLDOWN))),
        ("adopt", of(store.adopt(rt0(), ip(77), &owner("alive"), None))),
        ("late", of(store.retire(&bound.into()))),
        ("reallocate", of(store.reallocate(rt0(), &bound.owner, bound.address, &nothing()))),
        ("quarantine", of(store.quarantine(&reserved.into(), &seen))),
        ("discard", of(store.discard(&reserved.into()))),
        ("retire", of(store.retire(&draining.into()))),
        ("ensure_pool", of(store.ensure_pool(&pool(rt0(), "10.9.0.0/24")))),
    ]
}

/// Scenario 49.
#[test]
fn on_a_full_disk_every_change_is_an_error_and_with_room_again_it_is_made() {
    on_a_small_disk(2 << 20, |home| {
        let store = home.with_pool("10.8.64.0/24");
        let (bound, draining) = (store.give("a"), store.give("b"));
        let reserved = store.reserve(&Wish::new(rt0(), owner("c")), COOLDOWN).unwrap();
        let leases = [bound, reserved, applied(store.release(&Fence::from(&draining)).unwrap())];
        let ballast = home.path().with_file_name("ballast");
        fill(&ballast);
        let (before, pools) = (store.standings(None).unwrap(), store.pools().unwrap());
        for (name, answer) in every_call(&store, &leases) {
            let error = answer.expect_err(name);
            assert!(error.contains("full"), "{name}: {error}");
        }
        assert_eq!((store.standings(None).unwrap(), store.pools().unwrap()), (before, pools));

        fs::remove_file(ballast).unwrap();
        for (name, answer) in every_call(&store, &leases) {
            assert!(answer.is_ok(), "{name}: {answer:?}");
        }
        assert_eq!(home.sql("PRAGMA integrity_check"), ["ok"]);
    });
}

/// Scenario 49, before there is anything.
#[test]
fn a_book_that_could_not_be_begun_on_a_full_disk_is_begun_when_there_is_room() {
    on_a_small_disk(1 << 20, |home| {
        let ballast = home.path().with_file_name("ballast");
        fill(&ballast);
        let error = SqliteStore::open(&home.path(), "test", home.time.clock("boot-1")).unwrap_err();
        assert!(matches!(error.reason, Refusal::Store(_) | Refusal::Unreachable(_)), "{error:?}");
        fs::remove_file(ballast).unwrap();
        assert_eq!(home.with_pool("10.8.64.0/24").give("a").address, ip(2));
    });
}

/// The library that makes a process's disk fail.
fn faults(directory: &Path) -> PathBuf {
    let library = directory.join("faults.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/allocator/tests/faults.c");
    let status = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(status.unwrap().success());
    library
}

/// What a process says that asks for eight leases, and what becomes of it, when its disk fails at the `nth` call.
fn with_fault(test: &str, library: &Path, file: &Path, fault: &str) -> Vec<String> {
    let faults = [("LD_PRELOAD", library.as_os_str()), ("DUPIP_FAULT", fault.as_ref())];
    Partner::with(&format!("faults::{test}"), file, 0, &faults).hear_out()
}

/// Asks for leases, and says what it gets.
fn ask_for_eight(file: &Path) {
    let store = match SqliteStore::open(file, "partner", Clock::system().unwrap()) {
        Ok(store) => store,
        Err(error) => return processes::say(&format!("error {error}")),
    };
    for n in 0..8 {
        processes::say(&match store.allocate(&Wish::new(rt0(), owner(&format!("owner-{n}")))) {
            Ok(lease) => processes::told_of(&lease),
            Err(error) => format!("error {error}"),
        });
    }
}

/// Scenarios 49 and 41: at whichever write or sync the disk begins to fail, or the process dies, what was told is in the
/// book, and the owners that ask again get what they were told, and no two the same.
#[test]
fn at_whichever_write_or_sync_the_disk_fails_an_error_is_an_error_and_a_lease_is_a_lease() {
    if let Some((file, _)) = processes::part() {
        return ask_for_eight(&file);
    }
    let test = "at_whichever_write_or_sync_the_disk_fails_an_error_is_an_error_and_a_lease_is_a_lease";
    let tools = tempfile::tempdir().unwrap();
    let library = faults(tools.path());
    let (mut told, mut errors) = (0, 0);
    for fault in ["sync 1", "sync 2", "sync 5", "write 1", "write 2", "write 3", "write 9", "write 20", "write 33"]
        .map(str::to_owned)
        .into_iter()
        .chain((1..80).step_by(7).map(|nth| format!("die {nth}")))
    {
        let home = Home::in_memory();
        let time = || SqliteStore::open(&home.path(), "test", Clock::system().unwrap()).unwrap();
        time().ensure_pool(&pool(rt0(), "10.8.64.0/24")).unwrap();
        let said = with_fault(test, &library, &home.path(), &fault);
        let (wrong, given): (Vec<_>, Vec<_>) = said.into_iter().partition(|said| said.starts_with("error "));
        assert!(fault.starts_with("die") || !wrong.is_empty(), "{fault} did nothing: {given:?}");
        (told, errors) = (told + given.len(), errors + wrong.len());

        assert_eq!(home.sql("PRAGMA integrity_check"), ["ok"], "{fault}");
        let store = time();
        let book: BTreeSet<_> = store.leases(None).unwrap().iter().map(processes::told_of).collect();
        assert!(given.iter().all(|lease| book.contains(lease)), "{fault}: {given:?} of {book:?}");
        let again: Vec<_> = (0..8).map(|n| processes::told_of(&store.give(&format!("owner-{n}")))).collect();
        assert_eq!(again[..given.len()], given[..], "{fault}");
        assert_eq!(store.leases(None).unwrap().len(), 8, "{fault}");
    }
    assert!(told > 10 && errors > 20, "{told} leases, {errors} errors");
}

/// A database of version 1 with a row in every state that was ever written, made by that version's own schema.
fn version_1(path: &Path) {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = wal; BEGIN; {V1}
         PRAGMA application_id = 0x64757069; PRAGMA user_version = 1;
         INSERT INTO boot VALUES (1, 'boot-1');
         INSERT INTO domain VALUES ('rt0', 40), ('rt0/12', 1);
         INSERT INTO pool VALUES ('rt0', 0x0a084000, 24, 0x0a084001, 60000000000), ('rt0/12', 0xc0a80000, 30, NULL, 5);
         INSERT INTO fresh VALUES ('rt0', 0x0a084006, 0x0a0840fe), ('rt0/12', 0xc0a80002, 0xc0a80002);
         INSERT INTO lease VALUES ('rt0', 0x0a084002, 'a', 37, 'bound', NULL, NULL, NULL, 1),
             ('rt0', 0x0a084003, 'b', 38, 'reserved', 0x0a084002, NULL, NULL, 2),
             ('rt0', 0x0a084004, 'c', 39, 'draining', NULL, NULL, NULL, 3),
             ('rt0', 0x0a084005, 'd', 40, 'cooldown', NULL, 60000000000, 90000000000, 4),
             ('rt0/12', 0xc0a80001, 'a', 1, 'bound', NULL, NULL, NULL, 5);
         INSERT INTO journal VALUES (1, 7, 'boot-1', 9, 'agent', 'allocate', 'rt0', 0x0a084002, 'a', 37, NULL, 'bound', 'x'),
             (6, 8, 'boot-1', 9, 'agent', 'release', 'rt0', 0x0a084002, 'old', 3, 'bound', NULL, 'late'); COMMIT"
    ))
    .unwrap();
}

/// What a migrated [`version_1`] has to be.
fn is_migrated(home: &Home) {
    let store = home.open();
    let book: Vec<_> = store
        .leases(None)
        .unwrap()
        .iter()
        .map(|lease| format!("{} {}", processes::told_of(lease), lease.state))
        .collect();
    let rt0_rows =
        ["a 10.8.64.2 37 bound", "b 10.8.64.3 38 reserved", "c 10.8.64.4 39 draining", "d 10.8.64.5 40 cooldown"];
    assert_eq!(book[..4], rt0_rows);
    assert_eq!(book[4..], ["a 192.168.0.1 1 bound"]);
    assert_eq!(store.pending_moves().unwrap()[0].replaces, Some(ip(2)));
    assert_eq!(store.standings(Some(rt0())).unwrap()[3].left, Some(Span::from_secs(90)), "a cooldown goes on");
    let pools: Vec<_> = store
        .pools()
        .unwrap()
        .iter()
        .map(|pool| format!("{} {:?} {}", pool.subnet(), pool.gateway(), pool.size()))
        .collect();
    assert_eq!(pools, ["10.8.64.0/24 Some(10.8.64.1) 253", "192.168.0.0/30 None 2"]);
    let life: Vec<_> = store.history(None, ip(2)).unwrap().into_iter().map(|entry| (entry.number, entry.op)).collect();
    assert_eq!(life, [(1, "allocate".to_owned()), (6, "release".to_owned())]);
    assert_eq!(store.fenced().unwrap(), BTreeMap::from([("release".to_owned(), 1)]));
    let next = store.give("e");
    assert_eq!((next.address, next.generation), (ip(6), Generation(41)));
    assert_eq!((store.last_incident().unwrap(), store.setting("pause").unwrap()), (0, None));
    assert_eq!(home.sql("PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn a_database_of_version_1_is_migrated_with_all_that_is_in_it() {
    let home = Home::new();
    version_1(&home.path());
    is_migrated(&home);
}

/// The same by way of version 2, as an agent of that version left it.
#[test]
fn a_database_of_version_2_is_migrated_with_all_that_is_in_it() {
    let home = Home::new();
    version_1(&home.path());
    let conn = rusqlite::Connection::open(home.path()).unwrap();
    conn.execute_batch(&format!("BEGIN; {V2} PRAGMA user_version = 2; COMMIT")).unwrap();
    drop(conn);
    let refused = read_leases(&home.path()).unwrap_err();
    assert!(matches!(refused.reason, Refusal::Older { found: 2 }), "{refused:?}");
    is_migrated(&home);
}

/// Whoever dies while it migrates leaves version 1 or the newest, and all that is in it.
#[test]
fn a_migration_that_is_killed_at_any_write_leaves_a_whole_database() {
    let test = "a_migration_that_is_killed_at_any_write_leaves_a_whole_database";
    if let Some((file, _)) = processes::part() {
        drop(SqliteStore::open(&file, "partner", Time::default().clock("boot-1")).unwrap());
        return processes::say("migrated");
    }
    let tools = tempfile::tempdir().unwrap();
    let library = faults(tools.path());
    let (mut deaths, mut old) = (0, 0);
    for nth in 1..40 {
        let home = Home::in_memory();
        version_1(&home.path());
        let said = with_fault(test, &library, &home.path(), &format!("die {nth}"));
        deaths += usize::from(said.is_empty());
        old += usize::from(home.sql("PRAGMA user_version") == ["1"]);
        is_migrated(&home);
    }
    assert!(deaths > 10 && old > 5, "{deaths} deaths, {old} of which left version 1");
}

/// Scenario 48: what is not a sound lease database is refused with the reason, and not a byte of it or its log is changed.
#[test]
fn a_database_that_is_damaged_in_any_way_is_refused_and_left_as_it_is() {
    let source = Home::new();
    let store = source.with_pool("10.8.0.0/16");
    (0..300).for_each(|n| drop(store.give(&format!("owner-with-a-long-name-{n}"))));
    drop(store);
    let intact = fs::read(source.path()).unwrap();
    let damages: [(&str, Damage); 5] = [
        ("the header's magic", |bytes| bytes[3] ^= 0xff),
        ("the page size", |bytes| bytes[16..18].fill(3)),
        ("a page in the middle", |bytes| {
            let page = bytes.len() / 8192 * 4096;
            bytes[page..page + 4096].fill(0xa5);
        }),
        ("the second half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("the schema", |bytes| bytes[100..300].fill(0)),
    ];
    for (what, damage) in damages {
        let home = Home::new();
        let mut bytes = intact.clone();
        damage(&mut bytes);
        fs::write(home.path(), &bytes).unwrap();
        let error = SqliteStore::open(&home.path(), "test", home.time.clock("boot-1")).unwrap_err();
        assert!(matches!(error.reason, Refusal::Corrupt(_)), "{what}: {error:?}");
        assert!(fs::read(home.path()).unwrap() == bytes, "{what}: the file was changed");
    }
}

/// Scenario 48: a database whose leases are still in its log, and which is emptied, deleted or is another's link.
#[test]
fn nothing_is_begun_over_the_log_of_a_database_that_is_gone() {
    for deleted in [false, true] {
        let (home, left) = (Home::new(), Home::new());
        let store = home.with_pool("10.8.64.0/24");
        store.give("a");
        let log = |home: &Home| PathBuf::from(format!("{}-wal", home.path().display()));
        fs::copy(log(&home), log(&left)).unwrap();
        if !deleted {
            fs::write(left.path(), "").unwrap();
        }
        let before = fs::read(log(&left)).unwrap();
        let error = SqliteStore::open(&left.path(), "test", left.time.clock("boot-1")).unwrap_err();
        assert!(matches!(error.reason, Refusal::Corrupt(_)), "{error:?}");
        assert_eq!((fs::read(log(&left)).unwrap() == before, left.path().exists()), (true, !deleted), "{error}");
    }
}

/// Scenario 48.
#[test]
fn a_link_to_nowhere_is_not_followed_to_a_new_database() {
    let home = Home::new();
    std::os::unix::fs::symlink("nowhere", home.path()).unwrap();
    let error = SqliteStore::open(&home.path(), "test", home.time.clock("boot-1")).unwrap_err();
    assert!(matches!(error.reason, Refusal::Unreachable(_)), "{error:?}");
    assert!(!home.path().with_file_name("nowhere").exists());
}

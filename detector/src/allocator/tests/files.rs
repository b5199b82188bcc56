//! The file: how it is made, and what is not taken for one.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::*;

const OURS: i32 = 0x6475_7069;

/// Opens a file that has to be refused, and shows that it was left as it is.
fn refusal(path: &Path) -> Refusal {
    let before = fs::read(path).unwrap();
    let error = SqliteStore::open(path, "test", Time::default().clock("boot-1")).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}: ", path.display())), "{error}");
    assert!(fs::read(path).unwrap() == before, "the file was changed: {error}");
    error.reason
}

/// A home with some leases in its database, which is closed.
fn used_home() -> Home {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    (0..200).for_each(|n| drop(store.give(&format!("owner-with-a-long-name-{n}"))));
    home
}

#[test]
fn the_file_is_for_its_owner_only() {
    let home = Home::new();
    let path = home.path().with_file_name("new/state/leases.db");
    let store = SqliteStore::open(&path, "test", home.time.clock("boot-1")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for file in ["leases.db", "leases.db-wal", "leases.db-shm"] {
        assert_eq!(mode(&path.with_file_name(file)), 0o600, "{file}");
    }
    assert_eq!([mode(path.parent().unwrap()), mode(path.ancestors().nth(2).unwrap())], [0o700; 2]);
    drop(store);
}

#[test]
fn each_commit_waits_for_the_disk() {
    let home = Home::new();
    let store = home.open();
    let conn = store.connection();
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
    assert_eq!(pragma("synchronous"), rusqlite::types::Value::Integer(2), "2 is FULL");
    assert_eq!(pragma("journal_mode"), rusqlite::types::Value::Text("wal".to_owned()));
}

/// Nobody has the file open in between, as when a runtime calls the plugin and no agent runs.
#[test]
fn the_log_of_those_who_come_for_one_call_stays_short() {
    let home = Home::new();
    drop(home.with_pool("10.8.64.0/24"));
    let log = home.path().with_file_name("leases.db-wal");
    let lengths = (0..60).map(|n| {
        let store = SqliteStore::open_quick(&home.path(), "test", home.time.clock("boot-1")).unwrap();
        store.give(&format!("one-call-{n}"));
        drop(store);
        fs::metadata(&log).map_or(0, |log| log.len())
    });
    let lengths: Vec<_> = lengths.collect();
    assert!(lengths.iter().any(|len| *len > 0), "a log is left to the next: {lengths:?}");
    assert!(lengths.iter().all(|len| *len < 600_000), "and moved when it is long: {lengths:?}");
}

#[test]
fn an_empty_file_is_a_new_database() {
    let home = Home::new();
    fs::write(home.path(), "").unwrap();
    home.with_pool("10.8.64.0/24").give("a");
    assert_eq!(home.sql("SELECT owner FROM lease"), ["a"]);
    assert_eq!(home.sql("PRAGMA application_id"), [OURS.to_string()]);
}

#[test]
fn the_database_of_another_program_is_refused() {
    for (journal, id) in [("delete", 0), ("wal", 0), ("wal", 0x4743_1111)] {
        let home = Home::new();
        let conn = rusqlite::Connection::open(home.path()).unwrap();
        conn.pragma_update(None, "journal_mode", journal).unwrap();
        conn.pragma_update(None, "application_id", id).unwrap();
        conn.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        drop(conn);
        let reason = refusal(&home.path());
        assert!(matches!(reason, Refusal::Foreign { application_id } if application_id == id), "{reason:?}");
        assert_eq!(home.sql("SELECT x FROM t"), ["1"]);
    }
}

#[test]
fn a_log_that_another_program_left_is_not_moved_into_its_database() {
    let home = Home::new();
    let theirs = home.path().with_file_name("theirs.db");
    let conn = rusqlite::Connection::open(&theirs).unwrap();
    conn.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    // As a crash leaves them: copied while the program still has them open.
    for suffix in ["", "-wal"] {
        fs::copy(format!("{}{suffix}", theirs.display()), format!("{}{suffix}", home.path().display())).unwrap();
    }
    assert!(matches!(refusal(&home.path()), Refusal::Foreign { .. }));
    assert_eq!(home.sql("SELECT x FROM t"), ["1"]);
}

#[test]
fn a_newer_database_is_refused() {
    let home = used_home();
    let conn = rusqlite::Connection::open(home.path()).unwrap();
    conn.pragma_update(None, "user_version", 4).unwrap();
    drop(conn);
    let reason = refusal(&home.path());
    assert!(matches!(reason, Refusal::Newer { found: 4, known: 3 }), "{reason:?}");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    for content in ["x", "hello, this is not a database", &"z".repeat(70_000)] {
        let home = Home::new();
        fs::write(home.path(), content).unwrap();
        let reason = refusal(&home.path());
        assert!(matches!(reason, Refusal::Corrupt(_)), "{reason:?}");
    }
}

#[test]
fn a_damaged_database_is_refused() {
    let intact = fs::read(used_home().path()).unwrap();
    let cut = intact[..intact.len() / 2].to_vec();
    let mut overwritten = intact.clone();
    overwritten[4096..].fill(0x55);
    let mut page_lost = intact.clone();
    let last = page_lost.len() - 4096;
    page_lost[last..].fill(0);
    for (what, content) in [("cut", cut), ("overwritten", overwritten), ("page lost", page_lost)] {
        let home = Home::new();
        fs::write(home.path(), content).unwrap();
        let reason = refusal(&home.path());
        assert!(matches!(reason, Refusal::Corrupt(_)), "{what}: {reason:?}");
    }
}

#[test]
fn what_cannot_be_reached_is_said() {
    let home = Home::new();
    fs::write(home.path(), "x").unwrap();
    let below = SqliteStore::open(&home.path().join("leases.db"), "test", home.time.clock("boot-1")).unwrap_err();
    assert!(matches!(below.reason, Refusal::Unreachable(_)), "{below:?}");
    let directory = SqliteStore::open(home.directory.path(), "test", home.time.clock("boot-1")).unwrap_err();
    assert!(matches!(directory.reason, Refusal::Store(_)), "{directory:?}");
}

#[test]
fn a_full_disk_gives_nothing_out_and_loses_nothing() {
    let home = Home::new();
    let store = home.with_pool("10.8.0.0/16");
    let pages = |limit: i64| store.connection().pragma_update(None, "max_page_count", limit).unwrap();
    pages(1);
    let (mut given, error) = (Vec::new(), loop_until_full(&store));
    assert!(matches!(error.1, AllocateError::Store(_)), "{:?}", error.1);
    given.extend(error.0);
    assert_eq!(store.leases(None).unwrap(), given);
    assert_eq!(home.open().leases(None).unwrap(), given);
    pages(i64::from(u32::MAX - 1));
    let next = store.give("after");
    assert_eq!(next.generation, Generation(given.len() as u64 + 1));
}

fn loop_until_full(store: &SqliteStore) -> (Vec<Lease>, AllocateError) {
    let mut given = Vec::new();
    loop {
        match store.allocate(&wish(rt0(), &owner(&format!("n{}", given.len())), &nothing())) {
            Ok(lease) => given.push(lease),
            Err(error) => return (given, error),
        }
        assert!(given.len() < 10_000, "the disk never got full");
    }
}

#[test]
fn the_database_itself_refuses_a_second_holder() {
    let home = used_home();
    let conn = rusqlite::Connection::open(home.path()).unwrap();
    let refused = |sql: &str| conn.execute_batch(sql).unwrap_err().to_string();
    let row = |address: &str, name: &str, generation: u32, state: &str| {
        format!(
            "INSERT INTO lease (domain, address, owner, interface, generation, state, since_ns, changed)
             VALUES ('rt0', {address}, '{name}', '', {generation}, '{state}', 0, 0)"
        )
    };
    let (used, free) = ("x'0a084002'", "x'0a0840fa'");
    for (sql, why) in [
        (row(used, "x", 900, "bound"), "UNIQUE"),
        (row(free, "owner-with-a-long-name-0", 900, "reserved"), "UNIQUE"),
        (row(free, "x", 1, "draining"), "UNIQUE"),
        (row(free, "x", 900, "given"), "CHECK"),
        (row(free, "x", 900, "cooldown"), "CHECK"),
        (row("x'0a0840'", "x", 900, "bound"), "CHECK"),
        ("UPDATE lease SET owner = 'x' WHERE generation = 1".to_owned(), "does not change hands"),
        ("DELETE FROM lease WHERE generation = 1".to_owned(), "has not rested stays"),
        ("UPDATE domain SET generation = 7".to_owned(), "does not come again"),
    ] {
        let error = refused(&sql);
        assert!(error.contains(why), "{sql}: {error}");
    }
}

#[test]
fn the_journal_keeps_to_its_length() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let conn = rusqlite::Connection::open(home.path()).unwrap();
    let newest = "UPDATE journal SET entry = 100001 WHERE entry = (SELECT max(entry) FROM journal)";
    conn.execute_batch(newest).unwrap();
    assert_eq!(home.sql("SELECT entry FROM journal"), ["1", "100001"]);
    store.give("a");
    assert_eq!(home.sql("SELECT entry FROM journal"), ["100001", "100002"]);
}

#[test]
fn nothing_is_written_to_a_file_that_is_not_there_any_more() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let lease = store.give("a");
    let saved = home.directory.path().join("saved.db");
    fs::rename(home.path(), &saved).unwrap();
    let log = |of: &Path| format!("{}-wal", of.display());
    fs::rename(log(&home.path()), log(&saved)).unwrap();
    let refused = |home: &Home| {
        assert!(matches!(
            store.allocate(&wish(rt0(), &owner("b"), &nothing())),
            Err(AllocateError::Store(StoreError::Replaced))
        ));
        assert!(matches!(store.release(&Fence::from(&lease)), Err(StoreError::Replaced)));
        drop(home.open());
    };
    refused(&home);
    refused(&home);
}

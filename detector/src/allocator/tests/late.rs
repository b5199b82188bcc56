//! A book that is not there when it is opened, or stops to work.

use std::{fs, sync::mpsc, time::Duration};

use rustix::mount::{MountFlags, mount_remount};

use super::{
    faults::{fill, on_a_small_disk},
    *,
};

/// How long anything may take that takes a second at most on a machine that does little else.
const DEADLINE: Duration = Duration::from_secs(20);

/// A late book, and what is told of it.
struct Told {
    store: Late,
    words: mpsc::Receiver<Option<String>>,
}

impl Told {
    fn open(home: &Home) -> Result<Self, OpenError> {
        Self::open_within(DEADLINE, home, "boot-1")
    }

    fn open_within(patience: Duration, home: &Home, boot: &str) -> Result<Self, OpenError> {
        let (tell, words) = mpsc::channel();
        let tell = move |error: Option<&StoreError>| drop(tell.send(error.map(ToString::to_string)));
        let store = Late::open_within(patience, &home.path(), "test", home.time.clock(boot), tell)?;
        Ok(Self { store, words })
    }

    fn next(&self) -> Option<String> {
        self.words.recv_timeout(DEADLINE).expect("nothing is told")
    }

    fn wait_until_it_works(&self) {
        while self.next().is_some() {}
    }

    /// Shows that nothing can be looked up or given, and that the reason has `words` in it.
    fn assert_unopened(&self, words: &str) {
        let wish = Wish::new(rt0(), owner("a"));
        let given = self.store.on_behalf_of("b").reserve(&wish, COOLDOWN);
        let (looked, given) = (self.store.leases(None).unwrap_err(), given.unwrap_err());
        assert!(matches!(looked, StoreError::Unopened(_)), "{looked:?}");
        assert!(matches!(given, AllocateError::Store(StoreError::Unopened(_))), "{given:?}");
        assert!(given.to_string().contains(words), "{given}");
    }
}

#[test]
fn a_book_that_can_be_opened_is_open_at_once_and_nothing_is_told() {
    let home = Home::new();
    let told = Told::open(&home).unwrap();
    told.store.ensure_pool(&pool(rt0(), "10.8.64.0/24")).unwrap();
    let by_b = told.store.on_behalf_of("b").allocate(&Wish::new(rt0(), owner("a"))).unwrap();
    assert_eq!((by_b.address, told.store.leases(None).unwrap().len()), (ip(2), 1));
    assert_eq!(told.store.history(None, ip(2)).unwrap()[0].actor, "b");
    assert_eq!(told.words.try_recv(), Err(mpsc::TryRecvError::Empty));
}

#[test]
fn a_book_whose_directory_cannot_be_made_is_opened_when_it_is_there() {
    let home = Home::new();
    let aside = home.directory.path().with_extension("aside");
    let lease = home.with_pool("10.8.64.0/24").give("a");
    fs::rename(home.directory.path(), &aside).unwrap();
    fs::write(home.directory.path(), "in the way").unwrap();
    let told = Told::open(&home).unwrap();
    told.assert_unopened("File exists");
    assert!(told.next().unwrap().contains("File exists"));
    fs::remove_file(home.directory.path()).unwrap();
    fs::rename(aside, home.directory.path()).unwrap();
    told.wait_until_it_works();
    assert_eq!(told.store.leases(None).unwrap(), [lease]);
}

/// Scenario 39: with no more room than for some part of a new book, it is never taken for a damaged one afterwards.
#[test]
fn a_book_that_could_not_be_begun_for_want_of_room_is_begun_when_there_is_some() {
    on_a_small_disk(1 << 20, |home| {
        let ballast = home.path().with_file_name("ballast");
        let mut late = 0;
        for pages in 0..24 {
            fill(&ballast);
            let full = fs::metadata(&ballast).unwrap().len();
            fs::File::options().write(true).open(&ballast).unwrap().set_len(full - pages * 4096).unwrap();
            let told = Told::open(&home).unwrap();
            let opened = told.store.leases(None).is_ok();
            fs::remove_file(&ballast).unwrap();
            if !opened {
                late += 1;
                told.wait_until_it_works();
            }
            assert_eq!(told.store.leases(None).unwrap(), [], "{pages} pages");
            drop(told);
            for left in fs::read_dir(home.directory.path()).unwrap() {
                match fs::remove_file(left.unwrap().path()) {
                    // The last attempt, which nobody waits for any more, cleans up itself.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    removed => removed.unwrap(),
                }
            }
        }
        // How much room a book takes is SQLite's business, and how exactly it is counted the kernel's.
        assert!(late > 0, "with no room at all there is no book");
    });
}

#[test]
fn a_book_that_can_only_be_read_is_opened_when_it_can_be_written() {
    on_a_small_disk(1 << 20, |home| {
        let lease = home.with_pool("10.8.64.0/24").give("a");
        remount(&home, MountFlags::RDONLY);
        let told = Told::open(&home).unwrap();
        told.assert_unopened(&home.path().display().to_string());
        remount(&home, MountFlags::empty());
        told.wait_until_it_works();
        assert_eq!(told.store.leases(None).unwrap(), [lease]);
        told.store.allocate(&Wish::new(rt0(), owner("b"))).unwrap();
    });
}

#[test]
fn a_book_that_another_process_keeps_to_itself_holds_up_nobody() {
    let home = Home::new();
    let lease = home.with_pool("10.8.64.0/24").give("a");
    let other = rusqlite::Connection::open(home.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // In another boot there is something to write before anything can be asked.
    let told = Told::open_within(Duration::from_millis(50), &home, "boot-2").unwrap();
    told.assert_unopened("still being opened");
    drop(other);
    told.wait_until_it_works();
    assert_eq!(told.store.leases(None).unwrap(), [lease]);
}

/// Scenario 39, while it runs: what cannot be written is told, and told again when it can.
#[test]
fn a_disk_that_fills_up_is_told_of_and_so_is_the_first_change_that_reaches_it_again() {
    on_a_small_disk(1 << 20, |home| {
        let told = Told::open(&home).unwrap();
        told.store.ensure_pool(&pool(rt0(), "10.8.64.0/24")).unwrap();
        let ballast = home.path().with_file_name("ballast");
        for _ in 0..2 {
            fill(&ballast);
            let wish = Wish::new(rt0(), owner(&format!("a{}", told.store.leases(None).unwrap().len())));
            told.store.allocate(&wish).unwrap_err();
            assert!(told.next().unwrap().contains("full"));
            let before = told.store.leases(None).unwrap();
            // The keeper has tried for itself, and reading alone shows nothing.
            assert!(told.next().unwrap().contains("full"));
            fs::remove_file(&ballast).unwrap();
            told.wait_until_it_works();
            assert_eq!(told.store.leases(None).unwrap(), before);
            told.store.allocate(&wish).unwrap();
        }
    });
}

/// Scenario 48.
#[test]
fn what_is_no_lease_database_is_refused_at_once_and_left_as_it_is() {
    for content in [&b"x"[..], &[7; 9000]] {
        let home = Home::new();
        fs::write(home.path(), content).unwrap();
        let error = Told::open(&home).map(|told| told.store).unwrap_err();
        assert!(matches!(error.reason, Refusal::Corrupt(_)), "{error:?}");
        assert_eq!(fs::read(home.path()).unwrap(), content);
    }
    let home = Home::new();
    drop(home.open());
    rusqlite::Connection::open(home.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Told::open(&home).map(|told| told.store).unwrap_err();
    assert!(matches!(error.reason, Refusal::Newer { .. }), "{error:?}");
}

/// What is too long is refused by a book that works, which nobody has to be told of.
#[test]
fn incidents_are_kept_by_a_late_book_as_by_any_other() {
    let home = Home::new();
    let told = Told::open(&home).unwrap();
    let incident = Kept {
        number: 3,
        boot: "boot-1".to_owned(),
        domain: rt0(),
        address: ip(2),
        is_open: true,
        opened: std::time::UNIX_EPOCH,
        record: "{}".to_owned(),
    };
    told.store.keep(std::slice::from_ref(&incident)).unwrap();
    told.store.set("pause", Some("1")).unwrap();
    assert_eq!(told.store.kept(3).unwrap().as_ref(), Some(&incident));
    assert_eq!(
        (told.store.kept_open().unwrap(), told.store.kept_lately(1).unwrap().len()),
        (vec![incident.clone()], 1)
    );
    assert_eq!((told.store.last_incident().unwrap(), told.store.setting("pause").unwrap().as_deref()), (3, Some("1")));
    told.store.keep(&[Kept { record: "x".repeat(LONGEST_RECORD + 1), ..incident }]).unwrap_err();
    assert_eq!(told.words.try_recv(), Err(mpsc::TryRecvError::Empty));
    home.open().connection().execute_batch("DROP TABLE setting").unwrap();
    told.store.setting("pause").unwrap_err();
    assert!(told.next().unwrap().contains("no such table"));
}

/// What comes to light only later does not end anything, and nothing is begun over it.
#[test]
fn a_damaged_book_that_turns_up_later_is_left_alone() {
    let home = Home::new();
    fs::remove_dir(home.directory.path()).unwrap();
    fs::write(home.directory.path(), "in the way").unwrap();
    let told = Told::open(&home).unwrap();
    let aside = home.directory.path().with_extension("aside");
    fs::create_dir(&aside).unwrap();
    fs::write(aside.join("leases.db"), "no database at all, but no longer than that").unwrap();
    fs::remove_file(home.directory.path()).unwrap();
    fs::rename(&aside, home.directory.path()).unwrap();
    while !told.next().expect("it is open").contains("is damaged") {}
    told.assert_unopened("is damaged");
    assert!(fs::read(home.path()).unwrap().starts_with(b"no database"));
}

fn remount(home: &Home, flags: MountFlags) {
    mount_remount(home.directory.path(), flags, c"").unwrap();
}

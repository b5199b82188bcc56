//! How a lease database is opened: looked at before it is written to, and never begun anew over what is there.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf, absolute},
    thread,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    io::Errno,
};

use super::{Refusal, book::Book, schema};
use crate::allocator::Clock;

/// How often a call asks whether it is its turn to write, and how long it waits in between: a minute in all, of which
/// each of the others takes about as long as one write to the disk.
const TURNS: i32 = 60_000;
const TURN: Duration = Duration::from_millis(1);

/// The largest file that is always checked whole, in bytes: that takes less than one write to the disk. At 1 MiB it would
/// be most of what a call of the plugin takes.
const SMALL: u64 = 1 << 16;

/// The longest log that is left to the next who opens the database, in bytes: some eight changes, which it reads in less
/// than the time of one write to the disk.
const SHORT: u64 = 64 << 10;

/// How carefully a file is looked at before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// Every page, and every index.
    Whole,
    /// For a file that was opened before in this boot, and checked whole then: every page of a small one, and of a large
    /// one what is read of it, as it is read.
    Quick,
}

/// Which file it is that was opened, whatever its path leads to later.
#[derive(Debug)]
pub(super) struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let (path, found) = (absolute(path)?, fs::metadata(path)?);
        Ok(Self { path, device: found.dev(), inode: found.ino() })
    }

    pub(super) fn is_still_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }
}

/// Opens the database at `path`, to write.
pub(super) fn connect(path: &Path, actor: &str, clock: &Clock, care: Care) -> Result<Connection, Refusal> {
    // SQLite gives a relative name like `:memory:` a meaning of its own.
    let path = absolute(path)?;
    not_over_a_log(&path)?;
    create(&path)?;
    let len = fs::metadata(&path)?.len();
    // SQLite takes one byte for none (`unixFileSize`) and would write over it.
    if len == 1 {
        return Err(Refusal::Corrupt("one byte is all there is".to_owned()));
    }
    let mut conn = open(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let known = inspect(&mut conn, clock, care, len)?;
    // Of a new file only: a change writes whole pages, and each of its eight or so has little in it.
    conn.pragma_update(None, "page_size", 1024)?;
    schema::write_ahead(&conn)?;
    // Whatever has been committed is on the disk, not only in its cache (https://sqlite.org/pragma.html#pragma_synchronous).
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    if !known {
        begin(&mut conn, actor, clock)?;
    }
    if care == Care::Quick && size(&log(&path)) < SHORT {
        // Whoever is here for one call leaves the log to the next: to move it into the file takes two more writes. But
        // only so often: who opens a database that nobody has open reads its log from the start and then adds to its end,
        // even if all of it is in the file already (`walIndexRecover` forgets what was), so it would never end.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    }
    Ok(conn)
}

/// Opens a database that is open already, to read: a reader waits for nobody.
pub(super) fn reader(path: &Path) -> Result<Connection, Refusal> {
    let conn = open(&absolute(path)?, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

pub(super) fn open(path: &Path, flags: OpenFlags) -> Result<Connection, Refusal> {
    let mut conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_handler(Some(wait_for_a_turn))?;
    conn.pragma_update(None, "cell_size_check", true)?;
    Ok(conn)
}

/// SQLite's own handler sleeps longer and longer, so that many writers get in each other's way.
fn wait_for_a_turn(asked: i32) -> bool {
    thread::sleep(TURN);
    asked < TURNS
}

/// A log without its database still has what was committed last. SQLite would throw it away (`pagerOpenWalIfPresent`).
///
/// The log is looked at first: whoever makes a database writes to that before there is a log.
fn not_over_a_log(path: &Path) -> Result<(), Refusal> {
    let log = log(path);
    if size(&log) > 0 && size(path) == 0 {
        return Err(Refusal::Corrupt(format!("it is empty or gone, but its log {} is there", log.display())));
    }
    Ok(())
}

/// Where SQLite keeps the write-ahead log of the database at `path`.
fn log(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// The length of `file` in bytes, 0 if there is none.
fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.len())
}

/// Makes an empty file, which is what a new database is, if nothing is there.
///
/// Without opening it: closing a file lets go of every lock that the process has on it (`fcntl_locking`(2)), those of
/// another thread's connection too.
fn create(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    match mknodat(CWD, path, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0) {
        Err(error) if error != Errno::EXIST => Err(error.into()),
        _ => Ok(()),
    }
}

/// Looks whether this is a lease database. If not, closing it must not so much as move its log into it.
///
/// Answers whether it is of the newest version and has been opened in this boot, so that nothing has to be written.
fn inspect(conn: &mut Connection, clock: &Clock, care: Care, len: u64) -> Result<bool, Refusal> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let tx = conn.transaction()?;
    let known = schema::is_current(&tx)? && schema::boot(&tx)?.as_deref() == Some(clock.boot());
    match care {
        Care::Quick if known && len > SMALL => {}
        Care::Quick if known => schema::inspect(&tx, false)?,
        _ => schema::inspect(&tx, true)?,
    }
    drop(tx);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(known)
}

fn begin(conn: &mut Connection, actor: &str, clock: &Clock) -> Result<(), Refusal> {
    let book = Book::open(conn, clock, actor)?;
    schema::migrate(book.transaction())?;
    book.follow_boot()?;
    Ok(book.commit()?)
}

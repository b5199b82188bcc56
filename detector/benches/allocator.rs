//! What `cargo xtask bench allocator` runs: makes books of leases, and works on them as one process of many.
//!
//! ```text
//! prepare BOOK HELD LATE                    a new book with HELD leases, and LATE lines in its journal besides
//! work (bare | allocate | reserve) BOOK WARM TIMES
//! ```
//!
//! A worker opens the book, makes WARM changes that do not count, says `ready`, waits for a line, makes TIMES changes and
//! prints when each of them began and ended, in nanoseconds since boot, which all processes count alike.

use std::{
    env,
    io::{self, BufRead as _},
    path::Path,
    process, thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use detector::{
    allocator::{Clock, Fence, Pool, SqliteStore, Store as _, Wish, since_boot},
    net::{Domain, Generation, Ipv4Net},
    time::Span,
};
use rusqlite::{Connection, ErrorCode};

/// Where the leases are that are counted, and where those of the warm-up.
const MEASURED: (&str, &str) = ("rt0", "10.8.0.0/16");
const WARM_UP: (&str, &str) = ("warm0", "10.9.0.0/16");

/// How long the pools' addresses rest.
const COOLDOWN: Span = Span::from_secs(600);

/// How long a reservation holds that is bound at once.
const RESERVATION: Span = Span::from_secs(30);

/// A row of the bare table: about as long as one of a lease.
const ROW: [u8; 100] = [7; 100];

/// One durable change: the `n`th of this process, in the part that is measured or in the warm-up's.
type Change = Box<dyn Fn(usize, bool) -> Result<()>>;

fn main() -> Result<()> {
    let words: Vec<_> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["prepare", book, held, late] => prepare(Path::new(book), held.parse()?, late.parse()?),
        ["work", "bare", book, warm, times] => work(&bare(Path::new(book))?, warm.parse()?, times.parse()?),
        ["work", how, book, warm, times] => work(&lending(Path::new(book), how)?, warm.parse()?, times.parse()?),
        _ => {
            eprintln!(
                "this is a part of `cargo xtask bench allocator`, which builds it, runs it and makes sense of it"
            );
            Ok(())
        }
    }
}

fn prepare(book: &Path, held: usize, late: usize) -> Result<()> {
    let store = open(book)?;
    for (bridge, subnet) in [MEASURED, WARM_UP] {
        let subnet: Ipv4Net = subnet.parse()?;
        store.ensure_pool(&Pool::new(domain(bridge)?, subnet, subnet.hosts().next(), COOLDOWN)?)?;
    }
    for n in 0..held {
        store.allocate(&wish("held", n, false)?)?;
    }
    // A release that comes too late changes nothing but the journal.
    let (domain, owner) = (domain(MEASURED.0)?, "nobody".parse()?);
    let stale = Fence { domain, address: "10.8.255.254".parse()?, owner, generation: Generation(0) };
    for _ in 0..late {
        store.release(&stale)?;
    }
    Ok(())
}

fn work(change: &Change, warm: usize, times: usize) -> Result<()> {
    (0..warm).try_for_each(|n| change(n, true))?;
    println!("ready");
    let mut go = String::new();
    io::stdin().lock().read_line(&mut go)?;
    if go.is_empty() {
        bail!("whoever started this is gone");
    }
    let mut spans = Vec::with_capacity(times);
    for n in 0..times {
        let began = since_boot();
        change(n, false)?;
        spans.push((began.as_nanos(), since_boot().as_nanos()));
    }
    spans.iter().for_each(|(began, ended)| println!("{began} {ended}"));
    Ok(())
}

/// One row in one commit, as durable and with the same way to wait for others as the store has.
fn bare(path: &Path) -> Result<Change> {
    let mut conn = Connection::open(path)?;
    conn.busy_handler(Some(|_| {
        thread::sleep(Duration::from_millis(1));
        true
    }))?;
    write_ahead(&conn)?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.execute_batch("CREATE TABLE IF NOT EXISTS bare (row BLOB)")?;
    Ok(Box::new(move |_, _| {
        conn.prepare_cached("INSERT INTO bare VALUES (?1)")?.execute([&ROW[..]])?;
        Ok(())
    }))
}

/// SQLite does not wait for others here (`sqlite3BtreeSetVersion`), so it is asked until it is alone.
fn write_ahead(conn: &Connection) -> Result<()> {
    loop {
        match conn.query_one("PRAGMA journal_mode = wal", [], |_| Ok(())) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                thread::sleep(Duration::from_millis(1));
            }
            done => return Ok(done?),
        }
    }
}

fn lending(book: &Path, how: &str) -> Result<Change> {
    let store = open(book)?;
    let me = process::id().to_string();
    match how {
        "allocate" => Ok(Box::new(move |n, warm| {
            store.allocate(&wish(&me, n, warm)?)?;
            Ok(())
        })),
        "reserve" => Ok(Box::new(move |n, warm| {
            let lease = store.reserve(&wish(&me, n, warm)?, RESERVATION)?;
            store.bind(&Fence::from(&lease))?;
            Ok(())
        })),
        other => bail!("there is no way to work called `{other}`"),
    }
}

fn open(book: &Path) -> Result<SqliteStore> {
    Ok(SqliteStore::open(book, "bench", Clock::system().context("no boot id")?)?)
}

/// An owner's name is as long as a container's id.
fn wish(whose: &str, n: usize, warm: bool) -> Result<Wish> {
    let (bridge, _) = if warm { WARM_UP } else { MEASURED };
    Ok(Wish {
        interface: Some("eth0".parse()?),
        ..Wish::new(domain(bridge)?, format!("{whose:0>32}{n:0>32}").parse()?)
    })
}

fn domain(bridge: &str) -> Result<Domain> {
    Ok(Domain::untagged(bridge.parse()?))
}

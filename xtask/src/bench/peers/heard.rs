//! Which addresses somebody has named, and when.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    net::Ipv4Addr,
    process::Command,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// What is read at a time.
const CHUNK: usize = 64 * 1024;

/// The addresses that were named, each with the moment at which it was first. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::bench) struct Heard {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    first: Mutex<HashMap<Ipv4Addr, Instant>>,
    news: Condvar,
}

impl Heard {
    /// An address is named. Only the first time counts.
    pub(in crate::bench) fn add(&self, address: Ipv4Addr, at: Instant) {
        self.lock().entry(address).or_insert(at);
        self.shared.news.notify_all();
    }

    /// When an address was first named.
    pub(in crate::bench) fn first(&self, address: Ipv4Addr) -> Option<Instant> {
        self.lock().get(&address).copied()
    }

    /// Waits until all of these are named, and tells whether they are.
    pub(in crate::bench) fn wait_for(&self, addresses: &[Ipv4Addr], patience: Duration) -> bool {
        let is_missing =
            |first: &mut HashMap<_, _>| !addresses.iter().all(|address: &Ipv4Addr| first.contains_key(address));
        let waited = self.shared.news.wait_timeout_while(self.lock(), patience, is_missing);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// What is heard by lines, which a thread of its own reads until there are no more: whatever `named` finds in each.
    /// Every line bears the moment at which it could be read.
    pub(in crate::bench) fn of(
        mut from: impl Read + Send + 'static,
        mut named: impl FnMut(&str) -> Option<Ipv4Addr> + Send + 'static,
    ) -> Self {
        let heard = Self::default();
        let told = heard.clone();
        // It ends with the last line.
        thread::spawn(move || {
            come_first();
            read_lines(&mut from, |at, line| {
                if let Some(address) = named(line) {
                    told.add(address, at);
                }
            })
        });
        heard
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Instant>> {
        self.shared.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the calling thread its turn before all others (sched(7)), where that is allowed: what is measured is when a line is
/// written, not how long whoever reads it waits for a processor that a flood keeps busy.
fn come_first() {
    // `PID/task/TID`
    let Ok(thread) = fs::read_link("/proc/thread-self") else { return };
    let chrt = Command::new("chrt").args(["--fifo", "--pid", "1"]).args(thread.file_name()).output();
    if !chrt.is_ok_and(|output| output.status.success()) {
        eprintln!("bench: lines are read when there is time, so they may seem to be late");
    }
}

/// Hands over each line with the moment at which its end was read. What is no text is handed over as well as it can be.
fn read_lines(from: &mut impl Read, mut line: impl FnMut(Instant, &str)) -> io::Result<()> {
    let (mut chunk, mut rest) = (vec![0; CHUNK], Vec::new());
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let at = Instant::now();
        rest.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let whole: Vec<u8> = rest.drain(..=end).collect();
        String::from_utf8_lossy(&whole).lines().for_each(|text| line(at, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Slowly(&'static [u8]);

    impl Read for Slowly {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let (now, later) = self.0.split_at(self.0.len().min(3));
            self.0 = later;
            into[..now.len()].copy_from_slice(now);
            Ok(now.len())
        }
    }

    #[test]
    fn lines_come_whole_and_only_the_first_of_an_address_counts() {
        let heard = Heard::of(Slowly(b"10.8.0.1\nnothing\n10.8.0.2\n10.8.0.1\n10.8.0.3"), |line| line.parse().ok());
        let [one, two, three] = [1, 2, 3].map(|n| Ipv4Addr::new(10, 8, 0, n));
        assert!(heard.wait_for(&[one, two], Duration::from_secs(60)));
        assert!(heard.first(one).unwrap() < heard.first(two).unwrap());
        assert_eq!(heard.first(three), None, "the last line has no end");
        assert!(heard.wait_for(&[one, two], Duration::ZERO));
        assert!(!heard.wait_for(&[one, three], Duration::ZERO));
    }
}

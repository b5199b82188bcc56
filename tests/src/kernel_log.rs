//! The kernel's log, from now on.

use std::{
    fmt,
    fs::File,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use pnet::util::MacAddr;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, open},
};

/// The longest record that `/dev/kmsg` gives out (`PRINTK_MESSAGE_MAX` in `kernel/printk/internal.h`).
const RECORD: usize = 2048;

/// Follows the kernel's log. It is one for all network namespaces, so look for what only this lab has.
///
/// The kernel logs at most ten lines about packets in five seconds, for all namespaces together
/// (`net.core.message_burst` and `message_cost`): a line may be missing, and whoever waits for one must provoke it again.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
    /// The martian line whose link header has not come yet.
    pending: Option<String>,
}

/// A martian source, as the kernel logs it in two lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Martian {
    /// Such as `IPv4: martian source 10.8.64.1 from 10.8.64.2, on dev eth0`: target first, then source.
    pub source: String,
    /// Such as `ll header: 00000000: ff ff ff ff ff ff ee 45 b1 fe 2d db 08 06`: the frame's own header.
    pub header: String,
}

impl KernelLog {
    /// Starts to follow: the next record is one that is not there yet.
    ///
    /// # Errors
    /// If `/dev/kmsg` cannot be read.
    pub fn follow() -> Result<Self> {
        let kmsg = open("/dev/kmsg", OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        let mut file = File::from(kmsg.context("cannot open /dev/kmsg")?);
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, pending: None })
    }

    /// The first new line with `words` in it; `None` if there is none within `time`.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn line(&mut self, words: &str, time: Duration) -> Result<Option<String>> {
        self.search(time, |_, line| line.contains(words).then(|| line.to_owned()))
    }

    /// The first new martian whose frame came from `mac`; `None` if there is none within `time`.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn martian_from(&mut self, mac: MacAddr, time: Duration) -> Result<Option<Martian>> {
        self.search(time, |log, line| log.martian(line).filter(|martian| martian.mac() == Some(mac)))
    }

    /// Two records make a martian; those of other namespaces may come between them.
    fn martian(&mut self, line: &str) -> Option<Martian> {
        if line.contains("martian source") {
            self.pending = Some(line.to_owned());
        }
        let source = self.pending.take_if(|_| line.starts_with("ll header:"))?;
        Some(Martian { source, header: line.trim_end().to_owned() })
    }

    fn search<T>(&mut self, time: Duration, mut found: impl FnMut(&mut Self, &str) -> Option<T>) -> Result<Option<T>> {
        let end = Instant::now() + time;
        while let Some(line) = self.next(end)? {
            if let Some(found) = found(self, &line) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The next record's message, or nothing if none comes before `end`.
    fn next(&mut self, end: Instant) -> Result<Option<String>> {
        let mut record = [0; RECORD];
        loop {
            match self.file.read(&mut record) {
                Ok(length) => return Ok(record.get(..length).map(message)),
                // Records that nobody read were overwritten; the next read goes on with the oldest that is left.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
                    if poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&left))? == 0 {
                        return Ok(None);
                    }
                }
                Err(error) => bail!("cannot read the kernel's log: {error}"),
            }
        }
    }
}

impl Martian {
    /// The source of the frame, from the link header.
    #[must_use]
    pub fn mac(&self) -> Option<MacAddr> {
        let (_, bytes) = self.header.split_once("00000000: ")?;
        let source: Vec<&str> = bytes.split_whitespace().skip(6).take(6).collect();
        source.join(":").parse().ok()
    }
}

impl fmt::Display for Martian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.source, self.header)
    }
}

/// A record is `priority,number,time,flags;message`, then lines of properties (`Documentation/ABI/testing/dev-kmsg`).
fn message(record: &[u8]) -> String {
    let text = String::from_utf8_lossy(record);
    let (_, message) = text.split_once(';').unwrap_or_default();
    message.lines().next().unwrap_or_default().to_owned()
}

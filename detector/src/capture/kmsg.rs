//! Martians that the kernel itself logs, in whatever network namespace: its log is one for the whole machine.
//!
//! One martian is two records, which the kernel writes one after the other and not in one go
//! (`ip_handle_martian_source` in `net/ipv4/route.c`), so records of other processors may come between them:
//!
//! ```text
//! IPv4: martian source 10.8.64.1 from 10.8.64.2, on dev eth0
//! ll header: 00000000: ff ff ff ff ff ff ee 45 b1 fe 2d db 08 06
//! ```
//!
//! The kernel logs at most ten lines about packets in five seconds, for all namespaces together
//! (`net.core.message_burst` and `message_cost`), and only where `log_martians` is set: that nothing is logged says
//! nothing.

mod join;
#[cfg(any(test, fuzzing))]
pub(super) mod properties;
mod record;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    net::Ipv4Addr,
    time::Duration,
};

use rustix::fs::{Mode, OFlags, fstat, major, minor, open};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, timeout_at},
};

use self::join::Joined;
pub use self::record::{Caller, EthernetHeader, Line, LinkHeader, Record, parse_record};
use crate::net::Mac;

/// The character device's numbers (`Documentation/admin-guide/devices.txt`). Container tools bind other files there.
const DEVICE: (u32, u32) = (1, 11);
/// The longest record that any kernel gives out (`CONSOLE_EXT_LOG_MAX` before Linux 6.4, `PRINTK_MESSAGE_MAX` since).
const RECORD: usize = 8192;
/// How long to wait for a link header. The kernel writes it within microseconds, or never.
const HEADER_WAIT: Duration = Duration::from_millis(250);
/// `ETH_P_ARP` (`include/uapi/linux/if_ether.h`).
const ETHERTYPE_ARP: u16 = 0x0806;

/// A packet that the kernel took for a martian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelMartian {
    /// Which of its addresses cannot be.
    pub kind: MartianKind,
    /// Who sent it, as the packet says; for ARP, the sender's protocol address.
    pub source: Ipv4Addr,
    /// Whom it was for; for ARP, the target's protocol address.
    pub target: Ipv4Addr,
    /// The interface that it came in by, in a namespace that the kernel does not tell. Bytes that are no UTF-8 are
    /// replaced.
    pub device: String,
    /// The frame's source; none if the kernel did not log the frame's header, or it is not known whose it is.
    pub frame_source: Option<Mac>,
    /// The frame's destination, likewise.
    pub frame_destination: Option<Mac>,
    /// The frame's type in host byte order, likewise.
    pub ethertype: Option<u16>,
}

/// Which address of a packet the kernel took offence at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MartianKind {
    /// The source: such as one of the receiver's own. Its frame is logged with it.
    Source,
    /// The destination.
    Destination,
}

impl MartianKind {
    /// The kind in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl KernelMartian {
    /// Whether it was ARP, not IPv4: the source claims an address and does not only use it.
    #[must_use]
    pub fn is_arp(&self) -> bool {
        self.ethertype == Some(ETHERTYPE_ARP)
    }
}

/// Follows the kernel's log for martians.
pub struct MartianLog {
    file: AsyncFd<File>,
    joined: Joined,
    /// When those that wait for their link header have waited long enough.
    patience: Option<Instant>,
}

impl MartianLog {
    /// Follows the log from now on. Needs the Tokio runtime's context.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no `/dev/kmsg`, [`io::ErrorKind::PermissionDenied`] if the kernel does not
    /// let us (`kernel.dmesg_restrict` wants CAP_SYSLOG), [`io::ErrorKind::InvalidInput`] if something else lies there.
    pub fn open() -> io::Result<Self> {
        let mut file =
            File::from(open("/dev/kmsg", OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
        let device = fstat(&file)?.st_rdev;
        if (major(device), minor(device)) != DEVICE {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "/dev/kmsg is not the kernel's log"));
        }
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file: register(file)?, joined: Joined::default(), patience: None })
    }

    /// The next martian. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// If the log cannot be read any more.
    pub async fn next(&mut self) -> io::Result<KernelMartian> {
        loop {
            if let Some(martian) = self.joined.next() {
                return Ok(martian);
            }
            self.patience = match self.joined.is_waiting() {
                true => self.patience.or_else(|| Some(Instant::now() + HEADER_WAIT)),
                false => None,
            };
            self.receive().await?;
        }
    }

    /// How many records are known to be lost, overwritten before they were read: any of them may have been a martian.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.joined.lost()
    }

    /// Reads one record, waiting for it until patience ends.
    async fn receive(&mut self) -> io::Result<()> {
        let Some(end) = self.patience else { return self.read().await };
        match timeout_at(end, self.read()).await {
            Ok(read) => read,
            Err(_elapsed) => {
                self.joined.give_up();
                Ok(())
            }
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; RECORD];
        let read = self.file.async_io_mut(Interest::READABLE, |file| file.read(&mut buffer)).await;
        match read {
            Ok(length) => self.joined.take(buffer.get(..length).unwrap_or_default()),
            // `EPIPE`: what was to be read next was overwritten; the next read goes on with the oldest that is left.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.joined.overrun(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[expect(unsafe_code, reason = "the runtime must be told of a file descriptor that it does not own")]
fn register(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: `file` owns its descriptor and closes it only when it is dropped, together with the `AsyncFd`.
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?)
}

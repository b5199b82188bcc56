//! Why the agent cannot start, or had to stop.

use std::io;

use crate::{
    allocator::OpenError,
    capture::{CaptureError, SendError},
    netlink,
};

/// Why the agent cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tap cannot be loaded or read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// What the tap heard cannot be waited for any more.
    #[error("cannot wait for the tap's ring buffer: {0}")]
    Ring(#[source] io::Error),
    /// The task that looks into sandboxes has ended, which is a bug: without it the agent is blind.
    #[error("the surveyor has ended; please report this with what was logged before")]
    Surveyor,
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// Probes and announcements cannot be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The kernel's network cannot be asked.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The lease database is damaged, of a newer dupip, or another program's.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The machine's boot cannot be told from others.
    #[error("cannot read which boot this is: {0}; dupip needs /proc")]
    Clock(#[source] io::Error),
}

//! What the program in the kernel says to whoever looks for a fault: one line for each malformed frame, at level debug.
//!
//! Without a reader at that level the kernel cuts the logging out of the program as it loads it, and nothing is forwarded.

use aya::{Ebpf, EbpfLoader};
use aya_log::{EbpfLogger, Level};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::{AbortHandle, spawn},
};
use tracing::{level_filters::LevelFilter, warn};

/// The log level as the program's global has it.
static DEBUG: u8 = Level::Debug as u8;
static SILENT: u8 = 0;

fn is_wanted() -> bool {
    LevelFilter::current() >= LevelFilter::DEBUG
}

/// Tells the program to log only if somebody reads it.
pub(super) fn set_level(loader: &mut EbpfLoader<'_>) {
    loader.override_global(aya_log::LEVEL, if is_wanted() { &DEBUG } else { &SILENT }, true);
}

/// Forwards the program's lines to the log until it is aborted; nothing if nobody reads them.
#[expect(unsafe_code, reason = "tokio has to be told that the file descriptor stays the same")]
pub(super) fn forward(ebpf: &mut Ebpf) -> Option<AbortHandle> {
    is_wanted().then_some(())?;
    let logger = EbpfLogger::init(ebpf)
        .inspect_err(|error| warn!(event = "tap_log_lost", %error, "the ARP tap's own log is lost"))
        .ok()?;
    // SAFETY: the logger owns its ring buffer's file descriptor, keeps it open and never replaces it.
    let lines = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    let mut lines =
        lines.inspect_err(|error| warn!(event = "tap_log_lost", %error, "the ARP tap's own log is lost")).ok()?;
    let copy = async move {
        while let Ok(mut ready) = lines.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    };
    Some(spawn(copy).abort_handle())
}

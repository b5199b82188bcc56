//! One look and one sweep: who has which address, without an agent.
//!
//! The look is the inventory that the agent takes when it starts; the sweep asks on the wire for every address that is
//! configured, leased or known to the host, and for all of a network that is not too large. Whoever answers is heard at
//! its own port. What is seen goes through the same engine as the agent's, whose own questions are asked too, until it has
//! none left or the time is over. Nothing is changed, and an agent that runs beside it is not disturbed.

mod ask;
mod gaps;
mod look;

use std::time::{Duration, Instant};

pub use gaps::Gap;
use tokio::runtime;

use crate::{
    allocator::since_boot,
    capture::{CaptureError, SendError},
    engine::{Finding, Incident, Policy, Row},
    net::{BridgeName, Lease},
    netlink,
};
use ask::Asker;

/// What to scan.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bridges; none: every one that there is.
    pub bridges: Vec<BridgeName>,
    /// What an operator has decided about certain addresses and ports.
    pub policy: Policy,
    /// The leases that there are.
    pub leases: Vec<Lease>,
    /// How long to ask at most.
    pub timeout: Duration,
}

/// What a scan has found.
#[derive(Debug)]
pub struct Scanned {
    /// Everybody who has an address.
    pub rows: Vec<Row>,
    /// The duplicates.
    pub incidents: Vec<Incident>,
    /// What was found on the way, in its order.
    pub findings: Vec<Finding>,
    /// What could not be seen.
    pub gaps: Vec<Gap>,
}

/// Why there was no scan.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A bridge cannot be looked at.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Nothing can be heard.
    #[error(transparent)]
    Listen(#[from] CaptureError),
    /// Nothing can be asked.
    #[error(transparent)]
    Send(#[from] SendError),
    /// There is no runtime to be had, or the kernel cannot be waited for.
    #[error("cannot wait for answers: {0}")]
    Io(#[from] std::io::Error),
}

/// Looks and asks. Blocks until it is done.
///
/// # Errors
/// When a bridge is not there or cannot be looked at, or the process may neither listen nor ask.
pub fn scan(settings: Settings) -> Result<Scanned, ScanError> {
    let deadline = Instant::now() + settings.timeout;
    let Settings { bridges, policy, leases, .. } = settings;
    let mut asker = Asker::open(policy, leases)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(look::at(&bridges, &mut asker))?;
    asker.ask(since_boot(), deadline)?;
    Ok(asker.end())
}

//! The agent: one loop that turns what happens into inputs, and what the engine wants into deeds.
//!
//! - `run` is the loop and owns everything. `watch` turns events, surveys and claims into inputs, `kernel_log`
//!   what kernels log. `deeds` carries out
//!   actions.
//! - `absorption` keeps what the tap absorbs in step with what the engine knows.
//! - `surveyor` looks into sandboxes and changes addresses there, `tapper` attaches the tap, both beside the loop. The
//!   store is asked on threads that may wait. All of them answer by one channel, so that the loop itself never waits for
//!   anything but its next input.
//! - `handle` is how HTTP asks, `operating` what operators want of a running agent, `overview` what its service manager is
//!   told; `readiness` says when its answers count.

mod absorption;
pub mod clock;
mod deeds;
mod error;
mod handle;
mod healing;
mod keeper;
mod kernel_log;
mod loop_thread;
mod operating;
mod overview;
mod readiness;
mod restoring;
mod run;
mod settings;
#[cfg(test)]
pub(crate) mod stand_in;
mod surveyor;
mod tapper;
mod told;
mod watch;

pub use error::Error;
pub use handle::{AskError, Handle, TableRow, TableWalk};
pub use operating::{NotLifted, Pause, Quarantined, Release};
pub use overview::Overview;
pub use readiness::{Latch, Readiness};
pub use run::start;
pub use settings::Settings;
pub use surveyor::{Seen, bridge_told};

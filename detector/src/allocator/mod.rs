//! Who may use which address: the book of leases, kept so that no address ever has two holders.
//!
//! The room can be used alone: by the agent, by the command line, by a CNI plugin, each in a process of its own and all
//! at once. Every call is one transaction, and blocks until it is on disk; a reply is a promise that survives `kill -9`
//! and a power cut. Asking again is always safe: the same owner gets the same lease.
//!
//! An address goes around in a circle, and never the short way:
//!
//! ```text
//!         allocate, adopt ┌───────┐ release ┌──────────┐ retire ┌──────────┐
//!  free ─────────────────►│ bound ├────────►│ draining ├───────►│ cooldown ├──► free, once it has rested
//!    │                    └───▲───┘         └────▲─────┘        └──────────┘
//!    │ reserve,        bind ┌─┴────────┐ release,│
//!    │ reallocate           │          │ expire  │
//!    └─────────────────────►│ reserved ├─────────┘   ┌─────────────┐
//!                           │          ├────────────►│ quarantined ├──► free, once its time is over
//!                           └──────────┘ quarantine  └─────────────┘
//! ```
//!
//! [`hand_out`] is the way to a new address: it reserves one, has a [`Witness`] look whether anybody uses it, and only
//! then binds it.
//!
//! Three rules carry the weight:
//!
//! - **A lease is changed by its [`Fence`], never by its address.** A cleaner that acts on old news names a generation
//!   that is gone, and all that happens is a line in the journal. Nothing here releases "whatever is on 10.8.64.2".
//! - **Given back is not free.** A released lease drains until its holder has been shown to be gone (`retire` is for
//!   those who have that proof), and then rests for its pool's cooldown. Time spent switched off does not count.
//! - **The database says no by itself.** The rows' keys make a second lease on an address, or a second address for an
//!   owner, an error, whatever the code above them does.

mod clock;
mod error;
mod hand_out;
pub mod import;
mod incidents;
mod late;
mod pool;
mod sqlite;
mod store;

#[cfg(test)]
mod tests;

pub use clock::{Clock, since_boot};
pub use error::{AdoptError, AllocateError, PoolError, StoreError};
pub use hand_out::{Terms, Unwitnessed, User, Witness, hand_out};
pub use incidents::{Incidents, KEPT, KEPT_FOR, Kept, LONGEST_RECORD};
pub use late::Late;
use pool::without;
pub use pool::{InvalidPool, Pool};
pub use sqlite::{Dumped, OpenError, Refusal, SqliteStore, dump, read_leases};
pub use store::{Change, Fence, JournalEntry, Quarantine, Standing, Store, Wish};

/// Where leases are kept unless something else is said: the agent, the command line and the CNI plugin share them.
pub const DATABASE: &str = "/var/lib/dupip/leases.db";

//! What the ARP tap in the kernel and the agent in user space agree on: records, maps and names.
//!
//! The tap's reading of a frame lives here too ([`read_frame`]), as a pure function over a [`Frame`]: the program hands it
//! a socket buffer, the agent what it heard by a packet socket, the tests hand it bytes. So does what it does about a flood
//! ([`Bucket`]).

#![no_std]

#[cfg(test)]
extern crate std;

mod claim;
mod claim_event;
mod counters;
mod frame;
mod limit;
mod maps;

pub use claim::{Claim, Kind, Operation};
pub use claim_event::{ClaimEvent, Tapped};
pub use counters::{Fate, TapCounters};
pub use frame::{
    Frame, Malformed, Report, Verdict, is_plain_ipv4, may_carry_arp, read_frame, read_plain_arp, read_plain_ipv4,
};
pub use limit::{Bucket, Limit};
pub use maps::{Edition, KnownKey, KnownUse, OwnedKey, QuarantineKey, Recent, TappedPort};

/// The program that listens to ARP only, as it is called in the object and in the kernel (`bpftool prog`, `tc filter
/// show`).
pub const ARP_PROGRAM: &str = "dupip_arp_tap";

/// The program that listens to ARP and looks at the source of every IPv4 packet.
pub const IPV4_PROGRAM: &str = "dupip_ipv4_tap";

/// The program that listens to ARP and looks up the source of every IPv4 packet in the quarantine alone: for ports where
/// something is in quarantine and sources are no claims.
pub const GUARD_PROGRAM: &str = "dupip_guard_tap";

/// Every program.
pub const PROGRAMS: [&str; 3] = [ARP_PROGRAM, IPV4_PROGRAM, GUARD_PROGRAM];

/// The map of type ring buffer that carries one [`ClaimEvent`] per claim that says something new.
pub const EVENTS: &str = "EVENTS";

/// The map of type ring buffer that carries the same of claims that contradict a known owner, as far as they fit: they are
/// read before [`EVENTS`], however much has gathered there.
pub const CONTRADICTIONS: &str = "CONTRADICTIONS";

/// The per-CPU array of [`TappedPort`], each at its [`slot`](TappedPort::slot). The agent puts an interface there before it
/// attaches the tap, or, if another is there, into [`PORTS`]; of interfaces that are in neither nothing is counted and nothing
/// reported.
pub const PORT_SLOTS: &str = "PORT_SLOTS";

/// How many slots there are: memory is spent on all of them, on each CPU.
pub const MAX_SLOTS: u32 = 512;

/// The per-CPU hash map from interface index (`u32`) to [`TappedPort`], for interfaces whose slot is taken. It takes longer to
/// look there.
pub const PORTS: &str = "PORTS";

/// The hash map from [`KnownKey`] to [`KnownUse`]: the claims that say nothing new. Only the agent adds and removes.
pub const KNOWN: &str = "KNOWN";

/// The hash map from [`OwnedKey`] to the interface index (`u32`) of somebody whose claim to it is known.
pub const OWNERS: &str = "OWNERS";

/// The hash map from [`QuarantineKey`] to how many frames were dropped (`u64`). A claim of what stands here is dropped. What
/// stands here is never in [`KNOWN`], so that frames that are known need no look.
pub const QUARANTINE: &str = "QUARANTINE";

/// The array of one [`Edition`], as a number. The agent sets another whenever an epoch is over, and after it has removed
/// something from [`KNOWN`].
pub const EDITION: &str = "EDITION";

/// The global that has the [`Limit`] of news for each port and CPU.
pub const NEWS_LIMIT: &str = "NEWS_LIMIT";

/// The limit for what contradicts a known owner and is more than the port's news may be, for each port and CPU.
pub const CONTRADICTIONS_LIMIT: Limit = Limit::new(100, 256);

/// The size of [`EVENTS`] in bytes unless the agent sets another: about 100,000 claims.
pub const RING_BYTES: u32 = 4 << 20;

/// The size of [`CONTRADICTIONS`] in bytes: about 6,000 claims.
pub const CONTRADICTIONS_BYTES: u32 = 256 << 10;

/// The most interfaces that can be tapped at one time: eight full bridges (`BR_MAX_PORTS` in the kernel's
/// `net/bridge/br_private.h` is 1024).
pub const MAX_INTERFACES: u32 = 8 * 1024;

/// The most claims that can be known at one time.
pub const MAX_KNOWN: u32 = 128 * 1024;

/// The most addresses that can be in quarantine at one time.
pub const MAX_QUARANTINE: u32 = 16 * 1024;

/// How many claims each CPU remembers to have looked up, in the per-CPU array `RECENT` of [`Recent`]: one for each sandbox of
/// a full bridge. Two that share a place are looked up in turns.
pub const RECENT_SLOTS: u32 = 1024;

//! Recorded frames through the same engine: what the agent would have said, had it been there.
//!
//! [`Recording`] reads one file, pcap or pcapng, a frame at a time; `link` takes off what a capture puts around a frame,
//! `merge` brings several files into the order of time, and `ports` says whose frame it is: one file for each port, one
//! for several interfaces, or one for the whole bridge. [`Replay`] is the agent's part: it turns frames into claims by the
//! tap's own parser, lets the engine's timers go off when the recorded time has come, and answers for a store that is only
//! read.
//!
//! Time is the recording's own: a [`Timestamp`](crate::time::Timestamp) is nanoseconds since 1970 here, not since boot.
//! Memory is bounded by the number of files and ports, not by their length. Whatever a file has in it is an error or is
//! counted, never a panic: recordings come from other machines.

mod driver;
mod error;
mod link;
mod merge;
mod ports;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod recording;
#[cfg(test)]
mod tests;
mod wire;

pub use driver::{Replay, Settings, Summary, answer_from};
pub use error::{Flaw, Unreadable};
pub use merge::Merged;
pub use recording::{Recording, Source};

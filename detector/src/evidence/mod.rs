//! An incident as it is written down: all that the engine knows of it, to the store and back.
//!
//! A record is JSON. Its numbers and names are plain, times are nanoseconds since the boot that is named beside them, and
//! with them stands how the wall clock stood to that boot, so that they can be shown in any later one. Nothing here reads
//! a clock, and nothing is decided: what a record says is what the engine said.
//!
//! Names are a contract, as those of the API: fields are added, never renamed. Fields that are not known are passed over,
//! those that came later may be absent, and words that are not known make the record unreadable, which is said. Two things
//! are not written down, for they end with the process: which answer an eviction waits for, and what it has seen on the
//! wire since it began to look.

mod parts;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod record;
#[cfg(test)]
mod tests;
mod words;

pub use record::{Record, SCHEMA, Unreadable, kept};

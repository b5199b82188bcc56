//! Incidents as the book keeps them, and what is set while the agent runs.
//!
//! They are beside the leases so that one file has all that outlives the agent, and one commit is the promise for both.

use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use super::StoreError;
use crate::net::Domain;

/// How many incidents that are over are kept.
pub const KEPT: usize = 1000;

/// How long an incident is kept after it was last written, by the wall clock, once it is over.
pub const KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The longest record, or value of a setting, that is taken: 256 KiB. What a sandbox can make longer must not fill the
/// disk, without which there are no leases.
pub const LONGEST_RECORD: usize = 256 << 10;

/// An incident as it is kept: what it is found by, and the record itself, which nobody here reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number, from 1. It never comes again.
    pub number: u64,
    /// The boot that the record's times count from.
    pub boot: String,
    /// Where.
    pub domain: Domain,
    /// The contested address.
    pub address: Ipv4Addr,
    /// Whether it is not over yet.
    pub is_open: bool,
    /// When it was opened, by the wall clock, to the millisecond.
    pub opened: SystemTime,
    /// All of it, as JSON.
    pub record: String,
}

/// What is kept of incidents, and settings.
///
/// As for leases, each change is one transaction and blocks until it is durable.
pub trait Incidents: Send + Sync {
    /// Writes `records`, all of them or none. One with the same number is replaced.
    ///
    /// When an incident that is over is among them, those that were over before are let go, unless they are among the
    /// newest [`KEPT`] and were written within [`KEPT_FOR`]. Whatever is open stays.
    ///
    /// # Errors
    /// When a record is longer than [`LONGEST_RECORD`], or the store fails.
    fn keep(&self, records: &[Kept]) -> Result<(), StoreError>;

    /// The incident `number`; `None` if there was none or it was let go.
    ///
    /// # Errors
    /// When the store fails.
    fn kept(&self, number: u64) -> Result<Option<Kept>, StoreError>;

    /// The last `limit` incidents, newest first.
    ///
    /// # Errors
    /// When the store fails.
    fn kept_lately(&self, limit: usize) -> Result<Vec<Kept>, StoreError>;

    /// Those that are not over, oldest first: what a restarted agent has to go on with.
    ///
    /// # Errors
    /// When the store fails.
    fn kept_open(&self) -> Result<Vec<Kept>, StoreError>;

    /// The highest number that was ever kept, 0 if none was.
    ///
    /// # Errors
    /// When the store fails.
    fn last_incident(&self) -> Result<u64, StoreError>;

    /// What `name` is set to.
    ///
    /// # Errors
    /// When the store fails.
    fn setting(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Sets `name` to `value`, or to nothing.
    ///
    /// # Errors
    /// When the value is longer than [`LONGEST_RECORD`], or the store fails.
    fn set(&self, name: &str, value: Option<&str>) -> Result<(), StoreError>;
}

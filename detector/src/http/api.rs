//! What goes over HTTP, as JSON.
//!
//! Names are a contract: fields are added, never renamed. States, roles and evidence are texts, so that a command line
//! can show what a newer agent has a new word for. Times are RFC 3339 in UTC with milliseconds.

use std::{net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

mod changes;
mod events;
mod settings;
mod stream;

pub use changes::{Adopt, Allocate, Lift, Pause, Release, Released};
pub use events::{Event, Events, EventsAfter};
pub use settings::{Changed, Reloaded, Setting};
pub use stream::{Reload, StreamAfter, Viewed};

/// One row of the live table: a station that uses an address. A duplicate address has one row for each station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Row {
    /// The bridge.
    pub bridge: String,
    /// The VLAN on it; null is what goes untagged.
    pub vlan: Option<u16>,
    /// The address.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// The station's hardware address.
    pub mac: String,
    /// The bridge port's interface name; the bridge itself for the host.
    pub port: String,
    /// The port's interface index.
    pub ifindex: u32,
    /// The inode of the network namespace behind the port, if it is known.
    pub netns: Option<u64>,
    /// The sandbox's name, if it is known; null for the host.
    pub sandbox: Option<String>,
    /// Whether the address is the host's own.
    pub host: bool,
    /// Whether the station is outside, beyond an uplink.
    #[serde(default)]
    pub external: bool,
    /// How far it could be looked behind the port: `netns`, `netns_by_id`, `tap`, `local`, `other`, or `closed` with a
    /// reason; null for the host, and before anybody has looked.
    #[serde(default)]
    pub reach: Option<String>,
    /// When the station was first known to use the address.
    pub first_seen: String,
    /// When it last showed.
    pub last_seen: String,
    /// What it showed by last: `configured`, `ipv4`, or a form of ARP.
    pub evidence: String,
    /// How often it was claimed in ARP.
    #[serde(default)]
    pub hits: u64,
    /// `ok`, `duplicate` or `martian`.
    pub state: String,
    /// The lease on the address.
    pub lease: Option<Holding>,
    /// Whether the lease database could be read. If not, `lease` is null and says nothing.
    #[serde(default = "yes")]
    pub lease_known: bool,
}

/// Of an older agent, which did not answer at all otherwise.
const fn yes() -> bool {
    true
}

/// Who holds an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holding {
    /// In whose name.
    pub owner: String,
    /// Which of the domain's leases.
    pub generation: u64,
    /// `reserved`, `bound`, `draining`, `cooldown` or `quarantined`.
    pub state: String,
}

/// One row of the allocator's book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// The bridge.
    pub bridge: String,
    /// The VLAN on it; null is what goes untagged.
    pub vlan: Option<u16>,
    /// The address.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// In whose name.
    pub owner: String,
    /// For which of the owner's interfaces; null if none was named.
    pub interface: Option<String>,
    /// Which of the domain's leases.
    pub generation: u64,
    /// `reserved`, `bound`, `draining`, `cooldown` or `quarantined`.
    pub state: String,
    /// The address that the owner is being moved away from.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub replaces: Option<Ipv4Addr>,
}

/// A row of the allocator's book, with how long it has been and will be where it stands in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// The row.
    #[serde(flatten)]
    pub lease: Lease,
    /// How long it has been in its state, in milliseconds; since the machine's start, if it was before that.
    pub since_ms: u64,
    /// How long until the reservation's deadline, or until it has rested, in milliseconds; null if it does not end by
    /// itself.
    pub left_ms: Option<u64>,
    /// The hardware address that uses a quarantined address.
    pub mac: Option<String>,
    /// How that was seen.
    pub reason: Option<String>,
}

/// A line of the allocator's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JournalEntry {
    /// Its number; a later entry has a greater one.
    pub number: u64,
    /// When, by the wall clock.
    pub time: String,
    /// In which boot of the machine.
    pub boot: String,
    /// When within that boot, in milliseconds.
    pub boot_ms: u64,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub op: String,
    /// The bridge.
    pub bridge: Option<String>,
    /// The VLAN on it; null is what goes untagged.
    pub vlan: Option<u16>,
    /// On which address; on a pool's network address, for changes of the pool.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// Whose lease.
    pub owner: Option<String>,
    /// For which of the owner's interfaces.
    pub interface: Option<String>,
    /// Which of the domain's leases.
    pub generation: Option<u64>,
    /// The state before; null: free.
    pub from: Option<String>,
    /// The state after; null: nothing was changed.
    pub to: Option<String>,
    /// Why.
    pub reason: String,
}

/// Which agent this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct About {
    /// Its version.
    pub version: String,
    /// Where it keeps the leases.
    #[schema(value_type = String)]
    pub database: PathBuf,
    /// `observe` or `enforce`.
    pub mode: String,
    /// The bridges it watches, or waits for.
    pub bridges: Vec<String>,
    /// What it has still to do before its word counts; nothing once it is ready.
    pub waits_for: Vec<String>,
}

/// Which rows of the live table are asked for; all that is absent is any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TableFilter {
    /// The bridge.
    pub bridge: Option<String>,
    /// The VLAN on it; with a bridge, absent is what goes untagged.
    pub vlan: Option<u16>,
    /// The address.
    #[param(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
}

/// Whose history is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Address {
    /// The bridge; absent is any.
    pub bridge: Option<String>,
    /// The VLAN on it; with a bridge, absent is what goes untagged.
    pub vlan: Option<u16>,
    /// The address.
    #[param(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
}

/// One duplicate, from first sight to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Incident {
    /// Its number, from 1.
    pub id: u64,
    /// The bridge.
    pub bridge: String,
    /// The VLAN on it; null is what goes untagged.
    pub vlan: Option<u16>,
    /// The contested address, or the first of several.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// Every contested address: more than one if somebody claims what many others have.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<Ipv4Addr>,
    /// `duplicate` (two have the address) or `spoof` (somebody claims the host's own address, or only says on the wire
    /// that it has what is another's by right).
    #[serde(default)]
    pub verdict: String,
    /// `critical` if the host's own address is concerned, else `error`.
    #[serde(default)]
    pub severity: String,
    /// `open`, `healed` (every loser was moved and that was verified) or `gone` (it ended without dupip).
    pub status: String,
    /// When the kernel saw the first contradiction.
    pub opened: String,
    /// How often it was opened: more than once if it came back soon after it had ended.
    #[serde(default)]
    pub times: u32,
    /// How many claims were seen while it was open.
    #[serde(default)]
    pub claims: u64,
    /// From the first contradiction to its name, in microseconds.
    pub named_us: u64,
    /// When it ended.
    pub closed: Option<String>,
    /// From the first contradiction to its end, in milliseconds, if it was healed.
    pub heal_ms: Option<f64>,
    /// What the first contradiction was seen by.
    pub first_evidence: String,
    /// Who has claimed the address, in the order in which they were seen.
    pub parties: Vec<Party>,
    /// Why the contest ended as it did; null until it is held.
    pub reason: Option<String>,
    /// Whether the winner has a right to the address, so that the others may be moved.
    pub settled: bool,
    /// Whether every loser was moved and that was verified.
    pub healed: bool,
    /// What stands in the way of healing.
    pub held: Option<String>,
    /// Who keeps the address and why, in one sentence.
    #[serde(default)]
    pub decision: Option<String>,
    /// What enforce mode does about each loser.
    #[serde(default)]
    pub plan: Vec<Plan>,
    /// How far each loser has been moved, or replaced.
    pub evictions: Vec<Eviction>,
    /// The losers that are contained, and nothing more.
    #[serde(default)]
    pub contained: Vec<Eviction>,
    /// Some of the claims: how it began, and the latest.
    #[serde(default)]
    pub sightings: Vec<Sighting>,
}

/// An incident, with all that is known of how it came and went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explained {
    /// The incident.
    pub incident: Incident,
    /// What became of its address, oldest first.
    pub history: Vec<JournalEntry>,
    /// Whether the lease database could be read. If not, `history` is empty and says nothing.
    #[serde(default = "yes")]
    pub history_known: bool,
}

/// A claim to a contested address, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sighting {
    /// When the kernel saw it.
    pub time: String,
    /// Which address.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// The bridge port's interface name; null if it is not known any more.
    pub port: Option<String>,
    /// The port's interface index.
    pub ifindex: u32,
    /// The hardware address that claimed.
    pub mac: String,
    /// What showed it; `martian` if a kernel logged it as one.
    pub evidence: String,
}

/// One of those who claim a contested address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Party {
    /// The sandbox's name, if it is known; null for the host.
    pub sandbox: Option<String>,
    /// The bridge port's interface name.
    pub port: String,
    /// The port's interface index.
    pub ifindex: u32,
    /// The hardware address that claims.
    pub mac: String,
    /// The inode of the network namespace behind the port, if it is known.
    pub netns: Option<u64>,
    /// Whether it is the host itself.
    pub host: bool,
    /// Whether it is outside, beyond an uplink.
    #[serde(default)]
    pub external: bool,
    /// What it claims by.
    pub evidence: String,
    /// Whether the kernel has the address configured there.
    #[serde(default)]
    pub configured: bool,
    /// When it was first known to claim.
    pub first_seen: String,
    /// `winner`, `loser`, or `party` as long as there is no winner.
    pub role: String,
    /// The address that it is being moved to, or was.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub new_address: Option<Ipv4Addr>,
}

/// How far a loser has been moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Eviction {
    /// The loser's sandbox, if its name is known.
    pub sandbox: Option<String>,
    /// The loser's port.
    pub port: String,
    /// What is to be done about it: `readdress`, `recycle` or `contain`.
    #[serde(default)]
    pub way: String,
    /// In whose name its new lease is, if it gets one.
    pub owner: Option<String>,
    /// The step it is at: `contain`, `reallocate`, `readdress`, `announce_new`, `announce_kept`, `destroy_sockets`,
    /// `verify`, `bind`, `release`, `recycle` or `await_gone`; at rest `done`, `contained` or `failed`.
    pub step: String,
    /// How often the same sandbox was moved away within the last hour, and came back.
    #[serde(default)]
    pub strikes: u32,
    /// The new lease, once it is on disk.
    pub new_lease: Option<Lease>,
    /// Why the last attempt at this step failed.
    pub failure: Option<String>,
    /// Every step that succeeded.
    pub steps: Vec<StepTaken>,
}

/// What enforce mode would do about one loser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The loser's sandbox, if its name is known.
    pub sandbox: Option<String>,
    /// The loser's port.
    pub port: String,
    /// What would be done: `readdress`, `recycle`, `contain`; nothing if there is no way.
    pub way: Option<String>,
    /// In whose name its new lease would be.
    pub owner: Option<String>,
    /// Why no more than that.
    pub held: Option<String>,
}

/// A step of an eviction that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepTaken {
    /// Which one.
    pub step: String,
    /// When, in milliseconds since the first contradiction.
    pub at_ms: f64,
}

/// Who is kept from saying what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quarantined {
    /// The bridge.
    pub bridge: String,
    /// The VLAN on it; null is what goes untagged.
    pub vlan: Option<u16>,
    /// The address that may not be claimed.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// Where it may not: the bridge port's interface name.
    pub port: String,
    /// The port's interface index.
    pub ifindex: u32,
    /// The name of the sandbox behind it, if it is known.
    pub sandbox: Option<String>,
    /// The incident that it is for; null if an earlier agent has left it.
    pub incident: Option<u64>,
    /// Since when; null if that is not known.
    pub since: Option<String>,
    /// How many frames were dropped since then; null if the tap cannot be read.
    pub dropped: Option<u64>,
}

/// Whether anything new is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Paused {
    /// Whether the agent is paused: it tells of duplicates, finishes what is under way, and does nothing new.
    pub paused: bool,
    /// Until when, by the wall clock; null if it is not paused.
    pub until: Option<String>,
    /// How long that is from now, in milliseconds.
    pub left_ms: Option<u64>,
    /// In the answer to a change: why the next agent will not know of it, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_with_agent: Option<String>,
}

/// Why there is no answer (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The status code's own words.
    pub title: String,
    /// The status code.
    pub status: u16,
    /// What is wrong, and where a person can do something about it, what.
    pub detail: String,
    /// If there is no address left: how long until the next one has rested, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_in_ms: Option<u64>,
}

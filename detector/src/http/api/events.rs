//! What is asked about what the agent told, and what it answers.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

/// Which events are asked for; all that is absent is any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsAfter {
    /// Those after this cursor; absent: from the oldest that is kept.
    pub after: Option<String>,
    /// How long to wait until there is one, in seconds, at most 30; absent is not at all.
    pub wait: Option<u64>,
    /// How many at most, up to 1024; absent is 256.
    pub limit: Option<usize>,
    /// Of which kinds, with commas between them.
    pub kind: Option<String>,
}

/// Some events, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// Names this start of the agent: numbers begin anew with each.
    pub stream: String,
    /// The events.
    pub events: Vec<Event>,
    /// After what to ask next.
    pub next: String,
    /// How many events, of any kind, are not kept any more that came after the cursor and before those that are.
    pub missed: u64,
    /// Whether the cursor is of another start of the agent; these are then from the oldest that is kept.
    pub restarted: bool,
}

/// One thing that the agent told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number, from 1, without gaps, for as long as the agent runs.
    pub seq: u64,
    /// Its place: what to ask after for those that follow.
    pub cursor: String,
    /// When it was told, by the wall clock.
    pub time: String,
    /// When it was told, in microseconds since the machine's start: later events never have a smaller one.
    pub boot_us: u64,
    /// What it tells of, in one word.
    pub kind: String,
    /// `info`, `warning`, `error` or `critical`.
    pub severity: String,
    /// The bridge.
    pub bridge: Option<String>,
    /// The VLAN on it; null is what goes untagged.
    pub vlan: Option<u16>,
    /// The address that it is about.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// The incident that it belongs to.
    pub incident: Option<u64>,
    /// The interface name of the bridge port that did it, if it is known.
    pub port: Option<String>,
    /// The port's interface index.
    pub ifindex: Option<u32>,
    /// The hardware address that did it.
    pub mac: Option<String>,
    /// Why, or of which sort it is.
    pub reason: Option<String>,
    /// All of it in one sentence, as the log has it.
    pub message: String,
    /// What only some kinds tell: for a duplicate, the incident as it then stood, without sightings; `parties`, `step`,
    /// `after_us`, `count`, `owner`, `feature`, `source_mac`, `target` and `device` where there are such.
    #[schema(value_type = Object)]
    pub detail: Map<String, Value>,
}

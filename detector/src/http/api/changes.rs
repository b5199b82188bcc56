//! What is asked to be changed, and what came of it.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Lease;

/// Asks for a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Allocate {
    /// The bridge.
    pub bridge: String,
    /// The VLAN on it; null or absent is what goes untagged.
    pub vlan: Option<u16>,
    /// For whom.
    pub owner: String,
    /// For which of the owner's interfaces; null or absent is none in particular.
    pub interface: Option<String>,
    /// The very address that is wished for; null or absent is any.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// Whether to ask on the bridge who uses the address, besides looking into the live table.
    #[serde(default)]
    pub probe: bool,
}

/// Says whose an address is that is in use already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// The bridge.
    pub bridge: String,
    /// The VLAN on it; null or absent is what goes untagged.
    pub vlan: Option<u16>,
    /// The address.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// Whose it is.
    pub owner: String,
    /// For which of the owner's interfaces; null or absent is none in particular.
    pub interface: Option<String>,
}

/// Gives a lease back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The bridge.
    pub bridge: String,
    /// The VLAN on it; null or absent is what goes untagged.
    pub vlan: Option<u16>,
    /// The address.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// Who holds it.
    pub owner: String,
    /// Which lease it is.
    pub generation: u64,
    /// Whether to let it rest at once, without proof that nothing uses the address any more.
    #[serde(default)]
    pub force: bool,
}

/// What became of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Released {
    /// Whether the lease was given back. If not, it was not the one that is named, and nothing was changed.
    pub released: bool,
    /// What is on the address now.
    pub lease: Option<Lease>,
}

/// Lets a port claim an address again that is in quarantine there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lift {
    /// The bridge port's interface name.
    pub port: String,
    /// The address.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// The VLAN that it is in quarantine in; null or absent is any, if it is one only.
    pub vlan: Option<u16>,
}

/// Has the agent do nothing new for a while, or go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// For how long, in milliseconds; at most 24 hours.
    pub for_ms: Option<u64>,
    /// Whether to go on at once instead.
    #[serde(default)]
    pub end: bool,
}

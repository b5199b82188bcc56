//! What stands on the wire and what names it: addresses, frames, identities. Values only: nothing here does anything.

mod arp;
mod contained;
mod id;
mod lease;
mod mac;
mod martian;
mod range;

pub use arp::{ArpPacket, ClaimKind, Operation};
pub use contained::Contained;
pub use id::{BridgeName, Domain, IfIndex, IfName, InvalidName, NetnsId, Reach, Station, VlanId};
pub use ipnet::Ipv4Net;
pub use lease::{Generation, InvalidOwner, Lease, LeaseState, Owner};
pub use mac::{InvalidMac, Mac};
pub use martian::{MartianReason, martian_source};
pub use range::{InvalidRange, Ipv4Range};

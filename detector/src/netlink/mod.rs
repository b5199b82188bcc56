//! What the kernel knows of links, ports, namespaces, addresses and neighbours, and the few things dupip changes there.
//!
//! * [`Host`] asks about the network namespace that the agent runs in, and looks into those of the sandboxes: one
//!   [`Survey`] per bridge at the start, one [`PortSurvey`] per port that comes later.
//! * [`Everywhere`] is every interface in every namespace, for whoever has to know that an address is configured nowhere.
//! * [`Events`] tells what changes, in the agent's namespace and in every one that has a veth to it.
//! * [`martian_logging`] says whether a namespace's kernel logs martians.
//! * [`readdress`] gives a sandbox's interface another address, with its routes; [`destroy_sockets`] ends what still hangs
//!   on the old one.
//! * [`Throwaway`] is a sandbox for a fire drill.
//!
//! Three rules hold all through the room. An interface's index means nothing without its namespace, so whatever comes
//! from another one carries that namespace's id. A list that could not be read to its end is an error, never a short
//! list: what is missing from it would be taken for gone. And nothing here holds a sandbox's namespace open: an open
//! file would keep it alive, with its veth and its addresses, after its last process.
//!
//! Requests go through the small client in `route`, not through `rtnetlink`: that one skips what it cannot decode and
//! ends a broken or interrupted dump (`NLM_F_DUMP_INTR`) like a complete one, which the second rule forbids.

mod addresses;
mod behind;
mod bridges;
mod error;
mod events;
mod everywhere;
mod fdb;
mod filters;
mod host;
mod links;
mod neighbours;
mod netns;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod readdress;
mod route;
mod sockets;
mod sysctls;
mod throwaway;
mod vlans;
mod wire;

pub use behind::{Behind, LiveAddress, Stacked};
pub use error::Error;
pub use events::{Event, Events};
pub use everywhere::{Everywhere, Outside, Somewhere};
pub use filters::Filter;
pub use host::{Host, Inside, PortSurvey, Survey};
pub use links::{Bridge, Interface, Peer, Port, PortKind, VlanDevice};
pub use neighbours::HostNeighbour;
pub use netns::{Found, NetnsFile, Nsid};
pub use readdress::{Readdress, ReaddressError, Readdressed, readdress};
pub use sockets::{Destroyed, destroy_sockets};
pub use sysctls::{InterfaceLogging, MartianLogging, martian_logging, namespaces};
pub use throwaway::{THROWAWAY_PREFIX, Throwaway};

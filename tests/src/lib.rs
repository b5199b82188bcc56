//! The lab: a private runner with bridges and sandboxes on it, made in milliseconds and gone without a trace.
//!
//! A [`Runner`] has network, mount and PID namespaces of its own, so its bridge is really named `rt0`, many labs stand
//! side by side, and nothing that the machine itself has is ever touched. One process, the holder, keeps it alive. It
//! ends when its owner does, for whatever reason, and takes every namespace, link and process of the runner with it.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let runner = lab::Runner::new()?;
//! let bridge = runner.bridge("rt0", "10.8.64.1/24")?;
//! let sports = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
//! assert_eq!(sports.ping(bridge.gateway(), 3)?.lost(), 0);
//! assert_eq!(bridge.owners("10.8.64.2".parse()?)?, [sports.mac()?].into());
//! # Ok(())
//! # }
//! ```
//!
//! Commands run in a runner or a sandbox without a shell in between: a short-lived thread enters the namespaces, starts
//! the command there and ends, so that no thread is ever left in the wrong place.

mod agent;
mod bridge;
mod capture;
mod clean_root;
mod command;
mod host;
mod kernel_log;
mod leftovers;
mod machine;
mod ping;
mod plan;
mod prometheus;
mod runner;
mod sandbox;
mod sealed;
mod tap;
mod tcp;
mod terminal;
mod vrrp;
mod wait;
mod wire;

pub use agent::{Agent, Dupip, Mode, Outcome, Refusal};
pub use bridge::Bridge;
pub use capture::Capture;
pub use clean_root::CleanRoot;
pub use command::{Command, Process, Stream};
pub use kernel_log::{KernelLog, Martian};
pub use leftovers::{NamespaceId, Snapshot};
pub use machine::Machine;
pub use ping::{Ping, PingReport};
pub use plan::Plan;
pub use pnet::util::MacAddr;
pub use prometheus::{AlertState, Pace, Prometheus};
pub use runner::{Kept, Runner};
pub use sandbox::Sandbox;
pub use sealed::Sealed;
pub use tap::Tap;
pub use tcp::{Again, Conversation, Echo};
pub use terminal::Terminal;
pub use vrrp::{Keepalived, Vrrp};
pub use wait::wait_until;
pub use wire::{Arp, Datagram, Tag, Wire, tagged, vlan};

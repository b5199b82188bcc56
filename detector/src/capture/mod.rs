//! Frames, heard and said: the ARP tap on bridge ports, its claims, its losses, and a socket for frames of our own.
//!
//! [`Tap`] loads the program and says where it listens, [`Claims`] is what it heard, in the order in which it was heard on
//! each port: ARP, and IPv4 packets where their source is watched. What repeats a claim that is [`Known`] is absorbed in the
//! kernel; whatever is not reported is counted per port ([`TapCounters`]): what was absorbed, frames that are no ARP for
//! IPv4 over Ethernet, what was more than the port's share, and what found the ring buffer full. Where there can be no tap,
//! an [`Ear`] hears ARP by packet sockets; [`Listener`] is whichever of them there is. [`FrameSender`] says what the agent
//! has to say, probes and announcements. [`Prober`] asks a bridge who uses an address and waits for the answer, for those
//! that run without a tap. [`MartianLog`] is what the kernel itself logs of packets that cannot be.
//!
//! The tap lets every frame pass as it is, but for what claims an address that is in [`Quarantine`]. It is gone when its
//! process is gone, however that ended, wherever the kernel has TCX (from Linux 6.6); on older kernels a killed agent leaves
//! its filters behind, and the next one removes them. A quarantine that is to be kept ([`KeepQuarantine`]) outlives the
//! process, with the programs that guard it.

mod bpf;
mod claims;
mod counting;
mod ear;
mod error;
mod filters;
mod frame_sender;
mod hook;
mod kernel_log;
mod kmsg;
mod known;
mod listener;
mod packet_socket;
mod prober;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod quarantine;
mod support;
mod tap;
mod vault;

pub use claims::{Claims, claim_of};
pub use detector_ebpf::{Kind, Malformed, RING_BYTES, TapCounters};
pub use ear::Ear;
pub use error::CaptureError;
pub use filters::filter_program;
pub use frame_sender::{FrameSender, SendError};
pub use hook::{Hook, Post, Side};
pub use kmsg::{
    Caller, EthernetHeader, KernelMartian, Line, LinkHeader, MartianKind, MartianLog, Record, parse_record,
};
pub use known::Known;
pub use listener::{Listener, Started};
pub use prober::{ProbeError, Prober, Probing};
pub use quarantine::Quarantine;
pub use support::{KernelFeature, Resident, tap_programs, tcx_programs};
pub use tap::{Loaded, Tap, TapSettings};
pub use vault::KeepQuarantine;

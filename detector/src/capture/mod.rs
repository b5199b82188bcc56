//! Frames, heard and said: the ARP tap on bridge ports, its claims, its losses, and a socket for frames of our own.
//!
//! [`Tap`] loads the program and says where it listens, [`Claims`] is what it heard, in the order in which it was heard on
//! each port. What cannot be reported is counted per port ([`TapCounters`]): frames that are no ARP for IPv4 over Ethernet,
//! and frames that found the ring buffer full. [`FrameSender`] says what the agent has to say, probes and announcements.
//! [`Prober`] asks a bridge who uses an address and waits for the answer, for those that run without a tap. [`MartianLog`]
//! is what the kernel itself logs of packets that cannot be.
//!
//! The tap lets every frame pass as it is. It is gone when its process is gone, however that ended, wherever the kernel
//! has TCX (from Linux 6.6); on older kernels a killed agent leaves its filters behind, and the next one removes them.

mod claims;
mod error;
mod frame_sender;
mod hook;
mod kernel_log;
mod kmsg;
mod packet_socket;
mod prober;
mod support;
mod tap;

pub use claims::Claims;
pub use detector_ebpf::{Malformed, RING_BYTES, TapCounters};
pub use error::CaptureError;
pub use frame_sender::{FrameSender, SendError};
pub use hook::{Hook, Side};
pub use kmsg::{
    Caller, EthernetHeader, KernelMartian, Line, LinkHeader, MartianKind, MartianLog, Record, parse_record,
};
pub use prober::{ProbeError, Prober, Probing};
pub use support::{KernelFeature, Resident, tcx_programs};
pub use tap::{Tap, TapSettings};

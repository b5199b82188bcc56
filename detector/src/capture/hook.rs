//! How the program gets at an interface and away from it.

use std::io;

use aya::programs::{
    LinkOrder, MultiProgLink as _, ProgramError, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError},
};
use detector_ebpf::{ARP_PROGRAM, IPV4_PROGRAM};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with},
};

use super::{CaptureError, bpf, error::tc_errno, filters::remove_filters};
use crate::net::IfIndex;

/// The loopback device, which every network namespace has.
const LOOPBACK: &str = "lo";

/// How the tap hooks into an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// TCX where the kernel has it, else clsact.
    #[default]
    Auto,
    /// TCX links, from Linux 6.6. They are gone with the process.
    Tcx,
    /// Filters of the clsact queueing discipline. They outlive a process that is killed; the next one removes them.
    Clsact,
}

/// Which frames of an interface are heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What comes in by it: for bridge ports.
    Ingress,
    /// What the host says through it: for the bridge device itself.
    Egress,
}

/// What is heard at an interface, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Post {
    /// The bridge that the interface is, or is a port of.
    pub bridge: IfIndex,
    /// Which frames are heard.
    pub side: Side,
    /// Whether the source of an IPv4 packet is a claim, too. It is none if it comes from far behind the port: not to be set
    /// for a port that leads to a router, nor for what the host itself says.
    pub watch_ipv4: bool,
}

impl Post {
    /// The name of the program to run there.
    pub(super) const fn program(self) -> &'static str {
        if self.watch_ipv4 { IPV4_PROGRAM } else { ARP_PROGRAM }
    }
}

/// The program at one interface.
pub(super) enum Attached {
    Tcx(SchedClassifierLink),
    /// Known by the filter's name alone. What the kernel gave for it at the time, priority and handle, may be somebody
    /// else's by now, if the interface's index went to another interface.
    Clsact(Side),
}

impl Hook {
    /// The hook to use; never [`Auto`](Self::Auto). Asks the kernel, not its version: distributions have brought TCX to
    /// older kernels.
    pub(super) fn choose(self) -> Result<Self, CaptureError> {
        let has_tcx = SchedClassifier::query_tcx(LOOPBACK, TcAttachType::Ingress).is_ok();
        match self {
            Self::Auto | Self::Tcx if has_tcx => Ok(Self::Tcx),
            Self::Auto | Self::Clsact => Ok(Self::Clsact),
            Self::Tcx => Err(CaptureError::Unsupported {
                feature: "TCX links (BPF_TCX_INGRESS)",
                remedy: "Linux 6.6 has them; clsact works on older kernels",
            }),
        }
    }

    /// Runs `program` at `interface`, before whatever other programs are there.
    pub(super) fn attach(
        self,
        program: &mut SchedClassifier,
        (port, interface): (IfIndex, &str),
        side: Side,
    ) -> Result<Attached, ProgramError> {
        // What an agent that was killed left behind.
        remove_filters(port, side)?;
        let place = side.into();
        if self == Self::Clsact {
            add_clsact(interface)?;
            let filter =
                program.attach_with_options(interface, place, TcAttachOptions::Netlink(NlOptions::default()))?;
            // Its destructor would remove whatever has this priority and handle by then.
            std::mem::forget(program.take_link(filter)?);
            return Ok(Attached::Clsact(side));
        }
        let link = program.attach_with_options(interface, place, TcAttachOptions::TcxOrder(LinkOrder::first()))?;
        Ok(Attached::Tcx(program.take_link(link)?))
    }
}

impl Attached {
    /// Takes the program away from the interface, which may be gone.
    pub(super) fn detach(&self, port: IfIndex) -> Result<(), CaptureError> {
        let refused = |interface, source| CaptureError::Detach { interface, source };
        match (self, name_of(port)) {
            (Self::Tcx(link), name) => sever(link).map_err(|error| {
                let interface = name.unwrap_or_else(|_| port.to_string());
                refused(interface, TcError::IoError(error))
            }),
            (Self::Clsact(side), Ok(interface)) => {
                remove_filters(port, *side).map_err(|error| refused(interface, TcError::IoError(error)))
            }
            (Self::Clsact(_), Err(Errno::NODEV)) => Ok(()),
            (Self::Clsact(_), Err(errno)) => Err(refused(port.to_string(), TcError::IoError(errno.into()))),
        }
    }
}

impl From<Side> for TcAttachType {
    fn from(side: Side) -> Self {
        match side {
            Side::Ingress => Self::Ingress,
            Side::Egress => Self::Egress,
        }
    }
}

/// The interface's name now: it can change, and aya takes nothing else.
pub(super) fn name_of(port: IfIndex) -> Result<String, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    netdevice::index_to_name(socket, port.get())
}

/// Adds the clsact queueing discipline. It stays when the tap goes: by then others may have hooked in there too.
fn add_clsact(interface: &str) -> Result<(), TcError> {
    match tc::qdisc_add_clsact(interface) {
        Err(error) if tc_errno(&error) == Some(Errno::EXIST) => Ok(()),
        done => done,
    }
}

/// Cuts a link off from its interface. Closing it would do the same, but only once nobody has it open any more: a process
/// that is just being forked has, for a moment.
fn sever(link: &SchedClassifierLink) -> io::Result<()> {
    link.fd().map_or(Ok(()), bpf::link_detach)
}

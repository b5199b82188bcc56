//! How the program gets at an interface and away from it.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::programs::{
    LinkOrder, MultiProgLink as _, ProgramError, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use detector_ebpf::{ARP_PROGRAM, GUARD_PROGRAM, IPV4_PROGRAM};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with},
};

use super::{
    CaptureError, bpf,
    error::tc_errno,
    filters::{own_filters, remove_filters},
    support::tcx_programs,
};
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
    /// The name of the program to run there, if something is in quarantine there or nothing is.
    pub(super) const fn program(self, is_guarded: bool) -> &'static str {
        match (self.watch_ipv4, is_guarded) {
            (true, _) => IPV4_PROGRAM,
            (false, true) => GUARD_PROGRAM,
            (false, false) => ARP_PROGRAM,
        }
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

    /// Runs `program` at `interface`: by `kept`, the link of an agent that has gone, if that is of use, else before whatever
    /// other programs are there.
    pub(super) fn attach(
        self,
        program: &mut SchedClassifier,
        (port, interface): (IfIndex, &str),
        side: Side,
        kept: Option<SchedClassifierLink>,
    ) -> Result<Attached, ProgramError> {
        // An agent that was killed left them behind. They may guard something, so they stay until they are replaced.
        let left_behind = own_filters(port, side)?;
        let attached = match kept.filter(|_| self == Self::Tcx).map(Attached::Tcx) {
            Some(kept) if kept.switch(program, port)? => kept,
            _ => self.attach_anew(program, interface, side)?,
        };
        remove_filters(left_behind)?;
        Ok(attached)
    }

    fn attach_anew(self, program: &mut SchedClassifier, interface: &str, side: Side) -> Result<Attached, ProgramError> {
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
    /// Runs `program` in place of what runs there, with no frame in between. Returns whether it does: not if the interface
    /// is another by now.
    pub(super) fn switch(&self, program: &mut SchedClassifier, port: IfIndex) -> Result<bool, ProgramError> {
        match self {
            Self::Tcx(link) => switch_link(link, program),
            Self::Clsact(side) => switch_filter(*side, program, port),
        }
    }

    /// What keeps the program there; `None` if it stays by itself.
    pub(super) fn link(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcx(link) => link.fd().ok(),
            Self::Clsact(_) => None,
        }
    }

    /// Takes the program away from the interface, which may be gone.
    pub(super) fn detach(&self, port: IfIndex) -> Result<(), CaptureError> {
        let refused = |interface, source| CaptureError::Detach { interface, source };
        match (self, name_of(port)) {
            (Self::Tcx(link), name) => sever(link).map_err(|error| {
                let interface = name.unwrap_or_else(|_| port.to_string());
                refused(interface, TcError::IoError(error))
            }),
            (Self::Clsact(side), Ok(interface)) => {
                end_filters(port, *side).map_err(|error| refused(interface, TcError::IoError(error)))
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
pub(super) fn sever(link: &SchedClassifierLink) -> io::Result<()> {
    link.fd().map_or(Ok(()), bpf::link_detach)
}

/// Removes the tap's filters from one side of an interface.
pub(super) fn end_filters(port: IfIndex, side: Side) -> io::Result<()> {
    remove_filters(own_filters(port, side)?)
}

/// Whether a tap runs at a port: in a process that has one, or left behind by one that has gone.
pub(super) fn is_tapped(port: IfIndex) -> bool {
    let by_link = |name: String| tcx_programs(&name, Side::Ingress).is_ok_and(|all| all.iter().any(|one| one.is_tap()));
    name_of(port).is_ok_and(by_link) || own_filters(port, Side::Ingress).is_ok_and(|own| !own.is_empty())
}

fn switch_link(link: &SchedClassifierLink, program: &SchedClassifier) -> Result<bool, ProgramError> {
    let Ok(link) = link.fd() else { return Ok(false) };
    match bpf::link_update(link, program.fd()?.as_fd()) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOLINK) => Ok(false),
        done => Ok(done.map(|()| true)?),
    }
}

/// By what the kernel says the filter's priority and handle are now, as [`Attached::Clsact`] tells.
fn switch_filter(side: Side, program: &mut SchedClassifier, port: IfIndex) -> Result<bool, ProgramError> {
    let own = own_filters(port, side)?;
    let (Ok(interface), [filter]) = (name_of(port), own.as_slice()) else { return Ok(false) };
    let handle = TcHandle::new(filter.handle.major, filter.handle.minor);
    // The lower half is the protocol.
    let priority = (filter.info >> 16) as u16;
    let link = SchedClassifierLink::attached(&interface, side.into(), priority, handle, None)?;
    let filter = program.attach_to_link(link)?;
    std::mem::forget(program.take_link(filter)?);
    Ok(true)
}

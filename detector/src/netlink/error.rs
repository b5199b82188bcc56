//! What can go wrong between dupip and the kernel's network.

use std::{io, path::PathBuf};

use netlink_packet_core::DecodeError;
use rustix::io::Errno;

use super::netns::Nsid;
use crate::{
    capture::SendError,
    net::{BridgeName, IfIndex, NetnsId, Reach},
};

/// A request to the kernel that did not do what it was for. `what` completes "cannot …".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}; dupip needs CAP_NET_ADMIN and CAP_NET_BROADCAST")]
    Open(#[source] io::Error),
    /// The socket broke.
    #[error("cannot {what}: the netlink socket failed: {source}")]
    Socket {
        /// What was asked for.
        what: &'static str,
        /// What the socket said.
        source: io::Error,
    },
    /// The kernel said no.
    #[error("cannot {what}: {errno}{}{explanation}", if explanation.is_empty() { "" } else { ": " })]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The kernel's error number.
        errno: Errno,
        /// The kernel's own words (`NLMSGERR_ATTR_MSG`), or nothing.
        explanation: String,
    },
    /// An answer that cannot be decoded.
    #[error("cannot {what}: the kernel's answer cannot be decoded: {source}; please report this with `uname -r`")]
    Undecodable {
        /// What was asked for.
        what: &'static str,
        /// Which part of it.
        source: DecodeError,
    },
    /// The list changed each time while it was read.
    #[error("cannot {what}: it changed while it was read, {tries} times over; try again when the runner is calmer")]
    Unsettled {
        /// What was asked for.
        what: &'static str,
        /// How often it was read.
        tries: u32,
    },
    /// The bridge does not exist.
    #[error("there is no bridge {0}; create it, or start dupip with --wait")]
    NoBridge(BridgeName),
    /// The name belongs to something else.
    #[error("{0} is not a bridge")]
    NotABridge(BridgeName),
    /// The interface does not exist in the namespace it was looked for in.
    #[error("there is no interface with index {0} any more")]
    NoInterface(IfIndex),
    /// The interface of that name does not exist in the namespace it was looked for in.
    #[error("there is no interface {0} any more")]
    NoLinkCalled(String),
    /// A sandbox to be thrown away that cannot be made or removed.
    #[error("cannot make or remove {}: {source}; dupip needs CAP_SYS_ADMIN", path.display())]
    Throwaway {
        /// The name of its namespace, or where the names are.
        path: PathBuf,
        /// What making or removing it said.
        source: io::Error,
    },
    /// A frame that did not go out.
    #[error("cannot announce an address: {0}")]
    Announce(#[source] SendError),
    /// A place where namespaces or processes are listed cannot be read.
    #[error("cannot list {}: {source}; dupip needs CAP_SYS_PTRACE and the host's /proc and /run", path.display())]
    Scan {
        /// The directory.
        path: PathBuf,
        /// What reading it said.
        source: io::Error,
    },
    /// No way into the namespace.
    #[error("the network namespace with id {0} has neither a name nor a process, so nothing leads into it")]
    NoWayIn(Nsid),
    /// Not a file of a network namespace, or gone.
    #[error("cannot open the network namespace {}: {source}", path.display())]
    OpenNetns {
        /// The file.
        path: PathBuf,
        /// What opening it said.
        source: io::Error,
    },
    /// A setting of a namespace that cannot be read.
    #[error("cannot read {} in {netns}: {source}", path.display())]
    Sysctl {
        /// The namespace.
        netns: NetnsId,
        /// The setting.
        path: PathBuf,
        /// What reading it said.
        source: io::Error,
    },
    /// The kernel does not let us in.
    #[error("cannot enter {netns}: {source}; dupip needs CAP_SYS_ADMIN")]
    Enter {
        /// The namespace.
        netns: NetnsId,
        /// What setns, or the socket in there, said.
        source: io::Error,
    },
}

impl Error {
    /// The kernel's error number, if it was the kernel that said no.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether it was for want of a right.
    #[must_use]
    pub fn is_not_permitted(&self) -> bool {
        match self {
            Self::Refused { errno, .. } => matches!(*errno, Errno::PERM | Errno::ACCESS),
            Self::Announce(error) => matches!(error, SendError::NotPermitted),
            Self::Open(source)
            | Self::Throwaway { source, .. }
            | Self::OpenNetns { source, .. }
            | Self::Enter { source, .. }
            | Self::Scan { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }

    /// How far one sees behind a port if this is what came of looking into the namespace there.
    pub(super) fn reach(&self) -> Reach {
        match self {
            Self::NoWayIn(_) => Reach::ClosedNoWayIn,
            refused if refused.is_not_permitted() => Reach::ClosedNotPermitted,
            _ => Reach::Closed,
        }
    }
}

/// Takes the refusal with `errno` for success, and no other: what was to be done was so already.
pub(super) fn already(errno: Errno, result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.errno() == Some(errno) => Ok(()),
        other => other,
    }
}

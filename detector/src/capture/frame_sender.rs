//! Frames of the agent's own.

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};

use super::packet_socket::send_to;
use crate::net::IfIndex;

/// Sends whole Ethernet frames in the network namespace that it was opened in (`packet(7)`).
///
/// It hears nothing: it is bound to no protocol, so the kernel does not copy it the traffic of the interface. What it
/// sends passes the taps like anybody's frames.
#[derive(Debug)]
pub struct FrameSender {
    socket: OwnedFd,
}

/// Why a frame did not go out.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The process lacks the capability for packet sockets.
    #[error("not permitted to send frames: run dupip as root, or with the capability CAP_NET_RAW")]
    NotPermitted,
    /// There is no such interface, or no longer.
    #[error("cannot send: interface {port} is gone")]
    Gone {
        /// The interface's index.
        port: IfIndex,
    },
    /// The interface is down.
    #[error("cannot send: interface {port} is down")]
    Down {
        /// The interface's index.
        port: IfIndex,
    },
    /// The kernel refused, for instance because the frame is too short for a header or too long for the interface, or
    /// because the interface is congested.
    #[error("cannot send a frame")]
    Refused(#[source] io::Error),
}

impl FrameSender {
    /// A sender in the calling thread's network namespace; it stays there, wherever it is used later.
    ///
    /// # Errors
    /// The process may not send frames, or has no file descriptor left.
    pub fn open() -> Result<Self, SendError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None) {
            Ok(socket) => Ok(Self { socket }),
            Err(Errno::PERM | Errno::ACCESS) => Err(SendError::NotPermitted),
            Err(errno) => Err(SendError::Refused(errno.into())),
        }
    }

    /// Sends `frame`, from its destination address on and without checksum, out of `port`. Never blocks.
    ///
    /// # Errors
    /// The interface is gone or down, or the kernel refuses the frame.
    pub fn send(&self, port: IfIndex, frame: &[u8]) -> Result<(), SendError> {
        send_to(&self.socket, port, frame).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NXIO | Errno::NODEV) => SendError::Gone { port },
            Some(Errno::NETDOWN) => SendError::Down { port },
            _ => SendError::Refused(error),
        })
    }
}

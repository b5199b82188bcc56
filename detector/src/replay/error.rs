//! What is wrong with a recording.

use std::{io, path::PathBuf};

/// A file that cannot be replayed at all.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It cannot be opened or read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It begins like no capture.
    #[error("{} is neither a pcap nor a pcapng file", .path.display())]
    NoCapture {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing in it, not even a header.
    #[error("{} is empty", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its frames have another kind of header than Ethernet or that of `tcpdump -i any`.
    #[error(
        "{} has frames of link type {link}: only Ethernet (1) and Linux cooked captures (113, 276) can be replayed",
        .path.display()
    )]
    Link {
        /// The file.
        path: PathBuf,
        /// Its link type (<https://www.tcpdump.org/linktypes.html>).
        link: u32,
    },
}

/// Why a file was not read to its end. What comes before is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It ends within a frame.
    #[error("is cut off within the block at byte {at}")]
    CutOff {
        /// Where the last block begins.
        at: u64,
    },
    /// What comes next is no block of a capture.
    #[error("is damaged: what begins at byte {at} is no block of a capture")]
    Damaged {
        /// Where.
        at: u64,
    },
    /// A block is larger than any that belongs there.
    #[error("is damaged: the block at byte {at} says that it has more than {} MiB", super::recording::LARGEST_BLOCK >> 20)]
    TooLarge {
        /// Where.
        at: u64,
    },
    /// The system could not read on.
    #[error("cannot be read on after byte {at}")]
    Io {
        /// Where.
        at: u64,
    },
}

//! Reads the books of other allocators. What is to become of their rows is for others to say: nothing here decides, and
//! nothing is written to what is read.

mod host_local;
mod miren;
#[cfg(any(test, fuzzing))]
pub mod properties;

use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

pub use host_local::host_local;
pub use miren::miren;

use crate::net::{IfName, Owner};

/// A row of another allocator's book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the row is called there: a file's name, a key.
    pub name: String,
    /// The address that it is about; `None` if it is no IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// What it says of the address.
    pub word: Word,
}

/// What a book says of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// That this owner holds it.
    Owner {
        /// Who: the container's id.
        owner: Owner,
        /// For which of its interfaces, if it is told.
        interface: Option<IfName>,
    },
    /// That somebody holds it, not who.
    Somebody,
    /// That it was given back.
    Released,
    /// That nobody ever had it.
    Nobody,
    /// Nothing that makes sense, and why.
    Unclear(String),
}

/// Why a book cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be opened or read.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is larger than any that a bridge can need.
    #[error("{} has more than {most} {what}: that is no book of one bridge's addresses", .path.display())]
    TooLarge {
        /// The file or directory.
        path: PathBuf,
        /// How many are taken.
        most: u64,
        /// Of what.
        what: &'static str,
    },
    /// It is written to all the time.
    #[error("{} changes while it is read: ask again, or stop who writes to it", .0.display())]
    Restless(PathBuf),
    /// It is something else.
    #[error("{} is not Miren's table of addresses: {source}", .path.display())]
    NotMiren {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// Its pages contradict each other.
    #[error("{} is damaged: {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> ImportError {
    move |source| ImportError::Unreadable { path: path.to_owned(), source }
}

//! Where the leases are that a verb is about.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use super::book::Book;
use crate::{
    allocator::{Clock, DATABASE, SqliteStore},
    cli::{
        ask,
        exit::{self, Exit, Failure, note},
    },
    http::{Client, api::About},
    net::{BridgeName, Domain, VlanId},
};

/// Where an address is unique.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(in crate::cli) struct Within {
    /// The bridge
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) bridge: BridgeName,
    /// The VLAN on it, if it is not what goes untagged
    #[arg(long, value_name = "ID", value_parser = vlan)]
    pub(in crate::cli) vlan: Option<VlanId>,
}

/// Where the leases are.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Place {
    /// Work on the database itself, even if an agent runs
    #[arg(long)]
    pub(in crate::cli) offline: bool,
    /// The lease database, for work on it itself [default: the running agent's, or /var/lib/dupip/leases.db]
    #[arg(long, value_name = "PATH", env = "DUPIP_DATABASE")]
    pub(in crate::cli) database: Option<PathBuf>,
}

impl Place {
    /// The agent, if one runs and nothing else is said; else the database, which must be there unless it may be made.
    pub(in crate::cli) fn book(&self, socket: PathBuf, may_make: bool) -> Result<Book, Failure> {
        if self.offline {
            return Ok(Book::File { store: self.store(&socket, may_make)?, socket });
        }
        let database = self.database.as_deref().unwrap_or(Path::new(DATABASE));
        // Without an agent, a database that is named is what is meant, also if it is not there.
        let is_nowhere = self.database.is_none() && access(database, Access::EXISTS).is_err();
        if agent_answers(&socket) || is_nowhere {
            return Ok(Book::Agent(Client::new(socket)));
        }
        note(format_args!("no agent answers on {}: working on {} itself", socket.display(), database.display()));
        Ok(Book::File { store: open(database, may_make)?, socket })
    }

    /// The database, opened: the one that is named, the running agent's, or the usual one.
    pub(in crate::cli) fn store(&self, socket: &Path, may_make: bool) -> Result<SqliteStore, Failure> {
        open(&self.path(socket)?, may_make)
    }

    /// Where the database is.
    pub(in crate::cli) fn path(&self, socket: &Path) -> Result<PathBuf, Failure> {
        match &self.database {
            Some(path) => Ok(path.clone()),
            None if !self.offline && agent_answers(socket) => {
                Ok(ask::<About>(&Client::new(socket), "/api/v1/about")?.database)
            }
            None => Ok(DATABASE.into()),
        }
    }
}

impl From<Within> for Domain {
    fn from(Within { bridge, vlan }: Within) -> Self {
        Self { bridge, vlan }
    }
}

/// Whether somebody listens on the socket. One that we may not use has somebody behind it, too.
pub(in crate::cli) fn agent_answers(socket: &Path) -> bool {
    match UnixStream::connect(socket) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    }
}

fn open(path: &Path, may_make: bool) -> Result<SqliteStore, Failure> {
    match access(path, Access::READ_OK | Access::WRITE_OK) {
        Err(rustix::io::Errno::NOENT) if may_make => {}
        Err(errno) => {
            let what = format_args!("cannot open the lease database {}: {errno}", path.display()).to_string();
            return Err(Failure::new(exit::of_io(&errno.into()), what));
        }
        Ok(()) => {}
    }
    let no_clock = |error| Failure::new(Exit::Unsupported, format_args!("cannot read which boot this is: {error}"));
    Ok(SqliteStore::open(path, &actor(), Clock::system().map_err(no_clock)?)?)
}

/// Who the journal will say has made the changes: the user, also behind sudo.
pub(super) fn actor() -> String {
    let (uid, pid) = (rustix::process::getuid(), std::process::id());
    let sudo = std::env::var("SUDO_USER").map(|user| format!(" ({user} through sudo)")).unwrap_or_default();
    format!("dupip for uid {}{sudo}, pid {pid}", uid.as_raw())
}

pub(in crate::cli) fn vlan(text: &str) -> Result<VlanId, String> {
    let id = text.parse().ok().and_then(VlanId::new);
    id.ok_or_else(|| "VLANs go from 1 to 4094".to_owned())
}

//! `dupip lease adopt`.

use std::{net::Ipv4Addr, path::PathBuf};

use super::{Place, Within, list::tell};
use crate::{
    cli::{
        exit::{Exit, Failure},
        render::Format,
    },
    net::{IfName, Owner},
};

const EXAMPLES: &str = "\
Examples:
  dupip lease adopt --bridge rt0 --address 10.8.64.2 --owner sportsagent

Settles a duplicate that nobody holds a lease for: in enforce mode the other party is moved then.
A quarantine of the address ends with it. An address that somebody holds, or an owner who holds
another, is refused with exit code 1.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    within: Within,
    /// The address
    #[arg(long)]
    address: Ipv4Addr,
    /// Whose it is: a sandbox's name, container id or pod uid, as `dupip table` shows it
    #[arg(long, value_name = "NAME")]
    owner: Owner,
    /// For which of the owner's interfaces, if it has several
    #[arg(long, value_name = "NAME")]
    interface: Option<IfName>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let book = self.place.book(socket, false)?;
        let lease = book.adopt(self.within.into(), self.address, &self.owner, self.interface)?;
        tell(&lease, &self.format)?;
        Ok(Exit::Fine)
    }
}

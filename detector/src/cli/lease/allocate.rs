//! `dupip lease allocate`.

use std::{net::Ipv4Addr, path::PathBuf};

use super::{Place, Within, book::Look, list::tell};
use crate::{
    allocator::{Pool, Wish},
    cli::{
        COOLDOWN,
        exit::{Exit, Failure, note},
        render::Format,
        run::span,
    },
    net::{Domain, IfName, Ipv4Net, Ipv4Range, Owner},
    time::Span,
};

const EXAMPLES: &str = "\
Examples:
  dupip lease allocate --bridge rt0 --owner sportsagent
  dupip lease allocate --bridge rt0 --owner sportsagent --interface eth1
  dupip lease allocate --bridge rt0 --owner sportsagent -o json | jq -r .address
  dupip lease allocate --bridge rt0 --owner sportsagent --address 10.8.64.9

Asking again for the same owner and interface gives the same lease. Before an address is given,
dupip looks whether anybody uses it: in the agent's live table, or, where no agent watches the
bridge, by two ARP probes 20 ms apart. One that somebody else uses is quarantined, with the MAC
that was seen, and the next one given. --offline looks only if --probe is given.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    within: Within,
    /// For whom: a sandbox's name, container id or pod uid
    #[arg(long, value_name = "NAME")]
    owner: Owner,
    /// For which of the owner's interfaces, if it has several
    #[arg(long, value_name = "NAME")]
    interface: Option<IfName>,
    /// This very address, or none
    #[arg(long)]
    address: Option<Ipv4Addr>,
    /// Offline: the subnet to give addresses from, if the bridge has none yet
    #[arg(long, value_name = "SUBNET", requires = "offline")]
    pool: Option<Ipv4Net>,
    /// Offline: the address of the new pool that is nobody's
    #[arg(long, value_name = "ADDRESS", requires = "pool")]
    gateway: Option<Ipv4Addr>,
    /// Offline: how long a released address of the new pool rests before it is given again
    #[arg(long, value_name = "TIME", default_value = COOLDOWN, value_parser = span)]
    cooldown: Span,
    /// Ask on the bridge who uses the address, with two ARP probes, also if an agent watches it, or --offline
    #[arg(long)]
    probe: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let domain = Domain::from(self.within);
        let new = |subnet| Pool::new(domain, subnet, self.gateway, self.cooldown);
        let pool = self.pool.map(new).transpose().map_err(|error| Failure::new(Exit::Usage, error))?;
        let within = self.address.map(Ipv4Range::from).into_iter().collect();
        let wish = Wish { interface: self.interface, within, ..Wish::new(domain, self.owner) };
        let book = self.place.book(socket, pool.is_some())?;
        let look = match (self.probe, self.place.offline) {
            (true, _) => Look::Twice,
            (false, true) => Look::Not,
            (false, false) => Look::Once,
        };
        let lease = book.allocate(&wish, pool.as_ref(), look)?;
        if look == Look::Not {
            note(format_args!("nobody looked whether {} is in use: use --probe to have it looked for", lease.address));
        }
        tell(&lease, &self.format)?;
        Ok(Exit::Fine)
    }
}

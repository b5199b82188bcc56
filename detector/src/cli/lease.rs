//! `dupip lease`: the allocator's book.

use std::{net::Ipv4Addr, path::PathBuf};

use clap::Subcommand;

use super::{
    COOLDOWN, DATABASE,
    book::Book,
    exit::{Exit, Failure, note},
    render::{Column, Format, Output, columns, domain, json, or_dash, print},
    run::span,
};
use crate::{
    allocator::{Fence, Pool},
    http::api::{Lease, Released},
    net::{BridgeName, Domain, Generation, Ipv4Net, Owner, VlanId},
    time::Span,
};

const EXAMPLES: &str = "\
Examples:
  dupip lease list
  dupip lease allocate --bridge rt0 --owner sportsagent
  dupip lease adopt --bridge rt0 --address 10.8.64.2 --owner sportsagent
  dupip lease release --bridge rt0 --address 10.8.64.2 --owner sportsagent --generation 7";

const LIST_EXAMPLES: &str = "\
Examples:
  dupip lease list
  dupip lease list -o json
  dupip lease list --offline --database /var/lib/dupip/leases.db";

const ALLOCATE_EXAMPLES: &str = "\
Examples:
  dupip lease allocate --bridge rt0 --owner sportsagent
  dupip lease allocate --bridge rt0 --owner sportsagent -o json | jq -r .address
  dupip lease allocate --offline --bridge rt0 --owner sportsagent --pool 10.8.64.0/24 --gateway 10.8.64.1

Asking again for the same owner gives the same lease.";

const ADOPT_EXAMPLES: &str = "\
Examples:
  dupip lease adopt --bridge rt0 --address 10.8.64.2 --owner sportsagent

Settles a duplicate that nobody holds a lease for: in enforce mode the other party is moved then.
An address that somebody holds, or an owner who holds another, is refused with exit code 1.";

const RELEASE_EXAMPLES: &str = "\
Examples:
  dupip lease release --bridge rt0 --address 10.8.64.2 --owner sportsagent --generation 7

A lease is given back only by its full name. If the address has another lease by now,
or none, nothing is changed and the exit code is 1.";

/// List, allocate, adopt and release leases
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show every lease
    List(List),
    /// Get an address that nobody has, durably
    Allocate(Allocate),
    /// Say whose an address is that is in use already
    Adopt(Adopt),
    /// Give a lease back
    Release(Release),
}

#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
struct List {
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
#[command(after_help = ALLOCATE_EXAMPLES)]
struct Allocate {
    #[command(flatten)]
    within: Within,
    /// For whom: a sandbox's name, container id or pod uid
    #[arg(long, value_name = "NAME")]
    owner: Owner,
    /// Offline: the subnet to give addresses from, if the bridge has none yet
    #[arg(long, value_name = "SUBNET", requires = "offline")]
    pool: Option<Ipv4Net>,
    /// Offline: the address of the new pool that is nobody's
    #[arg(long, value_name = "ADDRESS", requires = "pool")]
    gateway: Option<Ipv4Addr>,
    /// Offline: how long a released address of the new pool rests before it is given again
    #[arg(long, value_name = "TIME", default_value = COOLDOWN, value_parser = span)]
    cooldown: Span,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
#[command(after_help = ADOPT_EXAMPLES)]
struct Adopt {
    #[command(flatten)]
    within: Within,
    /// The address
    #[arg(long)]
    address: Ipv4Addr,
    /// Whose it is: a sandbox's name, container id or pod uid, as `dupip table` shows it
    #[arg(long, value_name = "NAME")]
    owner: Owner,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
#[command(after_help = RELEASE_EXAMPLES)]
struct Release {
    #[command(flatten)]
    within: Within,
    /// The address to give back
    #[arg(long)]
    address: Ipv4Addr,
    /// Who holds it
    #[arg(long, value_name = "NAME")]
    owner: Owner,
    /// Which lease it is
    #[arg(long, value_name = "NUMBER")]
    generation: u64,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

/// Where an address is unique.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Within {
    /// The bridge
    #[arg(long, value_name = "NAME")]
    bridge: BridgeName,
    /// The VLAN on it, if it is not what goes untagged
    #[arg(long, value_name = "ID", value_parser = vlan)]
    vlan: Option<VlanId>,
}

/// Where the leases are.
#[derive(Debug, clap::Args)]
struct Place {
    /// Work on the database itself, when no agent runs
    #[arg(long)]
    offline: bool,
    /// Offline: the lease database
    #[arg(long, value_name = "PATH", env = "DUPIP_DATABASE", default_value = DATABASE)]
    database: PathBuf,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        match self.verb {
            Verb::List(list) => list.run(socket),
            Verb::Allocate(allocate) => allocate.run(socket),
            Verb::Adopt(adopt) => adopt.run(socket),
            Verb::Release(release) => release.run(socket),
        }
    }
}

impl List {
    fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let leases = self.place.book(socket, false)?.leases()?;
        print(match self.format.output {
            Output::Json => json(&leases)?,
            output => show(&leases, output),
        })?;
        Ok(Exit::Fine)
    }
}

impl Allocate {
    fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let domain = Domain::from(self.within);
        let new = |subnet| Pool::new(domain, subnet, self.gateway, self.cooldown);
        let pool = self.pool.map(new).transpose().map_err(|error| Failure::new(Exit::Usage, error))?;
        let lease = self.place.book(socket, pool.is_some())?.allocate(domain, &self.owner, pool.as_ref())?;
        if self.place.offline {
            note(format_args!("no agent was asked, so nobody looked whether {} is in use", lease.address));
        }
        tell(lease, self.format.output)
    }
}

impl Adopt {
    fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let lease = self.place.book(socket, false)?.adopt(self.within.into(), self.address, &self.owner)?;
        tell(lease, self.format.output)
    }
}

impl Release {
    fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let fence = Fence {
            domain: self.within.into(),
            address: self.address,
            owner: self.owner,
            generation: Generation(self.generation),
        };
        let released = self.place.book(socket, false)?.release(&fence)?;
        match (self.format.output, &released.lease) {
            (Output::Json, _) => print(json(&released)?)?,
            (output, Some(lease)) if released.released => print(show(std::slice::from_ref(lease), output))?,
            _ => {}
        }
        if released.released { Ok(Exit::Fine) } else { Err(fenced(&fence, &released)) }
    }
}

impl Place {
    fn book(&self, socket: PathBuf, may_make: bool) -> Result<Book, Failure> {
        if self.offline { Book::of_file(&self.database, may_make) } else { Ok(Book::of_agent(socket)) }
    }
}

impl From<Within> for Domain {
    fn from(Within { bridge, vlan }: Within) -> Self {
        Self { bridge, vlan }
    }
}

fn tell(lease: Lease, output: Output) -> Result<Exit, Failure> {
    print(match output {
        Output::Json => json(&lease)?,
        output => show(&[lease], output),
    })?;
    Ok(Exit::Fine)
}

fn show(leases: &[Lease], output: Output) -> String {
    let all: [Column<'_, Lease>; 6] = [
        ("BRIDGE", false, &|lease| domain(&lease.bridge, lease.vlan)),
        ("ADDRESS", false, &|lease| lease.address.to_string()),
        ("OWNER", false, &|lease| lease.owner.clone()),
        ("GENERATION", false, &|lease| lease.generation.to_string()),
        ("STATE", false, &|lease| lease.state.clone()),
        ("REPLACES", true, &|lease| or_dash(lease.replaces)),
    ];
    columns(&all, leases, output == Output::Wide)
}

fn fenced(fence: &Fence, released: &Released) -> Failure {
    let Fence { address, owner, generation, .. } = fence;
    let now = match &released.lease {
        None => format!("{address} has no lease"),
        Some(lease) if (lease.owner.as_str(), lease.generation) == (owner.as_str(), generation.0) => {
            format!("{address} was given back already and is in state {}", lease.state)
        }
        Some(lease) => {
            let Lease { owner, generation, state, .. } = lease;
            let is = if matches!(state.as_str(), "reserved" | "bound") { "is now held by" } else { "was last held by" };
            format!("{address} {is} {owner}, generation {generation}, state {state}")
        }
    };
    Failure::new(Exit::No, format_args!("nothing was released: {now}"))
}

fn vlan(text: &str) -> Result<VlanId, String> {
    let id = text.parse().ok().and_then(VlanId::new);
    id.ok_or_else(|| "VLANs go from 1 to 4094".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(owner: &str, generation: u64, state: &str) -> Lease {
        Lease {
            bridge: "rt0".to_owned(),
            vlan: None,
            address: [10, 8, 64, 2].into(),
            owner: owner.to_owned(),
            generation,
            state: state.to_owned(),
            replaces: None,
        }
    }

    #[test]
    fn a_lease_is_one_line() {
        let moving = Lease {
            vlan: Some(7),
            address: [10, 8, 64, 14].into(),
            replaces: Some([10, 8, 64, 2].into()),
            ..lease("sportsagent", 10, "reserved")
        };
        let leases = [lease("reviewagent", 9, "bound"), moving];
        let want = "\
BRIDGE  ADDRESS     OWNER        GENERATION  STATE
rt0     10.8.64.2   reviewagent  9           bound
rt0.7   10.8.64.14  sportsagent  10          reserved
";
        assert_eq!(show(&leases, Output::Table), want);
        assert!(show(&leases, Output::Wide).ends_with("reserved  10.8.64.2\n"));
    }

    #[test]
    fn a_stale_release_is_told_what_is_there_now() {
        let fence = Fence {
            domain: Domain::untagged("rt0".parse().unwrap()),
            address: [10, 8, 64, 2].into(),
            owner: "sportsagent".parse().unwrap(),
            generation: Generation(7),
        };
        let told = |lease: Option<Lease>| fenced(&fence, &Released { released: false, lease });
        let nothing = |now: &str| Failure::new(Exit::No, format!("nothing was released: 10.8.64.2 {now}"));
        assert_eq!(
            told(Some(lease("reviewagent", 9, "bound"))),
            nothing("is now held by reviewagent, generation 9, state bound")
        );
        assert_eq!(
            told(Some(lease("sportsagent", 8, "cooldown"))),
            nothing("was last held by sportsagent, generation 8, state cooldown")
        );
        assert_eq!(
            told(Some(lease("sportsagent", 7, "draining"))),
            nothing("was given back already and is in state draining")
        );
        assert_eq!(told(None), nothing("has no lease"));
    }
}

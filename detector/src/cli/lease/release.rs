//! `dupip lease release`.

use std::{net::Ipv4Addr, path::PathBuf};

use super::{Place, Within, book::Book, list::show};
use crate::{
    allocator::Fence,
    cli::{
        exit::{Exit, Failure},
        render::{Format, Output, json, print},
    },
    http::api::{Lease, Released},
    net::{Domain, Generation, Owner},
};

const EXAMPLES: &str = "\
Examples:
  dupip lease release --bridge rt0 --address 10.8.64.2 --owner sportsagent --generation 7
  dupip lease release --bridge rt0 --address 10.8.64.2 --unsafe

A lease is given back only by its full name. If the address has another lease by now,
or none, nothing is changed and the exit code is 1.

A released lease drains until it is proven that nothing uses its address. --unsafe does without
that proof: whatever stands on the address rests at once, and is given to others after its
cooldown. If it is still in use then, that is a duplicate. The journal says who did it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    within: Within,
    /// The address to give back
    #[arg(long)]
    address: Ipv4Addr,
    /// Who holds it
    #[arg(long, value_name = "NAME", required_unless_present = "force")]
    owner: Option<Owner>,
    /// Which lease it is
    #[arg(long, value_name = "NUMBER", required_unless_present = "force")]
    generation: Option<u64>,
    /// Do without the proof that nothing uses the address; owner and generation may be left out
    #[arg(long = "unsafe")]
    force: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let book = self.place.book(socket, false)?;
        let fence = self.fence(&book)?;
        let released = book.release(&fence, self.force)?;
        match (self.format.output, &released.lease) {
            (Output::Json, _) => print(json(&released)?)?,
            (_, Some(lease)) if released.released => print(show(std::slice::from_ref(lease), self.format.look()))?,
            _ => {}
        }
        if released.released { Ok(Exit::Fine) } else { Err(fenced(&fence, &released)) }
    }

    /// The lease's full name. What an operator by force leaves out is read from the book: whatever comes in between is
    /// still fenced.
    fn fence(&self, book: &Book) -> Result<Fence, Failure> {
        let (domain, address) = (Domain::from(self.within), self.address);
        if let (Some(owner), Some(generation)) = (&self.owner, self.generation) {
            return Ok(Fence { domain, address, owner: owner.clone(), generation: Generation(generation) });
        }
        let (bridge, vlan) = (domain.bridge.to_string(), domain.vlan.map(|vlan| vlan.get()));
        let is_meant = |lease: &Lease| {
            (&lease.bridge, lease.vlan, lease.address) == (&bridge, vlan, address)
                && self.owner.as_ref().is_none_or(|owner| owner.as_str() == lease.owner)
                && self.generation.is_none_or(|generation| generation == lease.generation)
        };
        let found = book.leases()?.into_iter().map(|standing| standing.lease).find(is_meant);
        let lease = found.ok_or_else(|| {
            Failure::new(Exit::No, format_args!("nothing was released: there is no such lease on {address}"))
        })?;
        let owner = lease.owner.parse().map_err(|error| Failure::new(Exit::Bug, error))?;
        Ok(Fence { domain, address, owner, generation: Generation(lease.generation) })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(owner: &str, generation: u64, state: &str) -> Lease {
        Lease {
            bridge: "rt0".to_owned(),
            vlan: None,
            address: [10, 8, 64, 2].into(),
            owner: owner.to_owned(),
            interface: None,
            generation,
            state: state.to_owned(),
            replaces: None,
        }
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

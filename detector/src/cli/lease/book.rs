//! Whom to ask about leases: the agent, or the database itself.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use crate::{
    allocator::{Fence, Pool, SqliteStore, Store as _, Terms, Wish, hand_out},
    capture::Probing,
    cli::{
        ask,
        exit::{Exit, Failure},
        small_runtime,
    },
    http::{
        self, Client, Witnesses,
        api::{Adopt, Allocate, Explained, JournalEntry, Lease, Release, Released, Standing},
    },
    net::{Domain, IfName, Ipv4Range, Owner},
};

/// Where leases are read and written.
#[derive(Debug)]
pub(in crate::cli) enum Book {
    /// By the agent, which also looks at the wire.
    Agent(Client),
    /// In the database itself, with a look at the wire, and at what the agent sees.
    File {
        /// The database.
        store: SqliteStore,
        /// Where an agent would answer.
        socket: PathBuf,
    },
}

/// How to look whether an address is in use, before it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// As the agent sees it, or by probes where there is none.
    Once,
    /// Also by probes.
    Twice,
    /// Not at all.
    Not,
}

impl Book {
    pub(super) fn leases(&self) -> Result<Vec<Standing>, Failure> {
        match self {
            Self::Agent(client) => ask(client, "/api/v1/leases"),
            Self::File { store, .. } => Ok(store.standings(None)?.iter().map(Into::into).collect()),
        }
    }

    pub(super) fn history(&self, domain: Option<Domain>, address: Ipv4Addr) -> Result<Vec<JournalEntry>, Failure> {
        match self {
            Self::Agent(client) => {
                let bridge = domain.map(|domain| format!("&bridge={}", http::encoded(domain.bridge.as_str())));
                let vlan = domain.and_then(|domain| domain.vlan).map(|vlan| format!("&vlan={}", vlan.get()));
                let (bridge, vlan) = (bridge.unwrap_or_default(), vlan.unwrap_or_default());
                ask(client, &format!("/api/v1/leases/history?address={address}{bridge}{vlan}"))
            }
            Self::File { store, .. } => Ok(store.history(domain, address)?.iter().map(Into::into).collect()),
        }
    }

    /// Incident `number`, and what became of its address.
    pub(in crate::cli) fn explained(&self, number: u64) -> Result<Explained, Failure> {
        match self {
            Self::Agent(client) => ask(client, &format!("/api/v1/incidents/{number}")),
            Self::File { store, .. } => Ok(http::explained(store, number, &[])?),
        }
    }

    /// A lease for whom `wish` names, from `pool` if the domain has none yet.
    pub(super) fn allocate(&self, wish: &Wish, pool: Option<&Pool>, look: Look) -> Result<Lease, Failure> {
        match self {
            Self::Agent(client) => {
                let (bridge, vlan) = named(wish.domain);
                let (owner, interface) = (wish.owner.to_string(), wish.interface.map(|name| name.to_string()));
                let address = wish.within.first().copied().map(Ipv4Range::first);
                let request = Allocate { bridge, vlan, owner, interface, address, probe: look == Look::Twice };
                Ok(small_runtime()?.block_on(client.change("/api/v1/leases", &request))?)
            }
            Self::File { store, socket } => from_file(store, socket, wish, pool, look),
        }
    }

    pub(super) fn adopt(
        &self,
        domain: Domain,
        address: Ipv4Addr,
        owner: &Owner,
        interface: Option<IfName>,
    ) -> Result<Lease, Failure> {
        match self {
            Self::Agent(client) => {
                let (bridge, vlan) = named(domain);
                let (owner, interface) = (owner.to_string(), interface.map(|name| name.to_string()));
                let request = Adopt { bridge, vlan, address, owner, interface };
                Ok(small_runtime()?.block_on(client.change("/api/v1/leases/adopt", &request))?)
            }
            Self::File { store, .. } => Ok((&store.adopt(domain, address, owner, interface)?).into()),
        }
    }

    /// Gives the lease back; by `force`, to rest at once.
    pub(super) fn release(&self, fence: &Fence, force: bool) -> Result<Released, Failure> {
        match self {
            Self::Agent(client) => {
                let (bridge, vlan) = named(fence.domain);
                let (owner, generation) = (fence.owner.to_string(), fence.generation.0);
                let request = Release { bridge, vlan, address: fence.address, owner, generation, force };
                Ok(small_runtime()?.block_on(client.change("/api/v1/leases/release", &request))?)
            }
            Self::File { store, .. } if force => Ok((&store.discard(fence)?).into()),
            Self::File { store, .. } => Ok((&store.release(fence)?).into()),
        }
    }
}

/// A pool that is there keeps its gateway and its cooldown.
fn from_file(
    store: &SqliteStore,
    socket: &Path,
    wish: &Wish,
    pool: Option<&Pool>,
    look: Look,
) -> Result<Lease, Failure> {
    if let Some(pool) =
        pool.filter(|_| store.pools().is_ok_and(|pools| pools.iter().all(|of| of.domain() != wish.domain)))
    {
        store.ensure_pool(pool).map_err(|error| Failure::new(Exit::No, error))?;
    }
    if look == Look::Not {
        return Ok((&store.allocate(wish)?).into());
    }
    let witnesses = Witnesses::beside(socket, Probing::default(), look == Look::Twice);
    let witnesses = witnesses.map_err(|error| Failure::new(Exit::Unreachable, error))?;
    Ok((&hand_out(store, wish, &witnesses, Terms::default())?).into())
}

fn named(domain: Domain) -> (String, Option<u16>) {
    (domain.bridge.to_string(), domain.vlan.map(|vlan| vlan.get()))
}

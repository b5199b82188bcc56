//! Whom to ask about leases: the agent, or the database itself.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use super::{
    ask,
    exit::{self, Exit, Failure},
    small_runtime,
};
use crate::{
    allocator::{AllocateError, Clock, Fence, Pool, SqliteStore, Store as _},
    http::{
        Client,
        api::{Adopt, Allocate, Lease, Release, Released},
    },
    net::{Domain, Owner},
};

/// Where leases are read and written.
#[derive(Debug)]
pub(super) enum Book {
    /// By the agent, which also looks at the wire.
    Agent(Client),
    /// In the database itself.
    File(SqliteStore),
}

impl Book {
    pub(super) fn of_agent(socket: PathBuf) -> Self {
        Self::Agent(Client::new(socket))
    }

    /// The database at `path`, which must be there unless it may be made.
    pub(super) fn of_file(path: &Path, may_make: bool) -> Result<Self, Failure> {
        match access(path, Access::READ_OK | Access::WRITE_OK) {
            Err(rustix::io::Errno::NOENT) if may_make => {}
            Err(errno) => {
                let what = format_args!("cannot open the lease database {}: {errno}", path.display()).to_string();
                return Err(Failure::new(exit::of_io(&errno.into()), what));
            }
            Ok(()) => {}
        }
        let no_clock = |error| Failure::new(Exit::Unsupported, format_args!("cannot read which boot this is: {error}"));
        Ok(Self::File(SqliteStore::open(path, "dupip lease --offline", Clock::system().map_err(no_clock)?)?))
    }

    pub(super) fn leases(&self) -> Result<Vec<Lease>, Failure> {
        match self {
            Self::Agent(client) => ask(client, "/api/v1/leases"),
            Self::File(store) => Ok(store.leases(None)?.iter().map(Into::into).collect()),
        }
    }

    /// A lease for `owner`, from `pool` if the domain has none yet.
    pub(super) fn allocate(&self, domain: Domain, owner: &Owner, pool: Option<&Pool>) -> Result<Lease, Failure> {
        match self {
            Self::Agent(client) => {
                let (bridge, vlan) = named(domain);
                let request = Allocate { bridge, vlan, owner: owner.to_string() };
                Ok(small_runtime()?.block_on(client.change("/api/v1/leases", &request))?)
            }
            Self::File(store) => from_file(store, domain, owner, pool),
        }
    }

    pub(super) fn adopt(&self, domain: Domain, address: Ipv4Addr, owner: &Owner) -> Result<Lease, Failure> {
        match self {
            Self::Agent(client) => {
                let (bridge, vlan) = named(domain);
                let request = Adopt { bridge, vlan, address, owner: owner.to_string() };
                Ok(small_runtime()?.block_on(client.change("/api/v1/leases/adopt", &request))?)
            }
            Self::File(store) => Ok((&store.adopt(domain, address, owner)?).into()),
        }
    }

    pub(super) fn release(&self, fence: &Fence) -> Result<Released, Failure> {
        match self {
            Self::Agent(client) => {
                let (bridge, vlan) = named(fence.domain);
                let Fence { address, owner, generation, .. } = fence;
                let request =
                    Release { bridge, vlan, address: *address, owner: owner.to_string(), generation: generation.0 };
                Ok(small_runtime()?.block_on(client.change("/api/v1/leases/release", &request))?)
            }
            Self::File(store) => Ok((&store.release(fence)?).into()),
        }
    }
}

/// Asks first: a pool that is there keeps its gateway and its cooldown.
fn from_file(store: &SqliteStore, domain: Domain, owner: &Owner, pool: Option<&Pool>) -> Result<Lease, Failure> {
    let nobody_looks = BTreeSet::new();
    let lease = match (store.allocate(domain, owner, &nobody_looks), pool) {
        (Err(AllocateError::NoPool(_)), Some(pool)) => {
            store.ensure_pool(pool).map_err(|error| Failure::new(Exit::No, error))?;
            store.allocate(domain, owner, &nobody_looks)
        }
        (lease, _) => lease,
    };
    Ok((&lease?).into())
}

fn named(domain: Domain) -> (String, Option<u16>) {
    (domain.bridge.to_string(), domain.vlan.map(|vlan| vlan.get()))
}

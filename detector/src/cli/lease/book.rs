//! Whom to ask about leases: the agent, or the database itself.

use std::net::Ipv4Addr;

use crate::{
    allocator::{AllocateError, Fence, Pool, SqliteStore, Store as _, Wish},
    cli::{
        ask,
        exit::{Exit, Failure},
        small_runtime,
    },
    http::{
        Client,
        api::{Adopt, Allocate, JournalEntry, Lease, Release, Released, Standing},
    },
    net::{Domain, IfName, Ipv4Range, Owner},
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
    pub(super) fn leases(&self) -> Result<Vec<Standing>, Failure> {
        match self {
            Self::Agent(client) => ask(client, "/api/v1/leases"),
            Self::File(store) => Ok(store.standings(None)?.iter().map(Into::into).collect()),
        }
    }

    pub(super) fn history(&self, domain: Option<Domain>, address: Ipv4Addr) -> Result<Vec<JournalEntry>, Failure> {
        match self {
            Self::Agent(client) => {
                let bridge = domain.map(|domain| format!("&bridge={}", encoded(domain.bridge.as_str())));
                let vlan = domain.and_then(|domain| domain.vlan).map(|vlan| format!("&vlan={}", vlan.get()));
                let (bridge, vlan) = (bridge.unwrap_or_default(), vlan.unwrap_or_default());
                ask(client, &format!("/api/v1/leases/history?address={address}{bridge}{vlan}"))
            }
            Self::File(store) => Ok(store.history(domain, address)?.iter().map(Into::into).collect()),
        }
    }

    /// A lease for whom `wish` names, from `pool` if the domain has none yet.
    pub(super) fn allocate(&self, wish: &Wish, pool: Option<&Pool>) -> Result<Lease, Failure> {
        match self {
            Self::Agent(client) => {
                let (bridge, vlan) = named(wish.domain);
                let (owner, interface) = (wish.owner.to_string(), wish.interface.map(|name| name.to_string()));
                let address = wish.within.first().copied().map(Ipv4Range::first);
                let request = Allocate { bridge, vlan, owner, interface, address };
                Ok(small_runtime()?.block_on(client.change("/api/v1/leases", &request))?)
            }
            Self::File(store) => from_file(store, wish, pool),
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
            Self::File(store) => Ok((&store.adopt(domain, address, owner, interface)?).into()),
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
            Self::File(store) if force => Ok((&store.discard(fence)?).into()),
            Self::File(store) => Ok((&store.release(fence)?).into()),
        }
    }
}

/// Asks first: a pool that is there keeps its gateway and its cooldown.
fn from_file(store: &SqliteStore, wish: &Wish, pool: Option<&Pool>) -> Result<Lease, Failure> {
    let lease = match (store.allocate(wish), pool) {
        (Err(AllocateError::NoPool(_)), Some(pool)) => {
            store.ensure_pool(pool).map_err(|error| Failure::new(Exit::No, error))?;
            store.allocate(wish)
        }
        (lease, _) => lease,
    };
    Ok((&lease?).into())
}

fn named(domain: Domain) -> (String, Option<u16>) {
    (domain.bridge.to_string(), domain.vlan.map(|vlan| vlan.get()))
}

/// An interface's name as a query takes it: whatever could mean something else there as `%` and its bytes (RFC 3986,
/// section 2.1).
fn encoded(name: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_nothing_else_in_a_query() {
        assert_eq!(encoded("br-0.a_b"), "br-0.a_b");
        assert_eq!(encoded("a&b=\u{fc}"), "a%26b%3D%C3%BC");
    }
}

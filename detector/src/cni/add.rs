//! ADD: an address for a container's interface.

use super::{
    answer,
    call::Attachment,
    conf::NetConf,
    failure::{Code, Failure},
    look::Eyes,
    network::{Network, Subnet},
    resolv_conf::{self, Dns},
    version::Version,
};
use crate::{
    allocator::{AllocateError, Pool, PoolError, Store, Wish},
    net::{Ipv4Net, Lease},
};

/// What the runtime is told: the lease that the interface holds already, or a new one.
pub(super) fn add(
    version: Version,
    conf: &NetConf,
    attachment: Attachment,
    by_env: Vec<std::net::Ipv4Addr>,
) -> Result<String, Failure> {
    let network = Network::of(conf)?;
    let wanted = network.wanted(conf, by_env)?;
    let dns = dns(&network)?;
    let Attachment { owner, interface } = attachment;
    let within = wanted.map_or_else(|| network.within.clone(), |address| vec![address.into()]);
    let wish = Wish { interface: Some(interface), within, ..Wish::new(network.place.domain, owner) };
    let eyes = Eyes::open(&network)?;
    let store = network.place.open()?;
    let pools = pools(&store, &network)?;
    let lease = eyes.lease(&store, &wish, &network.place).map_err(|error| said(error, wanted.is_some()))?;
    let pool = pools.iter().find(|pool| pool.subnet().contains(&lease.address));
    let pool = pool.ok_or_else(|| outside(&lease))?;
    let address = Ipv4Net::new_assert(lease.address, pool.subnet().prefix_len());
    answer::granted(version, address, pool.gateway(), &network.routes, &dns)
}

/// Sees to it that the book has the network's pools as the configuration describes them.
fn pools(store: &dyn Store, network: &Network) -> Result<Vec<Pool>, Failure> {
    let known = store.pools()?;
    network.subnets.iter().map(|subnet| pool(store, network, subnet, &known)).collect()
}

fn pool(store: &dyn Store, network: &Network, subnet: &Subnet, known: &[Pool]) -> Result<Pool, Failure> {
    let domain = network.place.domain;
    let there = known.iter().find(|pool| (pool.domain(), pool.subnet()) == (domain, subnet.net()));
    let pool = subnet.pool(domain, there)?;
    if there == Some(&pool) {
        return Ok(pool);
    }
    match (store.ensure_pool(&pool), there) {
        (Ok(()), _) => Ok(pool),
        // What is to be left out from now on and is still held may be held on: no container loses its address by a new
        // configuration, and none gets one that is left out, as the wish does not reach it.
        (Err(PoolError::Leased(lease)), Some(there)) if there.gateway() == pool.gateway() => {
            debug_assert!(pool.excluded().iter().any(|range| range.contains(lease.address)));
            Ok(there.clone())
        }
        (Err(error), _) => Err(error.into()),
    }
}

fn dns(network: &Network) -> Result<Dns, Failure> {
    let read = |path: &std::path::PathBuf| {
        resolv_conf::read(path)
            .map_err(|error| Failure::from(error).about(format_args!("resolvConf {}", path.display())))
    };
    network.resolv_conf.as_ref().map(read).transpose().map(Option::unwrap_or_default)
}

/// An address that somebody has is the runtime's mistake if it asked for that one, and else a full network.
fn said(error: AllocateError, asked_for: bool) -> Failure {
    let full = match &error {
        AllocateError::Exhausted { .. } => true,
        AllocateError::Leased(_) => !asked_for,
        _ => false,
    };
    let failure = Failure::from(error);
    match full {
        true => Failure { code: Code::TryAgain, ..failure }
            .hint("dupip lease list shows who has them; what was given back rests before it is given again"),
        false => failure,
    }
}

fn outside(lease: &Lease) -> Failure {
    Failure::new(Code::Bug, format_args!("{} is in none of the network's subnets", lease.address))
}

//! STATUS: whether an ADD would work.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::{
    conf::NetConf,
    failure::{Code, Failure},
    network::Network,
};
use crate::{
    allocator::{Pool, Standing, Store},
    net::Ipv4Range,
    time::Span,
};

/// A configuration that is wrong is told as such; all else that would keep an ADD from working, as the plugin not being
/// available.
pub(super) fn status(conf: &NetConf) -> Result<(), Failure> {
    let network = Network::of(conf)?;
    room(&network).map_err(|failure| Failure { code: Code::Unavailable, ..failure })
}

fn room(network: &Network) -> Result<(), Failure> {
    let domain = network.place.domain;
    let Some(store) = network.place.open_if_there()? else { return Ok(()) };
    let pools: Vec<_> = store.pools()?.into_iter().filter(|pool| pool.domain() == domain).collect();
    let taken: Vec<_> = store.standings(Some(domain))?.into_iter().filter(|one| is_taken(one, network)).collect();
    let addresses: BTreeSet<_> = taken.iter().map(|standing| standing.lease.address).collect();
    match network.within.iter().any(|range| has_free(*range, &pools, &addresses)) {
        true => Ok(()),
        false => Err(exhausted(network, taken.iter().filter_map(|standing| standing.left).min())),
    }
}

/// Whatever has an end is free after it, but for a reservation, which drains then.
fn is_taken(standing: &Standing, network: &Network) -> bool {
    let Standing { lease, left, .. } = standing;
    let is_over = !lease.state.is_held() && *left == Some(Span::ZERO);
    !is_over && network.within.iter().any(|range| range.contains(lease.address))
}

/// The first that is free ends the search, so it takes as long as there are addresses that are not.
fn has_free(range: Ipv4Range, pools: &[Pool], taken: &BTreeSet<Ipv4Addr>) -> bool {
    range.bits().map(Ipv4Addr::from_bits).any(|address| !taken.contains(&address) && may_be_leased(address, pools))
}

/// A pool that is not there yet is made by the first ADD.
fn may_be_leased(address: Ipv4Addr, pools: &[Pool]) -> bool {
    let pool = pools.iter().find(|pool| pool.subnet().contains(&address));
    pool.is_none_or(|pool| pool.can_lease(address))
}

fn exhausted(network: &Network, ready_in: Option<Span>) -> Failure {
    let domain = network.place.domain;
    let when = match ready_in {
        Some(span) => format!("the next one may be given in {span}"),
        None => "none is resting".to_owned(),
    };
    Failure::new(Code::Unavailable, format_args!("{domain} has no address left in this network's ranges: {when}"))
}

//! GC: what no container has any more by the runtime's word is given back. That word alone frees nothing: what is given
//! back drains, and only proof that nothing uses it lets it be given again.

use std::collections::BTreeSet;

use super::{conf::NetConf, failure::Failure, network::Network};
use crate::{
    allocator::{Fence, Store as _},
    net::Lease,
};

pub(super) fn gc(conf: &NetConf) -> Result<(), Failure> {
    let network = Network::of(conf)?;
    let valid = conf.valid_attachments().ok_or_else(|| {
        Failure::config("GC needs the list of what is still there, and a list that is missing is no empty one")
            .hint("the runtime must put it into the configuration as cni.dev/valid-attachments")
    })?;
    let valid: BTreeSet<_> = valid.iter().map(|one| (one.container.as_str(), one.interface.as_str())).collect();
    let Some(store) = network.place.open_if_there()? else { return Ok(()) };
    for lease in store.leases(Some(network.place.domain))? {
        if is_ours(&lease, &network) && !is_valid(&lease, &valid) {
            store.release(&Fence::from(&lease))?;
        }
    }
    Ok(())
}

/// Others may have leases on the bridge: another network, within other ranges; and those that name no interface, which no
/// ADD has made.
fn is_ours(lease: &Lease, network: &Network) -> bool {
    lease.state.is_held()
        && lease.interface.is_some()
        && network.ranges.iter().any(|range| range.contains(lease.address))
}

fn is_valid(lease: &Lease, valid: &BTreeSet<(&str, &str)>) -> bool {
    lease.interface.is_some_and(|interface| valid.contains(&(lease.owner.as_str(), interface.as_str())))
}

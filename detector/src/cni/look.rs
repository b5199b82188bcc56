//! The look before an address is given to a container.

use super::network::{Look, Network};
use crate::{
    allocator::{AllocateError, Store, Terms, Unwitnessed, Wish, Witness, hand_out},
    capture::Probing,
    http::{LiveTable, Witnesses},
    net::Lease,
};

/// The lease that `wish` asks for, on an address that nobody was seen to use.
pub(super) fn lease(store: &dyn Store, wish: &Wish, network: &Network) -> Result<Lease, AllocateError> {
    let witness: Box<dyn Witness> = match network.look {
        Look::TableOnly => match table(network)? {
            Some(table) => Box::new(table),
            None => return store.allocate(wish),
        },
        Look::Usual => Box::new(beside(network, Probing::default(), false)?),
        Look::Wire(probing) => Box::new(beside(network, probing, true)?),
    };
    hand_out(store, wish, witness.as_ref(), Terms::default())
}

fn table(network: &Network) -> Result<Option<LiveTable>, Unwitnessed> {
    let table = LiveTable::connect(&network.place.socket)?;
    Ok(table.filter(|table| table.watches(network.place.domain)))
}

fn beside(network: &Network, probing: Probing, always_probe: bool) -> Result<Witnesses, Unwitnessed> {
    Witnesses::beside(&network.place.socket, probing, always_probe)
}

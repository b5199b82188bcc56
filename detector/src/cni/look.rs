//! The look before an address is given to a container.

use super::network::{Look, Network};
use crate::{
    allocator::{AllocateError, Store, Terms, Wish, hand_out},
    capture::Probing,
    net::Lease,
    witness::Wire,
};

/// The lease that `wish` asks for, on an address that nobody was seen to use.
pub(super) fn lease(store: &dyn Store, wish: &Wish, network: &Network) -> Result<Lease, AllocateError> {
    let probing = match network.look {
        Look::TableOnly => return store.allocate(wish),
        Look::Usual => Probing::default(),
        Look::Wire(probing) => probing,
    };
    hand_out(store, wish, &Wire::new(probing), Terms::default())
}

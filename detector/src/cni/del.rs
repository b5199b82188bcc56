//! DEL: what a container's interface holds is given back. It drains, until nothing on the wire uses it any more.

use super::{call::Attachment, conf::NetConf, failure::Failure, place::Place};
use crate::allocator::{Fence, Store as _};

/// Succeeds also if nothing is held: a runtime may ask twice, or for what never was.
///
/// Only what the interface holds is found here, and each lease is released by its generation, so that a late DEL does
/// nothing to whoever has the address by now.
pub(super) fn del(conf: &NetConf, attachment: &Attachment) -> Result<(), Failure> {
    let place = Place::of(conf)?;
    let Some(store) = place.open_if_there()? else { return Ok(()) };
    for lease in store.held(place.domain, &attachment.owner, Some(attachment.interface))? {
        store.release(&Fence::from(&lease))?;
    }
    Ok(())
}

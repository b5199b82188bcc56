//! CHECK: whether a container's interface still holds what it was given.

use super::{
    call::Attachment,
    conf::{NetConf, PrevResult},
    failure::{Code, Failure},
    place::Place,
};
use crate::{
    allocator::Store as _,
    net::{Ipv4Net, Lease},
};

pub(super) fn check(conf: &NetConf, attachment: &Attachment) -> Result<(), Failure> {
    let place = Place::of(conf)?;
    let given = conf.prev_result.as_ref().ok_or_else(|| {
        Failure::config("CHECK needs the result of the ADD before it")
            .hint("the runtime must put it into the configuration as prevResult")
    })?;
    let held = match place.open_if_there()? {
        None => Vec::new(),
        Some(store) => store.held(place.domain, &attachment.owner, Some(attachment.interface))?,
    };
    let Attachment { owner, interface } = attachment;
    match held.first() {
        None => Err(not_held(format_args!("{owner} holds no lease for its {interface} on {}", place.domain))),
        Some(lease) if is_given(lease, given) => Ok(()),
        Some(lease) => {
            let was = given.addresses().join(", ");
            let was = if was.is_empty() { "nothing".to_owned() } else { was };
            Err(not_held(format_args!("{owner} holds {} for its {interface} and was given {was}", lease.address)))
        }
    }
}

fn is_given(lease: &Lease, given: &PrevResult) -> bool {
    given.addresses().iter().any(|text| text.parse::<Ipv4Net>().is_ok_and(|net| net.addr() == lease.address))
}

fn not_held(what: std::fmt::Arguments<'_>) -> Failure {
    Failure::new(Code::NotHeld, what).hint("dupip lease history ADDRESS shows what became of it")
}

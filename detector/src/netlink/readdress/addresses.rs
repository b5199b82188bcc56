//! Address messages, made from address messages.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};

use super::{super::addresses::local, Readdress};
use crate::net::Ipv4Net;

/// What an address is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It takes the old one's place.
    New,
    /// It was secondary to the old one.
    Kept,
}

impl Hold {
    /// The label that marks it, where the interface's name would stand; at most 15 bytes (`IFNAMSIZ`).
    const fn label(self) -> &'static str {
        match self {
            Self::New => "dupip-new",
            Self::Kept => "dupip-kept",
        }
    }
}

/// Whether `message` is this very address.
pub(super) fn is(message: &AddressMessage, address: Ipv4Addr, prefix_len: u8) -> bool {
    local(message) == Some(address) && message.header.prefix_len == prefix_len
}

/// Whether the kernel has the address as secondary to another.
pub(super) fn is_secondary(message: &AddressMessage) -> bool {
    message.header.flags.contains(AddressHeaderFlags::Secondary)
}

/// Whether the address goes when `primary` goes: `inet_ifa_match` in the kernel compares network and mask alike.
pub(super) fn is_secondary_to(message: &AddressMessage, primary: &AddressMessage) -> bool {
    is_secondary(message) && network(message).is_some() && network(message) == network(primary)
}

/// Whether the address is there only to be held.
pub(super) fn is_held(message: &AddressMessage) -> bool {
    [Hold::New, Hold::Kept].into_iter().any(|hold| is_held_as(message, hold))
}

/// Whether the address is there only to be held for `hold`.
pub(super) fn is_held_as(message: &AddressMessage, hold: Hold) -> bool {
    label(message) == Some(hold.label())
}

/// The address `change.new`, with all that `old` has. `connected`: whether the kernel keeps a route to its network; if
/// somebody took that route away, it is not to come back with the new address.
pub(super) fn moved(old: &AddressMessage, change: Readdress, connected: bool) -> AddressMessage {
    let mut moved = old.clone();
    for attribute in &mut moved.attributes {
        match attribute {
            AddressAttribute::Local(address) => *address = change.new.into(),
            AddressAttribute::Address(address) if *address == IpAddr::V4(change.old) => *address = change.new.into(),
            AddressAttribute::Broadcast(address) => *address = broadcast(*address, change),
            AddressAttribute::Flags(flags) if has_network(old) && !connected => *flags |= AddressFlags::Noprefixroute,
            _ => {}
        }
    }
    moved
}

/// The same address as a primary one of its own, marked. An address that is the longest prefix already, and has no
/// peer, is itself what holds it.
pub(super) fn held(message: &AddressMessage, hold: Hold) -> AddressMessage {
    let mut held = message.clone();
    match (message.header.prefix_len, has_peer(message)) {
        (32, false) => return held,
        (32, true) => held.header.prefix_len = 31,
        _ => held.header.prefix_len = 32,
    }
    if has_peer(message) {
        set_prefix_route(&mut held, false);
    }
    set_label(&mut held, Some(hold.label()));
    held
}

/// The address that is held for `hold` in `message`, as it was or is to be; none if `message` does not hold one.
pub(super) fn released(message: &AddressMessage, hold: Hold, prefix_len: u8) -> Option<AddressMessage> {
    is_held_as(message, hold).then(|| {
        let mut released = message.clone();
        released.header.prefix_len = prefix_len;
        if has_peer(message) {
            set_prefix_route(&mut released, true);
        }
        set_label(&mut released, None);
        released
    })
}

/// Whether the kernel makes a route to something on the link for the address.
pub(super) fn has_network(message: &AddressMessage) -> bool {
    message.header.prefix_len < 32 || has_peer(message)
}

/// The network that the address is in; on a point-to-point link that is the peer's.
fn network(message: &AddressMessage) -> Option<Ipv4Net> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(IpAddr::V4(address)) => Some(*address),
        _ => None,
    });
    Some(Ipv4Net::new(address?, message.header.prefix_len).ok()?.trunc())
}

fn has_peer(message: &AddressMessage) -> bool {
    message.attributes.iter().any(
        |attribute| matches!(attribute, AddressAttribute::Address(IpAddr::V4(peer)) if Some(*peer) != local(message)),
    )
}

/// The network's own broadcast address follows the address; one that somebody chose stays.
fn broadcast(was: Ipv4Addr, change: Readdress) -> Ipv4Addr {
    let of = |address| Ipv4Net::new(address, change.prefix_len).ok().map(|net| net.broadcast());
    match of(change.new) {
        Some(new) if of(change.old) == Some(was) => new,
        _ => was,
    }
}

fn label(message: &AddressMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Label(label) => Some(label.as_str()),
        _ => None,
    })
}

/// Without a label the kernel takes the interface's name.
fn set_label(message: &mut AddressMessage, label: Option<&str>) {
    message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Label(_)));
    message.attributes.extend(label.map(|label| AddressAttribute::Label(label.to_owned())));
}

fn set_prefix_route(message: &mut AddressMessage, wanted: bool) {
    for attribute in &mut message.attributes {
        if let AddressAttribute::Flags(flags) = attribute {
            flags.set(AddressFlags::Noprefixroute, !wanted);
        }
    }
}

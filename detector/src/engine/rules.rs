//! The verdicts, one small function each. A rule looks and says; it changes nothing.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{bindings::Binding, input::Claim, topology::PartyKey};
use crate::net::{Ipv4Net, MartianReason, Station, martian_source};

/// Why a claim cannot be true.
pub(super) fn martian(claim: &Claim, networks: &[Ipv4Net]) -> Option<MartianReason> {
    let forged = claim.ether_source != claim.mac;
    martian_source(claim.address, networks).or(forged.then_some(MartianReason::EtherMismatch))
}

/// The stations that claim `address`, one for each party, if there is more than one party: a duplicate.
///
/// Of a party with several stations, the first speaks for it. A link-local address with one hardware address everywhere
/// is no duplicate but a gateway that every sandbox is given alike.
pub(super) fn duplicate<'a>(
    address: Ipv4Addr,
    claims: impl Iterator<Item = (PartyKey, Station, &'a Binding)>,
) -> Option<Vec<Station>> {
    let mut parties = BTreeMap::new();
    for (party, station, _) in claims.filter(|(_, _, binding)| binding.is_plausible()) {
        parties.entry(party).or_insert(station);
    }
    let mut macs: Vec<_> = parties.values().map(|station| station.mac).collect();
    macs.dedup();
    (parties.len() > 1 && !(address.is_link_local() && macs.len() == 1)).then(|| parties.into_values().collect())
}

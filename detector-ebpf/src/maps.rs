//! What stands in the maps that the kernel's half and the agent share. Nothing here has padding: a map's keys and values
//! are handed over as bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Bucket, Claim, MAX_SLOTS, RECENT_SLOTS, TapCounters};

/// Which claims say the same: the key of [`KNOWN`](crate::KNOWN).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KnownKey {
    /// The interface that it is heard at, in native byte order.
    pub ifindex: u32,
    /// What is claimed.
    pub address: [u8; 4],
    /// The id in the outermost tag, in native byte order; 0 if there is none.
    pub tag: u16,
    /// Who claims.
    pub mac: [u8; 6],
}

/// What became of a known claim: the value of [`KNOWN`](crate::KNOWN).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KnownUse {
    /// How often it was made in ARP.
    pub hits: u64,
    /// When it was last made in ARP, in nanoseconds since boot (`CLOCK_BOOTTIME`); 0 if never.
    pub last_arp: u64,
    /// The epoch in [`EDITION`](crate::EDITION) when it was last made by an IPv4 packet; 0 if never.
    pub epoch: u32,
    reserved: u32,
}

/// As of when something is known: the value of [`EDITION`](crate::EDITION). What was looked up in [`KNOWN`](crate::KNOWN) under
/// an edition holds for as long as that is the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Edition {
    /// A number that the agent counts up, never 0. What is made by an IPv4 packet bears it instead of the time, which it
    /// would take longer to ask for.
    pub epoch: u32,
    /// How often a claim was removed from what is known.
    pub removals: u32,
}

/// A claim that was known when it was last made, by IPv4, on this CPU: one of [`RECENT_SLOTS`](crate::RECENT_SLOTS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Recent {
    claim: [u64; 2],
    edition: u64,
}

/// An address that has a known owner: the key of [`OWNERS`](crate::OWNERS). Its value is the owner's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OwnedKey {
    /// The bridge's interface index.
    pub bridge: u32,
    /// The address.
    pub address: [u8; 4],
    /// The id in the outermost tag; 0 if there is none.
    pub tag: u16,
    reserved: u16,
}

/// An address that an interface is to say nothing of: the key of [`QUARANTINE`](crate::QUARANTINE). Its value counts the
/// frames that were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QuarantineKey {
    /// The interface that it is claimed at, in native byte order.
    pub ifindex: u32,
    /// The address.
    pub address: [u8; 4],
    /// The id in the outermost tag, in native byte order; 0 if there is none.
    pub tag: u16,
    reserved: u16,
}

/// What the tap has for one interface and CPU: the value of [`PORTS`](crate::PORTS) and of [`PORT_SLOTS`](crate::PORT_SLOTS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TappedPort {
    /// What was counted.
    pub counters: TapCounters,
    /// The tokens for whatever is new.
    pub news: Bucket,
    /// The tokens for what contradicts a known owner, taken when there are none of the others.
    pub contradictions: Bucket,
    /// The bridge that it belongs to.
    pub bridge: u32,
    /// The interface itself.
    pub ifindex: u32,
}

/// What follows one another, far apart from each other in the upper bits (Knuth, The Art of Computer Programming, volume 3,
/// section 6.4: multiplicative hashing by the golden ratio).
#[inline(always)]
const fn strewn(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1)
}

impl KnownKey {
    /// What `claim`, heard at this interface, may be known as.
    #[inline(always)]
    #[must_use]
    pub const fn new(ifindex: u32, claim: &Claim) -> Self {
        Self { ifindex, address: claim.address, tag: claim.tag, mac: claim.mac }
    }

    /// As the map has it.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; size_of::<Self>()] {
        zerocopy::transmute!(self)
    }

    /// What the map has.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Self {
        zerocopy::transmute!(bytes)
    }
}

impl Edition {
    /// The edition of this number.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        zerocopy::transmute!(word)
    }

    /// The edition as a number, as the map has it.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        zerocopy::transmute!(self)
    }
}

impl Recent {
    /// That the claim is known as of `edition`.
    #[inline(always)]
    #[must_use]
    pub const fn new(claim: KnownKey, edition: Edition) -> Self {
        Self { claim: zerocopy::transmute!(claim), edition: edition.to_word() }
    }

    /// Where among the [`RECENT_SLOTS`] the claim is put down.
    #[inline(always)]
    #[must_use]
    pub const fn slot(claim: KnownKey) -> u32 {
        // Interfaces and addresses are often counted up in step.
        let address = u32::from_be_bytes(claim.address).wrapping_mul(0x85eb_ca77);
        strewn(claim.ifindex).wrapping_add(address) >> (u32::BITS - RECENT_SLOTS.trailing_zeros())
    }
}

impl KnownUse {
    /// How many `u64` it consists of.
    pub const WORDS: usize = size_of::<Self>() / size_of::<u64>();

    /// What the map has.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        zerocopy::transmute!(words)
    }
}

impl OwnedKey {
    /// `address` on `bridge`, with this tag.
    #[inline(always)]
    #[must_use]
    pub const fn new(bridge: u32, tag: u16, address: [u8; 4]) -> Self {
        Self { bridge, address, tag, reserved: 0 }
    }

    /// As the map has it.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; size_of::<Self>()] {
        zerocopy::transmute!(self)
    }
}

impl QuarantineKey {
    /// `address`, claimed with this tag at this interface.
    #[inline(always)]
    #[must_use]
    pub const fn new(ifindex: u32, tag: u16, address: [u8; 4]) -> Self {
        Self { ifindex, address, tag, reserved: 0 }
    }

    /// As the map has it.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; size_of::<Self>()] {
        zerocopy::transmute!(self)
    }

    /// What the map has.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Self {
        zerocopy::transmute!(bytes)
    }
}

impl TappedPort {
    /// How many `u64` it consists of.
    pub const WORDS: usize = size_of::<Self>() / size_of::<u64>();

    /// A port of `bridge`, or the bridge itself, of which nothing is counted yet.
    #[must_use]
    pub fn new(ifindex: u32, bridge: u32) -> Self {
        Self { bridge, ifindex, ..Self::default() }
    }

    /// Where in [`PORT_SLOTS`](crate::PORT_SLOTS) an interface is, if that is free.
    #[inline(always)]
    #[must_use]
    pub const fn slot(ifindex: u32) -> u32 {
        strewn(ifindex) >> (u32::BITS - MAX_SLOTS.trailing_zeros())
    }

    /// As the map has it.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        zerocopy::transmute!(self)
    }

    /// What the map has.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        zerocopy::transmute!(words)
    }
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;
    use crate::Kind;

    #[test]
    fn the_layout_is_what_both_sides_were_built_for() {
        assert_eq!([size_of::<KnownKey>(), size_of::<KnownUse>(), size_of::<OwnedKey>()], [16, 24, 12]);
        assert_eq!([offset_of!(KnownKey, address), offset_of!(KnownKey, tag), offset_of!(KnownKey, mac)], [4, 8, 10]);
        assert_eq!([offset_of!(KnownUse, last_arp), offset_of!(KnownUse, epoch)], [8, 16]);
        assert_eq!((size_of::<Edition>(), size_of::<Recent>(), align_of::<Recent>()), (8, 24, 8));
        assert_eq!([offset_of!(OwnedKey, address), offset_of!(OwnedKey, tag)], [4, 8]);
        assert_eq!((size_of::<QuarantineKey>(), align_of::<QuarantineKey>()), (12, 4));
        assert_eq!([offset_of!(QuarantineKey, address), offset_of!(QuarantineKey, tag)], [4, 8]);
        assert_eq!(size_of::<TappedPort>(), size_of::<TapCounters>() + 24);
        assert_eq!(offset_of!(TappedPort, counters), 0);
    }

    #[test]
    fn keys_and_values_come_out_as_they_went_in() {
        let mac = [2, 0, 0, 0, 0, 1];
        let claim = Claim { kind: Kind::Reply, tag: 12, ether_source: mac, mac, address: [10, 8, 64, 2] };
        let key = KnownKey::new(70_000, &claim);
        assert_eq!(key, KnownKey { ifindex: 70_000, address: [10, 8, 64, 2], tag: 12, mac });
        assert_eq!(KnownKey::from_bytes(key.to_bytes()), key);
        assert_eq!(KnownUse::from_words([3, 4, 0]), KnownUse { hits: 3, last_arp: 4, epoch: 0, reserved: 0 });
        assert_eq!(TappedPort::from_words(TappedPort::new(8, 9).to_words()), TappedPort::new(8, 9));
        assert_eq!(OwnedKey::new(9, 12, [10, 8, 64, 2]).to_bytes()[4..8], [10, 8, 64, 2]);
        let key = QuarantineKey::new(70_000, 12, [10, 8, 64, 2]);
        assert_eq!((key.ifindex, key.tag, key.address), (70_000, 12, [10, 8, 64, 2]));
        assert_eq!(QuarantineKey::from_bytes(key.to_bytes()), key);
        assert_eq!(key.to_bytes()[10..], [0, 0], "nothing that would make two keys of one");
    }

    const fn known(ifindex: u32, last: u8) -> KnownKey {
        KnownKey { ifindex, address: [10, 8, 64, last], tag: 0, mac: [2, 0, 0, 0, 0, last] }
    }

    #[test]
    fn what_was_known_is_known_no_more_once_anything_is_removed_or_an_epoch_is_over() {
        let edition = Edition { epoch: 7, removals: 3 };
        assert_eq!(Edition::from_word(edition.to_word()), edition);
        let recent = Recent::new(known(5, 2), edition);
        assert_eq!(recent, Recent::new(known(5, 2), edition));
        for edition in [Edition { epoch: 8, ..edition }, Edition { removals: 4, ..edition }] {
            assert_ne!(recent, Recent::new(known(5, 2), edition));
        }
        assert!(recent != Recent::new(known(6, 2), edition) && recent != Recent::new(known(5, 3), edition));
    }

    #[test]
    fn those_that_speak_at_one_time_seldom_share_a_slot() {
        let slots = (0..250).map(|n| Recent::slot(known(300 + 2 * u32::from(n), n)));
        let taken: std::collections::BTreeSet<_> = slots.inspect(|slot| assert!(*slot < RECENT_SLOTS)).collect();
        assert!(taken.len() > 200, "{} slots for 250", taken.len());
    }

    #[test]
    fn ports_that_came_one_after_the_other_seldom_share_a_slot() {
        let taken: std::collections::BTreeSet<_> = (1000..1250).map(TappedPort::slot).collect();
        assert!(taken.len() > 200 && taken.iter().all(|slot| *slot < MAX_SLOTS));
    }
}

//! What the tap reports.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    byteorder::{NativeEndian, U16, U32, U64},
};

use crate::{Claim, Kind};

/// When and where a frame was tapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tapped {
    /// Nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub nanos: u64,
    /// The interface that the tap sits on: a bridge port, or the bridge device itself.
    pub ifindex: u32,
}

/// One claim, as it goes through the ring buffer: 32 bytes without padding, so that nothing else of the kernel's stack
/// goes with it. Numbers are in native byte order, fields of the frame in the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ClaimEvent {
    nanos: U64<NativeEndian>,
    ifindex: U32<NativeEndian>,
    tag: U16<NativeEndian>,
    kind: U16<NativeEndian>,
    ether_source: [u8; 6],
    mac: [u8; 6],
    address: [u8; 4],
}

impl ClaimEvent {
    /// The record of `claim`.
    #[inline(always)]
    #[must_use]
    pub fn new(tapped: Tapped, claim: &Claim) -> Self {
        Self {
            nanos: U64::new(tapped.nanos),
            ifindex: U32::new(tapped.ifindex),
            tag: U16::new(claim.tag),
            kind: U16::new(claim.kind as u16),
            ether_source: claim.ether_source,
            mac: claim.mac,
            address: claim.address,
        }
    }

    /// The record in `bytes`; `None` if it has another size than the one this was built for.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::read_from_bytes(bytes).ok()
    }

    /// When and where the frame was tapped.
    #[must_use]
    pub const fn tapped(&self) -> Tapped {
        Tapped { nanos: self.nanos.get(), ifindex: self.ifindex.get() }
    }

    /// What it shows; `None` if it is of a kind that the tap of this version does not report.
    #[must_use]
    pub fn claim(&self) -> Option<Claim> {
        Some(Claim {
            kind: Kind::new(self.kind.get())?,
            tag: self.tag.get(),
            ether_source: self.ether_source,
            mac: self.mac,
            address: self.address,
        })
    }
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use proptest::prelude::*;

    use super::*;

    const CLAIM: Claim = Claim {
        kind: Kind::Reply,
        tag: 12,
        ether_source: [2, 0, 0, 0, 0, 1],
        mac: [2, 0, 0, 0, 0, 2],
        address: [10, 8, 64, 2],
    };

    #[test]
    fn the_layout_is_what_both_sides_were_built_for() {
        assert_eq!(size_of::<ClaimEvent>(), 32);
        assert_eq!(
            [
                offset_of!(ClaimEvent, nanos),
                offset_of!(ClaimEvent, ifindex),
                offset_of!(ClaimEvent, tag),
                offset_of!(ClaimEvent, kind),
                offset_of!(ClaimEvent, ether_source),
                offset_of!(ClaimEvent, mac),
                offset_of!(ClaimEvent, address),
            ],
            [0, 8, 12, 14, 16, 22, 28]
        );
    }

    #[test]
    fn a_record_comes_out_as_it_went_in() {
        let tapped = Tapped { nanos: 1 << 40, ifindex: 70_000 };
        for kind in [Kind::Reply, Kind::Probe, Kind::Ipv4] {
            let claim = Claim { kind, ..CLAIM };
            let event = ClaimEvent::from_bytes(ClaimEvent::new(tapped, &claim).as_bytes()).unwrap();
            assert_eq!((event.tapped(), event.claim()), (tapped, Some(claim)));
        }
    }

    #[test]
    fn a_kind_of_another_version_is_not_taken_for_one_of_ours() {
        let mut event = ClaimEvent::new(Tapped { nanos: 0, ifindex: 1 }, &CLAIM);
        event.kind = U16::new(7);
        assert_eq!(event.claim(), None);
    }

    proptest! {
        #[test]
        fn bytes_are_a_record_only_if_they_are_as_many(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            let event = ClaimEvent::from_bytes(&bytes);
            prop_assert_eq!(event.is_some(), bytes.len() == 32);
            let kind = bytes.get(14..16).map_or(0, |field| u16::from_ne_bytes([field[0], field[1]]));
            prop_assert_eq!(event.and_then(|event| event.claim()).is_some(), event.is_some() && matches!(kind, 1..=6));
        }
    }
}

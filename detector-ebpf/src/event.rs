//! What the tap reports.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    byteorder::{NativeEndian, NetworkEndian, U16, U32, U64},
};

use crate::{Arp, Operation};

/// When and where a frame was tapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tapped {
    /// Nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub nanos: u64,
    /// The interface that the tap sits on: a bridge port, or the bridge device itself.
    pub ifindex: u32,
}

/// One ARP frame, as it goes through the ring buffer: 48 bytes without padding, so that nothing else of the kernel's stack
/// goes with it. Numbers of the kernel are in native byte order, fields of the frame in the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ArpEvent {
    nanos: U64<NativeEndian>,
    ifindex: U32<NativeEndian>,
    vlan: U16<NativeEndian>,
    operation: U16<NetworkEndian>,
    ether_destination: [u8; 6],
    ether_source: [u8; 6],
    sender_mac: [u8; 6],
    sender: [u8; 4],
    target_mac: [u8; 6],
    target: [u8; 4],
}

impl ArpEvent {
    /// The record of `arp`.
    #[inline(always)]
    #[must_use]
    pub fn new(tapped: Tapped, arp: &Arp) -> Self {
        Self {
            nanos: U64::new(tapped.nanos),
            ifindex: U32::new(tapped.ifindex),
            vlan: U16::new(arp.vlan),
            operation: U16::new(arp.operation as u16),
            ether_destination: arp.ether_destination,
            ether_source: arp.ether_source,
            sender_mac: arp.sender_mac,
            sender: arp.sender,
            target_mac: arp.target_mac,
            target: arp.target,
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

    /// The frame; `None` if its operation is neither request nor reply, which the tap of this version never reports.
    #[must_use]
    pub fn arp(&self) -> Option<Arp> {
        Some(Arp {
            vlan: self.vlan.get(),
            ether_destination: self.ether_destination,
            ether_source: self.ether_source,
            operation: Operation::new(self.operation.get())?,
            sender_mac: self.sender_mac,
            sender: self.sender,
            target_mac: self.target_mac,
            target: self.target,
        })
    }
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use proptest::prelude::*;

    use super::*;

    const ARP: Arp = Arp {
        vlan: 12,
        ether_destination: [0xff; 6],
        ether_source: [2, 0, 0, 0, 0, 1],
        operation: Operation::Reply,
        sender_mac: [2, 0, 0, 0, 0, 2],
        sender: [10, 8, 64, 2],
        target_mac: [2, 0, 0, 0, 0, 3],
        target: [10, 8, 64, 1],
    };

    #[test]
    fn the_layout_is_what_both_sides_were_built_for() {
        assert_eq!(size_of::<ArpEvent>(), 48);
        assert_eq!(
            [
                offset_of!(ArpEvent, nanos),
                offset_of!(ArpEvent, ifindex),
                offset_of!(ArpEvent, vlan),
                offset_of!(ArpEvent, operation),
                offset_of!(ArpEvent, ether_destination),
                offset_of!(ArpEvent, ether_source),
                offset_of!(ArpEvent, sender_mac),
                offset_of!(ArpEvent, sender),
                offset_of!(ArpEvent, target_mac),
                offset_of!(ArpEvent, target),
            ],
            [0, 8, 12, 14, 16, 22, 28, 34, 38, 44]
        );
    }

    #[test]
    fn a_record_comes_out_as_it_went_in() {
        let tapped = Tapped { nanos: 1 << 40, ifindex: 70_000 };
        let event = ArpEvent::from_bytes(ArpEvent::new(tapped, &ARP).as_bytes()).unwrap();
        assert_eq!((event.tapped(), event.arp()), (tapped, Some(ARP)));
        assert_eq!(event.as_bytes()[14..16], [0, 2]);
    }

    #[test]
    fn an_operation_of_another_version_is_not_taken_for_one_of_ours() {
        let mut event = ArpEvent::new(Tapped { nanos: 0, ifindex: 1 }, &ARP);
        event.operation = U16::new(3);
        assert_eq!(event.arp(), None);
    }

    proptest! {
        #[test]
        fn bytes_are_a_record_only_if_they_are_as_many(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let event = ArpEvent::from_bytes(&bytes);
            prop_assert_eq!(event.is_some(), bytes.len() == 48);
            let operation = bytes.get(14..16).map_or(0, |field| u16::from_be_bytes([field[0], field[1]]));
            prop_assert_eq!(event.and_then(|event| event.arp()).is_some(), event.is_some() && matches!(operation, 1 | 2));
        }
    }
}

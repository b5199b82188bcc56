//! From the ring buffer to claims.

use std::{io, net::Ipv4Addr};

use aya::maps::{MapData, RingBuf};
use detector_ebpf::{Arp, ArpEvent};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    engine::{Claim, Evidence},
    net::{ArpPacket, ClaimKind, IfIndex, Mac, Operation, VlanId},
    time::Timestamp,
};

/// What the tap heard and nobody has read yet.
///
/// Linked to the [`Tap`](super::Tap) that it came with: after that is dropped, nothing more arrives.
pub struct Claims {
    ring: AsyncFd<RingBuf<MapData>>,
    unreadable: u64,
}

impl Claims {
    /// The most claims that one batch has, so that a flood on one port cannot keep the agent from everything else.
    pub const BATCH: usize = 256;

    #[expect(unsafe_code, reason = "tokio has to be told that the file descriptor stays the same")]
    pub(super) fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring buffer owns the map's file descriptor, keeps it open and never replaces it.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
        Ok(Self { ring, unreadable: 0 })
    }

    /// The next claims: at least one, at most [`BATCH`](Self::BATCH). Waits until there are some.
    ///
    /// Cancel safe: a call that is dropped before it is done has taken nothing out of the ring.
    ///
    /// # Errors
    /// The runtime can no longer wait for the ring buffer.
    pub async fn next_batch(&mut self) -> io::Result<Vec<Claim>> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let batch = drain(ready.get_inner_mut());
            // Only an empty ring wakes its reader again.
            if batch.len() < Self::BATCH {
                ready.clear_ready();
            }
            let records = batch.len();
            let claims: Vec<_> = batch.into_iter().flatten().collect();
            self.unreadable += (records - claims.len()) as u64;
            if !claims.is_empty() {
                return Ok(claims);
            }
        }
    }

    /// Records so far that this version cannot read. Anything but 0 is a fault of dupip.
    #[must_use]
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// At most a batch of records; `None` for each that cannot be read.
fn drain(ring: &mut RingBuf<MapData>) -> Vec<Option<Claim>> {
    std::iter::from_fn(|| ring.next().map(|record| captured(&record))).take(Claims::BATCH).collect()
}

fn captured(record: &[u8]) -> Option<Claim> {
    let event = ArpEvent::from_bytes(record)?;
    let (tapped, arp) = (event.tapped(), event.arp()?);
    let packet = packet(&arp);
    let kind = packet.kind();
    Some(Claim {
        at: Timestamp::from_nanos(tapped.nanos),
        port: IfIndex::new(tapped.ifindex)?,
        tag: VlanId::new(arp.vlan),
        ether_source: Mac(arp.ether_source),
        mac: packet.sender_mac,
        address: if kind == ClaimKind::Probe { packet.target } else { packet.sender },
        evidence: Evidence::Arp(kind),
    })
}

fn packet(arp: &Arp) -> ArpPacket {
    ArpPacket {
        operation: match arp.operation {
            detector_ebpf::Operation::Request => Operation::Request,
            detector_ebpf::Operation::Reply => Operation::Reply,
        },
        sender_mac: Mac(arp.sender_mac),
        sender: Ipv4Addr::from(arp.sender),
        target_mac: Mac(arp.target_mac),
        target: Ipv4Addr::from(arp.target),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[rustfmt::skip]
    const REPLY: [u8; 34] = [
        0, 2,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1,
        2, 0, 0, 0, 0, 2, 10, 8, 64, 2,
        2, 0, 0, 0, 0, 3, 10, 8, 64, 1,
    ];

    fn record(port: u32, vlan: u16, rest: &[u8]) -> Vec<u8> {
        [&7_u64.to_ne_bytes()[..], &port.to_ne_bytes(), &vlan.to_ne_bytes(), rest].concat()
    }

    #[test]
    fn each_field_of_a_record_finds_its_place() {
        let claim = captured(&record(9, 12, &REPLY)).unwrap();
        assert_eq!((claim.at.as_nanos(), claim.port.get(), claim.tag), (7, 9, VlanId::new(12)));
        assert_eq!(claim.ether_source, Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!((claim.evidence, claim.mac), (Evidence::Arp(ClaimKind::Reply), Mac([2, 0, 0, 0, 0, 2])));
        assert_eq!(claim.address, Ipv4Addr::new(10, 8, 64, 2));
    }

    #[test]
    fn a_record_of_another_version_is_not_read() {
        let operation = |number: [u8; 2]| captured(&record(9, 12, &[&number, &REPLY[2..]].concat()));
        assert_eq!([operation([0, 3]), operation([1, 2])], [None; 2]);
        let longer = [&REPLY[..], &[0; 8]].concat();
        assert_eq!([&REPLY[..33], &longer, &[]].map(|rest| captured(&record(9, 12, rest))), [None; 3]);
        assert_eq!(captured(&record(0, 12, &REPLY)), None, "there is no interface 0");
        assert_eq!([0, 4095, 0xffff].map(|vlan| captured(&record(9, vlan, &REPLY)).unwrap().tag), [None; 3]);
    }

    proptest! {
        #[test]
        fn any_record_is_read_without_a_panic(record in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(captured(&record).is_none() || record.len() == 48);
        }
    }
}

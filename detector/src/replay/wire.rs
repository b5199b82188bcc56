//! From recorded bytes to what the tap would have reported: by its own parser.

use std::{cell::Cell, net::Ipv4Addr};

use detector_ebpf::{Arp, Frame, Malformed, Operation as Code, Report, read_frame};

use super::link::Head;
use crate::{
    engine::{Claim, Evidence},
    net::{ArpPacket, ClaimKind, IfIndex, Mac, Operation, VlanId},
    time::Timestamp,
};

/// What a frame is to the tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Nothing that it looks at.
    Other,
    /// Something that says it is ARP, and is not.
    Malformed(Malformed),
    /// A claim.
    Claim(Arp),
}

/// What the tap's parser makes of a frame.
pub(super) fn read(head: &Head) -> Read {
    let told = Told(Cell::new(Read::Other));
    read_frame(head, &told);
    told.0.get()
}

/// What `arp` claims, seen at `port`.
pub(super) fn claim(arp: &Arp, at: Timestamp, port: IfIndex) -> Claim {
    let packet = ArpPacket {
        operation: match arp.operation {
            Code::Request => Operation::Request,
            Code::Reply => Operation::Reply,
        },
        sender_mac: Mac(arp.sender_mac),
        sender: Ipv4Addr::from(arp.sender),
        target_mac: Mac(arp.target_mac),
        target: Ipv4Addr::from(arp.target),
    };
    let kind = packet.kind();
    Claim {
        at,
        port,
        tag: VlanId::new(arp.vlan),
        ether_source: Mac(arp.ether_source),
        mac: packet.sender_mac,
        address: if kind == ClaimKind::Probe { packet.target } else { packet.sender },
        evidence: Evidence::Arp(kind),
    }
}

impl Frame for Head {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes().get(offset..)?.first_chunk().copied()
    }

    /// A capture has tags where they were on the wire.
    fn taken_tag(&self) -> Option<u16> {
        None
    }
}

struct Told(Cell<Read>);

impl Report for Told {
    fn claim(&self, arp: &Arp) {
        self.0.set(Read::Claim(*arp));
    }

    fn malformed(&self, reason: Malformed) {
        self.0.set(Read::Malformed(reason));
    }
}

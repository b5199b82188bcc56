//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227), as values.

use std::{fmt, net::Ipv4Addr};

use super::{Mac, VlanId};

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
/// Hardware type Ethernet, protocol type IPv4, hardware length 6, protocol length 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// The operation field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Who has the target address? (1)
    Request,
    /// I have the sender address. (2)
    Reply,
}

/// An ARP packet. The fields are those of RFC 826, addresses in wire order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArpPacket {
    /// `ar$op`.
    pub operation: Operation,
    /// `ar$sha`.
    pub sender_mac: Mac,
    /// `ar$spa`: what the sender claims.
    pub sender: Ipv4Addr,
    /// `ar$tha`.
    pub target_mac: Mac,
    /// `ar$tpa`.
    pub target: Ipv4Addr,
}

/// The forms in which an address shows up in ARP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimKind {
    /// A request for another's address; the sender field is a claim.
    Request,
    /// A reply, to whomever.
    Reply,
    /// A request for the sender's own address: an announcement (RFC 5227, section 2.3).
    GratuitousRequest,
    /// A reply whose target is its sender.
    GratuitousReply,
    /// A request from 0.0.0.0: asks whether the target is in use and claims nothing (RFC 5227, section 2.1.1).
    Probe,
}

impl ArpPacket {
    /// Asks who has `target` without claiming anything.
    #[must_use]
    pub const fn probe(sender_mac: Mac, target: Ipv4Addr) -> Self {
        Self { operation: Operation::Request, sender_mac, sender: Ipv4Addr::UNSPECIFIED, target_mac: Mac::ZERO, target }
    }

    /// Tells everybody that `mac` has `address`.
    ///
    /// A reply, not a request: to a request the owner itself would answer. Linux takes a gratuitous reply at once, over
    /// what it cached before, only if both hardware addresses are the same (`arp_is_garp` in `net/ipv4/arp.c`).
    #[must_use]
    pub const fn announcement(mac: Mac, address: Ipv4Addr) -> Self {
        Self { operation: Operation::Reply, sender_mac: mac, sender: address, target_mac: mac, target: address }
    }

    /// The ARP packet in an untagged Ethernet frame, from its destination address on; `None` if it is anything else.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (ethertype, rest) = frame.get(12..)?.split_first_chunk()?;
        let (types, rest) = rest.split_first_chunk()?;
        let (operation, rest) = rest.split_first_chunk()?;
        let (sender_mac, rest) = rest.split_first_chunk()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk()?;
        let target = rest.first_chunk::<4>()?;
        let operation = match u16::from_be_bytes(*operation) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        let (sender_mac, target_mac) = (Mac(*sender_mac), Mac(*target_mac));
        (*ethertype == ETHERTYPE_ARP && *types == ETHERNET_IPV4).then_some(Self {
            operation,
            sender_mac,
            sender: (*sender).into(),
            target_mac,
            target: (*target).into(),
        })
    }

    /// The form this packet has.
    #[must_use]
    pub fn kind(&self) -> ClaimKind {
        match self.operation {
            Operation::Request if self.sender.is_unspecified() => ClaimKind::Probe,
            Operation::Request if self.sender == self.target => ClaimKind::GratuitousRequest,
            Operation::Request => ClaimKind::Request,
            Operation::Reply if self.sender == self.target => ClaimKind::GratuitousReply,
            Operation::Reply => ClaimKind::Reply,
        }
    }

    /// The broadcast frame that carries this packet, from `sender_mac`, with an 802.1Q tag if it goes to a VLAN.
    #[must_use]
    pub fn broadcast_frame(&self, vlan: Option<VlanId>) -> Vec<u8> {
        self.frame_to(Mac::BROADCAST, vlan)
    }

    /// The frame that carries this packet to one station.
    #[must_use]
    pub fn frame_to(&self, destination: Mac, vlan: Option<VlanId>) -> Vec<u8> {
        let operation = match self.operation {
            Operation::Request => [0, 1],
            Operation::Reply => [0, 2],
        };
        let tag = vlan.map(|vlan| [ETHERTYPE_VLAN, vlan.get().to_be_bytes()].concat());
        let parts: [&[u8]; 10] = [
            &destination.0,
            &self.sender_mac.0,
            tag.as_deref().unwrap_or_default(),
            &ETHERTYPE_ARP,
            &ETHERNET_IPV4,
            &operation,
            &self.sender_mac.0,
            &self.sender.octets(),
            &self.target_mac.0,
            &self.target.octets(),
        ];
        parts.concat()
    }
}

impl ClaimKind {
    /// Every kind, for whoever counts them.
    pub const ALL: [Self; 5] =
        [Self::Request, Self::Reply, Self::GratuitousRequest, Self::GratuitousReply, Self::Probe];

    /// The kind in one word, as metrics and JSON spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Reply => "reply",
            Self::GratuitousRequest => "gratuitous_request",
            Self::GratuitousReply => "gratuitous_reply",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for ClaimKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use pnet::packet::{Packet as _, arp, ethernet};

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);

    #[test]
    fn a_frame_reads_the_same_to_another_library() {
        let bytes = ArpPacket::announcement(MAC, ADDRESS).broadcast_frame(None);
        let frame = ethernet::EthernetPacket::new(&bytes).unwrap();
        assert_eq!((frame.get_destination().octets(), frame.get_source().octets()), (Mac::BROADCAST.0, MAC.0));
        assert_eq!(frame.get_ethertype(), ethernet::EtherTypes::Arp);
        let packet = arp::ArpPacket::new(frame.payload()).unwrap();
        assert_eq!(packet.get_operation(), arp::ArpOperations::Reply);
        assert_eq!((packet.get_hw_addr_len(), packet.get_proto_addr_len()), (6, 4));
        assert_eq!((packet.get_sender_proto_addr(), packet.get_target_proto_addr()), (ADDRESS, ADDRESS));
        assert_eq!((packet.get_sender_hw_addr().octets(), packet.get_target_hw_addr().octets()), (MAC.0, MAC.0));
    }

    #[test]
    fn a_frame_reads_as_what_it_was_made_from_or_not_at_all() {
        for packet in [ArpPacket::announcement(MAC, ADDRESS), ArpPacket::probe(MAC, ADDRESS)] {
            let frame = packet.broadcast_frame(None);
            assert_eq!(ArpPacket::parse(&frame), Some(packet));
            assert_eq!(ArpPacket::parse(&[&frame[..], &[0; 18]].concat()), Some(packet), "padded to 60 bytes");
            assert!((0..frame.len()).all(|len| ArpPacket::parse(&frame[..len]).is_none()));
            for at in [12, 13, 14, 15, 16, 17, 18, 19, 20] {
                let mut other = frame.clone();
                other[at] ^= 0x40;
                assert_eq!(ArpPacket::parse(&other), None, "byte {at}");
            }
        }
        assert_eq!(ArpPacket::parse(&ArpPacket::probe(MAC, ADDRESS).broadcast_frame(VlanId::new(7))), None);
    }

    #[test]
    fn a_tag_stands_between_source_and_type() {
        let packet = ArpPacket::probe(MAC, ADDRESS);
        let (plain, tagged) = (packet.broadcast_frame(None), packet.broadcast_frame(VlanId::new(12)));
        assert_eq!((plain.len(), &tagged[12..16]), (14 + 28, [0x81, 0, 0, 12].as_slice()));
        assert_eq!([&tagged[..12], &tagged[16..]].concat(), plain);
    }

    #[test]
    fn the_kind_follows_from_sender_target_and_operation() {
        let packet = |operation, sender: [u8; 4], target: [u8; 4]| ArpPacket {
            operation,
            sender_mac: MAC,
            sender: sender.into(),
            target_mac: Mac::ZERO,
            target: target.into(),
        };
        let (mine, yours, none) = ([10, 8, 64, 2], [10, 8, 64, 1], [0; 4]);
        assert_eq!(packet(Operation::Request, mine, yours).kind(), ClaimKind::Request);
        assert_eq!(packet(Operation::Request, mine, mine).kind(), ClaimKind::GratuitousRequest);
        assert_eq!(packet(Operation::Request, none, mine).kind(), ClaimKind::Probe);
        assert_eq!(packet(Operation::Reply, mine, yours).kind(), ClaimKind::Reply);
        assert_eq!(packet(Operation::Reply, mine, mine).kind(), ClaimKind::GratuitousReply);
        assert_eq!(packet(Operation::Reply, mine, none).kind(), ClaimKind::Reply);
    }
}

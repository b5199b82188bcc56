//! How the tap reads a frame: Ethernet, up to two VLAN tags, ARP for IPv4 over Ethernet (RFC 826).

use zerocopy::{
    FromBytes, Immutable,
    byteorder::{NetworkEndian, U16},
};

/// `ETH_P_ARP` (`include/uapi/linux/if_ether.h`).
const ARP: u16 = 0x0806;
/// `ETH_P_8021Q`: a customer's VLAN tag, or the only one.
const VLAN: u16 = 0x8100;
/// `ETH_P_8021AD`: a provider's VLAN tag.
const PROVIDER_VLAN: u16 = 0x88a8;
/// `ARPHRD_ETHER` (`include/uapi/linux/if_arp.h`).
const ETHERNET: u16 = 1;
/// `ETH_P_IP`.
const IPV4: u16 = 0x0800;
/// Where the EtherType stands: after destination and source.
const ETHERTYPE_OFFSET: usize = 12;
/// Where the packet begins if there is no tag.
const UNTAGGED_PACKET_OFFSET: usize = 14;
/// A customer's tag within a provider's (IEEE 802.1ad).
const MAX_TAGS: usize = 2;
/// A tag is a type and a tag control word.
const TAG_LEN: usize = 4;
/// The low twelve bits of the tag control word; above them stand priority and drop eligibility.
const VLAN_ID: u16 = 0x0fff;

/// An Ethernet frame, from its destination address on.
pub trait Frame {
    /// The `N` bytes at `offset`; `None` if the frame ends before them.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The control word of the outermost VLAN tag, in native byte order, if the kernel has taken that out of the frame and
    /// keeps it beside (`vlan_tci` of `struct __sk_buff`).
    fn taken_tag(&self) -> Option<u16>;
}

/// Who learns what a frame is.
pub trait Report {
    /// It is ARP for IPv4 over Ethernet.
    fn claim(&self, arp: &Arp);

    /// It says that it is ARP, and is none for IPv4 over Ethernet.
    fn malformed(&self, reason: Malformed);
}

/// The operation field, `ar$op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    /// Who has the target address?
    Request = 1,
    /// I have the sender address.
    Reply = 2,
}

/// An ARP frame. Addresses are in the wire's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// The id in the outermost VLAN tag, in native byte order; 0 if there is none, or only a priority.
    pub vlan: u16,
    /// Whom the frame is for.
    pub ether_destination: [u8; 6],
    /// Who sent the frame, by its own word.
    pub ether_source: [u8; 6],
    /// `ar$op`.
    pub operation: Operation,
    /// `ar$sha`.
    pub sender_mac: [u8; 6],
    /// `ar$spa`.
    pub sender: [u8; 4],
    /// `ar$tha`.
    pub target_mac: [u8; 6],
    /// `ar$tpa`.
    pub target: [u8; 4],
}

/// Why a frame of EtherType ARP is none that IPv4 over Ethernet knows. The first that applies, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Malformed {
    /// Fewer than the 28 bytes of the packet.
    Short,
    /// `ar$hrd` is not Ethernet (1).
    HardwareType,
    /// `ar$pro` is not IPv4 (0x0800).
    ProtocolType,
    /// `ar$hln` is not 6.
    HardwareLength,
    /// `ar$pln` is not 4.
    ProtocolLength,
    /// `ar$op` is neither request nor reply.
    Operation,
}

impl Operation {
    /// The operation with this number.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Request),
            2 => Some(Self::Reply),
            _ => None,
        }
    }
}

impl Malformed {
    /// Every reason, each at its own [`index`](Self::index).
    pub const ALL: [Self; 6] = [
        Self::Short,
        Self::HardwareType,
        Self::ProtocolType,
        Self::HardwareLength,
        Self::ProtocolLength,
        Self::Operation,
    ];

    /// Where the reason is counted in [`TapCounters`](crate::TapCounters).
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason in one word, as metrics and JSON spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::HardwareType => "hardware_type",
            Self::ProtocolType => "protocol_type",
            Self::HardwareLength => "hardware_length",
            Self::ProtocolLength => "protocol_length",
            Self::Operation => "operation",
        }
    }
}

/// Whether a frame whose EtherType the kernel has as `ethertype` (native byte order) can be ARP, tagged or not.
#[inline(always)]
#[must_use]
pub const fn may_carry_arp(ethertype: u16) -> bool {
    matches!(ethertype, ARP | VLAN | PROVIDER_VLAN)
}

/// Reads `frame` and tells `report` what it is, if it is ARP.
///
/// Whatever is found out is passed on at once, and nothing is returned: the verifier of kernels before 6.3 refuses
/// programs in which the compiler moves a value around that only one of several outcomes has.
#[inline(always)]
pub fn read_frame(frame: &impl Frame, report: &impl Report) {
    let Some(offset) = packet_offset(frame) else {
        return;
    };
    let Some(addresses) = frame.bytes(0) else {
        return;
    };
    let Some(packet) = Packet::at(frame, offset) else {
        return report.malformed(Malformed::Short);
    };
    match packet.operation() {
        Ok(operation) => report.claim(&packet.claim(vlan(frame, offset), addresses, operation)),
        Err(reason) => report.malformed(reason),
    }
}

/// The id in the outermost tag.
#[inline(always)]
fn vlan(frame: &impl Frame, packet_offset: usize) -> u16 {
    let control_word = match frame.taken_tag() {
        Some(taken) => taken,
        None if packet_offset == UNTAGGED_PACKET_OFFSET => 0,
        None => number_at(frame, UNTAGGED_PACKET_OFFSET).unwrap_or(0),
    };
    control_word & VLAN_ID
}

/// Where the ARP packet begins, behind at most [`MAX_TAGS`] tags.
#[inline(always)]
fn packet_offset(frame: &impl Frame) -> Option<usize> {
    let mut offset = ETHERTYPE_OFFSET;
    while offset <= ETHERTYPE_OFFSET + MAX_TAGS * TAG_LEN {
        match number_at(frame, offset)? {
            ARP => return Some(offset + size_of::<u16>()),
            VLAN | PROVIDER_VLAN => offset += TAG_LEN,
            _ => return None,
        }
    }
    None
}

#[inline(always)]
fn number_at(frame: &impl Frame, offset: usize) -> Option<u16> {
    frame.bytes(offset).map(u16::from_be_bytes)
}

/// An ARP packet on the wire, if it is one for IPv4 over Ethernet.
#[derive(FromBytes, Immutable)]
#[repr(C)]
struct Packet {
    hardware_type: U16<NetworkEndian>,
    protocol_type: U16<NetworkEndian>,
    hardware_length: u8,
    protocol_length: u8,
    operation: U16<NetworkEndian>,
    sender_mac: [u8; 6],
    sender: [u8; 4],
    target_mac: [u8; 6],
    target: [u8; 4],
}

impl Packet {
    #[inline(always)]
    fn at(frame: &impl Frame, offset: usize) -> Option<Self> {
        let bytes: [u8; size_of::<Self>()] = frame.bytes(offset)?;
        Some(zerocopy::transmute!(bytes))
    }

    #[inline(always)]
    fn claim(&self, vlan: u16, addresses: [u8; 12], operation: Operation) -> Arp {
        let [ether_destination, ether_source] = zerocopy::transmute!(addresses);
        let Self { sender_mac, sender, target_mac, target, .. } = *self;
        Arp { vlan, ether_destination, ether_source, operation, sender_mac, sender, target_mac, target }
    }

    #[inline(always)]
    fn operation(&self) -> Result<Operation, Malformed> {
        match self {
            _ if self.hardware_type.get() != ETHERNET => Err(Malformed::HardwareType),
            _ if self.protocol_type.get() != IPV4 => Err(Malformed::ProtocolType),
            _ if self.hardware_length != 6 => Err(Malformed::HardwareLength),
            _ if self.protocol_length != 4 => Err(Malformed::ProtocolLength),
            _ => Operation::new(self.operation.get()).ok_or(Malformed::Operation),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    struct Bytes<'a>(&'a [u8], Option<u16>);

    impl Frame for Bytes<'_> {
        fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
            self.0.get(offset..)?.first_chunk().copied()
        }

        fn taken_tag(&self) -> Option<u16> {
            self.1
        }
    }

    #[derive(Default)]
    struct Told(Cell<Option<Result<Arp, Malformed>>>);

    impl Report for Told {
        fn claim(&self, arp: &Arp) {
            assert_eq!(self.0.replace(Some(Ok(*arp))), None);
        }

        fn malformed(&self, reason: Malformed) {
            assert_eq!(self.0.replace(Some(Err(reason))), None);
        }
    }

    fn read(bytes: &[u8], taken: Option<u16>) -> Option<Result<Arp, Malformed>> {
        let told = Told::default();
        read_frame(&Bytes(bytes, taken), &told);
        told.0.get()
    }

    const ADDRESSES: [u8; 12] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1];
    #[rustfmt::skip]
    const REQUEST: [u8; 28] = [
        0, 1, 8, 0, 6, 4, 0, 1,
        2, 0, 0, 0, 0, 2, 10, 8, 64, 2,
        2, 0, 0, 0, 0, 3, 10, 8, 64, 1,
    ];

    fn frame(tags: &[u8], packet: &[u8]) -> Vec<u8> {
        [&ADDRESSES, tags, &[8, 6], packet].concat()
    }

    fn vlan(tags: &[u8], taken: Option<u16>) -> Option<u16> {
        read(&frame(tags, &REQUEST), taken).map(|arp| arp.unwrap().vlan)
    }

    fn verdict(packet: &[u8]) -> Result<Operation, Malformed> {
        read(&frame(&[], packet), None).unwrap().map(|arp| arp.operation)
    }

    #[test]
    fn each_field_comes_from_its_place() {
        let want = Arp {
            vlan: 0,
            ether_destination: [0xff; 6],
            ether_source: [2, 0, 0, 0, 0, 1],
            operation: Operation::Request,
            sender_mac: [2, 0, 0, 0, 0, 2],
            sender: [10, 8, 64, 2],
            target_mac: [2, 0, 0, 0, 0, 3],
            target: [10, 8, 64, 1],
        };
        assert_eq!(read(&frame(&[], &REQUEST), None), Some(Ok(want)));
        let padded = [frame(&[], &REQUEST), [0; 18].to_vec()].concat();
        assert_eq!(read(&padded, None), Some(Ok(want)));
    }

    #[test]
    fn the_outermost_tag_names_the_vlan() {
        assert_eq!(vlan(&[], None), Some(0));
        assert_eq!(vlan(&[], Some(0xe00c)), Some(12));
        assert_eq!(vlan(&[0x81, 0, 0xe0, 12], None), Some(12));
        assert_eq!(vlan(&[0x81, 0, 0, 7], Some(12)), Some(12));
        assert_eq!(vlan(&[0x88, 0xa8, 0x0f, 0xfe, 0x81, 0, 0, 7], None), Some(4094));
        assert_eq!(vlan(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7], Some(12)), Some(12));
        assert_eq!(vlan(&[0x81, 0, 0xe0, 0], None), Some(0));
    }

    #[test]
    fn what_is_not_arp_is_not_our_business() {
        let tag = [0x81, 0, 0, 7];
        assert_eq!(vlan(&[tag, tag, tag].concat(), None), None);
        for cut in 0..18 {
            assert_eq!(read(&frame(&tag, &REQUEST)[..cut], None), None);
        }
        let ipv4 = [&ADDRESSES[..], &[8, 0], &REQUEST].concat();
        assert_eq!(read(&ipv4, None), None);
        assert_eq!(
            [0x0806, 0x8100, 0x88a8, 0x0800, 0x86dd, 0x0608].map(may_carry_arp),
            [true, true, true, false, false, false]
        );
    }

    #[test]
    fn each_defect_has_its_reason() {
        let with = |offset: usize, byte| {
            let mut packet = REQUEST;
            packet[offset] = byte;
            verdict(&packet)
        };
        assert_eq!(with(7, 2), Ok(Operation::Reply));
        assert_eq!(verdict(&REQUEST[..27]), Err(Malformed::Short));
        assert_eq!(verdict(&[]), Err(Malformed::Short));
        assert_eq!([with(0, 1), with(1, 6)], [Err(Malformed::HardwareType); 2]);
        assert_eq!([with(2, 0), with(3, 1)], [Err(Malformed::ProtocolType); 2]);
        assert_eq!([with(4, 5), with(4, 7)], [Err(Malformed::HardwareLength); 2]);
        assert_eq!([with(5, 3), with(5, 16)], [Err(Malformed::ProtocolLength); 2]);
        assert_eq!([with(6, 1), with(7, 0), with(7, 3)], [Err(Malformed::Operation); 3]);
    }

    #[test]
    fn a_reason_is_counted_where_its_index_says() {
        for (index, reason) in Malformed::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index, "{}", reason.as_str());
        }
    }

    const STARTS: &[&[u8]] = &[&[8, 6], &[0x81, 0, 0, 1, 8, 6], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 1, 8, 6]];

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            taken in any::<Option<u16>>(),
        ) {
            if let Some(Ok(arp)) = read(&bytes, taken) {
                prop_assert!(arp.vlan < 4096);
            }
        }

        #[test]
        fn what_says_it_is_arp_is_read_or_has_a_reason(
            start in prop::sample::select(STARTS),
            rest in prop::collection::vec(any::<u8>(), 0..40),
            taken in any::<Option<u16>>(),
        ) {
            let verdict = read(&[&ADDRESSES, start, &rest].concat(), taken).unwrap();
            prop_assert_eq!(verdict == Err(Malformed::Short), rest.len() < 28);
        }
    }
}

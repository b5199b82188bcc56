//! How the tap reads a frame: Ethernet, up to two VLAN tags, ARP for IPv4 over Ethernet (RFC 826) or IPv4 (RFC 791).

use zerocopy::{
    FromBytes, Immutable,
    byteorder::{NetworkEndian, U16},
};

use crate::{Claim, Kind, Operation};

/// `ETH_P_ARP` (`include/uapi/linux/if_ether.h`).
const ARP: u16 = 0x0806;
/// `ETH_P_8021Q`: a customer's VLAN tag, or the only one.
const VLAN: u16 = 0x8100;
/// `ETH_P_8021AD`: a provider's VLAN tag.
const PROVIDER_VLAN: u16 = 0x88a8;
/// `ARPHRD_ETHER` (`include/uapi/linux/if_arp.h`).
const ETHERNET: u16 = 1;
/// `ARPHRD_IEEE802`.
const IEEE_802: u16 = 6;
/// `ETH_P_IP`.
const IPV4: u16 = 0x0800;
/// Where the frame's source stands: after its destination.
const SOURCE_OFFSET: usize = 6;
/// Where the EtherType stands: after the source.
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

    /// The same of a place that is known when the program is compiled, where most that is of interest stands. What can look
    /// there faster does.
    #[inline(always)]
    fn bytes_at<const OFFSET: usize, const N: usize>(&self) -> Option<[u8; N]> {
        self.bytes(OFFSET)
    }

    /// The control word of the outermost VLAN tag, in native byte order, if the kernel has taken that out of the frame and
    /// keeps it beside (`vlan_tci` of `struct __sk_buff`).
    fn taken_tag(&self) -> Option<u16>;
}

/// What is to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Pass,
    /// It ends here.
    Drop,
}

/// Who learns what a frame is, and says what is to become of it.
pub trait Report {
    /// It is ARP for IPv4 over Ethernet.
    fn arp(&self, claim: &Claim) -> Verdict;

    /// It is IPv4, from somebody.
    fn ipv4(&self, claim: &Claim) -> Verdict;

    /// It says that it is ARP, and is none for IPv4 over Ethernet. It passes, unless it is told of as
    /// [`disguised`](Self::disguised), too.
    fn malformed(&self, reason: Malformed);

    /// It is malformed, but kernels take it for ARP all the same: `arp_process` (`net/ipv4/arp.c`) accepts IEEE 802 for
    /// `ar$hrd` on Ethernet.
    fn disguised(&self, _claim: &Claim) -> Verdict {
        Verdict::Pass
    }
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

/// Whether a frame whose EtherType the kernel has as `ethertype` (native byte order) is IPv4 with no tag in it.
#[inline(always)]
#[must_use]
pub const fn is_plain_ipv4(ethertype: u16) -> bool {
    ethertype == IPV4
}

/// Reads `frame` and tells `report` what it is, if it is ARP or IPv4; returns what that says. Everything else passes.
///
/// Whatever is found out is passed on at once, and only a verdict is returned: the verifier of kernels before 6.3 refuses
/// programs in which the compiler moves a value around that only one of several outcomes has.
#[inline(always)]
pub fn read_frame(frame: &impl Frame, report: &impl Report) -> Verdict {
    let mut offset = ETHERTYPE_OFFSET;
    while offset <= ETHERTYPE_OFFSET + MAX_TAGS * TAG_LEN {
        let Some(ethertype) = number_at(frame, offset) else {
            return Verdict::Pass;
        };
        match ethertype {
            ARP => return read_arp(frame, offset + size_of::<u16>(), report),
            IPV4 => return read_ipv4(frame, offset + size_of::<u16>(), report),
            VLAN | PROVIDER_VLAN => offset += TAG_LEN,
            _ => return Verdict::Pass,
        }
    }
    Verdict::Pass
}

#[inline(always)]
fn read_arp(frame: &impl Frame, offset: usize, report: &impl Report) -> Verdict {
    let Some(ether_source) = frame.bytes(SOURCE_OFFSET) else {
        return Verdict::Pass;
    };
    let Some(packet) = ArpPacket::at(frame, offset) else {
        report.malformed(Malformed::Short);
        return Verdict::Pass;
    };
    packet.tell(tag(frame, offset), ether_source, report)
}

#[inline(always)]
fn read_ipv4(frame: &impl Frame, offset: usize, report: &impl Report) -> Verdict {
    let (Some(ether_source), Some(header)) = (frame.bytes(SOURCE_OFFSET), frame.bytes(offset)) else {
        return Verdict::Pass;
    };
    let header: Ipv4Header = zerocopy::transmute!(header as [u8; size_of::<Ipv4Header>()]);
    header.tell(tag(frame, offset), ether_source, report)
}

/// Does what [`read_frame`] does, with one look into the frame if it is ARP with no tag in it. Most ARP is that.
#[inline(always)]
pub fn read_plain_arp(frame: &impl Frame, report: &impl Report) -> Verdict {
    let Some(bytes) = frame.bytes_at::<SOURCE_OFFSET, { size_of::<PlainArp>() }>() else {
        return read_frame(frame, report);
    };
    let PlainArp { ether_source, ethertype, packet } = zerocopy::transmute!(bytes);
    if ethertype.get() != ARP {
        return read_frame(frame, report);
    }
    packet.tell(frame.taken_tag().unwrap_or(0) & VLAN_ID, ether_source, report)
}

/// Does what [`read_frame`] does, with one look into the frame, if it is IPv4 with no tag in it; else nothing. Most frames
/// are that.
#[inline(always)]
pub fn read_plain_ipv4(frame: &impl Frame, report: &impl Report) -> Verdict {
    let Some(bytes) = frame.bytes_at::<SOURCE_OFFSET, { size_of::<PlainIpv4>() }>() else {
        return Verdict::Pass;
    };
    let PlainIpv4 { ether_source, ethertype, header } = zerocopy::transmute!(bytes);
    if ethertype.get() != IPV4 {
        return Verdict::Pass;
    }
    header.tell(frame.taken_tag().unwrap_or(0) & VLAN_ID, ether_source, report)
}

/// The id in the outermost tag.
#[inline(always)]
fn tag(frame: &impl Frame, packet_offset: usize) -> u16 {
    let control_word = match frame.taken_tag() {
        Some(taken) => taken,
        None if packet_offset == UNTAGGED_PACKET_OFFSET => 0,
        None => number_at(frame, UNTAGGED_PACKET_OFFSET).unwrap_or(0),
    };
    control_word & VLAN_ID
}

#[inline(always)]
fn number_at(frame: &impl Frame, offset: usize) -> Option<u16> {
    frame.bytes(offset).map(u16::from_be_bytes)
}

/// An IPv4 header on the wire, without options.
#[derive(FromBytes, Immutable)]
#[repr(C)]
struct Ipv4Header {
    version_and_length: u8,
    between: [u8; 11],
    source: [u8; 4],
    _destination: [u8; 4],
}

/// What follows the destination address of an untagged frame.
#[derive(FromBytes, Immutable)]
#[repr(C)]
struct PlainIpv4 {
    ether_source: [u8; 6],
    ethertype: U16<NetworkEndian>,
    header: Ipv4Header,
}

impl Ipv4Header {
    /// The kernel drops what is of another version or shorter than its header (`ip_rcv_core` in `net/ipv4/ip_input.c`); a
    /// source of 0.0.0.0 is whoever has no address yet (RFC 1122, section 3.2.1.3).
    #[inline(always)]
    fn tell(&self, tag: u16, ether_source: [u8; 6], report: &impl Report) -> Verdict {
        if !matches!(self.version_and_length, 0x45..=0x4f) || u32::from_ne_bytes(self.source) == 0 {
            return Verdict::Pass;
        }
        report.ipv4(&Claim { kind: Kind::Ipv4, tag, ether_source, mac: ether_source, address: self.source })
    }
}

/// The same if it is ARP.
#[derive(FromBytes, Immutable)]
#[repr(C)]
struct PlainArp {
    ether_source: [u8; 6],
    ethertype: U16<NetworkEndian>,
    packet: ArpPacket,
}

/// An ARP packet on the wire, if it is one for IPv4 over Ethernet.
#[derive(FromBytes, Immutable)]
#[repr(C)]
struct ArpPacket {
    hardware_type: U16<NetworkEndian>,
    protocol_type: U16<NetworkEndian>,
    hardware_length: u8,
    protocol_length: u8,
    operation: U16<NetworkEndian>,
    sender_mac: [u8; 6],
    sender: [u8; 4],
    _target_mac: [u8; 6],
    target: [u8; 4],
}

impl ArpPacket {
    #[inline(always)]
    fn at(frame: &impl Frame, offset: usize) -> Option<Self> {
        let bytes: [u8; size_of::<Self>()] = frame.bytes(offset)?;
        Some(zerocopy::transmute!(bytes))
    }

    #[inline(always)]
    fn tell(&self, tag: u16, ether_source: [u8; 6], report: &impl Report) -> Verdict {
        match self.operation() {
            Ok(operation) => report.arp(&self.claim(tag, ether_source, operation)),
            Err(reason) => {
                report.malformed(reason);
                match self.disguised_operation() {
                    Some(operation) => report.disguised(&self.claim(tag, ether_source, operation)),
                    None => Verdict::Pass,
                }
            }
        }
    }

    #[inline(always)]
    fn claim(&self, tag: u16, ether_source: [u8; 6], operation: Operation) -> Claim {
        let Self { sender_mac, sender, target, .. } = *self;
        let kind = Kind::of_arp(operation, sender, target);
        let address = if kind == Kind::Probe { target } else { sender };
        Claim { kind, tag, ether_source, mac: sender_mac, address }
    }

    #[inline(always)]
    fn operation(&self) -> Result<Operation, Malformed> {
        match self.hardware_type.get() {
            ETHERNET => self.operation_of_any_hardware(),
            _ => Err(Malformed::HardwareType),
        }
    }

    /// What it is to a kernel that takes it for ARP over Ethernet though it does not say so.
    #[inline(always)]
    fn disguised_operation(&self) -> Option<Operation> {
        match self.hardware_type.get() {
            IEEE_802 => self.operation_of_any_hardware().ok(),
            _ => None,
        }
    }

    #[inline(always)]
    fn operation_of_any_hardware(&self) -> Result<Operation, Malformed> {
        match self {
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

    /// Learns what a frame is, and has every claim dropped.
    #[derive(Default)]
    struct Told(Cell<Option<Result<Claim, Malformed>>>);

    impl Report for Told {
        fn arp(&self, claim: &Claim) -> Verdict {
            assert_eq!(self.0.replace(Some(Ok(*claim))), None);
            assert_ne!(claim.kind, Kind::Ipv4);
            Verdict::Drop
        }

        fn ipv4(&self, claim: &Claim) -> Verdict {
            assert_eq!(self.0.replace(Some(Ok(*claim))), None);
            assert_eq!((claim.kind, claim.mac), (Kind::Ipv4, claim.ether_source));
            Verdict::Drop
        }

        fn malformed(&self, reason: Malformed) {
            assert_eq!(self.0.replace(Some(Err(reason))), None);
        }
    }

    fn read(bytes: &[u8], taken: Option<u16>) -> Option<Result<Claim, Malformed>> {
        let told = Told::default();
        judged(read_frame(&Bytes(bytes, taken), &told), told.0.get())
    }

    fn read_plain(bytes: &[u8], taken: Option<u16>) -> Option<Result<Claim, Malformed>> {
        let told = Told::default();
        judged(read_plain_ipv4(&Bytes(bytes, taken), &told), told.0.get())
    }

    /// What was told, after a look that the verdict is the one on it: of what is no claim there is nothing to drop.
    fn judged(verdict: Verdict, told: Option<Result<Claim, Malformed>>) -> Option<Result<Claim, Malformed>> {
        let want = if matches!(told, Some(Ok(_))) { Verdict::Drop } else { Verdict::Pass };
        assert_eq!(verdict, want, "{told:?}");
        told
    }

    const ADDRESSES: [u8; 12] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1];
    #[rustfmt::skip]
    const REQUEST: [u8; 28] = [
        0, 1, 8, 0, 6, 4, 0, 1,
        2, 0, 0, 0, 0, 2, 10, 8, 64, 2,
        2, 0, 0, 0, 0, 3, 10, 8, 64, 1,
    ];
    const HEADER: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 8, 64, 2, 10, 8, 64, 1];

    fn frame(tags: &[u8], packet: &[u8]) -> Vec<u8> {
        [&ADDRESSES, tags, &[8, 6], packet].concat()
    }

    fn ipv4(tags: &[u8], header: &[u8]) -> Vec<u8> {
        [&ADDRESSES, tags, &[8, 0], header].concat()
    }

    /// The tag that is told, if it is the same for ARP and IPv4.
    fn told_tag(tags: &[u8], taken: Option<u16>) -> Option<u16> {
        let [arp, ipv4] = [frame(tags, &REQUEST), ipv4(tags, &HEADER)]
            .map(|frame| read(&frame, taken).map(|claim| claim.unwrap().tag));
        assert_eq!(arp, ipv4);
        arp
    }

    fn verdict(packet: &[u8]) -> Result<Kind, Malformed> {
        read(&frame(&[], packet), None).unwrap().map(|claim| claim.kind)
    }

    #[test]
    fn each_field_comes_from_its_place() {
        let want = Claim {
            kind: Kind::Request,
            tag: 0,
            ether_source: [2, 0, 0, 0, 0, 1],
            mac: [2, 0, 0, 0, 0, 2],
            address: [10, 8, 64, 2],
        };
        assert_eq!(read(&frame(&[], &REQUEST), None), Some(Ok(want)));
        let padded = [frame(&[], &REQUEST), [0; 18].to_vec()].concat();
        assert_eq!(read(&padded, None), Some(Ok(want)));
        let want = Claim { kind: Kind::Ipv4, mac: want.ether_source, ..want };
        assert_eq!([read, read_plain].map(|read| read(&ipv4(&[], &HEADER), None)), [Some(Ok(want)); 2]);
    }

    #[test]
    fn a_probe_is_about_what_it_asks_for() {
        let mut probe = REQUEST;
        probe[14..18].fill(0);
        let claim = read(&frame(&[], &probe), None).unwrap().unwrap();
        assert_eq!((claim.kind, claim.address), (Kind::Probe, [10, 8, 64, 1]));
        probe[7] = 2;
        let claim = read(&frame(&[], &probe), None).unwrap().unwrap();
        assert_eq!((claim.kind, claim.address), (Kind::Reply, [0; 4]), "a reply from 0.0.0.0 claims it");
    }

    #[test]
    fn the_outermost_tag_names_the_vlan() {
        assert_eq!(told_tag(&[], None), Some(0));
        assert_eq!(told_tag(&[], Some(0xe00c)), Some(12));
        assert_eq!(told_tag(&[0x81, 0, 0xe0, 12], None), Some(12));
        assert_eq!(told_tag(&[0x81, 0, 0, 7], Some(12)), Some(12));
        assert_eq!(told_tag(&[0x88, 0xa8, 0x0f, 0xfe, 0x81, 0, 0, 7], None), Some(4094));
        assert_eq!(told_tag(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7], Some(12)), Some(12));
        assert_eq!(told_tag(&[0x81, 0, 0xe0, 0], None), Some(0));
    }

    #[test]
    fn what_is_neither_arp_nor_ipv4_is_not_our_business() {
        let tag = [0x81, 0, 0, 7];
        assert_eq!(told_tag(&[tag, tag, tag].concat(), None), None);
        for cut in 0..18 {
            assert_eq!(read(&frame(&tag, &REQUEST)[..cut], None), None);
        }
        let ipv6 = [&ADDRESSES[..], &[0x86, 0xdd], &REQUEST].concat();
        assert_eq!(read(&ipv6, None), None);
        let types = [0x0806, 0x8100, 0x88a8, 0x0800, 0x86dd, 0x0608];
        assert_eq!(types.map(may_carry_arp), [true, true, true, false, false, false]);
        assert_eq!(types.map(is_plain_ipv4), [false, false, false, true, false, false]);
    }

    #[test]
    fn what_is_no_ipv4_header_or_has_no_source_shows_nothing() {
        let with = |offset: usize, byte| {
            let mut header = HEADER;
            header[offset] = byte;
            [read, read_plain].map(|read| read(&ipv4(&[], &header), None).is_some())
        };
        assert_eq!([with(0, 0x46), with(0, 0x4f)], [[true; 2]; 2], "options");
        assert_eq!([with(0, 0x44), with(0, 0x40), with(0, 0x55), with(0, 0x65)], [[false; 2]; 4]);
        for cut in 0..20 {
            let cut = ipv4(&[], &HEADER[..cut]);
            assert_eq!([read, read_plain].map(|read| read(&cut, None)), [None; 2]);
        }
        let mut unspecified = HEADER;
        unspecified[12..16].fill(0);
        assert_eq!([read, read_plain].map(|read| read(&ipv4(&[], &unspecified), None)), [None; 2]);
    }

    #[test]
    fn each_defect_has_its_reason() {
        let with = |offset: usize, byte| {
            let mut packet = REQUEST;
            packet[offset] = byte;
            verdict(&packet)
        };
        assert_eq!(with(7, 2), Ok(Kind::Reply));
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
            if let Some(Ok(claim)) = read(&bytes, taken) {
                prop_assert!(claim.tag < 4096);
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

        #[test]
        fn one_look_sees_what_many_see(
            first in prop::sample::select(&[0x45_u8, 0x4f, 0x44, 0x60][..]),
            rest in prop::collection::vec(prop::sample::select(&[0_u8, 1, 0xff][..]), 0..40),
            taken in any::<Option<u16>>(),
        ) {
            let frame = ipv4(&[], &[&[first], &rest[..]].concat());
            prop_assert_eq!(read(&frame, taken), read_plain(&frame, taken));
        }
    }
}

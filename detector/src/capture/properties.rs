//! What holds of a frame and of the tap's record, whatever bytes they are.

use std::cell::Cell;

use detector_ebpf::{Claim, ClaimEvent, Frame, Malformed, Report, Tapped, Verdict, read_frame, read_plain_ipv4};

pub use super::kmsg::properties::kernel_log;
use super::{Kind, claim_of, claims::captured};
use crate::{
    engine::Evidence,
    net::{ArpPacket, ClaimKind},
};

/// A tag as the kernel takes it out of a frame: VLAN 12, with a priority.
const TAKEN: u16 = 0xe00c;
const VLAN_ID: u16 = 0x0fff;

/// Of a frame: it is told of once at most, and what is said of a claim is its verdict; a tag beside it changes nothing but the VLAN; the short way to read IPv4 comes
/// to the same; and ARP without a tag reads as [`ArpPacket`] does.
pub fn frame(bytes: &[u8]) {
    let told = told(bytes, None, |frame, report| read_frame(frame, report));
    let tagged = self::told(bytes, Some(TAKEN), |frame, report| read_frame(frame, report));
    assert_eq!(told.map(untagged), tagged.map(untagged));
    assert!(told.into_iter().flatten().all(|claim| claim.tag <= VLAN_ID));
    assert!(tagged.into_iter().flatten().all(|claim| claim.tag == TAKEN & VLAN_ID));

    let short = self::told(bytes, None, |frame, report| read_plain_ipv4(frame, report));
    let is_plain_ipv4 = bytes.get(12..14) == Some(&[8, 0]);
    assert_eq!(short, told.filter(|_| is_plain_ipv4));

    let arp = told.and_then(Result::ok).filter(|_| bytes.get(12..14) == Some(&[8, 6]));
    assert_eq!(arp.map(|claim| in_short(&claim)), ArpPacket::parse(bytes).map(|packet| of_packet(&packet)));
}

/// Of a record: it has one size, and its bytes say nothing but what is read from them.
pub fn record(bytes: &[u8]) {
    let event = ClaimEvent::from_bytes(bytes);
    assert_eq!(event.is_some(), bytes.len() == size_of::<ClaimEvent>());
    let read = event.and_then(|event| Some((event.tapped(), event.claim()?)));
    assert_eq!(read.map(|(tapped, claim)| ClaimEvent::new(tapped, &claim)), event.filter(|_| read.is_some()));
    let at_an_interface = read.filter(|(tapped, _)| tapped.ifindex != 0);
    let port = captured(bytes).map(|claim| claim.port.get());
    assert_eq!(port, at_an_interface.map(|(tapped, _)| tapped.ifindex));
}

fn told(
    bytes: &[u8],
    taken: Option<u16>,
    read: impl Fn(&Bytes<'_>, &Told) -> Verdict,
) -> Option<Result<Claim, Malformed>> {
    let told = Told::default();
    let verdict = read(&Bytes(bytes, taken), &told);
    assert_eq!(verdict == Verdict::Drop, matches!(told.0.get(), Some(Ok(_))), "only of a claim it is asked");
    told.0.get()
}

fn untagged(told: Result<Claim, Malformed>) -> Result<Claim, Malformed> {
    told.map(|claim| Claim { tag: 0, ..claim })
}

type Short = (Option<Evidence>, [u8; 6], [u8; 4]);

fn in_short(claim: &Claim) -> Short {
    let anywhere = Tapped { nanos: 0, ifindex: 1 };
    (claim_of(anywhere, claim).map(|claim| claim.evidence), claim.mac, claim.address)
}

fn of_packet(packet: &ArpPacket) -> Short {
    let kind = packet.kind();
    let address = if kind == ClaimKind::Probe { packet.target } else { packet.sender };
    (Some(Evidence::Arp(kind)), packet.sender_mac.0, address.octets())
}

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
struct Told(Cell<Option<Result<Claim, Malformed>>>);

impl Told {
    fn tell(&self, what: Result<Claim, Malformed>) {
        assert_eq!(self.0.replace(Some(what)), None, "told twice");
    }
}

impl Report for Told {
    fn arp(&self, claim: &Claim) -> Verdict {
        assert_ne!(claim.kind, Kind::Ipv4);
        self.tell(Ok(*claim));
        Verdict::Drop
    }

    fn ipv4(&self, claim: &Claim) -> Verdict {
        assert_eq!((claim.kind, claim.mac), (Kind::Ipv4, claim.ether_source));
        self.tell(Ok(*claim));
        Verdict::Drop
    }

    fn malformed(&self, reason: Malformed) {
        self.tell(Err(reason));
    }
}

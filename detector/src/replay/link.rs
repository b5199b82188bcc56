//! What a capture puts around frames, taken off: <https://www.tcpdump.org/linktypes.html>.

use crate::net::Mac;

/// As much of a frame as the tap reads, tags and an IPv4 header included.
const HEAD: usize = 64;
/// `ARPHRD_ETHER` (`include/uapi/linux/if_arp.h`).
const ETHERNET: [u8; 2] = [0, 1];
/// `PACKET_OUTGOING` (`include/uapi/linux/if_packet.h`).
const OUTGOING: u8 = 4;

/// How frames stand in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// As on the wire.
    Ethernet,
    /// Behind the header of `tcpdump -i any` before libpcap 1.10, which does not name the interface.
    Cooked,
    /// Behind the header of `tcpdump -i any`, which names the interface by its index.
    Cooked2,
}

/// Which way a frame went, as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Into the host, by a port.
    In,
    /// Out of the host.
    Out,
}

/// The first bytes of an Ethernet frame, from the destination address on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    bytes: [u8; HEAD],
    len: u8,
}

/// A frame without what was around it, and what that said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bare {
    pub(super) head: Head,
    /// The index of the interface that it was recorded at.
    pub(super) interface: Option<u32>,
    pub(super) direction: Option<Direction>,
}

impl Link {
    /// The kind with this number. Above its 16 bits a pcap header may say how long the frames' check sums are.
    pub(super) const fn new(number: u32) -> Option<Self> {
        match number & 0xffff {
            1 => Some(Self::Ethernet),
            113 => Some(Self::Cooked),
            276 => Some(Self::Cooked2),
            _ => None,
        }
    }

    /// The frame in `bytes`; `None` if it is too short to be one, or none of Ethernet.
    pub(super) fn bare(self, bytes: &[u8]) -> Option<Bare> {
        match self {
            Self::Ethernet => Some(Bare { head: Head::new(&[bytes]), interface: None, direction: None }),
            Self::Cooked => cooked(bytes),
            Self::Cooked2 => cooked2(bytes),
        }
    }
}

/// Packet type, ARPHRD, length of the address, address (8 bytes), protocol.
fn cooked(bytes: &[u8]) -> Option<Bare> {
    let (&[_, kind, a, b, 0, 6, ref address @ .., _, _], rest) = bytes.split_first_chunk::<14>()? else { return None };
    ([a, b] == ETHERNET).then(|| Bare {
        head: Head::new(&[&[0; 6], address, rest]),
        interface: None,
        direction: Some(way(kind)),
    })
}

/// Protocol, two reserved bytes, interface index (4 bytes), ARPHRD, packet type, length of the address, address (8 bytes).
fn cooked2(bytes: &[u8]) -> Option<Bare> {
    let (header, rest) = bytes.split_first_chunk::<20>()?;
    let (protocol, header) = header.split_first_chunk::<2>()?;
    let (interface, header) = header.get(2..)?.split_first_chunk()?;
    let &[a, b, kind, 6, ref address @ .., _, _] = header else { return None };
    ([a, b] == ETHERNET).then(|| Bare {
        head: Head::new(&[&[0; 6], address, protocol, rest]),
        interface: Some(u32::from_be_bytes(*interface)),
        direction: Some(way(kind)),
    })
}

const fn way(kind: u8) -> Direction {
    if kind == OUTGOING { Direction::Out } else { Direction::In }
}

impl Head {
    fn new(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; HEAD];
        let frame = parts.iter().copied().flatten();
        let len = bytes.iter_mut().zip(frame).map(|(to, from)| *to = *from).count();
        Self { bytes, len: u8::try_from(len).unwrap_or_default() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The frame's source address.
    pub(super) fn source(&self) -> Option<Mac> {
        self.bytes().get(6..)?.first_chunk().copied().map(Mac)
    }

    /// All but the destination, which a cooked capture does not have.
    pub(super) fn without_destination(&self) -> Self {
        Self {
            bytes: {
                let mut bytes = self.bytes;
                bytes.iter_mut().take(6).for_each(|byte| *byte = 0);
                bytes
            },
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn each_kind_of_header_comes_off() {
        let want = [&[0; 6][..], &SOURCE, &[8, 6, 0, 1]].concat();
        let ethernet = Link::Ethernet.bare(&want).unwrap();
        assert_eq!((ethernet.head.bytes(), ethernet.interface, ethernet.direction), (&want[..], None, None));
        let cooked = [&[0, 1, 0, 1, 0, 6][..], &SOURCE, &[0, 0], &[8, 6, 0, 1]].concat();
        let cooked = Link::Cooked.bare(&cooked).unwrap();
        assert_eq!((cooked.head.bytes(), cooked.interface, cooked.direction), (&want[..], None, Some(Direction::In)));
        let cooked2 = [&[8, 6, 0, 0, 0, 0, 0, 7, 0, 1, 4, 6][..], &SOURCE, &[0, 0], &[0, 1]].concat();
        let cooked2 = Link::Cooked2.bare(&cooked2).unwrap();
        assert_eq!(
            (cooked2.head.bytes(), cooked2.interface, cooked2.direction),
            (&want[..], Some(7), Some(Direction::Out))
        );
        assert_eq!(cooked2.head.source(), Some(Mac(SOURCE)));
    }

    #[test]
    fn what_is_no_ethernet_has_no_frame() {
        let loopback = [&[8, 0, 0, 0, 0, 0, 0, 1, 3, 4, 0, 6][..], &SOURCE, &[0, 0]].concat();
        assert_eq!(Link::Cooked2.bare(&loopback), None, "ARPHRD_LOOPBACK");
        for len in 0..20 {
            assert_eq!(Link::Cooked2.bare(&[0; 20][..len]), None);
        }
        assert_eq!(Link::Cooked.bare(&[0; 13]), None);
        assert_eq!(
            [Link::new(1), Link::new(0xf000_0001), Link::new(101)],
            [Some(Link::Ethernet), Some(Link::Ethernet), None]
        );
    }

    #[test]
    fn a_long_frame_is_cut_to_what_is_read_of_it() {
        let bare = Link::Ethernet.bare(&[7; 9000]).unwrap();
        assert_eq!(bare.head.bytes(), [7; HEAD]);
        assert_eq!(bare.head.without_destination().bytes()[..7], [0, 0, 0, 0, 0, 0, 7]);
    }
}

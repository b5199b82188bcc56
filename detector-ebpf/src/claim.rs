//! What a frame shows: that somebody uses an address.

/// That somebody shows that it uses an address. Addresses are in the wire's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What shows it.
    pub kind: Kind,
    /// The id in the outermost VLAN tag, in native byte order; 0 if there is none, or only a priority.
    pub tag: u16,
    /// Who sent the frame, by its own word.
    pub ether_source: [u8; 6],
    /// Who uses the address: the ARP sender (`ar$sha`); of an IPv4 packet the frame's source.
    pub mac: [u8; 6],
    /// What is claimed (`ar$spa`, or the packet's source); of a probe, which claims nothing, what is asked for (`ar$tpa`).
    pub address: [u8; 4],
}

/// The forms in which an address shows up on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Kind {
    /// An ARP request for another's address.
    Request = 1,
    /// An ARP reply.
    Reply = 2,
    /// An ARP request for the sender's own address (RFC 5227, section 2.3).
    GratuitousRequest = 3,
    /// An ARP reply whose target is its sender.
    GratuitousReply = 4,
    /// An ARP request from 0.0.0.0 (RFC 5227, section 2.1.1).
    Probe = 5,
    /// An IPv4 packet's source.
    Ipv4 = 6,
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

impl Claim {
    /// Whether it says no more than that `mac` has `address`, so that it is nothing new if that is known: a probe asks, and
    /// a frame that another sent than its ARP packet says is a martian.
    #[inline(always)]
    #[must_use]
    pub fn may_be_known(&self) -> bool {
        self.is_made() && number(self.ether_source) == number(self.mac)
    }

    /// Whether the address is claimed, and not only asked for as by a probe.
    #[inline(always)]
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.kind != Kind::Probe
    }
}

/// A hardware address as a number: comparing arrays of 6 bytes is a call in eBPF.
#[inline(always)]
const fn number([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

impl Kind {
    /// The forms of ARP, each at its own [`arp_index`](Self::arp_index).
    pub const ARP: [Self; 5] =
        [Self::Request, Self::Reply, Self::GratuitousRequest, Self::GratuitousReply, Self::Probe];

    /// The kind with this number.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Request),
            2 => Some(Self::Reply),
            3 => Some(Self::GratuitousRequest),
            4 => Some(Self::GratuitousReply),
            5 => Some(Self::Probe),
            6 => Some(Self::Ipv4),
            _ => None,
        }
    }

    /// The form of an ARP packet.
    #[inline(always)]
    #[must_use]
    pub fn of_arp(operation: Operation, sender: [u8; 4], target: [u8; 4]) -> Self {
        let (sender, target) = (u32::from_ne_bytes(sender), u32::from_ne_bytes(target));
        match operation {
            Operation::Request if sender == 0 => Self::Probe,
            Operation::Request if sender == target => Self::GratuitousRequest,
            Operation::Request => Self::Request,
            Operation::Reply if sender == target => Self::GratuitousReply,
            Operation::Reply => Self::Reply,
        }
    }

    /// Where it is counted in [`TapCounters`](crate::TapCounters), if it is ARP.
    #[must_use]
    pub const fn arp_index(self) -> Option<usize> {
        match self {
            Self::Request => Some(0),
            Self::Reply => Some(1),
            Self::GratuitousRequest => Some(2),
            Self::GratuitousReply => Some(3),
            Self::Probe => Some(4),
            Self::Ipv4 => None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_one_kind() {
        for (index, kind) in Kind::ARP.into_iter().enumerate() {
            assert_eq!((kind.arp_index(), Kind::new(kind as u16)), (Some(index), Some(kind)));
        }
        assert_eq!((Kind::Ipv4.arp_index(), Kind::new(Kind::Ipv4 as u16)), (None, Some(Kind::Ipv4)));
        assert_eq!([0, 7, 0x0100].map(Kind::new), [None; 3]);
    }

    #[test]
    fn the_kind_follows_from_operation_sender_and_target() {
        let (mine, yours, none) = ([10, 8, 64, 2], [10, 8, 64, 1], [0; 4]);
        let kinds = [(mine, yours), (mine, mine), (none, mine), (none, none), (mine, none)];
        let of = |operation| kinds.map(|(sender, target)| Kind::of_arp(operation, sender, target));
        let request = [Kind::Request, Kind::GratuitousRequest, Kind::Probe, Kind::Probe, Kind::Request];
        let reply = [Kind::Reply, Kind::GratuitousReply, Kind::Reply, Kind::GratuitousReply, Kind::Reply];
        assert_eq!((of(Operation::Request), of(Operation::Reply)), (request, reply));
    }

    #[test]
    fn only_a_plain_claim_may_be_known() {
        let mac = [2, 0, 0, 0, 0, 1];
        let claim = Claim { kind: Kind::Reply, tag: 0, ether_source: mac, mac, address: [10, 8, 64, 2] };
        assert!(claim.may_be_known() && Claim { kind: Kind::Ipv4, ..claim }.may_be_known());
        assert!(!Claim { kind: Kind::Probe, ..claim }.may_be_known());
        for at in 0..6 {
            let mut other = mac;
            other[at] ^= 1;
            assert!(!Claim { mac: other, ..claim }.may_be_known(), "{other:?}");
        }
    }

    #[test]
    fn whoever_only_asks_claims_nothing() {
        let claim =
            |kind| Claim { kind, tag: 0, ether_source: [2, 0, 0, 0, 0, 1], mac: [0; 6], address: [10, 8, 64, 2] };
        for number in 1..=6 {
            let kind = Kind::new(number).unwrap();
            assert_eq!(claim(kind).is_made(), kind != Kind::Probe, "{kind:?}");
        }
    }
}

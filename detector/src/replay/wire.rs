//! From recorded bytes to what the tap would have reported: by its own parser.

use std::cell::Cell;

use detector_ebpf::{Claim, Frame, Malformed, Report, Verdict, read_frame};

use super::link::Head;

/// What a frame is to the tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Nothing that it looks at.
    Other,
    /// Something that says it is ARP, and is not.
    Malformed(Malformed),
    /// A claim, by ARP or by the source of an IPv4 packet.
    Claim(Claim),
}

/// What the tap's parser makes of a frame.
pub(super) fn read(head: &Head) -> Read {
    let told = Told(Cell::new(Read::Other));
    read_frame(head, &told);
    told.0.get()
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
    fn arp(&self, claim: &Claim) -> Verdict {
        self.0.set(Read::Claim(*claim));
        Verdict::Pass
    }

    fn ipv4(&self, claim: &Claim) -> Verdict {
        self.0.set(Read::Claim(*claim));
        Verdict::Pass
    }

    fn malformed(&self, reason: Malformed) {
        self.0.set(Read::Malformed(reason));
    }
}

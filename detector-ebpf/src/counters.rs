//! What the tap counts.

use core::ops::AddAssign;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Kind, Malformed, Verdict};

/// What became of the frames that one interface's tap saw. Each ARP frame is counted in exactly one of `reported`,
/// `absorbed`, `limited`, `lost` and the malformed; those that are not malformed by their kind, besides. Of IPv4 packets
/// only those are counted whose source is not known there.
///
/// The kernel keeps one of these per CPU; the sum over the CPUs is what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TapCounters {
    /// ARP frames reported to the agent.
    pub reported: u64,
    /// ARP frames that only repeated what is known.
    pub absorbed: u64,
    /// ARP frames with news that were more than the port's share, so the agent never hears of them.
    pub limited: u64,
    /// ARP frames that found no room on their way to the agent, so it never hears of them.
    pub lost: u64,
    malformed: [u64; Malformed::ALL.len()],
    kinds: [u64; Kind::ARP.len()],
    /// IPv4 packets reported to the agent.
    pub ipv4_reported: u64,
    /// IPv4 packets with a source that is not known there that were more than the port's share.
    pub ipv4_limited: u64,
    /// IPv4 packets that found no room on their way to the agent.
    pub ipv4_lost: u64,
    /// Claims dropped, since their address is in quarantine there. They are counted as all others, besides.
    pub contained: u64,
}

/// What becomes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The agent hears of it.
    Reported,
    /// It is known.
    Absorbed,
    /// It is more than the port's share.
    Limited,
    /// There was no room for it.
    Lost,
}

impl TapCounters {
    /// How many `u64` it consists of.
    pub const WORDS: usize = size_of::<Self>() / size_of::<u64>();

    /// The counters in this order, as they are laid out.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        zerocopy::transmute!(words)
    }

    const fn to_words(self) -> [u64; Self::WORDS] {
        zerocopy::transmute!(self)
    }

    /// Frames that were not ARP for IPv4 over Ethernet, for `reason`.
    #[must_use]
    pub fn malformed(&self, reason: Malformed) -> u64 {
        self.malformed.get(reason.index()).copied().unwrap_or_default()
    }

    /// ARP frames of this kind, whatever became of them; 0 for IPv4.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> u64 {
        kind.arp_index().and_then(|index| self.kinds.get(index)).copied().unwrap_or_default()
    }

    /// Counts one more malformed frame.
    ///
    /// Each count is gone through, because the verifier lets an unprivileged program (one without `CAP_PERFMON`) reach into
    /// a map's value only at fixed places.
    #[inline(always)]
    pub fn add_malformed(&mut self, reason: Malformed) {
        for (count, other) in self.malformed.iter_mut().zip(Malformed::ALL) {
            *count += u64::from(other == reason);
        }
    }

    /// Counts one more ARP frame that is a claim or a probe.
    #[inline(always)]
    pub fn add_arp(&mut self, kind: Kind, fate: Fate) {
        self.reported += u64::from(fate == Fate::Reported);
        self.absorbed += u64::from(fate == Fate::Absorbed);
        self.limited += u64::from(fate == Fate::Limited);
        self.lost += u64::from(fate == Fate::Lost);
        for (count, other) in self.kinds.iter_mut().zip(Kind::ARP) {
            *count += u64::from(other == kind);
        }
    }

    /// Counts one more IPv4 packet; one that is absorbed is not counted.
    #[inline(always)]
    pub fn add_ipv4(&mut self, fate: Fate) {
        self.ipv4_reported += u64::from(fate == Fate::Reported);
        self.ipv4_limited += u64::from(fate == Fate::Limited);
        self.ipv4_lost += u64::from(fate == Fate::Lost);
    }

    /// Counts a claim as dropped, if that is what becomes of it.
    #[inline(always)]
    pub fn add_verdict(&mut self, verdict: Verdict) {
        self.contained += u64::from(verdict == Verdict::Drop);
    }

    /// What was counted after `earlier`, which was read at the same tap.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.to_words();
        since.iter_mut().zip(earlier.to_words()).for_each(|(count, before)| *count = count.saturating_sub(before));
        Self::from_words(since)
    }

    /// Every ARP frame that the tap saw.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.reported + self.absorbed + self.limited + self.lost + self.malformed.iter().sum::<u64>()
    }

    /// Everything that the agent was told.
    #[must_use]
    pub const fn all_reported(&self) -> u64 {
        self.reported + self.ipv4_reported
    }

    /// IPv4 packets with a source that was not known there, whatever became of them.
    #[must_use]
    pub const fn ipv4(&self) -> u64 {
        self.ipv4_reported + self.ipv4_limited + self.ipv4_lost
    }

    /// Everything that the agent should have heard of and does not, for want of room.
    #[must_use]
    pub const fn all_lost(&self) -> u64 {
        self.lost + self.ipv4_lost
    }

    /// Everything that was more than the port's share.
    #[must_use]
    pub const fn all_limited(&self) -> u64 {
        self.limited + self.ipv4_limited
    }
}

impl AddAssign for TapCounters {
    fn add_assign(&mut self, other: Self) {
        let mut sum = self.to_words();
        sum.iter_mut().zip(other.to_words()).for_each(|(sum, count)| *sum += count);
        *self = Self::from_words(sum);
    }
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn the_layout_is_what_both_sides_were_built_for() {
        assert_eq!((size_of::<TapCounters>(), align_of::<TapCounters>(), TapCounters::WORDS), (152, 8, 19));
        assert_eq!(
            [
                offset_of!(TapCounters, reported),
                offset_of!(TapCounters, absorbed),
                offset_of!(TapCounters, limited),
                offset_of!(TapCounters, lost),
                offset_of!(TapCounters, malformed),
                offset_of!(TapCounters, kinds),
                offset_of!(TapCounters, ipv4_reported),
                offset_of!(TapCounters, ipv4_limited),
                offset_of!(TapCounters, ipv4_lost),
                offset_of!(TapCounters, contained),
            ],
            [0, 8, 16, 24, 32, 80, 120, 128, 136, 144]
        );
    }

    fn numbered() -> TapCounters {
        let mut next = 0;
        TapCounters::from_words([(); TapCounters::WORDS].map(|()| {
            next += 1;
            next
        }))
    }

    #[test]
    fn a_maps_value_reads_word_by_word() {
        let counters = numbered();
        assert_eq!((counters.reported, counters.absorbed, counters.limited, counters.lost), (1, 2, 3, 4));
        assert_eq!(Malformed::ALL.map(|reason| counters.malformed(reason)), [5, 6, 7, 8, 9, 10]);
        assert_eq!(Kind::ARP.map(|kind| counters.kind(kind)), [11, 12, 13, 14, 15]);
        assert_eq!((counters.ipv4_reported, counters.ipv4_limited, counters.ipv4_lost), (16, 17, 18));
        assert_eq!(counters.contained, 19);
        assert_eq!((counters.seen(), counters.kind(Kind::Ipv4)), (10 + 45, 0));
        assert_eq!((counters.all_lost(), counters.all_limited()), (22, 20));
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let mut now = numbered();
        now.add_malformed(Malformed::Operation);
        now.add_ipv4(Fate::Lost);
        let since = now.since(&numbered());
        assert_eq!((since.malformed(Malformed::Operation), since.ipv4_lost), (1, 1));
        assert_eq!(since.to_words().iter().sum::<u64>(), 2);
        assert_eq!(numbered().since(&now), TapCounters::default());
    }

    #[test]
    fn each_frame_is_counted_once_and_by_its_kind() {
        for kind in Kind::ARP {
            for fate in [Fate::Reported, Fate::Absorbed, Fate::Limited, Fate::Lost] {
                let mut counters = TapCounters::default();
                counters.add_arp(kind, fate);
                assert_eq!((counters.seen(), counters.kind(kind)), (1, 1));
                assert_eq!(counters.to_words().iter().sum::<u64>(), 2);
            }
        }
    }

    #[test]
    fn a_known_packet_is_not_counted() {
        let mut counters = TapCounters::default();
        counters.add_ipv4(Fate::Absorbed);
        assert_eq!(counters, TapCounters::default());
        [Fate::Reported, Fate::Limited, Fate::Lost].iter().for_each(|fate| counters.add_ipv4(*fate));
        assert_eq!((counters.ipv4_reported, counters.ipv4_limited, counters.ipv4_lost), (1, 1, 1));
        assert_eq!(counters.seen(), 0);
    }

    #[test]
    fn what_is_dropped_is_counted_besides() {
        let mut counters = TapCounters::default();
        counters.add_arp(Kind::Reply, Fate::Reported);
        [Verdict::Pass, Verdict::Drop].iter().for_each(|verdict| counters.add_verdict(*verdict));
        assert_eq!((counters.contained, counters.seen(), counters.all_reported()), (1, 1, 1));
    }

    #[test]
    fn counts_sum_over_cpus() {
        let mut sum = numbered();
        sum += numbered();
        assert_eq!(sum.to_words(), numbered().to_words().map(|count| 2 * count));
    }
}

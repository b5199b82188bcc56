//! From what was heard to claims.

use std::{io, net::Ipv4Addr, os::fd::AsRawFd, sync::Arc, time::Duration};

use aya::maps::{MapData, RingBuf};
use detector_ebpf::{ClaimEvent, Kind, Tapped};
use tokio::io::{Interest, unix::AsyncFd};

use super::ear::Hearing;
use crate::{
    engine::{Claim, Evidence},
    net::{ClaimKind, IfIndex, Mac, VlanId},
    time::Timestamp,
};

/// What was heard and nobody has read yet.
///
/// Linked to the [`Tap`](super::Tap) or [`Ear`](super::Ear) that it came with: after that is dropped, nothing more arrives.
pub struct Claims {
    source: Source,
    unreadable: u64,
}

enum Source {
    Rings(Box<Rings>),
    Ear(AsyncFd<Shared>),
}

/// What the tap reports by.
struct Rings {
    /// What contradicts a known owner, before anything else.
    contradictions: AsyncFd<RingBuf<MapData>>,
    news: AsyncFd<RingBuf<MapData>>,
}

/// What the ear hears by, as something to wait for.
struct Shared(Arc<Hearing>);

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// What one look at a source yields; `None` for each record that cannot be read.
struct Batch {
    records: Vec<Option<Claim>>,
    /// Whether there may be more already.
    goes_on: bool,
}

impl Claims {
    /// The most claims that one batch has, so that a flood on one port cannot keep the agent from everything else: what it
    /// does about so many that are new takes it a fraction of a millisecond.
    pub const BATCH: usize = 32;

    pub(super) fn of_rings(contradictions: RingBuf<MapData>, news: RingBuf<MapData>) -> io::Result<Self> {
        let rings = Rings { contradictions: registered(contradictions)?, news: registered(news)? };
        Ok(Self { source: Source::Rings(Box::new(rings)), unreadable: 0 })
    }

    #[expect(unsafe_code, reason = "tokio has to be told that the file descriptor stays the same")]
    pub(super) fn of_ear(hearing: Arc<Hearing>) -> io::Result<Self> {
        // SAFETY: the file descriptor is owned by what is shared here, is kept open by it and never replaced.
        let ear = unsafe { AsyncFd::register_with_interest(Shared(hearing), Interest::READABLE) }?;
        Ok(Self { source: Source::Ear(ear), unreadable: 0 })
    }

    /// The next claims: at least one, at most [`BATCH`](Self::BATCH). Waits until there are some.
    ///
    /// Cancel safe: a call that is dropped before it is done has taken nothing that it could have returned.
    ///
    /// # Errors
    /// The runtime can no longer wait, or the kernel refuses to be asked.
    pub async fn next_batch(&mut self) -> io::Result<Vec<Claim>> {
        loop {
            let records = self.source.next().await?;
            let count = records.len();
            let claims: Vec<_> = records.into_iter().flatten().collect();
            self.unreadable += (count - claims.len()) as u64;
            if !claims.is_empty() {
                return Ok(claims);
            }
            // A flood of what is not to be told leaves others their turn, too.
            tokio::task::yield_now().await;
        }
    }

    /// Records so far that this version cannot read. Anything but 0 is a fault of dupip.
    #[must_use]
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

impl Source {
    async fn next(&mut self) -> io::Result<Vec<Option<Claim>>> {
        match self {
            Self::Rings(rings) => rings.next().await,
            Self::Ear(ear) => look(ear, listen).await,
        }
    }
}

impl Rings {
    async fn next(&mut self) -> io::Result<Vec<Option<Claim>>> {
        // The runtime may take a while to notice, and there may always be news.
        let Batch { records, .. } = drain(self.contradictions.get_mut());
        if !records.is_empty() {
            return Ok(records);
        }
        tokio::select! {
            biased;
            records = look(&mut self.contradictions, |ring| Ok(drain(ring))) => records,
            records = look(&mut self.news, |ring| Ok(drain(ring))) => records,
        }
    }
}

#[expect(unsafe_code, reason = "tokio has to be told that the file descriptor stays the same")]
fn registered(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring buffer owns the map's file descriptor, keeps it open and never replaces it.
    Ok(unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?)
}

/// Waits until there may be something, and looks.
async fn look<T: AsRawFd>(
    source: &mut AsyncFd<T>,
    look: impl FnOnce(&mut T) -> io::Result<Batch>,
) -> io::Result<Vec<Option<Claim>>> {
    let mut ready = source.readable_mut().await?;
    let Batch { records, goes_on } = look(ready.get_inner_mut())?;
    // Only who has emptied it is woken again.
    if !goes_on {
        ready.clear_ready();
    }
    Ok(records)
}

fn drain(ring: &mut RingBuf<MapData>) -> Batch {
    let records: Vec<_> =
        std::iter::from_fn(|| ring.next().map(|record| captured(&record))).take(Claims::BATCH).collect();
    Batch { goes_on: records.len() == Claims::BATCH, records }
}

fn listen(ear: &mut Shared) -> io::Result<Batch> {
    let heard = ear.0.read(Duration::ZERO)?;
    Ok(Batch { goes_on: heard.is_some(), records: heard.unwrap_or_default().into_iter().map(Some).collect() })
}

pub(super) fn captured(record: &[u8]) -> Option<Claim> {
    let event = ClaimEvent::from_bytes(record)?;
    claim_of(event.tapped(), &event.claim()?)
}

/// A claim in the engine's terms; `None` if no interface can have heard it.
#[must_use]
pub fn claim_of(tapped: Tapped, claim: &detector_ebpf::Claim) -> Option<Claim> {
    Some(Claim {
        at: Timestamp::from_nanos(tapped.nanos),
        port: IfIndex::new(tapped.ifindex)?,
        tag: VlanId::new(claim.tag),
        ether_source: Mac(claim.ether_source),
        mac: Mac(claim.mac),
        address: Ipv4Addr::from(claim.address),
        evidence: evidence(claim.kind),
    })
}

const fn evidence(kind: Kind) -> Evidence {
    Evidence::Arp(match kind {
        Kind::Request => ClaimKind::Request,
        Kind::Reply => ClaimKind::Reply,
        Kind::GratuitousRequest => ClaimKind::GratuitousRequest,
        Kind::GratuitousReply => ClaimKind::GratuitousReply,
        Kind::Probe => ClaimKind::Probe,
        Kind::Ipv4 => return Evidence::Ipv4,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REPLY: [u8; 16] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 10, 8, 64, 2];

    fn record(port: u32, tag: u16, kind: u16, rest: &[u8]) -> Vec<u8> {
        [&7_u64.to_ne_bytes()[..], &port.to_ne_bytes(), &tag.to_ne_bytes(), &kind.to_ne_bytes(), rest].concat()
    }

    #[test]
    fn each_field_of_a_record_finds_its_place() {
        let claim = captured(&record(9, 12, 2, &REPLY)).unwrap();
        assert_eq!((claim.at.as_nanos(), claim.port.get(), claim.tag), (7, 9, VlanId::new(12)));
        assert_eq!((claim.ether_source, claim.mac), (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])));
        assert_eq!((claim.address, claim.evidence), (Ipv4Addr::new(10, 8, 64, 2), Evidence::Arp(ClaimKind::Reply)));
    }

    #[test]
    fn each_kind_of_a_record_is_evidence_of_its_own() {
        let evidence = |kind| captured(&record(9, 12, kind, &REPLY)).map(|claim| claim.evidence.as_str());
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 7, 0].map(evidence),
            [
                Some("request"),
                Some("reply"),
                Some("gratuitous_request"),
                Some("gratuitous_reply"),
                Some("probe"),
                Some("ipv4"),
                None,
                None
            ]
        );
    }

    #[test]
    fn a_record_of_another_version_is_not_read() {
        let longer = [&REPLY[..], &[0; 8]].concat();
        assert_eq!([&REPLY[..15], &longer, &[]].map(|rest| captured(&record(9, 12, 2, rest))), [None; 3]);
        assert_eq!(captured(&record(0, 12, 2, &REPLY)), None, "there is no interface 0");
        assert_eq!([0, 4095, 0xffff].map(|tag| captured(&record(9, tag, 2, &REPLY)).unwrap().tag), [None; 3]);
    }

    proptest! {
        #[test]
        fn any_record_is_read_without_a_panic(record in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(captured(&record).is_none() || record.len() == 32);
        }
    }
}

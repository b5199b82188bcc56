//! What the tap need not report again.

mod epochs;
mod index;

use std::{io, net::Ipv4Addr, os::fd::AsFd as _};

use aya::maps::{Array, HashMap, IterableMap as _, MapData, MapError};
use detector_ebpf::{Edition, KnownKey, KnownUse, OwnedKey};

use self::{epochs::Epochs, index::Index};
use super::{
    CaptureError,
    bpf::{self, Cursor},
};
use crate::{
    engine::{Heard, KnownClaim},
    net::{IfIndex, Mac, VlanId},
    time::{Span, Timestamp},
};

/// Entries that are read with one system call: what becomes of so many is known within a fraction of a millisecond.
const BATCH: usize = 512;

/// A program that was just noting a claim while the map was read may have noted it too late, with a time before: what is
/// that old is told once more.
const OVERLAP: Span = Span::from_secs(1);

/// The claims that say nothing new. The tap absorbs them: it counts them, notes when they were made, and does not report
/// them.
///
/// Linked to the [`Tap`](super::Tap) that it came with. With an [`Ear`](super::Ear), which absorbs nothing, it does nothing.
pub struct Known {
    kernel: Option<KnownMaps>,
    index: Index,
    epochs: Epochs,
    /// How many claims were removed from what the kernel has.
    removals: u32,
    read_at: Timestamp,
    reading: Option<Reading>,
}

/// How far the map has been read.
struct Reading {
    began: Timestamp,
    cursor: Option<Cursor>,
}

/// The maps of the program.
pub(super) struct KnownMaps {
    pub(super) claims: HashMap<MapData, [u8; size_of::<KnownKey>()], [u64; KnownUse::WORDS]>,
    pub(super) owners: HashMap<MapData, [u8; size_of::<OwnedKey>()], u32>,
    pub(super) edition: Array<MapData, u64>,
}

impl Known {
    /// The most claims that can be known at one time.
    pub const MAX: usize = detector_ebpf::MAX_KNOWN as usize;

    /// Nothing is known, and nothing will be.
    pub(super) fn nothing() -> Self {
        let (index, epochs) = (Index::default(), Epochs::default());
        Self { kernel: None, index, epochs, removals: 0, read_at: Timestamp::default(), reading: None }
    }

    pub(super) fn new(kernel: KnownMaps) -> Result<Self, MapError> {
        let mut known = Self { kernel: Some(kernel), ..Self::nothing() };
        known.publish()?;
        Ok(known)
    }

    /// How many claims are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has the tap absorb `claim` from now on, counting from zero; nothing changes if it does already. Whoever claims the
    /// same address at another port of `bridge` is reported even if its port says more than its share.
    ///
    /// # Errors
    /// As many claims are known as can be, or the kernel refuses: the tap goes on to report it.
    pub fn absorb(&mut self, claim: &KnownClaim, bridge: IfIndex) -> Result<(), CaptureError> {
        if self.index.bridge_of(claim) == Some(bridge) || self.kernel.is_none() {
            return Ok(());
        }
        self.forget(claim)?;
        self.change(|kernel, index| {
            kernel.claims.insert(key_of(claim).to_bytes(), [0; KnownUse::WORDS], 0)?;
            let owner = index.insert(*claim, bridge);
            kernel.set_owner(owner)
        })
    }

    /// Has the tap report `claim` when it is made next.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget(&mut self, claim: &KnownClaim) -> Result<(), CaptureError> {
        if self.index.bridge_of(claim).is_none() {
            return Ok(());
        }
        self.change(|kernel, _| removed(kernel.claims.remove(&key_of(claim).to_bytes())))?;
        // What the tap looked up before holds no longer.
        self.removals = self.removals.wrapping_add(1);
        self.publish().map_err(|source| CaptureError::Known { source })?;
        self.change(|kernel, index| index.remove(claim).map_or(Ok(()), |owner| kernel.set_owner(owner)))
    }

    /// Has the tap report whatever is claimed at `port`. To be called when a port goes, and before the tap is attached to
    /// one that comes: the interface's index may have been another's.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget_port(&mut self, port: IfIndex) -> Result<(), CaptureError> {
        self.index.of_port(port).iter().try_for_each(|claim| self.forget(claim))
    }

    /// Which claims were made again since this was last asked, all at once; see [`begin_to_read`](Self::begin_to_read).
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&mut self, now: Timestamp) -> Result<Vec<Heard>, CaptureError> {
        self.begin_to_read(now)?;
        let mut all = Vec::new();
        while let Some(some) = self.read_some()? {
            all.extend(some);
        }
        Ok(all)
    }

    /// Begins to read which claims were made again since this was last called; what was made just before that may be told
    /// once more. Begins a new epoch. A reading that is under way begins anew.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn begin_to_read(&mut self, now: Timestamp) -> Result<(), CaptureError> {
        if self.kernel.is_none() || self.is_empty() {
            return Ok(());
        }
        self.epochs.advance(now);
        self.publish().map_err(|source| CaptureError::Known { source })?;
        self.reading = Some(Reading { began: now, cursor: None });
        Ok(())
    }

    /// Some of them, since there may be many; `None` when all are read, or nobody has begun to.
    ///
    /// # Errors
    /// The kernel refuses, and the reading ends.
    pub fn read_some(&mut self) -> Result<Option<Vec<Heard>>, CaptureError> {
        let (Some(kernel), Some(Reading { began, cursor })) = (&self.kernel, self.reading.take()) else {
            return Ok(None);
        };
        let (epochs, since) = (&self.epochs, self.read_at - OVERLAP);
        let is_news = |noted: &KnownUse| noted.last_arp > since.as_nanos() || epochs.is_recent(noted.epoch);
        let mut heard = Vec::new();
        let read = kernel.read_batch(cursor, |entries| {
            let news = entries.filter(|(_, noted)| is_news(noted));
            heard.extend(news.filter_map(|(key, noted)| heard_of(&key, &noted, epochs, began)));
        });
        let next = read.map_err(|error| CaptureError::Known { source: MapError::IoError(error) })?;
        match next {
            Some(_) => self.reading = Some(Reading { began, cursor: next }),
            None => self.read_at = began,
        }
        Ok(Some(heard))
    }

    /// Whether there is more to read.
    #[must_use]
    pub const fn is_being_read(&self) -> bool {
        self.reading.is_some()
    }

    /// Has the tap go by the current edition.
    fn publish(&mut self) -> Result<(), MapError> {
        let edition = Edition { epoch: self.epochs.current(), removals: self.removals };
        self.kernel.as_mut().map_or(Ok(()), |kernel| kernel.edition.set(0, edition.to_word(), 0))
    }

    fn change(
        &mut self,
        change: impl FnOnce(&mut KnownMaps, &mut Index) -> Result<(), MapError>,
    ) -> Result<(), CaptureError> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        change(kernel, &mut self.index).map_err(|source| CaptureError::Known { source })
    }
}

impl KnownMaps {
    fn set_owner(&mut self, (owned, owner): (OwnedKey, Option<u32>)) -> Result<(), MapError> {
        match owner {
            Some(owner) => self.owners.insert(owned.to_bytes(), owner, 0),
            None => removed(self.owners.remove(&owned.to_bytes())),
        }
    }

    fn read_batch(
        &self,
        cursor: Option<Cursor>,
        tell: impl FnOnce(&mut dyn Iterator<Item = (KnownKey, KnownUse)>),
    ) -> io::Result<Option<Cursor>> {
        let (mut keys, mut values) = (vec![[0; _]; BATCH], vec![[0; _]; BATCH]);
        let (count, next) = bpf::map_lookup_batch(self.claims.map().fd().as_fd(), cursor, &mut keys, &mut values)?;
        let entries = keys.iter().zip(&values).take(count);
        tell(&mut entries.map(|(key, value)| (KnownKey::from_bytes(*key), KnownUse::from_words(*value))));
        Ok(next)
    }
}

/// That it was not there is as good.
fn removed(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        done => done,
    }
}

fn key_of(claim: &KnownClaim) -> KnownKey {
    KnownKey {
        ifindex: claim.port.get(),
        address: claim.address.octets(),
        tag: claim.tag.map_or(0, VlanId::get),
        mac: claim.mac.0,
    }
}

fn heard_of(key: &KnownKey, noted: &KnownUse, epochs: &Epochs, now: Timestamp) -> Option<Heard> {
    Some(Heard {
        claim: KnownClaim {
            port: IfIndex::new(key.ifindex)?,
            tag: VlanId::new(key.tag),
            mac: Mac(key.mac),
            address: Ipv4Addr::from(key.address),
        },
        last_arp: (noted.last_arp > 0).then_some(Timestamp::from_nanos(noted.last_arp)),
        last_ipv4: epochs.latest(noted.epoch, now),
        hits: noted.hits,
    })
}

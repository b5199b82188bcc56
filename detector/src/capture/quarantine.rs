//! What the tap does not let on.

use std::{collections::BTreeSet, net::Ipv4Addr};

use aya::maps::{HashMap, MapData, MapError};
use detector_ebpf::QuarantineKey;
use rustix::io::Errno;

use super::{CaptureError, error::map_errno};
use crate::net::{Contained, IfIndex, VlanId};

/// The map of the program.
pub(super) type QuarantineMap = HashMap<MapData, [u8; size_of::<QuarantineKey>()], u64>;

/// What is contained: the tap drops every frame by which a port claims an address that is in quarantine there, ARP by its
/// sender field and IPv4 by its source. It reports and counts them as all others.
///
/// What is contained must not be [`Known`](super::Known), since the tap does not look a known claim up here. At a port where
/// the sources of packets are not watched, IPv4 goes on until the tap was told to
/// [guard](super::Listener::guard) it.
///
/// Linked to the [`Tap`](super::Tap) that it came with. With an [`Ear`](super::Ear) nothing can be contained. No call takes
/// longer than a few system calls for each entry that it is about.
pub struct Quarantine {
    kernel: Option<QuarantineMap>,
    entries: BTreeSet<Contained>,
}

impl Quarantine {
    /// The most addresses that can be contained at one time.
    pub const MAX: usize = detector_ebpf::MAX_QUARANTINE as usize;

    /// Nothing is contained, and nothing can be.
    pub(super) const fn impossible() -> Self {
        Self { kernel: None, entries: BTreeSet::new() }
    }

    /// With what the map has already, if it was kept.
    pub(super) fn new(kernel: QuarantineMap) -> Result<Self, MapError> {
        let keys: Vec<_> = kernel.keys().collect::<Result<_, _>>()?;
        let entries = keys.into_iter().filter_map(|key| contained_by(QuarantineKey::from_bytes(key))).collect();
        Ok(Self { kernel: Some(kernel), entries })
    }

    /// Whether anything can be contained here.
    #[must_use]
    pub const fn can_contain(&self) -> bool {
        self.kernel.is_some()
    }

    /// How many addresses are contained.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is contained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether anything is contained at `port`, so that the tap has to guard it.
    #[must_use]
    pub fn is_any_at(&self, port: IfIndex) -> bool {
        self.at(port).next().is_some()
    }

    /// Has the tap drop what claims `entry` from now on, counting from zero; nothing changes if it does already.
    ///
    /// # Errors
    /// [`CaptureError::CannotContain`] without a tap, [`CaptureError::QuarantineFull`], or the kernel refuses. Then the
    /// frames go on.
    pub fn contain(&mut self, entry: &Contained) -> Result<(), CaptureError> {
        let kernel = self.kernel.as_mut().ok_or(CaptureError::CannotContain)?;
        if self.entries.contains(entry) {
            return Ok(());
        }
        kernel.insert(key_of(entry).to_bytes(), 0, 0).map_err(refused)?;
        self.entries.insert(*entry);
        Ok(())
    }

    /// Lets `entry` go on from now on. Returns whether it was contained.
    ///
    /// # Errors
    /// The kernel refuses, and it stays contained.
    pub fn release(&mut self, entry: &Contained) -> Result<bool, CaptureError> {
        let Some(kernel) = self.kernel.as_mut().filter(|_| self.entries.contains(entry)) else { return Ok(false) };
        match kernel.remove(&key_of(entry).to_bytes()) {
            // That somebody else removed it is as good.
            Ok(()) | Err(MapError::KeyNotFound) => Ok(self.entries.remove(entry)),
            Err(error) => Err(refused(error)),
        }
    }

    /// Lets everything at `port` go on. To be called when a port goes: the interface's index may become another's.
    ///
    /// # Errors
    /// The kernel refuses, and what is left stays contained.
    pub fn release_port(&mut self, port: IfIndex) -> Result<(), CaptureError> {
        let entries: Vec<_> = self.at(port).copied().collect();
        entries.iter().try_for_each(|entry| self.release(entry).map(drop))
    }

    /// What is contained, and how many frames of each were dropped.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn list(&self) -> Result<Vec<(Contained, u64)>, CaptureError> {
        let Some(kernel) = &self.kernel else { return Ok(Vec::new()) };
        let dropped = |entry: &Contained| kernel.get(&key_of(entry).to_bytes(), 0).map_err(refused);
        self.entries.iter().map(|entry| Ok((*entry, dropped(entry)?))).collect()
    }

    /// Whether what claims `entry` is dropped.
    #[must_use]
    pub fn is_contained(&self, entry: &Contained) -> bool {
        self.entries.contains(entry)
    }

    /// Where anything is contained.
    pub(super) fn ports(&self) -> BTreeSet<IfIndex> {
        self.entries.iter().map(|entry| entry.port).collect()
    }

    fn at(&self, port: IfIndex) -> impl Iterator<Item = &Contained> {
        let first = Contained { port, tag: None, address: Ipv4Addr::UNSPECIFIED };
        self.entries.range(first..).take_while(move |entry| entry.port == port)
    }
}

fn refused(source: MapError) -> CaptureError {
    match map_errno(&source) {
        Some(Errno::TOOBIG) => CaptureError::QuarantineFull,
        _ => CaptureError::Quarantine { source },
    }
}

const fn key_of(entry: &Contained) -> QuarantineKey {
    let tag = match entry.tag {
        Some(tag) => tag.get(),
        None => 0,
    };
    QuarantineKey::new(entry.port.get(), tag, entry.address.octets())
}

fn contained_by(key: QuarantineKey) -> Option<Contained> {
    let port = IfIndex::new(key.ifindex)?;
    Some(Contained { port, tag: VlanId::new(key.tag), address: Ipv4Addr::from(key.address) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_contained_and_its_key_are_one() {
        for tag in [None, VlanId::new(1), VlanId::new(4094)] {
            let entry = Contained { port: IfIndex::new(70_000).unwrap(), tag, address: Ipv4Addr::new(10, 8, 64, 2) };
            assert_eq!(contained_by(key_of(&entry)), Some(entry));
        }
    }

    #[test]
    fn without_a_tap_nothing_can_be_contained() {
        let mut quarantine = Quarantine::impossible();
        let port = IfIndex::new(3).unwrap();
        let entry = Contained { port, tag: None, address: Ipv4Addr::new(10, 8, 64, 2) };
        let error = quarantine.contain(&entry).unwrap_err();
        assert!(matches!(error, CaptureError::CannotContain) && error.to_string().contains("needs eBPF"), "{error}");
        assert!(!quarantine.can_contain() && !quarantine.is_any_at(port) && quarantine.list().unwrap().is_empty());
        assert!(!quarantine.release(&entry).unwrap());
        quarantine.release_port(port).unwrap();
    }
}

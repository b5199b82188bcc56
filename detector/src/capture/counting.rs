//! What is counted at each interface.

use std::collections::BTreeMap;

use aya::{
    Ebpf, Pod,
    maps::{MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use detector_ebpf::{PORT_SLOTS, PORTS, TapCounters, TappedPort};
use tracing::debug;

use super::tap::take_map;
use crate::net::IfIndex;

type Words = [u64; TappedPort::WORDS];

/// The counters of the interfaces that the tap listens at, as the kernel has them: in slots that it finds fast, as far as
/// each interface has one for itself.
pub(super) struct Counting {
    slots: PerCpuArray<MapData, Words>,
    others: PerCpuHashMap<MapData, u32, Words>,
    /// Whose slots are taken.
    taken: BTreeMap<u32, IfIndex>,
}

impl Counting {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        Ok(Self { slots: take_map(ebpf, PORT_SLOTS)?, others: take_map(ebpf, PORTS)?, taken: BTreeMap::new() })
    }

    /// Counts from zero at `port`, of `bridge`. To be called before the tap is attached there.
    pub(super) fn begin(&mut self, port: IfIndex, bridge: IfIndex) -> Result<(), MapError> {
        let slot = TappedPort::slot(port.get());
        let zero = on_each_cpu(TappedPort::new(port.get(), bridge.get()).to_words())?;
        match self.taken.get(&slot) {
            Some(other) if *other != port => self.others.insert(port.get(), zero, 0),
            _ => {
                self.slots.set(slot, zero, 0)?;
                self.taken.insert(slot, port);
                Ok(())
            }
        }
    }

    /// Counts no longer at `port`. To be called when the tap is there no longer.
    pub(super) fn end(&mut self, port: IfIndex) {
        let ended = match self.slot(port) {
            Some(slot) => {
                self.taken.remove(&slot);
                on_each_cpu([0; _]).and_then(|nothing| self.slots.set(slot, nothing, 0))
            }
            None => self.others.remove(&port.get()),
        };
        if let Err(error) = ended {
            debug!(event = "no_counters", %port, %error, "the interface had no counters");
        }
    }

    /// What was counted at `port` since it began; `None` if it did not.
    pub(super) fn read(&self, port: IfIndex) -> Option<TapCounters> {
        let per_cpu = match self.slot(port) {
            Some(slot) => self.slots.get(&slot, 0),
            None => self.others.get(&port.get(), 0),
        };
        let mut sum = TapCounters::default();
        per_cpu.ok()?.iter().for_each(|words| sum += TappedPort::from_words(*words).counters);
        Some(sum)
    }

    fn slot(&self, port: IfIndex) -> Option<u32> {
        let slot = TappedPort::slot(port.get());
        (self.taken.get(&slot) == Some(&port)).then_some(slot)
    }
}

fn on_each_cpu<T: Pod>(value: T) -> Result<PerCpuValues<T>, MapError> {
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    Ok(PerCpuValues::try_from(vec![value; cpus])?)
}

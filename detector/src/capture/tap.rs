//! The program and where it listens.

use std::{collections::BTreeMap, io};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapData, MapError, MapType, PerCpuHashMap, PerCpuValues, RingBuf},
    programs::{ProgramError, ProgramType, SchedClassifier},
    sys::{is_map_supported, is_program_supported},
    util::nr_cpus,
};
use detector_ebpf::{COUNTERS, EVENTS, PROGRAM, RING_BYTES, TapCounters};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::{
    CaptureError, Claims, Hook, Side,
    hook::{Attached, name_of},
    kernel_log,
};
use crate::net::IfIndex;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/arp_tap"));

/// How to load the tap.
#[derive(Clone, Copy, Debug)]
pub struct TapSettings {
    /// How it hooks into interfaces.
    pub hook: Hook,
    /// The ring buffer's size in bytes; the kernel takes powers of two of at least a page, anything else is rounded up.
    pub ring_bytes: u32,
}

impl Default for TapSettings {
    fn default() -> Self {
        Self { hook: Hook::Auto, ring_bytes: RING_BYTES }
    }
}

/// The ARP tap, loaded, and the interfaces that it listens at.
///
/// It works in the network namespace of the thread that calls it. Dropped, it listens nowhere.
pub struct Tap {
    ebpf: Ebpf,
    counters: PerCpuHashMap<MapData, u32, [u64; TapCounters::WORDS]>,
    hook: Hook,
    attached: BTreeMap<IfIndex, Attached>,
    log: Option<AbortHandle>,
}

impl Tap {
    /// Loads the program into the kernel, listening nowhere yet. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel lacks something, the process lacks a capability, or the kernel refuses the program.
    pub fn load(settings: TapSettings) -> Result<(Self, Claims), CaptureError> {
        // Before Linux 5.11 maps count as locked memory, of which a process has little.
        let unlimited = Rlimit { current: None, maximum: None };
        setrlimit(Resource::Memlock, unlimited).unwrap_or_else(|errno| debug!(%errno, "locked memory stays limited"));
        require_kernel()?;
        let hook = settings.hook.choose()?;
        let mut ebpf = load_object(settings.ring_bytes).map_err(CaptureError::load)?;
        program(&mut ebpf).and_then(SchedClassifier::load).map_err(CaptureError::load)?;
        let counters = take_map(&mut ebpf, COUNTERS).map_err(CaptureError::load)?;
        let ring: RingBuf<_> = take_map(&mut ebpf, EVENTS).map_err(CaptureError::load)?;
        let claims = Claims::new(ring).map_err(CaptureError::Wait)?;
        let log = kernel_log::forward(&mut ebpf);
        Ok((Self { ebpf, counters, hook, attached: BTreeMap::new(), log }, claims))
    }

    /// How it hooks into interfaces; never [`Hook::Auto`].
    #[must_use]
    pub const fn hook(&self) -> Hook {
        self.hook
    }

    /// Listens at `port` too, counting from zero, before whatever other programs are there.
    ///
    /// An interface at which it listens already is attached anew: its index may have gone to another interface meanwhile.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses. The tap does not listen there then.
    pub fn attach(&mut self, port: IfIndex, side: Side) -> Result<(), CaptureError> {
        self.detach(port)?;
        let interface =
            name_of(port).map_err(|errno| CaptureError::attach(port.to_string(), io::Error::from(errno)))?;
        let zero = self.zero_counters(port);
        zero.map_err(|source| CaptureError::Count { interface: interface.clone(), source })?;
        let attached = program(&mut self.ebpf).and_then(|program| self.hook.attach(program, &interface, side));
        match attached {
            Ok(attached) => {
                self.attached.insert(port, attached);
                Ok(())
            }
            Err(error) => {
                self.close_counters(port);
                Err(CaptureError::attach(interface, error))
            }
        }
    }

    /// Listens at `port` no longer, and returns what was counted there; `None` if it did not listen. The interface may be
    /// gone.
    ///
    /// # Errors
    /// The kernel refuses, and the tap still listens.
    pub fn detach(&mut self, port: IfIndex) -> Result<Option<TapCounters>, CaptureError> {
        let Some(attached) = self.attached.get(&port) else {
            return Ok(None);
        };
        attached.detach(port)?;
        self.attached.remove(&port);
        let counters = self.counters(port);
        self.close_counters(port);
        Ok(counters)
    }

    /// What was counted at `port` since it was attached; `None` if the tap does not listen there.
    #[must_use]
    pub fn counters(&self, port: IfIndex) -> Option<TapCounters> {
        let per_cpu = self.counters.get(&port.get(), 0).ok()?;
        let mut sum = TapCounters::default();
        per_cpu.iter().for_each(|words| sum += TapCounters::from_words(*words));
        Some(sum)
    }

    fn zero_counters(&mut self, port: IfIndex) -> Result<(), MapError> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let zeros = PerCpuValues::try_from(vec![[0; TapCounters::WORDS]; cpus])?;
        self.counters.insert(port.get(), zeros, 0)
    }

    fn close_counters(&mut self, port: IfIndex) {
        if let Err(error) = self.counters.remove(&port.get()) {
            debug!(%port, %error, "the interface had no counters");
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        for port in self.attached.keys().copied().collect::<Vec<_>>() {
            if let Err(error) = self.detach(port) {
                warn!(%error, "the ARP tap stays");
            }
        }
        self.log.iter().for_each(AbortHandle::abort);
    }
}

fn require_kernel() -> Result<(), CaptureError> {
    require(
        is_program_supported(ProgramType::SchedClassifier).map_err(CaptureError::load)?,
        "traffic control programs (BPF_PROG_TYPE_SCHED_CLS)",
        "Linux 4.1 has them, built with CONFIG_NET_CLS_BPF",
    )?;
    require(
        is_map_supported(MapType::RingBuf).map_err(MapError::from).map_err(CaptureError::load)?,
        "ring buffers for eBPF (BPF_MAP_TYPE_RINGBUF)",
        "Linux 5.8 has them",
    )
}

fn require(supported: bool, feature: &'static str, remedy: &'static str) -> Result<(), CaptureError> {
    if supported { Ok(()) } else { Err(CaptureError::Unsupported { feature, remedy }) }
}

fn load_object(ring_bytes: u32) -> Result<Ebpf, EbpfError> {
    let mut loader = EbpfLoader::new();
    // The program reads no kernel structure, so it needs no BTF of the kernel's, which takes long to parse.
    loader.btf(None).map_max_entries(EVENTS, ring_bytes);
    kernel_log::set_level(&mut loader);
    loader.load(OBJECT)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, ProgramError> {
    let missing = || ProgramError::InvalidName { name: PROGRAM.to_owned() };
    ebpf.program_mut(PROGRAM).ok_or_else(missing)?.try_into()
}

fn take_map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T, MapError> {
    ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_may_live_in_any_task() {
        fn is_send<T: Send>() {}
        is_send::<Tap>();
        is_send::<Claims>();
    }
}

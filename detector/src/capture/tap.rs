//! The program and where it listens.

use std::{collections::BTreeMap, io};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapData, MapError, MapType, PerCpuHashMap, PerCpuValues},
    programs::{ProgramError, ProgramType, SchedClassifier},
    sys::{is_map_supported, is_program_supported},
    util::nr_cpus,
};
use detector_ebpf::{
    ARP_PROGRAM, EPOCH, EVENTS, IPV4_PROGRAM, KNOWN, Limit, NEWS_LIMIT, OWNERS, PORTS, RING_BYTES, TapCounters,
    TappedPort,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::{
    CaptureError, Claims, Hook, Known, Post,
    hook::{Attached, name_of},
    kernel_log,
    known::KnownMaps,
};
use crate::net::IfIndex;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/arp_tap"));

/// How to load the tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapSettings {
    /// How it hooks into interfaces.
    pub hook: Hook,
    /// The ring buffer's size in bytes; the kernel takes powers of two of at least a page, anything else is rounded up.
    pub ring_bytes: u32,
    /// How many claims with news are reported per second, of each port (and each CPU that its frames come in by); 0 sets no
    /// limit. What is more is counted ([`TapCounters::limited`]).
    pub rate: u32,
    /// How many of them are reported at once, after a while without any; at least 1.
    pub burst: u32,
    /// Whether the sources of IPv4 packets may be watched at all.
    pub watch_ipv4: bool,
}

impl TapSettings {
    pub(super) const fn limit(&self) -> Limit {
        Limit::new(self.rate, self.burst)
    }
}

impl Default for TapSettings {
    fn default() -> Self {
        Self { hook: Hook::Auto, ring_bytes: RING_BYTES, rate: 1000, burst: 1024, watch_ipv4: true }
    }
}

/// The ARP tap, loaded, and the interfaces that it listens at.
///
/// It works in the network namespace of the thread that calls it. Dropped, it listens nowhere.
pub struct Tap {
    ebpf: Ebpf,
    ports: PerCpuHashMap<MapData, u32, [u64; TappedPort::WORDS]>,
    hook: Hook,
    watch_ipv4: bool,
    attached: BTreeMap<IfIndex, Attached>,
    log: Option<AbortHandle>,
}

impl Tap {
    /// Loads the program into the kernel, listening nowhere yet. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel lacks something, the process lacks a capability, or the kernel refuses the program.
    pub fn load(settings: TapSettings) -> Result<(Self, Claims, Known), CaptureError> {
        // Before Linux 5.11 maps count as locked memory, of which a process has little.
        let unlimited = Rlimit { current: None, maximum: None };
        setrlimit(Resource::Memlock, unlimited).unwrap_or_else(|errno| debug!(%errno, "locked memory stays limited"));
        require_kernel()?;
        let (hook, watch_ipv4) = (settings.hook.choose()?, settings.watch_ipv4);
        let mut ebpf = load_object(&settings).map_err(CaptureError::load)?;
        for name in [ARP_PROGRAM].into_iter().chain(watch_ipv4.then_some(IPV4_PROGRAM)) {
            program(&mut ebpf, name).and_then(SchedClassifier::load).map_err(CaptureError::load)?;
        }
        let ring = take_map(&mut ebpf, EVENTS).map_err(CaptureError::load)?;
        let claims = Claims::of_ring(ring).map_err(CaptureError::Wait)?;
        let known = known_maps(&mut ebpf).and_then(Known::new).map_err(CaptureError::load)?;
        let ports = take_map(&mut ebpf, PORTS).map_err(CaptureError::load)?;
        let log = kernel_log::forward(&mut ebpf);
        Ok((Self { ebpf, ports, hook, watch_ipv4, attached: BTreeMap::new(), log }, claims, known))
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
    pub fn attach(&mut self, port: IfIndex, post: Post) -> Result<(), CaptureError> {
        self.detach(port)?;
        let post = Post { watch_ipv4: post.watch_ipv4 && self.watch_ipv4, ..post };
        let interface =
            name_of(port).map_err(|errno| CaptureError::attach(port.to_string(), io::Error::from(errno)))?;
        let zero = self.begin_counting(port, post.bridge);
        zero.map_err(|source| CaptureError::Count { interface: interface.clone(), source })?;
        let program = program(&mut self.ebpf, post.program());
        let attached = program.and_then(|program| self.hook.attach(program, (port, &interface), post.side));
        match attached {
            Ok(attached) => {
                self.attached.insert(port, attached);
                Ok(())
            }
            Err(error) => {
                self.end_counting(port);
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
        self.end_counting(port);
        Ok(counters)
    }

    /// What was counted at `port` since it was attached; `None` if the tap does not listen there.
    #[must_use]
    pub fn counters(&self, port: IfIndex) -> Option<TapCounters> {
        let per_cpu = self.ports.get(&port.get(), 0).ok()?;
        let mut sum = TapCounters::default();
        per_cpu.iter().for_each(|words| sum += TappedPort::from_words(*words).counters);
        Some(sum)
    }

    fn begin_counting(&mut self, port: IfIndex, bridge: IfIndex) -> Result<(), MapError> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let on_each = PerCpuValues::try_from(vec![TappedPort::new(bridge.get()).to_words(); cpus])?;
        self.ports.insert(port.get(), on_each, 0)
    }

    fn end_counting(&mut self, port: IfIndex) {
        if let Err(error) = self.ports.remove(&port.get()) {
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

fn load_object(settings: &TapSettings) -> Result<Ebpf, EbpfError> {
    let limit = settings.limit().to_words();
    let mut loader = EbpfLoader::new();
    // The program reads no kernel structure, so it needs no BTF of the kernel's, which takes long to parse.
    loader.btf(None).map_max_entries(EVENTS, settings.ring_bytes).override_global(NEWS_LIMIT, &limit, true);
    kernel_log::set_level(&mut loader);
    loader.load(OBJECT)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, ProgramError> {
    let missing = || ProgramError::InvalidName { name: name.to_owned() };
    ebpf.program_mut(name).ok_or_else(missing)?.try_into()
}

fn known_maps(ebpf: &mut Ebpf) -> Result<KnownMaps, MapError> {
    Ok(KnownMaps { claims: take_map(ebpf, KNOWN)?, owners: take_map(ebpf, OWNERS)?, epoch: take_map(ebpf, EPOCH)? })
}

fn take_map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T, MapError> {
    ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_may_live_in_any_task() {
        fn is_send<T: Send>() {}
        is_send::<Tap>();
        is_send::<Claims>();
        is_send::<Known>();
    }
}

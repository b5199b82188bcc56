//! The program and where it listens.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapData, MapError, MapType, PerCpuHashMap, PerCpuValues, RingBuf},
    programs::{
        LinkOrder, ProgramError, ProgramType, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError},
    },
    sys::{is_map_supported, is_program_supported},
    util::nr_cpus,
};
use detector_ebpf::{COUNTERS, EVENTS, PROGRAM, RING_BYTES, TapCounters};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketType, netdevice, socket},
    process::{Resource, Rlimit, setrlimit},
};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::{CaptureError, Claims, error::tc_errno, kernel_log};
use crate::net::IfIndex;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/arp_tap"));

/// The loopback device, which every network namespace has.
const LOOPBACK: &str = "lo";

/// How the tap hooks into an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// TCX where the kernel has it, else clsact.
    #[default]
    Auto,
    /// TCX links, from Linux 6.6. They are gone with the process.
    Tcx,
    /// Filters of the clsact queueing discipline. They outlive a process that is killed; the next one removes them.
    Clsact,
}

/// Which frames of an interface are heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What comes in by it: for bridge ports.
    Ingress,
    /// What the host says through it: for the bridge device itself.
    Egress,
}

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

/// The program at one interface.
enum Attached {
    /// Detached when the link is dropped.
    Tcx { _link: SchedClassifierLink },
    /// Detached by the filter's name. What the kernel gave back at the time, priority and handle, may be somebody else's
    /// by then, if the interface's index went to another interface.
    Clsact { side: TcAttachType },
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
        let hook = choose_hook(settings.hook)?;
        let mut ebpf = load_object(settings.ring_bytes).map_err(CaptureError::load)?;
        let log = kernel_log::forward(&mut ebpf);
        program(&mut ebpf).and_then(SchedClassifier::load).map_err(CaptureError::load)?;
        let counters = take_map(&mut ebpf, COUNTERS).map_err(CaptureError::load)?;
        let ring: RingBuf<_> = take_map(&mut ebpf, EVENTS).map_err(CaptureError::load)?;
        let claims = Claims::new(ring).map_err(CaptureError::Wait)?;
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
        match self.hook_in(&interface, side.into()) {
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
        match self.attached.get(&port) {
            Some(Attached::Clsact { side }) => remove_filters_at(port, *side)?,
            Some(Attached::Tcx { .. }) => {}
            None => return Ok(None),
        }
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

    fn hook_in(&mut self, interface: &str, side: TcAttachType) -> Result<Attached, ProgramError> {
        // What an agent that was killed left behind.
        remove_filters(interface, side)?;
        let program = program(&mut self.ebpf)?;
        if self.hook == Hook::Clsact {
            add_clsact(interface)?;
            let filter =
                program.attach_with_options(interface, side, TcAttachOptions::Netlink(NlOptions::default()))?;
            // Its destructor would remove whatever has this priority and handle by then.
            std::mem::forget(program.take_link(filter)?);
            return Ok(Attached::Clsact { side });
        }
        let link = program.attach_with_options(interface, side, TcAttachOptions::TcxOrder(LinkOrder::first()))?;
        Ok(Attached::Tcx { _link: program.take_link(link)? })
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

impl From<Side> for TcAttachType {
    fn from(side: Side) -> Self {
        match side {
            Side::Ingress => Self::Ingress,
            Side::Egress => Self::Egress,
        }
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

/// Asks the kernel, not its version: distributions have brought TCX to older kernels.
fn choose_hook(wanted: Hook) -> Result<Hook, CaptureError> {
    let has_tcx = || SchedClassifier::query_tcx(LOOPBACK, TcAttachType::Ingress).is_ok();
    match wanted {
        Hook::Auto => Ok(if has_tcx() { Hook::Tcx } else { Hook::Clsact }),
        Hook::Clsact => Ok(Hook::Clsact),
        Hook::Tcx => {
            require(has_tcx(), "TCX links (BPF_TCX_INGRESS)", "Linux 6.6 has them; clsact works on older kernels")?;
            Ok(Hook::Tcx)
        }
    }
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

/// The interface's name now: it can change, and aya takes nothing else.
fn name_of(port: IfIndex) -> Result<String, Errno> {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    netdevice::index_to_name(socket, port.get())
}

/// Adds the clsact queueing discipline. It stays when the tap goes: by then others may have hooked in there too.
fn add_clsact(interface: &str) -> Result<(), TcError> {
    match tc::qdisc_add_clsact(interface) {
        Err(error) if tc_errno(&error) == Some(Errno::EXIST) => Ok(()),
        done => done,
    }
}

fn remove_filters_at(port: IfIndex, side: TcAttachType) -> Result<(), CaptureError> {
    let refused = |interface, source| CaptureError::Detach { interface, source };
    match name_of(port) {
        Ok(interface) => remove_filters(&interface, side).map_err(|error| refused(interface, error)),
        Err(Errno::NODEV) => Ok(()),
        Err(errno) => Err(refused(port.to_string(), TcError::IoError(errno.into()))),
    }
}

/// Removes the tap's filters from the clsact discipline, by the program's name: nobody else's.
fn remove_filters(interface: &str, side: TcAttachType) -> Result<(), TcError> {
    match tc::qdisc_detach_program(interface, side, PROGRAM) {
        Err(TcError::IoError(error)) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if matches!(tc_errno(&error), Some(Errno::NODEV | Errno::NXIO)) => Ok(()),
        done => done,
    }
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

//! The program and where it listens.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapError, MapType},
    programs::{ProgramError, ProgramType, SchedClassifier},
    sys::{is_map_supported, is_program_supported},
};
use detector_ebpf::{
    ARP_PROGRAM, CONTRADICTIONS, EDITION, EVENTS, GUARD_PROGRAM, IPV4_PROGRAM, KNOWN, Limit, NEWS_LIMIT, OWNERS,
    QUARANTINE, RING_BYTES, TapCounters,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::{
    CaptureError, Claims, Hook, KeepQuarantine, Known, Post, Quarantine, Side,
    counting::Counting,
    hook::{Attached, end_filters, is_tapped, name_of},
    kernel_log,
    known::KnownMaps,
    vault::Vault,
};
use crate::net::IfIndex;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/arp_tap"));

/// How to load the tap.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// What becomes of the quarantine when the agent goes.
    pub keep_quarantine: KeepQuarantine,
}

impl TapSettings {
    pub(super) const fn limit(&self) -> Limit {
        Limit::new(self.rate, self.burst)
    }
}

impl Default for TapSettings {
    fn default() -> Self {
        Self {
            hook: Hook::Auto,
            ring_bytes: RING_BYTES,
            rate: 1000,
            burst: 1024,
            watch_ipv4: true,
            keep_quarantine: KeepQuarantine::Ignore,
        }
    }
}

/// The ARP tap, loaded, and the interfaces that it listens at.
///
/// It works in the network namespace of the thread that calls it. Dropped, it listens nowhere, but goes on to guard what is
/// in a [kept](KeepQuarantine) quarantine.
pub struct Tap {
    ebpf: Ebpf,
    counting: Counting,
    hook: Hook,
    watch_ipv4: bool,
    listening: BTreeMap<IfIndex, Listening>,
    /// Where something is in quarantine, whether it listens there or not.
    guarded: BTreeSet<IfIndex>,
    vault: Option<Vault>,
    log: Option<AbortHandle>,
}

/// The tap, and what comes with it.
pub struct Loaded {
    /// Says where it listens.
    pub tap: Tap,
    /// What it hears.
    pub claims: Claims,
    /// What it need not report again.
    pub known: Known,
    /// What it does not let on.
    pub quarantine: Quarantine,
}

/// The tap at one interface.
struct Listening {
    attached: Attached,
    post: Post,
    /// Whether its link is kept for the next agent.
    is_kept: bool,
}

impl Tap {
    /// Loads the program into the kernel, listening nowhere yet. To be called within a tokio runtime.
    ///
    /// A quarantine that was kept is taken over, as far as it is still in force: what is kept for an interface without a tap
    /// may be meant for another that had its index. Its ports are guarded from the start.
    ///
    /// # Errors
    /// The kernel lacks something, the process lacks a capability, or the kernel refuses the program; or the quarantine
    /// cannot be kept or taken over.
    pub fn load(settings: &TapSettings) -> Result<Loaded, CaptureError> {
        // Before Linux 5.11 maps count as locked memory, of which a process has little.
        let unlimited = Rlimit { current: None, maximum: None };
        setrlimit(Resource::Memlock, unlimited)
            .unwrap_or_else(|errno| debug!(event = "memory_limited", %errno, "locked memory stays limited"));
        require_kernel()?;
        let (hook, watch_ipv4) = (settings.hook.choose()?, settings.watch_ipv4);
        let vault = Vault::open(&settings.keep_quarantine)?;
        let mut ebpf = load_object(settings, vault.as_ref()).map_err(CaptureError::load)?;
        for name in [ARP_PROGRAM, GUARD_PROGRAM].into_iter().chain(watch_ipv4.then_some(IPV4_PROGRAM)) {
            program(&mut ebpf, name).and_then(SchedClassifier::load).map_err(CaptureError::load)?;
        }
        let mut ring = |name| take_map(&mut ebpf, name).map_err(CaptureError::load);
        let claims = Claims::of_rings(ring(CONTRADICTIONS)?, ring(EVENTS)?).map_err(CaptureError::Wait)?;
        let known = known_maps(&mut ebpf).and_then(Known::new).map_err(CaptureError::load)?;
        let mut quarantine = take_map(&mut ebpf, QUARANTINE).and_then(Quarantine::new).map_err(CaptureError::load)?;
        let guarded = take_over(&mut quarantine, vault.as_ref())?;
        let counting = Counting::new(&mut ebpf).map_err(CaptureError::load)?;
        let log = kernel_log::forward(&mut ebpf);
        let tap = Self { ebpf, counting, hook, watch_ipv4, listening: BTreeMap::new(), guarded, vault, log };
        Ok(Loaded { tap, claims, known, quarantine })
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
        self.attach_by(self.hook, port, post)
    }

    /// As [`attach`](Self::attach), for one of very many interfaces. A TCX link has the kernel wait until no CPU runs the old
    /// set of programs any more, some ten milliseconds for each; a filter of the clsact discipline listens within one. Where
    /// there can be one it is put there first, and [`settle`](Self::settle) puts the link in its place.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn attach_at_once(&mut self, port: IfIndex, post: Post) -> Result<(), CaptureError> {
        let is_kept = self.vault.as_ref().is_some_and(|vault| vault.link(port).is_some());
        if is_kept || self.attach_by(Hook::Clsact, port, post).is_err() {
            return self.attach(port, post);
        }
        Ok(())
    }

    /// Puts what belongs there in place of what [`attach_at_once`](Self::attach_at_once) has put at `port`. No frame passes
    /// unheard; those that come in until the filter is gone are heard twice. Does nothing where the tap is settled.
    ///
    /// # Errors
    /// The kernel refuses, and the filter stays.
    pub fn settle(&mut self, port: IfIndex) -> Result<(), CaptureError> {
        let is_unsettled = |listening: &&mut Listening| self.hook == Hook::Tcx && listening.attached.link().is_none();
        let Some(listening) = self.listening.get_mut(&port).filter(is_unsettled) else { return Ok(()) };
        let post = listening.post;
        let interface =
            name_of(port).map_err(|errno| CaptureError::attach(port.to_string(), io::Error::from(errno)))?;
        let program = program(&mut self.ebpf, post.program(self.guarded.contains(&port)));
        let attached = program.and_then(|program| self.hook.attach(program, (port, &interface), post.side, None));
        listening.attached = attached.map_err(|error| CaptureError::attach(interface, error))?;
        self.keep(port)
    }

    fn attach_by(&mut self, hook: Hook, port: IfIndex, post: Post) -> Result<(), CaptureError> {
        self.detach(port)?;
        let post = Post { watch_ipv4: post.watch_ipv4 && self.watch_ipv4, ..post };
        let interface =
            name_of(port).map_err(|errno| CaptureError::attach(port.to_string(), io::Error::from(errno)))?;
        let zero = self.counting.begin(port, post.bridge);
        zero.map_err(|source| CaptureError::Count { interface: interface.clone(), source })?;
        let kept = self.vault.as_ref().and_then(|vault| vault.link(port));
        let program = program(&mut self.ebpf, post.program(self.guarded.contains(&port)));
        let attached = program.and_then(|program| hook.attach(program, (port, &interface), post.side, kept));
        match attached {
            Ok(attached) => {
                self.listening.insert(port, Listening { attached, post, is_kept: false });
                self.keep(port).unwrap_or_else(
                    |error| warn!(event = "quarantine_not_kept", %port, %error, "the quarantine ends with the agent"),
                );
                Ok(())
            }
            Err(error) => {
                self.counting.end(port);
                Err(CaptureError::attach(interface, error))
            }
        }
    }

    /// Listens for what `post` says from now on, at an interface where it listens already: no frame passes in between, and
    /// the counts go on. Returns whether it does; if not, it has to be attached anew.
    ///
    /// # Errors
    /// The kernel refuses, and it listens as before.
    pub fn switch(&mut self, port: IfIndex, post: Post) -> Result<bool, CaptureError> {
        let post = Post { watch_ipv4: post.watch_ipv4 && self.watch_ipv4, ..post };
        let is_guarded = self.guarded.contains(&port);
        let Some(listening) = self.listening.get_mut(&port) else { return Ok(false) };
        if (listening.post.bridge, listening.post.side) != (post.bridge, post.side) {
            return Ok(false);
        }
        let program = program(&mut self.ebpf, post.program(is_guarded));
        let switched = program.and_then(|program| listening.attached.switch(program, port)).map_err(|error| {
            let interface = name_of(port).unwrap_or_else(|_| port.to_string());
            CaptureError::attach(interface, error)
        })?;
        if switched {
            listening.post = post;
        }
        Ok(switched)
    }

    /// Guards `port` from now on, or no longer: whatever it listens for there, it looks whether the sources of IPv4 packets
    /// are in quarantine, and if the quarantine is kept, it goes on to drop what is contained there when this process is
    /// gone, however that ends. Has no effect on ARP, which is looked up everywhere. To be called when the first address is
    /// contained at a port, and when the last one is released. Nothing changes if it is so already.
    ///
    /// # Errors
    /// The kernel refuses. It is to be tried again, since IPv4 goes on, or the quarantine does not outlive this process.
    pub fn guard(&mut self, port: IfIndex, is_guarded: bool) -> Result<(), CaptureError> {
        if is_guarded {
            self.guarded.insert(port)
        } else {
            self.guarded.remove(&port)
        };
        match self.listening.get(&port).map(|listening| listening.post) {
            // An interface that is another by now is detached next.
            Some(post) => self.switch(port, post).map(drop)?,
            None if !is_guarded => self.end_kept(port)?,
            None => {}
        }
        self.keep(port)
    }

    /// Has the kernel keep what guards `port`, if it is to be kept, or else keep it no longer.
    fn keep(&mut self, port: IfIndex) -> Result<(), CaptureError> {
        let (Some(vault), Some(listening)) = (&self.vault, self.listening.get_mut(&port)) else { return Ok(()) };
        match listening.attached.link().filter(|_| self.guarded.contains(&port)) {
            Some(_) if listening.is_kept => {}
            Some(link) => {
                vault.pin(port, link)?;
                listening.is_kept = true;
            }
            None => {
                vault.unpin(port)?;
                listening.is_kept = false;
            }
        }
        Ok(())
    }

    /// Removes what an agent before has kept for a port where this one does not listen.
    fn end_kept(&self, port: IfIndex) -> Result<(), CaptureError> {
        let Some(vault) = &self.vault else { return Ok(()) };
        vault.end(port)?;
        end_filters(port, Side::Ingress).map_err(|source| CaptureError::attach(port.to_string(), source))
    }

    /// Listens at `port` no longer, and returns what was counted there; `None` if it did not listen. The interface may be
    /// gone. It is guarded no longer, until it is attached again.
    ///
    /// # Errors
    /// The kernel refuses, and the tap still listens.
    pub fn detach(&mut self, port: IfIndex) -> Result<Option<TapCounters>, CaptureError> {
        let Some(listening) = self.listening.get(&port) else {
            return Ok(None);
        };
        listening.attached.detach(port)?;
        self.listening.remove(&port);
        if let Some(vault) = &self.vault {
            vault.unpin(port)?;
        }
        let counters = self.counters(port);
        self.counting.end(port);
        Ok(counters)
    }

    /// What was counted at `port` since it was attached; `None` if the tap does not listen there.
    #[must_use]
    pub fn counters(&self, port: IfIndex) -> Option<TapCounters> {
        self.counting.read(port)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let stays = |port: &IfIndex| self.vault.is_some() && self.guarded.contains(port);
        let (_, goes): (Vec<_>, Vec<_>) = self.listening.keys().copied().partition(stays);
        for port in goes {
            if let Err(error) = self.detach(port) {
                warn!(event = "tap_stays", %error, "the ARP tap stays");
            }
        }
        if let Some(vault) = self.vault.as_ref().filter(|_| self.guarded.is_empty()) {
            vault
                .remove()
                .unwrap_or_else(|error| warn!(event = "quarantine_stays", %error, "an empty quarantine stays"));
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

fn load_object(settings: &TapSettings, vault: Option<&Vault>) -> Result<Ebpf, EbpfError> {
    let limit = settings.limit().to_words();
    let mut loader = EbpfLoader::new();
    // The program reads no kernel structure, so it needs no BTF of the kernel's, which takes long to parse.
    loader.btf(None).map_max_entries(EVENTS, settings.ring_bytes).override_global(NEWS_LIMIT, &limit, true);
    if let Some(vault) = vault {
        loader.map_pin_path(QUARANTINE, vault.map_path());
    }
    kernel_log::set_level(&mut loader);
    loader.load(OBJECT)
}

/// Ends what is not in force any more, and returns the ports that are still guarded.
fn take_over(quarantine: &mut Quarantine, vault: Option<&Vault>) -> Result<BTreeSet<IfIndex>, CaptureError> {
    let gone = quarantine.ports().into_iter().filter(|port| !is_tapped(*port));
    gone.collect::<Vec<_>>().into_iter().try_for_each(|port| quarantine.release_port(port))?;
    let guarded = quarantine.ports();
    if let Some(vault) = vault {
        vault.ports().into_iter().filter(|port| !guarded.contains(port)).try_for_each(|port| vault.end(port))?;
    }
    Ok(guarded)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, ProgramError> {
    let missing = || ProgramError::InvalidName { name: name.to_owned() };
    ebpf.program_mut(name).ok_or_else(missing)?.try_into()
}

fn known_maps(ebpf: &mut Ebpf) -> Result<KnownMaps, MapError> {
    Ok(KnownMaps { claims: take_map(ebpf, KNOWN)?, owners: take_map(ebpf, OWNERS)?, edition: take_map(ebpf, EDITION)? })
}

pub(super) fn take_map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T, MapError> {
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
        is_send::<Quarantine>();
    }
}

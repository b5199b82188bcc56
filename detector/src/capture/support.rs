//! What the kernel can do for the tap, asked one by one: for whoever wants to know before it is needed.

use aya::{
    maps::{MapError, MapType},
    programs::{ProgramError, ProgramInfo, ProgramType, SchedClassifier, TcAttachType, loaded_programs},
    sys::{is_map_supported, is_program_supported},
};
use detector_ebpf::PROGRAMS;
use rustix::io::Errno;

use super::{CaptureError, Side, error::program_errno};

/// Something that the tap needs of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelFeature {
    /// Programs for traffic control (`BPF_PROG_TYPE_SCHED_CLS`, Linux 4.1).
    TcPrograms,
    /// Ring buffers (`BPF_MAP_TYPE_RINGBUF`, Linux 5.8).
    RingBuffer,
    /// TCX links (`BPF_TCX_INGRESS`, Linux 6.6). Without them the tap hooks in by clsact.
    Tcx,
}

/// A program at an interface, which sees the frames that the tap sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The kernel's number for it (`bpftool prog show id`).
    pub id: u32,
    /// Its name; empty if it has none.
    pub name: String,
}

impl Resident {
    /// Whether it is a tap of dupip.
    #[must_use]
    pub fn is_tap(&self) -> bool {
        PROGRAMS.contains(&self.name.as_str())
    }
}

impl KernelFeature {
    /// Whether the kernel has it. Asks the kernel, not its version: distributions bring new things to old kernels.
    ///
    /// # Errors
    /// [`CaptureError::NotPermitted`] if the kernel does not tell us, [`CaptureError::Unsupported`] if it has no eBPF at
    /// all.
    pub fn is_there(self) -> Result<bool, CaptureError> {
        match self {
            Self::TcPrograms => is_program_supported(ProgramType::SchedClassifier).map_err(CaptureError::load),
            Self::RingBuffer => is_map_supported(MapType::RingBuf).map_err(MapError::from).map_err(CaptureError::load),
            Self::Tcx => match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
                Err(error) if is_unknown(&error) => Ok(false),
                answer => answer.map(|_| true).map_err(CaptureError::load),
            },
        }
    }
}

/// The TCX programs at one side of `interface`, in the order in which they see a frame.
///
/// # Errors
/// When the kernel does not tell, or the interface is gone. A kernel without TCX has none.
pub fn tcx_programs(interface: &str, side: Side) -> Result<Vec<Resident>, CaptureError> {
    match SchedClassifier::query_tcx(interface, side.into()) {
        Ok((_, programs)) => Ok(programs
            .iter()
            .map(|program| Resident { id: program.id(), name: program.name_as_str().unwrap_or_default().to_owned() })
            .collect()),
        Err(error) if is_unknown(&error) => Ok(Vec::new()),
        Err(error) => Err(CaptureError::attach(interface.to_owned(), error)),
    }
}

/// The taps of dupip that are loaded, whoever has loaded them.
///
/// # Errors
/// When the kernel does not tell.
pub fn tap_programs() -> Result<Vec<Resident>, CaptureError> {
    let resident = |program: ProgramInfo| Resident {
        id: program.id(),
        name: program.name_as_str().unwrap_or_default().to_owned(),
    };
    let all = loaded_programs().map(|program| program.map(resident).map_err(CaptureError::load));
    all.filter(|program| program.as_ref().map_or(true, Resident::is_tap)).collect()
}

/// The kernel does not know what was asked for.
fn is_unknown(error: &ProgramError) -> bool {
    program_errno(error) == Some(Errno::INVAL)
}

//! Why there is no tap.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, tc::TcError},
};
use caps::{CapSet, Capability};
use rustix::io::Errno;

/// Why the tap cannot be loaded, or cannot listen at an interface.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The kernel is too old, or was built without something.
    #[error("this kernel has no {feature}, which the ARP tap needs: {remedy}")]
    Unsupported {
        /// What is missing.
        feature: &'static str,
        /// Which kernel has it.
        remedy: &'static str,
    },
    /// The kernel could, but this process may not.
    #[error(
        "not permitted to use eBPF: run dupip as root, or with the capabilities CAP_BPF and CAP_NET_ADMIN (if it has them, \
         a container's seccomp profile or a security module forbids the bpf system call)"
    )]
    NotPermitted,
    /// The kernel's verifier does not let a process like this one do what the program does.
    #[error(
        "this kernel's verifier does not let the ARP tap in: before Linux 6.11 it takes the capability CAP_PERFMON, too"
    )]
    NotTrusted {
        /// What the verifier said.
        #[source]
        source: EbpfError,
    },
    /// The kernel refused the program or a map.
    #[error("cannot load the ARP tap")]
    Load(#[source] EbpfError),
    /// The runtime cannot wait for the tap's ring buffers.
    #[error("cannot wait for the ARP tap's events")]
    Wait(#[source] io::Error),
    /// There is no such interface in this network namespace, or no longer.
    #[error("interface {interface} is gone")]
    Gone {
        /// Its name, or its index if it has no name any more.
        interface: String,
    },
    /// The kernel refused to run the program at an interface.
    #[error("cannot attach the ARP tap to {interface}")]
    Attach {
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        #[source]
        source: ProgramError,
    },
    /// The kernel refused to take the program away from an interface.
    #[error("cannot detach the ARP tap from {interface} (`bpftool net` shows what runs there)")]
    Detach {
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        #[source]
        source: TcError,
    },
    /// There are more interfaces than the tap has counters for.
    #[error("no counters for {interface}: there are some for {} interfaces at most", detector_ebpf::MAX_INTERFACES)]
    Count {
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        #[source]
        source: MapError,
    },
    /// The kernel refused to take in, to leave out or to tell what the tap absorbs.
    #[error("cannot change or read what the ARP tap absorbs: that is {} claims at most", detector_ebpf::MAX_KNOWN)]
    Known {
        /// What the kernel said.
        #[source]
        source: MapError,
    },
    /// There is no eBPF, without which nothing can be kept from going on.
    #[error("containment needs eBPF, and there is no ARP tap here")]
    CannotContain,
    /// No more addresses can be in quarantine.
    #[error("the quarantine is full: it holds {} addresses at most", detector_ebpf::MAX_QUARANTINE)]
    QuarantineFull,
    /// The kernel refused to take in, to release or to tell what is in quarantine.
    #[error("cannot change or read the quarantine")]
    Quarantine {
        /// What the kernel said.
        #[source]
        source: MapError,
    },
    /// What is to be kept for the next agent must be kept by a BPF file system.
    #[error(
        "{} is on no BPF file system, so no quarantine can be kept there: `mount -t bpf bpf /sys/fs/bpf` mounts one",
        path.display()
    )]
    NoBpfFileSystem {
        /// Where it was to be kept.
        path: PathBuf,
    },
    /// Another process keeps its quarantine in the same place.
    #[error("another dupip keeps its quarantine in {}", path.display())]
    KeptByAnother {
        /// The place.
        path: PathBuf,
    },
    /// What was kept is no quarantine of this version.
    #[error(
        "{} was kept by another version of dupip, which cannot be taken over; remove it to begin anew: what it holds \
         is contained no longer then",
        path.display()
    )]
    Incompatible {
        /// The map's place.
        path: PathBuf,
    },
    /// The quarantine cannot be kept for the next agent, or not be taken over.
    #[error("cannot keep the quarantine in {}", path.display())]
    Keep {
        /// The place.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// This process may not listen by packet sockets.
    #[error("not permitted to listen to ARP: run dupip as root, or with the capability CAP_NET_RAW")]
    NotPermittedToListen,
    /// A packet socket cannot be made to listen.
    #[error("cannot listen to ARP at {interface}")]
    Listen {
        /// The interface's name, or its index if it has none.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl CaptureError {
    pub(super) fn listen(interface: String, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::PERM | Errno::ACCESS) => Self::NotPermittedToListen,
            Some(Errno::NODEV | Errno::NXIO) => Self::Gone { interface },
            _ => Self::Listen { interface, source },
        }
    }

    /// Whether it is about a quarantine that is to be kept.
    pub(super) const fn is_of_keeping(&self) -> bool {
        matches!(
            self,
            Self::NoBpfFileSystem { .. } | Self::KeptByAnother { .. } | Self::Incompatible { .. } | Self::Keep { .. }
        )
    }

    pub(super) fn load(error: impl Into<EbpfError>) -> Self {
        let error = error.into();
        match errno(&error) {
            Some(Errno::PERM) => Self::NotPermitted,
            Some(Errno::ACCESS) if !is_trusted() => Self::NotTrusted { source: error },
            Some(Errno::NOSYS) => Self::Unsupported {
                feature: "bpf system call",
                remedy: "it takes a kernel built with CONFIG_BPF_SYSCALL",
            },
            _ => Self::Load(error),
        }
    }

    pub(super) fn attach(interface: String, source: impl Into<ProgramError>) -> Self {
        let source = source.into();
        match program_errno(&source) {
            Some(Errno::PERM) => Self::NotPermitted,
            Some(Errno::NODEV | Errno::NXIO) => Self::Gone { interface },
            _ => Self::Attach { interface, source },
        }
    }
}

/// Whether the verifier takes the process's programs for harmless to the kernel's secrets (`perfmon_capable` in
/// `include/linux/capability.h`). It refuses the others much, in older kernels even a byte written on the stack beside
/// another ("attempt to corrupt spilled pointer on stack").
fn is_trusted() -> bool {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or_default();
    has(Capability::CAP_PERFMON) || has(Capability::CAP_SYS_ADMIN)
}

fn errno(error: &EbpfError) -> Option<Errno> {
    match error {
        EbpfError::MapError(error) => map_errno(error),
        EbpfError::ProgramError(error) => program_errno(error),
        _ => None,
    }
}

pub(super) fn map_errno(error: &MapError) -> Option<Errno> {
    match error {
        MapError::CreateError { io_error, .. } | MapError::IoError(io_error) => Errno::from_io_error(io_error),
        MapError::SyscallError(error) => Errno::from_io_error(&error.io_error),
        _ => None,
    }
}

pub(super) fn program_errno(error: &ProgramError) -> Option<Errno> {
    match error {
        ProgramError::LoadError { io_error, .. } | ProgramError::IOError(io_error) => Errno::from_io_error(io_error),
        ProgramError::SyscallError(error) => Errno::from_io_error(&error.io_error),
        ProgramError::MapError(error) => map_errno(error),
        ProgramError::TcError(error) => tc_errno(error),
        _ => None,
    }
}

pub(super) fn tc_errno(error: &TcError) -> Option<Errno> {
    match error {
        TcError::IoError(error) => Errno::from_io_error(error),
        TcError::NetlinkError(error) => error.raw_os_error().map(Errno::from_raw_os_error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    fn refused(errno: Errno) -> ProgramError {
        SyscallError { call: "bpf_prog_load", io_error: errno.into() }.into()
    }

    #[test]
    fn an_operator_learns_whether_it_is_the_kernel_or_the_permission() {
        assert!(matches!(CaptureError::load(refused(Errno::PERM)), CaptureError::NotPermitted));
        let create = MapError::CreateError { name: "EVENTS".to_owned(), io_error: Errno::PERM.into() };
        assert!(matches!(CaptureError::load(create), CaptureError::NotPermitted));
        let missing = CaptureError::load(refused(Errno::NOSYS));
        assert!(matches!(missing, CaptureError::Unsupported { feature: "bpf system call", .. }), "{missing:?}");
        assert!(matches!(CaptureError::load(refused(Errno::INVAL)), CaptureError::Load(_)));
    }

    #[test]
    fn a_port_that_went_is_told_from_one_that_refuses() {
        let attach = |error| CaptureError::attach("veth7".to_owned(), error);
        assert_eq!(attach(refused(Errno::NODEV)).to_string(), "interface veth7 is gone");
        assert!(matches!(attach(TcError::IoError(Errno::NODEV.into()).into()), CaptureError::Gone { .. }));
        assert!(matches!(attach(refused(Errno::PERM)), CaptureError::NotPermitted));
        assert_eq!(attach(refused(Errno::INVAL)).to_string(), "cannot attach the ARP tap to veth7");
    }
}

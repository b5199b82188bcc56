//! What the kernel has of what the tap needs.

use std::fs;

use super::{
    Check, Lack,
    topics::{self, Topic},
};
use crate::{
    capture::{CaptureError, Hook, KernelFeature, Loaded, Tap, TapSettings},
    telemetry::with_causes,
};

/// The kernel's release, as `uname -r` has it.
const RELEASE: &str = "/proc/sys/kernel/osrelease";
/// How far the kernel is locked down; the mode in brackets holds.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";
const ASKING: &str = "only a process with CAP_BPF and CAP_NET_ADMIN can find out";

pub(super) fn examine() -> Vec<Check> {
    vec![
        version(fs::read_to_string(RELEASE).ok().as_deref()),
        bpf(&KernelFeature::TcPrograms.is_there()),
        feature(
            topics::KERNEL_TC_PROGRAMS,
            &KernelFeature::TcPrograms.is_there(),
            ("eBPF programs for traffic control are there", "no eBPF programs for traffic control, so no tap"),
            "use a kernel built with CONFIG_NET_CLS_BPF",
        ),
        feature(
            topics::KERNEL_RING_BUFFER,
            &KernelFeature::RingBuffer.is_there(),
            ("eBPF ring buffers are there", "no eBPF ring buffers, which the tap reports by"),
            "use Linux 5.8 or newer",
        ),
        tcx(&KernelFeature::Tcx.is_there()),
        tap(),
        lockdown(fs::read_to_string(LOCKDOWN).ok().as_deref()),
        jit(fs::read_to_string(JIT).ok().as_deref()),
    ]
}

fn version(release: Option<&str>) -> Check {
    const NAME: &Topic = topics::KERNEL_VERSION;
    let Some(release) = release.map(str::trim) else {
        return Check::skipped(NAME, format!("{RELEASE} cannot be read")).cure("mount /proc");
    };
    match numbers(release) {
        None => Check::warning(NAME, format!("the kernel calls itself `{release}`, which says nothing of its age")),
        Some((major, minor)) if (major, minor) < (5, 8) => {
            Check::missing(NAME, Lack::Kernel, format!("Linux {major}.{minor} has no eBPF ring buffers"))
                .cure("use Linux 5.8 or newer")
        }
        Some((major, minor)) if (major, minor) < (6, 6) => Check::ok(
            NAME,
            format!(
                "Linux {major}.{minor} can do all; the tap of an agent that is killed stays until the next one starts"
            ),
        ),
        Some((major, minor)) => Check::ok(NAME, format!("Linux {major}.{minor} can do all")),
    }
}

fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether there is eBPF at all.
fn bpf(answer: &Result<bool, CaptureError>) -> Check {
    const NAME: &Topic = topics::KERNEL_BPF;
    match answer {
        Err(CaptureError::Unsupported { .. }) => {
            Check::missing(NAME, Lack::Kernel, "the kernel has no bpf system call, so no tap").cure(
                "use a kernel built with CONFIG_BPF_SYSCALL; inside a container, allow bpf in its seccomp profile",
            )
        }
        _ => Check::ok(NAME, "the bpf system call is there"),
    }
}

fn feature(
    name: &'static Topic,
    answer: &Result<bool, CaptureError>,
    (there, not_there): (&str, &str),
    remedy: &str,
) -> Check {
    match answer {
        Ok(true) => Check::ok(name, there),
        Ok(false) => Check::missing(name, Lack::Kernel, not_there).cure(remedy),
        Err(error) => unknown(name, error),
    }
}

fn tcx(answer: &Result<bool, CaptureError>) -> Check {
    const NAME: &Topic = topics::KERNEL_TCX;
    match answer {
        Ok(true) => Check::ok(NAME, "TCX is there: the tap goes with the agent, however that ends"),
        Ok(false) => Check::warning(
            NAME,
            "no TCX: the tap hooks in by clsact, and that of a killed agent stays until the next one starts",
        )
        .cure("nothing has to be done; Linux 6.6 and newer have TCX"),
        Err(error) => unknown(NAME, error),
    }
}

fn unknown(name: &'static Topic, error: &CaptureError) -> Check {
    match error {
        CaptureError::NotPermitted | CaptureError::Unsupported { .. } => Check::skipped(name, ASKING),
        _ => Check::skipped(name, format!("the kernel does not say: {error}")),
    }
}

/// Loads the tap, attaches it nowhere, and lets it go.
fn tap() -> Check {
    const NAME: &Topic = topics::KERNEL_TAP;
    match Tap::load(&TapSettings::default()) {
        Ok(Loaded { tap, .. }) => {
            let hook = if tap.hook() == Hook::Tcx { "TCX" } else { "clsact" };
            Check::ok(NAME, format!("the tap loads, and hooks in by {hook}"))
        }
        Err(CaptureError::NotPermitted) => {
            Check::missing(NAME, Lack::Permission, "the tap cannot be loaded: the process may not use eBPF").cure(
                "run as root, or with CAP_BPF and CAP_NET_ADMIN; in a container, allow bpf in its seccomp profile",
            )
        }
        Err(error @ CaptureError::NotTrusted { .. }) => Check::missing(NAME, Lack::Permission, error.to_string())
            .cure("run as root; in the unit, add CAP_PERFMON to CapabilityBoundingSet= (systemctl edit dupip)"),
        Err(error @ CaptureError::Unsupported { .. }) => Check::missing(NAME, Lack::Kernel, error.to_string()),
        Err(error) => {
            let why = with_causes(&error);
            Check::missing(NAME, Lack::Kernel, format!("the kernel refuses the tap: {why}"))
                .cure("report this with `uname -r`")
        }
    }
}

fn lockdown(modes: Option<&str>) -> Check {
    const NAME: &Topic = topics::KERNEL_LOCKDOWN;
    let mode = modes.and_then(|modes| Some(modes.split_once('[')?.1.split_once(']')?.0));
    match mode {
        None => Check::ok(NAME, "the kernel knows no lockdown, or does not tell"),
        Some("confidentiality") => Check::warning(
            NAME,
            "the kernel is locked down for confidentiality: what eBPF may read is limited, which the tap does not mind",
        )
        .cure("nothing has to be done while kernel.tap is ok; else lockdown=integrity on the kernel's command line"),
        Some(mode) => Check::ok(NAME, format!("the mode is {mode}, in which the tap can do all")),
    }
}

fn jit(enabled: Option<&str>) -> Check {
    const NAME: &Topic = topics::KERNEL_BPF_JIT;
    match enabled.map(str::trim) {
        // Some kernels always compile and have no switch; it is not seen in a namespace of one's own either.
        None => Check::ok(NAME, "there is no switch to see here: the kernel compiles, or the host says"),
        Some("0") => {
            Check::warning(NAME, "eBPF programs are interpreted: the tap takes several times as much of the processor")
                .cure("sysctl -w net.core.bpf_jit_enable=1")
        }
        Some(_) => Check::ok(NAME, "eBPF programs are compiled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn a_release_says_what_the_kernel_can() {
        let status = |release| version(Some(release)).status;
        assert_eq!(["6.18.5", "6.6.0-1-amd64", "5.8.0\n", "6.1.0-41-amd64"].map(status), [Status::Ok; 4]);
        assert_eq!(["5.7.19", "4.19.0-27"].map(status), [Status::Missing; 2]);
        assert_eq!((status("unknown"), version(None).status), (Status::Warning, Status::Skipped));
        assert!(version(Some("6.1.0")).meaning.contains("stays until the next one starts"));
    }

    #[test]
    fn switches_are_read_as_the_kernel_writes_them() {
        let modes = [
            "[none] integrity confidentiality\n",
            "none [integrity] confidentiality\n",
            "none integrity [confidentiality]\n",
        ];
        assert_eq!(modes.map(|modes| lockdown(Some(modes)).status), [Status::Ok, Status::Ok, Status::Warning]);
        assert_eq!((lockdown(None).status, jit(None).status), (Status::Ok, Status::Ok));
        assert_eq!(["0\n", "1\n", "2\n"].map(|set| jit(Some(set)).status), [Status::Warning, Status::Ok, Status::Ok]);
    }

    #[test]
    fn what_is_not_told_is_no_fault_of_the_kernels() {
        let refused = Err(CaptureError::NotPermitted);
        assert_eq!((tcx(&refused).status, bpf(&refused).status), (Status::Skipped, Status::Ok));
        assert_eq!((tcx(&Ok(false)).status, tcx(&Ok(false)).lack), (Status::Warning, None));
        let none = Err(CaptureError::Unsupported { feature: "bpf system call", remedy: "" });
        assert_eq!(bpf(&none).lack, Some(Lack::Kernel));
    }
}

//! Where the kernel and others show themselves as files.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, SystemTime},
};

use caps::Capability;
use rustix::{
    fs::{OFlags, statfs},
    io::Errno,
};

use super::{
    Check, Lack,
    capabilities::{effective, has},
    topics::{self, Topic},
};
use crate::allocator::{Clock, since_boot};

/// The inode of the machine's first PID namespace (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`).
const FIRST_PIDS: u64 = 0xeffffffc;
/// Where `ip netns` and CNI bind namespaces to names.
const NAMED: &str = "/run/netns";
/// What is mounted, as this process sees it.
const MOUNTS: &str = "/proc/self/mountinfo";
/// Where BPF objects are kept beyond the process that made them.
const BPF: &str = "/sys/fs/bpf";
/// What marks that file system (`BPF_FS_MAGIC` in `include/uapi/linux/magic.h`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const KERNEL_LOG: &str = "/dev/kmsg";
/// 2025, in seconds since 1970: before that, nobody had a dupip.
const OLD: Duration = Duration::from_secs(1_735_689_600);

pub(super) fn examine() -> Vec<Check> {
    vec![proc(), named_netns(Path::new(NAMED)), kernel_log(Path::new(KERNEL_LOG)), clock(), bpf_filesystem()]
}

/// Sandboxes without a name are found by their processes.
fn proc() -> Check {
    const NAME: &Topic = topics::PROC;
    let (seen, hidden) = match processes(Path::new("/proc")) {
        Ok(count) => count,
        Err(error) => {
            return Check::missing(NAME, Lack::Permission, format!("/proc cannot be read: {error}"))
                .cure("mount /proc");
        }
    };
    let pids = fs::metadata("/proc/self/ns/pid").map(|pids| pids.ino());
    let sees_hidden = effective().is_ok_and(|effective| has(&effective, Capability::CAP_SYS_PTRACE));
    match (hidden, pids) {
        (0, _) if !sees_hidden && hides(&fs::read_to_string(MOUNTS).unwrap_or_default()) => Check::warning(
            NAME,
            "/proc does not list processes of others (hidepid): sandboxes that only they are in are not found",
        )
        .cure("run as root, or with CAP_SYS_PTRACE; or mount /proc without hidepid"),
        (0, Ok(FIRST_PIDS)) => Check::ok(NAME, format!("the namespaces of all {seen} processes can be seen")),
        (0, _) => Check::warning(
            NAME,
            "only the processes of its own PID namespace are seen, and not sandboxes that others have started",
        )
        .cure("in a container, share the host's PID namespace (hostPID, --pid=host)"),
        _ => Check::warning(
            NAME,
            format!(
                "the namespaces of {hidden} of {} processes cannot be seen: sandboxes that only they are in are not found",
                seen + hidden
            ),
        )
        .cure("run as root, or with CAP_SYS_PTRACE, in the host's user namespace; mount /proc without hidepid"),
    }
}

/// Whether /proc leaves out processes, by its option `hidepid`: a number, or since Linux 5.8 a word
/// (`Documentation/filesystems/proc.rst`).
fn hides(mounts: &str) -> bool {
    // What was mounted last is what is seen.
    let of_proc = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = of_proc.and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    let set = options.split(',').find_map(|option| option.strip_prefix("hidepid="));
    set.is_some_and(|set| ["2", "invisible", "4", "ptraceable"].contains(&set))
}

/// Processes whose network namespace can be seen, and those where it cannot.
fn processes(proc: &Path) -> io::Result<(usize, usize)> {
    let (mut seen, mut hidden) = (0, 0);
    for entry in fs::read_dir(proc)? {
        let path = entry?.path();
        let is_process =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok());
        match fs::metadata(path.join("ns/net")) {
            Ok(_) if is_process => seen += 1,
            Err(error) if is_process && error.kind() == io::ErrorKind::PermissionDenied => hidden += 1,
            _ => {}
        }
    }
    Ok((seen, hidden))
}

fn named_netns(directory: &Path) -> Check {
    const NAME: &Topic = topics::NETNS_DIRECTORY;
    match fs::read_dir(directory) {
        Ok(names) => {
            let paths = names.filter_map(|entry| Some(entry.ok()?.path()));
            let (there, left): (Vec<_>, Vec<_>) = paths.partition(|path| is_netns(path));
            named(directory, there.len(), &left)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::ok(NAME, format!("{} is not there: no namespace has a name", directory.display()))
        }
        Err(error) => Check::warning(NAME, format!("{} cannot be read: {error}", directory.display()))
            .cure("run as root, or mount the host's /run/netns"),
    }
}

fn named(directory: &Path, there: usize, left: &[std::path::PathBuf]) -> Check {
    const NAME: &Topic = topics::NETNS_DIRECTORY;
    let directory = directory.display();
    match left {
        [] => Check::ok(NAME, format!("{directory} names {there} network namespaces")),
        [first, ..] => Check::warning(
            NAME,
            format!("{} of the names in {directory} lead to no namespace, such as {}", left.len(), first.display()),
        )
        .cure(format!("remove names that were left behind; in a container, mount {directory} with rslave propagation")),
    }
}

/// A name that leads to a namespace is a file of another file system than its directory (nsfs).
fn is_netns(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    path.parent().is_some_and(|parent| device(parent) != device(path))
}

fn kernel_log(path: &Path) -> Check {
    const NAME: &Topic = topics::KERNEL_LOG;
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(nonblocking).open(path) {
        Ok(_) => Check::ok(NAME, "the kernel's log can be read, and with it its word on martian sources"),
        Err(error) => Check::warning(
            NAME,
            format!(
                "{} cannot be read ({error}): the kernel's own word on martian sources is not heard",
                path.display()
            ),
        )
        .cure("run as root, or with CAP_SYSLOG; in a container, pass /dev/kmsg in"),
    }
}

fn clock() -> Check {
    const NAME: &Topic = topics::CLOCK;
    let year = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match Clock::system() {
        Err(error) => Check::missing(NAME, Lack::Permission, format!("it is not known which boot this is: {error}"))
            .cure("mount /proc"),
        Ok(_) if year < OLD => Check::warning(NAME, "the wall clock is years behind, and so are the times in logs")
            .cure("set the clock, as by NTP; leases do not depend on it"),
        Ok(_) => {
            let up = Duration::from(since_boot().since(crate::time::Timestamp::default())).as_secs();
            Check::ok(NAME, format!("the machine has been up for {up} s, and the wall clock is set"))
        }
    }
}

fn bpf_filesystem() -> Check {
    const NAME: &Topic = topics::BPF_FILESYSTEM;
    match statfs(BPF) {
        Ok(found) if found.f_type == BPF_FS_MAGIC => Check::ok(NAME, format!("is mounted at {BPF}")),
        Err(Errno::ACCESS) => Check::skipped(NAME, format!("{BPF} may not be looked at")),
        _ => Check::ok(NAME, format!("is not mounted at {BPF}: the agent cannot have --keep-quarantine there"))
            .cure(format!("mount -t bpf bpf {BPF}, if a quarantine is to outlive the agent")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn a_proc_that_leaves_out_processes_is_known_by_its_option() {
        let mounted = |option: &str| format!("21 20 0:4 / /proc rw,nosuid shared:5 - proc proc rw{option}\n");
        let other = "30 20 0:4 / /mnt/proc rw - proc proc rw,hidepid=invisible\n";
        for option in [",hidepid=2", ",hidepid=invisible", ",gid=4,hidepid=ptraceable"] {
            assert!(hides(&mounted(option)), "{option}");
            assert!(!hides(&(mounted(option) + &mounted(""))), "a mount hides what is below");
        }
        for option in ["", ",hidepid=1", ",hidepid=noaccess", ",hidepid=0"] {
            assert!(!hides(&(mounted(option) + other)), "{option}");
        }
    }

    #[test]
    fn a_name_that_leads_nowhere_is_told() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(named_netns(directory.path()).status, Status::Ok);
        fs::write(directory.path().join("left"), "").unwrap();
        let check = named_netns(directory.path());
        assert!(check.status == Status::Warning && check.meaning.contains("left"), "{check:?}");
        assert_eq!(named_netns(&directory.path().join("none")).status, Status::Ok);
    }

    #[test]
    fn a_log_that_cannot_be_read_is_told() {
        let check = kernel_log(Path::new("/nonexistent/kmsg"));
        assert!(check.status == Status::Warning && check.remedy.is_some(), "{check:?}");
    }
}

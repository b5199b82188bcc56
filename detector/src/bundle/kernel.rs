//! What the machine is: its kernel, its switches, its bridges and who hooks into them.

use std::{collections::BTreeMap, fmt::Write as _, fs, io::Read as _, path::Path};

use flate2::read::GzDecoder;
use rustix::system::uname;
use serde_json::{Value, json};

use super::{LONGEST, Part, process::beginning, within};
use crate::{
    capture::{Side, tap_programs, tcx_programs},
    net::IfIndex,
    netlink::{Host, Survey},
};

/// Switches that matter, below `/proc/sys`.
const SWITCHES: [&str; 24] = [
    "kernel/osrelease",
    "kernel/unprivileged_bpf_disabled",
    "kernel/dmesg_restrict",
    "kernel/kptr_restrict",
    "kernel/perf_event_paranoid",
    "net/core/bpf_jit_enable",
    "net/core/bpf_jit_harden",
    "net/core/rmem_max",
    "net/core/netdev_max_backlog",
    "net/ipv4/ip_forward",
    "net/ipv4/neigh/default/gc_thresh1",
    "net/ipv4/neigh/default/gc_thresh2",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/ipv4/neigh/default/gc_stale_time",
    "net/ipv4/conf/all/arp_accept",
    "net/ipv4/conf/all/arp_announce",
    "net/ipv4/conf/all/arp_filter",
    "net/ipv4/conf/all/arp_ignore",
    "net/ipv4/conf/all/arp_notify",
    "net/ipv4/conf/all/log_martians",
    "net/ipv4/conf/all/promote_secondaries",
    "net/ipv4/conf/all/proxy_arp",
    "net/bridge/bridge-nf-call-arptables",
    "net/bridge/bridge-nf-call-iptables",
];
/// Other files that say what the kernel allows.
const FILES: [&str; 6] = [
    "/proc/version",
    "/proc/uptime",
    "/proc/meminfo",
    "/sys/kernel/security/lockdown",
    "/sys/kernel/security/lsm",
    MOUNTS,
];
const MOUNTS: &str = "/proc/self/mountinfo";
/// Mount points that dupip itself looks at.
const MOUNT_POINTS: [&str; 3] = ["/proc", "/sys/fs/bpf", "/run/netns"];
/// What the kernel was built with that matters here.
const OPTIONS: [&str; 7] = ["BPF", "BRIDGE", "VETH", "NET_CLS", "NET_SCH", "NET_NS", "LOCKDOWN"];

/// The parts. Where containers are mounted names them, so that there is less of that if names are to be replaced.
pub(super) async fn parts(redact: bool) -> Vec<Part> {
    let text = |content: String| Ok(content.into_bytes());
    vec![
        Part::new("kernel/uname.txt", "the kernel's name and release", text(release())),
        Part::new("kernel/switches.txt", "sysctls that matter", text(switches())),
        Part::new("kernel/files.txt", "what else the kernel says of itself", text(files(redact))),
        Part::new("kernel/config.txt", "what the kernel was built with, as far as it concerns dupip", config()),
        Part::new("kernel/programs.json", "the taps that are loaded", programs()),
        within("kernel/bridges.json", "bridges, their ports, and who hooks into them", bridges()).await,
    ]
}

fn release() -> String {
    let uname = uname();
    let fields = [uname.sysname(), uname.nodename(), uname.release(), uname.version(), uname.machine()];
    fields.map(|field| field.to_string_lossy().into_owned()).join(" ") + "\n"
}

fn switches() -> String {
    let value = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name));
    SWITCHES.iter().fold(String::new(), |mut all, name| {
        let value = value(name).unwrap_or_else(|error| format!("<{error}>"));
        // Writing to a text does not fail.
        let _ = writeln!(all, "{} = {}", name.replace('/', "."), value.trim());
        all
    })
}

fn files(redact: bool) -> String {
    FILES.iter().fold(String::new(), |mut all, name| {
        let content = beginning(Path::new(name)).map(|content| String::from_utf8_lossy(&content).into_owned());
        let content = content.unwrap_or_else(|error| format!("<{error}>"));
        let content = if redact && *name == MOUNTS { own_mounts(&content) } else { content };
        let _ = writeln!(all, "== {name}\n{}\n", content.trim_end());
        all
    })
}

/// The lines of mounts that dupip itself looks at, by their mount point (`proc_pid_mountinfo(5)`).
fn own_mounts(mounts: &str) -> String {
    let is_own = |line: &&str| {
        let point = line.split(' ').nth(4).unwrap_or_default();
        MOUNT_POINTS.contains(&point) || point.starts_with("/run/netns/")
    };
    mounts.lines().filter(is_own).fold(String::new(), |all, line| all + line + "\n")
}

fn config() -> Result<Vec<u8>, String> {
    let beside = format!("/boot/config-{}", uname().release().to_string_lossy());
    let text = beginning(Path::new(&beside)).or_else(|_| {
        let mut text = Vec::new();
        GzDecoder::new(fs::File::open("/proc/config.gz")?).take(LONGEST as u64).read_to_end(&mut text)?;
        Ok(text)
    });
    let text = text.map_err(|error: std::io::Error| format!("neither {beside} nor /proc/config.gz: {error}"))?;
    let text = String::from_utf8_lossy(&text);
    let concerns = |line: &&str| OPTIONS.iter().any(|option| line.contains(option));
    Ok(text.lines().filter(concerns).map(|line| format!("{line}\n")).collect::<String>().into_bytes())
}

fn programs() -> Result<Vec<u8>, String> {
    let programs = tap_programs().map_err(|error| error.to_string())?;
    let programs: Vec<_> = programs.iter().map(|program| json!({"id": program.id, "name": program.name})).collect();
    serde_json::to_vec_pretty(&programs).map_err(|error| error.to_string())
}

async fn bridges() -> Result<Vec<u8>, String> {
    let mut host = Host::open().map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for bridge in host.bridges().await.map_err(|error| error.to_string())? {
        found.push(match host.survey(bridge.name).await {
            Ok(survey) => of(&mut host, &survey).await,
            Err(error) => json!({"bridge": bridge.name.as_str(), "error": error.to_string()}),
        });
    }
    serde_json::to_vec_pretty(&found).map_err(|error| error.to_string())
}

async fn of(host: &mut Host, survey: &Survey) -> Value {
    let bridge = &survey.bridge;
    let mut ports = Vec::new();
    for seen in &survey.ports {
        let port = &seen.port;
        ports.push(json!({
            "port": port.name,
            "ifindex": port.index.get(),
            "mac": port.mac.to_string(),
            "reach": seen.reach.as_str(),
            "netns": seen.netns.as_ref().map(|found| found.id.inode),
            "hooks": hooks(host, port.index, &port.name).await,
        }));
    }
    json!({
        "bridge": bridge.name.as_str(),
        "ifindex": bridge.index.get(),
        "mac": bridge.mac.to_string(),
        "up": bridge.up,
        "vlan_filtering": bridge.vlan_filtering,
        "addresses": survey.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "vlans": survey.vlans.iter().map(|device| device.vlan.get()).collect::<Vec<_>>(),
        "hooks": hooks(host, bridge.index, bridge.name.as_str()).await,
        "ports": ports,
    })
}

/// Who looks at an interface's frames.
async fn hooks(host: &mut Host, index: IfIndex, name: &str) -> Value {
    let mut hooks = BTreeMap::new();
    for (side, word) in [(Side::Ingress, "tcx_ingress"), (Side::Egress, "tcx_egress")] {
        let programs = tcx_programs(name, side).map(|programs| {
            programs.iter().map(|program| format!("{} {}", program.id, program.name)).collect::<Vec<_>>()
        });
        hooks.insert(word, programs.unwrap_or_else(|error| vec![format!("<{error}>")]));
    }
    let filters = host.filters(index).await.map(|filters| {
        filters.iter().map(|filter| format!("{} {} {}", filter.side, filter.kind, filter.name)).collect::<Vec<_>>()
    });
    hooks.insert("clsact", filters.unwrap_or_else(|error| vec![format!("<{error}>")]));
    json!(hooks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_that_dupip_looks_at_are_shown_if_names_are_not() {
        let kept =
            "21 20 0:4 / /proc rw shared:5 - proc proc rw\n30 20 0:4 net:[402] /run/netns/sports rw - nsfs nsfs rw\n";
        let gone = "40 20 0:9 / /var/lib/containers/hush/merged rw - overlay overlay rw\n41 40 0:4 / /var/hush/proc rw - proc proc rw\n";
        assert_eq!(own_mounts(&[gone, kept].concat()), kept);
    }
}

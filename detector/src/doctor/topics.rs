//! Every check of the doctor: what it looks at, why, and how to mend it. A check without a topic cannot be made.

use serde::Serialize;

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Topic {
    /// The check's name. Names stay.
    pub name: &'static str,
    /// What is looked at.
    pub what: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// How to mend it, with what to type.
    pub mend: &'static str,
}

impl Topic {
    /// The topic with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TOPICS.iter().find(|topic| topic.name == name)
    }
}

macro_rules! topics {
    ($($topic:ident = $name:literal, $what:literal, $why:literal, $mend:literal;)*) => {
        $(pub(super) const $topic: &Topic = &Topic { name: $name, what: $what, why: $why, mend: $mend };)*

        /// Every topic, in the order of the checks.
        pub const TOPICS: &[Topic] = &[$(*$topic),*];
    };
}

#[rustfmt::skip]
topics! {
    KERNEL_VERSION = "kernel.version", "The kernel's release.", "The tap needs eBPF ring buffers (Linux 5.8); from 6.6 on, taps vanish with the agent however that ends.", "Use Linux 5.8 or newer, better 6.6 or newer: `uname -r`.";
    KERNEL_BPF = "kernel.bpf", "Whether there is a `bpf` system call.", "Without eBPF, packet sockets hear ARP in the tap's place: more work, no IPv4, nobody is contained.", "Use a kernel with CONFIG_BPF_SYSCALL; in a container, allow bpf in its seccomp profile.";
    KERNEL_TC_PROGRAMS = "kernel.tc_programs", "Whether the kernel has eBPF programs for traffic control.", "The tap is one.", "Use a kernel built with CONFIG_NET_CLS_BPF.";
    KERNEL_RING_BUFFER = "kernel.ring_buffer", "Whether the kernel has eBPF ring buffers.", "The tap reports by one.", "Use Linux 5.8 or newer.";
    KERNEL_TCX = "kernel.tcx", "Whether the tap can hook in by TCX links.", "TCX links go with the process. By clsact, the tap of a killed agent stays until the next agent starts; it changes nothing.", "Nothing has to be done; Linux 6.6 and newer have TCX.";
    KERNEL_TAP = "kernel.tap", "Whether the tap loads: it is loaded, attached nowhere, and let go.", "It is how every claim on the wire is seen.", "Run as root or with CAP_BPF and CAP_NET_ADMIN (CAP_PERFMON on older kernels); if the kernel refuses it all the same, report that with `dupip support-bundle`.";
    KERNEL_LOCKDOWN = "kernel.lockdown", "How far the kernel is locked down (/sys/kernel/security/lockdown).", "In mode `confidentiality` eBPF programs may not read the kernel's memory, and some kernels refuse tracing and pinning; the tap does not need it, other tools do.", "`lockdown=integrity` on the kernel's command line, if something is refused.";
    KERNEL_BPF_JIT = "kernel.bpf_jit", "Whether eBPF programs are compiled (net.core.bpf_jit_enable).", "Each frame passes the tap: interpreted, that takes several times as much of the processor.", "sysctl -w net.core.bpf_jit_enable=1";
    CAP_BPF = "capability.cap_bpf", "Whether the agent has CAP_BPF (or CAP_SYS_ADMIN); this process, if none runs.", "It loads the tap.", "Run as root; in the unit, add it to CapabilityBoundingSet=: `systemctl edit dupip`.";
    CAP_NET_ADMIN = "capability.cap_net_admin", "Whether the agent has CAP_NET_ADMIN; this process, if none runs.", "It attaches the tap and changes addresses and neighbours; `dupip run` does not start without it.", "Run as root; in the unit, add it to CapabilityBoundingSet=: `systemctl edit dupip`.";
    CAP_NET_RAW = "capability.cap_net_raw", "Whether the agent has CAP_NET_RAW; this process, if none runs.", "It sends probes and announcements; `dupip run` does not start without it.", "Run as root; in the unit, add it to CapabilityBoundingSet=: `systemctl edit dupip`.";
    CAP_NET_BROADCAST = "capability.cap_net_broadcast", "Whether the agent has CAP_NET_BROADCAST; this process, if none runs.", "It hears of address changes in every sandbox; `dupip run` does not start without it.", "Run as root; in the unit, add it to CapabilityBoundingSet=: `systemctl edit dupip`.";
    CAP_SYS_ADMIN = "capability.cap_sys_admin", "Whether the agent has CAP_SYS_ADMIN; this process, if none runs.", "It enters the namespaces of sandboxes. Without it nobody is moved.", "Run as root; in the unit, add it to CapabilityBoundingSet=: `systemctl edit dupip`.";
    CAP_SYS_PTRACE = "capability.cap_sys_ptrace", "Whether the agent has CAP_SYS_PTRACE; this process, if none runs.", "It sees which namespace a process is in: how sandboxes of container runtimes are found and named.", "Run as root; in the unit, add it to CapabilityBoundingSet=: `systemctl edit dupip`.";
    CAP_SYSLOG = "capability.cap_syslog", "Whether the agent has CAP_SYSLOG; this process, if none runs.", "It reads the kernel's log where kernel.dmesg_restrict is set, for the kernel's own word on martian sources.", "Run as root; in the unit, add it to CapabilityBoundingSet=: `systemctl edit dupip`.";
    PROC = "proc", "Whether the processes of the whole machine can be seen in /proc: no PID namespace of its own, no hidepid.", "Sandboxes without a named namespace are found by their processes.", "In a container share the host's PID namespace; mount /proc without hidepid.";
    NETNS_DIRECTORY = "netns_directory", "Whether the names in /run/netns lead to namespaces.", "Sandboxes are named by them. Names that lead nowhere are leftovers, or a mount that does not propagate.", "`ip netns delete NAME` for what was left behind; in a container mount /run/netns with rslave propagation.";
    KERNEL_LOG = "kernel_log", "Whether the kernel's log (/dev/kmsg) can be read.", "It has the kernel's own word on martian sources, which names duplicates too.", "Run as root or with CAP_SYSLOG; in a container, pass /dev/kmsg in.";
    CLOCK = "clock", "Whether it is known which boot this is, and whether the wall clock is set.", "Leases count time since boot, and do not mind a wall clock that jumps; the times in logs and reports do.", "timedatectl set-ntp true";
    BPF_FILESYSTEM = "bpf_filesystem", "Whether a BPF file system is mounted at /sys/fs/bpf.", "`--keep-quarantine` keeps a quarantine there when the agent stops; nothing else needs it.", "mount -t bpf bpf /sys/fs/bpf";
    LIMIT_FILES = "limit.files", "How many files the agent may have open (RLIMIT_NOFILE), if one runs.", "Each port may take one, where the tap is replaced by packet sockets, and each connection to the agent another.", "LimitNOFILE=65536 in the unit (`systemctl edit dupip`), or `ulimit -n 65536` before it is started.";
    LIMIT_MEMLOCK = "limit.memlock", "How much memory the agent may lock (RLIMIT_MEMLOCK), if one runs.", "Before Linux 5.11, eBPF maps count as locked memory.", "LimitMEMLOCK=infinity in the unit.";
    BRIDGE = "bridge", "Whether a bridge is there, up, and has an address.", "It is what is watched. Its networks say which addresses are at home there, and which can be leased.", "`ip link set BRIDGE up`; `ip address add NETWORK dev BRIDGE`, or `--extra-network`.";
    VLAN_FILTERING = "vlan_filtering", "Whether the bridge keeps VLANs apart, and which the host itself is in.", "Equal addresses in two VLANs are no duplicate. A probe reaches only VLANs that the bridge itself is in.", "`bridge vlan add dev BRIDGE vid VLAN self`, for each VLAN that is to be asked.";
    PORTS = "ports", "How many ports a bridge has, and what is behind them.", "Each is watched; how far one sees behind it decides what can be known before it speaks.", "Nothing has to be done.";
    PORT = "port", "A port behind which one cannot see everything.", "What is configured in there is not known: only what it says and answers.", "Run as root; name an uplink with `--external PORT`.";
    NEIGHBOURS = "neighbours", "How many neighbours the host can keep (gc_thresh3), and how many it has.", "When the table is full, the kernel drops entries and the host cannot reach sandboxes. dupip only takes hints from it.", "sysctl -w net.ipv4.neigh.default.gc_thresh3=NUMBER";
    ARP_IGNORE = "arp_ignore", "Whether the host answers ARP for its own addresses on a bridge (net.ipv4.conf.*.arp_ignore).", "With 8 it keeps silent about all of them: who takes the gateway's address is not contradicted on the wire, and sandboxes cannot reach the gateway. With less it answers for the bridge's own.", "sysctl -w net.ipv4.conf.BRIDGE.arp_ignore=1, or the same for `all`, where it is 8: the greater of both counts.";
    PROXY_ARP = "proxy_arp", "Whether the host answers ARP for addresses that are not its own (net.ipv4.conf.*.proxy_arp).", "Such answers claim nothing for dupip, but they hide who really has an address from everybody who asks.", "sysctl -w net.ipv4.conf.BRIDGE.proxy_arp=0, and the same for `all` where it is on there, unless it is meant.";
    ARP_ACCEPT = "arp_accept", "Whether the host learns neighbours from announcements that it has not asked for (net.ipv4.conf.*.arp_accept).", "Whoever announces an address takes the host's traffic for it at once, before anybody can contradict.", "sysctl -w net.ipv4.conf.BRIDGE.arp_accept=0, and the same for `all` where it is on there, unless it is meant.";
    BRIDGE_ARPTABLES = "bridge_arptables", "Whether bridged ARP goes through arptables (net.bridge.bridge-nf-call-arptables).", "Its rules may drop what one sandbox says to another: questions go unanswered, and a duplicate stays half hidden. The tap sits before them.", "sysctl -w net.bridge.bridge-nf-call-arptables=0, unless rules there are meant: `arptables -L`.";
    HOOKS = "hooks", "Whether others than dupip look at the frames of bridges and ports (TCX, clsact).", "What a program before the tap drops, dupip does not see.", "Nothing has to be done; the tap goes first where it can.";
    TAPS = "taps", "Whose taps are at the bridges and ports.", "Two agents on one bridge would both heal. A tap that a killed agent left behind changes nothing, but drops what was in quarantine.", "Stop all agents but one: `systemctl status dupip`, `ps -C dupip`. Leftovers go when the next agent starts, which replaces them and nobody else's. By hand, one at a time: `tc filter show dev PORT ingress` has the tap's pref and handle, `tc filter delete dev PORT ingress pref PREF handle HANDLE bpf`.";
    LOG_MARTIANS = "log_martians", "In which namespaces the kernel logs martian sources (net.ipv4.conf.*.log_martians).", "It is the kernel's own word that somebody else uses an address. dupip does without it.", "The line that the check says, such as `sysctl -w net.ipv4.conf.all.log_martians=1`.";
    NAMESPACE = "namespace", "A namespace that cannot be entered.", "What is configured in it is not known, and nobody in it can be moved.", "Run as root, or with CAP_SYS_ADMIN and CAP_SYS_PTRACE.";
    LEASE_DATABASE = "lease_database", "Whether the lease database is there, whole, and of this version.", "It says who holds which address, and what is under way. Without it nobody is moved and nothing is handed out.", "If it is damaged: move it away with its -wal and -shm, and start the agent in enforce, which adopts who is there.";
    DISK = "disk", "Whether there is room where the lease database is.", "A lease is a promise only once it is on disk: without room, nobody is moved and nothing is handed out.", "Make room (`df -h`, `df -i`), or have `--database` elsewhere.";
    CONFIGURATION = "configuration", "Whether the configuration file is one, can be read, and says only what dupip understands.", "An agent with a wrong file does not start.", "Mend what the check says; it names the line or the key.";
    UNIT = "unit", "How systemd has the unit dupip.service, where systemd runs.", "A unit that is not enabled, or only until the next boot (enabled-runtime), does not come back after it.", "systemctl enable --now dupip; `journalctl -u dupip -n 50` says why it failed.";
    AGENT_REACHABLE = "agent.reachable", "Whether an agent answers at the socket.", "Without one, nothing is watched.", "systemctl start dupip, or `dupip run --bridge BRIDGE`; `--socket` if it is elsewhere.";
    AGENT_READY = "agent.ready", "Whether every port has a tap and every sandbox has been looked at.", "Before that, silence of the agent says nothing.", "Wait a moment; if it stays like that, the agent's log says why: `journalctl -u dupip -n 50`.";
    AGENT_VERSION = "agent.version", "Whether the agent and this program are of one version.", "They understand each other, but the newer may know fields or commands that the other does not.", "systemctl restart dupip, after an upgrade.";
    AGENT_PAUSED = "agent.paused", "Whether an operator has paused the agent.", "Duplicates are told of, and nothing new is done about them.", "dupip pause --end";
    AGENT_DEGRADED = "agent.degraded", "What the agent cannot do fully (`dupip_degraded`).", "It does less than it should, and says so.", "`dupip events --kind degraded` and the log say why.";
    AGENT_LISTENS = "agent.listens", "Where the agent listens on TCP, and whether it answers there.", "Metrics and the web page are read there. What it answers names sandboxes and addresses: beyond loopback it therefore speaks HTTPS and wants a token, and listens there on no other terms.", "`--listen 127.0.0.1:9477`; beyond loopback with `--tls-certificate`, `--tls-key` and `--token-file`.";
    POOL = "pool", "How many addresses a pool has left.", "When none is left, no sandbox gets an address, and no loser can be moved.", "`dupip pool list`, `dupip lease list`; `dupip lease check` and `reclaim` take back what is proven unused.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_topic_says_what_why_and_how() {
        let names: BTreeSet<_> = TOPICS.iter().map(|topic| topic.name).collect();
        assert_eq!(names.len(), TOPICS.len());
        for topic in TOPICS {
            assert_eq!(Topic::named(topic.name), Some(topic));
            assert!(topic.what.ends_with('.') && topic.why.ends_with('.') && topic.mend.len() > 10, "{topic:?}");
        }
        assert_eq!(Topic::named("kernel"), None);
    }
}

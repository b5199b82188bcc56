//! The container of the DaemonSet on a runner: its rights are enough, and none is too much.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lab::{Agent, Bridge, Dupip, Runner};
use serde_json::Value;

use super::{
    image::health_check,
    manifests::{at, list, of},
    pod::Pod,
};

pub(super) const DEADLINE: Duration = Duration::from_secs(20);
/// Where the lab puts the node's `/var/lib/dupip`.
pub(super) const DATABASE: &str = "/run/lab/var/lib/dupip/leases.db";

/// A node with the incident on it, and the pod that is to be run there.
fn node() -> Result<(Bridge, Dupip, Pod)> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let dupip = Dupip::on(&bridge)?.keeping(DATABASE);
    let pod = Pod::new(bridge.runner(), &of("base")?, dupip.program())?;
    Ok((bridge, dupip, pod))
}

/// Asks as a kubelet does: the status.
fn probe(runner: &Runner, probe: &Value) -> Result<u16> {
    let get = at(probe, "/httpGet");
    let word = |name: &str| get.get(name).and_then(Value::as_str).with_context(|| format!("no {name} in {get}"));
    let (host, path) = (word("host")?.parse::<IpAddr>()?, word("path")?);
    let port = u16::try_from(at(get, "/port").as_u64().context("no port")?)?;
    let answer = runner.inside(|| {
        let mut stream = TcpStream::connect((host, port))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    Ok(answer.split(' ').nth(1).context("no status")?.parse()?)
}

pub(super) fn incident(agent: &mut Agent, status: &str) -> Result<Value> {
    agent.wait_until(DEADLINE, &format!("an incident to be {status}"), |agent| {
        Ok(agent.conflicts()?.into_iter().find(|incident| *at(incident, "/status") == status))
    })
}

/// The features that the agent does without.
fn degraded(agent: &Agent) -> Result<BTreeSet<String>> {
    let metrics = agent.http("/metrics")?.1;
    let lines =
        metrics.lines().filter_map(|line| line.strip_prefix("dupip_degraded{feature=\"")?.strip_suffix("\"} 1"));
    Ok(lines.map(str::to_owned).collect())
}

#[test]
fn the_container_names_and_heals_the_incident() -> Result<()> {
    const ID: &str = "4f6b0d2c8a1e93f57b6d0c2a4e8f19a3b5d7c9e1f30214365870a9b8c7d6e5f4";
    let (bridge, dupip, pod) = node()?;
    let runner = bridge.runner();
    let [sports, review] = bridge.duplicate(["sportsagent", "reviewagent"], "10.8.64.2/24")?;
    runner.run(["mkdir", "-p", "/run/lab/var/lib/dupip"])?;
    dupip.allocate("reviewagent")?;

    // Flags may come from the environment, too: the manifest's own file says to observe.
    let environment = ["DUPIP_BRIDGE=rt0", "DUPIP_MODE=enforce", "DUPIP_KEEP_QUARANTINE=/sys/fs/bpf/dupip"];
    let mut agent = dupip.watching(pod.start(&environment)?);
    agent.wait_ready()?;
    for name in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(probe(runner, &pod.container()[name])?, 200, "{name}");
    }
    pod.exec(&health_check()?)?;
    let healed = incident(&mut agent, "healed")?;
    assert_eq!(healed["decision"], "reviewagent keeps 10.8.64.2: holds lease generation 1; sportsagent has none");
    assert_eq!((review.addresses()?, sports.addresses()?), (vec!["10.8.64.2/24".into()], vec!["10.8.64.3/24".into()]));

    // Later ones show, be they in `/run/netns` or only in a container's processes.
    let _late = bridge.sandbox("late").address("10.8.64.7/24").start()?;
    let _bare = bridge
        .sandbox("bare")
        .cgroup(&format!("kubepods/cri-containerd-{ID}.scope"))
        .address("10.8.64.8/24")
        .start()?;
    for (address, name) in [("10.8.64.7", "late"), ("10.8.64.8", ID.get(..12).unwrap_or(ID))] {
        let is_named = |row: &Value| row["address"] == address && row["sandbox"] == name;
        agent.wait_until(DEADLINE, name, |agent| Ok(agent.table()?.iter().any(is_named).then_some(())))?;
    }
    assert_eq!(degraded(&agent)?, ["kernel_log".to_owned()].into(), "a container without privileges has no /dev/kmsg");
    runner.run(["test", "-e", "/sys/fs/bpf/dupip"])?;
    Ok(())
}

/// What README.md says of `keep-quarantine`.
#[test]
fn a_node_without_a_bpf_file_system_is_told_what_to_mount() -> Result<()> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let base = of("base")?;
    let pod = Pod::without_bpf_file_system(bridge.runner(), &base, Dupip::on(&bridge)?.program())?;
    let mut process = pod.start(&["DUPIP_BRIDGE=rt0", "DUPIP_KEEP_QUARANTINE=/sys/fs/bpf/dupip"])?;
    process.wait_for_line("/sys/fs/bpf/dupip is on no BPF file system", DEADLINE)?;
    assert_eq!(process.wait(DEADLINE)?.code(), Some(5), "the pod is started anew until it is mounted");
    Ok(())
}

#[test]
fn the_process_has_what_the_manifest_says_and_no_more() -> Result<()> {
    let (bridge, _, pod) = node()?;
    let mut process = pod.start(&["DUPIP_BRIDGE=rt0"])?;
    process.wait_for_line("listening", DEADLINE)?;
    let status = pod.status()?;
    let line = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).with_context(|| name.to_owned())
    };
    let bits = |names: &[&str]| -> u64 { names.iter().map(|name| bit(name)).sum() };
    let wanted = bits(&pod.capabilities().iter().map(String::as_str).collect::<Vec<_>>());
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(line(set)?, 16)?, wanted, "{set}");
    }
    assert_eq!((line("NoNewPrivs:")?, line("Seccomp:")?), ("1", "2"), "no more rights by any program, and filtered");
    let mounts = bridge.runner().run(["cat", &format!("/proc/{}/mountinfo", line("Pid:")?)])?;
    let root =
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields.get(4) == Some(&"/"));
    assert!(root.is_some_and(|fields| fields.get(5).is_some_and(|options| options.starts_with("ro"))), "{mounts}");
    pod.terminate(&mut process)
}

/// `capability.h`'s number, as a bit.
fn bit(name: &str) -> u64 {
    let numbers =
        [("NET_BROADCAST", 11), ("NET_ADMIN", 12), ("NET_RAW", 13), ("SYS_PTRACE", 19), ("SYS_ADMIN", 21), ("BPF", 39)];
    numbers.iter().find(|(known, _)| *known == name).map_or(0, |(_, number)| 1 << number)
}

/// The checks of `dupip doctor` in the container, of which some are not as they should be.
fn lacking(pod: &Pod, capabilities: &[String]) -> Result<BTreeSet<String>> {
    let output = pod.output(&["doctor", "--bridge", "rt0", "-o", "json"], capabilities)?;
    let report: Value = serde_json::from_str(&output).with_context(|| output.clone())?;
    let checks = list(&report, "/checks");
    let missing = checks
        .iter()
        .filter(|check| *at(check, "/status") == "missing")
        .filter_map(|check| at(check, "/name").as_str());
    Ok(missing.filter_map(|name| name.strip_prefix("capability.cap_")).map(str::to_uppercase).collect())
}

#[test]
fn each_capability_is_needed_and_none_is_missing() -> Result<()> {
    let (_bridge, _, pod) = node()?;
    let all = pod.capabilities();
    assert_eq!(lacking(&pod, &[])?, all.iter().cloned().collect(), "they are all that `dupip doctor` asks for");
    assert_eq!(lacking(&pod, &all)?, BTreeSet::new());
    for capability in &all {
        // The kernel takes SYS_ADMIN for BPF.
        let gone = |name: &String| name == capability || (capability == "BPF" && name == "SYS_ADMIN");
        let rest: Vec<_> = all.iter().filter(|name| !gone(name)).cloned().collect();
        assert!(lacking(&pod, &rest)?.contains(capability), "{capability}");
    }
    Ok(())
}

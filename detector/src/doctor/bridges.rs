//! The bridges, their ports, and how far one sees behind each.

use std::{collections::BTreeMap, fs};

use super::{
    Check, Lack,
    topics::{self, Topic},
};
use crate::{
    net::{BridgeName, IfIndex, Reach},
    netlink::{Error, Host, Inside, PortSurvey, Survey},
};

/// How many neighbours the host keeps, for all interfaces together (`Documentation/networking/ip-sysctl.rst`).
const NEIGHBOURS: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";

/// What there is to look at.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The bridges that are there.
    pub(super) bridges: Vec<BridgeName>,
    /// The interfaces that the tap would sit at, by index and name.
    pub(super) interfaces: Vec<(IfIndex, String)>,
}

/// Looks at the bridges `names`, or at every one.
pub(super) async fn examine(names: &[BridgeName]) -> (Seen, Vec<Check>) {
    let mut host = match Host::open() {
        Ok(host) => host,
        Err(error) => return (Seen::default(), vec![Check::skipped(topics::BRIDGE, error.to_string())]),
    };
    let names = match there(&mut host, names).await {
        Ok(names) => names,
        Err(check) => return (Seen::default(), vec![check]),
    };
    let (mut seen, mut checks) = (Seen::default(), Vec::new());
    for name in names {
        match host.survey(name).await {
            Ok(survey) => {
                seen.bridges.push(name);
                seen.interfaces.push((survey.bridge.index, name.to_string()));
                seen.interfaces.extend(survey.ports.iter().map(|of| (of.port.index, of.port.name.clone())));
                checks.extend(bridge(&survey));
                checks.push(neighbours(&mut host, &survey).await.of(name));
            }
            Err(error) => checks.push(not_seen(&error).of(name)),
        }
    }
    (seen, checks)
}

async fn there(host: &mut Host, names: &[BridgeName]) -> Result<Vec<BridgeName>, Check> {
    if !names.is_empty() {
        return Ok(names.to_vec());
    }
    let all = host.bridges().await.map_err(|error| Check::skipped(topics::BRIDGE, error.to_string()))?;
    match all.as_slice() {
        [] => Err(Check::warning(topics::BRIDGE, "there is no bridge on this host, so there is nothing to watch")
            .cure("make one, or start the agent with --wait")),
        all => Ok(all.iter().map(|bridge| bridge.name).collect()),
    }
}

fn not_seen(error: &Error) -> Check {
    match error {
        Error::NoBridge(_) => {
            Check::warning(topics::BRIDGE, "there is no such bridge").cure("make it, or start the agent with --wait")
        }
        Error::NotABridge(_) => Check::warning(topics::BRIDGE, "is another kind of interface").cure("name a bridge"),
        Error::Scan { .. } => Check::missing(topics::BRIDGE, Lack::Permission, error.to_string()).cure("run as root"),
        _ => Check::skipped(topics::BRIDGE, error.to_string()),
    }
}

fn bridge(survey: &Survey) -> Vec<Check> {
    let name = survey.bridge.name;
    let mut checks = vec![up(survey).of(name), vlans(survey).of(name), ports(&survey.ports).of(name)];
    checks.extend(survey.ports.iter().filter_map(|seen| Some(port(seen)?.of(format!("{name}/{}", seen.port.name)))));
    checks
}

fn up(survey: &Survey) -> Check {
    const NAME: &Topic = topics::BRIDGE;
    let networks: Vec<_> = survey.addresses.iter().map(ToString::to_string).collect();
    match (survey.bridge.up, networks.as_slice()) {
        (false, _) => Check::warning(NAME, "is down, so nobody on it can be heard or asked")
            .cure(format!("ip link set {} up", survey.bridge.name)),
        (true, []) => Check::warning(
            NAME,
            "is up and has no address: it is not known which addresses are at home there, and none can be leased",
        )
        .cure(format!(
            "ip address add 10.8.64.1/24 dev {}, or name its network with --extra-network",
            survey.bridge.name
        )),
        (true, networks) => Check::ok(NAME, format!("is up, with {}", networks.join(", "))),
    }
}

fn vlans(survey: &Survey) -> Check {
    const NAME: &Topic = topics::VLAN_FILTERING;
    let tagged: Vec<_> = survey.vlans.iter().map(|device| device.vlan.get().to_string()).collect();
    match (survey.bridge.vlan_filtering, tagged.as_slice()) {
        (false, _) => Check::ok(NAME, "is off: a port's untagged frames are all of one domain"),
        (true, []) => {
            Check::warning(NAME, "is on, and the host itself is in no tagged VLAN: probes reach only the untagged one")
                .cure(format!(
                    "bridge vlan add dev {} vid 7 self, for each VLAN that is to be asked",
                    survey.bridge.name
                ))
        }
        (true, tagged) => Check::ok(NAME, format!("is on; the host itself is in VLANs {}", tagged.join(", "))),
    }
}

fn ports(ports: &[PortSurvey]) -> Check {
    const NAME: &Topic = topics::PORTS;
    let mut by_reach: BTreeMap<Reach, usize> = BTreeMap::new();
    ports.iter().for_each(|seen| *by_reach.entry(seen.reach).or_default() += 1);
    let told: Vec<_> = by_reach.iter().map(|(reach, count)| format!("{count} {}", behind(*reach))).collect();
    match told.as_slice() {
        [] => Check::ok(NAME, "has no ports"),
        told => Check::ok(NAME, format!("has {} ports: {}", ports.len(), told.join(", "))),
    }
}

const fn behind(reach: Reach) -> &'static str {
    match reach {
        Reach::Netns | Reach::NetnsById => "with a namespace that can be seen into",
        Reach::Tap => "for a virtual machine",
        Reach::Local => "with its other end on the host",
        Reach::Other => "that lead elsewhere",
        Reach::ClosedNoWayIn | Reach::ClosedNotPermitted | Reach::Closed => "with a namespace that cannot be seen into",
    }
}

/// What is worth saying about one port: nothing, if it can be looked behind.
fn port(seen: &PortSurvey) -> Option<Check> {
    const NAME: &Topic = topics::PORT;
    let why = match &seen.inside {
        Inside::Unreachable(error) => error.to_string(),
        Inside::Seen(_) | Inside::NoPeer => String::new(),
    };
    match seen.reach {
        Reach::Netns | Reach::NetnsById | Reach::Local => None,
        Reach::Tap => {
            Some(Check::ok(NAME, "is a tap: what its virtual machine has is known by what it says and answers"))
        }
        Reach::Other => Some(
            Check::ok(NAME, "leads elsewhere: who is there is known by what they say and answer")
                .cure("name it with --external, if it leads out of this host"),
        ),
        Reach::ClosedNoWayIn => Some(Check::warning(
            NAME,
            "its namespace has neither a name nor a process: what is configured in there cannot be seen, only what it says",
        )),
        Reach::ClosedNotPermitted => Some(
            Check::missing(NAME, Lack::Permission, format!("its namespace may not be entered: {why}"))
                .cure("run as root, or with CAP_SYS_ADMIN and CAP_SYS_PTRACE"),
        ),
        Reach::Closed => Some(Check::warning(NAME, format!("what is in its namespace cannot be seen: {why}"))),
    }
}

/// Hints only: a verdict never rests on them.
async fn neighbours(host: &mut Host, survey: &Survey) -> Check {
    const NAME: &Topic = topics::NEIGHBOURS;
    let limit = fs::read_to_string(NEIGHBOURS).ok().and_then(|text| text.trim().parse::<usize>().ok());
    match (host.neighbours(survey.bridge.index).await, limit) {
        (Err(error), _) => Check::skipped(NAME, error.to_string()),
        (Ok(known), Some(limit)) if survey.ports.len().max(known.len()) * 2 > limit => Check::warning(
            NAME,
            format!("the host keeps {limit} neighbours at most, and this bridge has {} ports", survey.ports.len()),
        )
        .cure(format!("sysctl -w net.ipv4.neigh.default.gc_thresh3={}", limit * 4)),
        (Ok(known), _) => Check::ok(NAME, format!("the host has lately heard of {} neighbours there", known.len())),
    }
}

//! Switches of the kernel that hide who has an address.

use std::{fs, path::Path};

use super::{
    Check,
    topics::{self, Topic},
};
use crate::net::BridgeName;

const CONF: &str = "/proc/sys/net/ipv4/conf";
/// There only while `br_netfilter` is loaded, which no namespace but the host's has on old kernels.
const ARPTABLES: &str = "/proc/sys/net/bridge/bridge-nf-call-arptables";
/// From this on the host keeps silent about addresses of its own (`Documentation/networking/ip-sysctl.rst`).
const SILENT: u32 = 3;

/// Looks at the host's switches for these bridges.
pub(super) fn examine(bridges: &[BridgeName]) -> Vec<Check> {
    let of_bridge = |name: &BridgeName| {
        [
            arp_ignore(*name),
            switch(*name, topics::PROXY_ARP, "proxy_arp"),
            switch(*name, topics::ARP_ACCEPT, "arp_accept"),
        ]
    };
    let checks = bridges.iter().flat_map(|name| of_bridge(name).map(|check| check.of(name)));
    checks.chain([arptables(read(Path::new(ARPTABLES)))]).collect()
}

fn read(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What holds on an interface: the greater of what is set for it and for all (`IN_DEV_MAXCONF` in
/// `include/linux/inetdevice.h`).
fn setting(bridge: BridgeName, name: &str) -> Option<u32> {
    let of = |interface: &str| read(&Path::new(CONF).join(interface).join(name));
    of(bridge.as_str()).max(of("all"))
}

fn unread(topic: &'static Topic) -> Check {
    Check::skipped(topic, "it cannot be read under /proc/sys")
}

fn arp_ignore(bridge: BridgeName) -> Check {
    match setting(bridge, "arp_ignore") {
        None => unread(topics::ARP_IGNORE),
        Some(set) => answers(bridge, set),
    }
}

fn answers(bridge: BridgeName, set: u32) -> Check {
    match set {
        ..SILENT => Check::ok(topics::ARP_IGNORE, "the host answers for its own addresses there"),
        _ => Check::warning(
            topics::ARP_IGNORE,
            format!(
                "is {set}: the host keeps silent about addresses of its own, and contradicts nobody who takes them"
            ),
        )
        .cure(format!("sysctl -w net.ipv4.conf.{bridge}.arp_ignore=1 net.ipv4.conf.all.arp_ignore=1")),
    }
}

fn switch(bridge: BridgeName, topic: &'static Topic, name: &str) -> Check {
    match setting(bridge, name) {
        None => unread(topic),
        Some(0) => Check::ok(topic, "is off"),
        Some(_) => on(bridge, topic, name),
    }
}

fn on(bridge: BridgeName, topic: &'static Topic, name: &str) -> Check {
    let meaning = if name == "proxy_arp" {
        "is on: the host answers for addresses that are not its own, and hides who has them from whoever asks"
    } else {
        "is on: whoever announces an address takes the host's traffic for it at once"
    };
    let off = format!("sysctl -w net.ipv4.conf.{bridge}.{name}=0 net.ipv4.conf.all.{name}=0, unless it is meant");
    Check::warning(topic, meaning).cure(off)
}

fn arptables(set: Option<u32>) -> Check {
    const NAME: &Topic = topics::BRIDGE_ARPTABLES;
    match set {
        None => Check::ok(NAME, "bridged ARP goes through no arptables (br_netfilter is not loaded)"),
        Some(0) => Check::ok(NAME, "bridged ARP goes through no arptables"),
        Some(_) => {
            Check::warning(NAME, "bridged ARP goes through arptables: a rule there can hide a duplicate from others")
                .cure("sysctl -w net.bridge.bridge-nf-call-arptables=0, unless rules there are meant (arptables -L)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn what_hides_an_owner_is_told_with_the_cure() {
        let bridge = "rt0".parse().unwrap();
        assert_eq!([0, 1, 2].map(|set| answers(bridge, set).status), [Status::Ok; 3]);
        assert_eq!([3, 8].map(|set| answers(bridge, set).status), [Status::Warning; 2]);
        assert_eq!([None, Some(0)].map(|set| arptables(set).status), [Status::Ok; 2]);
        assert!(arptables(Some(1)).remedy.unwrap().contains("arptables=0"));
        assert!(on(bridge, topics::PROXY_ARP, "proxy_arp").remedy.unwrap().contains("net.ipv4.conf.rt0.proxy_arp=0"));
    }
}

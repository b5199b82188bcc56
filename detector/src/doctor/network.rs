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
/// With this, and nothing else, the host keeps silent about what the bridge itself has (`arp_ignore` in
/// `net/ipv4/arp.c`; 3 hides addresses of scope host only).
const SILENT: u32 = 8;

/// Looks at the host's switches for these bridges.
pub(super) fn examine(bridges: &[BridgeName]) -> Vec<Check> {
    let of_bridge = |name: &BridgeName| {
        [
            arp_ignore(&Setting::of(*name, "arp_ignore")),
            proxy_arp(&Setting::of(*name, "proxy_arp")),
            arp_accept(&Setting::of(*name, "arp_accept")),
        ]
    };
    let checks = bridges.iter().flat_map(|name| of_bridge(name).map(|check| check.of(name)));
    checks.chain([arptables(read(Path::new(ARPTABLES)))]).collect()
}

fn read(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A switch as it is set for one interface, and for all.
#[derive(Clone, Copy)]
struct Setting {
    bridge: BridgeName,
    name: &'static str,
    own: Option<u32>,
    all: Option<u32>,
}

impl Setting {
    fn of(bridge: BridgeName, name: &'static str) -> Self {
        let of = |interface: &str| read(&Path::new(CONF).join(interface).join(name));
        Self { bridge, name, own: of(bridge.as_str()), all: of("all") }
    }

    /// What holds: the greater of both (`IN_DEV_MAXCONF` and `IN_DEV_ORCONF` in `include/linux/inetdevice.h`).
    fn holds(&self) -> Option<u32> {
        self.own.max(self.all)
    }

    /// What sets it to `value` wherever it is `limit` or more.
    fn cure(&self, limit: u32, value: u32) -> String {
        let Self { bridge, name, own, all } = self;
        let set = |of: &str, set: &Option<u32>| match *set >= Some(limit) {
            true => format!(" net.ipv4.conf.{of}.{name}={value}"),
            false => String::new(),
        };
        format!("sysctl -w{}{}", set(bridge.as_str(), own), set("all", all))
    }
}

fn unread(topic: &'static Topic) -> Check {
    Check::skipped(topic, "it cannot be read under /proc/sys")
}

fn arp_ignore(set: &Setting) -> Check {
    const NAME: &Topic = topics::ARP_IGNORE;
    match set.holds() {
        None => unread(NAME),
        Some(SILENT) => Check::warning(
            NAME,
            "is 8: the host keeps silent about addresses of its own, and contradicts nobody who takes them",
        )
        .cure(set.cure(SILENT, 1)),
        Some(_) => Check::ok(NAME, "the host answers for its own addresses there"),
    }
}

fn proxy_arp(set: &Setting) -> Check {
    const ON: &str =
        "is on: the host answers for addresses that are not its own, and hides who has them from whoever asks";
    switch(topics::PROXY_ARP, set, ON)
}

fn arp_accept(set: &Setting) -> Check {
    switch(topics::ARP_ACCEPT, set, "is on: whoever announces an address takes the host's traffic for it at once")
}

fn switch(topic: &'static Topic, set: &Setting, on: &str) -> Check {
    match set.holds() {
        None => unread(topic),
        Some(0) => Check::ok(topic, "is off"),
        Some(_) => Check::warning(topic, on).cure(set.cure(1, 0) + ", unless it is meant"),
    }
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
        let of = |name, own, all| Setting { bridge: "rt0".parse().unwrap(), name, own: Some(own), all: Some(all) };
        let ignore = |own, all| arp_ignore(&of("arp_ignore", own, all));
        assert_eq!([0, 1, 2, 3, 5, 9].map(|own| ignore(own, 0).status), [Status::Ok; 6]);
        for (own, all, cure) in [
            (8, 1, "sysctl -w net.ipv4.conf.rt0.arp_ignore=1"),
            (0, 8, "sysctl -w net.ipv4.conf.all.arp_ignore=1"),
            (8, 8, "sysctl -w net.ipv4.conf.rt0.arp_ignore=1 net.ipv4.conf.all.arp_ignore=1"),
        ] {
            assert_eq!((ignore(own, all).status, ignore(own, all).remedy.as_deref()), (Status::Warning, Some(cure)));
        }
        let proxy = proxy_arp(&of("proxy_arp", 1, 0)).remedy.unwrap();
        assert_eq!(proxy, "sysctl -w net.ipv4.conf.rt0.proxy_arp=0, unless it is meant");
        assert_eq!([None, Some(0)].map(|set| arptables(set).status), [Status::Ok; 2]);
        assert!(arptables(Some(1)).remedy.unwrap().contains("arptables=0"));
    }
}

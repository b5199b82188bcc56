//! Nobody on the runner finds the way into a sealed sandbox.

use std::collections::BTreeSet;

use anyhow::Result;
use lab::{Arp, Bridge, MacAddr};

use super::{DEADLINE, rt0};

/// The network namespaces of all the runner's processes, as they see them, and its named ones.
fn ways_in(bridge: &Bridge) -> Result<String> {
    let script = "readlink /proc/[0-9]*/ns/net /proc/[0-9]*/task/*/ns/net /proc/[0-9]*/fd/*; ls -i /run/netns; \
                  cat /proc/[0-9]*/mountinfo";
    bridge.runner().run(["sh", "-c", &format!("{script}; true")])
}

#[test]
fn it_answers_on_the_wire_and_has_no_way_in() -> Result<()> {
    let bridge = rt0()?;
    let open = bridge.sandbox("open").address("10.8.64.2/24").start()?;
    let sealed = bridge.sealed(&["10.8.64.3/24", "10.8.64.4/24"])?;
    for address in [[10, 8, 64, 3], [10, 8, 64, 4]] {
        assert_eq!(bridge.owners(address.into())?, [sealed.mac()?].into());
    }
    let ways = ways_in(&bridge)?;
    assert!(ways.contains(&open.netns()?.0.to_string()), "the other's are seen: {ways}");
    assert!(!ways.contains(&sealed.netns()?.0.to_string()), "{ways}");
    let this = format!("/proc/{} ", std::process::id());
    assert!(sealed.netns()?.holders()?.iter().any(|holder| holder.starts_with(&this)), "its open file");
    let port = bridge.runner().run(["ip", "-d", "link", "show", "dev", sealed.port()])?;
    assert!(port.contains("link-netnsid") && port.contains("master rt0"), "{port}");
    Ok(())
}

#[test]
fn its_addresses_come_and_go_and_it_sends_what_it_is_told() -> Result<()> {
    let bridge = rt0()?;
    bridge.runner().sysctl("net.ipv4.conf.all.arp_accept", "1")?;
    let sealed = bridge.sealed(&["10.8.64.3/24"])?;
    sealed.address("10.8.64.9/24")?;
    assert_eq!(bridge.owners([10, 8, 64, 9].into())?, [sealed.mac()?].into());
    sealed.remove_address("10.8.64.9/24")?;
    assert_eq!(bridge.owners([10, 8, 64, 9].into())?, BTreeSet::new());
    let forged = MacAddr(2, 0, 0, 0, 0, 7);
    sealed.send_frame(&Arp::announcement(forged, [10, 8, 64, 77].into()).frame())?;
    let neighbours = bridge.runner().run(["ip", "neighbour", "show", "10.8.64.77"])?;
    assert!(neighbours.contains(&forged.to_string()), "{neighbours}");
    Ok(())
}

#[test]
fn it_goes_with_its_handle() -> Result<()> {
    let bridge = rt0()?;
    bridge.sealed(&["10.8.64.3/24"])?.remove()?;
    assert_eq!(bridge.ports()?, BTreeSet::new());
    let sealed = bridge.sealed(&["10.8.64.3/24"])?;
    let netns = sealed.netns()?;
    drop((sealed, bridge));
    lab::wait_until(DEADLINE, "the namespace to go", || Ok(netns.holders()?.is_empty().then_some(())))
}

#[test]
fn one_that_cannot_be_made_says_why() -> Result<()> {
    let error = format!("{:#}", rt0()?.sealed(&["10.8.64.256/24"]).unwrap_err());
    assert!(error.contains("cannot make the sealed sandbox") && error.contains("10.8.64.256/24"), "{error}");
    Ok(())
}

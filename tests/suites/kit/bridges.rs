//! Bridges that come and go, and keep VLANs apart where the kernel can.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::Result;
use lab::Bridge;

use super::rt0;

#[test]
fn one_made_anew_is_another_of_the_same_name() -> Result<()> {
    let bridge = rt0()?;
    let sandbox = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let index = || bridge.runner().run(["cat", "/sys/class/net/rt0/ifindex"]);
    let before = index()?;
    bridge.delete()?;
    assert!(bridge.ports().is_err());
    bridge.make()?;
    assert_ne!(index()?, before);
    assert_eq!(bridge.ports()?, BTreeSet::new(), "the ports stay out");
    bridge.plug(sandbox.port())?;
    assert_eq!(sandbox.ping(bridge.gateway(), 1)?.lost(), 0);
    Ok(())
}

#[test]
fn two_on_one_runner_may_have_the_same_addresses() -> Result<()> {
    let first = rt0()?;
    let second = first.runner().bridge("rt1", "10.9.0.1/24")?;
    let sandboxes = [&first, &second].map(|bridge| bridge.sandbox(bridge.name()).address("10.8.64.2/24").start());
    for (bridge, sandbox) in [&first, &second].into_iter().zip(sandboxes) {
        assert_eq!(bridge.owners([10, 8, 64, 2].into())?, [sandbox?.mac()?].into());
    }
    Ok(())
}

/// Two sandboxes with one address, each in a VLAN of its own, and who answers to one more in the first's.
fn owners_in_one_vlan(bridge: &Bridge) -> Result<()> {
    let address = Ipv4Addr::new(10, 8, 64, 2);
    let first = bridge.sandbox("first").vlan(10).address("10.8.64.2/24").start()?;
    let second = bridge.sandbox("second").vlan(20).address("10.8.64.2/24").start()?;
    let asker = bridge.sandbox("asker").vlan(10).address("10.8.64.3/24").start()?;
    assert_eq!(asker.ping(address, 1)?.lost(), 0);
    let heard = asker.run(["ip", "neighbour", "show", "10.8.64.2"])?;
    assert!(heard.contains(&first.mac()?.to_string()) && !heard.contains(&second.mac()?.to_string()), "{heard}");
    let device = bridge.vlan_device(20, "10.8.64.1/24")?;
    let host = bridge.runner().run(["arping", "-c", "1", "-I", &device, "10.8.64.2"])?;
    assert!(host.to_uppercase().contains(&second.mac()?.to_string().to_uppercase()), "{host}");
    Ok(())
}

/// A kernel without `CONFIG_BRIDGE_VLAN_FILTERING` has no such attribute in sysfs, and says no: that is all it can show.
#[test]
fn vlans_are_kept_apart_or_the_kernel_says_that_it_cannot() -> Result<()> {
    let bridge = rt0()?;
    if bridge.knows_vlans()? {
        bridge.filter_vlans()?;
        return owners_in_one_vlan(&bridge);
    }
    let error = format!("{:#}", bridge.filter_vlans().unwrap_err());
    assert!(error.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{error}");
    let error = format!("{:#}", bridge.sandbox("first").vlan(10).start().unwrap_err());
    assert!(error.contains("`bridge vlan "), "{error}");
    Ok(())
}

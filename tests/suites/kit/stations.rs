//! Several stations behind one port, and hosts beyond an uplink.

use std::collections::BTreeSet;

use anyhow::Result;
use lab::MacAddr;

use super::rt0;

#[test]
fn a_macvlan_child_has_its_own_namespace_and_address_behind_the_same_port() -> Result<()> {
    let bridge = rt0()?;
    let parent = bridge.sandbox("parent").address("10.8.64.2/24").start()?;
    let named = bridge.sandbox("named").macvlan_of(&parent).address("10.8.64.3/24").start()?;
    let mac = MacAddr(2, 0, 0, 0, 0, 4);
    let anonymous =
        bridge.sandbox("anonymous").anonymous().mac(mac).macvlan_of(&parent).address("10.8.64.4/24").start()?;
    assert_eq!(bridge.ports()?, [parent.port().to_owned()].into());
    assert_eq!([named.port(), anonymous.port()], [parent.port(); 2]);
    assert_eq!(anonymous.mac()?, mac);
    for child in [&named, &anonymous] {
        assert_ne!(child.netns()?, parent.netns()?);
        assert_eq!(child.ping(bridge.gateway(), 1)?.lost(), 0, "{}", child.name());
    }
    for (address, station) in [([10, 8, 64, 2], &parent), ([10, 8, 64, 3], &named), ([10, 8, 64, 4], &anonymous)] {
        assert_eq!(bridge.owners(address.into())?, [station.mac()?].into());
    }
    [named, anonymous].into_iter().try_for_each(lab::Sandbox::remove)?;
    assert_eq!(bridge.ports()?, [parent.port().to_owned()].into(), "the port is the parent's");
    assert_eq!(bridge.owners([10, 8, 64, 3].into())?, BTreeSet::new());
    Ok(())
}

#[test]
fn one_in_the_sandbox_itself_answers_with_its_own_address() -> Result<()> {
    let bridge = rt0()?;
    let sandbox = bridge.sandbox("parent").address("10.8.64.2/24").start()?;
    sandbox.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
    let child = sandbox.macvlan("mv0", "10.8.64.3/24")?;
    assert_eq!(bridge.owners([10, 8, 64, 2].into())?, [sandbox.mac()?].into());
    assert_eq!(bridge.owners([10, 8, 64, 3].into())?, [child].into());
    Ok(())
}

#[test]
fn behind_an_uplink_is_a_host_of_somebody_elses() -> Result<()> {
    let bridge = rt0()?;
    let foreign = bridge.uplink("up0", "10.8.64.200/24")?;
    let sandbox = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    assert_eq!(foreign.port(), "up0");
    assert_eq!(bridge.ports()?, ["up0".to_owned(), sandbox.port().to_owned()].into());
    assert_eq!(sandbox.ping([10, 8, 64, 200].into(), 1)?.lost(), 0);
    assert_eq!(bridge.owners([10, 8, 64, 200].into())?, [foreign.mac()?].into());
    Ok(())
}

//! Many sandboxes at once.

use std::time::Duration;

use anyhow::Result;
use lab::{Bridge, MacAddr, Runner, wait_until};

fn wide() -> Result<Bridge> {
    Runner::new()?.bridge("rt0", "10.8.64.1/23")
}

#[test]
fn two_hundred_are_up_and_each_has_its_own_address() -> Result<()> {
    let bridge = wide()?;
    let plan = |n: u8| bridge.sandbox(&format!("crowd{n}")).without_ipv6().address(&format!("10.8.65.{n}/23"));
    let mut crowd = bridge.start_all((1..=200).map(plan))?;
    assert_eq!(bridge.ports()?.len(), 200);
    // A bridge forwards to a port a moment after that has a carrier, and nobody is told when.
    let owners = wait_until(Duration::from_secs(20), "the last one to answer", || {
        Ok(Some(bridge.owners([10, 8, 65, 200].into())?).filter(|owners| !owners.is_empty()))
    })?;
    assert_eq!(owners, [crowd[199].mac()?].into());
    for sandbox in crowd.iter().step_by(40) {
        assert_eq!(sandbox.ping(bridge.gateway(), 1)?.lost(), 0, "{}", sandbox.name());
    }
    crowd.remove(0).remove()?;
    assert_eq!(bridge.ports()?.len(), 199);
    Ok(())
}

#[test]
fn each_plan_is_kept() -> Result<()> {
    let bridge = wide()?;
    let mac = MacAddr(2, 0, 0, 0, 0, 3);
    let crowd = bridge.start_all([
        bridge.sandbox("named").address("10.8.64.2/23").mac(mac),
        bridge.sandbox("anonymous").cgroup("pod/container").address("10.8.64.3/23"),
        bridge.sandbox("forwards").logs_martians().port("up0"),
    ])?;
    assert_eq!(crowd[0].mac()?, mac);
    assert_eq!(crowd[0].routes()?[0], "default via 10.8.64.1 dev eth0");
    assert_eq!(crowd[1].addresses()?, ["10.8.64.3/23"]);
    assert_eq!(bridge.runner().run(["ip", "netns", "list"])?.lines().count(), 2);
    assert_eq!(crowd[2].run(["sysctl", "-n", "net.ipv4.ip_forward"])?, "1\n");
    assert_eq!(crowd[2].port(), "up0");
    Ok(())
}

#[test]
fn the_one_that_cannot_be_made_is_named() -> Result<()> {
    let bridge = wide()?;
    let plans = [("good", "10.8.64.2/23"), ("bad", "10.8.64.256/23")];
    let error = bridge.start_all(plans.map(|(name, address)| bridge.sandbox(name).address(address))).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("in bad") && error.contains("10.8.64.256/23"), "{error}");
    Ok(())
}

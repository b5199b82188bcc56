//! keepalived moves an address from one sandbox to another.

use anyhow::Result;
use lab::{Bridge, MacAddr, Sandbox, Vrrp, wait_until};

use super::{DEADLINE, rt0};

fn pair(virtual_mac: bool) -> Result<(Bridge, [Sandbox; 2], Vrrp)> {
    let bridge = rt0()?;
    let start = |(name, address)| bridge.sandbox(name).address(address).start();
    let [first, second] = [("first", "10.8.64.2/24"), ("second", "10.8.64.3/24")].map(start);
    Ok((bridge, [first?, second?], Vrrp { id: 51, address: [10, 8, 64, 100].into(), virtual_mac }))
}

fn wait_owners(bridge: &Bridge, vrrp: Vrrp, owners: &[MacAddr]) -> Result<()> {
    let expected = owners.iter().copied().collect();
    let settled = || Ok((bridge.owners(vrrp.address)? == expected).then_some(()));
    wait_until(DEADLINE, &format!("{owners:?} to answer for {}", vrrp.address), settled)
}

#[test]
fn an_address_moves_when_its_master_stops() -> Result<()> {
    let (bridge, [first, second], vrrp) = pair(false)?;
    let mut master = vrrp.start(&first, 200)?;
    master.wait_master()?;
    let mut backup = vrrp.start(&second, 100)?;
    wait_owners(&bridge, vrrp, &[first.mac()?])?;
    master.stop()?;
    backup.wait_master()?;
    wait_owners(&bridge, vrrp, &[second.mac()?])
}

#[test]
fn a_killed_master_leaves_the_address_and_both_answer() -> Result<()> {
    let (bridge, [first, second], vrrp) = pair(false)?;
    let mut master = vrrp.start(&first, 200)?;
    master.wait_master()?;
    let mut backup = vrrp.start(&second, 100)?;
    master.kill9()?;
    backup.wait_master()?;
    wait_owners(&bridge, vrrp, &[first.mac()?, second.mac()?])
}

#[test]
fn a_virtual_hardware_address_moves_along() -> Result<()> {
    let (bridge, [first, second], vrrp) = pair(true)?;
    let mut master = vrrp.start(&first, 200)?;
    master.wait_master()?;
    wait_owners(&bridge, vrrp, &[vrrp.mac()])?;
    let mut backup = vrrp.start(&second, 100)?;
    master.stop()?;
    backup.wait_master()?;
    wait_owners(&bridge, vrrp, &[vrrp.mac()])?;
    let link = second.run(["ip", "link", "show", "dev", "vrrp.51"])?;
    assert!(link.contains(&vrrp.mac().to_string()), "{link}");
    Ok(())
}

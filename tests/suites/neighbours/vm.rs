//! Micro VMs behind taps: nobody can look into them, so all that is known is what they say.

use std::{net::Ipv4Addr, thread::sleep, time::Duration};

use anyhow::Result;
use lab::{Agent, Arp, Bridge, MacAddr, Mode, Tap};
use serde_json::Value;

use super::{DEADLINE, Witness, kinds, runner, story, text, wait_for_event, wait_for_ports};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 5);
const NEW_MAC: MacAddr = MacAddr(0x52, 0x54, 0, 0xaa, 0xbb, 0xcc);

/// A VM that has said what it has, and answers when it is asked; with what hardware address.
fn vm(agent: &mut Agent, bridge: &Bridge, name: &str, mac: Option<MacAddr>) -> Result<(Tap, MacAddr)> {
    let vm = bridge.tap(name)?;
    wait_for_ports(agent, u16::try_from(bridge.ports()?.len())?)?;
    let mac = mac.unwrap_or(vm.mac());
    vm.answer([OWN], mac);
    vm.send_frame(&Arp::announcement(mac, OWN).frame())?;
    Ok((vm, mac))
}

/// Waits until the address has one row, of this station, and it is fine.
fn wait_for_row(agent: &mut Agent, port: &str, mac: MacAddr) -> Result<Value> {
    agent.wait_until(DEADLINE, &format!("{mac} at {port} alone to have {OWN}"), |agent| {
        let mut rows = agent.table()?;
        rows.retain(|row| text(row, "address") == OWN.to_string());
        let [row] = rows.as_slice() else { return Ok(None) };
        let is_right = text(row, "port") == port && text(row, "mac") == mac.to_string() && text(row, "state") == "ok";
        Ok(is_right.then(|| row.clone()))
    })
}

#[test]
fn one_that_answers_and_falls_silent_is_nothing() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let asker = bridge.sandbox("asker").address("10.8.64.2/24").start()?;
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let (vm, mac) = vm(&mut agent, &bridge, "vm1", None)?;
    let row = wait_for_row(&mut agent, "vm1", mac)?;
    assert_eq!((text(&row, "reach"), text(&row, "sandbox")), ("tap", ""));
    asker.ping(OWN, 1)?;
    assert!(vm.answered() > 0, "it was asked");
    vm.hush();
    asker.flush_neighbours()?;
    asker.ping(OWN, 1)?;
    witness.mark(&mut agent)?;
    wait_for_row(&mut agent, "vm1", mac)?;
    assert_eq!(kinds(&story(&agent)?), <[&str; 0]>::default(), "{:#?}", story(&agent)?);
    Ok(())
}

/// Scenario 24.
#[test]
fn one_that_comes_back_with_another_hardware_address_is_told_and_no_duplicate() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let (vm, mac) = vm(&mut agent, &bridge, "vm1", None)?;
    wait_for_row(&mut agent, "vm1", mac)?;
    vm.hush();
    // Booted anew, with another card.
    vm.answer([OWN], NEW_MAC);
    vm.speak();
    vm.send_frame(&Arp::announcement(NEW_MAC, OWN).frame())?;
    let told = wait_for_event(&mut agent, "info")?;
    assert_eq!((text(&told, "reason"), text(&told, "mac")), ("mac_changed", NEW_MAC.to_string().as_str()));
    assert_eq!(told.pointer("/detail/source_mac").and_then(Value::as_str), Some(mac.to_string().as_str()));
    wait_for_row(&mut agent, "vm1", NEW_MAC)?;
    witness.mark(&mut agent)?;
    assert_eq!(kinds(&story(&agent)?), ["info"], "{:#?}", story(&agent)?);
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    Ok(())
}

/// Scenario 22: the port goes, and the address comes up elsewhere.
#[test]
fn one_that_is_made_anew_behind_another_port_has_moved() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let (old, mac) = vm(&mut agent, &bridge, "vm1", None)?;
    wait_for_row(&mut agent, "vm1", mac)?;
    old.remove()?;
    let (_new, new_mac) = vm(&mut agent, &bridge, "vm2", None)?;
    wait_for_row(&mut agent, "vm2", new_mac)?;
    let told = wait_for_event(&mut agent, "moved")?;
    assert_eq!((text(&told, "port"), text(&told, "mac")), ("vm2", new_mac.to_string().as_str()));
    witness.mark(&mut agent)?;
    assert_eq!(kinds(&story(&agent)?), ["moved"], "{:#?}", story(&agent)?);
    Ok(())
}

/// As a live migration does it: the same hardware address speaks at another port, and the old port is still there, mute.
#[test]
fn one_that_moves_while_its_old_port_stays_has_moved() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let mut witness = Witness::on(&bridge)?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let (old, mac) = vm(&mut agent, &bridge, "vm1", None)?;
    wait_for_row(&mut agent, "vm1", mac)?;
    // Who was heard within a second counts as alive, and no event tells of silence.
    old.hush();
    sleep(Duration::from_millis(1500));
    let (_new, mac) = vm(&mut agent, &bridge, "vm2", Some(mac))?;
    wait_for_row(&mut agent, "vm2", mac)?;
    let told = wait_for_event(&mut agent, "moved")?;
    assert_eq!((text(&told, "port"), text(&told, "mac")), ("vm2", mac.to_string().as_str()));
    witness.mark(&mut agent)?;
    assert_eq!(kinds(&story(&agent)?), ["moved"], "{:#?}", story(&agent)?);
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    Ok(())
}

/// Two VMs that both answer are a duplicate, whether they can be looked into or not.
#[test]
fn two_that_both_answer_are_a_duplicate() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let (_old, mac) = vm(&mut agent, &bridge, "vm1", None)?;
    wait_for_row(&mut agent, "vm1", mac)?;
    let (_new, new_mac) = vm(&mut agent, &bridge, "vm2", None)?;
    let told = wait_for_event(&mut agent, "duplicate")?;
    let parties = told.pointer("/detail/parties").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut named: Vec<_> = parties.iter().map(|party| (text(party, "port"), text(party, "mac").to_owned())).collect();
    named.sort_unstable();
    assert_eq!(named, [("vm1", mac.to_string()), ("vm2", new_mac.to_string())]);
    Ok(())
}

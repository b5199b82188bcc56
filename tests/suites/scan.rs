//! `dupip scan`: one look and one sweep, with nobody to help.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use lab::{Bridge, Dupip, Mode, Runner};
use serde_json::Value;

const SCAN: [&str; 5] = ["scan", "--bridge", "rt0", "-o", "json"];

fn rt0() -> Result<Bridge> {
    Runner::new()?.bridge("rt0", "10.8.64.1/24")
}

/// What a scan says, and its exit code.
fn scan(bridge: &Bridge) -> Result<(Option<i32>, Value)> {
    let outcome = Dupip::on(bridge)?.outcome(&SCAN)?;
    let found = serde_json::from_str(&outcome.output).with_context(|| outcome.complaint.clone())?;
    Ok((outcome.status, found))
}

/// The contested addresses, each with the hardware addresses of who has it.
fn contested(found: &Value) -> Vec<(String, BTreeSet<String>)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let macs = |incident: &Value| {
        let parties = incident["parties"].as_array().into_iter().flatten();
        parties.map(|party| text(&party["mac"])).collect()
    };
    let incidents = found["incidents"].as_array().into_iter().flatten();
    incidents.map(|incident| (text(&incident["address"]), macs(incident))).collect()
}

#[test]
fn a_silent_duplicate_is_found_without_an_agent() -> Result<()> {
    let bridge = rt0()?;
    // Neither has said a word: link up first, address after.
    let sports = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let review = bridge.sandbox("reviewagent").address("10.8.64.2/24").start()?;
    let healthy = bridge.sandbox("calagent").address("10.8.64.3/24").start()?;
    let (status, found) = scan(&bridge)?;
    assert_eq!(status, Some(1), "{found:#}");
    let both = [sports.mac()?.to_string(), review.mac()?.to_string()].into();
    assert_eq!(contested(&found), [("10.8.64.2".to_owned(), both)], "{found:#}");
    let rows = found["rows"].as_array().into_iter().flatten();
    let healthy_row = rows.clone().find(|row| row["mac"] == healthy.mac().unwrap_or_default().to_string().as_str());
    assert_eq!(healthy_row.map(|row| (&row["state"], &row["sandbox"])), Some((&"ok".into(), &"calagent".into())));
    assert_eq!((rows.count(), &found["incomplete"]), (4, &false.into()), "{found:#}");
    let quiet = Dupip::on(&bridge)?.outcome(&["scan", "--quiet"])?;
    assert_eq!(quiet.status, Some(1));
    for name in ["10.8.64.2 on rt0", "sportsagent", "reviewagent"] {
        assert!(quiet.output.contains(name), "no `{name}` in {}", quiet.output);
    }
    Ok(())
}

#[test]
fn a_healthy_bridge_is_fine_and_cron_hears_nothing() -> Result<()> {
    let bridge = rt0()?;
    let _sandbox = bridge.sandbox("calagent").address("10.8.64.3/24").start()?;
    let (status, found) = scan(&bridge)?;
    assert_eq!((status, contested(&found).len()), (Some(0), 0), "{found:#}");
    assert_eq!(found["findings"].as_array().map(Vec::len), Some(0), "{found:#}");
    let quiet = Dupip::on(&bridge)?.outcome(&["scan", "--quiet"])?;
    assert_eq!((quiet.status, quiet.output.as_str(), quiet.complaint.as_str()), (Some(0), "", ""));
    let text = Dupip::on(&bridge)?.outcome(&["scan"])?.output;
    assert!(text.starts_with("BRIDGE  ADDRESS"), "{text}");
    assert!(text.ends_with("no duplicate and no martian was found\n"), "{text}");
    Ok(())
}

#[test]
fn a_virtual_machine_that_only_answers_is_found() -> Result<()> {
    let bridge = rt0()?;
    let sandbox = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let vm = bridge.tap("vm1")?;
    // An address that nothing on the host has heard of, and one that a sandbox has.
    vm.answer([[10, 8, 64, 77].into(), [10, 8, 64, 2].into()], vm.mac());
    let (status, found) = scan(&bridge)?;
    assert_eq!(status, Some(1), "{found:#}");
    let both = [sandbox.mac()?.to_string(), vm.mac().to_string()].into();
    assert_eq!(contested(&found), [("10.8.64.2".to_owned(), both)], "{found:#}");
    let has = |address: &str| {
        let mut rows = found["rows"].as_array().into_iter().flatten();
        rows.any(|row| row["address"] == address && row["port"] == vm.port())
    };
    assert!(has("10.8.64.77"), "{found:#}");
    let mut gaps = found["gaps"].as_array().into_iter().flatten();
    assert!(gaps.any(|gap| gap["port"] == vm.port() && gap["incomplete"] == false), "{found:#}");
    Ok(())
}

#[test]
fn macvlan_children_and_vlans_are_no_duplicates() -> Result<()> {
    let bridge = rt0()?;
    let parent = bridge.sandbox("parent").address("10.8.64.2/24").start()?;
    parent.macvlan("child", "10.8.64.3/24")?;
    // One address, in two domains: with a tag, it is another.
    let (plain, tagged) = (bridge.tap("vm1")?, bridge.tap("vm2")?);
    plain.answer([[10, 8, 64, 77].into()], plain.mac());
    tagged.answer_in(20, [[10, 8, 64, 77].into()], tagged.mac());
    let (status, found) = scan(&bridge)?;
    assert_eq!((status, contested(&found).len()), (Some(0), 0), "{found:#}");
    let rows = found["rows"].as_array().into_iter().flatten();
    let seen: BTreeSet<_> = rows.filter_map(|row| row["address"].as_str()).collect();
    assert_eq!(seen, ["10.8.64.1", "10.8.64.2", "10.8.64.3", "10.8.64.77"].into());
    Ok(())
}

#[test]
fn what_nobody_can_see_into_is_told_and_asked() -> Result<()> {
    let bridge = rt0()?;
    let sealed = bridge.sealed(&["10.8.64.2/24"])?;
    let sandbox = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let (status, found) = scan(&bridge)?;
    assert_eq!(status, Some(1), "{found:#}");
    let both = [sealed.mac()?.to_string(), sandbox.mac()?.to_string()].into();
    assert_eq!(contested(&found), [("10.8.64.2".to_owned(), both)], "{found:#}");
    Ok(())
}

#[test]
fn an_agent_beside_it_is_not_disturbed_and_leases_are_only_read() -> Result<()> {
    let bridge = rt0()?;
    let dupip = Dupip::on(&bridge)?;
    let _sandbox = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let agent = dupip.start(Mode::Observe)?;
    dupip.allocate("sportsagent")?;
    let history = || dupip.ask(&["lease", "history", "10.8.64.2"]);
    let (before, outcome) = (history()?, dupip.outcome(&SCAN)?);
    assert_eq!(outcome.status, Some(0), "{}", outcome.complaint);
    assert_eq!((history()?, agent.conflicts()?), (before, Vec::new()));
    Ok(())
}

#[test]
fn without_the_rights_it_is_not_permitted() -> Result<()> {
    let bridge = rt0()?;
    let outcome = Dupip::on(&bridge)?.without(&["net_raw"]).outcome(&SCAN)?;
    assert_eq!((outcome.status, outcome.output.as_str()), (Some(4), ""), "{}", outcome.complaint);
    assert!(outcome.complaint.contains("CAP_NET_RAW"), "{}", outcome.complaint);
    let missing = Dupip::on(&bridge)?.outcome(&["scan", "--bridge", "rt7"])?;
    assert_eq!((missing.status, missing.complaint.contains("no bridge rt7")), (Some(2), true), "{}", missing.complaint);
    Ok(())
}

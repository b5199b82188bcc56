//! What asks whether an address is free, and who says that it has one: systemd, and `arping` in every form.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use lab::{Agent, Arp, Bridge, MacAddr, Mode, Sandbox};
use serde_json::Value;

use super::{Witness, kinds, runner, story, text, wait_for_metric, wait_for_ports};

const FREE: &str = "10.8.64.77";
const OWN: &str = "10.8.64.2";
const FOREIGN: &str = "10.8.64.3";

fn two() -> Result<(Bridge, Agent, [Sandbox; 2], Witness)> {
    let (bridge, dupip) = runner()?;
    let start = |(name, address)| bridge.sandbox(name).address(address).start();
    let [asker, owner] = [("asker", "10.8.64.2/24"), ("owner", "10.8.64.3/24")].map(start);
    let witness = Witness::on(&bridge)?;
    let agent = dupip.start(Mode::Enforce)?;
    Ok((bridge, agent, [asker?, owner?], witness))
}

/// Nothing was told, nobody is in conflict, nothing is martian but what the witness has claimed, and every row of the others
/// is fine.
fn nothing_is_said(agent: &Agent) -> Result<()> {
    let story = story(agent)?;
    assert_eq!(kinds(&story), <[&str; 0]>::default(), "{story:#?}");
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    let rows = agent.table()?;
    let odd = rows.iter().filter(|row| text(row, "state") != "ok" && text(row, "sandbox") != "witness");
    assert_eq!(odd.collect::<Vec<_>>(), Vec::<&Value>::new());
    Ok(())
}

fn wait_for_claims(agent: &mut Agent, kind: &str, count: f64) -> Result<f64> {
    wait_for_metric(agent, &format!("dupip_claims_total{{bridge=\"rt0\",kind=\"{kind}\"}}"), |claims| claims >= count)
}

/// iputils' arping ends with 0 if `-D` finds the address free, and with 1 if somebody answers.
fn arping(sandbox: &Sandbox, words: &str) -> Result<Option<i32>> {
    Ok(sandbox.command("arping").args(["-I", "eth0"]).args(words.split(' ')).output()?.status.code())
}

#[test]
fn looking_whether_an_address_is_free_is_nothing() -> Result<()> {
    let (_bridge, mut agent, [asker, _owner], mut witness) = two()?;
    for (address, status) in [(FREE, 0), (OWN, 0), (FOREIGN, 1)] {
        assert_eq!(arping(&asker, &format!("-D -c 2 -w 2 {address}"))?, Some(status), "{address}");
    }
    // At least two each, of the foreign one at least one.
    wait_for_claims(&mut agent, "probe", 5.0)?;
    witness.mark(&mut agent)?;
    nothing_is_said(&agent)?;
    assert!(!agent.table()?.iter().any(|row| text(row, "address") == FREE), "who asks does not have it");
    Ok(())
}

/// systemd's `sd-ipv4acd` sends three probes and, when none is answered, two announcements (RFC 5227, sections 2.1.1 and
/// 2.3); the address is configured after the first of these.
fn as_systemd_does(sandbox: &Sandbox, address: Ipv4Addr) -> Result<()> {
    let mac = sandbox.mac()?;
    for _ in 0..3 {
        sandbox.send_frame(&Arp::probe(mac, address).frame())?;
    }
    sandbox.send_frame(&Arp::announcement(mac, address).frame())?;
    sandbox.address(&format!("{address}/24"))?;
    sandbox.send_frame(&Arp::announcement(mac, address).frame())
}

#[test]
fn taking_an_address_as_systemd_does_is_nothing() -> Result<()> {
    let (bridge, mut agent, _two, mut witness) = two()?;
    let newcomer = bridge.sandbox("newcomer").start()?;
    wait_for_ports(&mut agent, 4)?;
    as_systemd_does(&newcomer, [10, 8, 64, 9].into())?;
    wait_for_claims(&mut agent, "probe", 3.0)?;
    wait_for_claims(&mut agent, "gratuitous_request", 2.0)?;
    witness.mark(&mut agent)?;
    nothing_is_said(&agent)?;
    let rows = agent.table()?;
    let of_newcomer: Vec<_> = rows.iter().filter(|row| text(row, "address") == "10.8.64.9").collect();
    assert_eq!(of_newcomer.iter().map(|row| text(row, "sandbox")).collect::<Vec<_>>(), ["newcomer"]);
    Ok(())
}

#[test]
fn announcing_ones_own_address_is_nothing_however_often() -> Result<()> {
    let (_bridge, mut agent, [asker, _owner], mut witness) = two()?;
    // `-U` asks for itself, `-A` answers itself.
    for form in ["-U", "-A"] {
        assert_eq!(arping(&asker, &format!("{form} -c 2 {OWN}"))?, Some(0));
    }
    let frame = Arp::announcement(asker.mac()?, OWN.parse()?).frame();
    assert_eq!(asker.flood((0..1000).map(|_| frame.clone()))?, 1000);
    wait_for_claims(&mut agent, "gratuitous_request", 1002.0)?;
    wait_for_claims(&mut agent, "gratuitous_reply", 2.0)?;
    witness.mark(&mut agent)?;
    nothing_is_said(&agent)
}

/// Scenario 30: forms that are rare, and right.
#[test]
fn rare_forms_of_ones_own_address_are_nothing() -> Result<()> {
    let (_bridge, mut agent, [asker, owner], mut witness) = two()?;
    let (mac, own, zero) = (asker.mac()?, OWN.parse()?, Ipv4Addr::UNSPECIFIED);
    let (other, foreign) = (owner.mac()?, FOREIGN.parse()?);
    let gratuitous = Arp { operation: 2, ..Arp::announcement(mac, own) };
    for claim in [
        Arp::reply(mac, own, other, zero),
        gratuitous,
        Arp { target_mac: mac, ..gratuitous },
        Arp { target_mac: MacAddr::broadcast(), ..gratuitous },
        Arp { destination: other, ..Arp::announcement(mac, own) },
        Arp { destination: other, ..Arp::request(mac, own, foreign) },
        Arp { destination: other, ..Arp::probe(mac, foreign) },
    ] {
        asker.send_frame(&claim.frame())?;
    }
    wait_for_claims(&mut agent, "gratuitous_reply", 3.0)?;
    wait_for_claims(&mut agent, "probe", 1.0)?;
    witness.mark(&mut agent)?;
    nothing_is_said(&agent)
}

/// Scenario 7: two that look at one time whether an address is free are told of, and are no duplicate.
#[test]
fn two_that_look_for_the_same_address_at_once_are_no_duplicate() -> Result<()> {
    let (_bridge, mut agent, sandboxes, mut witness) = two()?;
    for sandbox in &sandboxes {
        sandbox.send_frame(&Arp::probe(sandbox.mac()?, FREE.parse()?).frame())?;
    }
    let told = super::wait_for_event(&mut agent, "info")?;
    ensure!(text(&told, "reason") == "soft_conflict" && text(&told, "address") == FREE, "{told}");
    witness.mark(&mut agent)?;
    assert_eq!(kinds(&story(&agent)?), ["info"]);
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    Ok(())
}

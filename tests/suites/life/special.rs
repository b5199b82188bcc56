//! Addresses and ports that are special, by nature or because an operator says so; claims that look odd and are not.

use std::net::Ipv4Addr;

use anyhow::Result;
use lab::{Arp, MacAddr, Mode};
use serde_json::Value;

use super::{CONTESTED, DEADLINE, duplicates, event, field, incident, mark, parties, row, rows, runner, text, told};

const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// As Calico gives each sandbox its gateway.
///
/// Scenario 29.
#[test]
fn a_link_local_gateway_with_one_hardware_address_everywhere_is_nothing() -> Result<()> {
    const MAC: MacAddr = MacAddr(0xee, 0xee, 0xee, 0xee, 0xee, 0xee);
    let (bridge, dupip) = runner()?;
    let taps = [bridge.tap("vm1")?, bridge.tap("vm2")?];
    taps.iter().for_each(|tap| tap.answer([LINK_LOCAL], MAC));
    let mut agent = dupip.start(Mode::Enforce)?;
    for tap in taps.iter().cycle().take(6) {
        tap.send_frame(&Arp::announcement(MAC, LINK_LOCAL).frame())?;
    }
    mark(&mut agent, 1, |frame| taps[1].send_frame(frame))?;
    assert_eq!(told(&agent)?, [], "neither a duplicate nor a martian");
    let both = rows(&agent, LINK_LOCAL)?;
    assert_eq!(both.iter().map(|row| text(row, "state")).collect::<Vec<_>>(), ["ok", "ok"], "{both:?}");
    // With another hardware address it is like any other.
    taps[0].answer([LINK_LOCAL], taps[0].mac());
    agent.wait_until(DEADLINE, "the duplicate", |agent| {
        taps[0].send_frame(&Arp::announcement(taps[0].mac(), LINK_LOCAL).frame())?;
        taps[1].send_frame(&Arp::announcement(MAC, LINK_LOCAL).frame())?;
        Ok(agent.conflicts()?.into_iter().next())
    })?;
    Ok(())
}

/// Scenario 29.
#[test]
fn addresses_of_a_declared_network_are_at_home() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let extra = bridge.sandbox("extra").address("10.8.64.2/24").address("10.77.0.5/16").start()?;
    let mut agent = dupip.start_with(Mode::Enforce, &["--extra-network", "10.77.0.0/16"])?;
    let mac = extra.mac()?;
    extra.send_frame(&Arp::announcement(mac, [10, 77, 0, 5].into()).frame())?;
    extra.send_frame(&Arp::announcement(mac, [10, 77, 255, 255].into()).frame())?;
    extra.send_frame(&Arp::announcement(mac, [10, 78, 0, 5].into()).frame())?;
    mark(&mut agent, 1, |frame| extra.send_frame(frame))?;
    let martian = |address: &str| ("martian".to_owned(), address.to_owned());
    assert_eq!(told(&agent)?, [martian("10.77.255.255"), martian("10.78.0.5")]);
    assert_eq!(agent.metric("dupip_martian_total{bridge=\"rt0\",reason=\"broadcast\"}")?, Some(1.0));
    assert_eq!(text(&row(&mut agent, [10, 77, 0, 5].into())?, "state"), "ok");
    // And one of them may have two owners, as any other.
    let _second = bridge.sandbox("second").address("10.77.0.5/16").start()?;
    let duplicate = event(&mut agent, "duplicate")?;
    assert_eq!(text(&duplicate, "address"), "10.77.0.5");
    Ok(())
}

/// Scenario 30.
#[test]
fn odd_but_honest_claims_are_ordinary() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let station = bridge.tap("vm1")?;
    let other = bridge.tap("vm2")?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let (mac, everybody) = (station.mac(), MacAddr::broadcast());
    let address = |last| Ipv4Addr::new(10, 8, 64, last);
    let claims = |mac| {
        [
            (11, "reply", Arp::reply(mac, address(11), other.mac(), Ipv4Addr::UNSPECIFIED)),
            (12, "gratuitous_reply", Arp::reply(mac, address(12), everybody, address(12))),
            (13, "gratuitous_request", Arp { destination: other.mac(), ..Arp::announcement(mac, address(13)) }),
        ]
    };
    for (_, _, claim) in claims(mac) {
        station.send_frame(&claim.frame())?;
    }
    mark(&mut agent, 1, |frame| station.send_frame(frame))?;
    assert_eq!(told(&agent)?, []);
    for (last, evidence, _) in claims(mac) {
        let row = row(&mut agent, address(last))?;
        assert_eq!(
            (text(&row, "evidence"), text(&row, "state"), text(&row, "mac")),
            (evidence, "ok", &*mac.to_string())
        );
    }
    // They contradict, too.
    let owners = [address(11), address(12), address(13)];
    station.answer(owners, mac);
    other.answer(owners, other.mac());
    for (_, _, claim) in claims(other.mac()) {
        other.send_frame(&claim.frame())?;
    }
    agent.wait_until(DEADLINE, "all three to be contested", |agent| {
        let rows = agent.table()?;
        let contested = rows.iter().filter(|row| text(row, "state") == "duplicate").count();
        Ok((contested == 6).then_some(()))
    })
}

#[test]
fn of_an_ignored_port_nobody_hears() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let owner = bridge.sandbox("owner").address("10.8.64.2/24").start()?;
    let ignored = bridge.sandbox("ignored").port("lab0").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start_with(Mode::Enforce, &["--ignore-port", "lab*"])?;
    let late = bridge.sandbox("late").port("lab1").address("10.8.64.2/24").announced().start()?;
    for sandbox in [&ignored, &late, &owner] {
        let mac = sandbox.mac()?;
        sandbox.send_frame(&Arp::request(mac, CONTESTED, bridge.gateway()).frame())?;
        sandbox.send_frame(&Arp::announcement(mac, [203, 0, 113, 1].into()).frame())?;
    }
    mark(&mut agent, 1, |frame| owner.send_frame(frame))?;
    let martians: Vec<_> = told(&agent)?;
    assert_eq!(martians, [("martian".to_owned(), "203.0.113.1".to_owned())], "the owner's own");
    let owners = rows(&agent, CONTESTED)?;
    assert_eq!(owners.iter().map(|row| text(row, "sandbox")).collect::<Vec<_>>(), ["owner"]);
    assert_eq!((duplicates(&agent)?, ignored.addresses()?), (Some(0.0), vec!["10.8.64.2/24".to_owned()]));
    Ok(())
}

#[test]
fn a_pin_is_stronger_than_a_lease() -> Result<()> {
    let (bridge, dupip) = runner()?;
    dupip.allocate("holder")?;
    let holder = bridge.sandbox("holder").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start_with(Mode::Enforce, &["--pin", "10.8.64.2=pinned"])?;
    let pinned = bridge.sandbox("pinned").address("10.8.64.2/24").start()?;
    let healed = incident(&mut agent, "healed")?;
    let roles = [("holder", holder.port(), "loser"), ("pinned", pinned.port(), "winner")];
    assert_eq!(parties(&healed), roles.map(|(name, port, role)| (name.into(), port.into(), role.into())));
    assert!(text(&healed, "reason").contains("pin"), "{healed}");
    assert_eq!(pinned.addresses()?, ["10.8.64.2/24"]);
    assert_ne!(holder.addresses()?, ["10.8.64.2/24"]);
    assert_eq!(field(&healed, "settled"), &Value::Bool(true));
    Ok(())
}

//! What is lost on the way to the agent, and found all the same.

use anyhow::{Context as _, Result};
use lab::{Agent, Arp, Bridge, Mode, Sandbox, wait_until};
use serde_json::Value;

use super::{
    CONTESTED, DEADLINE, duplicates, event, events, field, is_degraded, pause, resume, row, rows, runner, text,
    wait_tapped,
};

/// More claims than the ring between kernel and agent has room for (4 MiB, of which each takes at least 32 bytes).
const OVERFLOW: usize = 150_000;

/// Scenario 32.
#[test]
fn a_contradiction_that_came_when_the_ring_was_full_is_found_by_a_sweep() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _owner = bridge.sandbox("owner").address("10.8.64.2/24").start()?;
    let _other = bridge.sandbox("other").address("10.8.64.4/24").start()?;
    let noisy = bridge.sandbox("noisy").address("10.8.64.3/24").without_ipv6().start()?;
    let vm = bridge.tap("vm1")?;
    let mut agent = dupip.start_with(Mode::Observe, &["--claims-per-second", "0"])?;
    agent.wait_until(DEADLINE, "both owners to have answered", |agent| {
        let heard = |row: &&Value| field(row, "hits").as_u64().is_some_and(|hits| hits > 0);
        let is_owner = |row: &&Value| ["10.8.64.2", "10.8.64.4"].contains(&text(row, "address"));
        Ok((agent.table()?.iter().filter(heard).filter(is_owner).count() == 2).then_some(()))
    })?;
    pause(&agent)?;
    // What contradicts somebody has a ring of its own, and goes with all other news when that is full: both are.
    let claim = Arp::announcement(noisy.mac()?, [10, 8, 64, 4].into()).frame();
    assert_eq!(noisy.flood(std::iter::repeat_n(claim, OVERFLOW))?, OVERFLOW);
    vm.send_frame(&Arp::reply(vm.mac(), CONTESTED, bridge.mac()?, bridge.gateway()).frame())?;
    vm.answer([CONTESTED], vm.mac());
    resume(&agent)?;
    let lost = event(&mut agent, "events_lost")?;
    let count = field(field(&lost, "detail"), "count").as_u64().context("no count")?;
    assert!(count > 1, "{lost}");
    let is_it = |event: &Value| (text(event, "kind"), text(event, "address")) == ("duplicate", "10.8.64.2");
    let duplicate = agent
        .wait_until(DEADLINE, "the duplicate that was lost", |agent| Ok(events(agent)?.into_iter().find(is_it)))?;
    assert_eq!(text(&duplicate, "reason"), "reply");
    let total = agent.metric("dupip_lost_events_total{bridge=\"rt0\"}")?;
    assert!(total >= Some(2.0), "{total:?}");
    let told = events(&agent)?;
    let lost = told.iter().position(|event| text(event, "kind") == "events_lost");
    assert!(lost < told.iter().position(is_it), "{told:#?}");
    Ok(())
}

/// How many messages the kernel has dropped of the netlink sockets on the runner, of which only the agent has any
/// (`netlink_native_seq_show` in `net/netlink/af_netlink.c`).
fn dropped(bridge: &Bridge) -> Result<u64> {
    let table = bridge.runner().run(["cat", "/proc/net/netlink"])?;
    let drops = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    Ok(drops.sum())
}

/// Has the kernel say so much of a sandbox's links that a socket which nobody reads overflows.
fn overflow(sandbox: &Sandbox) -> Result<()> {
    sandbox.run(["ip", "link", "add", "pair0", "type", "veth", "peer", "name", "pair1"])?;
    let lines: String = (0..5_000).map(|number| format!("link set pair0 mtu {}\n", 1000 + number % 2)).collect();
    wait_until(6 * DEADLINE, "the agent's socket to overflow", || {
        sandbox.command("ip").args(["-batch", "-"]).input(&lines)?.run()?;
        Ok((dropped(sandbox.bridge())? > 0).then_some(()))
    })
}

/// Who holds which address.
fn held(agent: &Agent) -> Result<Vec<[String; 4]>> {
    let names = ["owner", "address", "generation", "state"];
    Ok(agent.leases()?.iter().map(|lease| names.map(|name| field(lease, name).to_string())).collect())
}

/// Scenario 33.
#[test]
fn after_the_kernels_notices_overflowed_all_is_as_it_should_be() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let stays = bridge.sandbox("stays").address("10.8.64.2/24").start()?;
    let goes = bridge.sandbox("goes").address("10.8.64.3/24").start()?;
    let changes = bridge.sandbox("changes").address("10.8.64.4/24").without_ipv6().start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    agent.wait_until(DEADLINE, "all three to be adopted", |agent| Ok((agent.leases()?.len() == 3).then_some(())))?;
    let leases = held(&agent)?;
    pause(&agent)?;
    overflow(&changes)?;
    goes.remove()?;
    changes.run(["ip", "address", "add", "10.8.64.5/24", "dev", "eth0"])?;
    let late = bridge.sandbox("late").address("10.8.64.6/24").without_ipv6().start()?;
    resume(&agent)?;
    let degraded = event(&mut agent, "degraded")?;
    assert_eq!(text(field(&degraded, "detail"), "feature"), "inventory", "{degraded}");
    let restored = event(&mut agent, "restored")?;
    assert_eq!(text(field(&restored, "detail"), "feature"), "inventory", "{restored}");
    assert!(!is_degraded(&agent, "inventory")?);
    for (last, sandbox) in [(2, &stays), (4, &changes), (5, &changes), (6, &late)] {
        let row = row(&mut agent, [10, 8, 64, last].into())?;
        assert_eq!(
            (text(&row, "sandbox"), text(&row, "port"), text(&row, "state")),
            (sandbox.name(), sandbox.port(), "ok")
        );
    }
    assert_eq!(rows(&agent, [10, 8, 64, 3].into())?, Vec::<Value>::new());
    assert_eq!(held(&agent)?, leases, "nothing was freed");
    assert_eq!((duplicates(&agent)?, agent.conflicts()?.len()), (Some(0.0), 0));
    assert_eq!(stays.addresses()?, ["10.8.64.2/24"]);
    wait_tapped(&mut agent, 3)?;
    // And what comes next is heard again.
    let _twin = bridge.sandbox("twin").address("10.8.64.2/24").start()?;
    assert_eq!(text(&event(&mut agent, "healed")?, "address"), "10.8.64.2");
    assert_eq!(stays.addresses()?, ["10.8.64.2/24"]);
    Ok(())
}

//! What is claimed on the wire, by sandboxes that can be looked into and by those that cannot.

use std::net::Ipv4Addr;

use anyhow::Result;
use lab::{Arp, MacAddr, Mode};
use serde_json::Value;

use super::{DEADLINE, duplicate_rows, field, runner, text};

#[test]
fn a_claim_on_the_wire_contradicts_the_owner() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _owner = bridge.sandbox("owner").address("10.8.64.2/24").start()?;
    let liar = bridge.sandbox("liar").address("10.8.64.3/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    for claim in [
        Arp::request(liar.mac()?, [10, 8, 64, 2].into(), bridge.gateway()),
        Arp::announcement(liar.mac()?, [10, 8, 64, 2].into()),
        Arp::reply(liar.mac()?, [10, 8, 64, 2].into(), bridge.mac()?, bridge.gateway()),
    ] {
        liar.send_frame(&claim.frame())?;
    }
    let incident = agent.wait_until(DEADLINE, "the incident", |agent| Ok(agent.conflicts()?.into_iter().next()))?;
    assert_eq!((text(&incident, "first_evidence"), text(&incident, "status")), ("request", "open"));
    assert!(text(&incident, "held").contains("only says so on the wire"), "{incident}");
    assert!(field(&incident, "named_us").as_u64().is_some_and(|us| us < 1_000_000), "{incident}");
    assert_eq!(duplicate_rows(&agent, [10, 8, 64, 2].into())?, 2);
    assert_eq!(
        agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?,
        Some(1.0),
        "one incident, however often it is claimed"
    );
    assert_eq!(liar.addresses()?, ["10.8.64.3/24"]);
    Ok(())
}

#[test]
fn unicast_between_two_sandboxes_is_heard_at_their_ports() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let a = bridge.sandbox("a").address("10.8.64.2/24").start()?;
    let b = bridge.sandbox("b").address("10.8.64.3/24").start()?;
    let mut agent = dupip.start(Mode::Observe)?;
    let reply = Arp::reply(b.mac()?, [10, 8, 64, 9].into(), a.mac()?, [10, 8, 64, 2].into());
    b.send_frame(&reply.frame())?;
    let row = agent.wait_until(DEADLINE, "the claim", |agent| {
        Ok(agent.table()?.into_iter().find(|row| text(row, "address") == "10.8.64.9"))
    })?;
    assert_eq!((text(&row, "sandbox"), text(&row, "evidence"), text(&row, "state")), ("b", "reply", "ok"));
    assert_eq!(text(&row, "mac"), b.mac()?.to_string());
    Ok(())
}

/// Scenario 16.
#[test]
fn martians_are_counted_by_reason_and_shown() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let odd = bridge.sandbox("odd").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let mac = odd.mac()?;
    for sender in [[192, 0, 2, 1], [10, 8, 64, 255], [127, 0, 0, 1], [224, 0, 0, 1]] {
        odd.send_frame(&Arp::request(mac, sender.into(), bridge.gateway()).frame())?;
    }
    let forged = Arp { source: MacAddr::new(2, 9, 9, 9, 9, 9), ..Arp::announcement(mac, [10, 8, 64, 2].into()) };
    odd.send_frame(&forged.frame())?;
    for reason in ["outside_subnet", "broadcast", "loopback", "multicast", "ether_mismatch"] {
        let series = format!("dupip_martian_total{{bridge=\"rt0\",reason=\"{reason}\"}}");
        agent.wait_until(DEADLINE, &series, |agent| Ok((agent.metric(&series)? == Some(1.0)).then_some(())))?;
    }
    let states: Vec<_> = agent
        .table()?
        .into_iter()
        .map(|row| (text(&row, "address").to_owned(), text(&row, "state").to_owned()))
        .collect();
    assert!(states.contains(&("192.0.2.1".to_owned(), "martian".to_owned())), "{states:?}");
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    Ok(())
}

/// Scenarios 20 and 21.
#[test]
fn probes_and_announcements_of_ones_own_are_nothing() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let a = bridge.sandbox("a").address("10.8.64.2/24").announced().start()?;
    let b = bridge.sandbox("b").address("10.8.64.3/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    // As RFC 5227 has it done, and as `arping -D` does it.
    b.run(["arping", "-D", "-c", "2", "-w", "2", "-I", "eth0", "10.8.64.3"])?;
    a.run(["arping", "-U", "-c", "2", "-I", "eth0", "10.8.64.2"])?;
    agent.wait_until(DEADLINE, "the probes to be counted", |agent| {
        let probes = agent.metric("dupip_claims_total{bridge=\"rt0\",kind=\"probe\"}")?;
        Ok(probes.filter(|probes| *probes >= 2.0))
    })?;
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    for reason in ["this_network", "outside_subnet", "ether_mismatch"] {
        assert_eq!(agent.metric(&format!("dupip_martian_total{{bridge=\"rt0\",reason=\"{reason}\"}}"))?, Some(0.0));
    }
    Ok(())
}

/// Scenario 19.
#[test]
fn malformed_frames_are_counted_and_change_nothing() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let odd = bridge.sandbox("odd").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let rows = agent.table()?.len();
    let whole = Arp::announcement(odd.mac()?, [10, 8, 64, 66].into()).frame();
    let with = |at: usize, byte: u8| {
        let mut frame = whole.clone();
        frame.splice(at..=at, [byte]);
        frame
    };
    for frame in
        [whole.get(..30).unwrap_or_default().to_vec(), with(15, 6), with(16, 0), with(18, 8), with(19, 16), with(21, 9)]
    {
        odd.send_frame(&frame)?;
    }
    for reason in ["short", "hardware_type", "protocol_type", "hardware_length", "protocol_length", "operation"] {
        let series = format!("dupip_malformed_total{{bridge=\"rt0\",reason=\"{reason}\"}}");
        agent.wait_until(DEADLINE, &series, |agent| Ok((agent.metric(&series)? == Some(1.0)).then_some(())))?;
    }
    assert_eq!(agent.table()?.len(), rows);
    Ok(())
}

#[test]
fn a_sandbox_without_a_name_is_called_by_its_cgroup() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let id = "4f6b0d2c8a1e".repeat(6)[..64].to_owned();
    let pod = format!("kubepods/pod7/cri-containerd-{id}.scope");
    let sandbox = bridge.sandbox("anonymous").cgroup(&pod).address("10.8.64.2/24").start()?;
    let mut agent = dupip.start(Mode::Observe)?;
    let row = agent.wait_until(DEADLINE, "the sandbox", |agent| {
        Ok(agent.table()?.into_iter().find(|row| text(row, "address") == "10.8.64.2"))
    })?;
    assert_eq!(text(&row, "sandbox"), &id[..12]);
    assert_eq!((text(&row, "port"), field(&row, "netns").as_u64()), (sandbox.port(), Some(sandbox.netns()?.0)));
    Ok(())
}

#[test]
fn the_table_follows_what_the_kernel_says() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let sandbox = bridge.sandbox("a").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start(Mode::Observe)?;
    let has = |address: &'static str| {
        move |agent: &mut lab::Agent| -> Result<Option<()>> {
            Ok(agent.table()?.iter().any(|row| text(row, "address") == address).then_some(()))
        }
    };
    let has_not = |address: &'static str| {
        move |agent: &mut lab::Agent| -> Result<Option<()>> {
            Ok((!agent.table()?.iter().any(|row| text(row, "address") == address)).then_some(()))
        }
    };
    sandbox.run(["ip", "address", "add", "10.8.64.7/24", "dev", "eth0"])?;
    agent.wait_until(DEADLINE, "a new address", has("10.8.64.7"))?;
    sandbox.run(["ip", "address", "delete", "10.8.64.7/24", "dev", "eth0"])?;
    agent.wait_until(DEADLINE, "the address to go", has_not("10.8.64.7"))?;
    sandbox.run(["ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"])?;
    agent.wait_until(DEADLINE, "the new hardware address", |agent| {
        let rows = agent.table()?;
        let macs: Vec<_> =
            rows.iter().filter(|row| text(row, "address") == "10.8.64.2").map(|row| text(row, "mac")).collect();
        Ok((macs == ["02:00:00:00:00:99"]).then_some(()))
    })?;
    sandbox.run(["ip", "link", "set", "eth0", "down"])?;
    agent.wait_until(DEADLINE, "an interface that is down to claim nothing", has_not("10.8.64.2"))?;
    sandbox.remove()?;
    agent.wait_until(DEADLINE, "the port to go", |agent| {
        Ok((agent.metric("dupip_ports{bridge=\"rt0\"}")? == Some(0.0)).then_some(()))
    })?;
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    Ok(())
}

/// As container engines do it: both ends are made on the runner, the port is enslaved, and only then does the other end go
/// to its namespace, to be renamed, brought up and addressed there.
#[test]
fn a_veth_that_is_moved_away_after_it_became_a_port_is_followed() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let mut agent = dupip.start(Mode::Observe)?;
    for line in [
        "ip netns add docked",
        "ip link add vethd0 type veth peer name ceth0",
        "ip link set vethd0 master rt0 up",
        "ip link set ceth0 netns docked",
        "ip -n docked link set ceth0 name eth0 up",
        "ip -n docked address add 10.8.64.2/24 dev eth0",
    ] {
        bridge.runner().run(line.split(' '))?;
    }
    let row = agent.wait_until(DEADLINE, "the sandbox", |agent| {
        Ok(agent.table()?.into_iter().find(|row| text(row, "sandbox") == "docked"))
    })?;
    assert_eq!(
        (text(&row, "address"), text(&row, "port"), text(&row, "evidence")),
        ("10.8.64.2", "vethd0", "configured")
    );
    Ok(())
}

#[test]
fn sandboxes_that_come_while_the_agent_starts_are_all_seen() -> Result<()> {
    const MANY: u8 = 40;
    let (bridge, dupip) = runner()?;
    let mut agent = dupip.spawn(Mode::Observe, &[])?;
    for number in 0..MANY {
        bridge.sandbox(&format!("s{number}")).address(&format!("10.8.64.{}/24", 10 + number)).start()?;
    }
    agent.wait_ready()?;
    agent.wait_until(DEADLINE, "every sandbox to be seen", |agent| {
        let rows = agent.table()?;
        Ok((rows.iter().filter(|row| !field(row, "sandbox").is_null()).count() == usize::from(MANY)).then_some(()))
    })?;
    agent.wait_until(DEADLINE, "a tap on every port", |agent| {
        Ok((agent.metric("dupip_ports{bridge=\"rt0\"}")? == Some(f64::from(MANY))).then_some(()))
    })
}

#[test]
fn many_sandboxes_at_once_are_all_seen_and_none_accused() -> Result<()> {
    const MANY: u8 = 40;
    let (bridge, dupip) = runner()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let started: Result<Vec<_>> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..MANY)
            .map(|number| {
                let plan =
                    bridge.sandbox(&format!("s{number}")).address(&format!("10.8.64.{}/24", 10 + number)).announced();
                scope.spawn(move || plan.start())
            })
            .collect();
        starts.into_iter().map(|start| start.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect()
    });
    let sandboxes = started?;
    agent.wait_until(DEADLINE, "every sandbox to be seen", |agent| {
        let rows = agent.table()?;
        let seen = |sandbox: &lab::Sandbox| {
            rows.iter().any(|row| text(row, "sandbox") == sandbox.name() && text(row, "state") == "ok")
        };
        Ok(sandboxes.iter().all(seen).then_some(()))
    })?;
    // A sandbox is known before its port has a tap: attaching takes the kernel some ten milliseconds.
    agent.wait_until(DEADLINE, "a tap on every port", |agent| {
        Ok((agent.metric("dupip_ports{bridge=\"rt0\"}")? == Some(f64::from(MANY))).then_some(()))
    })?;
    assert_eq!(agent.conflicts()?, Vec::<Value>::new());
    let gateway: Ipv4Addr = bridge.gateway();
    assert!(agent.table()?.iter().any(|row| text(row, "address") == gateway.to_string() && field(row, "host") == true));
    Ok(())
}

//! Ports, namespaces and bridges that are taken away while the agent is at work on them, and other programs beside its own.

use anyhow::Result;
use lab::{Arp, Dupip, Mode, Process, Sandbox, wait_until};
use rustix::process::Signal;
use serde_json::Value;

use super::{CONTESTED, DEADLINE, event, field, is_degraded, mark, pause, resume, row, runner, text, wait_tapped};
use crate::agent::life::{bpf_ids, still_there};

/// How many links, programs and maps the kernel holds for a process.
fn counts(pid: u32) -> Result<[usize; 3]> {
    let ids = bpf_ids(pid)?;
    Ok(["link_id", "prog_id", "map_id"].map(|kind| ids.iter().filter(|(of, _)| of == kind).count()))
}

/// Scenario 34.
#[test]
fn ports_that_are_deleted_under_the_taps_leave_nothing() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let stays = bridge.sandbox("stays").address("10.8.64.2/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    wait_tapped(&mut agent, 1)?;
    let before = counts(agent.pid())?;
    assert_eq!(before[0], 2, "one link on the port, one on the bridge");
    let plan = |round: u8, number: u8| {
        bridge.sandbox(&format!("s{round}-{number}")).without_ipv6().address(&format!("10.8.64.{}/24", 10 + number))
    };
    for round in 0..3 {
        let crowd = bridge.start_all((0..6).map(|number| plan(round, number)))?;
        if round == 0 {
            wait_tapped(&mut agent, 7)?;
        }
        // In the other rounds they go while the tap is being attached to them.
        for sandbox in crowd {
            bridge.runner().run(["ip", "link", "delete", sandbox.port()])?;
            bridge.runner().run(["ip", "netns", "delete", sandbox.name()])?;
        }
    }
    wait_tapped(&mut agent, 1)?;
    agent.wait_until(DEADLINE, "the kernel to hold what it held before", |agent| {
        Ok((counts(agent.pid())? == before).then_some(()))
    })?;
    agent
        .wait_until(DEADLINE, "the table to show who is left", |agent| Ok((agent.table()?.len() == 2).then_some(())))?;
    for feature in ["taps", "inventory"] {
        assert!(!is_degraded(&agent, feature)?, "{feature}: {}", agent.log()?);
    }
    mark(&mut agent, 1, |frame| stays.send_frame(frame))?;
    let ids = bpf_ids(agent.pid())?;
    assert!(agent.terminate()?.success());
    wait_until(DEADLINE, "everything to go", || Ok(still_there(&bridge, &ids)?.is_empty().then_some(())))
}

/// Scenario 34.
#[test]
fn a_namespace_that_is_deleted_in_the_middle_of_its_eviction_ends_it() -> Result<()> {
    let steps =
        ["contain", "reallocate", "readdress", "announce_new", "announce_kept", "destroy_sockets", "verify", "bind"];
    for line in ["both use 10.8.64.2".to_owned()].into_iter().chain(steps.map(|step| format!("step=\"{step}\""))) {
        let (bridge, dupip) = runner()?;
        dupip.allocate("winner")?;
        let winner = bridge.sandbox("winner").address("10.8.64.2/24").start()?;
        let loser = bridge.sandbox("loser").address("10.8.64.2/24").start()?;
        let mut agent = dupip.spawn(Mode::Enforce, &[])?;
        agent.wait_for_line(&line, DEADLINE)?;
        pause(&agent)?;
        // The agent may be looking into it, and holds it until it goes on.
        bridge.runner().run(["ip", "netns", "delete", loser.name()])?;
        resume(&agent)?;
        agent.wait_until(DEADLINE, "nobody to be on the way any more", |agent| {
            let ended = agent.conflicts()?.iter().all(|incident| text(incident, "status") != "open");
            let waits = |lease: &Value| text(lease, "state") == "reserved" || field(lease, "replaces").is_string();
            Ok((ended && !agent.leases()?.iter().any(waits)).then_some(()))
        })?;
        let of_winner = row(&mut agent, CONTESTED)?;
        assert_eq!((text(&of_winner, "sandbox"), text(&of_winner, "state")), ("winner", "ok"), "after {line}");
        assert_eq!(winner.addresses()?, ["10.8.64.2/24"], "after {line}");
        let leases = agent.leases()?;
        let held = leases.iter().filter(|lease| text(lease, "address") == "10.8.64.2");
        assert_eq!(
            held.map(|lease| [text(lease, "owner"), text(lease, "state")]).collect::<Vec<_>>(),
            [["winner", "bound"]]
        );
        wait_tapped(&mut agent, 1)?;
        agent.wait_until(DEADLINE, "one tap on the port and one on the bridge", |agent| {
            Ok((counts(agent.pid())?[0] == 2).then_some(()))
        })?;
        assert!(!is_degraded(&agent, "taps")? && !is_degraded(&agent, "inventory")?, "after {line}: {}", agent.log()?);
        mark(&mut agent, 1, |frame| winner.send_frame(frame))?;
    }
    Ok(())
}

/// Scenario 34.
#[test]
fn a_bridge_that_is_deleted_and_made_anew_is_watched_again() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let [first, second] = bridge.duplicate(["first", "second"], "10.8.64.2/24")?;
    let mut agent = dupip.start(Mode::Observe)?;
    event(&mut agent, "duplicate")?;
    wait_tapped(&mut agent, 2)?;
    let before = counts(agent.pid())?;
    bridge.delete()?;
    event(&mut agent, "gone")?;
    agent.wait_until(DEADLINE, "the table to be empty", |agent| Ok(agent.table()?.is_empty().then_some(())))?;
    agent.wait_until(DEADLINE, "every tap to go", |agent| Ok((counts(agent.pid())?[0] == 0).then_some(())))?;
    assert_eq!(agent.metric("duplicate_ip_active{bridge=\"rt0\"}")?, Some(0.0));
    bridge.make()?;
    [&first, &second].into_iter().try_for_each(|sandbox| bridge.plug(sandbox.port()))?;
    agent.wait_until(DEADLINE, "the duplicate to be there again", |agent| {
        let open = |incident: &Value| text(incident, "status") == "open";
        Ok(agent.conflicts()?.into_iter().find(open))
    })?;
    wait_tapped(&mut agent, 2)?;
    agent.wait_until(DEADLINE, "the kernel to hold what it held before", |agent| {
        Ok((counts(agent.pid())? == before).then_some(()))
    })?;
    assert!(!is_degraded(&agent, "taps")? && !is_degraded(&agent, "inventory")?, "{}", agent.log()?);
    mark(&mut agent, 1, |frame| second.send_frame(frame))
}

/// Another program of the same kind: a second agent, which shares nothing with the first but the bridge.
struct Other {
    dupip: Dupip,
    process: Process,
}

impl Other {
    const SOCKET: &str = "/run/lab/other.sock";

    fn start(dupip: &Dupip) -> Result<Self> {
        let args =
            ["run", "--bridge", "rt0", "--database", "/run/lab/other.db", "--socket", Self::SOCKET, "--listen", "none"];
        let mut process = dupip.command(args).spawn()?;
        process.wait_for_line("watches every port", DEADLINE)?;
        Ok(Self { dupip: dupip.clone(), process })
    }

    /// Waits until it knows who has an address.
    fn wait_knows(&self, address: &str) -> Result<()> {
        wait_until(DEADLINE, &format!("the other to know of {address}"), || {
            let table = self.dupip.command(["--socket", Self::SOCKET, "table"]).run()?;
            Ok(table.contains(&format!(" {address} ")).then_some(()))
        })
    }
}

fn claim(sandbox: &Sandbox, last: u8) -> Result<()> {
    sandbox.send_frame(&Arp::announcement(sandbox.mac()?, [10, 8, 64, last].into()).frame())
}

/// Scenario 35.
#[test]
fn two_programs_on_tcx_both_hear_and_each_takes_only_its_own_away() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let sandbox = bridge.sandbox("a").address("10.8.64.2/24").start()?;
    let mut other = Other::start(&dupip)?;
    let of_other = bpf_ids(other.process.pid())?;
    for last in [50, 60] {
        let mut agent = dupip.start_with(Mode::Observe, &["--attach", "tcx"])?;
        let ours = bpf_ids(agent.pid())?;
        assert_eq!(still_there(&bridge, &of_other)?, of_other);
        claim(&sandbox, last)?;
        row(&mut agent, [10, 8, 64, last].into())?;
        other.wait_knows(&format!("10.8.64.{last}"))?;
        assert!(agent.terminate()?.success());
        wait_until(DEADLINE, "our links to go", || Ok(still_there(&bridge, &ours)?.is_empty().then_some(())))?;
        assert_eq!(still_there(&bridge, &of_other)?, of_other, "the other's stay");
        claim(&sandbox, last + 1)?;
        other.wait_knows(&format!("10.8.64.{}", last + 1))?;
    }
    // And the other way round.
    let mut agent = dupip.start_with(Mode::Observe, &["--attach", "tcx"])?;
    other.process.signal(Signal::TERM)?;
    assert!(other.process.wait(DEADLINE)?.success());
    wait_until(DEADLINE, "the other's to go", || Ok(still_there(&bridge, &of_other)?.is_empty().then_some(())))?;
    claim(&sandbox, 70)?;
    row(&mut agent, [10, 8, 64, 70].into()).map(drop)
}

const AWAY: [&str; 6] = ["action", "mirred", "egress", "redirect", "dev", "away0"];

/// Somebody else's filter leads away what claims one address.
///
/// Scenario 35.
#[test]
fn a_filter_of_somebody_elses_on_clsact_stays_and_works() -> Result<()> {
    for attach in ["tcx", "clsact"] {
        let (bridge, dupip) = runner()?;
        bridge.runner().sysctl("net.ipv4.conf.all.arp_accept", "1")?;
        let sandbox = bridge.sandbox("a").address("10.8.64.2/24").start()?;
        let ingress = ["dev", sandbox.port(), "ingress"];
        bridge.runner().run(["tc", "qdisc", "add", "dev", sandbox.port(), "clsact"])?;
        bridge.runner().run(["ip", "link", "add", "away0", "up", "type", "veth", "peer", "name", "away1"])?;
        // Of an ARP packet, u32 sees what is behind Ethernet: the sender's address is at 14.
        let theirs =
            "protocol arp prio 7 u32 match u32 0x00000a08 0x0000ffff at 12 match u32 0x40080000 0xffff0000 at 16";
        let add = ["tc", "filter", "add"].into_iter().chain(ingress).chain(theirs.split(' ')).chain(AWAY);
        bridge.runner().run(add)?;
        let filters = || bridge.runner().run(["tc", "filter", "show"].into_iter().chain(ingress));
        let works = |led_away: u8, passed: u8| -> Result<()> {
            claim(&sandbox, led_away)?;
            claim(&sandbox, passed)?;
            let neighbours = || bridge.runner().run(["ip", "neighbour", "show", "dev", "rt0"]);
            let has = |last: u8| Ok::<_, anyhow::Error>(neighbours()?.contains(&format!("10.8.64.{last} ")));
            wait_until(DEADLINE, "the host to hear what passes", || Ok(has(passed)?.then_some(())))?;
            assert!(!has(led_away)?, "{attach}: it leads nothing away: {}", filters()?);
            Ok(())
        };
        let before = filters()?;
        works(8, 9)?;
        // With clsact, a killed one leaves its own, which the next one finds among the others.
        dupip.start_with(Mode::Observe, &["--attach", attach])?.kill9()?;
        let mut agent = dupip.start_with(Mode::Observe, &["--attach", attach])?;
        works(8, 10)?;
        row(&mut agent, [10, 8, 64, 10].into())?;
        assert!(agent.terminate()?.success());
        assert_eq!(filters()?, before, "{attach}: theirs and nothing else");
        works(8, 11)?;
        let qdiscs = bridge.runner().run(["tc", "qdisc", "show", "dev", sandbox.port()])?;
        assert!(qdiscs.contains("clsact"), "{attach}: {qdiscs}");
    }
    Ok(())
}

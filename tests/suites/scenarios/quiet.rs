//! What is no conflict, and what is said of it.

use anyhow::Result;
use lab::{Arp, Mode, Sandbox};
use serde_json::Value;

use super::{duplicates, field, martians, runner, settle, text, told_but_marks, wait_row, wait_told};

/// Looks whether an address is free, as scripts do before they take it; whether it is.
fn looks_free(sandbox: &Sandbox, address: &str) -> Result<bool> {
    let probes = sandbox.command("arping").args(["-D", "-c", "2", "-w", "3", "-I", "eth0", address]);
    Ok(probes.output()?.status.success())
}

/// Scenario 7.
#[test]
fn two_who_look_at_one_time_are_told_of_and_not_counted() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let both = [bridge.sandbox("first").start()?, bridge.sandbox("second").start()?];
    let marker = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Enforce)?;
    std::thread::scope(|scope| {
        let looks = both.each_ref().map(|sandbox| scope.spawn(|| looks_free(sandbox, "10.8.64.2")));
        looks.into_iter().try_for_each(|look| {
            let free = look.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            anyhow::ensure!(free, "each believes that the address is free");
            Ok(())
        })
    })?;
    let event = wait_told(agent, "the soft conflict", |event| text(event, "reason") == "soft_conflict")?;
    assert_eq!((text(&event, "kind"), text(&event, "severity")), ("info", "info"));
    assert_eq!(text(&event, "address"), "10.8.64.2");
    for sandbox in &both {
        let parties = event.pointer("/detail/parties").and_then(Value::as_array).into_iter().flatten();
        let mut named = parties.map(|party| (text(party, "sandbox"), text(party, "port")));
        assert!(named.any(|named| named == (sandbox.name(), sandbox.port())), "{event}");
    }
    settle(agent, &marker, 1)?;
    assert_eq!(told_but_marks(agent)?.len(), 1, "once, and nothing else");
    assert_eq!((agent.conflicts()?, duplicates(agent)?), (Vec::<Value>::new(), Some(0.0)));
    // Who gets it is the allocator's to say, before anybody uses it.
    let lease = |owner| agent.dupip().ask(&["lease", "allocate", "--bridge", "rt0", "--owner", owner]);
    assert_ne!(field(&lease("first")?, "address"), field(&lease("second")?, "address"));
    Ok(())
}

/// Scenario 20.
#[test]
fn probes_are_nothing_whosever_address_they_are_for() -> Result<()> {
    let (bridge, dupip) = runner()?;
    dupip.allocate("prober")?;
    let prober = bridge.sandbox("prober").address("10.8.64.2/24").start()?;
    let _other = bridge.sandbox("other").address("10.8.64.3/24").start()?;
    let vm = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Enforce)?;
    assert!(looks_free(&prober, "10.8.64.2")?, "its own");
    assert!(!looks_free(&prober, "10.8.64.3")?, "another's, who answers");
    assert!(looks_free(&prober, "10.8.64.77")?, "nobody's");
    // Three times, as RFC 5227 has it done, for somebody else's and for the gateway's; then silence.
    for target in [[10, 8, 64, 2], [10, 8, 64, 1], [192, 0, 2, 1]] {
        (0..3).try_for_each(|_| vm.send_frame(&Arp::probe(vm.mac(), target.into()).frame()))?;
    }
    settle(agent, &vm, 1)?;
    assert_eq!(told_but_marks(agent)?, Vec::<Value>::new());
    assert_eq!((agent.conflicts()?, duplicates(agent)?), (Vec::<Value>::new(), Some(0.0)));
    for reason in ["this_network", "broadcast", "ether_mismatch", "reserved"] {
        assert_eq!(martians(agent, reason)?, Some(0.0), "{reason}");
    }
    assert_eq!(martians(agent, "outside_subnet")?, Some(1.0), "the mark");
    let at_vm = agent.table()?.into_iter().filter(|row| text(row, "port") == "vm1" && text(row, "state") != "martian");
    assert_eq!(at_vm.count(), 0, "whoever asks claims nothing");
    Ok(())
}

/// Scenario 20: whoever looks first and takes it then has it, and was not in anybody's way.
#[test]
fn an_address_taken_after_a_look_is_one_owner() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let careful = bridge.sandbox("careful").start()?;
    let marker = bridge.tap("vm1")?;
    let agent = &mut dupip.start(Mode::Observe)?;
    assert!(looks_free(&careful, "10.8.64.2")?);
    careful.address("10.8.64.2/24")?;
    careful.run(["arping", "-U", "-c", "2", "-I", "eth0", "10.8.64.2"])?;
    careful.run(["arping", "-A", "-c", "1", "-I", "eth0", "10.8.64.2"])?;
    let row = wait_row(agent, [10, 8, 64, 2].into(), careful.port())?;
    assert_eq!((text(&row, "sandbox"), text(&row, "state")), ("careful", "ok"));
    settle(agent, &marker, 1)?;
    assert_eq!(told_but_marks(agent)?, Vec::<Value>::new());
    Ok(())
}

//! An agent that has less than it would like to have.

use anyhow::{Context as _, Result};
use lab::{Agent, Arp, Bridge, Dupip, MacAddr, Mode, Refusal, Sandbox};
use serde_json::Value;

use super::{CONTESTED, event, events, incident, is_degraded, mark, row, runner, text, wait_tapped};

/// What the agent says of a feature that it cannot do fully.
fn reason(agent: &Agent, feature: &str) -> Result<String> {
    let of_feature = |event: &&Value| {
        text(event, "kind") == "degraded" && event.pointer("/detail/feature").is_some_and(|of| of == feature)
    };
    let events = events(agent)?;
    Ok(text(events.iter().find(of_feature).context("it was not told")?, "reason").to_owned())
}

/// The agent sees what is configured and hears what is said, and moves whoever loses.
fn assert_it_works(bridge: &Bridge, agent: &mut Agent, owner: &Sandbox) -> Result<()> {
    let vm = bridge.tap("vm1")?;
    wait_tapped(agent, 2)?;
    let other = MacAddr(2, 0, 0, 0, 0, 7);
    vm.send_frame(&Arp::announcement(vm.mac(), [10, 8, 64, 50].into()).frame())?;
    assert_eq!(text(&row(agent, [10, 8, 64, 50].into())?, "reach"), "tap");
    vm.send_frame(&Arp::announcement(other, [192, 0, 2, 9].into()).frame())?;
    mark(agent, 1, |frame| vm.send_frame(frame))?;
    // Two who only speak.
    let second = bridge.tap("vm2")?;
    wait_tapped(agent, 3)?;
    vm.answer([[10, 8, 64, 60].into()], vm.mac());
    second.answer([[10, 8, 64, 60].into()], second.mac());
    for tap in [&vm, &second] {
        tap.send_frame(&Arp::request(tap.mac(), [10, 8, 64, 60].into(), bridge.gateway()).frame())?;
    }
    let duplicate = event(agent, "duplicate")?;
    assert_eq!(text(&duplicate, "address"), "10.8.64.60");
    // And one who is only seen.
    let late = bridge.sandbox("late").address("10.8.64.2/24").without_ipv6().start()?;
    let healed = incident(agent, "healed")?;
    assert_eq!((text(&healed, "address"), text(&healed, "first_evidence")), ("10.8.64.2", "configured"));
    assert_eq!(owner.addresses()?, ["10.8.64.2/24"]);
    assert_ne!(late.addresses()?, ["10.8.64.2/24"]);
    assert_eq!(bridge.owners(CONTESTED)?, [owner.mac()?].into());
    Ok(())
}

/// The checks of `dupip doctor`, by name, and its exit status.
fn doctor(dupip: &Dupip) -> Result<(Option<i32>, Vec<Value>)> {
    let outcome = dupip.outcome(&["doctor", "--bridge", "rt0", "-o", "json"])?;
    let found: Value = serde_json::from_str(&outcome.output).with_context(|| outcome.complaint.clone())?;
    Ok((outcome.status, found.get("checks").and_then(Value::as_array).cloned().unwrap_or_default()))
}

fn check(checks: &[Value], name: &str) -> Result<Value> {
    let found = checks.iter().find(|check| text(check, "name") == name);
    found.cloned().with_context(|| format!("no {name} in {checks:#?}"))
}

/// Scenario 36.
#[test]
fn where_the_kernel_refuses_bpf_packet_sockets_and_the_inventory_do_and_the_reason_is_told() -> Result<()> {
    for (refusal, why, (name, meaning), status) in [
        (Refusal::NotPermitted, "CAP_BPF", ("kernel.tap", "may not use eBPF"), Some(4)),
        (Refusal::NoSuchCall, "CONFIG_BPF_SYSCALL", ("kernel.bpf", "no bpf system call"), Some(5)),
    ] {
        let (bridge, dupip) = runner()?;
        let dupip = dupip.without_bpf(refusal)?;
        let owner = bridge.sandbox("owner").address("10.8.64.2/24").without_ipv6().start()?;
        let mut agent = dupip.start(Mode::Enforce)?;
        assert!(is_degraded(&agent, "ebpf")? && is_degraded(&agent, "ipv4_watch")?);
        let reason = reason(&agent, "ebpf")?;
        assert!(reason.contains(why) && reason.contains("packet sockets"), "{reason}");
        let (exit, checks) = doctor(&dupip)?;
        let check = check(&checks, name)?;
        assert_eq!((exit, text(&check, "status")), (status, "missing"), "{checks:#?}");
        assert!(text(&check, "meaning").contains(meaning) && !text(&check, "remedy").is_empty(), "{check:#}");
        assert_it_works(&bridge, &mut agent, &owner)?;
        assert!(is_degraded(&agent, "ebpf")?, "it stays so");
        assert!(agent.terminate()?.success());
    }
    Ok(())
}

/// A duplicate that was there before the agent, and of which only the wire tells.
///
/// Scenario 36.
#[test]
fn without_bpf_a_duplicate_that_was_there_before_is_heard_too() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let _owner = bridge.sandbox("owner").address("10.8.64.2/24").without_ipv6().start()?;
    let vm = bridge.tap("vm1")?;
    vm.answer([CONTESTED], vm.mac());
    let mut agent = dupip.without_bpf(Refusal::NotPermitted)?.start(Mode::Observe)?;
    let duplicate = event(&mut agent, "duplicate")?;
    assert_eq!((text(&duplicate, "address"), text(&duplicate, "reason")), ("10.8.64.2", "reply"));
    Ok(())
}

#[test]
fn a_tap_that_was_asked_for_by_name_and_cannot_be_is_an_error() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let dupip = dupip.without_bpf(Refusal::NotPermitted)?;
    let run = ["run", "--bridge", bridge.name(), "--database", "/run/lab/x.db", "--listen", "none", "--attach", "tcx"];
    let outcome = dupip.outcome(&run)?;
    assert_eq!(outcome.status, Some(4), "{}", outcome.complaint);
    assert!(outcome.complaint.contains("CAP_BPF"), "{}", outcome.complaint);
    Ok(())
}

/// Without eBPF and the right to enter namespaces, the kernel still tells by their ids what is in them.
///
/// Scenario 36.
#[test]
fn with_capabilities_dropped_the_agent_does_what_it_can_and_says_what_it_cannot() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let dupip = dupip.without(&["bpf", "perfmon", "sys_admin", "sys_ptrace"]);
    let owner = bridge.sandbox("owner").address("10.8.64.2/24").without_ipv6().start()?;
    let vm = bridge.tap("vm1")?;
    let mut agent = dupip.start(Mode::Enforce)?;
    for (feature, why) in [("ebpf", "CAP_BPF"), ("namespaces", "CAP_SYS_ADMIN"), ("namespaces", "CAP_SYS_PTRACE")] {
        assert!(is_degraded(&agent, feature)? && reason(&agent, feature)?.contains(why), "{feature}");
    }
    let of_owner = row(&mut agent, CONTESTED)?;
    assert_eq!((text(&of_owner, "port"), text(&of_owner, "reach")), (owner.port(), "netns_by_id"));
    // One who is only seen, and one who is only heard.
    let late = bridge.sandbox("late").address("10.8.64.2/24").without_ipv6().start()?;
    let duplicate = event(&mut agent, "duplicate")?;
    assert_eq!((text(&duplicate, "address"), text(&duplicate, "reason")), ("10.8.64.2", "configured"));
    wait_tapped(&mut agent, 3)?;
    vm.answer([CONTESTED], vm.mac());
    vm.send_frame(&Arp::announcement(vm.mac(), CONTESTED).frame())?;
    event(&mut agent, "party_joined")?;
    assert_eq!([owner.addresses()?, late.addresses()?], [["10.8.64.2/24"], ["10.8.64.2/24"]], "nobody can be moved");
    let (exit, checks) = doctor(&dupip)?;
    assert_eq!(exit, Some(4), "{checks:#?}");
    for (name, status) in
        [("cap_bpf", "missing"), ("cap_sys_admin", "missing"), ("cap_sys_ptrace", "missing"), ("cap_net_raw", "ok")]
    {
        assert_eq!(text(&check(&checks, &format!("capability.{name}"))?, "status"), status, "{name}: {checks:#?}");
    }
    Ok(())
}

#[test]
fn without_the_right_to_speak_or_to_hear_of_changes_it_does_not_start() -> Result<()> {
    for missing in ["net_raw", "net_admin", "net_broadcast"] {
        let (bridge, dupip) = runner()?;
        let run = ["run", "--bridge", bridge.name(), "--database", "/run/lab/x.db", "--listen", "none"];
        let outcome = dupip.without(&[missing]).outcome(&run)?;
        let name = format!("CAP_{}", missing.to_uppercase());
        assert_eq!(outcome.status, Some(4), "{}", outcome.complaint);
        assert!(outcome.complaint.contains(&name), "{}", outcome.complaint);
    }
    Ok(())
}

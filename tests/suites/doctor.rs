//! `dupip doctor`: what is missing, with and without rights.

use anyhow::{Context as _, Result};
use lab::{Bridge, Dupip, Mode, Runner};
use serde_json::Value;

fn rt0() -> Result<Bridge> {
    Runner::new()?.bridge("rt0", "10.8.64.1/24")
}

/// The exit code and every check.
fn checks(dupip: &Dupip) -> Result<(Option<i32>, Vec<Value>)> {
    let outcome = dupip.outcome(&["doctor", "--bridge", "rt0", "-o", "json"])?;
    let found: Value = serde_json::from_str(&outcome.output).with_context(|| outcome.complaint.clone())?;
    let checks = found.get("checks").and_then(Value::as_array);
    Ok((outcome.status, checks.cloned().unwrap_or_default()))
}

fn of<'a>(checks: &'a [Value], name: &str, subject: Option<&str>) -> Result<&'a Value> {
    let is_it = |check: &&Value| check["name"] == name && (subject.is_none() || check["subject"].as_str() == subject);
    checks.iter().find(is_it).with_context(|| format!("no {name} of {subject:?} in {checks:#?}"))
}

#[test]
fn with_every_right_nothing_needed_is_missing() -> Result<()> {
    let bridge = rt0()?;
    let sandbox = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let vm = bridge.tap("vm1")?;
    let (status, checks) = checks(&Dupip::on(&bridge)?)?;
    assert_eq!(status, Some(0), "{checks:#?}");
    for name in
        ["kernel.version", "kernel.bpf", "kernel.tc_programs", "kernel.ring_buffer", "kernel.tap", "clock", "hooks"]
    {
        assert_eq!(of(&checks, name, None)?["status"], "ok", "{name}");
    }
    assert_eq!(of(&checks, "bridge", Some("rt0"))?["meaning"], "is up, with 10.8.64.1/24");
    let ports = of(&checks, "ports", Some("rt0"))?["meaning"].as_str().unwrap_or_default();
    assert_eq!(ports, "has 2 ports: 1 with a namespace that can be seen into, 1 for a virtual machine");
    assert_eq!(of(&checks, "port", Some(&format!("rt0/{}", vm.port())))?["status"], "ok");
    assert_eq!(of(&checks, "agent.reachable", None)?["status"], "warning");
    drop(sandbox);
    Ok(())
}

#[test]
fn without_rights_it_tells_feature_by_feature_what_is_missing() -> Result<()> {
    let bridge = rt0()?;
    let _sandbox = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let all = ["bpf", "net_admin", "net_raw", "net_broadcast", "sys_admin", "sys_ptrace", "syslog"];
    let (status, checks) = checks(&Dupip::on(&bridge)?.without(&all))?;
    assert_eq!(status, Some(4), "{checks:#?}");
    for name in &all[..6] {
        let check = of(&checks, &format!("capability.cap_{name}"), None)?;
        assert_eq!(check["status"], "missing", "{check:#}");
        let remedy = check["remedy"].as_str().unwrap_or_default();
        assert!(remedy.contains(&format!("CAP_{}", name.to_uppercase())), "{check:#}");
    }
    for (name, status) in [
        ("capability.cap_syslog", "warning"),
        ("kernel.version", "ok"),
        ("kernel.tcx", "skipped"),
        ("kernel.tap", "missing"),
        ("bridge", "ok"),
        ("port", "missing"),
        ("namespace", "missing"),
    ] {
        assert_eq!(of(&checks, name, None)?["status"], status, "{name}: {checks:#?}");
    }
    Ok(())
}

#[test]
fn a_namespace_that_logs_no_martians_is_named_with_the_cure() -> Result<()> {
    let bridge = rt0()?;
    let silent = bridge.sandbox("silent").address("10.8.64.2/24").start()?;
    let logging = bridge.sandbox("logging").address("10.8.64.3/24").logs_martians().start()?;
    let (_, before) = checks(&Dupip::on(&bridge)?)?;
    let check = of(&before, "log_martians", Some(silent.name()))?;
    assert_eq!(check["status"], "warning", "{check:#}");
    let cure = "nsenter --net=/run/netns/silent sysctl -w net.ipv4.conf.all.log_martians=1";
    assert_eq!(check["remedy"], cure);
    assert_eq!(of(&before, "log_martians", Some(logging.name()))?["status"], "ok");
    bridge.runner().run(cure.split(' '))?;
    let (_, after) = checks(&Dupip::on(&bridge)?)?;
    assert_eq!(of(&after, "log_martians", Some(silent.name()))?["status"], "ok");
    Ok(())
}

#[test]
fn a_running_agent_and_other_programs_on_its_hooks_are_told() -> Result<()> {
    let bridge = rt0()?;
    let sandbox = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let _agent = Dupip::on(&bridge)?.start(Mode::Observe)?;
    let runner = bridge.runner();
    let (status, before) = checks(&Dupip::on(&bridge)?)?;
    assert_eq!((status, &of(&before, "agent.ready", None)?["status"]), (Some(0), &"ok".into()));
    assert_eq!(of(&before, "hooks", None)?["status"], "ok", "its own taps are no others");
    runner.run(["tc", "qdisc", "add", "dev", sandbox.port(), "clsact"])?;
    let filter = ["protocol", "ip", "u32", "match", "u32", "0", "0"];
    runner.run(["tc", "filter", "add", "dev", sandbox.port(), "ingress"].into_iter().chain(filter))?;
    let (_, after) = checks(&Dupip::on(&bridge)?)?;
    let check = of(&after, "hooks", Some(sandbox.port()))?;
    assert_eq!(check["status"], "warning");
    let meaning = check["meaning"].as_str().unwrap_or_default();
    assert!(meaning.contains("a filter of kind u32 (clsact ingress)"), "{check:#}");
    Ok(())
}

//! `dupip doctor`: what is missing, with and without rights.

use anyhow::{Context as _, Result};
use lab::{Bridge, Dupip, Mode, Runner};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
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

/// What the doctor says with these arguments besides the usual.
fn look(dupip: &Dupip, args: &[&str]) -> Result<Vec<Value>> {
    let outcome = dupip.outcome(&[&["doctor", "--bridge", "rt0", "-o", "json"], args].concat())?;
    let found: Value = serde_json::from_str(&outcome.output).with_context(|| outcome.complaint.clone())?;
    Ok(found.get("checks").and_then(Value::as_array).cloned().unwrap_or_default())
}

/// The status, and what to do.
fn said<'a>(checks: &'a [Value], name: &str, subject: Option<&str>) -> Result<(&'a str, &'a str)> {
    let check = of(checks, name, subject)?;
    Ok((check["status"].as_str().unwrap_or_default(), check["remedy"].as_str().unwrap_or_default()))
}

#[test]
fn switches_that_hide_an_owner_are_told_and_what_is_told_mends_them() -> Result<()> {
    let bridge = rt0()?;
    let (dupip, runner) = (Dupip::on(&bridge)?, bridge.runner());
    let bad = [("arp_ignore", "8"), ("proxy_arp", "1"), ("arp_accept", "1")];
    for (name, _) in bad {
        assert_eq!(said(&look(&dupip, &[])?, name, Some("rt0"))?.0, "ok", "{name}");
    }
    for (name, value) in bad {
        runner.run(["sysctl", "-w", &format!("net.ipv4.conf.rt0.{name}={value}")])?;
    }
    let checks = look(&dupip, &[])?;
    for (name, _) in bad {
        let (status, remedy) = said(&checks, name, Some("rt0"))?;
        assert_eq!(status, "warning", "{name}");
        let command = remedy.split(", unless").next().unwrap_or_default();
        runner.run(command.split(' '))?;
    }
    let checks = look(&dupip, &[])?;
    for (name, _) in bad {
        assert_eq!(said(&checks, name, Some("rt0"))?.0, "ok", "{name}");
    }
    Ok(())
}

#[test]
fn where_the_agent_listens_and_what_it_may_open_is_told() -> Result<()> {
    let bridge = rt0()?;
    let dupip = Dupip::on(&bridge)?;
    let agent = dupip.start(Mode::Observe)?;
    let limit = |current: Option<u64>| -> Result<()> {
        // The agent has what this process has, and may be given no more.
        let all = getrlimit(Resource::Nofile);
        let current = current.or(all.maximum);
        prlimit(Pid::from_raw(agent.pid().cast_signed()), Resource::Nofile, Rlimit { current, ..all })?;
        Ok(())
    };
    limit(None)?;
    let checks = look(&dupip, &[])?;
    assert_eq!(said(&checks, "agent.listens", Some("127.0.0.1:9477"))?.0, "ok");
    for name in ["agent.version", "agent.reachable", "limit.files", "taps", "configuration"] {
        assert_eq!(said(&checks, name, None)?.0, "ok", "{name}: {checks:#?}");
    }
    let rights = of(&checks, "capability.cap_net_admin", None)?;
    assert_eq!(rights["meaning"], "the agent may attach the tap, change addresses and neighbours");
    limit(Some(512))?;
    assert_eq!(said(&look(&dupip, &[])?, "limit.files", None)?.0, "warning");
    bridge.runner().run(["ip", "link", "set", "lo", "down"])?;
    let checks = look(&dupip, &[])?;
    let check = of(&checks, "agent.listens", None)?;
    let meaning = check["meaning"].as_str().unwrap_or_default();
    assert!(meaning.contains("the agent listens there and "), "{check:#}");
    Ok(())
}

#[test]
fn the_rights_that_are_told_are_the_agents() -> Result<()> {
    let bridge = rt0()?;
    let _agent = Dupip::on(&bridge)?.without(&["syslog"]).start(Mode::Observe)?;
    let checks = look(&Dupip::on(&bridge)?, &[])?;
    let (status, remedy) = said(&checks, "capability.cap_syslog", None)?;
    assert!(status == "warning" && remedy.contains("add CAP_SYSLOG to CapabilityBoundingSet="), "{checks:#?}");
    assert_eq!(said(&checks, "capability.cap_net_raw", None)?.0, "ok");
    Ok(())
}

#[test]
fn two_agents_on_one_bridge_and_one_that_is_elsewhere_are_told() -> Result<()> {
    let bridge = rt0()?;
    let dupip = Dupip::on(&bridge)?;
    let _one = dupip.start(Mode::Observe)?;
    let elsewhere = ["--socket", "/run/lab/none.sock"];
    let (status, remedy) = {
        let checks = look(&dupip, &elsewhere)?;
        let (status, remedy) = said(&checks, "taps", None)?;
        (status.to_owned(), remedy.to_owned())
    };
    assert!(status == "warning" && remedy.contains("--socket"), "{remedy}");
    let other = [
        "run",
        "--bridge",
        "rt0",
        "--socket",
        "/run/lab/other.sock",
        "--database",
        "/run/lab/other.db",
        "--listen",
        "none",
    ];
    let mut other = dupip.command(other).spawn()?;
    other.wait_for_line("watches every port", std::time::Duration::from_secs(10))?;
    let checks = look(&dupip, &[])?;
    let (status, remedy) = said(&checks, "taps", None)?;
    assert!(status == "warning" && remedy.contains("stop all but one"), "{checks:#?}");
    other.kill()
}

#[test]
fn taps_that_a_killed_agent_left_are_told() -> Result<()> {
    let bridge = rt0()?;
    let dupip = Dupip::on(&bridge)?;
    dupip.start_with(Mode::Observe, &["--attach", "clsact"])?.kill9()?;
    let checks = look(&dupip, &[])?;
    let (status, remedy) = said(&checks, "taps", None)?;
    assert!(status == "warning" && remedy.contains("tc qdisc delete dev rt0 clsact"), "{checks:#?}");
    bridge.runner().run(["tc", "qdisc", "delete", "dev", "rt0", "clsact"])?;
    assert_eq!(said(&look(&dupip, &[])?, "taps", None)?.0, "ok");
    Ok(())
}

#[test]
fn a_pool_that_is_used_up_a_full_disk_and_a_wrong_configuration_are_told() -> Result<()> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/30")?;
    let (dupip, runner) = (Dupip::on(&bridge)?, bridge.runner());
    dupip.allocate("sportsagent")?;
    let _agent = dupip.start(Mode::Observe)?;
    let folder = runner.outside(std::path::Path::new("/run/lab/small"));
    std::fs::create_dir(&folder)?;
    runner.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", "/run/lab/small"])?;
    std::fs::write(folder.join("dupip.toml"), "brige = \"rt0\"")?;
    let checks = look(&dupip, &["--database", "/run/lab/small/l.db", "--config", "/run/lab/small/dupip.toml"])?;
    for (name, subject, words) in [
        ("pool", "rt0", "none of 1 addresses is left"),
        ("disk", "/run/lab/small", "MiB left: without room nobody is moved"),
        (
            "configuration",
            "/run/lab/small/dupip.toml",
            "the agent would not start with it: line 1: there is no key `brige`; do you mean `bridge`?",
        ),
    ] {
        let check = of(&checks, name, Some(subject))?;
        assert_eq!(check["status"], "warning", "{check:#}");
        assert!(check["meaning"].as_str().unwrap_or_default().contains(words), "{check:#}");
        assert!(check["remedy"].is_string(), "{check:#}");
    }
    Ok(())
}

#[test]
fn every_check_that_is_made_is_explained() -> Result<()> {
    let bridge = rt0()?;
    let _sandbox = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let dupip = Dupip::on(&bridge)?;
    let _agent = dupip.start(Mode::Observe)?;
    let topics: Value = serde_json::from_str(&dupip.outcome(&["doctor", "--explain", "all", "-o", "json"])?.output)?;
    let names: Vec<_> = topics.as_array().into_iter().flatten().filter_map(|topic| topic["name"].as_str()).collect();
    for check in look(&dupip, &[])? {
        assert!(check["name"].as_str().is_some_and(|name| names.contains(&name)), "{check:#}");
    }
    let one = dupip.outcome(&["doctor", "--explain", "arp_ignore"])?;
    assert!(one.status == Some(0) && one.output.starts_with("arp_ignore\n  What it looks at: "), "{one:?}");
    let none = dupip.outcome(&["doctor", "--explain", "weather"])?;
    assert!(none.status == Some(2) && none.complaint.contains("there is no such check; there are all, "), "{none:?}");
    Ok(())
}

//! `dupip replay`: what was recorded is judged as the agent judged it when it happened.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use lab::{Arp, Bridge, Dupip, Mode, Runner, Sandbox};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(10);

/// Replays a capture of the runner; the exit code and what is said.
fn replay(bridge: &Bridge, capture: &Path, args: &[&str]) -> Result<(Option<i32>, Value)> {
    let file = capture.to_str().context("a path that is no text")?;
    let all = [&["replay", file, "--network", "10.8.64.1/24", "--bridge", "rt0", "-o", "json"], args].concat();
    let outcome = Dupip::on(bridge)?.outcome(&all)?;
    let found = serde_json::from_str(&outcome.output).with_context(|| outcome.complaint.clone())?;
    Ok((outcome.status, found))
}

/// What makes an incident the same: the address, who, and by what it was seen first.
fn essence(incident: &Value) -> (String, BTreeSet<(String, String)>, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let parties = incident["parties"].as_array().into_iter().flatten();
    let parties = parties.map(|party| (text(&party["mac"]), text(&party["evidence"]))).collect();
    (text(&incident["address"]), parties, text(&incident["first_evidence"]))
}

/// Both ask for the gateway, as in the incident.
fn both_ask(bridge: &Bridge, sandboxes: &[Sandbox; 2]) -> Result<()> {
    for sandbox in sandboxes {
        let request = Arp::request(sandbox.mac()?, [10, 8, 64, 2].into(), bridge.gateway());
        sandbox.send_frame(&request.frame())?;
    }
    Ok(())
}

#[test]
fn a_capture_of_the_incident_gives_the_incident_that_the_agent_saw() -> Result<()> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let runner = bridge.runner();
    // What the kernel has configured is not on the wire, so it must be known from the wire alone.
    let sandboxes = [bridge.sandbox("sportsagent").start()?, bridge.sandbox("reviewagent").start()?];
    let mut agent = Dupip::on(&bridge)?.start(Mode::Observe)?;
    let any = runner.capture("any")?;
    let ports = runner.capture_ports(&[sandboxes[0].port(), sandboxes[1].port(), "rt0"])?;
    both_ask(&bridge, &sandboxes)?;
    let live = agent.wait_until(DEADLINE, "the duplicate to be told", |agent| Ok(agent.conflicts()?.pop()))?;
    any.wait_for("arp host 10.8.64.2", 4, DEADLINE)?;
    ports.wait_for("arp host 10.8.64.2", 6, DEADLINE)?;
    let (any, ports) = (any.stop()?, ports.stop()?);
    for (capture, names) in [(&any, None), (&ports, Some(&sandboxes)), (&runner.pcapng(&any)?, None)] {
        let (status, found) = replay(&bridge, capture, &[])?;
        let incidents = found["incidents"].as_array().context("no incidents")?;
        let [incident] = incidents.as_slice() else { anyhow::bail!("not one incident in {found:#}") };
        assert_eq!((status, essence(incident)), (Some(1), essence(&live)), "{found:#}");
        for (party, sandbox) in incident["parties"].as_array().into_iter().flatten().zip(names.into_iter().flatten()) {
            assert_eq!(party["port"], sandbox.port());
        }
        let kinds: Vec<_> = found["findings"].as_array().into_iter().flatten().map(|event| &event["kind"]).collect();
        assert!(kinds.contains(&&Value::from("duplicate")), "{kinds:?}");
    }
    Ok(())
}

#[test]
fn a_healthy_capture_is_fine_and_a_cut_one_is_judged_as_far_as_it_goes() -> Result<()> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let runner = bridge.runner();
    let sandboxes = [bridge.sandbox("a").address("10.8.64.2/24").start()?, bridge.sandbox("b").start()?];
    let capture = runner.capture("rt0")?;
    assert_eq!(sandboxes[0].ping(bridge.gateway(), 1)?.lost(), 0);
    capture.wait_for("arp host 10.8.64.2", 2, DEADLINE)?;
    let (status, found) = replay(&bridge, &capture.stop()?, &[])?;
    assert_eq!((status, found["incidents"].as_array().map(Vec::len)), (Some(0), Some(0)), "{found:#}");
    assert_eq!((&found["findings"], &found["summary"]["by_mac"]), (&Value::Array(Vec::new()), &true.into()));

    let capture = runner.capture("rt0")?;
    both_ask(&bridge, &sandboxes)?;
    capture.wait_for("arp host 10.8.64.2", 2, DEADLINE)?;
    let file = capture.stop()?;
    let cut = file.with_extension("cut");
    let whole = std::fs::read(runner.outside(&file))?;
    // The bridge hears more than the two, but these come before whatever is at the end.
    std::fs::write(runner.outside(&cut), [&whole[..], &whole[24..60]].concat())?;
    let (status, found) = replay(&bridge, &cut, &[])?;
    assert_eq!((status, found["incidents"].as_array().map(Vec::len)), (Some(65), Some(1)), "{found:#}");
    Ok(())
}

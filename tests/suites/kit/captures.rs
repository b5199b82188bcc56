//! What stood on the wire is in the file, and other programs can judge it.

use std::{fs, path::Path};

use anyhow::Result;
use lab::{Arp, Bridge, Runner, Sandbox};

use super::{DEADLINE, rt0};

/// Has two sandboxes claim one address, in turn, and each its own before.
fn quarrel(bridge: &Bridge) -> Result<[Sandbox; 2]> {
    let sandboxes = bridge.duplicate(["sportsagent", "reviewagent"], "10.8.64.2/24")?;
    for sandbox in [&sandboxes[0], &sandboxes[1], &sandboxes[0]] {
        sandbox.send_frame(&Arp::announcement(sandbox.mac()?, [10, 8, 64, 2].into()).frame())?;
    }
    Ok(sandboxes)
}

/// The first four bytes, which tell pcap from pcapng.
fn magic(runner: &Runner, file: &Path) -> Result<Vec<u8>> {
    Ok(fs::read(runner.outside(file))?.into_iter().take(4).collect())
}

#[test]
fn a_bridge_a_port_and_all_at_once_are_captured() -> Result<()> {
    let bridge = rt0()?;
    let runner = bridge.runner();
    let sandbox = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let captures =
        [runner.capture("rt0")?, runner.capture(sandbox.port())?, runner.capture("any")?, sandbox.capture()?];
    sandbox.send_frame(&Arp::announcement(sandbox.mac()?, [10, 8, 64, 2].into()).frame())?;
    for (capture, copies) in captures.into_iter().zip([1, 1, 2, 1]) {
        assert_eq!(capture.wait_for("arp host 10.8.64.2", copies, DEADLINE)?, copies);
        let file = capture.stop()?;
        assert_eq!(magic(runner, &file)?, 0xa1b2_c3d4_u32.to_ne_bytes());
        assert_eq!(magic(runner, &runner.pcapng(&file)?)?, [0x0a, 0x0d, 0x0d, 0x0a]);
    }
    Ok(())
}

#[test]
fn one_file_names_the_ports_of_its_frames() -> Result<()> {
    let bridge = rt0()?;
    let sandboxes = ["a", "b"].map(|name| bridge.sandbox(name).start());
    let [first, second] = sandboxes;
    let (first, second) = (first?, second?);
    let capture = bridge.runner().capture_ports(&[first.port(), second.port()])?;
    first.send_frame(&Arp::announcement(first.mac()?, [10, 8, 64, 2].into()).frame())?;
    capture.wait_for("arp host 10.8.64.2", 2, DEADLINE)?;
    let file = capture.stop()?;
    let fields = ["-T", "fields", "-e", "frame.interface_name", "-Y", "arp", "-r"];
    let ports = bridge.runner().command("tshark").args(fields).arg(&file).run()?;
    assert_eq!(ports.lines().collect::<std::collections::BTreeSet<_>>(), [first.port(), second.port()].into());
    Ok(())
}

#[test]
fn arpwatch_tells_one_line_for_each_report() -> Result<()> {
    let bridge = rt0()?;
    let capture = bridge.runner().capture("rt0")?;
    let [sports, review] = quarrel(&bridge)?;
    let (sports, review) = (sports.mac()?, review.mac()?);
    capture.wait_for("arp host 10.8.64.2", 3, DEADLINE)?;
    let file = capture.stop()?;
    let reports = bridge.runner().arpwatch(&file)?;
    assert_eq!(
        reports,
        [
            format!("new station 10.8.64.2 {sports}"),
            format!("changed ethernet address 10.8.64.2 {review} {sports}"),
            format!("flip flop 10.8.64.2 {sports} {review}"),
        ]
    );
    Ok(())
}

#[test]
fn arpwatch_ignores_a_probe() -> Result<()> {
    let bridge = rt0()?;
    let capture = bridge.runner().capture("rt0")?;
    let sandbox = bridge.sandbox("prober").start()?;
    sandbox.send_frame(&Arp::probe(sandbox.mac()?, [10, 8, 64, 2].into()).frame())?;
    capture.wait_for("arp host 10.8.64.2", 1, DEADLINE)?;
    let file = capture.stop()?;
    assert_eq!(bridge.runner().arpwatch(&file)?, [format!("ignored 0.0.0.0 {}", sandbox.mac()?)]);
    Ok(())
}

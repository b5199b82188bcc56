//! The incident, to the letter: two sandboxes with one address, before anybody does anything about it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lab::{Bridge, KernelLog, Martian, Runner, Sandbox};

fn duplicate() -> Result<(Bridge, [Sandbox; 2])> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let sandboxes = bridge.duplicate(["sportsagent", "reviewagent"], "10.8.64.2/24")?;
    Ok((bridge, sandboxes))
}

/// Has `sandbox` ask for the gateway until the other's kernel logs it. The kernel's limit of such lines is one for the
/// whole machine, so a line may be swallowed.
fn provoke_martian(sandbox: &Sandbox, bridge: &Bridge) -> Result<Martian> {
    let mac = sandbox.mac()?;
    let mut log = KernelLog::follow()?;
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        sandbox.flush_neighbours()?;
        sandbox.ping(bridge.gateway(), 1)?;
        if let Some(martian) = log.martian_from(mac, Duration::from_millis(100))? {
            return Ok(martian);
        }
    }
    bail!("the kernel logs no martian source from {mac}")
}

#[test]
fn the_kernel_of_each_logs_the_question_of_the_other() -> Result<()> {
    let (bridge, sandboxes) = duplicate()?;
    for sandbox in &sandboxes {
        let martian = provoke_martian(sandbox, &bridge)?;
        assert_eq!(martian.source, "IPv4: martian source 10.8.64.1 from 10.8.64.2, on dev eth0");
        let mac = sandbox.mac()?.to_string().replace(':', " ");
        let header = format!("ll header: 00000000: ff ff ff ff ff ff {mac} 08 06");
        assert!(martian.header.starts_with(&header), "{martian}");
    }
    Ok(())
}

#[test]
fn both_answer_for_the_address() -> Result<()> {
    let (bridge, [sports, review]) = duplicate()?;
    assert_eq!(bridge.owners([10, 8, 64, 2].into())?, [sports.mac()?, review.mac()?].into());
    Ok(())
}

#[test]
fn while_both_ping_the_gateway_answers_go_astray() -> Result<()> {
    let (bridge, [sports, review]) = duplicate()?;
    // Each answer goes to the one whom the gateway heard last, and the other has asked in vain: sooner or later.
    for _ in 0..20 {
        let background = sports.keep_pinging(bridge.gateway())?;
        let review = review.ping(bridge.gateway(), 10)?;
        if background.stop()?.lost() + review.lost() > 0 {
            return Ok(());
        }
    }
    bail!("every ping was answered, twenty times over")
}

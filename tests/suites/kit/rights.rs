//! dupip with less than root has.

use anyhow::Result;
use lab::{Dupip, Mode, Refusal};

use super::rt0;

/// What `bpftool` says of the loaded programs, whether it could look or not.
fn bpftool(dupip: &Dupip) -> Result<(bool, String)> {
    let output = dupip.wrapped("bpftool").args(["prog", "show"]).output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn the_kernel_refuses_bpf_as_it_is_told() -> Result<()> {
    let bridge = rt0()?;
    let dupip = Dupip::on(&bridge)?;
    assert!(bpftool(&dupip)?.0, "the machine itself can");
    for (refusal, words) in
        [(Refusal::NotPermitted, "Operation not permitted"), (Refusal::NoSuchCall, "Function not implemented")]
    {
        let (could, said) = bpftool(&dupip.clone().without_bpf(refusal)?)?;
        assert!(!could && said.contains(words), "{refusal:?}: {said}");
    }
    Ok(())
}

#[test]
fn what_is_dropped_is_gone_and_the_rest_stays() -> Result<()> {
    const NET_RAW: u64 = 1 << 13;
    const NET_ADMIN: u64 = 1 << 12;
    let dupip = Dupip::on(&rt0()?)?.without(&["net_raw", "bpf"]);
    let status = dupip.wrapped("cat").arg("/proc/self/status").run()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    let effective = u64::from_str_radix(line.trim(), 16)?;
    assert_eq!((effective & NET_RAW, effective & NET_ADMIN), (0, NET_ADMIN));
    Ok(())
}

#[test]
fn dupip_itself_runs_under_both() -> Result<()> {
    let bridge = rt0()?;
    let dupip = Dupip::on(&bridge)?.without(&["net_raw"]).without_bpf(Refusal::NotPermitted)?;
    assert!(dupip.command(["--version"]).run()?.starts_with("dupip"));
    Ok(())
}

#[test]
fn a_verb_that_fails_is_an_answer() -> Result<()> {
    let outcome = Dupip::on(&rt0()?)?.outcome(&["table"])?;
    assert_eq!((outcome.status, outcome.output.as_str()), (Some(3), ""), "no agent answers");
    assert!(!outcome.complaint.is_empty());
    Ok(())
}

#[test]
fn the_agent_takes_further_arguments() -> Result<()> {
    let bridge = rt0()?;
    let dupip = Dupip::on(&bridge)?;
    let error = format!("{:#}", dupip.start_with(Mode::Observe, &["--no-such-thing"]).unwrap_err());
    assert!(error.contains("the agent has ended") && error.contains("--no-such-thing"), "{error}");
    let agent = dupip.start_with(Mode::Observe, &["--cooldown", "1s"])?;
    assert!(agent.terminate()?.success());
    assert_eq!(dupip.outcome(&["--version"])?.status, Some(0));
    Ok(())
}

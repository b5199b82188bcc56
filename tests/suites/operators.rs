//! What operators type while a duplicate is dealt with: to see who is in quarantine and let somebody go, to pause, to ask
//! what would be done, and to say what is to be done about whom.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use lab::{Agent, Arp, Bridge, Dupip, MacAddr, Mode, Outcome, Sandbox};
use serde_json::{Value, json};

use crate::agent::{DEADLINE, closed, field, runner, text};

const CONTESTED: [u8; 4] = [10, 8, 64, 2];

/// Holder has 10.8.64.2 and the lease on it; loser has it, too.
struct Duplicate {
    bridge: Bridge,
    dupip: Dupip,
    holder: Sandbox,
    loser: Sandbox,
}

impl Duplicate {
    fn new() -> Result<Self> {
        let (bridge, dupip) = runner()?;
        let [holder, loser] = bridge.duplicate(["holder", "loser"], "10.8.64.2/24")?;
        dupip.allocate("holder")?;
        Ok(Self { bridge, dupip, holder, loser })
    }

    /// Who answers for the address.
    fn answering(&self) -> Result<Vec<MacAddr>> {
        Ok(self.bridge.owners(CONTESTED.into())?.into_iter().collect())
    }

    fn assert_both_answer(&self) -> Result<()> {
        assert_eq!(self.bridge.owners(CONTESTED.into())?, [self.holder.mac()?, self.loser.mac()?].into());
        Ok(())
    }

    fn announce(&self) -> Result<()> {
        self.loser.send_frame(&Arp::announcement(self.loser.mac()?, CONTESTED.into()).frame())
    }
}

fn quarantine(dupip: &Dupip) -> Result<Vec<Value>> {
    Ok(dupip.ask(&["quarantine", "list"])?.as_array().cloned().unwrap_or_default())
}

/// Waits until one port is kept from saying something, and says what is known of it.
fn contained(agent: &mut Agent) -> Result<Value> {
    agent.wait_until(DEADLINE, "somebody to be in quarantine", |agent| Ok(quarantine(agent.dupip())?.pop()))
}

/// Waits until it is said that this stands in the way of healing.
fn held(agent: &mut Agent, why: &str) -> Result<Value> {
    agent.wait_until(DEADLINE, why, |agent| {
        Ok(agent.conflicts()?.into_iter().find(|incident| text(incident, "held").contains(why)))
    })
}

#[test]
fn a_contained_loser_is_shown_with_what_is_dropped_and_can_be_let_go() -> Result<()> {
    let lab = Duplicate::new()?;
    let agent = &mut lab.dupip.start_with(Mode::Enforce, &["--resolve", "contain"])?;
    let seen = contained(agent)?;
    let of = |name| text(&seen, name).to_owned();
    assert_eq!([of("port"), of("sandbox"), of("address")], [lab.loser.port(), "loser", "10.8.64.2"]);
    assert_eq!((field(&seen, "bridge"), field(&seen, "vlan")), (&json!("rt0"), &Value::Null));
    let incident = held(agent, "losers like this one are contained only")?;
    assert_eq!(field(&seen, "incident"), field(&incident, "id"));
    assert_eq!(agent.metric("dupip_quarantined{bridge=\"rt0\"}")?, Some(1.0));

    let before = field(&seen, "dropped").as_u64().context("nothing is counted")?;
    lab.announce()?;
    agent.wait_until(DEADLINE, "a frame to be dropped", |_| {
        let dropped = field(&quarantine(&lab.dupip)?[0], "dropped").as_u64();
        Ok(dropped.filter(|dropped| *dropped > before))
    })?;
    assert_eq!(lab.answering()?, [lab.holder.mac()?]);
    let table = lab.dupip.say(&["quarantine", "list"])?;
    assert!(table.contains(lab.loser.port()) && table.contains("DROPPED"), "{table}");

    let lift = ["quarantine", "lift", lab.loser.port(), "10.8.64.2"];
    let Outcome { status, complaint, .. } = lab.dupip.outcome(&lift)?;
    assert_eq!(status, Some(0), "{complaint}");
    assert!(complaint.contains("and is not contained anew while incident 1 is open"), "{complaint}");
    lab.assert_both_answer()?;
    held(agent, "an operator has lifted the loser's containment")?;
    lab.announce()?;
    lab.assert_both_answer()?;
    assert_eq!(quarantine(&lab.dupip)?, [] as [Value; 0]);
    assert_eq!(agent.metric("dupip_quarantined{bridge=\"rt0\"}")?, Some(0.0));
    let again = lab.dupip.outcome(&lift)?;
    assert_eq!(again.status, Some(1), "{again:?}");
    assert!(again.complaint.contains("10.8.64.2 is not in quarantine at "), "{again:?}");
    Ok(())
}

#[test]
fn a_paused_agent_tells_and_does_nothing_also_after_a_restart() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let said = dupip.say(&["pause", "10m"])?;
    assert!(said.starts_with("paused until 2"), "{said}");
    let [holder, loser] = bridge.duplicate(["holder", "loser"], "10.8.64.2/24")?;
    dupip.allocate("holder")?;
    let lab = Duplicate { bridge, dupip, holder, loser };
    held(&mut agent, "the agent is paused; go on with `dupip pause --end`")?;
    lab.assert_both_answer()?;
    assert_eq!(agent.metric("dupip_paused")?, Some(1.0));
    agent.terminate()?;

    let agent = &mut lab.dupip.start(Mode::Enforce)?;
    held(agent, "the agent is paused")?;
    let state = lab.dupip.ask(&["pause"])?;
    assert_eq!(field(&state, "paused"), &json!(true));
    assert!(field(&state, "left_ms").as_u64().is_some_and(|left| left <= 600_000), "{state}");
    assert_eq!(agent.metric("dupip_paused")?, Some(1.0));
    assert!(lab.dupip.say(&["doctor"])?.contains("agent.paused"));
    assert_eq!(quarantine(&lab.dupip)?, [] as [Value; 0]);
    lab.assert_both_answer()?;

    assert_eq!(lab.dupip.say(&["pause", "--end"])?, "not paused\n");
    closed(agent, "healed")?;
    assert_eq!(lab.answering()?, [lab.holder.mac()?]);
    assert_eq!(agent.metric("dupip_paused")?, Some(0.0));
    Ok(())
}

#[test]
fn who_observes_is_told_what_would_be_done() -> Result<()> {
    let lab = Duplicate::new()?;
    let agent = &mut lab.dupip.start(Mode::Observe)?;
    held(agent, "the agent observes")?;
    let plan = lab.dupip.say(&["conflicts", "--plan"])?;
    let loser = lab.loser.port();
    for line in [
        "10.8.64.2 on rt0 (incident 1)".to_owned(),
        "  holder keeps 10.8.64.2: holds lease generation 1; loser has none".to_owned(),
        format!("  loser ({loser}) would be moved to a fresh address in the name of loser"),
        "  as things stand: the agent observes and does not act (run with --mode enforce to heal)".to_owned(),
    ] {
        assert!(plan.lines().any(|found| found == line), "no `{line}` in\n{plan}");
    }
    lab.assert_both_answer()
}

#[test]
fn a_stranger_sees_everything_and_changes_nothing() -> Result<()> {
    let lab = Duplicate::new()?;
    let agent = &mut lab.dupip.start_with(Mode::Enforce, &["--resolve", "contain"])?;
    contained(agent)?;
    // As an operator may have done who wants everybody to read.
    let socket = "/run/dupip/dupip.sock";
    lab.bridge.runner().run(["chmod", "a+rwx", "/run/dupip", socket])?;
    let outcome = |args: &[&str]| {
        // It may read what is root's, so that the program is found wherever it was built.
        let reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"];
        let stranger = lab.bridge.runner().command("setpriv").args(["--reuid", "54321", "--clear-groups"]).args(reads);
        let output = stranger.arg(lab.dupip.program()).args(["--socket", socket]).args(args).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok::<_, anyhow::Error>((output.status.code(), text(&output.stdout) + &text(&output.stderr)))
    };
    let (status, said) = outcome(&["quarantine", "list"])?;
    assert!(status == Some(0) && said.contains(lab.loser.port()), "{said}");
    let (status, said) = outcome(&["pause"])?;
    assert_eq!((status, said.as_str()), (Some(0), "not paused\n"));
    for change in [&["pause", "10m"][..], &["pause", "--end"], &["quarantine", "lift", lab.loser.port(), "10.8.64.2"]] {
        let (status, said) = outcome(change)?;
        assert!(status == Some(4) && said.contains("54321 may change nothing here"), "{change:?}: {status:?} {said}");
    }
    assert_eq!(quarantine(&lab.dupip)?.len(), 1);
    assert_eq!(lab.answering()?, [lab.holder.mac()?]);
    Ok(())
}

/// A program in the runner that removes the port of the loser that it is told of, as an orchestrator does that replaces
/// the sandbox.
fn replacer(bridge: &Bridge) -> Result<PathBuf> {
    let runner = bridge.runner();
    let program = runner.dir().join("replace-sandbox");
    let outside = runner.outside(&program);
    fs::write(
        &outside,
        "#!/bin/sh\nport=$(jq -r .loser.port) && echo \"$port\" >> /run/lab/replaced && ip link delete \"$port\"\n",
    )?;
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

#[test]
fn a_loser_whose_orchestrator_replaces_it_is_healed() -> Result<()> {
    let lab = Duplicate::new()?;
    let hook = format!("recycle={}", replacer(&lab.bridge)?.display());
    let agent = &mut lab.dupip.start_with(Mode::Enforce, &["--resolve-owner", "los*=recycle", "--hook", &hook])?;
    let incident = closed(agent, "healed")?;
    let evictions = field(&incident, "evictions").as_array().cloned().unwrap_or_default();
    assert_eq!(evictions.iter().map(|of| text(of, "way")).collect::<Vec<_>>(), ["recycle"]);
    let replaced = fs::read_to_string(lab.bridge.runner().outside(Path::new("/run/lab/replaced")))?;
    assert_eq!(replaced, format!("{}\n", lab.loser.port()));
    assert_eq!(lab.bridge.ports()?, [lab.holder.port().to_owned()].into());
    assert_eq!(lab.answering()?, [lab.holder.mac()?]);
    agent.wait_until(DEADLINE, "the quarantine to end", |agent| Ok(quarantine(agent.dupip())?.is_empty().then_some(())))
}

#[test]
fn nobody_is_recycled_without_a_hook_that_can() -> Result<()> {
    let (_bridge, dupip) = runner()?;
    let outcome = dupip.outcome(&["run", "--bridge", "rt0", "--resolve-on", "rt0=recycle"])?;
    assert_eq!(outcome.status, Some(2), "{outcome:?}");
    assert!(outcome.complaint.contains("no hook is there that can"), "{outcome:?}");
    Ok(())
}

#[test]
fn behind_a_protected_port_nothing_is_done() -> Result<()> {
    let lab = Duplicate::new()?;
    let agent = &mut lab.dupip.start_with(Mode::Enforce, &["--protect-port", lab.loser.port()])?;
    held(agent, "the loser's port is protected")?;
    lab.announce()?;
    lab.assert_both_answer()?;
    assert_eq!((quarantine(&lab.dupip)?.len(), lab.loser.addresses()?), (0, vec!["10.8.64.2/24".to_owned()]));
    Ok(())
}

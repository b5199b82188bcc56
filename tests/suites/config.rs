//! The configuration file: what it says is done, what is wrong in it is told, and the running agent reads it again.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use lab::{Agent, Bridge, Dupip};
use serde_json::{Value, json};

use crate::agent::{DEADLINE, closed, field, runner, text};

/// On the runner.
const FILE: &str = "/run/lab/dupip.toml";

/// A runner with an agent that is told everything by a file.
struct Configured {
    bridge: Bridge,
    dupip: Dupip,
}

impl Configured {
    fn new(more: &str) -> Result<Self> {
        let (bridge, dupip) = runner()?;
        let lab = Self { bridge, dupip };
        lab.write(more)?;
        Ok(lab)
    }

    /// What any agent of the lab is told, and this.
    fn write(&self, more: &str) -> Result<()> {
        let text = format!("bridge = \"rt0\"\ndatabase = \"/run/lab/dupip.db\"\nlisten = \"127.0.0.1:9477\"\n{more}");
        Ok(fs::write(self.bridge.runner().outside(Path::new(FILE)), text)?)
    }

    fn start(&self, args: &[&str]) -> Result<Agent> {
        let mut agent = self.dupip.spawn_by(Path::new(FILE), args)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// What the agent goes by, and who says so.
    fn setting(&self, key: &str) -> Result<(Value, String)> {
        let settings = self.dupip.ask(&["config", "show"])?;
        let found = settings.as_array().into_iter().flatten().find(|setting| text(setting, "key") == key);
        let found = found.with_context(|| format!("no {key} in {settings}"))?;
        Ok((field(found, "values").clone(), text(found, "from").to_owned()))
    }
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() -> Result<()> {
    let lab =
        Configured::new("strikes = 7\nevictions-per-minute = 8\ncooldown = \"90s\"\nhook = \"opened=/bin/true\"\n")?;
    let agent = lab.start(&["--strikes", "5"])?;
    assert_eq!(lab.setting("strikes")?, (json!(["5"]), "flag".to_owned()));
    assert_eq!(lab.setting("evictions-per-minute")?, (json!(["8"]), "file".to_owned()));
    assert_eq!(lab.setting("mode")?, (json!(["observe"]), "default".to_owned()));
    assert_eq!(lab.setting("hook")?, (json!([]), "file".to_owned()), "a hook may have a password");
    assert!(lab.dupip.say(&["config", "show"])?.contains("(hidden)"));
    assert!(agent.terminate()?.success());
    Ok(())
}

#[test]
fn what_was_only_observed_is_healed_when_the_file_says_enforce() -> Result<()> {
    let lab = Configured::new("mode = \"observe\"\n")?;
    let agent = &mut lab.start(&[])?;
    let [_holder, loser] = lab.bridge.duplicate(["holder", "loser"], "10.8.64.2/24")?;
    lab.dupip.allocate("holder")?;
    agent.wait_until(DEADLINE, "the duplicate", |agent| Ok(agent.conflicts()?.pop()))?;

    lab.write("mode = \"enforce\"\ncooldown = \"90s\"\n")?;
    let reloaded = lab.dupip.ask(&["reload"])?;
    let keys = |name: &str| {
        let changes = field(&reloaded, name).as_array().cloned().unwrap_or_default();
        changes.iter().map(|of| text(of, "key").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((keys("applied"), keys("waiting")), (vec!["mode".to_owned()], vec!["cooldown".to_owned()]));
    let healed = closed(agent, "healed")?;
    assert_eq!(field(&healed, "times"), &json!(1), "{healed}");
    assert_ne!(loser.addresses()?, ["10.8.64.2/24"]);
    assert_eq!(lab.setting("mode")?, (json!(["enforce"]), "file".to_owned()));
    assert_eq!(lab.setting("cooldown")?, (json!([]), "default".to_owned()), "it waits for a restart");
    assert_eq!(text(&lab.dupip.ask(&["reload"])?, "file"), FILE);
    Ok(())
}

#[test]
fn sighup_reads_the_file_again_and_a_file_that_is_wrong_changes_nothing() -> Result<()> {
    let lab = Configured::new("mode = \"observe\"\n")?;
    let agent = &mut lab.start(&[])?;
    lab.write("mode = \"enforce\"\nstrikes = 0\nevictions_per_minute = 4\n")?;
    let refused = lab.dupip.outcome(&["reload"])?;
    assert_eq!(refused.status, Some(2), "{refused:?}");
    for words in ["/run/lab/dupip.toml cannot be used", "line 5: `strikes`", "do you mean `evictions-per-minute`?"] {
        assert!(refused.complaint.contains(words), "{}", refused.complaint);
    }
    agent.hang_up()?;
    agent.wait_for_line("not_reloaded", DEADLINE)?;
    assert_eq!(lab.setting("mode")?.0, json!(["observe"]));

    lab.write("mode = \"enforce\"\nstrikes = 4\n")?;
    agent.hang_up()?;
    agent.wait_for_line("event=\"reloaded\"", DEADLINE)?;
    assert_eq!((lab.setting("mode")?.0, lab.setting("strikes")?.0), (json!(["enforce"]), json!(["4"])));
    assert!(agent.http("/api/v1/about")?.1.contains("\"enforce\""), "the agent says so, too");
    Ok(())
}

#[test]
fn an_agent_does_not_start_with_a_file_that_is_wrong_and_check_says_the_same() -> Result<()> {
    let lab = Configured::new("mode = \"heal\"\nresolve-on = \"rt1=contain\"\n")?;
    let check = lab.dupip.outcome(&["config", "check", FILE])?;
    let run = lab.dupip.outcome(&["run", "--config", FILE])?;
    assert_eq!((check.status, run.status, &check.complaint), (Some(2), Some(2), &run.complaint));
    assert!(run.complaint.contains("line 4: `mode`: invalid value 'heal'"), "{}", run.complaint);

    lab.write("resolve-on = \"rt1=contain\"\n")?;
    let check = lab.dupip.outcome(&["config", "check", FILE])?;
    assert!(check.complaint.contains("--resolve-on rt1=contain: no such bridge is watched"), "{}", check.complaint);

    lab.write("wait = true\n")?;
    let check = lab.dupip.outcome(&["config", "check", FILE])?;
    assert_eq!(check.output, "/run/lab/dupip.toml: fine, 4 keys; an agent would watch rt0\n", "{}", check.complaint);

    let missing = lab.dupip.outcome(&["run", "--config", "/no/such/file"])?;
    assert!(missing.complaint.contains("cannot read the configuration file /no/such/file"), "{}", missing.complaint);
    let nothing = lab.dupip.outcome(&["run", "--config", "/dev/null"])?;
    assert_eq!(nothing.status, Some(2));
    assert!(nothing.complaint.contains("no bridge is named to be watched"), "{}", nothing.complaint);
    Ok(())
}

#[test]
fn a_reload_does_not_act_before_it_knows_whom_to_leave_alone_nor_without_its_file() -> Result<()> {
    let lab = Configured::new("mode = \"observe\"\nprotect-port = \"eth*\"\n")?;
    let flags = ["--bridge", "rt0", "--database", "/run/lab/dupip.db", "--listen", "127.0.0.1:9477"];
    let _agent = lab.start(&flags)?;
    let refused = |words: &str| -> Result<()> {
        let refused = lab.dupip.outcome(&["reload"])?;
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.complaint.contains(words), "{}", refused.complaint);
        assert_eq!((lab.setting("mode")?.0, lab.setting("protect-port")?.0), (json!(["observe"]), json!(["eth*"])));
        Ok(())
    };
    lab.write("mode = \"enforce\"\nexternal = \"eth0\"\n")?;
    refused("external will count only when the agent is started anew, and enforce mode is not to act without it")?;
    lab.write("resolve = \"recycle\"\nhook = \"recycle=/bin/true\"\n")?;
    refused("this counts only together with hook")?;
    let file = lab.bridge.runner().outside(Path::new(FILE));
    fs::write(&file, "")?;
    refused("/run/lab/dupip.toml says nothing any more")?;
    fs::remove_file(&file)?;
    refused("cannot read the configuration file /run/lab/dupip.toml")?;
    Ok(())
}

#[test]
fn a_variable_without_a_value_says_nothing() -> Result<()> {
    let lab = Configured::new("strikes = 7\n")?;
    let check = lab.dupip.command(["config", "check", FILE]).env("DUPIP_WAIT", "").env("DUPIP_MODE", "").run()?;
    assert!(check.starts_with("/run/lab/dupip.toml: fine, 4 keys"), "{check}");
    Ok(())
}

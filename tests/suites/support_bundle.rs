//! `dupip support-bundle`: with and without an agent, and with a secret wherever one can be.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use lab::{Bridge, Dupip, Mode, Runner};
use serde_json::Value;

/// In every secret of these tests.
const SECRET: &str = "hushhush";

fn rt0() -> Result<Bridge> {
    Runner::new()?.bridge("rt0", "10.8.64.1/24")
}

/// The files of an archive, read by the tar of the system.
fn unpacked(bridge: &Bridge, file: &str) -> Result<BTreeMap<String, String>> {
    let runner = bridge.runner();
    let list = runner.run(["tar", "-tzf", file])?;
    let content = |name: &str| {
        let content = runner.command("tar").args(["-xzOf", file, name]).output()?.stdout;
        Ok((name.trim_start_matches("dupip-support/").to_owned(), String::from_utf8_lossy(&content).into_owned()))
    };
    list.lines().map(content).collect()
}

fn json(files: &BTreeMap<String, String>, name: &str) -> Result<Value> {
    let text = files.get(name).with_context(|| format!("no {name} in {:?}", files.keys()))?;
    serde_json::from_str(text).with_context(|| format!("{name}: {text}"))
}

#[test]
fn with_an_agent_it_has_what_a_bug_report_needs_and_no_secret() -> Result<()> {
    let bridge = rt0()?;
    let runner = bridge.runner();
    let write = |path: &str, text: String| -> Result<String> {
        let path = Path::new(path);
        fs::write(runner.outside(path), text)?;
        Ok(path.display().to_string())
    };
    let secret_file = write("/run/secret", format!("{SECRET}-0123456789abcdef"))?;
    runner.run(["chmod", "600", &secret_file])?;
    let token_file = write("/run/token", format!("{SECRET}-token"))?;
    let configuration = write(
        "/run/dupip.toml",
        format!(
            "# {SECRET}\nbridge = [\"rt0\"]\nmode = \"enforce\"\nhook = [\"opened=https://me:{SECRET}@127.0.0.1:9/{SECRET}?key={SECRET}\"]\n\
             token-file = \"{token_file}\"\ntoken = \"{SECRET}\"\nhok = \"{SECRET}\"\n"
        ),
    )?;
    let hooks = [
        format!("--hook=opened,resolved=http://me:{SECRET}@127.0.0.1:9/{SECRET}?key={SECRET}"),
        format!("--hook=failed=/bin/true --password {SECRET}"),
        format!("--hook-secret-file={secret_file}"),
    ];
    let args: Vec<_> = hooks.iter().map(String::as_str).collect();
    let dupip = Dupip::on(&bridge)?;
    let agent = &mut dupip.start_with(Mode::Observe, &args)?;
    let _sandboxes = bridge.duplicate(["sportsagent", "reviewagent"], "10.8.64.2/24")?;
    agent.wait_for_line("both use 10.8.64.2", std::time::Duration::from_secs(10))?;
    let outcome = dupip.outcome(&["support-bundle", "-o", "/run/b.tar.gz", "--config", &configuration])?;
    assert_eq!(outcome.status, Some(0), "{}", outcome.complaint);
    for words in ["/run/b.tar.gz (", "It has addresses, MACs and names of sandboxes", "Not in it:"] {
        assert!(outcome.output.contains(words), "{}", outcome.output);
    }
    assert!(outcome.complaint.contains("gathers the agent"), "{}", outcome.complaint);
    let mode = fs::metadata(runner.outside(Path::new("/run/b.tar.gz")))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let files = unpacked(&bridge, "/run/b.tar.gz")?;
    let guilty: Vec<_> = files.iter().filter(|(_, content)| content.contains(SECRET)).collect();
    assert!(guilty.is_empty(), "{guilty:#?}");
    let incident = &json(&files, "agent/incidents.json")?[0];
    assert_eq!(incident["address"], "10.8.64.2");
    assert_eq!(json(&files, "agent/incidents/1.json")?["incident"]["id"], 1);
    assert_eq!(json(&files, "agent/about.json")?["mode"], "observe");
    let settings = json(&files, "agent/settings.json")?;
    assert!(settings.as_array().is_some_and(|all| all.iter().any(|of| of["key"] == "mode")), "{settings}");
    assert!(json(&files, "doctor.json")?["checks"].as_array().is_some_and(|checks| checks.len() > 20));
    let events = json(&files, "agent/events.json")?;
    assert!(events.to_string().contains("duplicate"), "{events}");
    assert_eq!(json(&files, "kernel/bridges.json")?[0]["bridge"], "rt0");
    let database = json(&files, "leases/database.json")?;
    let tables: Vec<_> =
        database.as_array().into_iter().flatten().filter_map(|table| table["table"].as_str()).collect();
    assert!(["lease", "pool", "journal", "incident"].iter().all(|name| tables.contains(name)), "{tables:?}");
    for (name, words) in [
        ("agent/metrics.txt", "duplicate_ip_total{bridge=\"rt0\"} 1"),
        ("process/arguments.txt", "opened,resolved=http://127.0.0.1:9/… (arguments"),
        ("process/environment.txt", "DUPIP_LOG="),
        ("process/status.txt", "CapEff:"),
        ("configuration/dupip.toml", "mode = \"enforce\""),
        ("configuration/dupip.toml", "hok = \"<not shown>\""),
        ("kernel/switches.txt", "net.ipv4.conf.all.arp_ignore = "),
        ("doctor.txt", "WHAT IT MEANS"),
    ] {
        let content = files.get(name).with_context(|| format!("no {name} in {:?}", files.keys()))?;
        assert!(content.contains(words), "no `{words}` in {name}: {content}");
    }
    let manifest = json(&files, "manifest.json")?;
    let listed: Vec<_> =
        manifest["files"].as_array().into_iter().flatten().filter_map(|of| of["name"].as_str()).collect();
    let there: Vec<_> = files.keys().map(String::as_str).filter(|name| *name != "manifest.json").collect();
    assert_eq!(std::collections::BTreeSet::from_iter(listed), there.into_iter().collect());
    Ok(())
}

#[test]
fn redacted_it_has_no_address_and_no_name() -> Result<()> {
    let bridge = rt0()?;
    let dupip = Dupip::on(&bridge)?;
    let settings = ["--pin", "10.8.64.9=pinnedagent", "--resolve-owner", "ownedagent*=contain", "--external=outerport"];
    let agent = &mut dupip.start_with(Mode::Observe, &settings)?;
    let sandboxes = bridge.duplicate(["sportsagent", "reviewagent"], "10.8.64.2/24")?;
    // Everyday words, and a namespace that is on no bridge.
    let _everyday = [
        bridge.sandbox("true").port("false").address("10.8.64.3/24").start()?,
        bridge.sandbox("bound").port("open").address("10.8.64.4/24").start()?,
    ];
    bridge.runner().run(["ip", "netns", "add", "elsewhere"])?;
    agent.wait_for_line("both use 10.8.64.2", std::time::Duration::from_secs(10))?;
    fs::write(bridge.runner().outside(Path::new("/run/dupip.toml")), "protect-port = [\"innerport\"]\n")?;
    dupip.say(&["support-bundle", "--redact", "-o", "/run/b.tar.gz", "--config", "/run/dupip.toml"])?;
    let files = unpacked(&bridge, "/run/b.tar.gz")?;
    let names = ["sportsagent", "reviewagent", "pinnedagent", "ownedagent", "outerport", "innerport", "elsewhere"];
    let mut gone: Vec<_> = names.iter().chain(&["10.8.64."]).map(ToString::to_string).collect();
    for sandbox in &sandboxes {
        gone.extend([sandbox.mac()?.to_string(), sandbox.port().to_owned()]);
    }
    let told: Vec<_> = files
        .iter()
        .flat_map(|(name, content)| gone.iter().filter(|word| content.contains(*word)).map(move |word| (name, word)))
        .collect();
    assert!(told.is_empty(), "{told:?}");
    // The same for the same, everywhere.
    let incident = &json(&files, "agent/incidents.json")?[0];
    let other = incident["address"].as_str().context("an incident without an address")?;
    assert!(json(&files, "agent/table.json")?.to_string().contains(other));
    assert_eq!(json(&files, "manifest.json")?["redacted"], true);
    for name in files.keys().filter(|name| name.ends_with(".json")) {
        json(&files, name)?;
    }
    let table = json(&files, "agent/table.json")?;
    let rows = table.as_array().context("the table is no list")?;
    assert!(rows.iter().all(|row| row["bridge"] == "rt0" && row["sandbox"] != "true" && row["sandbox"] != "bound"));
    // That of the host keeps its bridge's name.
    let ports: Vec<_> = rows.iter().filter_map(|row| row["port"].as_str()).collect();
    assert!(ports.contains(&"rt0") && !ports.contains(&"false") && !ports.contains(&"open"), "{table:#}");
    Ok(())
}

#[test]
fn what_is_no_file_is_not_replaced_by_one() -> Result<()> {
    let bridge = rt0()?;
    let dupip = Dupip::on(&bridge)?;
    let runner = bridge.runner();
    runner.run(["mkfifo", "/run/fifo"])?;
    runner.run(["mknod", "/run/null", "c", "1", "3"])?;
    runner.run(["ln", "-s", "/run/null", "/run/link"])?;
    runner.run(["mkdir", "/run/folder"])?;
    let kind = |path: &str| runner.run(["stat", "-c", "%F", path]);
    for path in ["/run/fifo", "/run/null", "/run/link", "/run/folder"] {
        let before = kind(path)?;
        for verb in [["support-bundle", "-o", path].as_slice(), &["lease", "check", "--report", path]] {
            let outcome = dupip.outcome(verb)?;
            assert!(outcome.status == Some(2) && outcome.complaint.contains("is no regular file"), "{outcome:?}");
        }
        assert_eq!(kind(path)?, before);
    }
    let outcome = dupip.outcome(&["support-bundle", "-o", "-"])?;
    assert!(outcome.status == Some(2) && outcome.complaint.contains("`-` is no file"), "{outcome:?}");
    Ok(())
}

#[test]
fn without_an_agent_it_says_what_is_not_there() -> Result<()> {
    let bridge = rt0()?;
    let dupip = Dupip::on(&bridge)?;
    let absent = ["--database", "/run/none.db", "--config", "/run/none.toml"];
    let outcome = dupip.outcome(&[&["support-bundle", "-o", "/run/b.tar.gz"][..], &absent].concat())?;
    assert_eq!(outcome.status, Some(0), "{}", outcome.complaint);
    assert!(
        outcome
            .output
            .contains("Could not be gathered:\n  the agent's version, mode and bridges: cannot reach the agent at")
    );
    let files = unpacked(&bridge, "/run/b.tar.gz")?;
    for name in ["agent/table.json", "process/status.txt", "leases/database.json", "configuration/dupip.toml"] {
        let why = files.get(&format!("{name}.missing")).with_context(|| format!("{name}: {:?}", files.keys()))?;
        assert!(why.contains(": not there: "), "{why}");
    }
    assert!(json(&files, "doctor.json")?["checks"].as_array().is_some_and(|checks| checks.len() > 20));
    let outcome = dupip.outcome(&["support-bundle", "-o", "/nowhere/b.tar.gz"])?;
    assert_eq!(outcome.status, Some(1), "{outcome:?}");
    assert!(outcome.complaint.contains("cannot write /nowhere/b.tar.gz: "), "{outcome:?}");
    Ok(())
}

#[test]
fn without_rights_there_is_an_archive_all_the_same() -> Result<()> {
    let bridge = rt0()?;
    let all = ["bpf", "net_admin", "net_raw", "net_broadcast", "sys_admin", "sys_ptrace", "syslog"];
    let outcome = Dupip::on(&bridge)?.without(&all).outcome(&["support-bundle", "-o", "/run/b.tar.gz"])?;
    assert_eq!(outcome.status, Some(0), "{}", outcome.complaint);
    let files = unpacked(&bridge, "/run/b.tar.gz")?;
    assert!(files.contains_key("kernel/programs.json.missing"), "{:?}", files.keys());
    Ok(())
}

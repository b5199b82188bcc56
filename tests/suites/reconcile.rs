//! `dupip lease check` and `dupip lease reclaim`: what does not fit is said, and nothing is freed without proof.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{Bridge, Dupip, Mode, Runner, wait_until};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(20);
const DATABASE: &str = "/run/lab/dupip.db";
const REPORT: &str = "/run/lab/report.json";
const CHECK: [&str; 9] =
    ["lease", "check", "--database", DATABASE, "--interval", "20ms", "--report", REPORT, "--output=json"];
const RECLAIM: [&str; 6] = ["lease", "reclaim", "--from-report", REPORT, "--database", DATABASE];

fn lab() -> Result<(Bridge, Dupip)> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let dupip = Dupip::on(&bridge)?;
    Ok((bridge, dupip))
}

/// What a check finds, with leases of any age.
fn check(dupip: &Dupip) -> Result<Value> {
    Ok(serde_json::from_str(&dupip.command(CHECK).args(["--grace", "0s"]).run()?)?)
}

fn rows(report: &Value) -> Vec<Value> {
    report["rows"].as_array().cloned().unwrap_or_default()
}

fn reclaim(dupip: &Dupip) -> Result<Vec<Value>> {
    let said = dupip.command(RECLAIM).args(["--grace", "0s", "--output", "json"]).run()?;
    Ok(serde_json::from_str(&said)?)
}

fn deeds(outcomes: &[Value]) -> Vec<&str> {
    outcomes.iter().filter_map(|outcome| outcome["deed"].as_str()).collect()
}

/// The states of all leases, in the order of their addresses.
fn states(dupip: &Dupip) -> Result<Vec<String>> {
    let list = dupip.command(["lease", "list", "--offline", "--database", DATABASE, "-o", "json"]).run()?;
    let leases: Vec<Value> = serde_json::from_str(&list)?;
    Ok(leases.iter().filter_map(|lease| lease["state"].as_str()).map(str::to_owned).collect())
}

/// Writes a report that was altered.
fn alter(bridge: &Bridge, report: &Value) -> Result<()> {
    let path = bridge.runner().outside(REPORT.as_ref());
    fs::write(&path, serde_json::to_vec(report)?).with_context(|| format!("cannot write {}", path.display()))
}

#[test]
fn a_lease_whose_sandbox_was_deleted_is_reclaimed_and_cools_down() -> Result<()> {
    for with_agent in [false, true] {
        let (bridge, dupip) = lab()?;
        dupip.allocate("a")?;
        dupip.allocate("b")?;
        let a = bridge.sandbox("a").address("10.8.64.2/24").start()?;
        let _b = bridge.sandbox("b").address("10.8.64.3/24").start()?;
        let _agent = with_agent.then(|| dupip.start(Mode::Observe)).transpose()?;
        assert_eq!(rows(&check(&dupip)?), [] as [Value; 0]);
        a.remove()?;
        let found = wait_until(DEADLINE, "both looks to prove it unused", || {
            let found = rows(&check(&dupip)?);
            Ok(found.iter().any(|row| row["reclaimable"] == true).then_some(found))
        })?;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&found[0]["kind"], &found[0]["owner"]), (&json!("lease_without_user"), &json!("a")));
        let tried = dupip.command(RECLAIM).args(["--grace", "0s", "--dry-run", "-o", "json"]).run()?;
        assert!(tried.contains("would_reclaim"), "{tried}");
        assert_eq!(states(&dupip)?, ["bound", "bound"]);
        assert_eq!(deeds(&reclaim(&dupip)?), ["reclaimed"]);
        assert_eq!(states(&dupip)?, ["cooldown", "bound"]);
        assert_eq!(deeds(&reclaim(&dupip)?), ["left_alone"], "the same report once more");
        let history =
            dupip.command(["lease", "history", "10.8.64.2", "--offline", "--database", DATABASE, "-o", "wide"]);
        let history = history.run()?;
        assert!(history.contains("lease reclaim, dupip for uid 0"), "{history}");
    }
    Ok(())
}

#[test]
fn what_changed_after_the_report_survives() -> Result<()> {
    let (bridge, dupip) = lab()?;
    for owner in ["a", "b", "c"] {
        dupip.allocate(owner)?;
    }
    let marked = rows(&check(&dupip)?);
    assert_eq!(marked.iter().filter(|row| row["reclaimable"] == true).count(), 3, "{marked:?}");
    let _again = bridge.sandbox("a").address("10.8.64.2/24").start()?;
    let at = ["--bridge", "rt0", "--address", "10.8.64.3", "--offline", "--database", DATABASE];
    dupip.command(["lease", "release", "--unsafe"]).args(at).run()?;
    dupip.command(["lease", "adopt", "--owner", "b"]).args(at).run()?;
    dupip.allocate("d")?;
    let outcomes = reclaim(&dupip)?;
    assert_eq!(deeds(&outcomes), ["left_alone", "left_alone", "reclaimed"]);
    assert_eq!(outcomes[0]["reason"], "a uses it");
    assert!(outcomes[1]["reason"].as_str().is_some_and(|why| why.contains("another lease")), "{outcomes:?}");
    assert_eq!(states(&dupip)?, ["bound", "bound", "cooldown", "bound"]);
    Ok(())
}

#[test]
fn a_lease_younger_than_the_grace_is_not_reclaimable() -> Result<()> {
    let (bridge, dupip) = lab()?;
    dupip.allocate("a")?;
    let _a = bridge.sandbox("a").address("10.8.64.2/24").start()?;
    let fresh = dupip.command(CHECK).run()?;
    dupip.allocate("b")?;
    let report: Value = serde_json::from_str(&dupip.command(CHECK).run()?)?;
    assert_eq!(rows(&serde_json::from_str(&fresh)?), [] as [Value; 0]);
    assert_eq!((rows(&report).len(), &report["rows"][0]["reclaimable"]), (1, &json!(false)));
    assert!(report["rows"][0]["reason"].as_str().is_some_and(|why| why.contains("grace")), "{report}");
    assert_eq!(reclaim(&dupip)?, [] as [Value; 0]);
    Ok(())
}

#[test]
fn every_owner_of_an_address_has_a_line() -> Result<()> {
    for with_agent in [false, true] {
        let (bridge, dupip) = lab()?;
        dupip.allocate("a")?;
        let _owners = bridge.duplicate(["a", "b"], "10.8.64.2/24")?;
        let _stranger = bridge.sandbox("c").address("10.8.64.9/24").start()?;
        let _agent = with_agent.then(|| dupip.start(Mode::Observe)).transpose()?;
        let found = rows(&check(&dupip)?);
        let told = |row: &Value| format!("{} {} {}", row["kind"], row["user"]["name"], row["holds_lease"]);
        let mut lines: Vec<_> = found.iter().map(told).filter(|line| !line.contains("\"c\"")).collect();
        lines.sort();
        assert_eq!(lines, [r#""several_owners" "a" true"#, r#""several_owners" "b" false"#], "{found:?}");
        for row in &found {
            let user = &row["user"];
            assert!(user["netns"].is_u64() && user["mac"].is_string() && user["port"].is_string(), "{row}");
            assert_eq!(row["reclaimable"], false);
        }
        let answered =
            |row: &&Value| row["user"]["evidence"].as_array().is_some_and(|by| by.contains(&json!("answered")));
        assert!(found.iter().filter(answered).count() >= 2, "{found:?}");
        let table =
            dupip.command(["lease", "check", "--database", DATABASE, "--interval", "20ms", "--fail"]).output()?;
        assert_eq!(table.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&table.stdout).matches("several_owners").count(), 2, "{table:?}");
    }
    Ok(())
}

#[test]
fn what_is_used_without_a_lease_or_by_another_is_said() -> Result<()> {
    let (bridge, dupip) = lab()?;
    dupip.allocate("a")?;
    let _other = bridge.sandbox("b").address("10.8.64.2/24").start()?;
    let _stranger = bridge.sandbox("c").address("10.8.64.9/24").start()?;
    let found = rows(&check(&dupip)?);
    let kinds: Vec<_> = found.iter().map(|row| (row["kind"].as_str(), row["user"]["name"].as_str())).collect();
    assert_eq!(kinds, [(Some("used_by_another"), Some("b")), (Some("in_use_without_lease"), Some("c"))]);
    Ok(())
}

#[test]
fn a_namespace_without_processes_and_one_that_was_unplugged_still_hold_their_leases() -> Result<()> {
    let (bridge, dupip) = lab()?;
    dupip.allocate("a")?;
    dupip.allocate("b")?;
    // A namespace with a name has no process at all in it.
    let _a = bridge.sandbox("a").address("10.8.64.2/24").start()?;
    let b = bridge.sandbox("b").address("10.8.64.3/24").start()?;
    bridge.runner().run(["ip", "link", "set", b.port(), "nomaster"])?;
    let mut report = check(&dupip)?;
    assert_eq!(rows(&report), [] as [Value; 0]);
    report["rows"] = json!([marked("a", "10.8.64.2", 1), marked("b", "10.8.64.3", 2)]);
    alter(&bridge, &report)?;
    assert_eq!(deeds(&reclaim(&dupip)?), ["left_alone", "left_alone"]);
    assert_eq!(states(&dupip)?, ["bound", "bound"]);
    Ok(())
}

/// A row that calls a lease reclaimable, whoever wrote it.
fn marked(owner: &str, address: &str, generation: u64) -> Value {
    json!({
        "kind": "lease_without_user", "bridge": "rt0", "vlan": null, "address": address, "owner": owner,
        "interface": null, "generation": generation, "state": "bound", "user": null, "holds_lease": false,
        "reclaimable": true, "reason": "because"
    })
}

#[test]
fn nothing_is_released_where_a_namespace_cannot_be_entered() -> Result<()> {
    let (bridge, dupip) = lab()?;
    dupip.allocate("a")?;
    check(&dupip)?;
    let program = dupip.program().to_str().context("a path that is no text")?;
    let may_not_enter = |args: &[&str]| {
        bridge.runner().command("setpriv").args(["--bounding-set", "-sys_admin", program]).args(args).run()
    };
    let outcomes = may_not_enter(&[&RECLAIM[..], &["--grace", "0s", "-o", "json"]].concat())?;
    assert!(outcomes.contains("left_alone") && outcomes.contains("cannot enter"), "{outcomes}");
    assert_eq!(states(&dupip)?, ["bound"]);
    let report: Value = serde_json::from_str(&may_not_enter(&[&CHECK[..], &["--grace", "0s"]].concat())?)?;
    assert_eq!(report["rows"][0]["reclaimable"], false, "{report}");
    ensure!(report["gaps"].as_array().is_some_and(|gaps| !gaps.is_empty()), "{report}");
    Ok(())
}

#[test]
fn nothing_is_released_where_the_bridge_is_not_to_be_found() -> Result<()> {
    let (bridge, dupip) = lab()?;
    dupip.allocate("a")?;
    check(&dupip)?;
    bridge.runner().run(["ip", "link", "delete", "rt0"])?;
    assert_eq!(deeds(&reclaim(&dupip)?), ["left_alone"]);
    assert_eq!(rows(&check(&dupip)?)[0]["reclaimable"], false);
    assert_eq!(states(&dupip)?, ["bound"]);
    Ok(())
}

#[test]
fn behind_a_tap_silence_is_no_proof_unless_an_agent_says_the_same() -> Result<()> {
    let (bridge, dupip) = lab()?;
    dupip.allocate("a")?;
    bridge.runner().run(["ip", "tuntap", "add", "tap0", "mode", "tap"])?;
    bridge.runner().run(["ip", "link", "set", "tap0", "master", "rt0", "up"])?;
    let report = check(&dupip)?;
    assert_eq!(report["rows"][0]["reclaimable"], false);
    assert!(report["gaps"].to_string().contains("tap0"), "{report}");
    let _agent = dupip.start(Mode::Observe)?;
    let report = check(&dupip)?;
    assert_eq!((&report["rows"][0]["reclaimable"], &report["gaps"]), (&json!(true), &json!([])));
    Ok(())
}

#[test]
fn a_report_that_is_broken_old_or_anothers_is_refused() -> Result<()> {
    let (bridge, dupip) = lab()?;
    dupip.allocate("a")?;
    let good = check(&dupip)?;
    let with = |name: &str, value: Value| {
        let mut report = good.clone();
        report[name] = value;
        report
    };
    let refused = [
        (json!("no report"), "no report"),
        (json!({}), "no report"),
        (with("surprise", json!(1)), "unknown field"),
        (with("version", json!(2)), "version 2"),
        (with("boot", json!("11111111-1111-1111-1111-111111111111")), "another boot"),
        (with("database", json!("/elsewhere.db")), "/elsewhere.db"),
        (with("taken", json!("2020-01-01T00:00:00Z")), "not within"),
        (with("taken", json!("2999-01-01T00:00:00Z")), "not within"),
        (with("taken", json!("yesterday")), "not within"),
        (with("observations", json!([])), "0 observations"),
        (with("rows", json!([{"reclaimable": true}])), "no report"),
    ];
    for (report, why) in refused {
        alter(&bridge, &report)?;
        let output = dupip.command(RECLAIM).args(["--grace", "0s"]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why) && !said.contains("panic"), "{why}: {said}");
        assert_eq!(states(&dupip)?, ["bound"]);
    }
    alter(&bridge, &with("rows", json!([])))?;
    assert_eq!(reclaim(&dupip)?, [] as [Value; 0]);
    for odd in [marked("nobody", "10.8.64.2", 1), marked("a", "10.8.64.2", 99), marked("a b", "10.8.64.2", 1)] {
        alter(&bridge, &with("rows", json!([odd])))?;
        assert_eq!(deeds(&reclaim(&dupip)?), ["left_alone"]);
    }
    assert_eq!(states(&dupip)?, ["bound"]);
    Ok(())
}

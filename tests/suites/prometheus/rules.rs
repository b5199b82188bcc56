//! What can be said of the rules without an agent.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result};

use super::{given, text_of};

/// What each section of the runbook answers, in this order.
const QUESTIONS: [&str; 3] = ["**What it means.**", "**How to look.**", "**What to do.**"];

fn promtool(args: &[&str]) -> Result<()> {
    let mut promtool = Command::new("promtool");
    let output = promtool.current_dir(given("prometheus")).args(args).output().context("cannot start promtool")?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "promtool {args:?}: {said}");
    Ok(())
}

/// The alerts that there are, by the lines that name them.
fn alerts() -> Result<BTreeSet<String>> {
    let rules = text_of("prometheus/dupip.alerts.rules.yml")?;
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: BTreeSet<_> = names.map(str::to_owned).collect();
    assert!(names.contains("DuplicateAddress"), "{names:?}");
    Ok(names)
}

#[test]
fn promtool_understands_rules_and_configuration() -> Result<()> {
    promtool(&["check", "rules", "dupip.recording.rules.yml", "dupip.alerts.rules.yml"])?;
    promtool(&["check", "config", "prometheus.yml"])
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() -> Result<()> {
    promtool(&["test", "rules", "tests/dupip.test.yml"])?;
    let tests = text_of("prometheus/tests/dupip.test.yml")?;
    for alert in alerts()? {
        let about = |what: &str| {
            let named = format!("alertname=\"{alert}\"");
            tests.lines().any(|line| line.contains(&named) && line.contains(what))
        };
        assert!(about("alertstate=\"firing\"}'"), "no test has {alert} fire");
        assert!(about("exp_samples: []"), "no test has {alert} not fire");
    }
    Ok(())
}

#[test]
fn every_alert_has_its_section_in_the_runbook_and_no_section_is_left_over() -> Result<()> {
    let readme = text_of("README.md")?;
    let (_, runbook) = readme.split_once("\n## Runbook\n").context("there is no runbook")?;
    let runbook = runbook.split("\n## ").next().unwrap_or_default();
    let sections: Vec<_> = runbook.split("\n### ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    let titles: BTreeSet<_> = sections.iter().map(|(title, _)| (*title).to_owned()).collect();
    assert_eq!(titles, alerts()?);
    for (title, text) in sections {
        let found: Vec<_> = QUESTIONS.iter().map(|question| text.find(question)).collect();
        assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{title} does not answer {QUESTIONS:?}");
    }
    Ok(())
}

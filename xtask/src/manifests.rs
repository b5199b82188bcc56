//! `cargo xtask manifests`: what the Kubernetes manifests have from elsewhere.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::shell;

/// Where the rules are; every file that ends in `.rules.yml` has some.
const RULES: &str = "dashboards/prometheus";
const WRITTEN: &str = "detector/packaging/kubernetes/monitoring/prometheusrule.yaml";
const HEAD: &str = "\
# Written by `cargo xtask manifests` from dashboards/prometheus. Change the rules there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: dupip
  labels:
    app.kubernetes.io/name: dupip
spec:
  groups:
";

/// Writes the PrometheusRule.
pub(crate) fn run() -> Result<ExitCode> {
    fs::write(shell::workspace().join(WRITTEN), prometheus_rule()?)?;
    eprintln!("manifests: {WRITTEN}");
    Ok(ExitCode::SUCCESS)
}

fn prometheus_rule() -> Result<String> {
    let mut text = HEAD.to_owned();
    for file in rule_files()? {
        let rules = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let groups = groups(&rules).with_context(|| format!("{} has no line `groups:`", file.display()))?;
        text.push_str(&groups);
    }
    Ok(text)
}

fn rule_files() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(shell::workspace().join(RULES)).with_context(|| format!("cannot list {RULES}"))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.to_string_lossy().ends_with(".rules.yml"));
    files.sort();
    Ok(files)
}

/// All that stands below `groups:`, as deep in as the resource has it.
fn groups(rules: &str) -> Option<String> {
    let below = rules.lines().skip_while(|line| *line != "groups:");
    let deeper = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") };
    let lines: String = below.skip(1).map(deeper).collect();
    (!lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_has_the_rules_of_the_dashboards() {
        let written = fs::read_to_string(shell::workspace().join(WRITTEN)).unwrap();
        assert!(written == prometheus_rule().unwrap(), "they are no longer the same: run `cargo xtask manifests`");
        assert!(written.contains("alert: DuplicateAddress"), "{written}");
    }

    #[test]
    fn what_stands_below_groups_is_taken() {
        assert_eq!(
            groups("# Why.\ngroups:\n  - name: a\n\n    rules: []\n").unwrap(),
            "    - name: a\n\n      rules: []\n"
        );
        assert_eq!(groups("rules: []\n"), None);
    }
}

//! The system calls that a runtime lets a container make (`RuntimeDefault`): the list that podman, Buildah and CRI-O have.

use std::{env::consts::ARCH, fs};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::manifests::{at, list};

const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// The filter for a container with these capabilities, as the OCI runtime specification has it.
pub(super) fn runtime_default(capabilities: &[String]) -> Result<Value> {
    let profile: Value = serde_json::from_str(&fs::read_to_string(PROFILE).context(PROFILE)?)?;
    let rules = profile.get("syscalls").and_then(Value::as_array).context("no rules")?;
    let rules: Vec<_> = rules.iter().filter(|rule| applies(rule, capabilities)).map(as_specified).collect();
    Ok(json!({
        "defaultAction": at(&profile, "/defaultAction"),
        "defaultErrnoRet": at(&profile, "/defaultErrnoRet"),
        "syscalls": rules,
    }))
}

/// Whether the rule is for this machine and for a container with these capabilities.
fn applies(rule: &Value, capabilities: &[String]) -> bool {
    let named = |pointer: &str| -> Vec<&str> { list(rule, pointer).iter().filter_map(Value::as_str).collect() };
    let has = |name: &&str| capabilities.iter().any(|capability| capability == name);
    let (caps, arches) = (named("/includes/caps"), named("/includes/arches"));
    (caps.is_empty() || caps.iter().any(has))
        && (arches.is_empty() || arches.contains(&architecture()))
        && !named("/excludes/caps").iter().any(has)
        && !named("/excludes/arches").contains(&architecture())
}

/// Without what says when the rule applies.
fn as_specified(rule: &Value) -> Value {
    let mut specified = Map::new();
    for name in ["names", "action", "args", "errnoRet"] {
        if let Some(value) = rule.get(name).filter(|value| !value.is_null()) {
            specified.insert(name.to_owned(), value.clone());
        }
    }
    specified.into()
}

/// As Go calls this machine's.
fn architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

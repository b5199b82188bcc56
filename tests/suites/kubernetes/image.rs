//! The image: what the Dockerfile's last stage makes of what the stage before has built.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{
    manifests::{packaging, text},
    pod::run,
};

const DOCKERFILE: &str = "container/Dockerfile";

/// Makes the image's root of a `dupip` that is built already, by the script that the stage before ends with.
pub(super) fn assemble(binary: &Path, root: &Path) -> Result<()> {
    run(Command::new("sh").arg(packaging("container/root.sh")).arg(binary).arg(root)).map(drop)
}

/// The Dockerfile's lines from its last `FROM` on, without comments.
pub(super) fn last_stage() -> Result<Vec<String>> {
    let dockerfile = text(DOCKERFILE)?;
    let lines: Vec<_> = dockerfile.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let from = lines.iter().rposition(|line| line.starts_with("FROM ")).context("no FROM")?;
    Ok(lines.into_iter().skip(from).collect())
}

/// What is run before a container's own arguments.
pub(super) fn entry_point() -> Result<Vec<String>> {
    let stage = last_stage()?;
    let words = stage.iter().find_map(|line| line.strip_prefix("ENTRYPOINT ")).context("no ENTRYPOINT")?;
    Ok(serde_json::from_str(words)?)
}

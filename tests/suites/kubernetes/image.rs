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
    words("ENTRYPOINT ")
}

/// What tells whether a container is well.
pub(super) fn health_check() -> Result<Vec<String>> {
    words("HEALTHCHECK ")
}

/// The list of words on the last stage's line that begins so.
fn words(instruction: &str) -> Result<Vec<String>> {
    let stage = last_stage()?;
    let line = stage.iter().find(|line| line.starts_with(instruction)).with_context(|| format!("no {instruction}"))?;
    let list = line.find('[').and_then(|at| line.get(at..)).with_context(|| format!("no words in {line}"))?;
    Ok(serde_json::from_str(list)?)
}

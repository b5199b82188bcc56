//! The image: what the Dockerfile's last stage makes of what the stage before has built.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    manifests::{at, packaging, text},
    pod::run,
};

const DOCKERFILE: &str = "container/Dockerfile";

/// Makes the image's root of a `dupip` that is built already, by the script that the stage before ends with.
pub(super) fn assemble(binary: &Path, root: &Path) -> Result<()> {
    run(Command::new("sh").arg(packaging("container/root.sh")).arg(binary).arg(root)).map(drop)
}

/// Has Buildah make the image of the last stage, with the one before done already: `root` is what it has made. Returns what
/// the image says of how it is to be run. All that Buildah keeps is in `folder`, and the root of the image in its `out`.
pub(super) fn build(root: &Path, folder: &Path) -> Result<Value> {
    let stage = folder.join("build");
    fs::create_dir_all(&stage)?;
    fs::rename(root, stage.join("image"))?;
    fs::write(folder.join("Dockerfile"), last_stage()?.join("\n"))?;
    let before = format!("--build-context=build={}", stage.display());
    let out = format!("--output=type=local,dest={}", folder.join("out").display());
    let mut bud = buildah(folder);
    bud.args(["bud", "--format=docker", "--isolation=chroot", "--tag=dupip", &before, &out]);
    run(bud.arg("--file").arg(folder.join("Dockerfile")).arg(&stage))?;
    let image: Value = serde_json::from_str(&run(buildah(folder).args(["inspect", "--type=image", "dupip"]))?)?;
    Ok(at(&image, "/Docker/config").clone())
}

fn buildah(folder: &Path) -> Command {
    let mut buildah = Command::new("buildah");
    buildah.arg("--root").arg(folder.join("storage")).arg("--runroot").arg(folder.join("run"));
    buildah.args(["--storage-driver", "vfs"]);
    buildah
}

/// The files below `root`, as a container sees them.
pub(super) fn files(root: &Path) -> Result<Vec<String>> {
    let listed = run(Command::new("find").arg(root).args(["-type", "f", "-printf", "/%P\n"]))?;
    Ok(listed.lines().map(str::to_owned).collect())
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

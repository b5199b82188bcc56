//! The manifests as `kubectl apply -k` sends them, each checked against its schema.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

/// What may be applied.
const FOLDERS: [&str; 2] = ["base", "overlays/enforce"];
const CHECK: &str = include_str!("manifests.py");

/// The folder of the workspace.
pub(super) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// A file below `detector/packaging`.
pub(super) fn packaging(path: &str) -> PathBuf {
    workspace().join("detector/packaging").join(path)
}

/// A program that `cargo xtask setup` has put into the environment for tests.
pub(super) fn program(name: &str) -> Command {
    Command::new(workspace().join("target/python/bin").join(name))
}

/// What the program makes of `input`.
pub(super) fn fed(command: &mut Command, input: &str) -> Result<Output> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().context("is it installed? `cargo xtask setup` installs what the tests need")?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

/// What a folder below `detector/packaging/kubernetes` comes to, as YAML.
pub(super) fn rendered(folder: &str) -> Result<String> {
    let output = fed(program("kubectl").arg("kustomize").arg(packaging("kubernetes").join(folder)), "")?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.success() && said.is_empty(), "kubectl says of {folder}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Manifests, and what is wrong with them.
#[derive(Clone)]
pub(super) struct Checked {
    pub(super) manifests: Vec<Value>,
    pub(super) faults: Vec<String>,
}

/// What the schemas say of each text of YAML. One program looks at all of them: it takes seconds to start.
pub(super) fn check(texts: &[String]) -> Result<Vec<Checked>> {
    let output = fed(program("python").args(["-c", CHECK]), &serde_json::to_string(texts)?)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let checked = |answer: &Value| -> Result<Checked> {
        let faults = serde_json::from_value(at(answer, "/faults").clone())?;
        Ok(Checked { manifests: list(answer, "/manifests").to_vec(), faults })
    };
    answers.iter().map(checked).collect()
}

/// The manifests of a folder, `base` or `overlays/enforce`, without a fault.
pub(super) fn of(folder: &str) -> Result<Vec<Value>> {
    static CHECKED: LazyLock<Result<Vec<Checked>, String>> = LazyLock::new(|| {
        let texts = FOLDERS.iter().map(|folder| rendered(folder)).collect::<Result<Vec<_>>>();
        texts.and_then(|texts| check(&texts)).map_err(|error| format!("{error:#}"))
    });
    let checked = CHECKED.as_ref().map_err(|error| anyhow!("{error}"))?;
    let at = FOLDERS.iter().position(|known| *known == folder).and_then(|at| checked.get(at));
    let Checked { manifests, faults } = at.with_context(|| format!("{folder} is none of {FOLDERS:?}"))?;
    ensure!(faults.is_empty(), "{folder}: {}", faults.join("\n"));
    Ok(manifests.clone())
}

/// The only manifest of that kind.
pub(super) fn only<'a>(manifests: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut all = manifests.iter().filter(|manifest| *at(manifest, "/kind") == kind);
    let one = all.next().with_context(|| format!("there is no {kind}"))?;
    ensure!(all.next().is_none(), "there is more than one {kind}");
    Ok(one)
}

/// What a manifest has there (RFC 6901); null if it has nothing.
pub(super) fn at<'a>(of: &'a Value, pointer: &str) -> &'a Value {
    of.pointer(pointer).unwrap_or(&Value::Null)
}

/// The entries of a list in a manifest; none if there is no such list.
pub(super) fn list<'a>(of: &'a Value, pointer: &str) -> &'a [Value] {
    at(of, pointer).as_array().map_or(&[], Vec::as_slice)
}

/// The text of a file below `detector/packaging`.
pub(super) fn text(path: &str) -> Result<String> {
    let path = packaging(path);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

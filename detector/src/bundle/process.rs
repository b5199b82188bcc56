//! The agent's process, its configuration, and what the journal has of it.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Stdio,
};

use rustix::fs::OFlags;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
};

use super::{
    LONGEST, Part,
    secrets::{Known, scrub},
    within,
};
use crate::http::Client;

/// Lines of the journal.
const LINES: &str = "2000";

/// The configuration file as it may be shown.
pub(super) fn configuration(path: &Path, known: &Known) -> Part {
    let content = beginning(path).map_err(|error| format!("{}: {error}", path.display()));
    let shown = content.and_then(|text| known.configuration(&String::from_utf8_lossy(&text)));
    Part::new(
        "configuration/dupip.toml",
        "the configuration, without secrets and comments",
        shown.map(String::into_bytes),
    )
}

/// What the kernel says of the process that answers at `socket`.
pub(super) async fn parts(socket: &Path, known: &Known) -> Vec<Part> {
    const NAMES: [(&str, &str); 5] = [
        ("arguments.txt", "the agent's arguments, without secrets"),
        ("environment.txt", "dupip's own variables of the agent's environment, without secrets"),
        ("status.txt", "its state, capabilities and memory"),
        ("limits.txt", "its limits"),
        ("place.txt", "its control group, namespaces and how many files it has open"),
    ];
    let pid = match pid(socket).await {
        Ok(pid) => pid,
        Err(why) => {
            let not_there = |(name, about)| Part::new(format!("process/{name}"), about, Err(why.clone()));
            return NAMES.map(not_there).into();
        }
    };
    let folder = Path::new("/proc").join(pid.to_string());
    let read = |name: &str| beginning(&folder.join(name)).map_err(|error| format!("/proc/{pid}/{name}: {error}"));
    let contents = [
        read("cmdline").map(|line| known.arguments(words(&line).iter().map(String::as_str)).join("\n").into_bytes()),
        read("environ").map(|all| {
            let shown: Vec<_> = words(&all).iter().filter_map(|text| known.variable(text)).collect();
            shown.join("\n").into_bytes()
        }),
        read("status"),
        read("limits"),
        place(&folder, pid),
    ];
    NAMES
        .into_iter()
        .zip(contents)
        .map(|((name, about), content)| Part::new(format!("process/{name}"), about, content))
        .collect()
}

/// The process that listens there.
async fn pid(socket: &Path) -> Result<u32, String> {
    let process = Client::new(socket).process().await.map_err(|error| error.to_string())?;
    process.ok_or_else(|| "the agent is in another PID namespace".to_owned())
}

/// Words that end with a zero byte.
fn words(bytes: &[u8]) -> Vec<String> {
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn place(folder: &Path, pid: u32) -> Result<Vec<u8>, String> {
    let mut text = format!("pid: {pid}\n").into_bytes();
    text.extend(beginning(&folder.join("cgroup")).unwrap_or_default());
    for entry in fs::read_dir(folder.join("ns")).map_err(|error| error.to_string())?.flatten() {
        let target = fs::read_link(entry.path()).map(|target| target.display().to_string());
        text.extend(format!("{}\n", target.unwrap_or_else(|error| error.to_string())).bytes());
    }
    let files = fs::read_dir(folder.join("fd")).map(|files| files.count().to_string());
    text.extend(format!("open files: {}\n", files.unwrap_or_else(|error| error.to_string())).bytes());
    Ok(text)
}

/// As much of a file as an archive takes, and no wait for one that is none.
pub(super) fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    let mut content = Vec::new();
    file.take(LONGEST as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// The end of what the journal has of the unit.
pub(super) async fn journal() -> Part {
    let mut journalctl = Command::new("journalctl");
    journalctl.args(["--quiet", "--no-pager", "--unit", "dupip", "--lines", LINES, "--output", "short-iso-precise"]);
    let content = async {
        match output(journalctl).await?.as_slice() {
            [] => Err("the journal has nothing of the unit dupip".to_owned()),
            log => Ok(scrub(&String::from_utf8_lossy(log)).into_bytes()),
        }
    };
    within("log/journal.txt", "the latest lines that the journal has of dupip", content).await
}

/// What a program writes to standard output, unless it fails.
pub(super) async fn output(mut command: Command) -> Result<Vec<u8>, String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let program = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let mut program = program.map_err(|error| format!("cannot run {name}: {error}"))?;
    let (out, err) = (program.stdout.take(), program.stderr.take());
    let (said, complaint) = tokio::join!(read_all(out), read_all(err));
    let (said, complaint) = (said.map_err(|error| format!("{name}: {error}"))?, complaint.unwrap_or_default());
    let status = program.wait().await.map_err(|error| format!("{name}: {error}"))?;
    match status.success() {
        true => Ok(said),
        false => Err(format!("{name} ended with {status}: {}", String::from_utf8_lossy(&complaint).trim())),
    }
}

async fn read_all(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(LONGEST as u64 + 1).read_to_end(&mut content).await?;
    }
    Ok(content)
}

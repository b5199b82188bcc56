//! `dupip doctor`: what is there, what is missing, and what to do.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{
    exit::{Exit, Failure},
    render::{Column, columns, json, or_dash, plain, print},
    small_runtime,
};
use crate::{
    allocator::DATABASE,
    doctor::{Check, Lack, Questions, Status, examine},
    net::BridgeName,
};

const EXAMPLES: &str = "\
Examples:
  dupip doctor                       everything, on every bridge
  dupip doctor --bridge rt0          on this bridge only
  dupip doctor -o json | jq '.checks[] | select(.status == \"missing\")'

Each line is ok, warning (dupip works and does less than it could), missing (`dupip run` cannot
do without it) or skipped (it could not be looked at). Nothing is changed, and no right is
needed to ask.

Exit codes: 0 nothing needed is missing, 4 a right is missing, 5 the kernel cannot do it.";

/// Say what is there, what is missing, what that means and what to do
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A bridge to look at; may be given more than once [default: every bridge]
    #[arg(long = "bridge", value_name = "NAME", env = "DUPIP_BRIDGE", value_delimiter = ',')]
    bridges: Vec<BridgeName>,
    /// The lease database
    #[arg(long, value_name = "PATH", env = "DUPIP_DATABASE", default_value = DATABASE)]
    database: PathBuf,
    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Lines, for people
    Text,
    /// JSON, for programs
    Json,
}

/// What was found, as JSON.
#[derive(Debug, serde::Serialize)]
struct Answer<'a> {
    /// The worst of all.
    status: Status,
    checks: &'a [Check],
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        let questions = Questions { bridges: self.bridges, database: self.database, socket: socket.to_owned() };
        let checks = small_runtime()?.block_on(examine(&questions));
        print(match self.output {
            Form::Json => json(&Answer { status: worst(&checks), checks: &checks })?,
            Form::Text => text(&checks),
        })?;
        Ok(exit(&checks))
    }
}

fn worst(checks: &[Check]) -> Status {
    let worst = checks.iter().map(|check| check.status).filter(|status| *status != Status::Skipped).max();
    worst.unwrap_or(Status::Ok)
}

/// What no right would help against is told first.
fn exit(checks: &[Check]) -> Exit {
    let lacks = |lack| checks.iter().any(|check| check.lack == Some(lack));
    match (lacks(Lack::Kernel), lacks(Lack::Permission)) {
        (true, _) => Exit::Unsupported,
        (false, true) => Exit::NotPermitted,
        (false, false) => Exit::Fine,
    }
}

fn text(checks: &[Check]) -> String {
    let all: [Column<'_, Check>; 4] = [
        ("STATUS", false, &|check| check.status.as_str().to_owned()),
        ("CHECK", false, &|check| check.name.to_owned()),
        ("OF", false, &|check| or_dash(check.subject.as_ref())),
        ("WHAT IT MEANS", false, &|check| check.meaning.clone()),
    ];
    let todo: String = checks.iter().filter(|check| check.status != Status::Ok).filter_map(remedy).collect();
    let head = if todo.is_empty() { "" } else { "\nWhat to do:\n" };
    columns(&all, checks, false) + head + &todo
}

fn remedy(check: &Check) -> Option<String> {
    let of = check.subject.as_ref().map(|subject| format!(" of {subject}")).unwrap_or_default();
    Some(plain(&format!("  {}{of}: {}", check.name, check.remedy.as_ref()?)) + "\n")
}

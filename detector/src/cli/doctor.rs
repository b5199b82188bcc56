//! `dupip doctor`: what is there, what is missing, and what to do.

use std::path::{Path, PathBuf};

use super::{
    config::{CONFIG, validate},
    exit::{Exit, Failure},
    render::{Column, List, Listed, Output, json, or_dash, plain, print},
    small_runtime,
};
use crate::{
    allocator::DATABASE,
    doctor::{Check, Lack, Questions, Status, TOPICS, Topic, examine},
    net::BridgeName,
};

const EXAMPLES: &str = "\
Examples:
  dupip doctor                       everything, on every bridge
  dupip doctor --bridge rt0          on this bridge only
  dupip doctor --explain arp_ignore  what a check looks at, why, and how to mend it
  dupip doctor --filter status!=ok   only what is not as it should be
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
    /// The agent's configuration
    #[arg(long, value_name = "PATH", env = "DUPIP_CONFIG", default_value = CONFIG)]
    config: PathBuf,
    /// Look at nothing, and say of one check what it looks at, why, and how to mend it; `all` for each
    #[arg(long, value_name = "CHECK", value_parser = topics)]
    explain: Option<Topics>,
    #[command(flatten)]
    list: List<Check>,
}

/// The checks that are to be explained.
#[derive(Clone, Copy, Debug)]
struct Topics(&'static [Topic]);

fn topics(name: &str) -> Result<Topics, String> {
    let named = |name| Topic::named(name).map(std::slice::from_ref);
    let found = if name == "all" { Some(TOPICS) } else { named(name) };
    let all = || TOPICS.iter().map(|topic| topic.name).collect::<Vec<_>>().join(", ");
    found.map(Topics).ok_or_else(|| format!("there is no such check; there are all, {}", all()))
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
        if let Some(Topics(topics)) = self.explain {
            print(explained(topics, self.list.output)?)?;
            return Ok(Exit::Fine);
        }
        let questions = Questions {
            bridges: self.bridges,
            database: self.database,
            socket: socket.to_owned(),
            configuration: self.config,
            validate,
        };
        let checks = small_runtime()?.block_on(examine(&questions));
        let (status, exit) = (worst(&checks), exit(&checks));
        let checks = self.list.pick(checks);
        print(match self.list.output {
            Output::Json => json(&Answer { status, checks: &checks })?,
            Output::Csv => self.list.text(&checks, self.list.look())?,
            _ => self.list.text(&checks, self.list.look())? + &todo(&checks),
        })?;
        Ok(exit)
    }
}

fn explained(topics: &[Topic], output: Output) -> Result<String, Failure> {
    let text = |Topic { name, what, why, mend }: &Topic| {
        format!("{name}\n  What it looks at: {what}\n  Why it matters:   {why}\n  How to mend it:   {mend}\n")
    };
    match output {
        Output::Json => json(&topics),
        _ => Ok(topics.iter().map(text).collect::<Vec<_>>().join("\n")),
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

impl Listed for Check {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::word("STATUS", |check| check.status.as_str().to_owned()),
        Column::text("CHECK", |check| check.name.to_owned()),
        Column::text("OF", |check| or_dash(check.subject.as_ref())),
        Column::prose("WHAT IT MEANS", |check| check.meaning.clone()),
    ];
}

fn todo(checks: &[Check]) -> String {
    let todo: String = checks.iter().filter(|check| check.status != Status::Ok).filter_map(remedy).collect();
    let head = if todo.is_empty() { "" } else { "\nWhat to do:\n" };
    head.to_owned() + &todo
}

fn remedy(check: &Check) -> Option<String> {
    let of = check.subject.as_ref().map(|subject| format!(" of {subject}")).unwrap_or_default();
    Some(plain(&format!("  {}{of}: {}", check.name, check.remedy.as_ref()?)) + "\n")
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;
    use crate::cli::render::golden::forms;

    #[test]
    fn a_check_is_explained_in_four_lines() {
        let Topics(topics) = topics("kernel.bpf_jit").unwrap();
        let want = "kernel.bpf_jit\n  \
                    What it looks at: Whether eBPF programs are compiled (net.core.bpf_jit_enable).\n  \
                    Why it matters:   Each frame passes the tap: interpreted, that takes several times as much of the processor.\n  \
                    How to mend it:   sysctl -w net.core.bpf_jit_enable=1\n";
        assert_eq!(explained(topics, Output::Table).unwrap(), want);
    }

    #[test]
    fn all_can_be_explained_and_nonsense_lists_what_there_is() {
        let Topics(all) = topics("all").unwrap();
        assert_eq!(explained(all, Output::Table).unwrap().matches("How to mend it:").count(), TOPICS.len());
        let error = topics("kernel").unwrap_err();
        assert!(error.starts_with("there is no such check; there are all, kernel.version, kernel.bpf, "), "{error}");
    }

    #[test]
    fn a_person_sees_what_is_missing_and_what_to_do() {
        let check = |name, status, meaning: &str| Check {
            name,
            subject: None,
            status,
            meaning: meaning.to_owned(),
            remedy: None,
            lack: None,
        };
        let lacking = Check {
            subject: Some("rt0".to_owned()),
            remedy: Some("give dupip what it needs".to_owned()),
            lack: Some(Lack::Permission),
            ..check(
                "right.net_raw",
                Status::Missing,
                "nobody can be asked whether an address is theirs, so nothing is sure",
            )
        };
        let checks = [
            check("kernel.release", Status::Ok, "6.18 has all that dupip uses"),
            check("kernel.log", Status::Skipped, "it could not be looked at"),
            check("agent.paused", Status::Warning, "nothing new is done"),
            lacking,
        ];
        expect_file!["golden/doctor.txt"].assert_eq(&(forms(&checks) + "--- what to do\n" + &todo(&checks)));
        assert_eq!((worst(&checks), exit(&checks)), (Status::Missing, Exit::NotPermitted));
    }
}

//! `dupip doctor`: what is there, what is missing, and what to do.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{
    config::{CONFIG, validate},
    exit::{Exit, Failure},
    render::{Column, columns, json, or_dash, plain, print},
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
    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Form,
    /// Look at nothing, and say of one check what it looks at, why, and how to mend it; `all` for each
    #[arg(long, value_name = "CHECK", value_parser = topics)]
    explain: Option<Topics>,
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
        if let Some(Topics(topics)) = self.explain {
            print(explained(topics, self.output)?)?;
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
        print(match self.output {
            Form::Json => json(&Answer { status: worst(&checks), checks: &checks })?,
            Form::Text => text(&checks),
        })?;
        Ok(exit(&checks))
    }
}

fn explained(topics: &[Topic], output: Form) -> Result<String, Failure> {
    let text = |Topic { name, what, why, mend }: &Topic| {
        format!("{name}\n  What it looks at: {what}\n  Why it matters:   {why}\n  How to mend it:   {mend}\n")
    };
    match output {
        Form::Json => json(&topics),
        Form::Text => Ok(topics.iter().map(text).collect::<Vec<_>>().join("\n")),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, of: Option<&str>, status: Status, meaning: &str, remedy: Option<&str>) -> Check {
        let [subject, remedy] = [of, remedy].map(|text| text.map(str::to_owned));
        Check { name, subject, status, meaning: meaning.to_owned(), remedy, lack: None }
    }

    #[test]
    fn what_is_fine_is_a_line_and_what_is_not_says_what_to_do() {
        let good = check("kernel.tap", None, Status::Ok, "the tap loads, and hooks in by TCX", None);
        let bad = check("arp_ignore", Some("rt0"), Status::Warning, "is 8: silent", Some("sysctl -w x=1"));
        let want = "STATUS  CHECK       OF  WHAT IT MEANS\n\
                    ok      kernel.tap  -   the tap loads, and hooks in by TCX\n";
        assert_eq!(text(std::slice::from_ref(&good)), want);
        let want = "STATUS   CHECK       OF   WHAT IT MEANS\n\
                    ok       kernel.tap  -    the tap loads, and hooks in by TCX\n\
                    warning  arp_ignore  rt0  is 8: silent\n\
                    \n\
                    What to do:\n  \
                    arp_ignore of rt0: sysctl -w x=1\n";
        assert_eq!(text(&[good, bad]), want);
    }

    #[test]
    fn a_check_is_explained_in_four_lines() {
        let Topics(topics) = topics("kernel.bpf_jit").unwrap();
        let want = "kernel.bpf_jit\n  \
                    What it looks at: Whether eBPF programs are compiled (net.core.bpf_jit_enable).\n  \
                    Why it matters:   Each frame passes the tap: interpreted, that takes several times as much of the processor.\n  \
                    How to mend it:   sysctl -w net.core.bpf_jit_enable=1\n";
        assert_eq!(explained(topics, Form::Text).unwrap(), want);
    }

    #[test]
    fn all_can_be_explained_and_nonsense_lists_what_there_is() {
        let Topics(all) = topics("all").unwrap();
        assert_eq!(explained(all, Form::Text).unwrap().matches("How to mend it:").count(), TOPICS.len());
        let error = topics("kernel").unwrap_err();
        assert!(error.starts_with("there is no such check; there are all, kernel.version, kernel.bpf, "), "{error}");
    }

    #[test]
    fn a_configuration_with_keys_that_there_are_not_is_wrong() {
        assert_eq!(validate("mode = \"enforce\"\nevictions-per-minute = 5"), Ok(()));
        assert_eq!(
            validate("evictions-per-minut = 5").unwrap_err(),
            "it has keys that there are not: `evictions-per-minut`"
        );
        assert!(validate("mode = ").is_err());
    }
}

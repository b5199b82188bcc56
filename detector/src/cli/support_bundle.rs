//! `dupip support-bundle`: one archive for a bug report.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use clap::CommandFactory as _;
use tokio::{process::Command, time::timeout};

use super::{
    Cli,
    config::CONFIG,
    exit::{Exit, Failure, note, of_io},
    render::print,
    small_runtime,
    target::replaceable,
};
use crate::{
    allocator::DATABASE,
    bundle::{LEFT_OUT, Part, Questions, Written, write},
    http::{Client, api::About},
};

const EXAMPLES: &str = "\
Examples:
  dupip support-bundle                        dupip-support-TIME.tar.gz in this directory
  dupip support-bundle -o /tmp/b.tar.gz
  dupip support-bundle --redact               other words for addresses and names
  tar -xzOf b.tar.gz dupip-support/manifest.json | jq

It works with and without an agent, changes nothing, and has most as root. What could not be
gathered is a file that says why. Only you may read the archive; look into it before you hand
it on.";

/// How long the doctor may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Gather what a bug report needs into one archive, without secrets
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The archive [default: dupip-support-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Put other words in place of addresses, MACs and names: the same for the same everywhere
    #[arg(long)]
    redact: bool,
    /// The lease database [default: the agent's, or /var/lib/dupip/leases.db]
    #[arg(long, value_name = "PATH", env = "DUPIP_DATABASE")]
    database: Option<PathBuf>,
    /// The agent's configuration
    #[arg(long, value_name = "PATH", env = "DUPIP_CONFIG", default_value = CONFIG)]
    config: PathBuf,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let file = self.output.clone().unwrap_or_else(usual_name);
        replaceable(&file)?;
        let written = small_runtime()?.block_on(async {
            let database = match self.database {
                Some(database) => database,
                None => database_of_agent(&socket).await,
            };
            note("gathers what the doctor says");
            let questions = Questions {
                given: given(&socket, &database, &self.config).await,
                socket,
                database,
                configuration: self.config,
                known: flags_of_run().collect(),
                redact: self.redact,
            };
            write(questions, file.clone(), |what| note(format_args!("gathers {what}"))).await
        });
        let cannot = |error| Failure::new(of_io(&error), format_args!("cannot write {}: {error}", file.display()));
        print(summary(&written.map_err(cannot)?))?;
        Ok(Exit::Fine)
    }
}

async fn database_of_agent(socket: &Path) -> PathBuf {
    let about = Client::new(socket).ask::<About>("/api/v1/about").await;
    about.map_or_else(|_| DATABASE.into(), |about| about.database)
}

fn usual_name() -> PathBuf {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    format!("dupip-support-{}.tar.gz", time.replace([':', '-'], "")).into()
}

/// What flags of `dupip run` there are: a configuration has the same names.
fn flags_of_run() -> impl Iterator<Item = String> {
    let cli = Cli::command();
    let run = cli.get_subcommands().find(|verb| verb.get_name() == "run").cloned();
    let of_run = run.into_iter().flat_map(|run| run.get_arguments().cloned().collect::<Vec<_>>());
    let all = of_run.chain(cli.get_arguments().cloned().collect::<Vec<_>>());
    all.filter_map(|argument| argument.get_long().map(str::to_owned))
}

/// What the program says of itself and by its other verbs.
async fn given(socket: &Path, database: &Path, config: &Path) -> Vec<Part> {
    let version = format!("dupip {}\n", env!("CARGO_PKG_VERSION"));
    let doctor = |form| doctor(socket, database, config, form);
    vec![
        Part::new("version.txt", "the version of the program that made this", Ok(version.into_bytes())),
        Part::new("doctor.json", "what the doctor says, for programs", doctor("json").await),
        Part::new("doctor.txt", "what the doctor says", doctor("text").await),
    ]
}

/// What the doctor prints, however it ends: its exit code is part of its answer.
async fn doctor(socket: &Path, database: &Path, config: &Path, form: &str) -> Result<Vec<u8>, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("--socket").arg(socket).args(["doctor", "-o", form]);
    command.arg("--database").arg(database).arg("--config").arg(config);
    let output = timeout(PATIENCE, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let late = |_| format!("it was not there within {} s", PATIENCE.as_secs());
    let output = output.map_err(late)?.map_err(|error| error.to_string())?;
    match output.stdout.as_slice() {
        [] => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        _ => Ok(output.stdout),
    }
}

fn summary(written: &Written) -> String {
    let Written { file, bytes, manifest } = written;
    let missing: Vec<_> = manifest.files.iter().filter(|listed| listed.missing.is_some()).collect();
    let named = match manifest.redacted {
        true => "Addresses, MACs and names of sandboxes and ports stand in it under other words.",
        false => "It has addresses, MACs and names of sandboxes; --redact replaces them.",
    };
    let there = manifest.files.len() - missing.len();
    let mut text = format!("{} ({bytes} bytes, {there} files)\n{named}\n", file.display());
    if !missing.is_empty() {
        text += "\nCould not be gathered:\n";
    }
    for listed in missing {
        text += &format!("  {}: {}\n", listed.about, listed.missing.as_deref().unwrap_or_default().trim());
    }
    let left_out: String = LEFT_OUT.map(|what| format!("  {what}\n")).concat();
    text + "\nNot in it:\n" + &left_out
}

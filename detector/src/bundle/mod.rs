//! One archive for a bug report: what dupip is, what it sees, and what the machine is, without secrets.
//!
//! Every part is gathered by itself, bounded in size and time; one that cannot be had is a file that says why, so that there
//! is always an archive. Nothing is changed, and no agent is needed. What is configured is shown by name only where it may
//! be (`secrets`); addresses and names are there, unless they are to be `Pseudonyms`.

mod agent;
mod archive;
mod kernel;
mod names;
mod process;
mod pseudonyms;
mod secrets;

use std::{io, path::PathBuf, time::Duration};

use tokio::time::timeout;

use archive::Archive;
pub use archive::{Manifest, Written};
use pseudonyms::Pseudonyms;
pub use secrets::Known;

use crate::{allocator::dump, http::Client};

/// The longest part, in bytes; of a longer one, the beginning is kept.
const LONGEST: usize = 8 << 20;
/// How long a part may take to be gathered.
const PATIENCE: Duration = Duration::from_secs(15);
/// Rows of each table of the lease database.
const ROWS: usize = 5000;

/// What is not in it, whatever happens: for whoever is to hand it on.
pub const LEFT_OUT: [&str; 7] = [
    "hook secrets, tokens and keys, and what any file has that the configuration names",
    "arguments of hooks; logins, paths and queries of URLs",
    "comments of the configuration, and keys that are not known",
    "variables of the environment other than dupip's own",
    "packets: dupip keeps none",
    "messages to hooks that wait on disk",
    "what runs in sandboxes, besides names, interfaces and addresses",
];

/// What to gather, and from where.
#[derive(Clone, Debug)]
pub struct Questions {
    /// The agent's Unix socket.
    pub socket: PathBuf,
    /// The lease database.
    pub database: PathBuf,
    /// The agent's configuration.
    pub configuration: PathBuf,
    /// What the configuration may say.
    pub known: Known,
    /// Whether addresses and names are replaced.
    pub redact: bool,
    /// What others have gathered: name, what it is, and what was said or why not.
    pub given: Vec<Part>,
}

/// A file of the archive.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its path in the archive.
    pub name: String,
    /// What it is.
    pub about: &'static str,
    /// What is in it, or why it is not there.
    pub content: Result<Vec<u8>, String>,
}

impl Part {
    /// A part that is there or says why not.
    #[must_use]
    pub fn new(name: impl Into<String>, about: &'static str, content: Result<Vec<u8>, String>) -> Self {
        Self { name: name.into(), about, content }
    }
}

/// Gathers everything and writes it to `file`, all or nothing, for its owner only. `tell` hears what is being done.
///
/// # Errors
/// When the archive cannot be written.
pub async fn write(questions: Questions, file: PathBuf, mut tell: impl FnMut(&str)) -> io::Result<Written> {
    let mut parts = questions.given.clone();
    tell("the agent");
    parts.extend(agent::parts(&Client::new(&questions.socket)).await);
    tell("its process and configuration");
    parts.push(process::configuration(&questions.configuration, &questions.known));
    parts.extend(process::parts(&questions.socket, &questions.known).await);
    tell("the lease database");
    parts.push(within("leases/database.json", "every table of the lease database", database(questions.database)).await);
    tell("the kernel and its bridges");
    parts.extend(kernel::parts(questions.redact).await);
    tell("the journal");
    parts.push(process::journal().await);
    tell("the archive");
    let pseudonyms = questions.redact.then(|| Pseudonyms::of(&parts));
    tokio::task::spawn_blocking(move || Archive::write(&file, parts, pseudonyms.as_ref()))
        .await
        .map_err(io::Error::other)?
}

/// A part that is there in time or says why not.
async fn within(
    name: impl Into<String>,
    about: &'static str,
    content: impl Future<Output = Result<Vec<u8>, String>>,
) -> Part {
    let late = |_| Err(format!("it was not there within {} s", PATIENCE.as_secs()));
    Part::new(name, about, timeout(PATIENCE, content).await.unwrap_or_else(late))
}

async fn database(path: PathBuf) -> Result<Vec<u8>, String> {
    let dumped = tokio::task::spawn_blocking(move || dump(&path, ROWS)).await.map_err(|error| error.to_string())?;
    serde_json::to_vec_pretty(&dumped.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

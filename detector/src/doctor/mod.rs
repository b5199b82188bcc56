//! What this machine lets dupip do, feature by feature: what is there, what is missing, what that means and what to do.
//!
//! Nothing is needed to ask and nothing is changed. What cannot be found out for lack of a right is [`Status::Skipped`], and
//! the right that is lacking has a line of its own. Each check has a name that stays, for programs that read them.

mod agent;
mod bridges;
pub mod capabilities;
mod hooks;
mod kernel;
mod leases;
mod martians;
mod network;
mod places;
mod process;
mod service;
mod topics;

use std::path::PathBuf;

use serde::Serialize;

pub use service::Validate;
pub use topics::{TOPICS, Topic};

use crate::{http::Client, net::BridgeName};

/// What to look at.
#[derive(Clone, Debug)]
pub struct Questions {
    /// The bridges; none: every one that there is.
    pub bridges: Vec<BridgeName>,
    /// The lease database.
    pub database: PathBuf,
    /// The agent's Unix socket.
    pub socket: PathBuf,
    /// The agent's configuration.
    pub configuration: PathBuf,
    /// Says what is wrong in it.
    pub validate: Validate,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is as it should be.
    Ok,
    /// It could not be looked at.
    Skipped,
    /// dupip works, and does less than it could.
    Warning,
    /// Something that `dupip run` cannot do without.
    Missing,
}

/// What would have to change before something that is missing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// A right.
    Permission,
    /// The kernel.
    Kernel,
}

/// One feature, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at. Names stay.
    pub name: &'static str,
    /// Of which bridge, port, namespace or program, if there are several.
    pub subject: Option<String>,
    /// How it stands.
    pub status: Status,
    /// What that means, in a sentence.
    pub meaning: String,
    /// What to do, if anything is to be done.
    pub remedy: Option<String>,
    /// What is lacking, if something needed is.
    #[serde(skip)]
    pub lack: Option<Lack>,
}

impl Status {
    /// The status in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Missing => "missing",
        }
    }
}

impl Check {
    fn new(topic: &'static Topic, status: Status, meaning: impl Into<String>) -> Self {
        Self { name: topic.name, subject: None, status, meaning: meaning.into(), remedy: None, lack: None }
    }

    fn ok(topic: &'static Topic, meaning: impl Into<String>) -> Self {
        Self::new(topic, Status::Ok, meaning)
    }

    fn skipped(topic: &'static Topic, meaning: impl Into<String>) -> Self {
        Self::new(topic, Status::Skipped, meaning)
    }

    fn warning(topic: &'static Topic, meaning: impl Into<String>) -> Self {
        Self::new(topic, Status::Warning, meaning)
    }

    fn missing(topic: &'static Topic, lack: Lack, meaning: impl Into<String>) -> Self {
        Self { lack: Some(lack), ..Self::new(topic, Status::Missing, meaning) }
    }

    fn of(self, subject: impl ToString) -> Self {
        Self { subject: Some(subject.to_string()), ..self }
    }

    fn cure(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// Looks at everything.
pub async fn examine(questions: &Questions) -> Vec<Check> {
    let Questions { bridges, database, socket, configuration, validate } = questions;
    let process = Client::new(socket).process().await;
    let agent = process.as_ref().ok().copied().flatten();
    let mut checks = kernel::examine();
    checks.extend(capabilities::examine(agent));
    checks.extend(places::examine());
    let (seen, of_bridges) = bridges::examine(bridges).await;
    checks.extend(of_bridges);
    checks.extend(network::examine(&seen.bridges));
    checks.extend(hooks::examine(&seen.interfaces).await);
    checks.extend(hooks::taps(&seen.interfaces, process.is_ok()).await);
    checks.extend(martians::examine().await);
    checks.extend(leases::examine(database));
    checks.push(service::configuration(configuration, *validate));
    checks.push(service::unit().await);
    checks.extend(process::examine(agent).await);
    checks.extend(agent::examine(socket).await);
    checks
}

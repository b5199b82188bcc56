//! What the agent goes by, and what became of it when that was read again.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that the agent is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Setting {
    /// The key in the configuration file, which is the flag's name.
    pub key: String,
    /// What it says; nothing if it says nothing, or is hidden.
    pub values: Vec<String>,
    /// Whether it says something that is nobody else's business.
    pub hidden: bool,
    /// Who says so: `flag`, `environment`, `file` or `default`.
    pub from: String,
    /// Whether a new value counts in a running agent.
    pub live: bool,
}

/// A setting that says something else than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The key.
    pub key: String,
    /// What it said; null if that is nobody else's business.
    pub from: Option<Vec<String>>,
    /// What it says now; null if that is nobody else's business.
    pub to: Option<Vec<String>>,
    /// Whether that counts in a running agent.
    pub live: bool,
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// The file; null if there is none.
    pub file: Option<String>,
    /// What counts from now on.
    pub applied: Vec<Changed>,
    /// What will count when the agent is started anew.
    pub waiting: Vec<Changed>,
}

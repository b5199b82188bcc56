//! What the agent watches at the moment, in numbers: for whoever sees to it that it runs.

use std::fmt;

use super::{
    handle::{AskError, Handle, Query},
    run::Agent,
};
use crate::net::BridgeName;

/// What is watched at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// Watched bridges that are there.
    pub bridges: usize,
    /// Those that are not.
    pub absent: Vec<BridgeName>,
    /// Their ports.
    pub ports: usize,
    /// Addresses that have more than one owner.
    pub duplicates: usize,
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = |count: usize, one: &str, more: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {more}"),
        };
        let (bridges, ports) = (some(self.bridges, "bridge", "bridges"), some(self.ports, "port", "ports"));
        write!(f, "watches {bridges} with {ports}; ")?;
        match self.duplicates {
            0 => f.write_str("no duplicate"),
            count => f.write_str(&some(count, "duplicate is open", "duplicates are open")),
        }
    }
}

impl Agent {
    pub(super) fn overview(&self) -> Overview {
        let absent: Vec<BridgeName> =
            self.bridges.iter().filter(|(_, watched)| watched.is_none()).map(|(name, _)| *name).collect();
        Overview {
            bridges: self.bridges.len() - absent.len(),
            absent,
            ports: self.ports.len(),
            duplicates: self.bridges.keys().map(|name| self.engine.open_count(*name)).sum(),
        }
    }
}

impl Handle {
    /// What is watched, as the loop itself tells between two inputs: an answer proves that it turns.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn overview(&self) -> Result<Overview, AskError> {
        self.ask(Query::Overview).await
    }
}

//! What goes over the stream of events (`/api/v1/stream`), besides the events themselves.

use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

/// Where a stream is to begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamAfter {
    /// After this cursor; absent: with what comes next. The header `Last-Event-ID` comes before it.
    pub after: Option<String>,
}

/// Message `view`: the table, the incidents or the agent's state are not what they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Viewed {
    /// Names what there is to be seen now: the same name means that nothing has changed.
    pub revision: String,
}

/// Message `reload`: whoever reads has missed something and should look at everything anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// How many events are not kept any more that it has not been told.
    pub missed: u64,
    /// Whether it has been told by another start of the agent, or asked for what never was.
    pub restarted: bool,
}

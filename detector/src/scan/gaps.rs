//! What could not be seen.

use serde::Serialize;

use crate::net::Reach;

/// Something that a scan could not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The bridge.
    pub bridge: String,
    /// The port, if it is one.
    pub port: Option<String>,
    /// What could not be seen, and why.
    pub what: String,
    /// Whether there may be a duplicate that was not found because of it.
    pub incomplete: bool,
}

impl Gap {
    pub(super) fn of_bridge(bridge: impl ToString, what: impl Into<String>) -> Self {
        Self { bridge: bridge.to_string(), port: None, what: what.into(), incomplete: true }
    }

    /// What `reach` leaves in the dark behind a port, with the reason if one is known.
    pub(super) fn behind(bridge: impl ToString, port: &str, reach: Reach, why: Option<String>) -> Option<Self> {
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let (what, incomplete) = match reach {
            Reach::Netns | Reach::NetnsById | Reach::Local => return None,
            Reach::Tap => ("a virtual machine, known only by what it answered".to_owned(), false),
            Reach::Other => ("leads elsewhere; who is there is known only by what they answered".to_owned(), false),
            Reach::ClosedNoWayIn | Reach::ClosedNotPermitted | Reach::Closed => {
                (format!("its namespace cannot be seen into, so who is silent there was not found{why}"), true)
            }
        };
        Some(Self { bridge: bridge.to_string(), port: Some(port.to_owned()), what, incomplete })
    }
}

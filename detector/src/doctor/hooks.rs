//! Who else looks at the frames that the tap looks at.

use super::Check;
use crate::{
    capture::{CaptureError, Side, tcx_programs},
    net::IfIndex,
    netlink::{Error, Host},
};

const NAME: &str = "hooks";
const SIDES: [(Side, &str); 2] = [(Side::Ingress, "ingress"), (Side::Egress, "egress")];

/// Looks at interfaces, by index and name.
pub(super) async fn examine(interfaces: &[(IfIndex, String)]) -> Vec<Check> {
    let mut found = Vec::new();
    for (index, name) in interfaces {
        match others(*index, name).await {
            Ok(others) => found.extend(others.into_iter().map(|other| {
                let meaning = format!("{other} also looks at its frames; what that drops before the tap is not seen");
                Check::warning(NAME, meaning).cure("nothing has to be done; the tap goes first where it can").of(name)
            })),
            // It went meanwhile.
            Err(Unknown::Tcx(CaptureError::Gone { .. })) => {}
            Err(error) => return vec![Check::skipped(NAME, error.to_string())],
        }
    }
    if found.is_empty() && !interfaces.is_empty() {
        found.push(Check::ok(NAME, format!("nobody else hooks into the {} interfaces", interfaces.len())));
    }
    found
}

#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("only a process with CAP_NET_ADMIN can see who else hooks in there")]
    NotPermitted,
    #[error(transparent)]
    Tcx(CaptureError),
    #[error(transparent)]
    Clsact(#[from] Error),
}

impl From<CaptureError> for Unknown {
    fn from(error: CaptureError) -> Self {
        match error {
            CaptureError::NotPermitted => Self::NotPermitted,
            error => Self::Tcx(error),
        }
    }
}

async fn others(index: IfIndex, interface: &str) -> Result<Vec<String>, Unknown> {
    let mut others = Vec::new();
    for (side, word) in SIDES {
        let programs = tcx_programs(interface, side)?.into_iter().filter(|program| !program.is_tap());
        others.extend(programs.map(|program| format!("program {} `{}` (TCX {word})", program.id, program.name)));
    }
    let filters = Host::open()?.filters(index).await?.into_iter().filter(|filter| !filter.is_tap());
    others.extend(filters.map(|filter| match filter.name.as_str() {
        "" => format!("a filter of kind {} (clsact {})", filter.kind, filter.side),
        name => format!("program `{name}` (clsact {})", filter.side),
    }));
    Ok(others)
}

//! Who else looks at the frames that the tap looks at.

use super::{
    Check,
    topics::{self, Topic},
};
use crate::{
    capture::{CaptureError, Side, tcx_programs},
    net::IfIndex,
    netlink::{Error, Host},
};

const NAME: &Topic = topics::HOOKS;
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

/// Looks at whose taps are there: `is_run` if an agent answers.
pub(super) async fn taps(interfaces: &[(IfIndex, String)], is_run: bool) -> Vec<Check> {
    let (mut doubled, mut filters, mut links) = (Vec::new(), Vec::new(), Vec::new());
    for (index, name) in interfaces {
        match taps_at(*index, name).await {
            Ok(found) => {
                doubled.extend((found.most > 1).then_some(name.as_str()));
                filters.extend((found.filters > 0).then_some(name.as_str()));
                links.extend((found.links > 0).then_some(name.as_str()));
            }
            Err(Unknown::Tcx(CaptureError::Gone { .. })) => {}
            Err(error) => return vec![Check::skipped(topics::TAPS, error.to_string())],
        }
    }
    vec![of_taps(&doubled, &filters, &links, is_run)]
}

fn of_taps(doubled: &[&str], filters: &[&str], links: &[&str], is_run: bool) -> Check {
    const NAME: &Topic = topics::TAPS;
    match (doubled, filters, links, is_run) {
        ([_, ..], ..) => {
            Check::warning(NAME, format!("more than one agent watches {}: both would heal", doubled.join(", ")))
                .cure("stop all but one: ps -C dupip -o pid,args shows them")
        }
        (_, _, [_, ..], false) => {
            Check::warning(NAME, format!("an agent that does not answer here watches {}", links.join(", ")))
                .cure("name its socket with --socket; ps -C dupip -o pid,args shows it")
        }
        (_, [first, ..], _, false) => Check::warning(
            NAME,
            format!(
                "taps of an agent that is no more are at {}: they still drop what was in quarantine",
                filters.join(", ")
            ),
        )
        .cure(format!(
            "start the agent, which replaces them, or tc qdisc delete dev {first} clsact, if nobody else hooks in there"
        )),
        (_, [], [], _) => Check::ok(NAME, "there is no tap"),
        _ => Check::ok(NAME, format!("one agent has a tap at {} interfaces", filters.len().max(links.len()))),
    }
}

/// The taps at one interface.
#[derive(Default)]
struct Taps {
    /// By TCX.
    links: usize,
    /// By clsact.
    filters: usize,
    /// The most at one side.
    most: usize,
}

async fn taps_at(index: IfIndex, interface: &str) -> Result<Taps, Unknown> {
    let filters = Host::open()?.filters(index).await?;
    let mut taps = Taps::default();
    for (side, word) in SIDES {
        let links = tcx_programs(interface, side)?.iter().filter(|program| program.is_tap()).count();
        let of_side = filters.iter().filter(|filter| filter.is_tap() && filter.side == word).count();
        taps.links += links;
        taps.filters += of_side;
        taps.most = taps.most.max(links + of_side);
    }
    Ok(taps)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn taps_are_one_running_agents_or_told() {
        for fine in
            [of_taps(&[], &[], &[], false), of_taps(&[], &["a"], &[], true), of_taps(&[], &[], &["a", "b"], true)]
        {
            assert_eq!(fine.status, Status::Ok, "{fine:?}");
        }
        for (check, cure) in [
            (of_taps(&["a"], &["a"], &["a"], true), "stop all but one"),
            (of_taps(&[], &["a"], &[], false), "tc qdisc delete dev a clsact"),
            (of_taps(&[], &[], &["a"], false), "--socket"),
        ] {
            assert!(check.status == Status::Warning && check.remedy.as_ref().unwrap().contains(cure), "{check:?}");
        }
    }
}

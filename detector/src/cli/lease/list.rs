//! `dupip lease list`.

use std::path::PathBuf;

use super::Place;
use crate::{
    cli::{
        exit::{Exit, Failure},
        render::{Column, Format, List, Listed, Look, Output, columns, domain, json, or_dash, print},
    },
    http::api::{Lease, Standing},
    time::Span,
};

const EXAMPLES: &str = "\
Examples:
  dupip lease list
  dupip lease list -o wide      also for how long, for which interface, and what is in the way
  dupip lease list --filter state=draining --sort -left
  dupip lease list --filter owner~agent -o csv
  dupip lease list -o json
  dupip lease list --offline --database /var/lib/dupip/leases.db";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    list: List<Standing>,
    #[command(flatten)]
    place: Place,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let leases = self.place.book(socket, false)?.leases()?;
        self.list.print(leases, "nothing is leased; dupip lease allocate --bridge rt0 --owner X gives an address")?;
        Ok(Exit::Fine)
    }
}

/// Shows one lease, as the answer to a change.
pub(super) fn tell(lease: &Lease, format: &Format) -> Result<(), Failure> {
    print(match format.output {
        Output::Json => json(lease)?,
        _ => show(std::slice::from_ref(lease), format.look()),
    })
}

const LEASE: &[Column<Lease>] = &[
    Column::text("BRIDGE", |lease| domain(&lease.bridge, lease.vlan)),
    Column::address("ADDRESS", |lease| lease.address.to_string()),
    Column::text("OWNER", |lease| lease.owner.clone()),
    Column::wide(Column::text("INTERFACE", |lease| or_dash(lease.interface.as_ref()))),
    Column::text("GENERATION", |lease| lease.generation.to_string()),
    Column::word("STATE", |lease| lease.state.clone()),
    Column::wide(Column::address("REPLACES", |lease| or_dash(lease.replaces))),
];

pub(super) fn show(leases: &[Lease], look: Look) -> String {
    columns(LEASE, leases, look)
}

impl Listed for Standing {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("BRIDGE", |row| domain(&row.lease.bridge, row.lease.vlan)),
        Column::address("ADDRESS", |row| row.lease.address.to_string()),
        Column::text("OWNER", |row| row.lease.owner.clone()),
        Column::wide(Column::text("INTERFACE", |row| or_dash(row.lease.interface.as_ref()))),
        Column::text("GENERATION", |row| row.lease.generation.to_string()),
        Column::word("STATE", |row| row.lease.state.clone()),
        Column::wide(Column::text("SINCE", |row| span(row.since_ms))),
        Column::text("LEFT", |row| or_dash(row.left_ms.map(span))),
        Column::wide(Column::address("REPLACES", |row| or_dash(row.lease.replaces))),
        Column::wide(Column::text("REASON", |row| or_dash(row.reason.as_ref()))),
    ];
}

/// A length of time, to the second.
fn span(millis: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(Span::from_millis(millis).as_nanos() / 1_000_000_000))
        .to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;
    use crate::cli::render::golden::forms;

    fn lease(owner: &str, generation: u64, state: &str) -> Lease {
        Lease {
            bridge: "rt0".to_owned(),
            vlan: None,
            address: [10, 8, 64, 2].into(),
            owner: owner.to_owned(),
            interface: None,
            generation,
            state: state.to_owned(),
            replaces: None,
        }
    }

    #[test]
    fn a_lease_is_one_line() {
        let moving = Lease {
            vlan: Some(7),
            address: [10, 8, 64, 14].into(),
            interface: Some("eth0".to_owned()),
            replaces: Some([10, 8, 64, 2].into()),
            ..lease("sportsagent", 10, "reserved")
        };
        let leases = [lease("reviewagent", 9, "bound"), moving];
        let want = "\
BRIDGE  ADDRESS     OWNER        GENERATION  STATE
rt0     10.8.64.2   reviewagent  9           bound
rt0.7   10.8.64.14  sportsagent  10          reserved
";
        assert_eq!(show(&leases, Look::piped(Output::Table)), want);
        assert!(
            show(&leases, Look::piped(Output::Wide))
                .ends_with("sportsagent  eth0       10          reserved  10.8.64.2\n")
        );
    }

    #[test]
    fn what_ends_by_itself_says_when() {
        let row = |lease, left_ms, reason: Option<&str>| Standing {
            lease,
            since_ms: 61_900,
            left_ms,
            mac: None,
            reason: reason.map(str::to_owned),
        };
        let rows = [
            row(lease("reviewagent", 9, "bound"), None, None),
            row(lease("sportsagent", 10, "quarantined"), Some(599_000), Some("02:00:00:00:00:01 answered a probe")),
        ];
        expect_file!["../golden/lease-list.txt"].assert_eq(&forms(&rows));
    }
}

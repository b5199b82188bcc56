//! `dupip lease list`.

use std::path::PathBuf;

use super::Place;
use crate::{
    cli::{
        exit::{Exit, Failure},
        render::{Column, Format, Output, columns, domain, json, or_dash, print},
    },
    http::api::{Lease, Standing},
    time::Span,
};

const EXAMPLES: &str = "\
Examples:
  dupip lease list
  dupip lease list -o wide      also for how long, for which interface, and what is in the way
  dupip lease list -o json
  dupip lease list --offline --database /var/lib/dupip/leases.db";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let leases = self.place.book(socket, false)?.leases()?;
        print(match self.format.output {
            Output::Json => json(&leases)?,
            output => standings(&leases, output),
        })?;
        Ok(Exit::Fine)
    }
}

/// Shows one lease, as the answer to a change.
pub(super) fn tell(lease: &Lease, output: Output) -> Result<(), Failure> {
    print(match output {
        Output::Json => json(lease)?,
        output => show(std::slice::from_ref(lease), output),
    })
}

pub(super) fn show(leases: &[Lease], output: Output) -> String {
    let all: [Column<'_, Lease>; 7] = [
        ("BRIDGE", false, &|lease| domain(&lease.bridge, lease.vlan)),
        ("ADDRESS", false, &|lease| lease.address.to_string()),
        ("OWNER", false, &|lease| lease.owner.clone()),
        ("INTERFACE", true, &|lease| or_dash(lease.interface.as_ref())),
        ("GENERATION", false, &|lease| lease.generation.to_string()),
        ("STATE", false, &|lease| lease.state.clone()),
        ("REPLACES", true, &|lease| or_dash(lease.replaces)),
    ];
    columns(&all, leases, output == Output::Wide)
}

fn standings(rows: &[Standing], output: Output) -> String {
    let all: [Column<'_, Standing>; 10] = [
        ("BRIDGE", false, &|row| domain(&row.lease.bridge, row.lease.vlan)),
        ("ADDRESS", false, &|row| row.lease.address.to_string()),
        ("OWNER", false, &|row| row.lease.owner.clone()),
        ("INTERFACE", true, &|row| or_dash(row.lease.interface.as_ref())),
        ("GENERATION", false, &|row| row.lease.generation.to_string()),
        ("STATE", false, &|row| row.lease.state.clone()),
        ("SINCE", true, &|row| span(row.since_ms)),
        ("LEFT", false, &|row| or_dash(row.left_ms.map(span))),
        ("REPLACES", true, &|row| or_dash(row.lease.replaces)),
        ("REASON", true, &|row| or_dash(row.reason.as_ref())),
    ];
    columns(&all, rows, output == Output::Wide)
}

/// A length of time, to the second.
fn span(millis: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(Span::from_millis(millis).as_nanos() / 1_000_000_000))
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(show(&leases, Output::Table), want);
        assert!(show(&leases, Output::Wide).ends_with("sportsagent  eth0       10          reserved  10.8.64.2\n"));
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
        let want = "\
BRIDGE  ADDRESS    OWNER        GENERATION  STATE        LEFT
rt0     10.8.64.2  reviewagent  9           bound        -
rt0     10.8.64.2  sportsagent  10          quarantined  9m 59s
";
        assert_eq!(standings(&rows, Output::Table), want);
        let wide = standings(&rows, Output::Wide);
        assert!(wide.contains("1m 1s") && wide.contains("02:00:00:00:00:01 answered a probe"), "{wide}");
    }
}

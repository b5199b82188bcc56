//! `dupip quarantine`: whose claims are dropped, and letting somebody go.

use std::{net::Ipv4Addr, path::Path, slice::from_ref};

use clap::Subcommand;

use super::{
    ask,
    exit::{Exit, Failure, note},
    lease::vlan,
    render::{Column, Format, List as Listing, Listed, Output, columns, domain, json, or_dash, print},
    small_runtime,
};
use crate::{
    http::{
        Client,
        api::{Lift as Request, Quarantined},
    },
    net::{IfName, VlanId},
};

const EXAMPLES: &str = "\
Examples:
  dupip quarantine list
  dupip quarantine lift veth02 10.8.64.2

What is in quarantine at a port is dropped there: whatever says in ARP that it has the address, and
IPv4 packets from it. Everything else that the port says goes on. A loser is in quarantine while it
is moved or replaced, or as long as its incident is open if that is all that is done.";

/// Show whose claims are dropped, and let somebody go
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what is dropped: at which port, of whom, for which incident, and how many frames by now
    List(List),
    /// Let a port claim an address again
    Lift(Lift),
}

const LIST_EXAMPLES: &str = "\
Examples:
  dupip quarantine list
  dupip quarantine list --filter port=veth02 --sort -dropped
  dupip quarantine list -o json | jq '.[] | select(.dropped > 1000)'";

#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
struct List {
    #[command(flatten)]
    list: Listing<Quarantined>,
}

const LIFT_EXAMPLES: &str = "\
Examples:
  dupip quarantine lift veth02 10.8.64.2
  dupip quarantine lift veth02 10.8.64.2 --vlan 12

The address has two speakers again then, and its incident stays open: it is not contained anew before
that has ended. If the port should never be touched, run the agent with --protect-port. Needs root, or
group dupip. Exit code 1 if the address is not in quarantine there.";

#[derive(Debug, clap::Args)]
#[command(after_help = LIFT_EXAMPLES)]
struct Lift {
    /// The bridge port's interface name
    port: IfName,
    /// The address that it may claim again
    address: Ipv4Addr,
    /// The VLAN that it is in quarantine in, if there is more than one
    #[arg(long, value_name = "ID", value_parser = vlan)]
    vlan: Option<VlanId>,
    #[command(flatten)]
    format: Format,
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        match self.verb {
            Verb::List(list) => {
                let contained: Vec<Quarantined> = ask(&Client::new(socket), "/api/v1/quarantine")?;
                list.list.print(contained, "nothing is in quarantine")?;
            }
            Verb::Lift(lift) => lift.run(socket)?,
        }
        Ok(Exit::Fine)
    }
}

impl Lift {
    fn run(self, socket: &Path) -> Result<(), Failure> {
        let Self { port, address, vlan, format } = self;
        let request = Request { port: port.to_string(), address, vlan: vlan.map(VlanId::get) };
        let change = async { Client::new(socket).change("/api/v1/quarantine/lift", &request).await };
        let lifted: Quarantined = small_runtime()?.block_on(change)?;
        note(format_args!("{port} may claim {address} again{}", outlook(&lifted)));
        print(match format.output {
            Output::Json => json(&from_ref(&lifted))?,
            _ => columns(Quarantined::COLUMNS, from_ref(&lifted), format.look()),
        })
    }
}

fn outlook(lifted: &Quarantined) -> String {
    let of = |id| format!(", and is not contained anew while incident {id} is open");
    lifted.incident.map(of).unwrap_or_default()
}

impl Listed for Quarantined {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("PORT", |of| of.port.clone()),
        Column::wide(Column::text("IFINDEX", |of| of.ifindex.to_string())),
        Column::text("SANDBOX", |of| or_dash(of.sandbox.as_ref())),
        Column::address("ADDRESS", |of| of.address.to_string()),
        Column::text("ON", |of| domain(&of.bridge, of.vlan)),
        Column::text("INCIDENT", |of| or_dash(of.incident)),
        Column::age("SINCE", |of| or_dash(of.since.as_ref())),
        Column::text("DROPPED", |of| or_dash(of.dropped)),
    ];
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::cli::render::golden::forms;

    fn contained() -> Value {
        json!([
            {"bridge": "rt0", "vlan": null, "address": "10.8.64.2", "port": "veth02", "ifindex": 9, "sandbox": "reviewagent",
             "incident": 3, "since": "2026-06-12T09:00:00.123Z", "dropped": 17},
            {"bridge": "rt0", "vlan": 12, "address": "10.8.64.3", "port": "veth03", "ifindex": 11, "sandbox": null,
             "incident": null, "since": null, "dropped": null},
        ])
    }

    #[test]
    fn a_person_sees_who_may_not_say_what() {
        let rows: Vec<Quarantined> = from_value(contained()).unwrap();
        expect_file!["golden/quarantine.txt"].assert_eq(&forms(&rows));
    }

    #[test]
    fn whoever_is_let_go_for_an_incident_is_let_go_until_it_ends() {
        let of = |at: usize| outlook(&from_value(contained()[at].clone()).unwrap());
        assert_eq!([of(0), of(1)], [", and is not contained anew while incident 3 is open".to_owned(), String::new()]);
    }
}

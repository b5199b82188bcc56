//! `dupip quarantine`: whose claims are dropped, and letting somebody go.

use std::{net::Ipv4Addr, path::Path, slice::from_ref, time::SystemTime};

use clap::Subcommand;

use super::{
    ask,
    exit::{Exit, Failure, note},
    lease::vlan,
    render::{Column, Format, Output, ago, columns, domain, json, or_dash, print},
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
  dupip quarantine list -o json | jq '.[] | select(.dropped > 1000)'";

#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
struct List {
    #[command(flatten)]
    format: Format,
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
                print(show(&contained, list.format.output, SystemTime::now())?)?;
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
        print(show(from_ref(&lifted), format.output, SystemTime::now())?)
    }
}

fn outlook(lifted: &Quarantined) -> String {
    let of = |id| format!(", and is not contained anew while incident {id} is open");
    lifted.incident.map(of).unwrap_or_default()
}

fn show(contained: &[Quarantined], output: Output, now: SystemTime) -> Result<String, Failure> {
    let all: [Column<'_, Quarantined>; 9] = [
        ("PORT", false, &|of| of.port.clone()),
        ("IFINDEX", true, &|of| of.ifindex.to_string()),
        ("SANDBOX", false, &|of| or_dash(of.sandbox.as_ref())),
        ("ADDRESS", false, &|of| of.address.to_string()),
        ("ON", false, &|of| domain(&of.bridge, of.vlan)),
        ("INCIDENT", false, &|of| or_dash(of.incident)),
        ("SINCE", false, &|of| or_dash(of.since.as_ref().map(|since| ago(since, now)))),
        ("AT", true, &|of| or_dash(of.since.as_ref())),
        ("DROPPED", false, &|of| or_dash(of.dropped)),
    ];
    match output {
        Output::Json => json(&contained),
        _ if contained.is_empty() => Ok("nothing is in quarantine\n".to_owned()),
        output => Ok(columns(&all, contained, output == Output::Wide)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_str, from_value, json};

    use super::*;

    fn contained() -> Value {
        json!([
            {"bridge": "rt0", "vlan": null, "address": "10.8.64.2", "port": "veth02", "ifindex": 9, "sandbox": "reviewagent",
             "incident": 3, "since": "2026-06-12T09:00:00.123Z", "dropped": 17},
            {"bridge": "rt0", "vlan": 12, "address": "10.8.64.3", "port": "veth03", "ifindex": 11, "sandbox": null,
             "incident": null, "since": null, "dropped": null},
        ])
    }

    fn shown(contained: Value, output: Output) -> String {
        let now = humantime::parse_rfc3339("2026-06-12T09:05:00Z").unwrap();
        show(&from_value::<Vec<_>>(contained).unwrap(), output, now).unwrap()
    }

    #[test]
    fn a_person_sees_who_may_not_say_what() {
        let want = "\
PORT    SANDBOX      ADDRESS    ON      INCIDENT  SINCE   DROPPED
veth02  reviewagent  10.8.64.2  rt0     3         4m ago  17
veth03  -            10.8.64.3  rt0.12  -         -       -
";
        assert_eq!(shown(contained(), Output::Table), want);
        assert_eq!(shown(json!([]), Output::Table), "nothing is in quarantine\n");
        let wide = shown(contained(), Output::Wide);
        assert!(wide.lines().nth(1).unwrap().contains("  9        reviewagent"), "{wide}");
        assert!(wide.contains("2026-06-12T09:00:00.123Z"), "{wide}");
    }

    #[test]
    fn json_is_what_the_agent_says() {
        assert_eq!(from_str::<Value>(&shown(contained(), Output::Json)).unwrap(), contained());
        assert_eq!(shown(json!([]), Output::Json), "[]\n");
    }

    #[test]
    fn whoever_is_let_go_for_an_incident_is_let_go_until_it_ends() {
        let of = |at: usize| outlook(&from_value(contained()[at].clone()).unwrap());
        assert_eq!([of(0), of(1)], [", and is not contained anew while incident 3 is open".to_owned(), String::new()]);
    }
}

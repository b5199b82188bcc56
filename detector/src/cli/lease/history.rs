//! `dupip lease history`.

use std::{net::Ipv4Addr, path::PathBuf};

use super::{Place, place::vlan};
use crate::{
    cli::{
        exit::{Exit, Failure, note},
        render::{Column, Format, Output, columns, domain, json, or_dash, print},
    },
    http::api::JournalEntry,
    net::{BridgeName, Domain, VlanId},
};

const EXAMPLES: &str = "\
Examples:
  dupip lease history 10.8.64.2
  dupip lease history 10.8.64.2 --bridge rt0 -o wide
  dupip lease history 10.8.64.2 -o json | jq -r '.[].actor'

A line whose TO is `-` is a change that came too late and was not made. The journal keeps
the newest hundred thousand changes.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The address
    address: Ipv4Addr,
    /// Only on this bridge
    #[arg(long, value_name = "NAME")]
    bridge: Option<BridgeName>,
    /// On this VLAN of the bridge, if it is not what goes untagged
    #[arg(long, value_name = "ID", value_parser = vlan, requires = "bridge")]
    vlan: Option<VlanId>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let domain = self.bridge.map(|bridge| Domain { bridge, vlan: self.vlan });
        let entries = self.place.book(socket, false)?.history(domain, self.address)?;
        print(match self.format.output {
            Output::Json => json(&entries)?,
            output => show(&entries, output),
        })?;
        if entries.is_empty() {
            note(format_args!("nothing was ever done to {}", self.address));
        }
        Ok(Exit::Fine)
    }
}

fn show(entries: &[JournalEntry], output: Output) -> String {
    let on = |entry: &JournalEntry| entry.bridge.as_ref().map(|bridge| domain(bridge, entry.vlan));
    let all: [Column<'_, JournalEntry>; 11] = [
        ("ENTRY", true, &|entry| entry.number.to_string()),
        ("TIME", false, &|entry| entry.time.clone()),
        ("BRIDGE", false, &|entry| or_dash(on(entry))),
        ("OP", false, &|entry| entry.op.clone()),
        ("OWNER", false, &|entry| or_dash(entry.owner.as_ref())),
        ("INTERFACE", true, &|entry| or_dash(entry.interface.as_ref())),
        ("GENERATION", false, &|entry| or_dash(entry.generation)),
        ("FROM", false, &|entry| entry.from.clone().unwrap_or_else(|| "free".to_owned())),
        ("TO", false, &|entry| or_dash(entry.to.as_ref())),
        ("ACTOR", true, &|entry| entry.actor.clone()),
        ("REASON", false, &|entry| entry.reason.clone()),
    ];
    columns(&all, entries, output == Output::Wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line() {
        let entry = JournalEntry {
            number: 7,
            time: "2026-01-02T03:04:05.678Z".to_owned(),
            boot: "b".to_owned(),
            boot_ms: 1,
            actor: "dupip for uid 0, pid 9".to_owned(),
            op: "release".to_owned(),
            bridge: Some("rt0".to_owned()),
            vlan: None,
            address: Some([10, 8, 64, 2].into()),
            owner: Some("sportsagent".to_owned()),
            interface: None,
            generation: Some(3),
            from: Some("bound".to_owned()),
            to: None,
            reason: "the address has another lease".to_owned(),
        };
        let want = "\
TIME                      BRIDGE  OP       OWNER        GENERATION  FROM   TO  REASON
2026-01-02T03:04:05.678Z  rt0     release  sportsagent  3           bound  -   the address has another lease
";
        assert_eq!(show(std::slice::from_ref(&entry), Output::Table), want);
        assert!(show(&[entry], Output::Wide).contains("dupip for uid 0, pid 9"));
    }
}

//! `dupip lease history`.

use std::{net::Ipv4Addr, path::PathBuf};

use super::{Place, place::vlan};
use crate::{
    cli::{
        exit::{Exit, Failure},
        render::{Column, List, Listed, domain, or_dash},
    },
    http::api::JournalEntry,
    net::{BridgeName, Domain, VlanId},
};

const EXAMPLES: &str = "\
Examples:
  dupip lease history 10.8.64.2
  dupip lease history 10.8.64.2 --bridge rt0 -o wide
  dupip lease history 10.8.64.2 --filter owner=sportsagent --sort -time
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
    list: List<JournalEntry>,
    #[command(flatten)]
    place: Place,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let domain = self.bridge.map(|bridge| Domain { bridge, vlan: self.vlan });
        let entries = self.place.book(socket, false)?.history(domain, self.address)?;
        self.list.print(entries, &format!("nothing was ever done to {}", self.address))?;
        Ok(Exit::Fine)
    }
}

impl Listed for JournalEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::wide(Column::text("ENTRY", |entry| entry.number.to_string())),
        Column::text("TIME", |entry| entry.time.clone()),
        Column::text("BRIDGE", |entry| or_dash(entry.bridge.as_ref().map(|bridge| domain(bridge, entry.vlan)))),
        Column::text("OP", |entry| entry.op.clone()),
        Column::text("OWNER", |entry| or_dash(entry.owner.as_ref())),
        Column::wide(Column::text("INTERFACE", |entry| or_dash(entry.interface.as_ref()))),
        Column::text("GENERATION", |entry| or_dash(entry.generation)),
        Column::text("FROM", |entry| entry.from.clone().unwrap_or_else(|| "free".to_owned())),
        Column::text("TO", |entry| or_dash(entry.to.as_ref())),
        Column::wide(Column::text("ACTOR", |entry| entry.actor.clone())),
        Column::text("REASON", |entry| entry.reason.clone()),
    ];
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;
    use crate::cli::render::golden::forms;

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
        expect_file!["../golden/lease-history.txt"].assert_eq(&forms(&[entry]));
    }
}

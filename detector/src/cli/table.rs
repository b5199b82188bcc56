//! `dupip table`: who has which address.

use std::path::Path;

use super::{
    ask,
    exit::{self, Exit, Failure},
    render::{Column, List, Listed, domain, or_dash},
    watch,
};
use crate::http::{
    Client,
    api::{Holding, Row},
};

const EXAMPLES: &str = "\
Examples:
  dupip table
  dupip table -o wide
  dupip table --watch                                    live, full screen, duplicates first; q ends it
  dupip table --filter state=duplicate --sort last-seen
  dupip table --filter address=10.8.64.0/28 --filter sandbox~agent
  dupip table -o csv --no-header > table.csv
  dupip table -o json | jq '.[] | select(.state == \"duplicate\")'

A duplicate address has one row for each station that uses it.
STATE is ok, duplicate or martian. REACH (wide) says how far dupip sees behind the port: into its
network namespace (netns, or netns_by_id if it can only be asked about), or not at all (tap, local,
other, closed and why); who is not seen is known by what it says on the wire.";

/// Show the live table: who has which address
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Show it live, on the whole terminal: duplicates first, with open incidents above; ? shows the keys
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    list: List<Row>,
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        if self.watch {
            return watch::watch(socket, &self.list);
        }
        let rows: Vec<Row> = ask(&Client::new(socket), "/api/v1/table")?;
        if rows.iter().any(|row| !row.lease_known) {
            exit::note(
                "the agent cannot read the lease database, so who holds which address is not known (LEASE is ?)",
            );
        }
        self.list.print(rows, "no address is in use yet; dupip doctor says what the agent can see")?;
        Ok(Exit::Fine)
    }
}

impl Listed for Row {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("BRIDGE", |row| domain(&row.bridge, row.vlan)),
        Column::address("ADDRESS", |row| row.address.to_string()),
        Column::text("MAC", |row| row.mac.clone()),
        Column::text("PORT", |row| row.port.clone()),
        Column::wide(Column::text("IFINDEX", |row| row.ifindex.to_string())),
        Column::text("SANDBOX", sandbox),
        Column::text("NETNS", |row| or_dash(row.netns)),
        Column::wide(Column::text("REACH", |row| or_dash(row.reach.as_ref()))),
        Column::text("LEASE", holder),
        Column::wide(Column::text("GENERATION", |row| or_dash(row.lease.as_ref().map(|lease| lease.generation)))),
        Column::wide(Column::text("EVIDENCE", |row| row.evidence.clone())),
        Column::wide(Column::text("HITS", |row| row.hits.to_string())),
        Column::wide(Column::text("FIRST SEEN", |row| row.first_seen.clone())),
        Column::age("LAST SEEN", |row| row.last_seen.clone()),
        Column::word("STATE", |row| row.state.clone()),
    ];
}

fn sandbox(row: &Row) -> String {
    match (row.host, row.external) {
        (true, _) => "(the host)".to_owned(),
        (false, true) => "(outside)".to_owned(),
        (false, false) => or_dash(row.sandbox.as_ref()),
    }
}

/// Who holds the address, as far as that can be known.
fn holder(row: &Row) -> String {
    if row.lease_known { or_dash(row.lease.as_ref().map(lease)) } else { "?".to_owned() }
}

/// The owner; with the lease's state if it is not the usual one.
fn lease(lease: &Holding) -> String {
    match lease.state.as_str() {
        "bound" => lease.owner.clone(),
        state => format!("{} ({state})", lease.owner),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use expect_test::expect_file;
    use serde_json::{Value, from_str, json, to_value};

    use super::*;
    use crate::cli::render::{golden::forms, json as json_text};

    pub(in crate::cli) fn rows() -> Vec<Row> {
        let host = Row {
            bridge: "rt0".to_owned(),
            vlan: None,
            address: [10, 8, 64, 1].into(),
            mac: "02:00:00:00:00:01".to_owned(),
            port: "rt0".to_owned(),
            ifindex: 3,
            netns: None,
            sandbox: None,
            host: true,
            external: false,
            reach: None,
            first_seen: "2026-06-12T09:00:00.000Z".to_owned(),
            last_seen: "2026-06-12T09:59:48.250Z".to_owned(),
            evidence: "configured".to_owned(),
            hits: 0,
            state: "ok".to_owned(),
            lease: None,
            lease_known: true,
        };
        let holder = Row {
            address: [10, 8, 64, 2].into(),
            mac: "ee:45:b1:fe:2d:db".to_owned(),
            port: "veth3f2a91c0".to_owned(),
            ifindex: 7,
            netns: Some(4_026_532_301),
            sandbox: Some("reviewagent".to_owned()),
            host: false,
            reach: Some("netns".to_owned()),
            evidence: "reply".to_owned(),
            hits: 12,
            state: "duplicate".to_owned(),
            lease: Some(Holding { owner: "reviewagent".to_owned(), generation: 9, state: "bound".to_owned() }),
            ..host.clone()
        };
        let unknown = Row {
            vlan: Some(12),
            port: "tap0".to_owned(),
            netns: None,
            reach: Some("tap".to_owned()),
            sandbox: None,
            lease: Some(Holding { owner: "vm-1".to_owned(), generation: 10, state: "reserved".to_owned() }),
            ..holder.clone()
        };
        let outside = Row { port: "eth1".to_owned(), external: true, lease: None, ..unknown.clone() };
        vec![host, holder, unknown, outside]
    }

    #[test]
    fn a_person_sees_who_has_what() {
        expect_file!["golden/table.txt"].assert_eq(&forms(&rows()));
    }

    #[test]
    fn a_lease_that_is_not_known_is_not_shown_as_none() {
        let mut row = rows().remove(0);
        row.lease_known = false;
        assert_eq!((holder(&row), holder(&rows()[0])), ("?".to_owned(), "-".to_owned()));
    }

    #[test]
    fn json_is_a_contract() {
        let value: Value = from_str(&json_text(&rows()).unwrap()).unwrap();
        let want = json!({
            "bridge": "rt0", "vlan": null, "address": "10.8.64.2", "mac": "ee:45:b1:fe:2d:db", "port": "veth3f2a91c0",
            "ifindex": 7, "netns": 4_026_532_301_u64, "sandbox": "reviewagent", "host": false,
            "external": false, "reach": "netns", "hits": 12, "first_seen": "2026-06-12T09:00:00.000Z", "last_seen": "2026-06-12T09:59:48.250Z", "evidence": "reply",
            "state": "duplicate", "lease": {"owner": "reviewagent", "generation": 9, "state": "bound"}, "lease_known": true
        });
        assert_eq!(value[1], want);
        assert_eq!((&value[0]["lease"], &value[2]["vlan"]), (&Value::Null, &json!(12)));
        assert_eq!(to_value(rows()).unwrap(), value, "as the agent says it");
        assert_eq!(json_text(&Vec::<Row>::new()).unwrap(), "[]\n");
    }
}

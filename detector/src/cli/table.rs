//! `dupip table`: who has which address.

use std::{path::Path, time::SystemTime};

use super::{
    ask,
    exit::{self, Exit, Failure},
    render::{Column, Format, Output, ago, columns, domain, json, or_dash, print},
};
use crate::http::{
    Client,
    api::{Holding, Row},
};

const EXAMPLES: &str = "\
Examples:
  dupip table
  dupip table -o wide
  dupip table -o json | jq '.[] | select(.state == \"duplicate\")'

A duplicate address has one row for each station that uses it.
STATE is ok, duplicate or martian. REACH (wide) says how far dupip sees behind the port: into its
network namespace (netns, or netns_by_id if it can only be asked about), or not at all (tap, local,
other, closed and why); who is not seen is known by what it says on the wire.";

/// Show the live table: who has which address
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    format: Format,
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        let rows: Vec<Row> = ask(&Client::new(socket), "/api/v1/table")?;
        if rows.iter().any(|row| !row.lease_known) {
            exit::note(
                "the agent cannot read the lease database, so who holds which address is not known (LEASE is ?)",
            );
        }
        print(show(&rows, self.format.output, SystemTime::now())?)?;
        Ok(Exit::Fine)
    }
}

pub(super) fn show(rows: &[Row], output: Output, now: SystemTime) -> Result<String, Failure> {
    let all: [Column<'_, Row>; 15] = [
        ("BRIDGE", false, &|row| domain(&row.bridge, row.vlan)),
        ("ADDRESS", false, &|row| row.address.to_string()),
        ("MAC", false, &|row| row.mac.clone()),
        ("PORT", false, &|row| row.port.clone()),
        ("IFINDEX", true, &|row| row.ifindex.to_string()),
        ("SANDBOX", false, &sandbox),
        ("NETNS", false, &|row| or_dash(row.netns)),
        ("REACH", true, &|row| or_dash(row.reach.as_ref())),
        ("LEASE", false, &|row| holder(row)),
        ("GENERATION", true, &|row| or_dash(row.lease.as_ref().map(|lease| lease.generation))),
        ("EVIDENCE", true, &|row| row.evidence.clone()),
        ("HITS", true, &|row| row.hits.to_string()),
        ("FIRST SEEN", true, &|row| row.first_seen.clone()),
        ("LAST SEEN", false, &|row| ago(&row.last_seen, now)),
        ("STATE", false, &|row| row.state.clone()),
    ];
    match output {
        Output::Json => json(&rows),
        _ => Ok(columns(&all, rows, output == Output::Wide)),
    }
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
mod tests {
    use serde_json::{Value, from_str, json, to_value};

    use super::*;

    fn rows() -> Vec<Row> {
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

    fn shown(output: Output) -> String {
        show(&rows(), output, humantime::parse_rfc3339("2026-06-12T10:00:00Z").unwrap()).unwrap()
    }

    #[test]
    fn a_person_sees_who_has_what() {
        let want = "\
BRIDGE  ADDRESS    MAC                PORT          SANDBOX      NETNS       LEASE            LAST SEEN  STATE
rt0     10.8.64.1  02:00:00:00:00:01  rt0           (the host)   -           -                11s ago    ok
rt0     10.8.64.2  ee:45:b1:fe:2d:db  veth3f2a91c0  reviewagent  4026532301  reviewagent      11s ago    duplicate
rt0.12  10.8.64.2  ee:45:b1:fe:2d:db  tap0          -            -           vm-1 (reserved)  11s ago    duplicate
rt0.12  10.8.64.2  ee:45:b1:fe:2d:db  eth1          (outside)    -           -                11s ago    duplicate
";
        assert_eq!(shown(Output::Table), want);
    }

    #[test]
    fn a_lease_that_is_not_known_is_not_shown_as_none() {
        let mut rows = rows();
        rows.truncate(1);
        rows[0].lease_known = false;
        let shown = show(&rows, Output::Table, humantime::parse_rfc3339("2026-06-12T10:00:00Z").unwrap()).unwrap();
        let cells: Vec<_> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells[6..8], ["-", "?"], "{shown}");
    }

    #[test]
    fn wide_has_every_column() {
        let wide = shown(Output::Wide);
        let lines: Vec<Vec<&str>> = wide
            .lines()
            .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
            .collect();
        assert_eq!(
            lines[0],
            [
                "BRIDGE",
                "ADDRESS",
                "MAC",
                "PORT",
                "IFINDEX",
                "SANDBOX",
                "NETNS",
                "REACH",
                "LEASE",
                "GENERATION",
                "EVIDENCE",
                "HITS",
                "FIRST SEEN",
                "LAST SEEN",
                "STATE"
            ]
        );
        assert_eq!(
            lines[2][4..],
            [
                "7",
                "reviewagent",
                "4026532301",
                "netns",
                "reviewagent",
                "9",
                "reply",
                "12",
                "2026-06-12T09:00:00.000Z",
                "11s ago",
                "duplicate"
            ]
        );
    }

    #[test]
    fn json_is_a_contract() {
        let value: Value = from_str(&shown(Output::Json)).unwrap();
        let want = json!({
            "bridge": "rt0", "vlan": null, "address": "10.8.64.2", "mac": "ee:45:b1:fe:2d:db", "port": "veth3f2a91c0",
            "ifindex": 7, "netns": 4_026_532_301_u64, "sandbox": "reviewagent", "host": false,
            "external": false, "reach": "netns", "hits": 12, "first_seen": "2026-06-12T09:00:00.000Z", "last_seen": "2026-06-12T09:59:48.250Z", "evidence": "reply",
            "state": "duplicate", "lease": {"owner": "reviewagent", "generation": 9, "state": "bound"}, "lease_known": true
        });
        assert_eq!(value[1], want);
        assert_eq!((&value[0]["lease"], &value[2]["vlan"]), (&Value::Null, &json!(12)));
        assert_eq!(to_value(rows()).unwrap(), value, "as the agent says it");
        assert_eq!(show(&[], Output::Json, SystemTime::UNIX_EPOCH).unwrap(), "[]\n");
    }
}

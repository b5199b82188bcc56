//! `dupip scan`: who has which address now, without an agent.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

use super::{
    conflicts, events,
    exit::{Exit, Failure},
    policy::PolicyArgs,
    render::{List, Look, Output, json, plain, print},
    run::span,
};
use crate::{
    agent::{self, TableRow},
    allocator::{DATABASE, OpenError, Refusal, read_leases},
    engine::{Finding, RowState},
    http::{
        Wall,
        api::{Event, Incident, Row},
        incident, row, told,
    },
    net::{BridgeName, Lease},
    scan::{Gap, ScanError, Scanned, Settings, scan},
    telemetry::Telemetry,
    time::Span,
};

const EXAMPLES: &str = "\
Examples:
  dupip scan                         every bridge
  dupip scan --bridge rt0 -o wide    one bridge, with all that is known
  dupip scan --filter state!=ok -o csv
  dupip scan --quiet                 for cron: says nothing unless something is wrong
  dupip scan -o json | jq '.incidents[].address'

dupip looks at every port and into every namespace behind one, and asks on the bridge, by ARP
probes, for every address that is configured, leased or known to the host, and for all of a
network of at most 1024 addresses. --filter and --sort are for the table only, which is all that -o csv
has: duplicates and martians are told whatever it leaves out. Nothing is changed. It works with and without an agent.

Exit codes: 0 nothing found, 1 a duplicate or a martian was found, 2 no such bridge, 4 not
permitted (it takes what `dupip run` takes, without CAP_BPF), 5 the kernel cannot do it.";

/// Look once and ask once who has which address, without an agent; find duplicates and martians
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A bridge to scan; may be given more than once [default: every bridge]
    #[arg(long = "bridge", value_name = "NAME", env = "DUPIP_BRIDGE", value_delimiter = ',')]
    bridges: Vec<BridgeName>,
    /// The lease database, which is only read [default: /var/lib/dupip/leases.db, if it is there]
    #[arg(long, value_name = "PATH", env = "DUPIP_DATABASE")]
    database: Option<PathBuf>,
    /// How long to ask at most
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span)]
    timeout: Span,
    /// Print only duplicates and martians
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    list: List<Row>,
}

/// What was found, as JSON.
#[derive(Debug, Serialize)]
struct Answer {
    rows: Vec<Row>,
    incidents: Vec<Incident>,
    findings: Vec<Event>,
    gaps: Vec<Gap>,
    /// Whether there may be a duplicate that was not found.
    incomplete: bool,
}

impl Args {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let leases = self.leases()?;
        let scanned = scan(Settings {
            bridges: self.bridges,
            policy: self.policy.policy()?,
            leases: leases.clone(),
            timeout: Duration::from(self.timeout),
        })?;
        let found = is_found(&scanned);
        let mut answer = Answer::of(scanned, &leases)?;
        answer.rows = self.list.pick(answer.rows);
        let look = self.list.look();
        print(match (self.list.output, self.quiet) {
            (Output::Json, _) => json(&answer)?,
            (Output::Csv, _) => self.list.text(&answer.rows, look)?,
            (_, true) => answer.quiet(look),
            (_, false) => answer.text(self.list.text(&answer.rows, look)?, look),
        })?;
        Ok(if found { Exit::No } else { Exit::Fine })
    }

    /// A database that nobody has named need not be there.
    fn leases(&self) -> Result<Vec<Lease>, Failure> {
        let database = self.database.clone().unwrap_or_else(|| DATABASE.into());
        match read_leases(&database) {
            Err(OpenError { reason: Refusal::Unreachable(error), .. })
                if self.database.is_none() && error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(Vec::new())
            }
            leases => Ok(leases?),
        }
    }
}

fn is_found(scanned: &Scanned) -> bool {
    let is_martian = |finding: &Finding| matches!(finding, Finding::Martian { .. } | Finding::KernelMartian { .. });
    let in_table = scanned.rows.iter().any(|row| row.state == RowState::Martian);
    in_table || !scanned.incidents.is_empty() || scanned.findings.iter().any(is_martian)
}

impl Answer {
    fn of(scanned: Scanned, leases: &[Lease]) -> Result<Self, Failure> {
        let Scanned { rows, incidents, findings, gaps } = scanned;
        let telemetry = Telemetry::new().map_err(|error| Failure::new(Exit::Bug, error))?;
        let (wall, now) = (Wall::read(), agent::clock::now());
        let events = findings.iter().filter_map(|finding| telemetry.event(finding));
        let lease = |row: &crate::engine::Row| {
            let is_its = |lease: &&Lease| (lease.domain, lease.address) == (row.domain, row.address);
            leases.iter().find(is_its).cloned()
        };
        Ok(Self {
            rows: rows
                .into_iter()
                .map(|of| row(&TableRow { lease: lease(&of), lease_is_known: true, row: of }, wall))
                .collect(),
            incidents: incidents.iter().map(|of| incident(of, wall)).collect(),
            findings: (1..).zip(events).map(|(seq, event)| told(&event, seq, now, wall)).collect(),
            incomplete: gaps.iter().any(|gap| gap.incomplete),
            gaps,
        })
    }

    /// Duplicates and martians, and nothing if there are none.
    fn quiet(&self, look: Look) -> String {
        let incidents = self.incidents.iter().map(|of| conflicts::tell(of, look));
        let martians = self.findings.iter().filter(|event| event.kind == "martian");
        incidents.chain(martians.map(|event| events::line(event, look))).collect()
    }

    fn text(&self, table: String, look: Look) -> String {
        let found = self.quiet(look);
        let gap = if found.is_empty() { "" } else { "\n" };
        let gaps: String = self.gaps.iter().map(not_seen).collect();
        let head = if gaps.is_empty() { "" } else { "\nNot seen:\n" };
        format!("{table}{gap}{found}{head}{gaps}\n{}\n", self.conclusion())
    }

    fn conclusion(&self) -> String {
        let open = self.incidents.iter().filter(|incident| incident.closed.is_none()).count();
        let martians = self.findings.iter().filter(|event| event.kind == "martian").count();
        let found = match (open, martians) {
            (0, 0) => "no duplicate and no martian was found".to_owned(),
            (duplicates, martians) => format!("duplicates: {duplicates}, martians: {martians}"),
        };
        let but = if self.incomplete { "; there may be more, as not all could be seen" } else { "" };
        found + but
    }
}

fn not_seen(gap: &Gap) -> String {
    let port = gap.port.as_ref().map(|port| format!(" {port}")).unwrap_or_default();
    plain(&format!("  {}{port}: {}", gap.bridge, gap.what)) + "\n"
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Netlink(error) => agent::Error::Netlink(error).into(),
            ScanError::Listen(error) => agent::Error::Capture(error).into(),
            ScanError::Send(error) => agent::Error::Send(error).into(),
            ScanError::Io(error) => Self::new(Exit::Unsupported, format_args!("cannot wait for answers: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;
    use serde_json::from_value;

    use super::*;

    fn gap(port: Option<&str>, what: &str, incomplete: bool) -> Gap {
        Gap { bridge: "rt0".to_owned(), port: port.map(str::to_owned), what: what.to_owned(), incomplete }
    }

    fn answer(incidents: Vec<Incident>, gaps: Vec<Gap>) -> Answer {
        let incomplete = gaps.iter().any(|gap| gap.incomplete);
        Answer { rows: Vec::new(), incidents, findings: Vec::new(), gaps, incomplete }
    }

    #[test]
    fn a_person_sees_what_was_found_and_what_was_not_seen() {
        let look = Look::piped(Output::Table);
        let found = answer(
            vec![from_value(conflicts::tests::open()).unwrap()],
            vec![gap(Some("veth0"), "its namespace is closed", true)],
        );
        let none = answer(Vec::new(), vec![gap(None, "the host has no address there, so nobody can be asked", false)]);
        let table = || "BRIDGE  ADDRESS\nrt0     10.8.64.2\n".to_owned();
        let shown = [
            ("found", found.text(table(), look)),
            ("found, quiet", found.quiet(look)),
            ("none", none.text(table(), look)),
            ("none, quiet", none.quiet(look)),
        ];
        let shown = shown.map(|(name, text)| format!("--- {name}\n{text}"));
        expect_file!["golden/scan.txt"].assert_eq(&shown.concat());
    }
}

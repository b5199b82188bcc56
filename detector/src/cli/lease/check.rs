//! `dupip lease check`.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::Place;
use crate::{
    allocator::SqliteStore,
    capture::Probing,
    cli::{
        exit::{self, Exit, Failure, note},
        render::{Column, List, Listed, Output, domain, json, or_dash, print},
        run::span,
        target::replaceable,
    },
    reconcile::{Looker, Observation, ObserveError, Report, Row, User},
    time::Span,
};

/// How bridges are asked: once more, and more patiently, than before an address is handed out.
pub(super) const PROBING: Probing = Probing { count: 3, interval: Duration::from_millis(50) };

const EXAMPLES: &str = "\
Examples:
  dupip lease check
  dupip lease check -o wide     also namespaces, ports and what shows an address in use
  dupip lease check --report report.json && dupip lease reclaim --from-report report.json
  dupip lease check --filter kind=draining -o csv
  dupip lease check --fail      exit code 1 if anything does not fit

What is listed:
  several_owners        more than one sandbox uses the address: one line for each
  used_by_another       held, but a sandbox of another name uses it
  in_use_without_lease  in use, and nobody holds it
  lease_without_user    held, and nothing uses it
  stale_reservation     reserved, and its time is over; or a move whose sandbox is gone
  draining              given back, and waiting for proof that nothing uses it any more

dupip reads the leases, then looks into every network namespace, into the agent's live table and
the host's neighbours, and asks on the bridges; and all that once more after --interval. Only a
lease that both looks prove unused is reclaimable. What could not be looked at is told as a gap,
and there nothing is. Nothing is changed.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// How long after the first look to look again
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = span)]
    interval: Span,
    /// Leases that changed more recently belong to sandboxes that may still be being made
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = span)]
    grace: Span,
    /// Write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Exit with code 1 if anything does not fit
    #[arg(long)]
    fail: bool,
    #[command(flatten)]
    list: List<Row>,
    #[command(flatten)]
    place: Place,
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        self.report.as_deref().map_or(Ok(()), replaceable)?;
        let database = self.place.path(socket)?;
        let report = self.observe(&self.place.store(socket, false)?, &database, socket)?;
        if let Some(path) = &self.report {
            report.write(path).map_err(|error| not_written(path, &error))?;
        }
        self.show(&report)?;
        Ok(if self.fail && !report.rows.is_empty() { Exit::No } else { Exit::Fine })
    }

    fn observe(&self, store: &SqliteStore, database: &Path, socket: &Path) -> Result<Report, Failure> {
        let looker = Looker::new(socket, PROBING);
        let first = Observation::take(store, &looker)?;
        if io::stderr().is_terminal() {
            note(format_args!("looked once; looking again in {}", self.interval));
        }
        thread::sleep(self.interval.into());
        let second = Observation::take(store, &looker)?;
        Report::of([&first, &second], database, self.grace)
            .map_err(|error| Failure::new(Exit::Unsupported, format_args!("cannot read which boot this is: {error}")))
    }

    fn show(&self, report: &Report) -> Result<(), Failure> {
        let rows = self.list.pick(report.rows.clone());
        if self.list.output == Output::Json {
            return print(json(&Report { rows, ..report.clone() })?);
        }
        print(self.list.text(&rows, self.list.look())?)?;
        self.list.tell_if_empty(rows.len(), report.rows.len(), "every lease fits what uses addresses");
        for gap in &report.gaps {
            note(format_args!("cannot look at {gap}"));
        }
        Ok(())
    }
}

impl Listed for Row {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("KIND", |row| row.kind.as_str().to_owned()),
        Column::text("BRIDGE", |row| domain(&row.bridge, row.vlan)),
        Column::address("ADDRESS", |row| row.address.to_string()),
        Column::text("OWNER", |row| or_dash(row.owner.as_ref())),
        Column::wide(Column::text("GENERATION", |row| or_dash(row.generation))),
        Column::word("STATE", |row| or_dash(row.state.as_ref())),
        Column::text("USED BY", |row| user(row, |user| Some(user.called()))),
        Column::wide(Column::text("NETNS", |row| user(row, |user| user.netns.map(|inode| inode.to_string())))),
        Column::wide(Column::text("PORT", |row| user(row, |user| user.port.clone()))),
        Column::text("MAC", |row| user(row, |user| user.mac.clone())),
        Column::wide(Column::text("EVIDENCE", |row| user(row, |user| Some(evidence(user))))),
        Column::text("HOLDS", |row| holds(row).to_owned()),
        Column::prose("RECLAIMABLE", reclaimable),
    ];
}

fn user(row: &Row, part: fn(&User) -> Option<String>) -> String {
    or_dash(row.user.as_ref().and_then(part))
}

fn reclaimable(row: &Row) -> String {
    if row.reclaimable { "yes".to_owned() } else { format!("no: {}", row.reason) }
}

fn holds(row: &Row) -> &'static str {
    match &row.user {
        None => "-",
        Some(_) if row.holds_lease => "yes",
        Some(_) => "no",
    }
}

fn evidence(user: &User) -> String {
    user.evidence.iter().map(|sense| sense.as_str()).collect::<Vec<_>>().join(",")
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    Failure::new(exit::of_io(error), format_args!("cannot write the report {}: {error}", path.display()))
}

impl From<ObserveError> for Failure {
    fn from(error: ObserveError) -> Self {
        match error {
            ObserveError::Store(error) => error.into(),
            ObserveError::Look(error) => Self::new(Exit::Unsupported, error).hint("sudo dupip …"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use expect_test::expect_file;

    use super::*;
    use crate::{
        cli::render::golden::forms,
        reconcile::{Kind, Sense},
    };

    /// One of each sort.
    pub(in crate::cli::lease) fn rows() -> Vec<Row> {
        let unused = Row {
            kind: Kind::LeaseWithoutUser,
            bridge: "rt0".to_owned(),
            vlan: None,
            address: [10, 8, 64, 7].into(),
            owner: Some("calagent".to_owned()),
            interface: Some("eth0".to_owned()),
            generation: Some(3),
            state: Some("bound".to_owned()),
            user: None,
            holds_lease: false,
            reclaimable: true,
            reason: "nothing uses it".to_owned(),
        };
        let user = User {
            name: Some("sportsagent".to_owned()),
            netns: Some(4_026_532_301),
            port: Some("veth3f2a91c0".to_owned()),
            mac: Some("ee:45:b1:fe:2d:db".to_owned()),
            host: false,
            known_as: ["sportsagent".to_owned()].into(),
            evidence: [Sense::Configured, Sense::Answered].into(),
        };
        let used = Row {
            kind: Kind::UsedByAnother,
            address: [10, 8, 64, 2].into(),
            owner: Some("reviewagent".to_owned()),
            user: Some(user.clone()),
            reclaimable: false,
            reason: "it is in use".to_owned(),
            ..unused.clone()
        };
        let free = Row {
            kind: Kind::InUseWithoutLease,
            vlan: Some(12),
            owner: None,
            interface: None,
            generation: None,
            state: None,
            user: Some(User { name: None, netns: None, ..user }),
            reason: "there is no lease".to_owned(),
            ..used.clone()
        };
        vec![unused, used, free]
    }

    #[test]
    fn a_person_sees_what_does_not_fit() {
        expect_file!["../golden/lease-check.txt"].assert_eq(&forms(&rows()));
    }
}

//! `dupip lease reclaim`.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Place, check::PROBING, place::actor};
use crate::{
    allocator::Store as _,
    cli::{
        exit::{Exit, Failure, note},
        render::{Column, Format, Output, columns, domain, json, or_dash, print},
        run::span,
    },
    reconcile::{InvalidReport, Looker, Outcome, Report, reclaim},
    time::Span,
};

const EXAMPLES: &str = "\
Examples:
  dupip lease check --report report.json
  dupip lease reclaim --from-report report.json --dry-run
  dupip lease reclaim --from-report report.json

Only rows that the report calls reclaimable are looked at, and each lease only if it is still the
one that is named: same address, owner, generation and state. Right before it is taken back, dupip
looks into every network namespace and asks three times on the bridge. Without proof that nothing
uses the address nothing is done. What is taken back rests for its pool's cooldown.

A report of another boot, about another database, or older than --max-age is refused.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What `dupip lease check --report` has written
    #[arg(long, value_name = "FILE")]
    from_report: PathBuf,
    /// Look, and say what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
    /// How old the report may be
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span)]
    max_age: Span,
    /// Leases that changed more recently are left alone
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = span)]
    grace: Span,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        let report = Report::read(&self.from_report)?;
        report.check(&self.place.path(socket)?, Duration::from(self.max_age))?;
        let store = self.place.store(socket, false)?.on_behalf_of(&format!("lease reclaim, {}", actor()));
        let looker = Looker::new(socket, PROBING);
        let tell = progress(report.rows.iter().filter(|row| row.reclaimable).count());
        let outcomes = reclaim(store.as_ref(), &looker, &report.rows, self.grace, self.dry_run, tell)?;
        print(match self.format.output {
            Output::Json => json(&outcomes)?,
            output => show(&outcomes, output),
        })?;
        if outcomes.is_empty() {
            note("the report has nothing that may be reclaimed");
        }
        Ok(Exit::Fine)
    }
}

/// Tells a person who waits how far it is, every two seconds: each row takes a look or two.
fn progress(all: usize) -> impl FnMut(usize) {
    let mut told = Instant::now();
    move |done| {
        if told.elapsed() > Duration::from_secs(2) && io::stderr().is_terminal() {
            told = Instant::now();
            note(format_args!("{done} of {all} leases are done"));
        }
    }
}

fn show(outcomes: &[Outcome], output: Output) -> String {
    let all: [Column<'_, Outcome>; 7] = [
        ("RESULT", false, &|of| of.deed.as_str().to_owned()),
        ("BRIDGE", false, &|of| domain(&of.row.bridge, of.row.vlan)),
        ("ADDRESS", false, &|of| of.row.address.to_string()),
        ("OWNER", false, &|of| or_dash(of.row.owner.as_ref())),
        ("INTERFACE", true, &|of| or_dash(of.row.interface.as_ref())),
        ("GENERATION", false, &|of| or_dash(of.row.generation)),
        ("REASON", false, &|of| of.reason.clone()),
    ];
    columns(&all, outcomes, output == Output::Wide)
}

impl From<InvalidReport> for Failure {
    fn from(error: InvalidReport) -> Self {
        let exit = match error {
            InvalidReport::Read { .. } | InvalidReport::TooLong(_) | InvalidReport::Garbled { .. } => Exit::Usage,
            _ => Exit::No,
        };
        Self::new(exit, error).hint("dupip lease check --report report.json")
    }
}

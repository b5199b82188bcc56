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
        render::{Column, List, Listed, domain, or_dash},
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
    list: List<Outcome>,
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
        self.list.print(outcomes, "the report has nothing that may be reclaimed")?;
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

impl Listed for Outcome {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("RESULT", |of| of.deed.as_str().to_owned()),
        Column::text("BRIDGE", |of| domain(&of.row.bridge, of.row.vlan)),
        Column::address("ADDRESS", |of| of.row.address.to_string()),
        Column::text("OWNER", |of| or_dash(of.row.owner.as_ref())),
        Column::wide(Column::text("INTERFACE", |of| or_dash(of.row.interface.as_ref()))),
        Column::text("GENERATION", |of| or_dash(of.row.generation)),
        Column::prose("REASON", |of| of.reason.clone()),
    ];
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

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;
    use crate::{
        cli::{lease::check::tests::rows, render::golden::forms},
        reconcile::Deed,
    };

    #[test]
    fn a_person_sees_what_became_of_each_lease() {
        let outcome =
            |(deed, row): (Deed, _)| Outcome { deed, reason: format!("because it is {}", deed.as_str()), row };
        let deeds = [Deed::WouldReclaim, Deed::Reclaimed, Deed::Drains, Deed::LeftAlone];
        let outcomes: Vec<Outcome> = deeds.into_iter().zip(rows()).map(outcome).collect();
        expect_file!["../golden/lease-reclaim.txt"].assert_eq(&forms(&outcomes));
    }
}

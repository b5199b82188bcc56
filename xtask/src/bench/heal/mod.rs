//! `cargo xtask bench heal`.

mod duplicates;

use anyhow::Result;

use super::{
    Bench,
    report::{Column, Line, Ratio, Section, Target, Unit, Wanted},
    samples::Samples,
};
use duplicates::Measured;

const DUPLICATES: usize = 250;
const DUPLICATES_QUICK: usize = 50;

/// What is to be reached by 99 of 100, in microseconds.
const NAMED: f64 = 1_000.0;
const CONTAINED: f64 = 2_000.0;
const HEALED: f64 = 100_000.0;

const COLUMNS: [Column; 3] = [
    Column { title: "P50", key: "p50_us", unit: Unit::Micros },
    Column { title: "P99", key: "p99_us", unit: Unit::Micros },
    Column { title: "MAX", key: "max_us", unit: Unit::Micros },
];

/// What one has to know to read the table.
const NOTES: &str = "\
Times are since the kernel saw the first contradicting frame. Below healed stand the steps, by when each was done; what the
loser says of the contested address is dropped from contain on. RATIO is of the medians, where the time goes.
";

/// Makes duplicates and has them healed.
///
/// # Errors
/// When the lab cannot be made, or a duplicate is not healed.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Section>> {
    let count = if bench.quick { DUPLICATES_QUICK } else { DUPLICATES };
    let measured = duplicates::measure(&bench.scratch, &bench.programs.dupip, count)?;
    let evidence: Vec<_> = measured.evidence.iter().map(|(by, count)| format!("{by} {count}")).collect();
    let about = vec![format!("{count} duplicates; first contradiction by: {}", evidence.join(", "))];
    Ok(vec![Section { name: "heal", about, columns: &COLUMNS, lines: lines(&measured), notes: NOTES }])
}

fn lines(measured: &Measured) -> Vec<Line> {
    let Measured { named, contained, healed, steps, .. } = measured;
    let targets = [("named", named, NAMED), ("contained", contained, CONTAINED), ("healed", healed, HEALED)];
    let targets = targets.into_iter().map(|(what, samples, bound)| Line {
        targets: samples.p99().map(|p99| target(p99, bound)).into_iter().collect(),
        ..line(what, samples, healed)
    });
    targets.chain(steps.iter().map(|(step, samples)| line(step, samples, healed))).collect()
}

const fn target(p99: f64, bound: f64) -> Target {
    Target { name: "p99", measured: p99, unit: Some(Unit::Micros), wanted: Wanted::Below(bound) }
}

fn line(what: &str, samples: &Samples, healed: &Samples) -> Line {
    let share = samples.median().zip(healed.median()).map(|(this, whole)| this / whole);
    Line {
        what: what.to_owned(),
        cells: vec![samples.median(), samples.p99(), samples.max()],
        ratios: share.map(|times| Ratio { times, of: "healed" }).into_iter().collect(),
        targets: Vec::new(),
    }
}

//! How the figures look.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::duplicates::Measured;
use crate::bench::{
    row::{or_dash, time},
    samples::Samples,
};

/// What is to be reached by 99 of 100, in microseconds.
const NAMED: f64 = 1_000.0;
const CONTAINED: f64 = 2_000.0;
const HEALED: f64 = 100_000.0;

/// One line: what was done, when, and by when it is to be done.
struct Line<'a> {
    what: &'a str,
    samples: &'a Samples,
    target: Option<f64>,
}

impl Line<'_> {
    fn is_met(&self) -> Option<bool> {
        Some(self.samples.p99_us()? < self.target?)
    }

    fn cells(&self) -> [String; 5] {
        let verdict = |met| if met { "met" } else { "NOT MET" };
        let target = self.target.zip(self.is_met());
        let target = target.map(|(target, met)| format!("p99 < {}: {}", time(target), verdict(met)));
        let times = [self.samples.median_us(), self.samples.p99_us(), self.samples.max_us()];
        let [median, p99, max] = times.map(|micros| or_dash(micros.map(time)));
        [self.what.to_owned(), median, p99, max, or_dash(target)]
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what,
            "p50_us": self.samples.median_us(),
            "p99_us": self.samples.p99_us(),
            "max_us": self.samples.max_us(),
            "target_us": self.target,
            "met": self.is_met(),
        })
    }
}

fn lines(measured: &Measured) -> Vec<Line<'_>> {
    let Measured { named, contained, healed, steps, .. } = measured;
    let line = |what, samples, target| Line { what, samples, target };
    let steps = steps.iter().map(|(step, samples)| Line { what: step, samples, target: None });
    let targets = [
        line("named", named, Some(NAMED)),
        line("contained", contained, Some(CONTAINED)),
        line("healed", healed, Some(HEALED)),
    ];
    targets.into_iter().chain(steps).collect()
}

/// For people.
pub(super) fn text(measured: &Measured) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SINCE THE FIRST FRAME", "P50", "P99", "MAX", "TARGET"]);
    table.add_rows(lines(measured).iter().map(Line::cells));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let evidence: Vec<_> = measured.evidence.iter().map(|(by, count)| format!("{by} {count}")).collect();
    let count = measured.healed.len();
    format!("{count} duplicates; first contradiction by: {}\n\n{}\n", evidence.join(", "), table.trim_fmt())
}

/// For programs.
pub(super) fn json(measured: &Measured) -> Value {
    let lines: Vec<_> = lines(measured).iter().map(Line::json).collect();
    json!({ "incidents": measured.healed.len(), "first_evidence": measured.evidence, "lines": lines })
}

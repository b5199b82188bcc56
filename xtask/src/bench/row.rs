//! One line of the answer, and how lines look: columns for people, JSON for programs.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::samples::Samples;

/// What was measured under one name and in one situation.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) what: String,
    /// Leases held when it began; absent where there are none to hold.
    pub(super) held: Option<usize>,
    /// Processes that worked at the same time.
    pub(super) processes: usize,
    pub(super) samples: Samples,
    /// How many times as fast it is as what it is measured beside, and what that is.
    pub(super) beside: Option<(f64, &'static str)>,
    pub(super) targets: Vec<Target>,
}

/// What is to be reached.
#[derive(Debug)]
pub(super) struct Target {
    /// What is compared, such as "of bare".
    pub(super) name: &'static str,
    pub(super) measured: f64,
    pub(super) wanted: Wanted,
}

/// The bound that a ratio is to keep.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    AtLeast(f64),
    MoreThan(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(&self) -> bool {
        match self.wanted {
            Wanted::AtLeast(bound) => self.measured >= bound,
            Wanted::MoreThan(bound) => self.measured > bound,
            Wanted::AtMost(bound) => self.measured <= bound,
        }
    }

    fn text(&self) -> String {
        let (sign, bound) = match self.wanted {
            Wanted::AtLeast(bound) => (">=", bound),
            Wanted::MoreThan(bound) => (">", bound),
            Wanted::AtMost(bound) => ("<=", bound),
        };
        let verdict = if self.is_met() { "met" } else { "NOT MET" };
        format!("{} {} {sign} {bound}: {verdict}", ratio(self.measured), self.name)
    }

    fn json(&self) -> Value {
        json!({ "target": self.text(), "measured": self.measured, "met": self.is_met() })
    }
}

impl Row {
    fn cells(&self) -> [String; 8] {
        let beside = self.beside.map(|(speed, other)| format!("{} {other}", ratio(speed)));
        [
            self.what.clone(),
            or_dash(self.held.map(thousands)),
            self.processes.to_string(),
            or_dash(self.samples.median_us().map(time)),
            or_dash(self.samples.p99_us().map(time)),
            or_dash(self.samples.rate().map(|rate| format!("{rate:.0}/s"))),
            or_dash(beside),
            self.targets.iter().map(Target::text).collect::<Vec<_>>().join("\n"),
        ]
    }

    /// The row for programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "what": self.what,
            "held": self.held,
            "processes": self.processes,
            "operations": self.samples.len(),
            "median_us": self.samples.median_us(),
            "p99_us": self.samples.p99_us(),
            "per_second": self.samples.rate(),
            "speed": self.beside.map(|(speed, other)| json!({ "times": speed, "beside": other })),
            "targets": self.targets.iter().map(Target::json).collect::<Vec<_>>(),
        })
    }
}

/// The rows in columns, without lines between them. Every line ends with a line feed.
pub(super) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["WHAT", "HELD", "PROCESSES", "MEDIAN", "P99", "RATE", "SPEED", "TARGET"]);
    table.add_rows(rows.iter().map(Row::cells));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

pub(super) fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}

pub(super) fn time(micros: f64) -> String {
    if micros < 1000.0 { format!("{micros:.0} us") } else { format!("{:.2} ms", micros / 1000.0) }
}

fn ratio(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.2}x") } else { format!("{ratio:.1}x") }
}

fn thousands(count: usize) -> String {
    if count < 1000 { count.to_string() } else { format!("{},{:03}", count / 1000, count % 1000) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(held: Option<usize>, micros: u64, targets: Vec<Target>) -> Row {
        let mut samples = Samples::default();
        samples.add_round(&[Duration::from_micros(micros); 4], Duration::from_micros(4 * micros));
        Row { what: "allocate".to_owned(), held, processes: 1, samples, beside: Some((0.75, "bare")), targets }
    }

    fn target(measured: f64, wanted: Wanted) -> Target {
        Target { name: "of bare", measured, wanted }
    }

    #[test]
    fn a_table_says_what_was_reached_and_what_was_not() {
        let met = row(Some(60_000), 250, vec![target(0.75, Wanted::AtLeast(0.6)), target(1.0, Wanted::AtMost(1.3))]);
        let missed = row(None, 12_340, vec![target(1.0, Wanted::MoreThan(1.0))]);
        let table = table(&[met, missed]);
        let lines: Vec<Vec<_>> =
            table.lines().map(|line| line.split("  ").filter(|s| !s.is_empty()).collect()).collect();
        let cells = |line: usize| lines[line].iter().map(|cell| cell.trim()).collect::<Vec<_>>();
        assert_eq!(cells(0), ["WHAT", "HELD", "PROCESSES", "MEDIAN", "P99", "RATE", "SPEED", "TARGET"]);
        let first =
            ["allocate", "60,000", "1", "250 us", "250 us", "4000/s", "0.75x bare", "0.75x of bare >= 0.6: met"];
        assert_eq!(cells(1), first);
        assert_eq!(cells(2), ["1.00x of bare <= 1.3: met"]);
        assert_eq!(cells(3)[3..], ["12.34 ms", "12.34 ms", "81/s", "0.75x bare", "1.00x of bare > 1: NOT MET"]);
    }

    #[test]
    fn a_program_gets_numbers() {
        let row = row(Some(50), 500, vec![target(11.5, Wanted::AtLeast(10.0))]).json();
        assert_eq!((&row["held"], &row["median_us"], &row["operations"]), (&json!(50), &json!(500.0), &json!(4)));
        assert_eq!(row["speed"], json!({ "times": 0.75, "beside": "bare" }));
        assert_eq!(row["targets"][0], json!({ "target": "11.5x of bare >= 10: met", "measured": 11.5, "met": true }));
    }

    #[test]
    fn thousands_are_set_off() {
        assert_eq!([0, 999, 1000, 10_050].map(thousands), ["0", "999", "1,000", "10,050"]);
    }
}

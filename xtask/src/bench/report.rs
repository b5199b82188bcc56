//! What a bench found: lines under common columns, as a table for people and as JSON for programs.

use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};

/// Lines that belong together.
#[derive(Debug)]
pub(super) struct Section {
    /// The bench, and which part of it.
    pub(super) name: &'static str,
    /// What was done, and how often.
    pub(super) about: Vec<String>,
    pub(super) columns: &'static [Column],
    pub(super) lines: Vec<Line>,
    /// What one has to know to read the table; each line ends with a line feed.
    pub(super) notes: &'static str,
}

/// What stands in one column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Its name in JSON, with the unit.
    pub(super) key: &'static str,
    pub(super) unit: Unit,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "the benches that use the others come next")]
pub(super) enum Unit {
    /// Microseconds, and milliseconds from a thousand on.
    Micros,
    /// Nanoseconds, with their tenths.
    Nanos,
    /// Seconds, with their hundredths.
    Seconds,
    /// So many in a second.
    PerSecond,
    /// Megabits in a second.
    Megabits,
    /// A whole number.
    Count,
    /// Megabytes of 2²⁰ bytes.
    Mebibytes,
    /// Hundredths of a whole.
    Percent,
}

/// What was measured under one name and in one situation.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) what: String,
    /// One figure for each column, where there is one.
    pub(super) cells: Vec<Option<f64>>,
    pub(super) ratios: Vec<Ratio>,
    pub(super) targets: Vec<Target>,
}

/// How many times what it is measured beside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    pub(super) times: f64,
    pub(super) of: &'static str,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// What is compared, such as "of bare".
    pub(super) name: &'static str,
    pub(super) measured: f64,
    pub(super) unit: Option<Unit>,
    pub(super) wanted: Wanted,
}

/// The bound that a figure is to keep.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    AtLeast(f64),
    MoreThan(f64),
    AtMost(f64),
    Below(f64),
}

impl Unit {
    fn text(self, figure: f64) -> String {
        match self {
            Self::Micros if figure >= 1000.0 => format!("{:.2} ms", figure / 1000.0),
            Self::Micros => format!("{figure:.0} us"),
            Self::Nanos => format!("{figure:.1} ns"),
            Self::Seconds => format!("{figure:.2} s"),
            Self::PerSecond => format!("{}/s", thousands(figure)),
            Self::Megabits => format!("{} Mbit/s", thousands(figure)),
            Self::Count => thousands(figure),
            Self::Mebibytes => format!("{figure:.1} MiB"),
            Self::Percent => format!("{figure:.2} %"),
        }
    }
}

impl Target {
    /// That a ratio keeps a bound.
    pub(super) const fn ratio(ratio: Ratio, wanted: Wanted) -> Self {
        Self { name: ratio.of, measured: ratio.times, unit: None, wanted }
    }

    fn bound(&self) -> (&'static str, f64) {
        match self.wanted {
            Wanted::AtLeast(bound) => (">=", bound),
            Wanted::MoreThan(bound) => (">", bound),
            Wanted::AtMost(bound) => ("<=", bound),
            Wanted::Below(bound) => ("<", bound),
        }
    }

    fn is_met(&self) -> bool {
        match self.wanted {
            Wanted::AtLeast(bound) => self.measured >= bound,
            Wanted::MoreThan(bound) => self.measured > bound,
            Wanted::AtMost(bound) => self.measured <= bound,
            Wanted::Below(bound) => self.measured < bound,
        }
    }

    fn text(&self) -> String {
        let (sign, bound) = self.bound();
        let verdict = if self.is_met() { "met" } else { "NOT MET" };
        match self.unit {
            Some(unit) => {
                format!("{} {} {sign} {}: {verdict}", self.name, unit.text(self.measured), unit.text(bound))
            }
            None => format!("{} of {} {sign} {}: {verdict}", times(self.measured), self.name, short(bound)),
        }
    }

    fn json(&self) -> Value {
        json!({
            "target": self.text(),
            "measured": self.measured,
            "bound": self.bound().1,
            "ratio": finite(self.measured / self.bound().1),
            "met": self.is_met(),
        })
    }
}

impl Ratio {
    fn text(&self) -> String {
        format!("{} {}", times(self.times), self.of)
    }

    fn json(&self) -> Value {
        json!({ "times": self.times, "of": self.of })
    }
}

impl Line {
    fn row(&self, columns: &[Column]) -> Vec<String> {
        let figure = |(column, cell): (&Column, Option<&Option<f64>>)| {
            let figure = cell.copied().flatten();
            figure.map_or_else(|| "-".to_owned(), |figure| column.unit.text(figure))
        };
        let cells = self.cells.iter().map(Some).chain(std::iter::repeat(None));
        let figures = columns.iter().zip(cells).map(figure);
        let joined = |all: Vec<String>| if all.is_empty() { "-".to_owned() } else { all.join("\n") };
        let ratios = joined(self.ratios.iter().map(Ratio::text).collect());
        let targets = self.targets.iter().map(Target::text).collect::<Vec<_>>().join("\n");
        [self.what.clone()].into_iter().chain(figures).chain([ratios, targets]).collect()
    }

    fn json(&self, columns: &[Column]) -> Value {
        let figures = columns.iter().zip(&self.cells).map(|(column, cell)| (column.key.to_owned(), json!(cell)));
        let mut line = Map::from_iter([("what".to_owned(), json!(self.what))]);
        line.extend(figures);
        line.insert("ratios".to_owned(), self.ratios.iter().map(Ratio::json).collect());
        line.insert("targets".to_owned(), self.targets.iter().map(Target::json).collect());
        Value::Object(line)
    }
}

impl Section {
    /// The lines in columns, without rules between them. Ends with a line feed.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let titles = self.columns.iter().map(|column| column.title);
        table.set_header(["WHAT"].into_iter().chain(titles).chain(["RATIO", "TARGET"]));
        table.add_rows(self.lines.iter().map(|line| line.row(self.columns)));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let about: String = self.about.iter().map(|line| format!("{line}\n")).collect();
        let rest = if self.notes.is_empty() { String::new() } else { format!("\n{}", self.notes) };
        format!("{}\n{about}\n{}\n{rest}", self.name, table.trim_fmt())
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "section": self.name,
            "about": self.about,
            "lines": self.lines.iter().map(|line| line.json(self.columns)).collect::<Vec<_>>(),
        })
    }
}

fn times(ratio: f64) -> String {
    match ratio {
        _ if ratio < 0.1 => format!("{ratio:.4}x"),
        _ if ratio < 10.0 => format!("{ratio:.2}x"),
        _ => format!("{ratio:.1}x"),
    }
}

/// With hundredths, as far as there are any.
fn short(bound: f64) -> String {
    let text = format!("{bound:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// JSON knows no infinity.
fn finite(ratio: f64) -> Option<f64> {
    ratio.is_finite().then_some(ratio)
}

fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let start = usize::from(digits.starts_with('-'));
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > start && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 2] = [
        Column { title: "MEDIAN", key: "median_us", unit: Unit::Micros },
        Column { title: "HELD", key: "held", unit: Unit::Count },
    ];

    fn section() -> Section {
        let (bare, empty) = (Ratio { times: 0.75, of: "bare" }, Ratio { times: 1.5, of: "the empty book" });
        let named = Target { name: "p99", measured: 12_340.0, unit: Some(Unit::Micros), wanted: Wanted::Below(1000.0) };
        let met = Line {
            what: "allocate".to_owned(),
            cells: vec![Some(250.0), Some(60_000.0)],
            ratios: vec![bare, empty],
            targets: vec![Target::ratio(bare, Wanted::AtLeast(0.6)), Target::ratio(empty, Wanted::AtMost(1.3))],
        };
        let missed =
            Line { what: "late".to_owned(), cells: vec![Some(12_340.0), None], ratios: vec![], targets: vec![named] };
        let about = vec!["7 rounds".to_owned()];
        Section { name: "books", about, columns: &COLUMNS, lines: vec![met, missed], notes: "bare  the limit\n" }
    }

    #[test]
    fn a_table_says_what_was_reached_and_what_was_not() {
        let text = section().text();
        let cells = |line: &str| {
            let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect::<Vec<_>>().join(" | ")
        };
        let want = [
            "books",
            "7 rounds",
            "",
            "WHAT | MEDIAN | HELD | RATIO | TARGET",
            "allocate | 250 us | 60,000 | 0.75x bare | 0.75x of bare >= 0.6: met",
            "1.50x the empty book | 1.50x of the empty book <= 1.3: NOT MET",
            "late | 12.34 ms | - | - | p99 12.34 ms < 1.00 ms: NOT MET",
            "",
            "bare | the limit",
        ];
        assert_eq!(text.lines().map(cells).collect::<Vec<_>>(), want);
    }

    #[test]
    fn a_program_gets_numbers() {
        let section = section().json();
        let line = &section["lines"][0];
        assert_eq!((&line["median_us"], &line["held"]), (&json!(250.0), &json!(60_000.0)));
        assert_eq!(line["ratios"][0], json!({ "times": 0.75, "of": "bare" }));
        assert_eq!((&line["targets"][1]["met"], &line["targets"][1]["bound"]), (&json!(false), &json!(1.3)));
        assert_eq!(section["lines"][1]["held"], Value::Null);
    }

    #[test]
    fn figures_are_written_as_people_write_them() {
        let texts = [(Unit::Count, 1_050.0), (Unit::Count, 999.0), (Unit::PerSecond, 1_234_567.0)];
        assert_eq!(texts.map(|(unit, figure)| unit.text(figure)), ["1,050", "999", "1,234,567/s"]);
        assert_eq!([0.004_21, 0.62, 22.61].map(times), ["0.0042x", "0.62x", "22.6x"]);
        assert_eq!([1.3, 2.0, 1.0 / 3.0].map(short), ["1.3", "2", "0.33"]);
    }
}

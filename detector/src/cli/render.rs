//! How answers look: columns for people, JSON for programs.

use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::exit::{Exit, Failure};

/// How to show an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Columns, as much as fits a terminal
    #[default]
    Table,
    /// Columns with all that is known
    Wide,
    /// JSON, for programs
    Json,
}

/// How to show an answer, as a flag.
#[derive(Debug, clap::Args)]
pub(super) struct Format {
    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Output,
}

/// One column: its header, whether only `wide` shows it, and what it says of a row.
pub(super) type Column<'a, Row> = (&'static str, bool, &'a dyn Fn(&Row) -> String);

/// Aligned columns below their headers, without lines between them. Every line ends with a line feed.
pub(super) fn columns<Row>(columns: &[Column<'_, Row>], rows: &[Row], wide: bool) -> String {
    let shown: Vec<_> = columns.iter().filter(|(_, only_wide, _)| wide || !only_wide).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(shown.iter().map(|(header, ..)| *header));
    table.add_rows(rows.iter().map(|row| shown.iter().map(|(.., cell)| plain(&cell(row)))));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// `value` as JSON, one line for each field.
pub(super) fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| Failure::new(Exit::Bug, error))
}

/// Writes to standard output. Whoever reads it may stop when it has enough.
pub(super) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::No, format_args!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// `text` without what would make a terminal do things; sandboxes may choose their own names.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What is not there.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A layer 2 domain as people write it: `rt0`, or `rt0.12` for VLAN 12 on it.
pub(super) fn domain(bridge: &str, vlan: Option<u16>) -> String {
    vlan.map_or_else(|| bridge.to_owned(), |vlan| format!("{bridge}.{vlan}"))
}

/// How long before `now` an RFC 3339 time was, in the largest unit that fits; the time itself if it is none.
pub(super) fn ago(time: &str, now: SystemTime) -> String {
    let Ok(then) = humantime::parse_rfc3339(time) else { return time.to_owned() };
    match now.duration_since(then).unwrap_or(Duration::ZERO).as_secs() {
        seconds @ ..60 => format!("{seconds}s ago"),
        seconds @ 60..3600 => format!("{}m ago", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h ago", seconds / 3600),
        seconds => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let all: [Column<'_, (&str, u8)>; 3] = [
            ("NAME", false, &|row| row.0.to_owned()),
            ("SIZE", true, &|row| row.1.to_string()),
            ("NEXT", false, &|row| (row.1 + 1).to_string()),
        ];
        let rows = [("a", 1), ("bücher", 22), ("\u{1b}[2J", 3)];
        assert_eq!(columns(&all, &rows, false), "NAME    NEXT\na       2\nbücher  23\n\u{fffd}[2J    4\n");
        assert_eq!(columns(&all, &rows[..1], true), "NAME  SIZE  NEXT\na     1     2\n");
        assert_eq!(columns(&all, &[], false), "NAME  NEXT\n");
    }

    #[test]
    fn ages_are_short() {
        let now = humantime::parse_rfc3339("2026-06-12T10:00:00Z").unwrap();
        let ages = [
            ("2026-06-12T09:59:59.001Z", "0s ago"),
            ("2026-06-12T09:59:01Z", "59s ago"),
            ("2026-06-12T09:00:01Z", "59m ago"),
            ("2026-06-11T10:00:01Z", "23h ago"),
            ("2026-06-02T10:00:00Z", "10d ago"),
            ("2026-06-12T10:00:01Z", "0s ago"),
            ("a word of a newer agent", "a word of a newer agent"),
        ];
        for (time, want) in ages {
            assert_eq!(ago(time, now), want);
        }
    }
}

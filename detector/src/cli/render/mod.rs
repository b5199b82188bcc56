//! How answers look: columns for people, JSON and CSV for programs.
//!
//! What a terminal shows depends on the terminal: columns are cut to its width and words that matter have a colour. What
//! is piped is whole and without colour, so that a script finds what it looks for.

mod column;
#[cfg(test)]
pub(super) mod golden;
mod list;

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, SystemTime},
};

use anstream::{AutoStream, ColorChoice};
use clap::{
    ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use rustix::termios::tcgetwinsize;
use serde::Serialize;

pub(super) use self::{
    column::{Column, columns, cut, fitted, paint, tone},
    list::{Filter, List, Listed, Sort, csv, filter},
};
use super::exit::{Exit, Failure};
use crate::telemetry::one_line;

/// Takes `--color` for the whole program.
pub(super) fn choose(color: clap::ColorChoice) {
    match color {
        clap::ColorChoice::Auto => ColorChoice::Auto,
        clap::ColorChoice::Always => ColorChoice::Always,
        clap::ColorChoice::Never => ColorChoice::Never,
    }
    .write_global();
}

/// How to show an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Columns, as much as fits a terminal
    #[default]
    #[value(alias = "text")]
    Table,
    /// Columns with all that is known
    Wide,
    /// CSV with all that is known (RFC 4180), for spreadsheets and programs
    Csv,
    /// JSON, for programs
    Json,
}

/// How to show an answer, as a flag.
#[derive(Debug, clap::Args)]
pub(super) struct Format {
    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = single())]
    pub(super) output: Output,
}

/// The formats of what is no list.
fn single() -> impl TypedValueParser<Value = Output> {
    let shown = Output::value_variants().iter().filter(|output| **output != Output::Csv);
    PossibleValuesParser::new(shown.filter_map(ValueEnum::to_possible_value))
        .map(|word| Output::from_str(&word, true).unwrap_or_default())
}

impl Format {
    pub(super) fn look(&self) -> Look {
        Look { wide: self.output == Output::Wide, ..Look::of_stdout() }
    }
}

/// What columns are shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Every column there is.
    pub(super) wide: bool,
    /// With headers.
    pub(super) header: bool,
    /// Characters in a line of the terminal, if it is one.
    pub(super) width: Option<u16>,
    /// With colours.
    pub(super) colour: bool,
    /// What ages are counted to.
    pub(super) now: SystemTime,
}

impl Look {
    /// As standard output wants it, by what it is, by `--color` and by the environment (NO_COLOR, CLICOLOR, TERM).
    pub(super) fn of_stdout() -> Self {
        let out = io::stdout();
        let width = out.is_terminal().then(|| tcgetwinsize(&out).ok()).flatten();
        Self {
            wide: false,
            header: true,
            width: width.map(|size| size.ws_col).filter(|columns| *columns > 0),
            colour: AutoStream::choice(&out) != ColorChoice::Never,
            now: SystemTime::now(),
        }
    }

    /// As when it is piped, on a fixed day.
    #[cfg(test)]
    pub(super) fn piped(output: Output) -> Self {
        let now = humantime::parse_rfc3339("2026-06-12T10:00:00Z").unwrap();
        Self { wide: output == Output::Wide, header: true, width: None, colour: false, now }
    }

    /// Within a paragraph that stands so many characters to the right.
    pub(super) fn indented(self, by: u16) -> Self {
        Self { width: self.width.map(|width| width.saturating_sub(by)), ..self }
    }
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

/// `text` in one line, without what would make a terminal do things; sandboxes may choose their own names.
pub(super) fn plain(text: &str) -> String {
    one_line(text).into_owned()
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

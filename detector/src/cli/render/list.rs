//! Lists: which rows, in which order, in which form. Every verb that lists has the same flags.

use std::{cmp::Ordering, marker::PhantomData, net::Ipv4Addr, time::Duration};

use clap::{
    Arg, Command, Error,
    builder::{PossibleValue, TypedValueParser},
};
use serde::Serialize;

use super::{Column, Look, Output, columns, json, plain, print};
use crate::{
    cli::{
        exit::{Exit, Failure, note},
        meant::meant,
    },
    net::Ipv4Net,
};

/// What can be listed.
pub(in crate::cli) trait Listed: Sized + 'static {
    /// Its columns, in their order.
    const COLUMNS: &'static [Column<Self>];
}

/// How to show a list, as flags.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(in crate::cli) struct List<Row: Listed> {
    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(in crate::cli) output: Output,
    /// Sort by this column; with a `-` before its name, the greatest first
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true, value_parser = ByName::<Row>(PhantomData))]
    pub(in crate::cli) sort: Option<Sort>,
    /// Show only rows that match: COLUMN=VALUE, COLUMN!=VALUE, or COLUMN~PART for those that have PART in it. A column
    /// of addresses also takes a network, such as address=10.8.64.0/28. May be given more than once: all must match
    #[arg(long = "filter", value_name = "FILTER", value_parser = filter::<Row>)]
    pub(in crate::cli) filters: Vec<Filter>,
    /// Show no line of headers
    #[arg(long)]
    no_header: bool,
    #[arg(skip)]
    of: PhantomData<fn() -> Row>,
}

/// By which column, as an index, and whether the greatest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Sort {
    pub(in crate::cli) column: usize,
    pub(in crate::cli) descending: bool,
}

/// Which rows: a column, as an index, and what its cells must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Filter {
    column: usize,
    negated: bool,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Is(String),
    Within(Ipv4Net),
    /// In lower case.
    Has(String),
}

impl<Row: Listed> List<Row> {
    pub(in crate::cli) fn look(&self) -> Look {
        Look { wide: self.output == Output::Wide, header: !self.no_header, ..Look::of_stdout() }
    }

    /// The rows that are asked for, in the order that is asked for.
    pub(in crate::cli) fn pick(&self, mut rows: Vec<Row>) -> Vec<Row> {
        rows.retain(|row| self.is_asked_for(row));
        if let Some(sort) = self.sort {
            rows.sort_by_cached_key(|row| sort.key(row));
        }
        rows
    }

    pub(in crate::cli) fn is_asked_for(&self, row: &Row) -> bool {
        self.filters.iter().all(|filter| filter.matches(row))
    }

    /// Rows in columns or as CSV.
    pub(in crate::cli) fn text(&self, rows: &[Row], look: Look) -> Result<String, Failure> {
        match self.output {
            Output::Csv => csv(rows, look.header),
            _ => Ok(columns(Row::COLUMNS, rows, look)),
        }
    }

    /// Shows what is asked for of all the rows there are; `none` is said where there are none, and what to do then.
    pub(in crate::cli) fn print(&self, all: Vec<Row>, none: &str) -> Result<(), Failure>
    where
        Row: Serialize,
    {
        let count = all.len();
        let rows = self.pick(all);
        print(match self.output {
            Output::Json => json(&rows)?,
            _ => self.text(&rows, self.look())?,
        })?;
        self.tell_if_empty(rows.len(), count, none);
        Ok(())
    }

    /// Says on standard error why nothing is shown.
    pub(in crate::cli) fn tell_if_empty(&self, shown: usize, all: usize, none: &str) {
        match (shown, all) {
            (0, 0) => note(none),
            (0, all) => note(format_args!("no row matches --filter; without it there are {all}")),
            _ => {}
        }
    }
}

impl Sort {
    /// What rows are sorted by: numbers and addresses by their value; what is not there comes last.
    pub(in crate::cli) fn key<Row: Listed>(self, row: &Row) -> Key {
        let text = Row::COLUMNS.get(self.column).map_or_else(String::new, |column| column.exact(row));
        Key { value: Value::of(text), descending: self.descending }
    }
}

/// A place in the order.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Key {
    value: Value,
    descending: bool,
}

#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Value {
    Address(Ipv4Addr),
    Number(f64),
    Text(String),
    Nothing,
}

impl Value {
    fn of(text: String) -> Self {
        let address = text.split('/').next().and_then(|address| address.parse().ok());
        match (address, text.as_str()) {
            (_, "" | "-") => Self::Nothing,
            (Some(address), _) => Self::Address(address),
            (None, _) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                number(&text).map_or(Self::Text(text), Self::Number)
            }
            (None, _) => Self::Text(text),
        }
    }
}

/// A number, or a time in seconds.
fn number(text: &str) -> Option<f64> {
    text.parse().ok().or_else(|| humantime::parse_duration(text).ok().as_ref().map(Duration::as_secs_f64))
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.value.partial_cmp(&other.value).unwrap_or(Ordering::Equal);
        let is_turned = self.descending && self.value != Value::Nothing && other.value != Value::Nothing;
        if is_turned { order.reverse() } else { order }
    }
}

impl Filter {
    pub(in crate::cli) fn matches<Row: Listed>(&self, row: &Row) -> bool {
        let cell = Row::COLUMNS.get(self.column).map_or_else(String::new, |column| column.exact(row));
        self.test.holds(&cell) != self.negated
    }
}

impl Test {
    fn holds(&self, cell: &str) -> bool {
        match self {
            Self::Is(value) => cell == value,
            Self::Has(part) => cell.to_lowercase().contains(part),
            Self::Within(net) => {
                let address = cell.parse::<Ipv4Addr>().is_ok_and(|address| net.contains(&address));
                address || cell.parse::<Ipv4Net>().is_ok_and(|inner| net.contains(&inner))
            }
        }
    }
}

/// A column's name as it is typed: `last-seen`.
fn typed(name: &str) -> String {
    name.to_lowercase().replace(' ', "-")
}

/// The column of that name, in whatever case.
fn named<Row: Listed>(name: &str) -> Result<usize, String> {
    let names: Vec<_> = Row::COLUMNS.iter().map(|column| typed(column.name)).collect();
    let wanted = typed(&name.replace('_', " "));
    let found = names.iter().position(|name| *name == wanted);
    found.ok_or_else(|| {
        let best = meant(&wanted, names.iter().map(String::as_str));
        let meant = best.map_or_else(|| "; columns".to_owned(), |best| format!("; did you mean `{best}`? Columns"));
        format!("there is no column `{}`{meant} are: {}", plain(name), names.join(", "))
    })
}

/// Takes a column's name, and tells shells which there are.
#[derive(Debug)]
struct ByName<Row>(PhantomData<fn() -> Row>);

impl<Row> Clone for ByName<Row> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<Row: Listed> TypedValueParser for ByName<Row> {
    type Value = Sort;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &std::ffi::OsStr) -> Result<Sort, Error> {
        let parse: fn(&str) -> Result<Sort, String> = sort::<Row>;
        parse.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Row::COLUMNS.iter().map(|column| PossibleValue::new(typed(column.name)))))
    }
}

pub(in crate::cli) fn sort<Row: Listed>(text: &str) -> Result<Sort, String> {
    let name = text.strip_prefix('-');
    Ok(Sort { column: named::<Row>(name.unwrap_or(text))?, descending: name.is_some() })
}

/// What `--filter` says.
pub(in crate::cli) fn filter<Row: Listed>(text: &str) -> Result<Filter, String> {
    let usage = "write COLUMN=VALUE, COLUMN!=VALUE or COLUMN~PART, such as state=duplicate";
    let at = text.find(['=', '!', '~']).ok_or(usage)?;
    let (name, rest) = text.split_at(at);
    let column = named::<Row>(name)?;
    let is_of_addresses = Row::COLUMNS.get(column).is_some_and(Column::is_of_addresses);
    let is = |value: &str| if is_of_addresses { within(name, value) } else { Ok(Test::Is(value.to_owned())) };
    let test = match (rest.strip_prefix("!="), rest.strip_prefix('='), rest.strip_prefix('~')) {
        (Some(value), ..) | (_, Some(value), _) => is(value)?,
        (.., Some(part)) => Test::Has(part.to_lowercase()),
        _ => return Err(usage.to_owned()),
    };
    Ok(Filter { column, negated: rest.starts_with('!'), test })
}

/// One address, a network, or nothing at all.
fn within(column: &str, value: &str) -> Result<Test, String> {
    let address = |value: &str| value.parse::<Ipv4Addr>().ok().map(|_| Test::Is(value.to_owned()));
    let network = |value: &str| value.parse::<Ipv4Net>().ok().map(Test::Within);
    let nothing = (value == "-").then(|| Test::Is(value.to_owned()));
    nothing
        .or_else(|| address(value))
        .or_else(|| network(value))
        .ok_or_else(|| format!("`{}` is neither an address nor a network, such as {column}=10.8.64.0/28", plain(value)))
}

/// Every column of every row as RFC 4180 has it.
pub(in crate::cli) fn csv<'a, Row: Listed>(
    rows: impl IntoIterator<Item = &'a Row>,
    header: bool,
) -> Result<String, Failure> {
    let mut writer = ::csv::WriterBuilder::new().terminator(::csv::Terminator::CRLF).from_writer(Vec::new());
    let broken = |error: ::csv::Error| Failure::new(Exit::Bug, error);
    if header {
        writer.write_record(Row::COLUMNS.iter().map(|column| typed(column.name))).map_err(broken)?;
    }
    for row in rows {
        writer.write_record(Row::COLUMNS.iter().map(|column| field(&column.exact(row)))).map_err(broken)?;
    }
    let bytes = writer.into_inner().map_err(|error| Failure::new(Exit::Bug, error.error()))?;
    String::from_utf8(bytes).map_err(|error| Failure::new(Exit::Bug, error))
}

/// What is not there is empty. A sandbox may choose a name that a spreadsheet would run: that gets a quote before it, as
/// OWASP advises (CSV Injection).
fn field(text: &str) -> String {
    let text = plain(text);
    match text.chars().next() {
        Some('-') if text == "-" => String::new(),
        Some('=' | '+' | '-' | '@') => format!("'{text}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;
    use crate::cli::render::golden::forms;

    type Named = (&'static str, &'static str);

    impl Listed for Named {
        const COLUMNS: &'static [Column<Self>] = &[
            Column::text("NAME", |row| row.0.to_owned()),
            Column::address("ADDRESS", |row| row.1.to_owned()),
            Column::word("STATE", |_| "ok".to_owned()),
        ];
    }

    fn sorted(by: &str, rows: &[Named]) -> Vec<&'static str> {
        let sort = sort::<Named>(by).unwrap();
        let mut rows = rows.to_vec();
        rows.sort_by_cached_key(|row| sort.key(row));
        rows.into_iter().map(|row| if by.ends_with("address") { row.1 } else { row.0 }).collect()
    }

    #[test]
    fn values_have_their_own_order_and_nothing_comes_last() {
        let rows = [("a", "10.8.64.10"), ("b", "-"), ("c", "10.8.64.9"), ("d", "10.8.63.0/24"), ("e", "10.8.64.9")];
        assert_eq!(sorted("address", &rows), ["10.8.63.0/24", "10.8.64.9", "10.8.64.9", "10.8.64.10", "-"]);
        assert_eq!(sorted("-address", &rows), ["10.8.64.10", "10.8.64.9", "10.8.64.9", "10.8.63.0/24", "-"]);
        let rows = ["10", "9", "vm", "-", "1m", "nan", "59s", ""].map(|name| (name, "-"));
        assert_eq!(sorted("name", &rows), ["9", "10", "59s", "1m", "nan", "vm", "-", ""]);
        assert_eq!(sorted("-name", &rows), ["vm", "nan", "1m", "59s", "10", "9", "-", ""]);
    }

    #[test]
    fn filters_say_which_rows() {
        let row = ("Sportsagent", "10.8.64.2");
        for (text, holds) in [
            ("name=Sportsagent", true),
            ("name=sportsagent", false),
            ("NAME!=b", true),
            ("name~AGENT", true),
            ("name~", true),
            ("address=10.8.64.2", true),
            ("address=10.8.64.0/28", true),
            ("address!=10.8.64.0/28", false),
            ("address=10.8.65.0/24", false),
            ("address~64", true),
            ("address=-", false),
            ("name=a=b", false),
        ] {
            assert_eq!(filter::<Named>(text).unwrap().matches(&row), holds, "{text}");
        }
        assert!(filter::<Named>("address=10.8.0.0/16").unwrap().matches(&("", "10.8.64.0/24")));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_does() {
        let refused = |text| filter::<Named>(text).unwrap_err();
        assert_eq!(
            refused("adress=10.8.64.2"),
            "there is no column `adress`; did you mean `address`? Columns are: name, address, state"
        );
        assert_eq!(refused("colour=red"), "there is no column `colour`; columns are: name, address, state");
        assert_eq!(
            refused("address=10.8.64"),
            "`10.8.64` is neither an address nor a network, such as address=10.8.64.0/28"
        );
        for text in ["state", "", "state!ok", "state>ok"] {
            assert_eq!(
                refused(text),
                "write COLUMN=VALUE, COLUMN!=VALUE or COLUMN~PART, such as state=duplicate",
                "{text}"
            );
        }
        assert_eq!(
            sort::<Named>("--name").unwrap_err(),
            "there is no column `-name`; did you mean `name`? Columns are: name, address, state"
        );
    }

    #[test]
    fn names_that_would_do_something_do_nothing() {
        let rows: [Named; 6] = [
            ("=cmd|' /C calc'!A0", "10.8.64.2"),
            ("@SUM(1,2)", "-"),
            ("-1+1\"quoted\"", "10.8.64.3"),
            ("two\nlines\r\t", "10.8.64.4"),
            ("\u{1b}[31mred\u{202e}left", "10.8.64.5"),
            ("漢字の名前 ünïcödé, with a comma", "10.8.64.6"),
        ];
        expect_file!["../golden/hostile.txt"].assert_eq(&forms(&rows));
    }
}

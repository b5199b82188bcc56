//! Columns: what stands in each, and how they fit a terminal.

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Row as Line, Table, presets};
use crossterm::style::Stylize as _;

use super::{Look, ago, plain};

/// One column: its header, whether only `wide` shows it, and what it says of a row.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Column<Row: 'static> {
    pub(in crate::cli) name: &'static str,
    only_wide: bool,
    kind: Kind,
    cell: fn(&Row) -> String,
}

/// What a column's cells are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A name or a number, that is cut where there is no room.
    Text,
    /// An address or a network.
    Address,
    /// A time, shown as how long ago it was.
    Age,
    /// A word that says whether all is well.
    Word,
    /// Sentences, which go on in the next line where there is no room.
    Prose,
}

impl<Row> Column<Row> {
    pub(in crate::cli) const fn text(name: &'static str, cell: fn(&Row) -> String) -> Self {
        Self { name, only_wide: false, kind: Kind::Text, cell }
    }

    /// An address or a network: never cut, and filtered by networks.
    pub(in crate::cli) const fn address(name: &'static str, cell: fn(&Row) -> String) -> Self {
        Self { kind: Kind::Address, ..Self::text(name, cell) }
    }

    /// An RFC 3339 time, shown as how long ago that was.
    pub(in crate::cli) const fn age(name: &'static str, cell: fn(&Row) -> String) -> Self {
        Self { kind: Kind::Age, ..Self::text(name, cell) }
    }

    /// A word that says whether all is well: never cut, and coloured.
    pub(in crate::cli) const fn word(name: &'static str, cell: fn(&Row) -> String) -> Self {
        Self { kind: Kind::Word, ..Self::text(name, cell) }
    }

    /// Sentences: nothing of them is left out.
    pub(in crate::cli) const fn prose(name: &'static str, cell: fn(&Row) -> String) -> Self {
        Self { kind: Kind::Prose, ..Self::text(name, cell) }
    }

    /// The same column, where there is room for all that is known.
    pub(in crate::cli) const fn wide(self) -> Self {
        Self { only_wide: true, ..self }
    }

    pub(in crate::cli) const fn is_shown(&self, wide: bool) -> bool {
        wide || !self.only_wide
    }

    pub(super) fn is_of_addresses(&self) -> bool {
        self.kind == Kind::Address
    }

    pub(in crate::cli) fn is_cut(&self) -> bool {
        matches!(self.kind, Kind::Text | Kind::Age)
    }

    pub(in crate::cli) fn is_coloured(&self) -> bool {
        self.kind == Kind::Word
    }

    /// What a program is told of a row: times as they are.
    pub(super) fn exact(&self, row: &Row) -> String {
        (self.cell)(row)
    }

    /// What a person is told of a row, in one line.
    pub(in crate::cli) fn shown(&self, row: &Row, look: Look) -> String {
        let exact = self.exact(row);
        let text = if self.kind == Kind::Age { ago(&exact, look.now) } else { exact };
        plain(&text.replace('\n', "\u{fffd}"))
    }
}

/// Aligned columns below their headers, without lines between them. Every line ends with a line feed.
pub(in crate::cli) fn columns<'a, Row>(
    all: &[Column<Row>],
    rows: impl IntoIterator<Item = &'a Row>,
    look: Look,
) -> String {
    let shown: Vec<_> = all.iter().filter(|column| column.is_shown(look.wide)).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    if look.header {
        table.set_header(shown.iter().map(|column| header(column.name, look)));
    }
    let wraps = shown.iter().any(|column| column.kind == Kind::Prose);
    table.add_rows(rows.into_iter().map(|row| line(&shown, row, look, wraps)));
    if table.is_empty() && !look.header {
        return String::new();
    }
    fit(&mut table, &shown, look);
    table.trim_fmt() + "\n"
}

fn header(name: &str, look: Look) -> Cell {
    if look.colour { Cell::new(name).add_attribute(Attribute::Bold) } else { Cell::new(name) }
}

fn line<Row>(shown: &[&Column<Row>], row: &Row, look: Look, wraps: bool) -> Line {
    let mut line = Line::from(shown.iter().map(|column| cell(column, row, look)).collect::<Vec<_>>());
    if look.width.is_some() && !wraps {
        line.max_height(1);
    }
    line
}

fn cell<Row>(column: &Column<Row>, row: &Row, look: Look) -> Cell {
    let text = column.shown(row, look);
    match tone(&text).filter(|_| look.colour && column.is_coloured()) {
        Some(tone) => Cell::new(text).fg(tone),
        None => Cell::new(text),
    }
}

fn fit<Row>(table: &mut Table, shown: &[&Column<Row>], look: Look) {
    if look.colour {
        // Otherwise NO_COLOR would outdo `--color always` here.
        crossterm::style::force_color_output(true);
        table.enforce_styling();
    }
    if let Some(width) = look.width {
        table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic).set_truncation_indicator("…");
    }
    let last = shown.len().saturating_sub(1);
    for (at, (column, of)) in table.column_iter_mut().zip(shown).enumerate() {
        column.set_padding((0, if at == last { 0 } else { 2 }));
        if look.width.is_some() && matches!(of.kind, Kind::Address | Kind::Word) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// A word that says whether all is well, in its colour.
pub(in crate::cli) fn paint(word: &str, look: Look) -> String {
    match tone(word.trim_end()).filter(|_| look.colour) {
        Some(tone) => {
            // Otherwise NO_COLOR would outdo `--color always` here.
            crossterm::style::force_color_output(true);
            word.with(tone).to_string()
        }
        None => word.to_owned(),
    }
}

/// The colour of a word that says whether all is well.
pub(in crate::cli) fn tone(word: &str) -> Option<Color> {
    match word {
        "duplicate" | "open" | "loser" | "error" | "critical" | "missing" => Some(Color::Red),
        "martian" | "party" | "warning" | "quarantined" | "gone" => Some(Color::Yellow),
        "ok" | "healed" | "winner" => Some(Color::Green),
        _ => None,
    }
}

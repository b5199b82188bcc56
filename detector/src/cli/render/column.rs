//! Columns: what stands in each, and how they fit a terminal.

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use crossterm::style::{Stylize as _, force_color_output};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

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
        plain(&text)
    }
}

/// Characters between two columns.
const GAP: u16 = 2;
/// The narrowest that a column is made, in characters.
const NARROWEST: usize = 6;
/// The least that sentences are to have, in characters.
const PROSE: usize = 20;

/// Aligned columns below their headers, without lines between them. Every line ends with a line feed.
pub(in crate::cli) fn columns<'a, Row>(
    all: &[Column<Row>],
    rows: impl IntoIterator<Item = &'a Row>,
    look: Look,
) -> String {
    let shown: Vec<_> = all.iter().filter(|column| column.is_shown(look.wide)).collect();
    let lines: Vec<Vec<String>> =
        rows.into_iter().map(|row| shown.iter().map(|column| column.shown(row, look)).collect()).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    if look.colour {
        // Otherwise NO_COLOR would outdo `--color always` here.
        force_color_output(true);
        table.enforce_styling();
    }
    let widths = |at: usize| lines.iter().filter_map(move |line| line.get(at)).map(|cell| cell.width()).max();
    let natural: Vec<_> = (0..)
        .zip(&shown)
        .map(|(at, column)| {
            (widths(at).unwrap_or_default().max(if look.header { column.name.width() } else { 0 }), column.is_cut())
        })
        .collect();
    let wraps = shown.iter().any(|column| column.kind == Kind::Prose);
    let chosen = match look.width.filter(|_| !wraps) {
        Some(width) => fitted(&natural, width),
        None => natural.iter().map(|(width, _)| *width).enumerate().collect(),
    };
    let cells = |line: &[String], cell: fn(&Column<Row>, String, Look) -> Cell| {
        let cut = chosen.iter().filter_map(|(at, width)| Some((shown.get(*at)?, cut(line.get(*at)?, *width))));
        cut.map(|(column, text)| cell(column, text, look)).collect::<Vec<_>>()
    };
    if look.header {
        let names: Vec<_> = shown.iter().map(|column| column.name.to_owned()).collect();
        table.set_header(cells(&names, |_, name, look| header(name, look)));
    }
    table.add_rows(lines.iter().map(|line| cells(line, cell)));
    if table.is_empty() && !look.header {
        return String::new();
    }
    if let Some(width) = look.width.filter(|_| wraps) {
        wrap(&mut table, &shown, &natural, width);
    }
    let last = chosen.len().saturating_sub(1);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at == last { 0 } else { GAP }));
    }
    table.trim_fmt() + "\n"
}

fn header(name: String, look: Look) -> Cell {
    if look.colour { Cell::new(name).add_attribute(Attribute::Bold) } else { Cell::new(name) }
}

fn cell<Row>(column: &Column<Row>, text: String, look: Look) -> Cell {
    match tone(&text).filter(|_| look.colour && column.is_coloured()) {
        Some(tone) => Cell::new(text).fg(tone),
        None => Cell::new(text),
    }
}

/// Lets sentences go on in the next line, and the other columns be whole if that leaves room for sentences.
fn wrap<Row>(table: &mut Table, shown: &[&Column<Row>], natural: &[(usize, bool)], width: u16) {
    table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
    let others = shown.iter().zip(natural).filter(|(column, _)| column.kind != Kind::Prose);
    let taken: usize = others.map(|(_, (natural, _))| natural + usize::from(GAP)).sum();
    let is_room = taken + PROSE <= usize::from(width);
    for (column, of) in table.column_iter_mut().zip(shown) {
        if !matches!(of.kind, Kind::Prose) && (is_room || !of.is_cut()) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// Which columns there is room for, as indices, and how wide each is made. Each is given as its natural width and whether
/// it may be cut. What is taken is taken from the widest of those that may be; if that is not enough, they are left out
/// from the right.
pub(in crate::cli) fn fitted(columns: &[(usize, bool)], width: u16) -> Vec<(usize, usize)> {
    let mut left: Vec<(usize, (usize, bool))> = columns.iter().copied().enumerate().collect();
    loop {
        let widths = narrowed(&left, width);
        match (widths, left.iter().rposition(|(_, (_, is_cut))| *is_cut)) {
            (Some(widths), _) => return left.iter().map(|(at, _)| *at).zip(widths).collect(),
            (None, Some(last)) => drop(left.remove(last)),
            (None, None) => return left.into_iter().map(|(at, (natural, _))| (at, natural)).collect(),
        }
    }
}

fn narrowed(columns: &[(usize, (usize, bool))], width: u16) -> Option<Vec<usize>> {
    let mut widths: Vec<usize> = columns.iter().map(|(_, (natural, _))| *natural).collect();
    let room = usize::from(width).saturating_sub(usize::from(GAP) * columns.len().saturating_sub(1));
    while widths.iter().sum::<usize>() > room {
        let cut = widths.iter_mut().zip(columns).filter(|(_, (_, (_, is_cut)))| *is_cut).map(|(width, _)| width);
        *cut.max_by_key(|width| **width).filter(|width| **width > NARROWEST)? -= 1;
    }
    Some(widths)
}

/// As much of a text as fits so many characters of a terminal, and `…` for the rest.
pub(in crate::cli) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut taken = 0;
    let fits = |c: &char| {
        taken += c.width().unwrap_or_default();
        taken < width
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// A word that says whether all is well, in its colour.
pub(in crate::cli) fn paint(word: &str, look: Look) -> String {
    match tone(word.trim_end()).filter(|_| look.colour) {
        Some(tone) => {
            // Otherwise NO_COLOR would outdo `--color always` here.
            force_color_output(true);
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

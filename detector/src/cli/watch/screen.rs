//! Draws the model: state, incidents, the table, and a line of help.

use std::time::SystemTime;

use ratatui::{
    Frame,
    backend::FromCrossterm as _,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row as TableRow, Table},
};

use super::model::{Model, is_duplicate};
use crate::{
    cli::{
        conflicts::{decision, label},
        render::{Column, Listed as _, Look, ago, cut, domain, fitted, plain, tone},
    },
    http::api::{Incident, Row},
};

/// Open incidents that have a line each.
const INCIDENTS: usize = 5;
/// Characters between two columns.
const GAP: u16 = 2;

const KEYS: &str = "q quit  / filter  < > sort  r reverse  w wide  space pause  ? help";

const HELP: &str = "  q, Ctrl-C            end
  /                    filter as you type: a part of any cell, or COLUMN=VALUE, COLUMN!=VALUE,
                       COLUMN~PART, address=NETWORK; Enter keeps it, Esc drops it
  > < (or s, S)        sort by the next column, or the one before; r the other way round
                       duplicates always come first
  space, p             hold the picture still, or go on
  w                    every column, or those that matter most
  Up, Down, j, k       one row; PgUp, PgDn a page; Home, End (g, G) the first, the last
  ?                    this help, and back";

/// Draws everything; in colour, if it may.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, colour: bool, now: SystemTime) {
    let head = head(model, colour, now);
    let height = u16::try_from(head.len()).unwrap_or(u16::MAX);
    let parts = [Constraint::Length(height), Constraint::Fill(1), Constraint::Length(1)];
    let [above, middle, below] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(head), above);
    model.resize(usize::from(middle.height.saturating_sub(1)));
    if model.helps {
        frame.render_widget(Paragraph::new(HELP), middle);
    } else {
        frame.render_widget(table(model, middle, colour, now), middle);
    }
    frame.render_widget(Paragraph::new(foot(model)), below);
}

/// The agent's state, what is wrong with it, and the open incidents.
fn head(model: &Model, colour: bool, now: SystemTime) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::styled(state(model), bold)];
    let alarm = paint(colour, Color::Red).add_modifier(Modifier::REVERSED);
    lines.extend(model.silent.as_ref().map(|why| {
        let said = ago(&humantime::format_rfc3339(model.said).to_string(), now);
        Line::styled(
            format!(" The agent does not answer: {}. Asking again; this is what it said {said}. ", plain(why)),
            alarm,
        )
    }));
    let waits = &model.picture.about.waits_for;
    lines.extend((!waits.is_empty()).then(|| {
        Line::styled(
            format!("The agent is not ready; it waits for {}", plain(&waits.join(", "))),
            paint(colour, Color::Yellow),
        )
    }));
    let open: Vec<_> = model.open().collect();
    lines.extend(
        open.iter().take(INCIDENTS).map(|incident| Line::styled(told(incident, now), paint(colour, Color::Red))),
    );
    if open.len() > INCIDENTS {
        lines.push(Line::raw(format!("and {} more: dupip conflicts", open.len() - INCIDENTS)));
    }
    lines.push(Line::raw(""));
    lines
}

fn state(model: &Model) -> String {
    let about = &model.picture.about;
    let mut words = vec![format!("dupip {} {} on {}", about.version, about.mode, about.bridges.join(", "))];
    words.push(format!("rows {} of {}", model.order.len(), model.picture.rows.len()));
    words.push(format!("duplicate {}", model.duplicates()));
    words.push(format!("incidents open {}", model.open().count()));
    words.extend(model.picture.paused.until.as_ref().map(|until| format!("agent paused until {until}")));
    words.extend(model.is_still.then(|| "HELD STILL".to_owned()));
    plain(&words.join("  ·  "))
}

/// An open incident in a line.
fn told(incident: &Incident, now: SystemTime) -> String {
    let parties: Vec<_> = incident.parties.iter().map(|party| format!("{} ({})", label(party), party.port)).collect();
    let place = domain(&incident.bridge, incident.vlan);
    let opened = ago(&incident.opened, now);
    let because =
        incident.held.clone().or_else(|| decision(incident)).map(|why| format!("; {why}")).unwrap_or_default();
    plain(&format!("{} on {place}: {}; opened {opened}{because}", incident.address, parties.join(" and ")))
}

fn foot(model: &Model) -> String {
    match (model.is_typing, model.typed.as_str()) {
        (true, typed) => format!("filter: {typed}_   Enter keeps it, Esc drops it"),
        (false, "") => KEYS.to_owned(),
        (false, typed) => format!("filter: {typed}  (Esc drops it)  {KEYS}"),
    }
}

fn table(model: &Model, area: Rect, colour: bool, now: SystemTime) -> Table<'static> {
    let all: Vec<_> = Row::COLUMNS.iter().zip(&model.widths).enumerate().filter(|(at, _)| model.shows(*at)).collect();
    let natural: Vec<_> = all.iter().map(|(_, (column, width))| (**width, column.is_cut())).collect();
    let chosen = fitted(&natural, area.width);
    let shown: Vec<_> = chosen
        .iter()
        .filter_map(|(at, width)| {
            let (index, (column, _)) = all.get(*at)?;
            Some((*index, *column, *width))
        })
        .collect();
    let look = Look { now, ..model.look() };
    let header = shown.iter().map(|(at, column, _)| format!("{}{}", column.name, mark(model, *at)));
    let rows = model.visible().map(|row| {
        let cells = shown.iter().map(|(_, column, width)| cell(column, *width, row, look, colour));
        TableRow::new(cells).style(if is_duplicate(row) { paint(colour, Color::Red) } else { Style::new() })
    });
    let widths = chosen.iter().map(|(_, width)| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX)));
    Table::new(rows.collect::<Vec<_>>(), widths)
        .header(TableRow::new(header).style(Style::new().add_modifier(Modifier::REVERSED)))
        .column_spacing(GAP)
}

fn mark(model: &Model, column: usize) -> &'static str {
    match model.sort.filter(|sort| sort.column == column) {
        Some(sort) if sort.descending => " v",
        Some(_) => " ^",
        None => "",
    }
}

fn cell(column: &Column<Row>, width: usize, row: &Row, look: Look, colour: bool) -> Cell<'static> {
    let text = cut(&column.shown(row, look), width);
    let tone = tone(&text).filter(|_| colour && column.is_coloured());
    let style = tone.map_or_else(Style::new, |tone| Style::new().fg(Color::from_crossterm(tone)));
    Cell::new(Span::styled(text, style))
}

fn paint(colour: bool, of: Color) -> Style {
    if colour { Style::new().fg(of) } else { Style::new() }
}

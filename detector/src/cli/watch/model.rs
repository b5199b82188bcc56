//! What is on the screen, and what keys do to it. Knows of no terminal.

use std::{mem, time::SystemTime};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use unicode_width::UnicodeWidthStr as _;

use super::feed::{News, Picture};
use crate::{
    cli::render::{Filter, List, Listed as _, Look, Output, Sort, filter},
    http::api::{Incident, Row},
};

/// The widest that a column may get, in characters.
const WIDEST: usize = 40;

/// What is shown, and how.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) picture: Picture,
    /// When the agent said that.
    pub(super) said: SystemTime,
    /// Why the agent does not answer, if it does not.
    pub(super) silent: Option<String>,
    /// What came while the picture was held still, and when.
    held: Option<(Picture, SystemTime)>,
    pub(super) is_still: bool,
    pub(super) sort: Option<Sort>,
    /// Those of the command line, and what was typed since.
    filters: Vec<Filter>,
    pub(super) typed: String,
    pub(super) is_typing: bool,
    pub(super) wide: bool,
    pub(super) helps: bool,
    /// The rows to show, as indices, in their order.
    pub(super) order: Vec<usize>,
    /// The width of each column there is, in characters; 0 if it is not shown.
    pub(super) widths: Vec<usize>,
    /// The first row on the screen.
    pub(super) top: usize,
    /// Rows on the screen.
    pub(super) page: usize,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    End,
}

impl Model {
    pub(super) fn new(picture: Picture, list: &List<Row>, now: SystemTime) -> Self {
        let mut model = Self {
            picture,
            said: now,
            silent: None,
            held: None,
            is_still: false,
            sort: list.sort,
            filters: list.filters.clone(),
            typed: String::new(),
            is_typing: false,
            wide: list.output == Output::Wide,
            helps: false,
            order: Vec::new(),
            widths: Vec::new(),
            top: 0,
            page: 1,
        };
        model.arrange();
        model
    }

    pub(super) fn hear(&mut self, news: News, now: SystemTime) {
        match news {
            News::Silent(why) => self.silent = Some(why),
            News::Said(picture) => {
                self.silent = None;
                if self.is_still {
                    self.held = Some((*picture, now));
                } else {
                    self.show(*picture, now);
                }
            }
        }
    }

    fn show(&mut self, picture: Picture, now: SystemTime) {
        (self.picture, self.said) = (picture, now);
        self.arrange();
    }

    pub(super) fn open(&self) -> impl Iterator<Item = &Incident> {
        self.picture.incidents.iter().filter(|incident| incident.closed.is_none())
    }

    pub(super) fn duplicates(&self) -> usize {
        self.picture.rows.iter().filter(|row| is_duplicate(row)).count()
    }

    /// The rows that are on the screen.
    pub(super) fn visible(&self) -> impl Iterator<Item = &Row> {
        let shown = self.order.iter().skip(self.top).take(self.page);
        shown.filter_map(|index| self.picture.rows.get(*index))
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Next {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Next::End,
            KeyCode::Char(_) if is_control => {}
            code if self.is_typing => self.edit(code),
            KeyCode::Char('q') => return Next::End,
            KeyCode::Esc if self.helps => self.helps = false,
            code => self.command(code),
        }
        Next::Go
    }

    /// A key while the filter is typed.
    fn edit(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) => self.typed.push(c),
            KeyCode::Backspace => drop(self.typed.pop()),
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => (self.typed, self.is_typing) = (String::new(), false),
            _ => return,
        }
        self.arrange();
    }

    fn command(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('?' | 'h') => self.helps = !self.helps,
            KeyCode::Char(' ' | 'p') => self.hold_still(),
            KeyCode::Char('w') => self.wide = !self.wide,
            KeyCode::Char('>' | 's') | KeyCode::Right => self.sort_by_next(1),
            KeyCode::Char('<' | 'S') | KeyCode::Left => self.sort_by_next(-1),
            KeyCode::Char('r') => self.reverse(),
            KeyCode::Esc => self.typed.clear(),
            code => return self.scroll(code),
        }
        self.arrange();
    }

    fn scroll(&mut self, code: KeyCode) {
        self.top = match code {
            KeyCode::Down | KeyCode::Char('j') => self.top.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.top.saturating_sub(1),
            KeyCode::PageDown => self.top.saturating_add(self.page),
            KeyCode::PageUp => self.top.saturating_sub(self.page),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            _ => self.top,
        };
        self.stay_within();
    }

    /// Takes a new height, and shows no emptiness below the last row.
    pub(super) fn resize(&mut self, page: usize) {
        self.page = page.max(1);
        self.stay_within();
    }

    fn stay_within(&mut self) {
        self.top = self.top.min(self.order.len().saturating_sub(self.page));
    }

    fn hold_still(&mut self) {
        self.is_still = !self.is_still;
        if let Some((picture, said)) = self.held.take().filter(|_| !self.is_still) {
            self.show(picture, said);
        }
    }

    /// Goes through the columns that are shown.
    fn sort_by_next(&mut self, step: isize) {
        let shown: Vec<usize> = (0..Row::COLUMNS.len()).filter(|column| self.shows(*column)).collect();
        let at = self.sort.and_then(|sort| shown.iter().position(|column| *column == sort.column));
        let next = at.map_or(0, |at| (at.cast_signed() + step).rem_euclid(shown.len().cast_signed()).cast_unsigned());
        self.sort = shown.get(next).map(|column| Sort { column: *column, descending: false });
    }

    fn reverse(&mut self) {
        let now = self.sort.unwrap_or(Sort { column: 0, descending: false });
        self.sort = Some(Sort { descending: !now.descending, ..now });
    }

    pub(super) fn shows(&self, column: usize) -> bool {
        Row::COLUMNS.get(column).is_some_and(|column| column.is_shown(self.wide))
    }

    /// Finds out anew which rows are shown, in which order and how wide: duplicates first.
    fn arrange(&mut self) {
        let rows = mem::take(&mut self.picture.rows);
        let typed = Typed::of(&self.typed);
        let is_shown =
            |row: &Row| self.filters.iter().all(|filter| filter.matches(row)) && typed.matches(row, self.look());
        let mut order: Vec<_> = rows.iter().enumerate().filter(|(_, row)| is_shown(row)).collect();
        let sort = self.sort;
        order.sort_by_cached_key(|(_, row)| (!is_duplicate(row), sort.map(|sort| sort.key(*row))));
        self.widths =
            (0..Row::COLUMNS.len()).map(|column| self.width(column, order.iter().map(|(_, row)| *row))).collect();
        self.order = order.into_iter().map(|(index, _)| index).collect();
        self.picture.rows = rows;
        self.stay_within();
    }

    fn width<'a>(&self, column: usize, rows: impl Iterator<Item = &'a Row>) -> usize {
        let Some(of) = Row::COLUMNS.get(column).filter(|column| column.is_shown(self.wide)) else { return 0 };
        let widest = rows.map(|row| of.shown(row, self.look()).width()).max().unwrap_or_default();
        widest.max(of.name.width() + 2).min(WIDEST)
    }

    pub(super) fn look(&self) -> Look {
        Look { wide: self.wide, header: true, width: None, colour: false, now: self.said }
    }
}

pub(super) fn is_duplicate(row: &Row) -> bool {
    row.state == "duplicate"
}

/// What was typed: a filter as `--filter` takes it, or a part of any cell.
enum Typed {
    Filter(Filter),
    Part(String),
}

impl Typed {
    fn of(text: &str) -> Self {
        filter::<Row>(text).map_or_else(|_| Self::Part(text.to_lowercase()), Self::Filter)
    }

    fn matches(&self, row: &Row, look: Look) -> bool {
        match self {
            Self::Filter(filter) => filter.matches(row),
            Self::Part(part) if part.is_empty() => true,
            Self::Part(part) => {
                let has = |cell: String| cell.to_lowercase().contains(part);
                let shown = Row::COLUMNS.iter().filter(|column| column.is_shown(look.wide));
                shown.map(|column| column.shown(row, look)).any(has)
            }
        }
    }
}

//! The picture of a bridge: its bar, its ports, who is behind each, and red ties between those who contest an address.
//!
//! It is drawn twice, for wide and for narrow windows; the style sheet shows one of the two. All measures are in the
//! picture's own units, which are pixels where there is room for it.

use maud::{Markup, html};

use super::{
    glyph::Glyph,
    places::{Row, Tie, placed},
    ports::{Contested, Held, Port, Shown, Standing},
};
use crate::telemetry::one_line;

/// Columns of ports in a wide window, and in a narrow one.
const COLUMNS: [(&str, usize); 2] = [("wide", 5), ("narrow", 2)];

/// A port's card, and the room between two.
const CARD: usize = 196;
const GAP: usize = 14;
/// Left and right of the cards.
const MARGIN: usize = 18;
/// The first bar, which bears the bridge's name, and those below it.
const FIRST_BAR: usize = 34;
const BAR: usize = 6;
/// From a bar to the cards below it.
const STUB: usize = 28;
/// From the ties of a row to the next bar.
const BETWEEN: usize = 22;
/// What one tie takes below a row.
const LANE: usize = 72;
/// Addresses on a card.
const ADDRESSES: usize = 3;
/// Letters that have room on a card, as names, as notes and as what is written in one width.
const NAME: usize = 18;
const NOTE: usize = 25;
const FIXED: usize = 24;
/// Of what is written below a tie, how wide a letter is, in tenths.
const LETTER: usize = 68;

/// How far apart the lines of a card are.
const NAME_LINE: usize = 24;
const ADDRESS_LINE: usize = 21;
const NOTE_LINE: usize = 16;
const FIXED_LINE: usize = 15;
/// Above what is written in one width, and below everything.
const AIR: usize = 6;
const FOOT: usize = 16;

pub(super) fn drawn(bridge: &str, ports: &[&Port<'_>], shown: &Shown<'_>) -> Markup {
    html! {
        figure.bridge {
            @for (class, columns) in COLUMNS {
                (picture(class, bridge, &placed(ports, columns), columns.min(ports.len())))
            }
            figcaption.unseen { (told(bridge, ports, shown)) }
        }
    }
}

/// The picture in words. Every port of it is a row of the table, too.
fn told(bridge: &str, ports: &[&Port<'_>], shown: &Shown<'_>) -> String {
    let mut contested: Vec<_> = ports.iter().flat_map(|port| port.contested()).map(|of| of.incident).collect();
    contested.sort_by_key(|incident| incident.id);
    contested.dedup_by_key(|incident| incident.id);
    let ties: Vec<_> = contested
        .iter()
        .map(|incident| {
            let parties: Vec<_> = incident.parties.iter().map(super::story::who).collect();
            let decision = incident.decision.as_deref().map(one_line).unwrap_or_default();
            format!(" {} is contested by {}. {decision}", incident.address, parties.join(" and "))
        })
        .collect();
    let part = if shown.pages > 1 { "on this page" } else { "shown" };
    format!("Bridge {bridge}, {} ports {part}.{} The table below has each of them.", ports.len(), ties.concat())
}

fn picture(class: &str, bridge: &str, rows: &[Row<'_>], columns: usize) -> Markup {
    let width = 2 * MARGIN + columns * (CARD + GAP) - GAP;
    let mut y = 0;
    let mut tops = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        tops.push(y);
        y += bar(place) + STUB + height(row) + row.ties.len() * LANE + if row.untied > 0 { 20 } else { 0 } + BETWEEN;
    }
    let height = y - BETWEEN + 6;
    let last = tops.last().copied().unwrap_or_default();
    html! {
        svg class=(class) viewBox=(format!("0 0 {width} {height}")) width=(width) height=(height) role="img"
            aria-label=(format!("Picture of bridge {bridge}")) {
            @if rows.len() > 1 { rect.wood x="0" y="0" width=(BAR) height=(last + BAR) rx="4" {} }
            @for (place, (row, top)) in rows.iter().zip(&tops).enumerate() {
                rect.wood x="0" y=(top) width=(width) height=(bar(place)) rx=(if place == 0 { 8 } else { 3 }) {}
                (row_drawn(row, top + bar(place), width))
            }
            text.bridge-name x=(MARGIN) y="22" { (bridge) }
        }
    }
}

const fn bar(place: usize) -> usize {
    if place == 0 { FIRST_BAR } else { BAR }
}

fn row_drawn(row: &Row<'_>, bar: usize, width: usize) -> Markup {
    let (top, tall) = (bar + STUB, height(row));
    html! {
        @for (at, tie) in row.ties.iter().enumerate().rev() { (tie_drawn(tie, row, top + tall, at, width)) }
        @for (column, port) in row.ports.iter().enumerate() {
            (plug(port, center(column), bar))
            (card(port, left(column), top, tall))
        }
        @if row.untied > 0 {
            text.note.red x=(MARGIN) y=(top + tall + row.ties.len() * LANE + 16) { "and " (row.untied) " more contests" }
        }
    }
}

const fn left(column: usize) -> usize {
    MARGIN + column * (CARD + GAP)
}

const fn center(column: usize) -> usize {
    left(column) + CARD / 2
}

/// A port on the bar with the cable from it. What is dropped is dropped here.
fn plug(port: &Port<'_>, x: usize, bar: usize) -> Markup {
    let dropped = port.contested().any(|of| of.contained.is_some());
    html! {
        path.cable d=(format!("M{x} {bar}v{STUB}")) {}
        rect.wood x=(x - 8) y=(bar - 2) width="16" height="9" rx="2" {}
        @if dropped { g.red { (Glyph::Stop.at(x - 6, bar + 13)) } }
    }
}

fn height(row: &Row<'_>) -> usize {
    row.ports.iter().map(|port| lines(port).iter().map(Line::height).sum::<usize>()).max().unwrap_or_default() + FOOT
}

/// A line on a card.
enum Line {
    Name(String),
    Address(String, Tone),
    Note(String, Tone),
    Fixed(String),
    Air,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tone {
    Calm,
    Red,
    Amber,
    Green,
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Red => "red",
            Self::Amber => "amber",
            Self::Green => "green",
        }
    }
}

impl Line {
    const fn height(&self) -> usize {
        match self {
            Self::Name(_) => NAME_LINE,
            Self::Address(..) => ADDRESS_LINE,
            Self::Note(..) => NOTE_LINE,
            Self::Fixed(_) => FIXED_LINE,
            Self::Air => AIR,
        }
    }
}

fn lines(port: &Port<'_>) -> Vec<Line> {
    let addresses = port.addresses.iter().take(ADDRESSES).flat_map(of_address);
    let more = port.addresses.len().saturating_sub(ADDRESSES);
    let more = (more > 0).then(|| Line::Note(format!("and {more} more addresses"), Tone::Calm));
    let macs = port.macs.iter().take(1).map(|mac| match port.macs.len() {
        1 => (*mac).to_owned(),
        many => format!("{mac} +{}", many - 1),
    });
    let fixed = [one_line(port.name).into_owned()].into_iter().chain(macs).map(|text| Line::Fixed(short(&text, FIXED)));
    [Line::Name(port.who())].into_iter().chain(addresses).chain(more).chain([Line::Air]).chain(fixed).collect()
}

fn of_address(held: &Held<'_>) -> Vec<Line> {
    let vlan = held.vlan.map(|vlan| format!(" vlan {vlan}")).unwrap_or_default();
    let (tone, notes) = match &held.standing {
        Standing::Contested(of) => (Tone::Red, contest(of)),
        Standing::Martian => (Tone::Amber, vec!["martian: cannot be here".to_owned()]),
        Standing::MovedFrom(incident) => (Tone::Green, vec![format!("moved from {}", incident.address)]),
        Standing::Fine => (Tone::Calm, vec![]),
    };
    let notes = notes.iter().map(|note| Line::Note(short(note, NOTE), tone));
    [Line::Address(format!("{}{vlan}", held.address), tone)].into_iter().chain(notes).collect()
}

/// What becomes of one side of a contest.
pub(super) fn contest(of: &Contested<'_>) -> Vec<String> {
    let role = match of.party.role.as_str() {
        "winner" => "keeps it",
        "loser" => "loses it",
        _ => "contested",
    };
    let moving = of.party.new_address.map(|to| format!("moving to {to}"));
    let contained = of.contained.map(|of| match of.dropped {
        Some(dropped) => format!("contained, {dropped} dropped"),
        None => "contained".to_owned(),
    });
    let step = of.eviction.filter(|eviction| eviction.step != "contained").map(|eviction| match eviction.failure {
        Some(_) => format!("{} failed", eviction.step.replace('_', " ")),
        None => format!("step: {}", eviction.step.replace('_', " ")),
    });
    [Some(role.to_owned()), contained, moving, step].into_iter().flatten().collect()
}

fn card(port: &Port<'_>, x: usize, y: usize, tall: usize) -> Markup {
    let tone = port.addresses.first().map_or(Tone::Calm, |held| match held.standing {
        Standing::Contested(_) => Tone::Red,
        Standing::Martian => Tone::Amber,
        _ => Tone::Calm,
    });
    let mut foot = 4;
    let placed = lines(port).into_iter().map(|line| {
        foot += line.height();
        (foot, line)
    });
    let loses = port.contested().any(|of| of.party.role == "loser");
    let kind = match (port.is_host, loses) {
        (true, _) => "host",
        (false, true) => "loses",
        (false, false) => "",
    };
    // A picture within the picture cuts off what is wider than it.
    html! {
        svg x=(x) y=(y) width=(CARD) height=(tall) {
            rect class=(format!("card {} {kind}", tone.class())) x="1" y="1" width=(CARD - 2) height=(tall - 2) rx="10" {}
            @for (y, line) in placed { (written(&line, y)) }
        }
    }
}

fn written(line: &Line, y: usize) -> Markup {
    match line {
        Line::Name(name) => html! {
            text.name x="14" y=(y) { title { (name) } (short(name, NAME)) }
        },
        Line::Address(address, tone) => html! {
            g class=(tone.class()) {
                @if let Some(glyph) = glyph(*tone) { (glyph.at(14, y - 11)) }
                text.address x=(if *tone == Tone::Calm { 14 } else { 31 }) y=(y) { (address) }
            }
        },
        Line::Note(note, tone) => html! { text class=(format!("note {}", tone.class())) x="14" y=(y) { (note) } },
        Line::Fixed(text) => html! { text.fixed x="14" y=(y) { (text) } },
        Line::Air => html! {},
    }
}

const fn glyph(tone: Tone) -> Option<Glyph> {
    match tone {
        Tone::Calm => None,
        Tone::Red | Tone::Amber => Some(Glyph::Alarm),
        Tone::Green => Some(Glyph::Fine),
    }
}

/// A tie with its address on it, and who keeps that and why below it.
fn tie_drawn(tie: &Tie<'_>, row: &Row<'_>, bottom: usize, lane: usize, width: usize) -> Markup {
    let y = bottom + lane * LANE + 26;
    let (Some(first), Some(last)) = (tie.columns.first(), tie.columns.last()) else { return html! {} };
    // Legs of several ties at one card stand beside each other.
    let x = |column: usize| center(column) + lane * 10;
    let (from, to) = (x(*first), if first == last { x(*first) + 60 } else { x(*last) });
    let legs = tie.columns.iter().map(|column| (x(*column), keeps(row, *column, tie)));
    let label = match tie.incident.addresses.len() {
        0 | 1 => tie.incident.address.to_string(),
        many => format!("{} +{}", tie.incident.address, many - 1),
    };
    let pill = label.len() * 9 + 26;
    let middle = usize::midpoint(from, to);
    let decision = tie.incident.decision.as_deref().or(tie.incident.held.as_deref()).unwrap_or("not decided yet");
    let decision = one_line(decision);
    let fits = decision.chars().count() * LETTER / 10 <= width - from.min(width);
    let start = if fits { from } else { MARGIN };
    let words = wrapped(&decision, (width - start) * 10 / LETTER);
    html! {
        g.tie {
            path.line d=(format!("M{from} {y}H{to}")) {}
            @for (x, keeps) in legs {
                path class=(if keeps { "line" } else { "line loses" }) d=(format!("M{x} {}V{y}", bottom - 1)) {}
                circle.knot cx=(x) cy=(y) r="4" {}
            }
            rect.pill x=(middle.saturating_sub(pill / 2)) y=(y - 13) width=(pill) height="26" rx="13" {}
            text.pill-text x=(middle) y=(y + 5) text-anchor="middle" { (label) }
            @for (line, words) in words.iter().enumerate() {
                text.note.red x=(start) y=(y + 28 + line * NOTE_LINE) { (words) }
            }
        }
    }
}

/// Whether who is there keeps the address: the others' legs are broken lines.
fn keeps(row: &Row<'_>, column: usize, tie: &Tie<'_>) -> bool {
    let port = row.ports.get(column);
    let mut of = port.iter().flat_map(|port| port.contested()).filter(|of| of.incident.id == tie.incident.id);
    of.any(|of| of.party.role == "winner")
}

/// Two lines at most, of so many letters each.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let fits = text.char_indices().nth(most).map_or(text.len(), |(end, _)| end);
    let cut = text.get(..fits).and_then(|line| line.rfind(' ')).filter(|_| fits < text.len()).unwrap_or(fits);
    let (first, rest) = text.split_at(cut);
    [first, rest.trim_start()].into_iter().filter(|line| !line.is_empty()).map(|line| short(line, most)).collect()
}

/// So many letters at most.
fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

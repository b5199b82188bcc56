//! What is said besides the picture and the table: how the agent is, what there is to know at a glance, and the incidents
//! one after the other.

use maud::{Markup, html};

use super::glyph::Glyph;
use crate::{
    http::{
        api::{Eviction, Incident, Party},
        look::{Look, State},
    },
    telemetry::one_line,
};

/// Incidents that are shown. Open ones come first.
const INCIDENTS: usize = 20;
/// Contested addresses and parties that are named.
const NAMED: usize = 8;

pub(super) fn title(look: &Look) -> String {
    let bridges = look.state.about.bridges.join(", ");
    match open(look).count() {
        0 => format!("{bridges} · dupip"),
        some => format!("({some}) duplicate · {bridges} · dupip"),
    }
}

fn open(look: &Look) -> impl Iterator<Item = &Incident> {
    look.incidents.iter().filter(|incident| incident.status == "open")
}

pub(super) fn head(look: &Look) -> Markup {
    let bridges = look.state.about.bridges.join(", ");
    html! {
        h1 { "dupip " span { (bridges) } }
        p #connection .chip { "as of " (clock(&look.wall.now())) }
    }
}

/// The one sentence to know, and how the agent is.
pub(super) fn summary(look: &Look) -> Markup {
    let (class, glyph, words) = sentence(look);
    html! {
        p class=(format!("sentence {class}")) { (glyph.inline()) span { (words) } }
        (state(&look.state))
        p #news role="status" aria-live="polite" {}
    }
}

fn sentence(look: &Look) -> (&'static str, Glyph, String) {
    let mut contested: Vec<_> = open(look).flat_map(|incident| &incident.addresses).collect();
    contested.sort();
    contested.dedup();
    let martians = look.rows.iter().filter(|row| row.state == "martian").count();
    match (contested.as_slice(), martians) {
        ([], _) if !look.state.about.waits_for.is_empty() => {
            ("amber", Glyph::Wait, "The agent has not looked at everything yet.".to_owned())
        }
        ([], 0) => ("green", Glyph::Fine, "Every address has one owner.".to_owned()),
        ([], 1) => ("amber", Glyph::Alarm, "Every address has one owner; one claim cannot be true.".to_owned()),
        ([], many) => ("amber", Glyph::Alarm, format!("Every address has one owner; {many} claims cannot be true.")),
        ([address], _) => ("red", Glyph::Alarm, format!("{address} has more than one owner.")),
        (many, _) => ("red", Glyph::Alarm, format!("{} addresses have more than one owner.", many.len())),
    }
}

fn state(state: &State) -> Markup {
    let State { about, paused_until, degraded, lost } = state;
    let mode = match about.mode.as_str() {
        "enforce" => "enforce: acts on duplicates",
        "observe" => "observe: tells, changes nothing",
        other => other,
    };
    html! {
        ul.state aria-label="The agent" {
            li.chip { span { "Mode " b { (mode) } } }
            @match about.waits_for.as_slice() {
                [] => li.chip.green { (Glyph::Fine.inline()) "Ready" },
                waits => li.chip.amber { (Glyph::Wait.inline()) span { "Waits for " (waits.join(" and ")) } },
            }
            @if let Some(until) = paused_until {
                li.chip.amber { (Glyph::Pause.inline()) span { "Paused until " (clock(until)) ": does nothing new" } }
            }
            @for (feature, reason) in degraded {
                li.chip.amber {
                    (Glyph::Alarm.inline()) span { "Degraded: " (feature.replace('_', " ")) ". " (with_code(reason)) }
                }
            }
            @if *lost > 0 {
                li.chip.amber {
                    (Glyph::Alarm.inline()) span { (lost) " claims were not reported; every known address was asked for" }
                }
            }
        }
    }
}

pub(super) fn incidents(look: &Look) -> Markup {
    let mut incidents: Vec<_> = look.incidents.iter().collect();
    incidents.sort_by_key(|incident| (incident.status != "open", std::cmp::Reverse(incident.id)));
    let more = incidents.len().saturating_sub(INCIDENTS);
    html! {
        @if incidents.is_empty() { p.nothing { "None since the agent started." } }
        @else {
            ol.incidents {
                @for incident in incidents.iter().take(INCIDENTS) { li { (told(incident)) } }
            }
        }
        @if more > 0 { p.note { "And " (more) " more: " code { "dupip conflicts" } } }
    }
}

fn told(incident: &Incident) -> Markup {
    let Incident { id, opened, closed, decision, held, times, .. } = incident;
    let (class, glyph, words) = status(incident);
    html! {
        article id=(format!("incident-{id}")) class=(format!("incident {class}")) aria-labelledby=(format!("incident-{id}-title")) {
            h3 id=(format!("incident-{id}-title")) {
                span.mark { (glyph.inline()) (words) }
                " " span.mono { (addresses(incident)) } " on " (domain(incident))
            }
            p.when {
                "Since " (clock(opened))
                @match closed {
                    Some(closed) => { ", until " (clock(closed)) },
                    None => { ", for " span.since data-since=(opened) { "some time" } },
                }
                @if *times > 1 { ", opened " (times) " times" }
                ". Named after " (span(named(incident))) "."
            }
            ul.parties { @for party in incident.parties.iter().take(NAMED) { li { (side(party)) } } }
            @if incident.parties.len() > NAMED { p.note { "and " (incident.parties.len() - NAMED) " more" } }
            p.decision { (with_code(decision.as_deref().unwrap_or("Not decided yet"))) "." }
            @if let Some(held) = held { p.held { "Not healed: " (with_code(held)) "." } }
            @for eviction in incident.evictions.iter().chain(&incident.contained) { (moved(*id, eviction, class == "red")) }
            p.more { "All of it: " code { "dupip explain " (id) } }
        }
    }
}

fn status(incident: &Incident) -> (&'static str, Glyph, String) {
    match (incident.status.as_str(), incident.heal_ms) {
        ("open", _) => ("red", Glyph::Alarm, "Open".to_owned()),
        ("healed", Some(ms)) => ("green", Glyph::Fine, format!("Healed in {}", span(ms))),
        ("gone", _) => ("gone", Glyph::Gone, "Ended by itself".to_owned()),
        (other, _) => ("gone", Glyph::Gone, other.to_owned()),
    }
}

fn addresses(incident: &Incident) -> String {
    let more = incident.addresses.len().saturating_sub(NAMED);
    let named: Vec<_> = incident.addresses.iter().take(NAMED).map(ToString::to_string).collect();
    match (named.as_slice(), more) {
        ([], _) => incident.address.to_string(),
        (_, 0) => named.join(", "),
        (_, more) => format!("{} and {more} more", named.join(", ")),
    }
}

fn domain(incident: &Incident) -> String {
    let vlan = incident.vlan.map(|vlan| format!(", VLAN {vlan}")).unwrap_or_default();
    format!("{}{vlan}", incident.bridge)
}

/// One side, by name, with where it is and what becomes of it.
fn side(party: &Party) -> Markup {
    html! {
        b.who { bdi { (who(party)) } }
        " " span.role { (party.role) }
        @if let Some(to) = party.new_address { " → " span.mono { (to) } }
        " " span.where { (one_line(&party.port)) " " (party.mac) }
    }
}

/// The name of a party.
pub(super) fn who(party: &Party) -> String {
    let nameless = if party.external { "(outside)" } else { &party.port };
    one_line(if party.host { "the host" } else { party.sandbox.as_deref().unwrap_or(nameless) }).into_owned()
}

fn moved(incident: u64, eviction: &Eviction, is_open: bool) -> Markup {
    let Eviction { port, step, steps, failure, strikes, .. } = eviction;
    let who = one_line(eviction.sandbox.as_deref().unwrap_or(port));
    html! {
        details id=(format!("steps-{incident}-{port}")) open[is_open] {
            summary {
                bdi { (who) } ": " (step.replace('_', " "))
                @if let Some(lease) = &eviction.new_lease { ", now " span.mono { (lease.address) } }
                @if *strikes > 0 { ", came back " (strikes) " times within the hour" }
            }
            @if let Some(failure) = failure { p.held { "Failed: " (with_code(failure)) } }
            ol.steps { @for taken in steps { li { (taken.step.replace('_', " ")) " " span.mono { (span(taken.at_ms)) } } } }
        }
    }
}

/// What stands between backticks is to be typed.
fn with_code(words: &str) -> Markup {
    let words = one_line(words);
    html! {
        @for (place, part) in words.split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of hours, to be read by a person")]
fn named(incident: &Incident) -> f64 {
    incident.named_us as f64 / 1e3
}

/// Milliseconds as a person reads them.
fn span(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 120_000.0 => format!("{:.1} s", ms / 1e3),
        ms => format!("{:.0} min", ms / 60e3),
    }
}

/// A moment of the API: the date and the time, to the second.
pub(super) fn clock(at: &str) -> Markup {
    let (date, time) = at.split_once('T').unwrap_or(("", at));
    let time = time.get(..8).unwrap_or(time);
    html! { time datetime=(at) title=(at) { (date) " " (time) " UTC" } }
}

pub(super) fn foot(look: &Look) -> Markup {
    html! {
        p {
            "dupip " (look.state.about.version) ". Leases in " code { (look.state.about.database.display()) } ". "
            "The same for programs: " a href="/api/v1/table" { "table" } ", " a href="/api/v1/incidents" { "incidents" } ", "
            a href="/metrics" { "metrics" } "."
        }
    }
}

//! The ports of a page as a plain table.

use maud::{Markup, html};

use super::{
    glyph::Glyph,
    picture::contest,
    ports::{Held, Port, Shown, Standing},
};
use crate::{http::api::Row, telemetry::one_line};

/// Addresses of one port that are shown.
const ADDRESSES: usize = 8;

pub(super) fn written(shown: &Shown<'_>) -> Markup {
    html! {
        div.scroll role="region" aria-label="Live table" tabindex="0" {
            table {
                caption { "Who has which address: " (shown.ports.len()) " of " (shown.found) " ports" }
                thead {
                    tr {
                        @for title in ["Sandbox", "Address", "State", "Port", "MAC", "Lease", "Since (UTC)"] {
                            th scope="col" { (title) }
                        }
                    }
                }
                @for port in &shown.ports { tbody { (rows(port)) } }
            }
        }
    }
}

fn rows(port: &Port<'_>) -> Markup {
    let more = port.addresses.len().saturating_sub(ADDRESSES);
    html! {
        @for held in port.addresses.iter().take(ADDRESSES) { (row(port, held)) }
        @if more > 0 {
            tr {
                th scope="row" { bdi { (port.who()) } }
                td colspan="6" { "and " (more) " more addresses: " code { "dupip table" } }
            }
        }
    }
}

fn row(port: &Port<'_>, held: &Held<'_>) -> Markup {
    let (class, state) = state(held);
    html! {
        tr class=(class) {
            th scope="row" { bdi { (port.who()) } }
            td.mono {
                (held.address)
                @if let Some(vlan) = held.vlan { " vlan " (vlan) }
            }
            td { (state) }
            td.mono { (place(port)) }
            td.mono { (held.row.map_or("-", |row| &row.mac)) }
            td { (held.row.map_or_else(|| html! { "-" }, lease)) }
            td { @if let Some(row) = held.row { (moment(&row.first_seen)) } @else { "-" } }
        }
    }
}

/// A moment of the API, to the second.
fn moment(at: &str) -> Markup {
    let words = at.get(..19).unwrap_or(at).replace('T', " ");
    html! { time datetime=(at) { (words) } }
}

/// The bridge itself has its own name.
fn place(port: &Port<'_>) -> String {
    if port.is_host { port.bridge.to_owned() } else { format!("{} {}", port.bridge, one_line(port.name)) }
}

fn state(held: &Held<'_>) -> (&'static str, Markup) {
    match &held.standing {
        Standing::Contested(of) => ("red", html! { (Glyph::Alarm.inline()) "duplicate, " (contest(of).join(", ")) }),
        Standing::Martian => ("amber", html! { (Glyph::Alarm.inline()) "martian" }),
        Standing::MovedFrom(incident) => ("green", html! { (Glyph::Fine.inline()) "moved from " (incident.address) }),
        Standing::Fine => ("", html! { "ok" }),
    }
}

fn lease(row: &Row) -> Markup {
    html! {
        @match &row.lease {
            Some(lease) => { bdi { (one_line(&lease.owner)) } " (" (lease.state) ")" },
            None if row.lease_known => { "-" },
            None => { "not known" },
        }
    }
}

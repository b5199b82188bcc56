//! `/`: the bridge as a picture, its incidents and its table, for a person with a browser.
//!
//! Everything is drawn here, so that the page says the same with and without JavaScript; the script fetches the page anew
//! whenever the stream says that there is something new to see, and exchanges what is different. `ports` says who is where,
//! `places` where that goes in the picture, `picture`, `story` and `table` write it down.
//!
//! Names of sandboxes are a stranger's. They are written as text by `maud`, which escapes it, and no policy of the page
//! lets a browser run what is not a file of ours.

mod glyph;
mod picture;
mod places;
mod ports;
mod story;
mod table;
#[cfg(test)]
mod tests;

use axum::{
    Extension, Router,
    extract::{Query, rejection::QueryRejection},
    http::{
        HeaderMap, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
            X_FRAME_OPTIONS,
        },
    },
    response::IntoResponse,
    routing::get,
};
use maud::{DOCTYPE, Markup, html};
use ports::Shown;
use serde::{Deserialize, Serialize};

use super::{
    api::Problem,
    encoded,
    look::{Look, Looks},
};
use crate::agent::Handle;

/// Ports on a page. What is wrong comes first, so that nobody has to turn pages for it.
const PORTS: usize = 60;

/// Nothing that is not a file of ours is run, fetched, shown or framed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What is looked for, and which page of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Wanted {
    /// Part of a sandbox's name, an address, a MAC or a port.
    #[serde(default)]
    find: String,
    /// From 1.
    page: Option<usize>,
}

pub(super) fn routes(looks: &Looks) -> Router<Handle> {
    Router::new()
        .route("/", get(page).layer(Extension(looks.clone())))
        .route("/assets/page.css", get(|| asset("text/css; charset=utf-8", include_str!("page/page.css"))))
        .route("/assets/page.js", get(|| asset("text/javascript; charset=utf-8", include_str!("page/page.js"))))
        .route("/assets/icon.svg", get(|| asset("image/svg+xml", include_str!("page/icon.svg"))))
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    (headers(kind), text)
}

async fn page(
    Extension(looks): Extension<Looks>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Query(wanted) = wanted?;
    let look = looks.latest().await?;
    Ok((headers("text/html; charset=utf-8"), written(&look, &wanted).into_string()))
}

fn headers(kind: &'static str) -> HeaderMap {
    let said = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    said.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect()
}

/// The page. What has an id and the class `live` is what the script exchanges.
fn written(look: &Look, wanted: &Wanted) -> Markup {
    let shown = ports::shown(look, &wanted.find, wanted.page.unwrap_or(1), PORTS);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (story::title(look)) }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/page.css";
                script src="/assets/page.js" defer {}
            }
            body data-revision=(look.revision) data-cursor=(look.cursor) data-version=(look.state.about.version) {
                a.skip href="#table" { "Skip to the table" }
                header { (story::head(look)) }
                main {
                    div #summary .live { (story::summary(look)) }
                    section aria-labelledby="ports-title" {
                        div.bar {
                            h2 #ports-title { "On the bridge" }
                            (search(wanted))
                        }
                        div #ports .live { (drawn(&shown)) (turning(&shown, wanted)) }
                    }
                    section aria-labelledby="incidents-title" {
                        h2 #incidents-title { "Incidents" }
                        div #incidents .live { (story::incidents(look)) }
                    }
                    section aria-labelledby="table-title" {
                        h2 #table-title { "Live table" }
                        div #table .live tabindex="-1" { (table::written(&shown)) (turning(&shown, wanted)) }
                    }
                }
                footer { (story::foot(look)) }
            }
        }
    }
}

fn search(wanted: &Wanted) -> Markup {
    html! {
        form role="search" method="get" action="/" {
            label for="find" { "Find" }
            input #find type="search" name="find" value=(wanted.find) maxlength="100" autocomplete="off"
                placeholder="name, address, MAC or port";
            button type="submit" { "Find" }
            @if !wanted.find.is_empty() { a href="/" { "Show all" } }
        }
    }
}

/// One picture for each bridge of which there is something to show.
fn drawn(shown: &Shown<'_>) -> Markup {
    let bridges = shown.by_bridge();
    html! {
        @for (bridge, ports) in &bridges { (picture::drawn(bridge, ports, shown)) }
        @if bridges.is_empty() {
            p.nothing {
                @if shown.find.is_empty() { "Nobody has shown an address yet." }
                @else { "Nothing here has “" (shown.find) "” in its name, address, MAC or port." }
            }
        }
    }
}

/// Which of the ports these are, and the way to the others.
fn turning(shown: &Shown<'_>, wanted: &Wanted) -> Markup {
    let to = |page: usize| match wanted.find.as_str() {
        "" => format!("/?page={page}"),
        find => format!("/?find={}&page={page}", encoded(find)),
    };
    html! {
        @if shown.pages > 1 {
            nav.pages aria-label="Pages" {
                @if shown.page > 1 { a rel="prev" href=(to(shown.page - 1)) { "← Before" } }
                span {
                    "Ports " (shown.before + 1) " to " (shown.before + shown.ports.len()) " of " (shown.found)
                    @if shown.find.is_empty() { ", what is wrong first" }
                }
                @if shown.page < shown.pages { a rel="next" href=(to(shown.page + 1)) { "Next →" } }
            }
        }
        @if !shown.is_whole {
            p.note { "The table is longer than what is looked at here. " code { "dupip table" } " shows all of it." }
        }
    }
}

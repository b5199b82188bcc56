//! What a running agent says.

use serde::Deserialize;

use super::{Part, within};
use crate::http::Client;

/// The latest incidents whose whole story is told.
const STORIES: usize = 50;

/// What is asked for, and what it is.
const QUESTIONS: [(&str, &str, &str); 10] = [
    ("agent/about.json", "/api/v1/about", "the agent's version, mode and bridges"),
    ("agent/settings.json", "/api/v1/settings", "what the agent goes by, and who says so"),
    ("agent/table.json", "/api/v1/table", "the live table"),
    ("agent/incidents.json", "/api/v1/incidents", "incidents, open and lately closed"),
    ("agent/events.json", "/api/v1/events?limit=1000", "the latest events"),
    ("agent/metrics.txt", "/metrics", "metrics"),
    ("agent/quarantine.json", "/api/v1/quarantine", "whose claims are dropped"),
    ("agent/pause.json", "/api/v1/pause", "whether it is paused"),
    ("agent/leases.json", "/api/v1/leases", "leases, as the agent has them"),
    ("agent/readyz.txt", "/readyz", "whether its word counts"),
];

/// An incident, by its number.
#[derive(Deserialize)]
struct Numbered {
    id: u64,
}

pub(super) async fn parts(client: &Client) -> Vec<Part> {
    let mut parts = Vec::new();
    for (name, path, about) in QUESTIONS {
        parts.push(within(name, about, text(client, path)).await);
    }
    for number in numbers(&parts) {
        let (name, path) = (format!("agent/incidents/{number}.json"), format!("/api/v1/incidents/{number}"));
        parts.push(within(name, "the story of one incident", text(client, &path)).await);
    }
    parts
}

async fn text(client: &Client, path: &str) -> Result<Vec<u8>, String> {
    client.text(path).await.map(String::into_bytes).map_err(|error| error.to_string())
}

/// The newest incidents' numbers.
fn numbers(parts: &[Part]) -> Vec<u64> {
    let listed = parts.iter().find(|part| part.name == "agent/incidents.json");
    let listed = listed.and_then(|part| part.content.as_deref().ok());
    let incidents: Vec<Numbered> = listed.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    let mut numbers: Vec<_> = incidents.into_iter().map(|incident| incident.id).collect();
    numbers.sort_unstable_by(|one, other| other.cmp(one));
    numbers.truncate(STORIES);
    numbers
}

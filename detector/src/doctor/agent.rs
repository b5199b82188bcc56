//! A running agent.

use std::path::Path;

use super::{Check, Lack};
use crate::{
    http::{
        Client, ClientError,
        api::{About, Paused},
    },
    telemetry::degraded_in,
};

pub(super) async fn examine(socket: &Path) -> Vec<Check> {
    const NAME: &str = "agent.reachable";
    let client = Client::new(socket);
    let checks = match client.ask::<About>("/api/v1/about").await {
        Ok(about) => {
            let metrics = client.text("/metrics").await;
            // An agent that does not answer this knows no pause.
            let paused = client.ask::<Paused>("/api/v1/pause").await.ok().and_then(|paused| paused.until);
            running(&about)
                .into_iter()
                .chain(paused.map(paused_until))
                .chain(metrics.map(|text| degraded(&text)).unwrap_or_default())
                .collect()
        }
        Err(error @ ClientError::Unreachable { .. }) => {
            vec![
                Check::warning(NAME, error.to_string())
                    .cure("start it with `dupip run --bridge rt0`, if one should run"),
            ]
        }
        Err(error @ ClientError::NotPermitted(_)) => {
            vec![Check::missing(NAME, Lack::Permission, error.to_string()).cure("run as root or in group dupip")]
        }
        Err(error) => vec![Check::warning(NAME, error.to_string()).cure("systemctl restart dupip")],
    };
    checks.into_iter().map(|check| check.of(socket.display())).collect()
}

fn running(about: &About) -> Vec<Check> {
    let About { version, mode, bridges, waits_for, .. } = about;
    let bridges = bridges.join(", ");
    let runs = Check::ok("agent.reachable", format!("dupip {version} watches {bridges} in mode {mode}"));
    let ready = match waits_for.as_slice() {
        [] => Check::ok("agent.ready", "every port has a tap and every sandbox has been looked at"),
        waits => {
            Check::warning("agent.ready", format!("its word does not count yet: it waits for {}", waits.join(", ")))
                .cure("wait a moment; if it stays like that, its log says why")
        }
    };
    vec![runs, ready]
}

fn paused_until(until: String) -> Check {
    Check::warning("agent.paused", format!("duplicates are told of, and nothing new is done until {until}"))
        .cure("go on with `dupip pause --end`")
}

fn degraded(metrics: &str) -> Vec<Check> {
    const NAME: &str = "agent.degraded";
    let less = |feature: &str| {
        Check::warning(NAME, format!("the agent cannot do `{feature}` fully"))
            .cure("its log and `dupip events` say why")
    };
    match degraded_in(metrics).as_slice() {
        [] => vec![Check::ok(NAME, "the agent can do all that it does")],
        features => features.iter().map(|feature| less(feature)).collect(),
    }
}

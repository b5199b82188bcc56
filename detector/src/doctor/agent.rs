//! A running agent.

use std::path::Path;

use super::{
    Check, Lack,
    topics::{self, Topic},
};
use crate::{
    http::{
        Client, ClientError,
        api::{About, Paused},
    },
    telemetry::{PoolRoom, degraded_in, rooms_in},
};

/// A pool with less than one in so many addresses left is soon empty.
const SPARE: u64 = 10;

pub(super) async fn examine(socket: &Path) -> Vec<Check> {
    const NAME: &Topic = topics::AGENT_REACHABLE;
    let client = Client::new(socket);
    let checks = match client.ask::<About>("/api/v1/about").await {
        Ok(about) => {
            let metrics = client.text("/metrics").await;
            // An agent that does not answer this knows no pause.
            let paused = client.ask::<Paused>("/api/v1/pause").await.ok().and_then(|paused| paused.until);
            let of_metrics = metrics.map(|text| [degraded(&text), pools(&text)].concat());
            running(&about)
                .into_iter()
                .chain([version(&about.version, env!("CARGO_PKG_VERSION"))])
                .chain(paused.map(paused_until))
                .chain(of_metrics.unwrap_or_default())
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
    let named = |check: Check| if check.subject.is_some() { check } else { check.of(socket.display()) };
    checks.into_iter().map(named).collect()
}

fn running(about: &About) -> Vec<Check> {
    let About { version, mode, bridges, waits_for, .. } = about;
    let bridges = bridges.join(", ");
    let runs = Check::ok(topics::AGENT_REACHABLE, format!("dupip {version} watches {bridges} in mode {mode}"));
    let ready = match waits_for.as_slice() {
        [] => Check::ok(topics::AGENT_READY, "every port has a tap and every sandbox has been looked at"),
        waits => Check::warning(
            topics::AGENT_READY,
            format!("its word does not count yet: it waits for {}", waits.join(", ")),
        )
        .cure("wait a moment; if it stays like that, its log says why"),
    };
    vec![runs, ready]
}

fn paused_until(until: String) -> Check {
    Check::warning(topics::AGENT_PAUSED, format!("duplicates are told of, and nothing new is done until {until}"))
        .cure("go on with `dupip pause --end`")
}

fn version(agent: &str, own: &str) -> Check {
    const NAME: &Topic = topics::AGENT_VERSION;
    match agent == own {
        true => Check::ok(NAME, format!("the agent and this program are of version {own}")),
        false => Check::warning(NAME, format!("the agent is of version {agent}, and this program of {own}"))
            .cure("systemctl restart dupip, if the agent was upgraded; else call the other program (type -a dupip)"),
    }
}

fn pools(metrics: &str) -> Vec<Check> {
    rooms_in(metrics).into_iter().map(|(pool, room)| pool_with(room).of(pool)).collect()
}

fn pool_with(PoolRoom { size, taken }: PoolRoom) -> Check {
    const NAME: &Topic = topics::POOL;
    let left = size.saturating_sub(taken);
    match left {
        0 if size == 0 => Check::ok(NAME, "has no addresses to lease"),
        0 => Check::warning(
            NAME,
            format!("none of {size} addresses is left: no sandbox gets one, and no loser can be moved"),
        )
        .cure("dupip lease check --report r.json && dupip lease reclaim --from-report r.json, or a greater pool"),
        _ if left * SPARE < size => Check::warning(NAME, format!("{left} of {size} addresses are left"))
            .cure("dupip lease list shows who has them; dupip lease check finds those that nobody uses"),
        _ => Check::ok(NAME, format!("{left} of {size} addresses are left")),
    }
}

fn degraded(metrics: &str) -> Vec<Check> {
    const NAME: &Topic = topics::AGENT_DEGRADED;
    let less = |feature: &str| {
        Check::warning(NAME, format!("the agent cannot do `{feature}` fully"))
            .cure("its log and `dupip events` say why")
    };
    match degraded_in(metrics).as_slice() {
        [] => vec![Check::ok(NAME, "the agent can do all that it does")],
        features => features.iter().map(|feature| less(feature)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn a_pool_that_is_nearly_used_up_is_told() {
        let status = |size, taken| pool_with(PoolRoom { size, taken }).status;
        assert_eq!([(0, 0), (253, 0), (253, 200)].map(|(size, taken)| status(size, taken)), [Status::Ok; 3]);
        assert_eq!([(253, 253), (253, 250), (5, 9)].map(|(size, taken)| status(size, taken)), [Status::Warning; 3]);
    }

    #[test]
    fn an_agent_of_another_version_is_told() {
        assert_eq!((version("1.0", "1.0").status, version("1.0", "1.1").status), (Status::Ok, Status::Warning));
    }
}

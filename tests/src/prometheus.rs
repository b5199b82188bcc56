//! The real Prometheus on a runner, with the project's own scrape configuration and rules.

use std::{fmt, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::{Process, Runner, agent::exchange, wait_until};

/// Where it listens: the loopback device is the runner's own.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);
/// How long it may take to come up. It is about a second on a machine that does little else.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the newer face of Prometheus shows the alerts, and where the older does.
const PAGES: [&str; 2] = ["/alerts", "/classic/alerts"];

/// How much faster than on a real runner everything goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often agents are scraped and rules are judged.
    pub every: Duration,
    /// What the time is divided by for which an alert must be pending (`for`).
    pub sooner: u32,
}

/// Prometheus, killed when this value goes.
#[derive(Debug)]
pub struct Prometheus {
    runner: Runner,
    process: Process,
}

/// What an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertState {
    /// Its condition does not hold.
    Inactive,
    /// Its condition holds, and not yet for long enough.
    Pending,
    /// It would be sent.
    Firing,
}

impl Prometheus {
    /// Starts Prometheus with what is in `folder` (`prometheus.yml` and the rule files that it names), at another pace, and
    /// waits until it is ready.
    ///
    /// # Errors
    /// If a file cannot be read, or it does not become ready; the error shows its log.
    pub fn start(runner: &Runner, folder: &Path, pace: Pace) -> Result<Self> {
        let config = runner.dir().join("prometheus");
        copy(folder, &runner.outside(&config), pace)?;
        let process = runner.command("prometheus").args([
            &format!("--config.file={}", config.join("prometheus.yml").display()),
            &format!("--storage.tsdb.path={}", config.join("data").display()),
            &format!("--web.listen-address={LISTEN}"),
            "--log.level=warn",
        ]);
        let mut prometheus = Self { runner: runner.clone(), process: process.spawn()? };
        prometheus.wait(PATIENCE, "Prometheus to be ready", |prometheus| {
            ensure!(prometheus.process.is_running()?, "Prometheus has ended");
            Ok(prometheus.exchange("/-/ready").is_ok_and(|(status, _)| status == 200).then_some(()))
        })?;
        Ok(prometheus)
    }

    /// Where it listens on the runner.
    #[must_use]
    pub const fn listen(&self) -> SocketAddr {
        LISTEN
    }

    /// The page on which a browser shows the alerts. Debian builds Prometheus with the older of its two faces.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn alerts_page(&self) -> Result<&'static str> {
        let [newer, older] = PAGES;
        let (status, _) = self.exchange(newer)?;
        Ok(if status == 200 { newer } else { older })
    }

    /// Asks its API, as in `rules`: what it calls `data`.
    ///
    /// # Errors
    /// If it does not answer, or answers with an error.
    pub fn ask(&self, question: &str) -> Result<Value> {
        let (status, body) = self.exchange(&format!("/api/v1/{question}"))?;
        ensure!(status == 200, "Prometheus answers {question} with status {status}: {body}");
        let mut answer: Value = serde_json::from_str(&body)?;
        answer.get_mut("data").map(Value::take).with_context(|| format!("no data in {body}"))
    }

    /// The series that an expression comes to now.
    ///
    /// # Errors
    /// If it is not understood, or is no series.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let words = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        match self.ask(&format!("query?query={words}"))?.get_mut("result").map(Value::take) {
            Some(Value::Array(series)) => Ok(series),
            other => bail!("`{expression}` comes to no series: {other:?}"),
        }
    }

    /// The alert rules, as its API tells them.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn alert_rules(&self) -> Result<Vec<Value>> {
        let answer = self.ask("rules?type=alert")?;
        let groups = answer.get("groups").and_then(Value::as_array).into_iter().flatten();
        Ok(groups.filter_map(|group| group.get("rules")?.as_array()).flatten().cloned().collect())
    }

    /// What an alert is now.
    ///
    /// # Errors
    /// If there is no such alert.
    pub fn alert(&self, name: &str) -> Result<AlertState> {
        let rules = self.alert_rules()?;
        let rule = rules.iter().find(|rule| rule.get("name").is_some_and(|of| of == name));
        let state = rule.and_then(|rule| rule.get("state")?.as_str());
        AlertState::read(state.with_context(|| format!("there is no alert {name}"))?)
    }

    /// Waits until an alert is in this state.
    ///
    /// # Errors
    /// If it is not in time; the error shows the log.
    pub fn wait_alert(&mut self, name: &str, state: AlertState, deadline: Duration) -> Result<()> {
        let what = format!("{name} to be {state}");
        self.wait(deadline, &what, |prometheus| Ok((prometheus.alert(name)? == state).then_some(())))
    }

    /// When an alert was pending or firing first, by Prometheus' clock in seconds, and when last.
    ///
    /// # Errors
    /// If Prometheus does not answer.
    pub fn times(&self, name: &str, state: AlertState) -> Result<Option<(f64, f64)>> {
        let series = self.query(&format!("ALERTS{{alertname=\"{name}\",alertstate=\"{state}\"}}[1h]"))?;
        let values = series.iter().filter_map(|series| series.get("values")?.as_array()).flatten();
        let times: Vec<f64> = values.filter_map(|value| value.get(0)?.as_f64()).collect();
        Ok(times.iter().copied().reduce(f64::min).zip(times.iter().copied().reduce(f64::max)))
    }

    /// Looks at it again and again until there is something, and returns it.
    ///
    /// # Errors
    /// If there is nothing within `deadline`, or if a look fails; the error shows its log.
    pub fn wait<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        wait_until(deadline, what, || look(self)).map_err(|error| self.process.explain(error))
    }

    fn exchange(&self, path: &str) -> Result<(u16, String)> {
        self.runner.inside(|| exchange(LISTEN, path))
    }
}

impl AlertState {
    fn read(word: &str) -> Result<Self> {
        let all = [Self::Inactive, Self::Pending, Self::Firing];
        all.into_iter().find(|state| state.to_string() == word).with_context(|| format!("no state of an alert: {word}"))
    }
}

impl fmt::Display for AlertState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        })
    }
}

/// Copies the files of a folder, at another pace.
fn copy(from: &Path, to: &Path, pace: Pace) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        if let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|ending| ending == "yml")) {
            fs::write(to.join(name), at_pace(&fs::read_to_string(&path)?, pace)?)?;
        }
    }
    Ok(())
}

/// The same configuration or rules, with other intervals and `for` times and nothing else changed.
fn at_pace(text: &str, pace: Pace) -> Result<String> {
    let line = |line: &str| {
        let (key, value) = line.split_once(": ").unwrap_or((line, ""));
        Ok(match key.trim_start() {
            "scrape_interval" | "evaluation_interval" => format!("{key}: {}ms\n", pace.every.as_millis()),
            "for" => format!("{key}: {}ms\n", (duration(value)? / pace.sooner).as_millis()),
            _ => format!("{line}\n"),
        })
    };
    text.lines().map(line).collect()
}

/// A time as our rules write it, such as `30s`.
fn duration(text: &str) -> Result<Duration> {
    let unit = text.trim_start_matches(|sign: char| sign.is_ascii_digit());
    let number: u64 = text.strip_suffix(unit).unwrap_or(text).parse().with_context(|| format!("no time: {text}"))?;
    Ok(Duration::from_secs(match unit {
        "s" => number,
        "m" => number * 60,
        "h" => number * 3600,
        _ => bail!("no unit of time in `{text}`"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pace_is_changed() {
        let pace = Pace { every: Duration::from_millis(250), sooner: 10 };
        let text =
            "global:\n  scrape_interval: 15s\nx:\n  - expr: a[5m] for: 3\n    for: 2m\n    summary: \"for: all\"\n";
        let changed = "global:\n  scrape_interval: 250ms\nx:\n  - expr: a[5m] for: 3\n    for: 12000ms\n    summary: \"for: all\"\n";
        assert_eq!(at_pace(text, pace).unwrap(), changed);
        assert!(at_pace("for: soon", pace).unwrap_err().to_string().contains("soon"));
    }
}

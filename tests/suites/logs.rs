//! What the agent logs: one line for each event, by its name, and never one for each frame.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use lab::{Agent, Arp, Bridge, Dupip, MacAddr, Mode, Runner};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(20);
const FLOODER: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xf0);
/// Frames of a flood: what a port may say at once that is new.
const FLOOD: u32 = 1000;
/// Lines of one event and port within a minute, with their counts: a few told, and each counted once.
const MOST: usize = 20;
/// The page for operators.
const PAGE: &str = include_str!("../../detector/packaging/events.md");

fn rt0() -> Result<Bridge> {
    Runner::new()?.bridge("rt0", "10.8.64.1/24")
}

/// The levels of all events, by their names.
fn documented() -> BTreeMap<&'static str, &'static str> {
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`'), cells.next()?))
    };
    PAGE.lines().filter_map(row).collect()
}

fn lines(log: &str) -> Result<Vec<Value>> {
    log.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line:?}"))).collect()
}

#[test]
fn every_line_of_json_has_time_level_event_and_message() -> Result<()> {
    let bridge = rt0()?;
    let mut agent = Dupip::on(&bridge)?.logging("debug").start_with(Mode::Enforce, &["--log-format", "json"])?;
    bridge.sandbox("evil\u{1b}[2J\"").address("10.8.64.2/24").start()?.send_frame(&[0; 60])?;
    let _duplicate = bridge.duplicate(["evil\u{1b}[31m\\\"", "reviewagent"], "10.8.64.3/24")?;
    agent.wait_for_line("both use 10.8.64.3", DEADLINE)?;
    let (log, documented) = (agent.last_words()?, documented());
    let lines = lines(&log)?;
    for line in &lines {
        let Some(event) = line["event"].as_str() else {
            // Libraries log too, and only if they are asked to.
            assert!(["DEBUG", "TRACE"].iter().any(|level| line["level"] == *level), "{line}");
            continue;
        };
        let level = documented.get(event).with_context(|| format!("{event} is not in packaging/events.md"))?;
        assert_eq!(line["level"].as_str().map(str::to_lowercase).as_deref(), Some(*level), "{line}");
        assert!(line["timestamp"].is_string() && line["message"].is_string(), "{line}");
    }
    let duplicate = lines.iter().find(|line| line["event"] == "duplicate").context("no duplicate")?;
    assert_eq!((&duplicate["incident"], &duplicate["address"]), (&1.into(), &"10.8.64.3".into()));
    let words = duplicate["message"].as_str().unwrap_or_default();
    assert!(words.contains("evil") && !words.contains('\u{1b}'), "{words:?}");
    Ok(())
}

#[test]
fn every_line_of_text_is_one_event_and_no_name_breaks_it() -> Result<()> {
    let bridge = rt0()?;
    let mut agent = Dupip::on(&bridge)?.logging("info").start(Mode::Observe)?;
    let _duplicate = bridge.duplicate(["evil\u{1b}[31m\u{7f}event=healed", "reviewagent"], "10.8.64.3/24")?;
    agent.wait_for_line("both use 10.8.64.3", DEADLINE)?;
    let (log, documented) = (agent.last_words()?, documented());
    for line in log.lines() {
        assert!(!line.contains(char::is_control), "{line:?}");
        let named =
            |name: &&str| line.contains(&format!("event=\"{name}\"")) || line.contains(&format!("event={name} "));
        assert!(documented.keys().any(named), "no event in {line:?}");
    }
    Ok(())
}

fn count(agent: &Agent, kind: &str) -> Result<f64> {
    Ok(agent.metric(&format!("dupip_findings_total{{kind=\"{kind}\"}}"))?.unwrap_or_default())
}

#[test]
fn a_flood_is_a_few_lines_and_every_event_is_in_a_count() -> Result<()> {
    let bridge = rt0()?;
    let mut agent = Dupip::on(&bridge)?.logging("info").start_with(Mode::Observe, &["--log-format", "json"])?;
    let sandbox = bridge.sandbox("flooder").address("10.8.64.2/24").start()?;
    let martian = |number: u32| {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(192, 0, 2, 0).to_bits() + number);
        Arp::announcement(FLOODER, address).frame()
    };
    sandbox.flood((0..FLOOD).map(martian))?;
    agent.wait_until(DEADLINE, "the flood to be counted", |agent| {
        let claimed = agent.metric("dupip_claims_total{bridge=\"rt0\",kind=\"gratuitous_request\"}")?;
        Ok(claimed.is_some_and(|claimed| claimed >= f64::from(FLOOD)).then_some(()))
    })?;
    agent.wait_until(DEADLINE, "martians to be told", |agent| Ok((count(agent, "martian")? > 100.0).then_some(())))?;
    let told = agent.wait_until(DEADLINE, "the last of them", |agent| {
        let before = count(agent, "martian")?;
        agent.http("/api/v1/table")?;
        Ok((count(agent, "martian")? == before).then_some(before))
    })?;
    let lines = lines(&agent.last_words()?)?;
    let mut by_event: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for line in &lines {
        by_event.entry(line["event"].as_str().context("a line without an event")?).or_default().push(line);
    }
    for (event, lines) in &by_event {
        assert!(lines.len() <= MOST, "{} lines of {event}", lines.len());
    }
    let martians = by_event.get("martian").context("no martian")?;
    let said = |line: &&Value| line["repeats"].as_u64().unwrap_or(1);
    assert!(martians.len() < 12, "{martians:#?}");
    assert!(martians.iter().map(said).sum::<u64>() as f64 >= told, "{told} were counted: {martians:#?}");
    Ok(())
}

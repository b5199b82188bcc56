//! The demo as a person or a script runs it, and that the machine is afterwards as it was.
//!
//! One test: the machine's programs and links are looked at, so nothing else may come and go meanwhile.

#![expect(clippy::unwrap_used, reason = "what a test needs and does not get fails the test")]

use std::{
    io::{BufRead as _, BufReader, Lines, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lab::{Snapshot, wait_until};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(20);

fn demo(flags: &[&str]) -> Command {
    let built = std::env::var_os("DUPIP_BIN").map(PathBuf::from);
    let built = built.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_xtask")).with_file_name("dupip"));
    let mut demo = Command::new(env!("CARGO_BIN_EXE_xtask"));
    demo.arg("demo").arg("--built").arg(built).args(flags);
    demo
}

fn facts(flags: &[&str]) -> Result<Value> {
    let output = demo(flags).args(["-o", "json"]).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn names(facts: &Value) -> Vec<&str> {
    let parties = facts.pointer("/incident/parties").and_then(Value::as_array).into_iter().flatten();
    parties.filter_map(|party| party.get("sandbox")?.as_str()).collect()
}

fn heals() -> Result<()> {
    let facts = facts(&[])?;
    assert_eq!(facts.pointer("/incident/healed"), Some(&json!(true)), "{facts:#}");
    assert!(["sportsagent", "reviewagent"].iter().all(|name| names(&facts).contains(name)), "{facts:#}");
    assert_eq!(facts.get("duplicate_ip_total"), Some(&json!(1)), "{facts:#}");
    assert!(facts.get("heal_ms").and_then(Value::as_f64).is_some_and(|ms| ms > 0.0), "{facts:#}");
    assert!(facts.get("contained_ms").and_then(Value::as_f64).is_some_and(|ms| ms > 0.0), "{facts:#}");
    let echoes = facts.pointer("/connection/echoes").and_then(Value::as_u64);
    assert!(echoes.is_some_and(|count| count > 0), "the winner's connection carried data all the while: {facts:#}");
    let none_lost = json!({ "sportsagent": 0, "reviewagent": 0, "calagent": 0 });
    assert_eq!(facts.get("gateway_ping_loss"), Some(&none_lost), "{facts:#}");
    assert_eq!(facts.pointer("/before/owners").and_then(Value::as_array).map(Vec::len), Some(2), "{facts:#}");
    Ok(())
}

fn only_observes() -> Result<()> {
    let facts = facts(&["--observe"])?;
    assert_eq!(facts.pointer("/incident/healed"), Some(&json!(false)), "{facts:#}");
    assert_eq!((facts.get("contained_ms"), facts.get("connection")), (Some(&Value::Null), Some(&Value::Null)));
    assert_eq!(facts.pointer("/addresses/before"), facts.pointer("/addresses/after"), "{facts:#}");
    assert_eq!(facts.get("duplicate_ip_total"), Some(&json!(1)), "{facts:#}");
    Ok(())
}

fn stops_when_interrupted(before: &Snapshot) -> Result<()> {
    let mut demo = demo(&[]).stdout(Stdio::piped()).spawn()?;
    let mut story = BufReader::new(demo.stdout.take().context("no output")?).lines();
    let running = story.find(|line| line.as_ref().is_ok_and(|line| line.contains("watches every port")));
    assert!(running.is_some(), "the agent was never started");
    Command::new("kill").args(["-INT", &demo.id().to_string()]).status()?;
    assert!(!demo.wait()?.success());
    before.wait_restored(DEADLINE)
}

fn stays_until_removed(before: &Snapshot) -> Result<()> {
    let facts = facts(&["--keep"])?;
    let word = |name: &str| facts.pointer(&format!("/kept/{name}")).and_then(Value::as_str).unwrap().to_owned();
    let run = |line: String| Command::new("sh").args(["-c", &line]).output();
    let inside = run(format!("{} ip netns exec sportsagent ping -c 1 10.8.64.1", word("enter")))?;
    let removed = run(word("remove"))?;
    assert!(inside.status.success() && removed.status.success(), "{inside:?} {removed:?}");
    let holder = facts.pointer("/kept/holder").and_then(Value::as_u64).context("no holder")?;
    let gone = || Ok((!std::fs::exists(format!("/proc/{holder}/ns/net"))?).then_some(()));
    wait_until(DEADLINE, "the lab to be gone", gone)?;
    before.wait_restored(DEADLINE)
}

/// What a server answers on its whole page, and with which status line.
fn get(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").context("no http")?;
    let (host, path) = rest.split_once('/').context("no path")?;
    let mut stream = TcpStream::connect(host).with_context(|| format!("nobody listens on {host}"))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The address that a line of the story ends with.
fn address<'a>(story: &'a [String], of: &str) -> Result<&'a str> {
    let line = story.iter().find(|line| line.contains(of)).with_context(|| format!("no {of} in {story:#?}"))?;
    line.split_whitespace().next_back().context("an empty line")
}

/// A demo with Prometheus, and what it has told. It would fail if nobody were there to hear the rest.
struct Watched {
    demo: Child,
    told: Vec<String>,
    _rest: Lines<BufReader<ChildStdout>>,
}

impl Watched {
    /// Starts it and reads its story up to a line with these words.
    fn until(flags: &[&str], words: &str) -> Result<Self> {
        let mut demo = demo(flags).arg("--prometheus").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(demo.stdout.take().context("no output")?).lines();
        let (mut told, mut is_there) = (Vec::new(), false);
        for line in lines.by_ref() {
            told.push(line?);
            is_there = told.last().is_some_and(|line| line.contains(words));
            if is_there {
                break;
            }
        }
        assert!(is_there, "no `{words}` in {told:#?}");
        Ok(Self { demo, told, _rest: lines })
    }

    fn interrupt(&mut self) -> Result<ExitStatus> {
        Command::new("kill").args(["-INT", &self.demo.id().to_string()]).status()?;
        Ok(self.demo.wait()?)
    }
}

fn shows_an_alert_to_a_browser(before: &Snapshot) -> Result<()> {
    let mut watched = Watched::until(&["--keep"], "until Ctrl-C")?;
    let story = &watched.told;
    let states: Vec<_> =
        story.iter().filter_map(|line| line.strip_prefix("    DuplicateAddressNotHealed is ")).collect();
    let states: Vec<_> = states.into_iter().filter(|state| state.ends_with('.')).collect();
    assert_eq!(states, ["inactive.", "pending.", "firing.", "inactive."], "{story:#?}");
    let metrics = get(address(story, "its metrics")?)?;
    assert!(metrics.contains("\ndupip_heal_seconds_count 1\n"), "{metrics}");
    let alerts = get(address(story, "Prometheus' alerts")?)?;
    assert!(alerts.starts_with("HTTP/1.0 200") && alerts.contains("DuplicateAddress"), "{alerts}");
    assert!(watched.interrupt()?.success(), "it ends well when it is told to");
    before.wait_restored(DEADLINE)
}

fn stops_while_an_alert_is_awaited(before: &Snapshot) -> Result<()> {
    let mut watched = Watched::until(&[], "is pending")?;
    let url = address(&watched.told, "its metrics")?.to_owned();
    assert!(get(&url)?.contains("duplicate_ip_active"));
    assert!(!watched.interrupt()?.success());
    before.wait_restored(DEADLINE)?;
    assert!(get(&url).is_err(), "somebody still listens at {url}");
    Ok(())
}

#[test]
fn the_demo_keeps_its_promises_and_leaves_nothing() -> Result<()> {
    assert!(is_root(), "the demo makes namespaces and loads eBPF programs: run this as root");
    let before = Snapshot::take()?;
    heals()?;
    before.wait_restored(DEADLINE)?;
    only_observes()?;
    before.wait_restored(DEADLINE)?;
    stops_when_interrupted(&before)?;
    stays_until_removed(&before)?;
    shows_an_alert_to_a_browser(&before)?;
    stops_while_an_alert_is_awaited(&before)
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

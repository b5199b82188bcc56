//! What programs ask of an agent over HTTP: whether it answers as it is described, and whether strangers are kept out.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use jsonschema::Validator;
use lab::{Agent, Bridge, Dupip, Mode, Sandbox};
use serde_json::{Value, json};

use crate::agent::{DEADLINE, field, runner};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// Where the agent answers besides loopback: the host's address on the bridge.
const OUTSIDE: &str = "10.8.64.1:9443";

/// A validator for one schema of the document, which lets no field pass that is not described.
fn validator(document: &Value, schema: &Value) -> Result<Validator> {
    let mut whole = schema.clone();
    let mut components = field(document, "components").clone();
    let schemas = components.get_mut("schemas").and_then(Value::as_object_mut).context("no schemas")?;
    // A lease is also a part of what says more.
    for (_, schema) in schemas.iter_mut().filter(|(name, _)| *name != "Lease") {
        schema.as_object_mut().context("no schema")?.insert("unevaluatedProperties".to_owned(), json!(false));
    }
    whole.as_object_mut().context("no schema")?.insert("components".to_owned(), components);
    Ok(jsonschema::draft202012::options().should_validate_formats(true).build(&whole)?)
}

fn assert_described(document: &Value, path: &str, status: &str, answer: &Value) -> Result<()> {
    let content = ["paths", path, "get", "responses", status, "content"].into_iter().fold(document, field);
    let schema = content.as_object().and_then(|content| content.values().next()).context("no content")?;
    let validator = validator(document, field(schema, "schema"))?;
    let errors: Vec<_> =
        validator.iter_errors(answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
    ensure!(errors.is_empty(), "{path} answers otherwise than it says: {errors:#?}\n{answer:#}");
    // What is no answer of this kind must not pass.
    let mut broken = if answer.is_array() { json!([{}]) } else { json!([]) };
    ensure!(!validator.is_valid(&broken), "{path}: any answer would do");
    broken = answer.get(0).unwrap_or(answer).clone();
    if let Some(fields) = broken.as_object_mut() {
        fields.insert("unheard_of".to_owned(), json!(1));
        let broken = if answer.is_array() { json!([broken]) } else { broken };
        ensure!(!validator.is_valid(&broken), "{path}: any field would do");
    }
    Ok(())
}

fn json_at(agent: &Agent, path: &str) -> Result<Value> {
    let (status, body) = agent.http(path)?;
    ensure!(status == 200, "{path}: {status} {body}");
    serde_json::from_str(&body).with_context(|| format!("{path}: {body}"))
}

/// An agent that has something to say to each question.
fn busy() -> Result<(Bridge, Agent)> {
    let (bridge, dupip) = runner()?;
    let _ = bridge.duplicate(["holder", "loser"], "10.8.64.2/24")?;
    dupip.allocate("holder")?;
    let mut agent = dupip.start_with(Mode::Enforce, &["--resolve", "contain"])?;
    agent.wait_until(DEADLINE, "somebody to be in quarantine", |agent| {
        let contained = json_at(agent, "/api/v1/quarantine")?;
        Ok(contained.as_array().is_some_and(|contained| !contained.is_empty()).then_some(()))
    })?;
    Ok((bridge, agent))
}

#[test]
fn a_real_agent_answers_as_it_is_described() -> Result<()> {
    let (_bridge, agent) = busy()?;
    let document = json_at(&agent, "/api/v1/openapi.json")?;
    let printed: Value = serde_json::from_str(&agent.dupip().say(&["openapi"])?)?;
    assert_eq!(printed, document);
    let incident = field(&json_at(&agent, "/api/v1/incidents")?[0], "id").to_string();
    let paths = document["paths"].as_object().context("no paths")?;
    for (path, _) in paths.iter().filter(|(_, item)| item.get("get").is_some()) {
        // A stream has no end.
        if path == "/api/v1/stream" {
            continue;
        }
        let query = if path.ends_with("/history") { "?address=10.8.64.2" } else { "" };
        let (status, body) = agent.http(&format!("{}{query}", path.replace("{number}", &incident)))?;
        assert_eq!(status, 200, "{path}: {body}");
        if !path.starts_with("/api/") {
            ensure!(body.ends_with('\n'), "{path}: {body}");
            continue;
        }
        let answer: Value = serde_json::from_str(&body)?;
        ensure!(answer != json!([]), "{path} has nothing to say");
        if path != "/api/v1/openapi.json" {
            assert_described(&document, path, "200", &answer)?;
        }
    }
    for (path, asked, want) in [
        ("/api/v1/incidents/{number}", "/api/v1/incidents/999", 404),
        ("/api/v1/table", "/api/v1/table?vlan=x", 400),
        ("/api/v1/events", "/api/v1/events?after=7", 400),
    ] {
        let (status, body) = agent.http(asked)?;
        assert_eq!(status, want, "{asked}: {body}");
        assert_described(&document, path, "default", &serde_json::from_str(&body)?)?;
    }
    Ok(())
}

/// A runner with a sandbox on it from which the agent is asked.
struct Asked {
    bridge: Bridge,
    dupip: Dupip,
    guest: Sandbox,
}

impl Asked {
    fn new() -> Result<Self> {
        let (bridge, dupip) = runner()?;
        let guest = bridge.sandbox("guest").address("10.8.64.7/24").start()?;
        let asked = Self { bridge, dupip, guest };
        asked.certify()?;
        asked.write("token", TOKEN, 0o640)?;
        Ok(asked)
    }

    /// A file as it is called on the runner.
    fn file(&self, name: &str) -> String {
        self.bridge.runner().dir().join(name).display().to_string()
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.bridge.runner().outside(&self.bridge.runner().dir().join(name))
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        // As who replaces a secret does it: whoever reads finds the old or the new, and never a half.
        let new = self.outside(&format!("{name}.new"));
        fs::write(&new, text)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        Ok(fs::rename(new, self.outside(name))?)
    }

    fn certify(&self) -> Result<()> {
        let own = rcgen::generate_simple_self_signed(["10.8.64.1".to_owned()])?;
        self.write("certificate", &own.cert.pem(), 0o644)?;
        self.write("key", &own.signing_key.serialize_pem(), 0o600)
    }

    fn start(&self) -> Result<Agent> {
        let [certificate, key, token] = ["certificate", "key", "token"].map(|name| self.file(name));
        let guards = ["--tls-certificate", &certificate, "--tls-key", &key, "--token-file", &token];
        self.dupip.start_with(Mode::Observe, &[&["--listen", OUTSIDE][..], &guards].concat())
    }

    /// The status of an answer, as curl sees it from a sandbox.
    fn status(&self, path: &str, token: Option<&str>) -> Result<String> {
        let curl = self.guest.command("curl").args(["--silent", "--max-time", "20", "--output", "/dev/null"]);
        let curl = curl.args(["--write-out", "%{http_code}", "--cacert", &self.file("certificate")]);
        let header = token.map(|token| format!("Authorization: Bearer {token}"));
        let curl = curl.args(header.iter().flat_map(|header| ["--header", header]));
        curl.arg(format!("https://{OUTSIDE}{path}")).run()
    }
}

#[test]
fn who_comes_from_elsewhere_needs_the_token() -> Result<()> {
    let asked = Asked::new()?;
    let mut agent = asked.start()?;
    assert_eq!(agent.http("/api/v1/about")?.0, 200);
    assert_eq!(asked.status("/healthz", None)?, "200");
    assert_eq!(asked.status("/metrics", None)?, "401");
    assert_eq!(asked.status("/metrics", Some(OTHER))?, "401");
    assert_eq!(asked.status("/metrics", Some(TOKEN))?, "200");
    let refused = agent.metric("dupip_http_refused_total{reason=\"token\"}")?;
    assert_eq!(refused, Some(2.0));

    asked.write("token", OTHER, 0o640)?;
    asked.certify()?;
    assert_eq!(asked.status("/metrics", Some(OTHER))?, "200");
    assert_eq!(asked.status("/metrics", Some(TOKEN))?, "401");
    asked.write("token", TOKEN, 0o644)?;
    for _ in 0..2 {
        assert_eq!(asked.status("/metrics", Some(OTHER))?, "200");
    }
    agent.wait_for_line("lets others than its owner and group open it", DEADLINE)?;
    assert_eq!(agent.log()?.matches("lets others than its owner and group open it").count(), 1);
    Ok(())
}

#[test]
fn nobody_listens_beyond_loopback_without_a_guard() -> Result<()> {
    let asked = Asked::new()?;
    let run =
        |args: &[&str]| asked.dupip.outcome(&[&["run", "--bridge", "rt0", "--listen", OUTSIDE][..], args].concat());
    let [certificate, key, token] = ["certificate", "key", "token"].map(|name| asked.file(name));
    let unguarded = run(&[])?;
    assert_eq!(unguarded.status, Some(2), "{unguarded:?}");
    let want = "dupip: error: other machines can reach 10.8.64.1:9443, which takes a certificate and a token: add \
                --tls-certificate FILE and --tls-key FILE and --token-file FILE, or listen on 127.0.0.1:9443 only\n";
    assert_eq!(unguarded.complaint, want);
    asked.write("token", "too short", 0o640)?;
    let guards = ["--tls-certificate", &certificate, "--tls-key", &key, "--token-file", &token];
    let weak = run(&guards)?;
    assert_eq!(weak.status, Some(2), "{weak:?}");
    let said = weak.complaint.lines().last().unwrap_or_default();
    let want = format!("dupip: error: --token-file {token}: a token of 9 characters can be guessed; take at least 32");
    assert!(said.starts_with(&want), "{said}");
    Ok(())
}

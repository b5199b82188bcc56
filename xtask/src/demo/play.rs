//! The play itself: three sandboxes, one address too few, and what becomes of it.

use std::{
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Agent, Bridge, Dupip, Kept, KernelLog, Mode, PingReport, Runner, Sandbox};
use serde_json::{Value, json};

use super::{connection::Connection, facts::Facts, voice::Voice};

const CONTESTED: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);
/// How long the kernel's line and the incident's end are waited for. Both take milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the kernel's line is waited for before the question is put again.
const QUESTION_EVERY: Duration = Duration::from_millis(200);
/// How often one of the two asks for the gateway anew while both ping.
const FORGET_EVERY: Duration = Duration::from_millis(250);
const FORGETS: usize = 8;
/// Pings of the gateway by each sandbox in the end.
const PINGS: u32 = 20;

pub(super) struct Play {
    runner: Runner,
    bridge: Bridge,
    sports: Sandbox,
    review: Sandbox,
    cal: Sandbox,
    dupip: Dupip,
    observe: bool,
    keep: bool,
    voice: Voice,
}

impl Play {
    pub(super) fn new(dupip: &Path, observe: bool, keep: bool, voice: Voice) -> Result<Self> {
        let runner = Runner::new()?;
        let bridge = runner.bridge("rt0", "10.8.64.1/24")?;
        let [sports, review] = bridge.duplicate(["sportsagent", "reviewagent"], "10.8.64.2/24")?;
        let cal = bridge.sandbox("calagent").address("10.8.64.3/24").logs_martians().start()?;
        let dupip = Dupip::at(&bridge, dupip)?;
        voice.line("A private runner, made of namespaces: bridge rt0 10.8.64.1/24 with three sandboxes on it.");
        Ok(Self { runner, bridge, sports, review, cal, dupip, observe, keep, voice })
    }

    pub(super) fn run(self) -> Result<Facts> {
        let mut facts = Facts { mode: if self.observe { "observe" } else { "enforce" }, ..Facts::default() };
        let before = self.addresses()?;
        self.without_dupip(&mut facts)?;
        self.leases()?;
        let client = if self.observe { None } else { Some(self.connect()?) };
        let mut agent = self.start()?;
        self.incident(&mut agent, client, &mut facts)?;
        self.afterwards(&agent, &mut facts)?;
        let after = self.addresses()?;
        facts.addresses =
            before.into_iter().zip(after).map(|((name, before), (_, after))| (name, [before, after])).collect();
        self.times(&facts);
        facts.kept = self.end(agent)?;
        Ok(facts)
    }

    fn sandboxes(&self) -> [&Sandbox; 3] {
        [&self.sports, &self.review, &self.cal]
    }

    fn addresses(&self) -> Result<Vec<(String, Vec<String>)>> {
        self.sandboxes().map(|sandbox| Ok((sandbox.name().to_owned(), sandbox.addresses()?))).into_iter().collect()
    }

    fn without_dupip(&self, facts: &mut Facts) -> Result<()> {
        self.voice.act('a', "Without dupip: sportsagent and reviewagent both have 10.8.64.2.");
        let owners = self.owners(CONTESTED)?;
        self.voice.line(&format!("    Who has 10.8.64.2? {} answer: {}", owners.len(), owners.join(" and ")));
        let martian = self.martian()?;
        self.voice.line("    All that the kernel ever says of it:");
        martian.iter().for_each(|line| self.voice.line(&format!("      {line}")));
        let [sports, review] = self.flapping()?;
        self.voice.line(&format!("    Pings of the gateway: sportsagent {sports}, reviewagent {review}."));
        facts.before = json!({
            "owners": owners,
            "martian": martian,
            "gateway_pings": { "sportsagent": pings(sports), "reviewagent": pings(review) },
        });
        ensure!(owners.len() == 2, "10.8.64.2 should have two owners, not {}", owners.len());
        Ok(())
    }

    /// Either pings the gateway with an empty neighbour cache; its question reaches the other, whose kernel wonders. The
    /// kernel logs only so many such lines in a while, for all namespaces together, so it may take more than one question.
    fn martian(&self) -> Result<Vec<String>> {
        let mac = self.sports.mac()?;
        let mut log = KernelLog::follow()?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            self.sports.flush_neighbours()?;
            self.sports.ping(self.bridge.gateway(), 1)?;
            if let Some(martian) = log.martian_from(mac, QUESTION_EVERY)? {
                return Ok(vec![martian.source, martian.header]);
            }
        }
        bail!("the kernel logged no martian source; is net.core.message_cost set very high?")
    }

    /// Both ping at once. Whenever one of them has forgotten the gateway and asks for it anew, the gateway takes it for the
    /// owner, and the other's answers go astray; time would do the same, more slowly.
    fn flapping(&self) -> Result<[PingReport; 2]> {
        let gateway = self.bridge.gateway();
        let (sports, review) = (self.sports.keep_pinging(gateway)?, self.review.keep_pinging(gateway)?);
        for forgetful in [&self.sports, &self.review].into_iter().cycle().take(FORGETS) {
            std::thread::sleep(FORGET_EVERY);
            forgetful.flush_neighbours()?;
        }
        Ok([sports.stop()?, review.stop()?])
    }

    /// The lease table says what it said in the incident: a cleaner had released sportsagent's lease while it lived, and
    /// the address was given to reviewagent.
    fn leases(&self) -> Result<()> {
        for (owner, expected) in [("reviewagent", "10.8.64.2"), ("calagent", "10.8.64.3")] {
            let lease = self.dupip.allocate(owner)?;
            ensure!(lease.get("address") == Some(&json!(expected)), "{owner} should hold {expected}: {lease}");
        }
        Ok(())
    }

    /// Somebody who uses reviewagent all the while.
    fn connect(&self) -> Result<Connection> {
        let client = Connection::open(&self.review, &self.cal, CONTESTED)?;
        self.voice
            .line("\n    calagent has a TCP connection to reviewagent's 10.8.64.2:7 and sends on it all the while.");
        Ok(client)
    }

    fn disconnect(&self, client: Connection, facts: &mut Facts) -> Result<()> {
        let echoes = client.close()?;
        self.voice.line(&format!(
            "    calagent's TCP connection to reviewagent lived through it: {} echoes, none lost, the longest after {:.1} ms.",
            echoes.count,
            echoes.longest.as_secs_f64() * 1000.0
        ));
        facts.connection = echoes.json();
        Ok(())
    }

    fn start(&self) -> Result<Agent> {
        let mode = if self.observe { Mode::Observe } else { Mode::Enforce };
        self.voice.act('b', &format!("dupip run --bridge rt0 --mode {mode}"));
        self.voice.line(
            "    Leases: 10.8.64.2 is reviewagent's, 10.8.64.3 calagent's. sportsagent's was released by a cleaner",
        );
        self.voice.line("    while the sandbox was alive, as in the incident.");
        let agent = self.dupip.start(mode)?;
        self.voice.line(&format!("    Process {} watches every port.", agent.pid()));
        Ok(agent)
    }

    fn incident(&self, agent: &mut Agent, client: Option<Connection>, facts: &mut Facts) -> Result<()> {
        let until = if self.observe { "the incident to be judged" } else { "the incident to be healed" };
        let done = |incident: &Value| match self.observe {
            true => incident.get("held").is_some_and(|held| !held.is_null()),
            false => incident.get("status") == Some(&json!("healed")),
        };
        facts.incident = agent.wait_until(PATIENCE, until, |agent| Ok(agent.conflicts()?.into_iter().find(done)))?;
        self.voice.act('c', "The incident, with both parties by name.");
        self.voice.quote("dupip conflicts", &agent.dupip().say(&["conflicts"])?);
        if let Some(after) = facts.contained_ms() {
            self.voice.line(&format!(
                "    Contained after {after:.1} ms: what sportsagent said of 10.8.64.2 was dropped at its port until it was moved."
            ));
        }
        client.map_or(Ok(()), |client| self.disconnect(client, facts))?;
        if !self.observe {
            self.voice.act('d', "The loser, moved: its lease, its address and routes in its own namespace.");
            self.voice.quote("dupip lease list", &agent.dupip().say(&["lease", "list"])?);
            self.voice.quote("ip -n sportsagent route", &self.sports.routes()?.join("\n"));
        }
        Ok(())
    }

    fn afterwards(&self, agent: &Agent, facts: &mut Facts) -> Result<()> {
        self.voice.act('e', "Who answers now, and does the gateway.");
        for sandbox in self.sandboxes() {
            let address = first_address(sandbox)?;
            let owners = self.owners(address)?;
            let report = sandbox.ping(self.bridge.gateway(), PINGS)?;
            self.voice.line(&format!(
                "    {:<12} {address}: answered by {}; gateway pings: {report}",
                sandbox.name(),
                owners.join(" and ")
            ));
            facts.owners.insert(address.to_string(), owners);
            let loss = (100 * report.lost()).div_ceil(report.sent.max(1));
            facts.gateway_ping_loss.insert(sandbox.name().to_owned(), loss);
        }
        self.voice.act('f', "The live table, and the metric to alert on.");
        facts.table = Value::Array(agent.table()?);
        self.voice.quote("dupip table", &agent.dupip().say(&["table"])?);
        let series = "duplicate_ip_total{bridge=\"rt0\"}";
        let value = agent.metric(series)?.context("the agent does not have the metric")?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a counter is a small whole number"
        )]
        let count = value as u64;
        facts.duplicate_ip_total = Some(count);
        self.voice
            .quote("curl -s http://127.0.0.1:9477/metrics | grep ^duplicate_ip_total", &format!("{series} {value}"));
        Ok(())
    }

    fn times(&self, facts: &Facts) {
        self.voice.act('g', "The times, from the first contradiction on.");
        let number = |name: &str| facts.incident.get(name).and_then(Value::as_f64);
        let by = facts.incident.get("first_evidence").and_then(Value::as_str).unwrap_or_default();
        let named = number("named_us").map_or_else(String::new, |us| format!("{us:.0} us"));
        let healed =
            number("heal_ms").map_or_else(|| "not at all: it was only watched".to_owned(), |ms| format!("{ms:.1} ms"));
        let contained = facts.contained_ms().map(|ms| format!(" -> contained: {ms:.1} ms")).unwrap_or_default();
        self.voice.line(&format!("    first contradiction ({by}) -> named: {named}{contained} -> healed: {healed}"));
    }

    fn owners(&self, address: Ipv4Addr) -> Result<Vec<String>> {
        Ok(self.bridge.owners(address)?.iter().map(ToString::to_string).collect())
    }

    /// Ends the agent and removes the lab, or leaves both and says how to enter and to remove them.
    fn end(self, agent: Agent) -> Result<Option<Kept>> {
        let Self { runner, voice, dupip, .. } = self;
        if !self.keep {
            let status = agent.terminate()?;
            ensure!(status.success(), "the agent ended with {status}");
            drop((self.bridge, self.sports, self.review, self.cal, dupip, runner));
            voice.line("\nEverything is removed.");
            return Ok(None);
        }
        let kept = runner.keep()?;
        voice.line(&format!("\nThe lab stays, with the agent in it.\n{kept}"));
        voice.line(&format!("in the lab, try:           {} table", dupip.program().display()));
        voice.line("                           ip netns exec sportsagent ping 10.8.64.1");
        Ok(Some(kept))
    }
}

fn pings(report: PingReport) -> Value {
    json!({ "sent": report.sent, "received": report.received })
}

fn first_address(sandbox: &Sandbox) -> Result<Ipv4Addr> {
    let addresses = sandbox.addresses()?;
    let address = addresses.first().and_then(|address| address.split('/').next());
    Ok(address.with_context(|| format!("{} has no address", sandbox.name()))?.parse()?)
}

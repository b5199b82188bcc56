//! The incident, as the alerts and the dashboards tell it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{AlertState, Bridge, Dupip, Mode, Pace, Prometheus, Sandbox};
use serde_json::Value;

use super::{given, panels};
use crate::agent::{DEADLINE, closed, field, runner, text};

const OPEN: &str = "DuplicateAddressNotHealed";
const FOUND: &str = "DuplicateAddress";
/// How long the slowest may take on a machine that does much else; it takes a few seconds on one that does not.
const LONG: Duration = Duration::from_secs(60);

struct Lab {
    bridge: Bridge,
    dupip: Dupip,
    prometheus: Prometheus,
}

impl Lab {
    /// Prometheus with our configuration and our rules, at a pace of four looks a second and with `for` times of a tenth.
    fn new() -> Result<Self> {
        let (bridge, dupip) = runner()?;
        let pace = Pace { every: Duration::from_millis(250), sooner: 10 };
        let prometheus = Prometheus::start(bridge.runner(), &given("prometheus"), pace)?;
        Ok(Self { bridge, dupip, prometheus })
    }

    /// Waits until an expression is something else than nothing.
    fn wait_for(&mut self, expression: &str) -> Result<()> {
        self.prometheus.wait(LONG, expression, |at| Ok((!at.query(expression)?.is_empty()).then_some(())))
    }

    /// One address, two owners; the first of them holds the lease.
    fn duplicate(&self) -> Result<[Sandbox; 2]> {
        let both = self.bridge.duplicate(["holder", "loser"], "10.8.64.2/24")?;
        assert_eq!(text(&self.dupip.allocate("holder")?, "address"), "10.8.64.2");
        Ok(both)
    }

    /// That every alert is judged, told with what a person needs, and points to its section of the runbook.
    fn assert_told(&mut self) -> Result<()> {
        let judged = |prometheus: &mut Prometheus| {
            let rules = prometheus.alert_rules()?;
            Ok(rules.iter().all(|rule| field(rule, "health") == "ok").then_some(rules))
        };
        for rule in self.prometheus.wait(LONG, "every rule to be judged", judged)? {
            let name = text(&rule, "name");
            let of = |path: &str| rule.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            assert!(["critical", "warning", "info"].contains(&of("/labels/severity").as_str()), "{rule:#}");
            assert!(!of("/annotations/summary").is_empty() && !of("/annotations/description").is_empty(), "{rule:#}");
            assert_eq!(of("/annotations/runbook"), format!("dashboards/README.md#{}", name.to_lowercase()));
        }
        Ok(())
    }

    /// What an alert that is not inactive says.
    fn summary(&self, alert: &str) -> Result<String> {
        let rules = self.prometheus.alert_rules()?;
        let rule = rules.iter().find(|rule| text(rule, "name") == alert).context("no such alert")?;
        let summary = rule.pointer("/alerts/0/annotations/summary").and_then(Value::as_str);
        Ok(summary.with_context(|| format!("{alert} says nothing"))?.to_owned())
    }
}

#[test]
fn an_alert_goes_from_pending_to_firing_and_back_and_every_panel_shows_something() -> Result<()> {
    let mut lab = Lab::new()?;
    let agent = lab.dupip.start(Mode::Observe)?;
    lab.wait_for("dupip_ready == 1 and on (instance) increase(duplicate_ip_total[1m]) == 0")?;
    lab.assert_told()?;
    for alert in [OPEN, FOUND] {
        assert_eq!(lab.prometheus.alert(alert)?, AlertState::Inactive, "{alert} of a healthy runner");
    }
    lab.dupip.say(&["pool", "create", "--bridge", "rt0", "--subnet", "10.8.64.0/24", "--gateway", "10.8.64.1"])?;
    let [_holder, loser] = lab.duplicate()?;
    lab.prometheus.wait_alert(OPEN, AlertState::Firing, LONG)?;
    assert_eq!(lab.prometheus.alert(FOUND)?, AlertState::Firing);
    let (pending, _) = lab.prometheus.times(OPEN, AlertState::Pending)?.context("it was never pending")?;
    let (firing, _) = lab.prometheus.times(OPEN, AlertState::Firing)?.context("it never fired")?;
    assert!(firing - pending >= 3.0, "`for: 30s` at ten times the pace is three seconds: {pending} to {firing}");
    let summary = lab.summary(OPEN)?;
    assert_eq!(summary, "1 address(es) on rt0 of runner-1 have two owners, and it does not end");
    panels::assert_say_that_it_is_open(&lab.prometheus)?;
    assert!(agent.terminate()?.success());

    // The next agent heals what it finds open, and tells a hook.
    let agent = &mut lab.dupip.start_with(Mode::Enforce, &["--hook", "resolved=/bin/true"])?;
    closed(agent, "healed")?;
    assert_ne!(loser.addresses()?, ["10.8.64.2/24"]);
    lab.dupip.say(&["lease", "allocate", "--bridge", "rt0", "--owner", "somebody"])?;
    lab.prometheus.wait_alert(OPEN, AlertState::Inactive, LONG)?;
    lab.wait_for("dupip_heal_seconds_count > 0 and dupip_allocate_seconds_count > 0")?;
    assert_eq!(lab.prometheus.alert(FOUND)?, AlertState::Firing, "one that was healed is told for a while");
    panels::assert_all_show_something(&mut lab.prometheus, DEADLINE)
}

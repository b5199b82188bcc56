//! What came of a drill.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use serde::Serialize;

use super::planted::{KEEPER, NEWCOMER};
use crate::{
    cli::{
        conflicts::label,
        exit::{Exit, Failure},
        render::{Column, Format, Look, Output, columns, json, or_dash, plain},
    },
    http::api::{Eviction, Incident},
    net::{BridgeName, Mac},
};

/// Who answers for each address.
pub(super) type Answers = BTreeMap<Ipv4Addr, BTreeSet<Mac>>;

/// What must be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    Planted,
    Named,
    Judged,
    Contained,
    Healed,
    Verified,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Everything was done and is as it should be.
    Passed,
    /// The duplicate was named; the agent is not to do more.
    NamedOnly,
    Failed,
}

/// What came of a drill. Names are a contract: fields are added, never renamed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bridge: String,
    mode: String,
    outcome: Outcome,
    /// The address that both had.
    address: Ipv4Addr,
    /// The address that the second was moved to.
    new_address: Option<Ipv4Addr>,
    incident: Option<u64>,
    /// What the first contradiction was seen by.
    first_evidence: Option<String>,
    /// Who keeps the address, and why.
    winner: Option<String>,
    decision: Option<String>,
    steps: Vec<Taken>,
    failure: Option<Failed>,
}

/// A step, and when it was done: since the kernel saw the first contradiction.
#[derive(Debug, Serialize)]
struct Taken {
    step: String,
    after_ms: f64,
}

/// The step that was not done.
#[derive(Debug, Serialize)]
struct Failed {
    step: Step,
    why: String,
    /// What to look at next.
    next: String,
}

const TAKEN: &[Column<Taken>] = &[
    Column::text("STEP", |taken| taken.step.clone()),
    Column::text("AFTER", |taken| format!("{:.2} ms", taken.after_ms)),
];

impl Report {
    pub(super) fn new(bridge: BridgeName, mode: &str, address: Ipv4Addr) -> Self {
        Self {
            bridge: bridge.to_string(),
            mode: mode.to_owned(),
            outcome: Outcome::Passed,
            address,
            new_address: None,
            incident: None,
            first_evidence: None,
            winner: None,
            decision: None,
            steps: Vec::new(),
            failure: None,
        }
    }

    pub(super) fn is_fine(&self) -> bool {
        self.outcome == Outcome::Passed
    }

    pub(super) const fn new_address(&self) -> Option<Ipv4Addr> {
        self.new_address
    }

    pub(super) fn failed(mut self, step: Step, why: String) -> Self {
        self.fail(step, why);
        self
    }

    fn fail(&mut self, step: Step, why: String) {
        let next = match (step, self.incident) {
            (Step::Planted | Step::Named, _) | (_, None) => "dupip doctor; dupip table; dupip events".to_owned(),
            (Step::Verified, Some(incident)) => format!("dupip table; dupip explain {incident}"),
            (_, Some(incident)) => format!("dupip explain {incident}; dupip events"),
        };
        self.outcome = Outcome::Failed;
        self.failure = Some(Failed { step, why, next });
    }

    /// Takes over what the agent says, as it stood when all was done or `patience` was over.
    pub(super) fn take(&mut self, incident: Option<&Incident>, patience: Duration) {
        let Some(incident) = incident else {
            return self.fail(
                Step::Named,
                format!("the agent has named no duplicate of {} within {patience:?}", self.address),
            );
        };
        let moved = incident.evictions.iter().find(|eviction| eviction.port == NEWCOMER);
        self.incident = Some(incident.id);
        self.first_evidence = Some(incident.first_evidence.clone());
        self.winner = incident.parties.iter().find(|party| party.role == "winner").map(label);
        self.decision.clone_from(&incident.decision);
        self.new_address = moved.and_then(|eviction| eviction.new_lease.as_ref()).map(|lease| lease.address);
        self.steps = steps(incident, moved);
        self.judge(incident, moved, patience);
    }

    fn judge(&mut self, incident: &Incident, moved: Option<&Eviction>, patience: Duration) {
        let reason = || {
            let failure = moved.and_then(|eviction| eviction.failure.clone());
            let late = || format!("it was not done within {patience:?}");
            failure.or_else(|| incident.held.clone()).unwrap_or_else(late)
        };
        let is_contained = self.steps.iter().any(|taken| taken.step == "contain");
        match () {
            () if self.winner.as_deref() != Some(KEEPER) => {
                let decision = self.decision.clone().unwrap_or_else(reason);
                self.fail(Step::Judged, format!("{KEEPER} should keep {}: {decision}", self.address));
            }
            () if self.mode == "observe" => self.outcome = Outcome::NamedOnly,
            () if !is_contained => self.fail(Step::Contained, reason()),
            () if incident.heal_ms.is_none() => {
                let at = moved.map(|eviction| format!("at step {}: ", eviction.step)).unwrap_or_default();
                self.fail(Step::Healed, at + &reason());
            }
            () => {}
        }
    }

    /// Compares who answers with who should.
    pub(super) fn verify(&mut self, expected: &Answers, found: &Answers) {
        let of = |answers: &Answers, address| answers.get(address).cloned().unwrap_or_default();
        let wrong = expected.keys().find(|address| of(expected, address) != of(found, address));
        if let Some(address) = wrong {
            let list = |macs: BTreeSet<Mac>| {
                let macs: Vec<_> = macs.iter().map(ToString::to_string).collect();
                if macs.is_empty() { "nobody".to_owned() } else { macs.join(" and ") }
            };
            let (should, does) = (list(of(expected, address)), list(of(found, address)));
            self.fail(Step::Verified, format!("{should} should answer for {address}, and it is {does}"));
        }
    }

    pub(super) fn show(&self, format: &Format) -> Result<String, Failure> {
        match format.output {
            Output::Json => json(self),
            _ => Ok(self.text(Look { colour: false, ..format.look() })),
        }
    }

    fn text(&self, look: Look) -> String {
        let Self { bridge, mode, address, .. } = self;
        let title = match self.outcome {
            Outcome::Passed => "everything was done",
            Outcome::NamedOnly => "named, and nothing else was tested",
            Outcome::Failed => "failed",
        };
        let mut text = format!("drill on {bridge}, {mode}: {title}\n");
        if self.incident.is_some() {
            let (incident, evidence) = (or_dash(self.incident), plain(&or_dash(self.first_evidence.as_ref())));
            text += &format!("incident {incident} on {address}, first seen by: {evidence}\n\n");
            text += &columns(TAKEN, &self.steps, look);
            text += "\n";
        }
        self.decision.iter().for_each(|decision| text += &format!("{}\n", plain(decision)));
        text + &self.ending()
    }

    fn ending(&self) -> String {
        match (self.outcome, self.new_address) {
            (Outcome::Passed, Some(new)) => {
                format!("{KEEPER} alone answers for {}, {NEWCOMER} alone for {new}\n", self.address)
            }
            (Outcome::NamedOnly, _) => {
                "the agent observes: only that it names a duplicate was tested (dupip run --mode enforce heals)\n"
                    .to_owned()
            }
            _ => String::new(),
        }
    }

    /// The exit code, or what was not done.
    pub(super) fn end(self) -> Result<Exit, Failure> {
        match self.failure {
            None => Ok(Exit::Fine),
            Some(Failed { step, why, next }) => {
                let step = format!("{step:?}").to_lowercase();
                Err(Failure::new(Exit::No, format_args!("the drill failed: not {step}: {why}")).hint(next))
            }
        }
    }
}

/// Every step with its time, from the first sight on.
fn steps(incident: &Incident, moved: Option<&Eviction>) -> Vec<Taken> {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of some seconds")]
    let named = Taken { step: "named".to_owned(), after_ms: incident.named_us as f64 / 1000.0 };
    let seen = Taken { step: "seen".to_owned(), after_ms: 0.0 };
    let taken = moved.into_iter().flat_map(|eviction| &eviction.steps);
    let taken = taken.map(|taken| Taken { step: taken.step.clone(), after_ms: taken.at_ms });
    let healed = incident.heal_ms.map(|after_ms| Taken { step: "healed".to_owned(), after_ms });
    [seen, named].into_iter().chain(taken).chain(healed).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::cli::conflicts::tests::healed;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// The incident of a drill that went well, in `mode`, with these fields otherwise.
    fn report(mode: &str, otherwise: &[(&str, Value)]) -> Report {
        let mut incident = healed();
        for (at, name, role) in [(0, NEWCOMER, "loser"), (1, KEEPER, "winner")] {
            let party = &mut incident["parties"][at];
            (party["sandbox"], party["port"], party["role"]) = (json!(name), json!(name), json!(role));
        }
        incident["evictions"][0]["port"] = json!(NEWCOMER);
        incident["evictions"][0]["steps"] =
            json!([{"step": "contain", "at_ms": 1.5}, {"step": "readdress", "at_ms": 5.5}]);
        for (field, value) in otherwise {
            *incident.pointer_mut(field).unwrap() = value.clone();
        }
        let mut report = Report::new("rt0".parse().unwrap(), mode, [10, 8, 64, 2].into());
        report.take(Some(&from_value(incident).unwrap()), PATIENCE);
        report
    }

    fn failure(report: Report) -> String {
        report.end().map(|exit| format!("{exit:?}")).unwrap_or_else(|failure| format!("{failure:?}"))
    }

    #[test]
    fn all_that_was_done_is_told_with_its_time() {
        let report = report("enforce", &[]);
        let want = "\
drill on rt0, enforce: everything was done
incident 1 on 10.8.64.2, first seen by: request

STEP       AFTER
seen       0.00 ms
named      0.74 ms
contain    1.50 ms
readdress  5.50 ms
healed     44.30 ms

dupip-drill-a alone answers for 10.8.64.2, dupip-drill-b alone for 10.8.64.4
";
        assert_eq!(report.text(Look::piped(Output::Table)), want);
        assert_eq!(report.end(), Ok(Exit::Fine));
    }

    #[test]
    fn what_was_not_done_is_told_with_the_reason() {
        let no_incident = Report::new("rt0".parse().unwrap(), "enforce", [10, 8, 64, 2].into());
        let mut unnamed = no_incident;
        unnamed.take(None, PATIENCE);
        let braked = report("enforce", &[("/evictions", json!([])), ("/held", json!("the brake is on"))]);
        let late = report("enforce", &[("/heal_ms", Value::Null), ("/evictions/0/step", json!("verify"))]);
        let broken = [("/heal_ms", Value::Null), ("/evictions/0/failure", json!("no such namespace"))];
        let stuck = report("enforce", &broken);
        let lost = report("enforce", &[("/parties/1/role", json!("loser")), ("/decision", json!("nobody knows"))]);
        for (report, want) in [
            (unnamed, "not named: the agent has named no duplicate of 10.8.64.2 within 10s"),
            (braked, "not contained: the brake is on"),
            (late, "not healed: at step verify: it was not done within 10s"),
            (stuck, "not healed: at step done: no such namespace"),
            (lost, "not judged: dupip-drill-a should keep 10.8.64.2: nobody knows"),
        ] {
            let failure = failure(report);
            assert!(failure.contains(want), "no `{want}` in {failure}");
        }
    }

    #[test]
    fn an_observer_need_only_name() {
        let report = report("observe", &[("/heal_ms", Value::Null), ("/evictions", json!([]))]);
        assert!(report.text(Look::piped(Output::Table)).contains("named, and nothing else was tested"));
        assert_eq!(report.end(), Ok(Exit::Fine));
    }

    #[test]
    fn whoever_else_answers_is_a_failure() {
        let (kept, new) = ([10, 8, 64, 2].into(), [10, 8, 64, 4].into());
        let (a, b) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let expected: Answers = [(kept, [a].into()), (new, [b].into())].into();
        let mut fine = report("enforce", &[]);
        fine.verify(&expected, &expected);
        assert_eq!(fine.end(), Ok(Exit::Fine));
        let mut both = report("enforce", &[]);
        both.verify(&expected, &[(kept, [a, b].into()), (new, [b].into())].into());
        assert!(
            failure(both).contains("02:00:00:00:00:01 should answer for 10.8.64.2, and it is 02:00:00:00:00:01 and")
        );
        let mut silent = report("enforce", &[]);
        silent.verify(&expected, &[(kept, [a].into())].into());
        assert!(failure(silent).contains("it is nobody"));
    }
}

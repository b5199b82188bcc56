//! `dupip conflicts`: duplicates, open and lately closed.

use std::path::Path;

use super::{
    ask,
    exit::{Exit, Failure, note},
    render::{Column, List, Listed, Look, Output, columns, csv, domain, json, or_dash, paint, plain, print},
};
use crate::http::{
    Client,
    api::{Eviction, Incident, Party, Plan},
};

const EXAMPLES: &str = "\
Examples:
  dupip conflicts
  dupip conflicts -o wide                  also namespaces, evidence and each step of healing
  dupip conflicts --plan                   what enforce mode would do about those that are open
  dupip conflicts --filter status=open --sort -opened
  dupip conflicts -o csv                   one line for each, for a spreadsheet
  dupip conflicts --fail || page-somebody  exit 1 while a duplicate is open

Open incidents come first, then closed ones, the newest of each first, unless --sort says otherwise.
--fail asks only about those that --filter leaves. A spoof is a claim to the
host's own address, or one on the wire only, to an address that is another's by right.";

/// Contested addresses of one incident that are listed, if not all are asked for.
const SHOWN: usize = 8;

/// Show duplicates, open and lately closed: who, since when, who keeps the address and why
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Say what would be done about each loser of an open duplicate in enforce mode, in whichever mode the agent is; JSON
    /// has it anyway
    #[arg(long)]
    plan: bool,
    /// Exit 1 if a duplicate is open
    #[arg(long)]
    fail: bool,
    #[command(flatten)]
    list: List<Incident>,
}

impl Args {
    pub(super) fn run(self, socket: &Path) -> Result<Exit, Failure> {
        let mut incidents: Vec<Incident> = ask(&Client::new(socket), "/api/v1/incidents")?;
        incidents.sort_by_key(|incident| (!is_open(incident), std::cmp::Reverse(incident.id)));
        let all = incidents.len();
        let incidents = self.list.pick(incidents);
        print(self.text(&incidents)?)?;
        match self.plan && all > 0 {
            true if !incidents.iter().any(is_open) => note("no duplicate is open, so there is nothing to do"),
            _ => self.list.tell_if_empty(incidents.len(), all, "no duplicate is open, and none was lately"),
        }
        Ok(if self.fail && incidents.iter().any(is_open) { Exit::No } else { Exit::Fine })
    }

    fn text(&self, incidents: &[Incident]) -> Result<String, Failure> {
        let look = self.list.look();
        match self.list.output {
            Output::Json => json(&incidents),
            Output::Csv => csv(incidents, look.header),
            _ if self.plan => Ok(plans(incidents)),
            _ => Ok(show(incidents, look)),
        }
    }
}

fn is_open(incident: &Incident) -> bool {
    incident.closed.is_none()
}

/// What CSV has, and what can be sorted and filtered by.
impl Listed for Incident {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("INCIDENT", |of| of.id.to_string()),
        Column::text("BRIDGE", |of| domain(&of.bridge, of.vlan)),
        Column::address("ADDRESS", |of| of.address.to_string()),
        Column::word("STATUS", |of| of.status.clone()),
        Column::text("VERDICT", |of| of.verdict.clone()),
        Column::word("SEVERITY", |of| of.severity.clone()),
        Column::text("OPENED", |of| of.opened.clone()),
        Column::text("CLOSED", |of| or_dash(of.closed.as_ref())),
        Column::text("TIMES", |of| of.times.to_string()),
        Column::text("CLAIMS", |of| of.claims.to_string()),
        Column::text("NAMED US", |of| of.named_us.to_string()),
        Column::text("HEAL MS", |of| or_dash(of.heal_ms)),
        Column::text("WINNER", |of| or_dash(of.parties.iter().find(|party| party.role == "winner").map(label))),
        Column::text("PARTIES", |of| each(of, label)),
        Column::text("PORTS", |of| each(of, |party| party.port.clone())),
        Column::text("MACS", |of| each(of, |party| party.mac.clone())),
        Column::text("REASON", |of| or_dash(of.reason.as_ref())),
    ];
}

fn each(incident: &Incident, of: fn(&Party) -> String) -> String {
    incident.parties.iter().map(of).collect::<Vec<_>>().join(" ")
}

fn show(incidents: &[Incident], look: Look) -> String {
    let shown: Vec<_> = incidents.iter().map(|incident| tell(incident, look)).collect();
    shown.join("\n")
}

/// What would be done about each open incident.
fn plans(incidents: &[Incident]) -> String {
    let told: Vec<_> = incidents.iter().filter(|incident| is_open(incident)).map(planned).collect();
    told.join("\n")
}

fn planned(incident: &Incident) -> String {
    let place = domain(&incident.bridge, incident.vlan);
    let mut lines = vec![format!("{} on {place} (incident {})", incident.address, incident.id)];
    lines.push(format!("  {}", decision(incident).unwrap_or_else(|| "no contest was held yet".to_owned())));
    lines.extend(incident.plan.iter().flat_map(|plan| prospect(incident, plan)));
    lines.extend(incident.plan.is_empty().then(|| "  nobody would be contained or moved".to_owned()));
    lines.extend(incident.held.iter().map(|held| format!("  as things stand: {held}")));
    lines.iter().map(|line| plain(line) + "\n").collect()
}

/// What is under way, or what would be done.
fn prospect(incident: &Incident, plan: &Plan) -> Vec<String> {
    if let Some(eviction) = incident.evictions.iter().find(|eviction| eviction.port == plan.port) {
        return moves(eviction, false);
    }
    let who = plan.sandbox.as_ref().map_or_else(|| plan.port.clone(), |name| format!("{name} ({})", plan.port));
    let because = plan.held.as_ref().map(|held| format!(": {held}")).unwrap_or_default();
    let what = match (plan.way.as_deref(), &plan.owner) {
        (Some("readdress"), Some(owner)) => format!("would be moved to a fresh address in the name of {owner}"),
        (Some("readdress"), None) => "would be moved to a fresh address".to_owned(),
        (Some("recycle"), _) => "would be replaced by its orchestrator".to_owned(),
        (Some("contain"), _) => "would be contained".to_owned(),
        (Some(other), _) => format!("would be dealt with by {other}"),
        (None, _) => "would be left alone".to_owned(),
    };
    vec![format!("  {who} {what}{because}")]
}

/// One incident as a paragraph: a headline, when, who, and what came of it.
pub(super) fn tell(incident: &Incident, look: Look) -> String {
    let Incident { id, address, status, opened, named_us, .. } = incident;
    let place = domain(&incident.bridge, incident.vlan);
    let spoof = if incident.verdict == "spoof" { ", spoof" } else { "" };
    let mut head = vec![format!("  opened {opened}{}, named after {named_us} us{}", again(incident), ending(incident))];
    head.extend(others(incident, look.wide));
    head.extend((incident.claims > 0).then(|| format!("  claimed {} times while it was contested", incident.claims)));
    let mut tail: Vec<_> = decision(incident).map(|decision| format!("  {decision}")).into_iter().collect();
    tail.extend(incident.held.iter().filter(|_| is_open(incident)).map(|held| format!("  not healed: {held}")));
    let losers = incident.evictions.iter().chain(&incident.contained);
    losers.for_each(|eviction| tail.extend(moves(eviction, look.wide)));
    let text = |lines: Vec<String>| lines.iter().map(|line| plain(line) + "\n").collect::<String>();
    let (place, status) = (plain(&place), paint(&plain(status), look));
    let table: String = parties(incident, look.indented(2)).lines().map(|line| format!("  {line}\n")).collect();
    format!("{address} on {place}: {status}{spoof} (incident {id})\n{}{table}{}", text(head), text(tail))
}

pub(super) fn again(incident: &Incident) -> String {
    if incident.times > 1 { format!(" ({} times by now)", incident.times) } else { String::new() }
}

/// The contested addresses, if there is more than one.
pub(super) fn others(incident: &Incident, wide: bool) -> Option<String> {
    let all = incident.addresses.as_slice();
    let shown = all.get(..SHOWN).filter(|_| !wide).unwrap_or(all);
    let listed: Vec<_> = shown.iter().map(ToString::to_string).collect();
    let rest = match all.len() - shown.len() {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    (all.len() > 1).then(|| format!("  {} addresses: {}{rest}", all.len(), listed.join(", ")))
}

fn ending(incident: &Incident) -> String {
    match (incident.heal_ms, &incident.closed) {
        (Some(heal_ms), _) => format!(", healed after {heal_ms:.1} ms"),
        (None, Some(closed)) => format!(", ended {closed} without dupip"),
        (None, None) => String::new(),
    }
}

const PARTY: &[Column<Party>] = &[
    Column::text("PARTY", label),
    Column::text("PORT", |party| party.port.clone()),
    Column::text("MAC", |party| party.mac.clone()),
    Column::wide(Column::text("IFINDEX", |party| party.ifindex.to_string())),
    Column::wide(Column::text("NETNS", |party| or_dash(party.netns))),
    Column::wide(Column::text("EVIDENCE", |party| party.evidence.clone())),
    Column::wide(Column::text("FIRST SEEN", |party| party.first_seen.clone())),
    Column::word("ROLE", |party| party.role.clone()),
    Column::address("NEW ADDRESS", |party| or_dash(party.new_address)),
];

pub(super) fn parties(incident: &Incident, look: Look) -> String {
    columns(PARTY, &incident.parties, look)
}

/// The name that says most.
pub(super) fn label(party: &Party) -> String {
    let netns = party.netns.map(|inode| format!("net:[{inode}]"));
    match (party.host, party.external) {
        (true, _) => "the host".to_owned(),
        (false, true) => "(outside)".to_owned(),
        (false, false) => party.sandbox.clone().or(netns).unwrap_or_else(|| party.port.clone()),
    }
}

/// In one sentence; an older agent tells only the reason.
pub(super) fn decision(incident: &Incident) -> Option<String> {
    let reason = || incident.reason.as_ref().map(|reason| format!("{}: {reason}", verdict(incident)));
    incident.decision.clone().or_else(reason)
}

fn verdict(incident: &Incident) -> String {
    let winner = incident.parties.iter().find(|party| party.role == "winner");
    winner.map_or_else(|| "undecided".to_owned(), |winner| format!("{} keeps it", label(winner)))
}

pub(super) fn moves(eviction: &Eviction, wide: bool) -> Vec<String> {
    let Eviction { owner, step, .. } = eviction;
    let who = eviction.sandbox.as_ref().or(owner.as_ref()).unwrap_or(&eviction.port);
    let at = match step.as_str() {
        "done" => "done".to_owned(),
        "contained" => "nothing more is done".to_owned(),
        "failed" => "given up for now".to_owned(),
        step => format!("at step {step}"),
    };
    let mut lines = vec![format!("  {who} {}: {at}", fate(eviction))];
    lines.extend(eviction.failure.iter().map(|failure| format!("    failed and is tried again: {failure}")));
    lines.extend(
        (eviction.strikes > 0).then(|| format!("    was moved {} times before, within an hour", eviction.strikes)),
    );
    let steps = eviction.steps.iter().filter(|_| wide);
    lines.extend(steps.map(|taken| format!("    {} after {:.1} ms", taken.step, taken.at_ms)));
    lines
}

/// What is to become of a loser.
fn fate(eviction: &Eviction) -> String {
    match (&eviction.new_lease, eviction.way.as_str()) {
        (Some(lease), _) => format!("gets {}, generation {}", lease.address, lease.generation),
        (None, "contain") => "is contained".to_owned(),
        (None, "recycle") => "is to be replaced".to_owned(),
        (None, _) => "gets another address".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use expect_test::expect_file;
    use serde_json::{Value, from_str, json};

    use super::{
        super::render::{golden::visible, json as as_json},
        *,
    };

    pub(in crate::cli) fn healed() -> Value {
        json!({
            "id": 1, "bridge": "rt0", "vlan": null, "address": "10.8.64.2", "addresses": ["10.8.64.2"],
            "verdict": "duplicate", "severity": "error", "status": "healed",
            "opened": "2026-06-12T09:00:00.120Z", "times": 1, "claims": 0, "named_us": 740, "closed": "2026-06-12T09:00:00.164Z",
            "heal_ms": 44.3, "first_evidence": "request",
            "parties": [
                {"sandbox": "sportsagent", "port": "veth3f2a91c0", "ifindex": 7, "mac": "ee:45:b1:fe:2d:db",
                 "netns": 4_026_532_301_u64, "host": false, "external": false, "evidence": "configured",
                 "configured": true, "first_seen": "2026-06-12T08:00:00.000Z", "role": "loser", "new_address": "10.8.64.4"},
                {"sandbox": "reviewagent", "port": "veth02", "ifindex": 9, "mac": "02:00:00:00:00:02",
                 "netns": null, "host": false, "external": false, "evidence": "request",
                 "configured": false, "first_seen": "2026-06-12T09:00:00.120Z", "role": "winner", "new_address": null},
            ],
            "reason": "holds lease generation 1", "settled": true, "healed": true, "held": null, "decision": null, "plan": [], "contained": [],
            "evictions": [{
                "sandbox": "sportsagent", "port": "veth3f2a91c0", "owner": "sportsagent", "way": "readdress", "strikes": 0, "step": "done",
                "new_lease": {"bridge": "rt0", "vlan": null, "address": "10.8.64.4", "owner": "sportsagent",
                              "interface": null, "generation": 4, "state": "bound", "replaces": null},
                "failure": null,
                "steps": [{"step": "reallocate", "at_ms": 3.25}, {"step": "readdress", "at_ms": 5.5}],
            }],
            "sightings": [{"time": "2026-06-12T09:00:00.120Z", "address": "10.8.64.2", "port": "veth02", "ifindex": 9,
                           "mac": "02:00:00:00:00:02", "evidence": "request"}],
        })
    }

    pub(in crate::cli) fn open() -> Value {
        let mut incident = healed();
        for (field, value) in [
            ("id", json!(2)),
            ("vlan", json!(12)),
            ("status", json!("open")),
            ("closed", Value::Null),
            ("heal_ms", Value::Null),
            ("healed", json!(false)),
            ("held", json!("the agent observes and does not act (run with --mode enforce to heal)")),
            ("reason", json!("none of them holds a lease, and it is not known who was first")),
            ("evictions", json!([])),
        ] {
            incident[field] = value;
        }
        for party in incident["parties"].as_array_mut().unwrap() {
            (party["role"], party["new_address"], party["sandbox"]) = (json!("party"), Value::Null, Value::Null);
        }
        incident
    }

    fn shown(incidents: Value, output: Output) -> String {
        let incidents: Vec<Incident> = serde_json::from_value(incidents).unwrap();
        show(&incidents, Look::piped(output))
    }

    #[test]
    fn a_healed_incident_tells_its_story() {
        let want = "\
10.8.64.2 on rt0: healed (incident 1)
  opened 2026-06-12T09:00:00.120Z, named after 740 us, healed after 44.3 ms
  PARTY        PORT          MAC                ROLE    NEW ADDRESS
  sportsagent  veth3f2a91c0  ee:45:b1:fe:2d:db  loser   10.8.64.4
  reviewagent  veth02        02:00:00:00:00:02  winner  -
  reviewagent keeps it: holds lease generation 1
  sportsagent gets 10.8.64.4, generation 4: done
";
        assert_eq!(shown(json!([healed()]), Output::Table), want);
    }

    #[test]
    fn wide_has_every_step() {
        let wide = shown(json!([healed()]), Output::Wide);
        for line in [
            "  sportsagent  veth3f2a91c0  ee:45:b1:fe:2d:db  7        4026532301  configured  \
             2026-06-12T08:00:00.000Z  loser   10.8.64.4",
            "    reallocate after 3.2 ms",
            "    readdress after 5.5 ms",
        ] {
            assert!(wide.lines().any(|found| found == line), "no `{line}` in\n{wide}");
        }
    }

    #[test]
    fn an_open_incident_says_what_stands_in_the_way() {
        let want = "\
10.8.64.2 on rt0.12: open (incident 2)
  opened 2026-06-12T09:00:00.120Z, named after 740 us
  PARTY             PORT          MAC                ROLE   NEW ADDRESS
  net:[4026532301]  veth3f2a91c0  ee:45:b1:fe:2d:db  party  -
  veth02            veth02        02:00:00:00:00:02  party  -
  undecided: none of them holds a lease, and it is not known who was first
  not healed: the agent observes and does not act (run with --mode enforce to heal)
";
        assert_eq!(shown(json!([open()]), Output::Table), want);
    }

    #[test]
    fn a_failed_step_and_an_end_without_dupip_are_told() {
        let mut failing = healed();
        failing["evictions"][0]["step"] = json!("readdress");
        failing["evictions"][0]["failure"] = json!("the namespace is gone");
        (failing["heal_ms"], failing["status"]) = (Value::Null, json!("gone"));
        let text = shown(json!([failing]), Output::Table);
        for line in [
            "  opened 2026-06-12T09:00:00.120Z, named after 740 us, ended 2026-06-12T09:00:00.164Z without dupip",
            "  sportsagent gets 10.8.64.4, generation 4: at step readdress",
            "    failed and is tried again: the namespace is gone",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
    }

    #[test]
    fn a_spoof_of_many_addresses_is_told_in_short() {
        let mut spoof = open();
        let addresses: Vec<_> = (2..14).map(|last| format!("10.8.64.{last}")).collect();
        for (field, value) in
            [("verdict", json!("spoof")), ("addresses", json!(addresses)), ("times", json!(3)), ("claims", json!(4711))]
        {
            spoof[field] = value;
        }
        spoof["parties"][1]["external"] = json!(true);
        let text = shown(json!([spoof]), Output::Table);
        for line in [
            "10.8.64.2 on rt0.12: open, spoof (incident 2)",
            "  opened 2026-06-12T09:00:00.120Z (3 times by now), named after 740 us",
            "  12 addresses: 10.8.64.2, 10.8.64.3, 10.8.64.4, 10.8.64.5, 10.8.64.6, 10.8.64.7, 10.8.64.8, 10.8.64.9 and 4 more",
            "  claimed 4711 times while it was contested",
            "  (outside)         veth02        02:00:00:00:00:02  party  -",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
        let wide = shown(json!([spoof]), Output::Wide);
        assert!(wide.contains("10.8.64.12, 10.8.64.13\n"), "{wide}");
    }

    #[test]
    fn an_older_agent_is_understood() {
        let mut old = healed();
        for field in ["addresses", "verdict", "severity", "times", "claims", "sightings"] {
            old.as_object_mut().unwrap().remove(field);
        }
        for party in old["parties"].as_array_mut().unwrap() {
            let party = party.as_object_mut().unwrap();
            party.retain(|field, _| !["external", "configured"].contains(&field.as_str()));
        }
        assert_eq!(shown(json!([old]), Output::Table), shown(json!([healed()]), Output::Table));
    }

    #[test]
    fn a_plan_says_what_would_become_of_each_loser() {
        let mut incident = open();
        let plan = |sandbox: Value, port: &str, way: Value, owner: Value, held: Value| json!({"sandbox": sandbox, "port": port, "way": way, "owner": owner, "held": held});
        incident["decision"] = json!("sportsagent keeps 10.8.64.2: holds lease generation 17; reviewagent has none");
        incident["plan"] = json!([
            plan(json!("reviewagent"), "veth02", json!("readdress"), json!("reviewagent"), Value::Null),
            plan(json!("db"), "veth05", json!("recycle"), Value::Null, Value::Null),
            plan(
                Value::Null,
                "veth03",
                json!("contain"),
                Value::Null,
                json!("losers like this one are contained only")
            ),
            plan(
                Value::Null,
                "eth0",
                Value::Null,
                Value::Null,
                json!("the loser is outside, where nothing can be done")
            ),
        ]);
        let incidents = |of: Value| serde_json::from_value::<Vec<Incident>>(of).unwrap();
        let want = "\
10.8.64.2 on rt0.12 (incident 2)
  sportsagent keeps 10.8.64.2: holds lease generation 17; reviewagent has none
  reviewagent (veth02) would be moved to a fresh address in the name of reviewagent
  db (veth05) would be replaced by its orchestrator
  veth03 would be contained: losers like this one are contained only
  eth0 would be left alone: the loser is outside, where nothing can be done
  as things stand: the agent observes and does not act (run with --mode enforce to heal)
";
        assert_eq!(plans(&incidents(json!([incident, healed()]))), want);
        let mut under_way = incident;
        under_way["evictions"] = healed()["evictions"].clone();
        under_way["plan"] = json!([plan(Value::Null, "veth3f2a91c0", json!("readdress"), json!("s"), Value::Null)]);
        let told = plans(&incidents(json!([under_way])));
        assert!(told.contains("\n  sportsagent gets 10.8.64.4, generation 4: done\n"), "{told}");
        let nobody = plans(&incidents(json!([open()])));
        assert!(nobody.contains("\n  nobody would be contained or moved\n"), "{nobody}");
        assert_eq!(plans(&incidents(json!([healed()]))), "");
    }

    #[test]
    fn what_a_person_sees_is_kept() {
        let mut hostile = open();
        hostile["parties"][1]["sandbox"] = json!("=cmd|' /C calc'!A0\u{1b}[2J\u{202e}");
        let incidents: Vec<Incident> = serde_json::from_value(json!([hostile, healed()])).unwrap();
        let look = Look::piped(Output::Table);
        let looks = [
            look,
            Look { wide: true, ..look },
            Look { header: false, ..look },
            Look { width: Some(60), ..look },
            Look { colour: true, ..look },
        ];
        let shown = looks.map(|look| show(&incidents, look) + "\n").concat();
        let csv = csv(&incidents, true).unwrap();
        expect_file!["golden/conflicts.txt"].assert_eq(&visible(&format!("{shown}{csv}\n{}", plans(&incidents))));
    }

    #[test]
    fn json_is_what_the_agent_says() {
        let incidents: Vec<Incident> = serde_json::from_value(json!([open(), healed()])).unwrap();
        let value: Value = from_str(&as_json(&incidents).unwrap()).unwrap();
        assert_eq!(value, json!([open(), healed()]));
    }
}

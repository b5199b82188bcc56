//! `dupip explain`: the story of one incident.

use std::{
    iter,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use humantime::{format_rfc3339_millis, parse_rfc3339};

use super::{
    conflicts::{again, decision, label, moves, others, parties},
    exit::{Exit, Failure},
    lease::Place,
    render::{Column, Format, Look, Output, columns, domain, json, plain, print},
};
use crate::http::api::{Eviction, Explained, Incident, JournalEntry, Party, Sighting};

const EXAMPLES: &str = "\
Examples:
  dupip explain 3
  dupip explain 3 -o wide     also each party's namespace, and the whole history of the address
  dupip explain 3 -o json | jq .incident.evictions

The numbers stand in `dupip conflicts` and in every log line. Incidents are kept in the lease
database: the newest thousand that are over, for 90 days, and all that are open. When no agent
runs they are read from there.";

/// The latest changes of the address that are shown, if not all are asked for.
const SHOWN: usize = 12;

/// Tell the story of one incident, from first sight to its end
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The incident's number
    #[arg(value_name = "INCIDENT")]
    number: u64,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

impl Args {
    pub(super) fn run(self, socket: PathBuf) -> Result<Exit, Failure> {
        let explained = self.place.book(socket, false)?.explained(self.number)?;
        print(match self.format.output {
            Output::Json => json(&explained)?,
            _ => tell(&explained, Look { colour: false, ..self.format.look() }),
        })?;
        Ok(Exit::Fine)
    }
}

fn tell(explained: &Explained, look: Look) -> String {
    let Explained { incident, history, history_known } = explained;
    let told = [
        headline(incident, look.wide),
        parties(incident, look),
        time_line(incident, look),
        leases(incident, history, *history_known, look),
        contest(incident),
        outcome(incident),
    ];
    told.join("\n")
}

fn headline(incident: &Incident, wide: bool) -> String {
    let Incident { id, address, verdict, .. } = incident;
    let kind = if verdict.is_empty() { "duplicate" } else { verdict };
    let place = domain(&incident.bridge, incident.vlan);
    let claims = match incident.claims {
        0 => String::new(),
        claims => format!("; claimed {claims} times while it was contested"),
    };
    let head =
        format!("Incident {id}: {kind} of {address} on {place}, opened {}{}{claims}", incident.opened, again(incident));
    lines(iter::once(head).chain(others(incident, wide)))
}

/// Something that happened, and when: so many milliseconds after the first contradiction.
struct Moment {
    after_ms: f64,
    what: String,
}

/// A moment by the wall clock.
struct Dated {
    time: String,
    moment: Moment,
}

const DATED: &[Column<Dated>] = &[
    Column::text("TIME", |dated| dated.time.clone()),
    Column::text("AFTER", |dated| after(dated.moment.after_ms)),
    Column::prose("WHAT", |dated| dated.moment.what.clone()),
];

fn time_line(incident: &Incident, look: Look) -> String {
    let opened = parse_rfc3339(&incident.opened).ok();
    let mut moments: Vec<Moment> = first_sights(incident, opened).chain(claims(incident, opened)).collect();
    moments.push(Moment { after_ms: micros(incident.named_us), what: named(incident) });
    moments.extend(incident.evictions.iter().flat_map(|eviction| steps(incident, eviction)));
    moments.extend(end(incident, opened));
    moments.sort_by(|one, other| one.after_ms.total_cmp(&other.after_ms));
    let time = |moment: &Moment| opened.map_or_else(|| "-".to_owned(), |opened| wall(opened, moment.after_ms));
    let dated: Vec<_> = moments.into_iter().map(|moment| Dated { time: time(&moment), moment }).collect();
    columns(DATED, &dated, Look { wide: false, ..look })
}

/// When each came, unless the claim that it came with is told anyway.
fn first_sights(incident: &Incident, opened: Option<SystemTime>) -> impl Iterator<Item = Moment> {
    let is_told = |party: &Party| {
        let same =
            |seen: &Sighting| (seen.ifindex, &seen.mac, &seen.time) == (party.ifindex, &party.mac, &party.first_seen);
        incident.sightings.iter().any(same)
    };
    incident.parties.iter().filter(move |party| !is_told(party)).filter_map(move |party| {
        let what = format!("{}: {} (first sight)", who(party), claim(&party.evidence, &incident.address.to_string()));
        Some(Moment { after_ms: since(opened?, &party.first_seen)?, what })
    })
}

fn claims(incident: &Incident, opened: Option<SystemTime>) -> impl Iterator<Item = Moment> {
    incident.sightings.iter().filter_map(move |seen| {
        let known = incident.parties.iter().find(|party| party.ifindex == seen.ifindex);
        let who = match known {
            Some(party) if party.mac == seen.mac => who(party),
            Some(party) => format!("{} ({}, {})", label(party), party.port, seen.mac),
            None => format!("{} ({})", seen.port.clone().unwrap_or_else(|| format!("port {}", seen.ifindex)), seen.mac),
        };
        let what = format!("{who}: {}", claim(&seen.evidence, &seen.address.to_string()));
        Some(Moment { after_ms: since(opened?, &seen.time)?, what })
    })
}

fn who(party: &Party) -> String {
    format!("{} ({}, {})", label(party), party.port, party.mac)
}

/// What was seen, in words; a word of a newer agent as it is.
fn claim(evidence: &str, address: &str) -> String {
    match evidence {
        "configured" => format!("its kernel has {address} configured"),
        "request" => format!("asked for another address in ARP, as {address}"),
        "reply" => format!("answered in ARP that it has {address}"),
        "gratuitous_request" => format!("announced {address} by an ARP request"),
        "gratuitous_reply" => format!("announced {address} by an ARP reply"),
        "probe" => format!("asked in ARP whether {address} is free"),
        "ipv4" => format!("sent an IPv4 packet from {address}"),
        "martian" => format!("sent a packet from {address} that a kernel logged as a martian"),
        other => format!("claimed {address} ({other})"),
    }
}

fn named(incident: &Incident) -> String {
    format!("dupip had a name for it, a {}", if incident.verdict == "spoof" { "spoof" } else { "duplicate" })
}

fn steps<'a>(incident: &'a Incident, eviction: &'a Eviction) -> impl Iterator<Item = Moment> {
    let who = eviction.sandbox.as_ref().or(eviction.owner.as_ref()).unwrap_or(&eviction.port);
    let lease = eviction.new_lease.as_ref().map(|lease| format!("{}, generation {}", lease.address, lease.generation));
    let new = lease.unwrap_or_else(|| "another address".to_owned());
    eviction.steps.iter().map(move |taken| {
        let old = incident.address;
        let done = match taken.step.as_str() {
            "contain" => format!("what it says as {old} is dropped at its port"),
            "reallocate" => format!("its new lease is on disk: {new}"),
            "readdress" => format!("its address was changed to {new}"),
            "recycle" => "its orchestrator was asked to replace it".to_owned(),
            "announce_new" => format!("the bridge was told who has {new}"),
            "announce_kept" => format!("the bridge was told who keeps {old}"),
            "destroy_sockets" => format!("its connections from {old} were ended"),
            "verify" => "probes showed one owner for each address".to_owned(),
            "bind" => format!("its new lease is in use: {new}"),
            "release" => "nothing of it is dropped any more".to_owned(),
            other => format!("step {other} was taken"),
        };
        Moment { after_ms: taken.at_ms, what: format!("{who}: {done}") }
    })
}

fn end(incident: &Incident, opened: Option<SystemTime>) -> Option<Moment> {
    let after_ms = incident.heal_ms.or_else(|| since(opened?, incident.closed.as_ref()?));
    let what = match incident.status.as_str() {
        "healed" => "healed".to_owned(),
        "gone" => "ended without dupip".to_owned(),
        other => format!("ended: {other}"),
    };
    Some(Moment { after_ms: after_ms?, what }).filter(|_| incident.closed.is_some())
}

const CHANGES: &[Column<JournalEntry>] = &[
    Column::text("TIME", |entry| entry.time.clone()),
    Column::text("LEASE", lease_of),
    Column::text("CHANGE", change),
    Column::prose("WHY", |entry| entry.reason.clone()),
];

fn leases(incident: &Incident, history: &[JournalEntry], is_known: bool, look: Look) -> String {
    let Incident { address, .. } = incident;
    match history {
        _ if !is_known => return format!("What became of {address} is not known: the lease database cannot be read\n"),
        [] => return format!("Nobody ever had a lease on {address}\n"),
        _ => {}
    }
    let left_out = if look.wide { 0 } else { history.len().saturating_sub(SHOWN) };
    let earlier = match left_out {
        0 => String::new(),
        count => format!(" ({count} earlier changes: dupip lease history {address})"),
    };
    let shown = history.get(left_out..).unwrap_or_default();
    format!("What became of {address}{earlier}\n{}", columns(CHANGES, shown, Look { wide: false, ..look }))
}

fn lease_of(entry: &JournalEntry) -> String {
    let owner = entry.owner.clone().unwrap_or_else(|| "-".to_owned());
    entry.generation.map_or_else(|| owner.clone(), |generation| format!("{owner}, generation {generation}"))
}

fn change(entry: &JournalEntry) -> String {
    let from = entry.from.as_deref().unwrap_or("free");
    match &entry.to {
        Some(to) => format!("{}: {from} to {to}", entry.op),
        None => format!("{} came too late: it stayed {from}", entry.op),
    }
}

fn contest(incident: &Incident) -> String {
    let Some(decision) = decision(incident) else { return "No contest was held yet\n".to_owned() };
    let right = match (incident.parties.iter().any(|party| party.role == "winner"), incident.settled) {
        (true, true) => "; that is a right to the address, so whoever else has it may be moved",
        (true, false) => "; that is no right to the address, so whoever came later is contained at most",
        (false, _) => "; nobody is moved",
    };
    lines([format!("Contest: {decision}{right}")])
}

fn outcome(incident: &Incident) -> String {
    let status = match (incident.status.as_str(), incident.heal_ms, &incident.closed) {
        ("healed", Some(heal_ms), _) => {
            format!("healed {} after the first contradiction; every loser was verified to be away", after(heal_ms))
        }
        ("gone", _, Some(closed)) => format!("ended {closed} without dupip"),
        ("open", ..) => "still open".to_owned(),
        (other, ..) => other.to_owned(),
    };
    let way = if incident.closed.is_none() { "not healed" } else { "what stood in the way" };
    let held = incident.held.iter().map(|held| format!("  {way}: {held}"));
    let moved = incident.evictions.iter().flat_map(|eviction| moves(eviction, false));
    lines(iter::once(format!("Outcome: {status}")).chain(held).chain(moved))
}

fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| plain(&line) + "\n").collect()
}

/// From one RFC 3339 time to another, in milliseconds; negative if it was before.
fn since(opened: SystemTime, time: &str) -> Option<f64> {
    let at = parse_rfc3339(time).ok()?;
    let millis = |span: Duration| span.as_secs_f64() * 1e3;
    Some(at.duration_since(opened).map_or_else(|before| -millis(before.duration()), millis))
}

fn micros(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1e3
}

/// `after_ms` milliseconds after `opened`, as RFC 3339 has it.
fn wall(opened: SystemTime, after_ms: f64) -> String {
    // No incident lasts so long that its end could not be written.
    let span = Duration::try_from_secs_f64(after_ms.abs().min(1e12) / 1e3).unwrap_or_default();
    let at = if after_ms < 0.0 { opened.checked_sub(span) } else { opened.checked_add(span) };
    format_rfc3339_millis(at.unwrap_or(opened)).to_string()
}

/// In the unit that fits.
fn after(ms: f64) -> String {
    match ms {
        ..0.0 => "before".to_owned(),
        0.0..1.0 => format!("{:.0} us", ms * 1e3),
        1.0..10_000.0 => format!("{ms:.1} ms"),
        _ => format!("{:.0} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;
    use serde_json::{Value, json};

    use super::{
        super::conflicts::tests::{healed, open},
        *,
    };

    fn entry(number: u64, op: &str, generation: u64, from: Option<&str>, to: Option<&str>) -> Value {
        json!({
            "number": number, "time": "2026-06-12T08:00:00.000Z", "boot": "b", "boot_ms": 1, "actor": "agent", "op": op,
            "bridge": "rt0", "vlan": null, "address": "10.8.64.2", "owner": "reviewagent", "interface": null,
            "generation": generation, "from": from, "to": to, "reason": "was asked for",
        })
    }

    fn told(incident: Value, history: &[Value], wide: bool) -> String {
        let look = Look { wide, ..Look::piped(Output::Table) };
        tell(&serde_json::from_value(json!({"incident": incident, "history": history})).unwrap(), look)
    }

    /// Its lines, whatever the width of the columns in them.
    fn lines(text: &str) -> Vec<String> {
        let columns =
            |line: &str| line.split("  ").map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ");
        text.lines().map(columns).collect()
    }

    fn assert_lines(text: &str, wanted: &[&str]) {
        let found = lines(text);
        for wanted in wanted {
            assert!(found.contains(&lines(wanted).concat()), "no `{wanted}` in\n{text}");
        }
    }

    #[test]
    fn a_healed_incident_is_told_from_first_sight_to_its_end() {
        let want = "\
Incident 1: duplicate of 10.8.64.2 on rt0, opened 2026-06-12T09:00:00.120Z

PARTY        PORT          MAC                ROLE    NEW ADDRESS
sportsagent  veth3f2a91c0  ee:45:b1:fe:2d:db  loser   10.8.64.4
reviewagent  veth02        02:00:00:00:00:02  winner  -

TIME                      AFTER    WHAT
2026-06-12T08:00:00.000Z  before   sportsagent (veth3f2a91c0, ee:45:b1:fe:2d:db): its kernel has 10.8.64.2 configured (first sight)
2026-06-12T09:00:00.120Z  0 us     reviewagent (veth02, 02:00:00:00:00:02): asked for another address in ARP, as 10.8.64.2
2026-06-12T09:00:00.120Z  740 us   dupip had a name for it, a duplicate
2026-06-12T09:00:00.123Z  3.2 ms   sportsagent: its new lease is on disk: 10.8.64.4, generation 4
2026-06-12T09:00:00.125Z  5.5 ms   sportsagent: its address was changed to 10.8.64.4, generation 4
2026-06-12T09:00:00.164Z  44.3 ms  healed

What became of 10.8.64.2
TIME                      LEASE                      CHANGE                                 WHY
2026-06-12T08:00:00.000Z  reviewagent, generation 1  reserve: free to reserved              was asked for
2026-06-12T08:00:00.000Z  reviewagent, generation 1  bind: reserved to bound                was asked for
2026-06-12T08:00:00.000Z  reviewagent, generation 7  release came too late: it stayed bound  was asked for

Contest: reviewagent keeps it: holds lease generation 1; that is a right to the address, so whoever else has it may be moved

Outcome: healed 44.3 ms after the first contradiction; every loser was verified to be away
  sportsagent gets 10.8.64.4, generation 4: done
";
        let history = [
            entry(1, "reserve", 1, None, Some("reserved")),
            entry(2, "bind", 1, Some("reserved"), Some("bound")),
            entry(3, "release", 7, Some("bound"), None),
        ];
        let text = told(healed(), &history, false);
        assert_eq!(lines(&text), lines(want), "{text}");
    }

    #[test]
    fn an_open_incident_says_what_stands_in_the_way() {
        let text = told(open(), &[], false);
        assert_lines(
            &text,
            &[
                "Incident 2: duplicate of 10.8.64.2 on rt0.12, opened 2026-06-12T09:00:00.120Z",
                "Nobody ever had a lease on 10.8.64.2",
                "Contest: undecided: none of them holds a lease, and it is not known who was first; nobody is moved",
                "Outcome: still open",
                "  not healed: the agent observes and does not act (run with --mode enforce to heal)",
            ],
        );
        let mut unjudged = open();
        unjudged["reason"] = Value::Null;
        assert_lines(&told(unjudged, &[], false), &["No contest was held yet"]);
    }

    #[test]
    fn failures_steps_of_a_newer_agent_and_an_end_without_dupip_are_told() {
        let mut incident = healed();
        (incident["heal_ms"], incident["status"]) = (Value::Null, json!("gone"));
        let eviction = &mut incident["evictions"][0];
        (eviction["step"], eviction["failure"]) = (json!("readdress"), json!("the namespace is \u{1b}[31mgone"));
        eviction["steps"] = json!([{"step": "contain", "at_ms": 1.25}, {"step": "levitate", "at_ms": 12_000.0}]);
        incident["sightings"][0]["evidence"] = json!("telepathy");
        incident["sightings"][0]["ifindex"] = json!(77);
        let text = told(incident, &[], false);
        assert_lines(
            &text,
            &[
                "2026-06-12T09:00:00.120Z  0 us    veth02 (02:00:00:00:00:02): claimed 10.8.64.2 (telepathy)",
                "2026-06-12T09:00:00.121Z  1.2 ms  sportsagent: what it says as 10.8.64.2 is dropped at its port",
                "2026-06-12T09:00:12.120Z  12 s    sportsagent: step levitate was taken",
                "2026-06-12T09:00:00.164Z  44.0 ms  ended without dupip",
                "Outcome: ended 2026-06-12T09:00:00.164Z without dupip",
                "    failed and is tried again: the namespace is \u{fffd}[31mgone",
            ],
        );
    }

    #[test]
    fn a_long_history_is_told_in_short_unless_all_is_asked_for() {
        let history: Vec<_> = (1..=20).map(|n| entry(n, "bind", n, Some("reserved"), Some("bound"))).collect();
        let text = told(healed(), &history, false);
        assert_lines(&text, &["What became of 10.8.64.2 (8 earlier changes: dupip lease history 10.8.64.2)"]);
        assert!(!text.contains("generation 8 ") && text.contains("generation 9 "), "{text}");
        assert!(told(healed(), &history, true).contains("generation 8 "));
        let unknown = json!({"incident": healed(), "history": [], "history_known": false});
        let text = tell(&serde_json::from_value(unknown).unwrap(), Look::piped(Output::Table));
        assert_lines(&text, &["What became of 10.8.64.2 is not known: the lease database cannot be read"]);
    }

    #[test]
    fn a_story_fits_a_narrow_terminal() {
        let explained = serde_json::from_value(
            json!({"incident": healed(), "history": [entry(1, "reserve", 1, None, Some("reserved"))]}),
        );
        let look = Look { width: Some(70), ..Look::piped(Output::Table) };
        expect_file!["golden/explain.txt"].assert_eq(&tell(&explained.unwrap(), look));
    }
}

//! What a finding becomes: one count, one log line, one entry.

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tracing::Level;

use super::*;
use crate::{
    engine::{
        Bridge, Config, Configured, Engine, Finding, Flood, Held, Incident, Info, Input, KernelMartian, Port, Sandbox,
        Step, Survey,
    },
    net::{BridgeName, Domain, IfIndex, Ipv4Net, Mac, MartianReason, NetnsId, Reach, Station},
    time::{Span, Timestamp},
};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 1);
const CONTESTED: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);

fn bridge() -> BridgeName {
    "rt0".parse().unwrap()
}

fn domain() -> Domain {
    Domain::untagged(bridge())
}

fn port(at: u32) -> IfIndex {
    IfIndex::new(at).unwrap()
}

fn mac(at: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, at])
}

/// The duplicate that an engine finds when sandboxes a, b and so on come up with these addresses, next to the host.
fn duplicate(addresses: &[Ipv4Addr]) -> Box<Incident> {
    let mut engine = Engine::new(Config::default());
    let at = |millis| Timestamp::from_nanos(1) + Span::from_millis(millis);
    let networks = vec![Ipv4Net::new(HOST, 24).unwrap()];
    let up = Bridge { name: bridge(), port: port(1), mac: mac(1), networks, pvid: None, vlans: Vec::new() };
    engine.handle(Input::BridgeUp(up), at(0));
    engine.handle(Input::InventoryDone, at(1));
    for (address, number) in addresses.iter().zip(2..) {
        let (index, when) = (port(number), 10 * u64::from(number));
        let up = Port { index, name: format!("veth{number}"), bridge: bridge(), pvid: None };
        engine.handle(Input::PortUp(up), at(when));
        let mac = mac(u8::try_from(number).unwrap());
        let name = char::from(b'a' + u8::try_from(number - 2).unwrap()).to_string();
        let survey = Survey {
            at: at(when),
            sandbox: Sandbox {
                netns: Some(NetnsId { device: 4, inode: u64::from(number) }),
                owners: vec![name.parse().unwrap()],
                name: Some(name),
            },
            macs: [mac].into(),
            reach: Reach::Netns,
            forwards: false,
            addresses: Some(vec![Configured { tag: None, address: *address, mac }]),
        };
        engine.handle(Input::Surveyed { port: index, survey }, at(when + 5));
    }
    // The book of leases does not answer, and is not waited for.
    engine.handle(Input::Timeout, at(1000));
    let mut findings = std::iter::from_fn(|| engine.next_finding());
    let found = findings.find_map(|finding| match finding {
        Finding::Duplicate(incident) => Some(incident),
        _ => None,
    });
    found.unwrap()
}

fn martian(reason: MartianReason, news: bool) -> Finding {
    let station = Station { port: port(7), mac: mac(7) };
    Finding::Martian {
        domain: domain(),
        station,
        port_name: "veth7".to_owned(),
        address: [192, 0, 2, 1].into(),
        ether_source: mac(8),
        reason,
        news,
    }
}

/// What a log writes to.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All that is logged at this level or above while `tell` runs, and on its thread.
pub(crate) fn log_of(level: Level, tell: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_max_level(level).json().flatten_event(true);
    tracing::subscriber::with_default(log.with_writer(move || writer.clone()).finish(), tell);
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}

/// The lines that are logged while `tell` runs.
fn logged(tell: impl FnOnce()) -> Vec<Value> {
    let text = log_of(Level::INFO, tell);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn told(telemetry: &Telemetry) -> Vec<Event> {
    let page = telemetry.events().read(&Asked { limit: 100, ..Asked::default() }).unwrap();
    page.events.iter().map(|entry| entry.event.clone()).collect()
}

pub(crate) fn metric(telemetry: &Telemetry, series: &str) -> u64 {
    let text = String::from_utf8(telemetry.render().unwrap()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[test]
fn a_duplicate_is_one_line_one_count_and_one_entry() {
    let telemetry = Telemetry::new().unwrap();
    let incident = duplicate(&[CONTESTED, CONTESTED]);
    let lines = logged(|| telemetry.finding(&Finding::Duplicate(incident.clone())));
    let message = "a (port veth2, 02:00:00:00:00:02) and b (port veth3, 02:00:00:00:00:03) both use 10.8.64.2 on rt0";
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    for (field, value) in [
        ("event", "duplicate"),
        ("message", message),
        ("level", "ERROR"),
        ("domain", "rt0"),
        ("address", "10.8.64.2"),
        ("port", "veth3"),
        ("mac", "02:00:00:00:00:03"),
        ("reason", "configured"),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert_eq!((&line["incident"], line.get("owner")), (&1.into(), None));
    let [event] = told(&telemetry).try_into().unwrap();
    assert_eq!((event.kind, event.severity, event.message.as_str()), (Kind::Duplicate, Severity::Error, message));
    assert_eq!((event.address, event.port, event.incident), (Some(CONTESTED), Some(port(3)), Some(incident.id)));
    let snapshot = event.snapshot.unwrap();
    assert_eq!((&snapshot.parties, snapshot.sightings.len()), (&incident.parties, 0));
    assert_eq!(metric(&telemetry, "duplicate_ip_total{bridge=\"rt0\"}"), 1);
    assert_eq!(metric(&telemetry, "dupip_findings_total{kind=\"duplicate\"}"), 1);
}

#[test]
fn whoever_claims_the_hosts_address_is_critical() {
    let telemetry = Telemetry::new().unwrap();
    telemetry.finding(&Finding::Duplicate(duplicate(&[HOST])));
    let [event] = told(&telemetry).try_into().unwrap();
    assert_eq!(event.severity, Severity::Critical);
    assert!(event.message.starts_with("the host (port rt0, "), "{}", event.message);
}

#[test]
fn what_is_suppressed_is_counted_and_not_told() {
    let suppressed = ["martian:outside_subnet", "moved", "info"].map(|text| text.parse().unwrap());
    let telemetry = Telemetry::new().unwrap();
    telemetry.suppress(suppressed.to_vec());
    let incident = duplicate(&[CONTESTED, CONTESTED]);
    let [from, to] = [0, 1].map(|place| Box::new(incident.parties[place].clone()));
    let lines = logged(|| {
        telemetry.finding(&martian(MartianReason::OutsideSubnet, true));
        telemetry.finding(&martian(MartianReason::Loopback, true));
        telemetry.finding(&Finding::Moved { domain: domain(), address: CONTESTED, from, to });
        telemetry.finding(&Finding::Duplicate(incident));
        let info = Info::SoftConflict { domain: domain(), address: CONTESTED, parties: Vec::new() };
        telemetry.finding(&Finding::Info(info));
    });
    let kinds: Vec<_> = told(&telemetry).iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [Kind::Martian, Kind::Duplicate]);
    let kinds: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["martian", "duplicate"]);
    for (series, count) in [
        ("dupip_martian_total{bridge=\"rt0\",reason=\"outside_subnet\"}", 1),
        ("dupip_findings_total{kind=\"martian\"}", 2),
        ("dupip_moves_total{bridge=\"rt0\"}", 1),
        ("dupip_findings_total{kind=\"info\"}", 1),
    ] {
        assert_eq!(metric(&telemetry, series), count, "{series}");
    }
}

#[test]
fn what_goes_on_is_only_counted() {
    let telemetry = Telemetry::new().unwrap();
    let party = Box::new(duplicate(&[CONTESTED, CONTESTED]).parties[0].clone());
    let kernels = KernelMartian { source: CONTESTED, target: HOST, device: "eth0".to_owned(), mac: None };
    for news in [true, false, false] {
        telemetry.finding(&martian(MartianReason::Loopback, news));
        telemetry.finding(&Finding::ClaimRefused {
            port: port(7),
            port_name: "veth7".to_owned(),
            domain: domain(),
            news,
        });
        let (martian, sender) = (kernels.clone(), party.clone());
        telemetry.finding(&Finding::KernelMartian { domain: domain(), martian, sender, incident: None, news });
    }
    let [first, refused, kernel] = told(&telemetry).try_into().unwrap();
    assert_eq!(first.message, "port veth7: 02:00:00:00:00:07 claims 192.0.2.1, which nobody on rt0 can have: loopback");
    assert_eq!(refused.kind, Kind::ClaimsRefused);
    assert_eq!((kernel.kind, kernel.reason.as_deref()), (Kind::Martian, Some("kernel")));
    assert_eq!((kernel.port_name.as_deref(), kernel.facts.target), (Some("veth2"), Some(HOST)));
    for series in
        ["dupip_martian_total{bridge=\"rt0\",reason=\"kernel\"}", "dupip_refused_claims_total{bridge=\"rt0\"}"]
    {
        assert_eq!(metric(&telemetry, series), 3, "{series}");
    }
}

#[test]
fn a_step_names_the_loser_by_what_was_told_before() {
    let telemetry = Telemetry::new().unwrap();
    let incident = duplicate(&[CONTESTED, CONTESTED]);
    let (id, loser) = (incident.id, port(3));
    let stepped = || Finding::Stepped { incident: id, port: loser, done: Step::Readdress };
    telemetry.finding(&stepped());
    telemetry.finding(&Finding::Duplicate(incident));
    telemetry.finding(&Finding::Held { incident: id, domain: domain(), address: CONTESTED, reason: Held::Brake });
    telemetry.finding(&stepped());
    let [unknown, _, held, known] = told(&telemetry).try_into().unwrap();
    assert_eq!(unknown.message, "moving the loser at port 3 away from the contested address: readdress is done");
    assert_eq!((unknown.bridge, unknown.port, unknown.facts.step), (None, Some(loser), Some("readdress")));
    assert_eq!((held.kind, held.severity, held.incident), (Kind::Held, Severity::Warning, Some(id)));
    assert_eq!(known.message, "moving b (port veth3, 02:00:00:00:00:03) away from 10.8.64.2: readdress is done");
    assert_eq!((known.bridge, known.address, known.mac), (Some(bridge()), Some(CONTESTED), Some(mac(3))));
}

#[test]
fn a_crowd_is_named_in_part() {
    let telemetry = Telemetry::new().unwrap();
    let mut incident = duplicate(&[CONTESTED, CONTESTED]);
    let party = incident.parties[0].clone();
    incident.parties.extend(vec![party; 18]);
    telemetry.finding(&Finding::PartyJoined(incident));
    let [event] = told(&telemetry).try_into().unwrap();
    assert!(event.message.ends_with(" and 12 more all use 10.8.64.2 on rt0"), "{}", event.message);
}

#[test]
fn a_flood_is_told_twice_and_counted_once() {
    let telemetry = Telemetry::new().unwrap();
    let flood = |limited| Flood { port: port(7), port_name: "veth7".to_owned(), bridge: bridge(), limited };
    telemetry.finding(&Finding::Flood(flood(1)));
    telemetry.finding(&Finding::FloodEnded(flood(99)));
    let [began, ended] = told(&telemetry).try_into().unwrap();
    assert_eq!((began.severity, began.facts.count), (Severity::Warning, Some(1)));
    assert_eq!(ended.message, "the flood of port veth7 is over: 99 claims were only counted");
    assert_eq!(metric(&telemetry, "dupip_floods_total{bridge=\"rt0\"}"), 1);
}

#[test]
fn what_fails_is_told_when_it_is_news_and_when_it_is_over() {
    let telemetry = Telemetry::new().unwrap();
    let gauge = || metric(&telemetry, "dupip_degraded{feature=\"taps\"}");
    for reason in [None, Some("no"), Some("no"), Some("never"), None, None] {
        telemetry.degraded(Feature::Taps, reason.as_ref().map(|reason| reason as &dyn std::fmt::Display));
        assert_eq!(gauge(), u64::from(reason.is_some()));
    }
    telemetry.lost(bridge(), 3);
    telemetry.tell_fenced("release", "a at 10.8.64.2");
    let events = told(&telemetry);
    let told: Vec<_> = events.iter().map(|event| (event.kind, event.reason.as_deref(), event.facts.feature)).collect();
    assert_eq!(
        told,
        [
            (Kind::Degraded, Some("no"), Some("taps")),
            (Kind::Degraded, Some("never"), Some("taps")),
            (Kind::Restored, None, Some("taps")),
            (Kind::EventsLost, None, None),
            (Kind::Fenced, Some("release"), None),
        ]
    );
}

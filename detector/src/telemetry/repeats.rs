//! Log lines that say again what was said a moment ago: counted, and told as one.
//!
//! Pure bookkeeping; time is handed in. The first of its kind about one thing is told at once. What follows within
//! [`WINDOW`] is held back, and told as a count when that is over; while it goes on, each window has one line. A port that
//! speaks of ever new addresses has [`EACH`] lines in a window, and the rest is one count of the port. Nothing is lost: every
//! event is told or in a count, and [`Repeats::finish`] gives the counts that are left.

use std::{collections::BTreeMap, net::Ipv4Addr};

use tracing::Level;

use super::event::{Event, Facts, Kind};
use crate::{
    net::{BridgeName, IfIndex, VlanId},
    time::{Span, Timestamp},
};

/// How long repeats are held back.
pub(super) const WINDOW: Span = Span::from_secs(60);
/// How many things a port may be told of with one kind of event, each by its own line, within a window.
const EACH: usize = 8;
/// How many things are kept apart; what is more is counted by its kind only. Errors have as much room again, and beyond
/// that they are told each time: whoever fills the room with lesser things keeps no error from being told.
const MOST: usize = 4096;

/// What an event is about: events of one subject repeat each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    // Those of one port stand together, whatever VLAN the port writes on its frames.
    kind: Kind,
    bridge: Option<BridgeName>,
    port: Option<IfIndex>,
    /// `None`: all that the port, or that the kind has.
    thing: Option<Thing>,
}

/// One of the things that a port may be told of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Thing {
    vlan: Option<VlanId>,
    /// The sort of the kind.
    sort: Option<String>,
    address: Option<Ipv4Addr>,
}

/// How often it was said.
#[derive(Clone, Debug)]
struct Said {
    /// When the window began.
    since: Timestamp,
    /// How often since then, told lines not counted.
    held: u64,
    /// What was said last of what was held back, with the packets of all of it.
    last: Event,
}

/// Repeats that were held back: one line stands for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repeated {
    /// The last of them, with what they have in common.
    pub(super) last: Event,
    /// How many.
    pub(super) count: u64,
    /// In how long.
    pub(super) within: Span,
}

/// What was told within the last window, and what was held back.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    said: BTreeMap<Subject, Said>,
}

impl Subject {
    fn of(event: &Event) -> Self {
        let sort = match event.kind {
            Kind::Martian | Kind::Info | Kind::Fenced => event.reason.clone(),
            _ => None,
        };
        let thing = Thing { vlan: event.vlan, sort, address: event.address };
        Self { kind: event.kind, bridge: event.bridge, port: event.port, thing: Some(thing) }
    }

    /// Its port, whatever it says.
    fn of_port(&self) -> Self {
        Self { thing: None, ..self.clone() }
    }

    const fn of_kind(&self) -> Self {
        Self { kind: self.kind, bridge: None, port: None, thing: None }
    }

    fn shares_port(&self, other: &Self) -> bool {
        (self.kind, self.bridge, self.port) == (other.kind, other.bridge, other.port)
    }

    fn is_error(&self) -> bool {
        self.kind.level() == Level::ERROR
    }
}

impl Said {
    fn hold(&mut self, event: &Event) {
        let sum = match event.kind {
            // Each has the packets since the one before; others count from their beginning on.
            Kind::EventsLost if self.held > 0 => {
                self.last.facts.count.into_iter().chain(event.facts.count).reduce(u64::saturating_add)
            }
            _ => event.facts.count,
        };
        let facts = Facts { count: sum, ..event.facts.clone() };
        (self.held, self.last) = (self.held + 1, Event { facts, ..without_snapshot(event) });
    }
}

impl Repeats {
    /// Whether the event is to be told now; else it is counted.
    pub(super) fn is_news(&mut self, event: &Event, now: Timestamp) -> bool {
        if !event.kind.bearing().may_be_held_back() {
            return true;
        }
        let Some(subject) = self.room_for(Subject::of(event)) else { return true };
        if let Some(said) = self.said.get_mut(&subject) {
            said.hold(event);
            return false;
        }
        // Whoever is counted with others is not told by itself.
        let is_own = subject.thing.is_some();
        self.said.insert(subject, Said { since: now, held: u64::from(!is_own), last: without_snapshot(event) });
        is_own
    }

    /// Under what it is counted: itself, or its port or kind if there are too many; `None` if it is not to be counted.
    fn room_for(&self, subject: Subject) -> Option<Subject> {
        let is_known = self.said.contains_key(&subject);
        let of_port = subject.of_port();
        let of_its_port =
            self.said.range(&of_port..).map(|(said, _)| said).take_while(|said| said.shares_port(&subject));
        let beside = of_its_port.filter(|said| said.thing.is_some()).take(EACH).count();
        let is_error = subject.is_error();
        match () {
            () if is_known => Some(subject),
            () if is_error && self.said.len() >= 2 * MOST => None,
            () if !is_error && self.said.len() >= MOST => Some(subject.of_kind()),
            () if beside >= EACH => Some(of_port),
            () => Some(subject),
        }
    }

    /// The counts of the windows that are over. A subject that nothing was said of for a window is news again.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Repeated> {
        let mut due = Vec::new();
        self.said.retain(|subject, said| {
            let within = now.since(said.since);
            if within < WINDOW {
                return true;
            }
            let held = std::mem::take(&mut said.held);
            due.extend(repeated(subject, said, held, within));
            said.since = now;
            held > 0
        });
        due
    }

    /// All counts that are left.
    pub(super) fn finish(&mut self, now: Timestamp) -> Vec<Repeated> {
        let said = std::mem::take(&mut self.said);
        said.iter().filter_map(|(subject, said)| repeated(subject, said, said.held, now.since(said.since))).collect()
    }
}

/// `None` if nothing was held back.
fn repeated(subject: &Subject, said: &Said, count: u64, within: Span) -> Option<Repeated> {
    let last = said.last.clone();
    let (thing, port) = (subject.thing.as_ref(), subject.port);
    let last = Event {
        bridge: subject.bridge,
        vlan: thing.and_then(|thing| thing.vlan),
        address: thing.and_then(|thing| thing.address),
        reason: last.reason.filter(|_| thing.is_some()),
        port,
        port_name: last.port_name.filter(|_| port.is_some()),
        mac: last.mac.filter(|_| port.is_some() && thing.is_some_and(|thing| thing.address.is_some())),
        ..last
    };
    (count > 0).then_some(Repeated { last, count, within })
}

/// Only its line is wanted.
fn without_snapshot(event: &Event) -> Event {
    Event { snapshot: None, parties: Vec::new(), ..event.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{net::Domain, telemetry::event::Severity};

    fn martian(port: u32, address: u32) -> Event {
        let domain = Domain::untagged("rt0".parse().unwrap());
        let event = Event::new(Kind::Martian, Severity::Warning, address).at(domain, Ipv4Addr::from_bits(address));
        Event { port: IfIndex::new(port), ..event.because("loopback") }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn counts(repeated: &[Repeated]) -> Vec<(u64, u64)> {
        repeated.iter().map(|of| (of.count, of.within.as_nanos() / 1_000_000_000)).collect()
    }

    #[test]
    fn the_first_is_told_and_the_rest_counted_as_long_as_it_goes_on() {
        let mut repeats = Repeats::default();
        let told: Vec<_> = (0..5).map(|second| repeats.is_news(&martian(7, 1), at(second))).collect();
        assert_eq!(told, [true, false, false, false, false]);
        assert_eq!(repeats.due(at(59)), []);
        assert_eq!(counts(&repeats.due(at(60))), [(4, 60)]);
        assert!(!repeats.is_news(&martian(7, 1), at(61)), "it goes on");
        let due = repeats.due(at(121));
        assert_eq!((counts(&due), due[0].last.message.as_str()), (vec![(1, 61)], "1"));
        assert_eq!((repeats.due(at(181)), repeats.said.len()), (vec![], 0));
        assert!(repeats.is_news(&martian(7, 1), at(182)), "it was quiet for a window");
    }

    #[test]
    fn other_things_are_no_repeats() {
        let mut repeats = Repeats::default();
        let mut other_sort = martian(7, 1);
        other_sort.reason = Some("kernel".to_owned());
        let mut other_bridge = martian(7, 1);
        other_bridge.bridge = "rt1".parse().ok();
        let events = [martian(7, 1), martian(7, 2), martian(8, 1), other_sort, other_bridge];
        assert!(events.iter().all(|event| repeats.is_news(event, at(0))));
        assert!(!events.iter().any(|event| repeats.is_news(event, at(0))));
    }

    #[test]
    fn what_becomes_of_an_incident_or_the_agent_is_never_held_back() {
        let mut repeats = Repeats::default();
        for kind in Kind::ALL {
            let event = Event::new(kind, Severity::Error, "");
            assert!(repeats.is_news(&event, at(0)), "{kind}");
            assert_eq!(repeats.is_news(&event, at(0)), !kind.bearing().may_be_held_back(), "{kind}");
        }
        for kind in [Kind::Flood, Kind::FloodEnded, Kind::Duplicate, Kind::Healed, Kind::Degraded, Kind::Restored] {
            assert!(!kind.bearing().may_be_held_back(), "{kind}");
        }
    }

    #[test]
    fn packets_of_all_that_was_held_back_are_summed() {
        let mut repeats = Repeats::default();
        let lost = |count| {
            let facts = Facts { count: Some(count), ..Facts::default() };
            Event { bridge: "rt0".parse().ok(), ..Event::new(Kind::EventsLost, Severity::Warning, count).with(facts) }
        };
        let told = [100, 5, 7, 9].map(|count| repeats.is_news(&lost(count), at(0)));
        assert_eq!(told, [true, false, false, false]);
        let sums = |due: Vec<Repeated>| due.iter().map(|of| (of.count, of.last.facts.count)).collect::<Vec<_>>();
        assert_eq!(sums(repeats.due(at(60))), [(3, Some(21))]);
        assert!(!repeats.is_news(&lost(2), at(61)));
        assert_eq!(sums(repeats.finish(at(62))), [(1, Some(2))], "what is in one line is in no other");
    }

    #[test]
    fn a_duplicate_that_goes_on_counts_its_claims_from_its_beginning() {
        let mut repeats = Repeats::default();
        let goes_on = |count| {
            let facts = Facts { count: Some(count), ..Facts::default() };
            Event { kind: Kind::Continues, ..martian(7, 1) }.with(facts)
        };
        let _ = [64, 128, 256].map(|count| repeats.is_news(&goes_on(count), at(0)));
        assert_eq!(repeats.finish(at(1))[0].last.facts.count, Some(256));
    }

    #[test]
    fn a_port_that_writes_ever_new_tags_holds_back_no_error_of_others() {
        let mut repeats = Repeats::default();
        let tagged = |vlan, address| Event { vlan: VlanId::new(vlan), ..martian(7, address) };
        let all = (1..4095).flat_map(|vlan| [1, 2, 3].map(|address| tagged(vlan, address)));
        assert_eq!(all.filter(|event| repeats.is_news(event, at(0))).count(), EACH);
        assert_eq!(repeats.said.len(), EACH + 1);
        let last = &repeats.due(at(60))[0].last;
        assert_eq!((last.vlan, last.bridge), (None, "rt0".parse().ok()));
    }

    #[test]
    fn the_first_error_is_told_however_full_it_is() {
        let mut repeats = Repeats::default();
        let most = u32::try_from(MOST).unwrap();
        let told = (0..=most).filter(|port| repeats.is_news(&martian(1 + port, 1), at(0))).count();
        assert_eq!(told, MOST);
        assert!(!repeats.is_news(&martian(100_000, 1), at(0)));
        let failed = |port| Event { kind: Kind::StoreFailed, ..martian(port, 1) };
        for port in 0..3 * most {
            assert!(repeats.is_news(&failed(1 + port), at(0)), "{port}");
        }
        assert!(!repeats.is_news(&failed(1), at(0)), "it was told a moment ago");
        assert!(repeats.said.len() <= 2 * MOST + Kind::ALL.len());
    }

    #[test]
    fn a_port_with_ever_new_addresses_has_a_few_lines_and_one_count() {
        let mut repeats = Repeats::default();
        let told = (0..1000).filter(|address| repeats.is_news(&martian(7, *address), at(0))).count();
        assert_eq!((told, repeats.said.len()), (EACH, EACH + 1));
        assert!(repeats.is_news(&martian(8, 5), at(0)), "another port is not silenced");
        let due = repeats.due(at(60));
        assert_eq!(counts(&due), [(1000 - EACH as u64, 60)]);
        let last = &due[0].last;
        assert_eq!((last.address, &last.reason, last.port), (None, &None, IfIndex::new(7)));
    }

    #[test]
    fn nothing_is_lost_and_memory_is_bound() {
        let mut repeats = Repeats::default();
        let (mut told, mut all, mut counted) = (0, 0, 0);
        for second in 0..200 {
            for port in 0..2000 {
                all += 1;
                told += u64::from(repeats.is_news(&martian(1 + port, port * 7 + second % 3), at(second.into())));
            }
            counted += repeats.due(at(second.into())).iter().map(|of| of.count).sum::<u64>();
            assert!(repeats.said.len() <= MOST + Kind::ALL.len());
        }
        counted += repeats.finish(at(200)).iter().map(|of| of.count).sum::<u64>();
        assert_eq!((told + counted, repeats.finish(at(200))), (all, vec![]));
        assert!(told < all / 10, "{told}");
    }
}

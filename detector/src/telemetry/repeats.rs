//! Log lines that say again what was said a moment ago: counted, and told as one.
//!
//! Pure bookkeeping; time is handed in. The first of its kind about one thing is told at once. What follows within
//! [`WINDOW`] is held back, and told as a count when that is over; while it goes on, each window has one line. A port that
//! speaks of ever new addresses has [`EACH`] lines in a window, and the rest is one count of the port. Nothing is lost: every
//! event is told or in a count, and [`Repeats::finish`] gives the counts that are left.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::event::{Event, Kind};
use crate::{
    net::{Domain, IfIndex},
    time::{Span, Timestamp},
};

/// How long repeats are held back.
pub(super) const WINDOW: Span = Span::from_secs(60);
/// How many things a port may be told of with one kind of event, each by its own line, within a window.
const EACH: usize = 8;
/// How many things are kept apart; what is more is counted by its kind only.
const MOST: usize = 4096;

/// What an event is about: events of one subject repeat each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    // Those of one port stand together.
    kind: Kind,
    domain: Option<Domain>,
    port: Option<IfIndex>,
    /// The sort of the kind, or what it concerns: `None` if any.
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
    /// What was said last.
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
        let (domain, port, address) = (event.domain(), event.port, event.address);
        Self { kind: event.kind, sort, domain, port, address }
    }

    /// Its port, whatever the address is.
    fn of_port(&self) -> Self {
        Self { address: None, sort: None, ..self.clone() }
    }

    fn of_kind(&self) -> Self {
        Self { kind: self.kind, sort: None, domain: None, port: None, address: None }
    }

    fn shares_port(&self, other: &Self) -> bool {
        (self.kind, self.domain, self.port) == (other.kind, other.domain, other.port)
    }
}

/// Whether it may be held back: nothing that opens, changes or ends an incident, and nothing after which something else
/// holds than before.
const fn may_be_held_back(kind: Kind) -> bool {
    match kind {
        Kind::Continues
        | Kind::Martian
        | Kind::Moved
        | Kind::Info
        | Kind::Flood
        | Kind::FloodEnded
        | Kind::ClaimsRefused
        | Kind::NotAdopted
        | Kind::StoreFailed
        | Kind::EventsLost
        | Kind::Fenced => true,
        Kind::Duplicate
        | Kind::Reopened
        | Kind::PartyJoined
        | Kind::AddressJoined
        | Kind::Judged
        | Kind::Held
        | Kind::EvictionStep
        | Kind::EvictionFailed
        | Kind::Contained
        | Kind::Lifted
        | Kind::Evicted
        | Kind::GivenUp
        | Kind::TakenUp
        | Kind::Paused
        | Kind::PauseEnded
        | Kind::Healed
        | Kind::Gone
        | Kind::MoveWaits
        | Kind::MoveResumed
        // Each is a message that is lost.
        | Kind::HookFailed
        | Kind::Degraded
        | Kind::Restored => false,
    }
}

impl Repeats {
    /// Whether the event is to be told now; else it is counted.
    pub(super) fn is_news(&mut self, event: &Event, now: Timestamp) -> bool {
        if !may_be_held_back(event.kind) {
            return true;
        }
        let subject = self.room_for(Subject::of(event));
        match self.said.get_mut(&subject) {
            Some(said) => {
                (said.held, said.last) = (said.held + 1, without_snapshot(event));
                false
            }
            None => {
                // Whoever is counted with others is not told by itself.
                let is_own = subject == Subject::of(event);
                self.said.insert(subject, Said { since: now, held: u64::from(!is_own), last: without_snapshot(event) });
                is_own
            }
        }
    }

    /// Under what it is counted: itself, or its port or kind if there are too many.
    fn room_for(&self, subject: Subject) -> Subject {
        let is_known = self.said.contains_key(&subject);
        let of_port = subject.of_port();
        let of_its_port =
            self.said.range(&of_port..).map(|(said, _)| said).take_while(|said| said.shares_port(&subject));
        let beside = of_its_port.filter(|said| **said != of_port).take(EACH).count();
        match () {
            () if is_known => subject,
            () if self.said.len() >= MOST => subject.of_kind(),
            () if beside >= EACH => of_port,
            () => subject,
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
    let Event { bridge, vlan, port, port_name, mac, .. } = said.last.clone();
    let of_port = subject.port.is_some();
    let last = Event {
        address: subject.address,
        reason: said.last.reason.clone().filter(|_| *subject == Subject::of(&said.last)),
        bridge: bridge.filter(|_| subject.domain.is_some()),
        vlan: vlan.filter(|_| subject.domain.is_some()),
        port: port.filter(|_| of_port),
        port_name: port_name.filter(|_| of_port),
        mac: mac.filter(|_| of_port && subject.address.is_some()),
        ..said.last.clone()
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
    use crate::telemetry::event::Severity;

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
            assert_eq!(repeats.is_news(&event, at(0)), !may_be_held_back(kind), "{kind}");
        }
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

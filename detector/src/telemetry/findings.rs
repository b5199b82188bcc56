//! What the engine finds, as events with their counts.

use std::net::Ipv4Addr;

use super::{
    Telemetry,
    event::{Event, Facts, Kind, Severity},
    words::{At, List, Moves, Parties},
};
use crate::{
    engine::{Finding, Flood, Held, Incident, IncidentId, Info, KernelMartian, Party, Step},
    net::{Domain, IfIndex, Lease, Mac, MartianReason, Station},
    time::{Span, Timestamp},
};

impl Telemetry {
    /// Counts and tells what the engine found.
    pub fn finding(&self, finding: &Finding) {
        self.count(finding);
        if let Some(event) = self.event(finding) {
            self.tell(event);
        }
    }

    fn count(&self, finding: &Finding) {
        match finding {
            Finding::Duplicate(incident) => {
                self.duplicates.with_label_values(&[incident.domain.bridge.as_str()]).inc();
                self.detect.observe(incident.time_to_name().as_secs_f64());
            }
            Finding::Reopened(incident) => self.reopened.with_label_values(&[incident.domain.bridge.as_str()]).inc(),
            Finding::StepFailed { is_tried_again: true, .. } => self.evictions.with_label_values(&["failed"]).inc(),
            Finding::GivenUp { .. } => self.evictions.with_label_values(&["given_up"]).inc(),
            Finding::Held { reason, .. } => self.held.with_label_values(&[reason.word()]).inc(),
            Finding::Contained { domain, .. } => self.containments.with_label_values(&[domain.bridge.as_str()]).inc(),
            Finding::Paused { until } => self.paused.set(until.is_some().into()),
            Finding::Healed(incident) => self.count_healed(incident),
            Finding::Martian { domain, reason, .. } => self.count_martian(*domain, *reason),
            Finding::KernelMartian { domain, .. } => self.count_martian(*domain, MartianReason::Kernel),
            Finding::Moved { domain, .. } => self.moves.with_label_values(&[domain.bridge.as_str()]).inc(),
            Finding::Flood(flood) => self.floods.with_label_values(&[flood.bridge.as_str()]).inc(),
            Finding::ClaimRefused { domain, .. } => self.refused.with_label_values(&[domain.bridge.as_str()]).inc(),
            _ => {}
        }
    }

    fn count_healed(&self, incident: &Incident) {
        self.heal.observe(incident.time_to_close().unwrap_or_default().as_secs_f64());
        self.evictions.with_label_values(&["healed"]).inc_by(incident.moved() as u64);
    }

    fn count_martian(&self, domain: Domain, reason: MartianReason) {
        self.martians.with_label_values(&[domain.bridge.as_str(), reason.as_str()]).inc();
    }

    /// What there is to tell; nothing of what was told already and only goes on.
    #[must_use]
    pub fn event(&self, finding: &Finding) -> Option<Event> {
        Some(match finding {
            Finding::Duplicate(incident) => duplicate(incident),
            Finding::Reopened(incident) => reopened(incident),
            Finding::PartyJoined(incident) => of(incident, Kind::PartyJoined, Parties(incident)),
            Finding::AddressJoined { incident, address } => address_joined(incident, *address),
            Finding::Continues(incident) => continues(incident),
            Finding::Judged(incident) => judged(incident),
            Finding::Held { incident, domain, address, reason } => held(*incident, *domain, *address, *reason),
            Finding::Stepped { incident, port, done } => self.stepped(*incident, *port, *done),
            Finding::StepFailed { incident, domain, port, step, failure, .. } => {
                self.step_failed(*incident, *domain, *port, *step, failure)
            }
            Finding::Contained { incident, domain, address, port } => {
                self.containment(Some(*incident), *domain, *address, *port, true)
            }
            Finding::Lifted { incident, domain, address, port, count } => {
                let event = self.containment(*incident, *domain, *address, *port, false);
                event.with(Facts { count: Some(*count as u64), ..Facts::default() })
            }
            Finding::Evicted { incident, port } => evicted(incident, *port),
            Finding::GivenUp { incident, port } => given_up(incident, *port),
            Finding::TakenUp(incident) => {
                of(incident, Kind::TakenUp, format_args!("goes on, as when the agent stopped: {}", Parties(incident)))
            }
            Finding::Paused { until } => paused(*until),
            Finding::Healed(incident) => healed(incident),
            Finding::Gone(incident) => gone(incident),
            Finding::Martian { news: false, .. }
            | Finding::KernelMartian { news: false, .. }
            | Finding::ClaimRefused { news: false, .. } => return None,
            Finding::Martian { domain, station, port_name, address, ether_source, reason, .. } => {
                martian(*domain, *station, *address, *ether_source, *reason).behind(port_name)
            }
            Finding::KernelMartian { domain, martian, sender, incident, .. } => {
                kernel_martian(*domain, martian, sender, *incident)
            }
            Finding::Moved { domain, address, from, to } => moved(*domain, *address, from, to),
            Finding::Info(info) => information(info),
            Finding::Flood(flood) => flooding(flood),
            Finding::FloodEnded(flood) => flood_ended(flood),
            Finding::ClaimRefused { port, port_name, domain, .. } => claims_refused(*port, *domain).behind(port_name),
            Finding::NotAdopted { domain, address, failure } => not_adopted(*domain, *address, failure),
            Finding::StoreFailed { domain, address, failure } => store_failed(*domain, *address, failure),
            Finding::MoveWaits(lease) => move_waits(lease),
            Finding::Resumed { incident, lease } => resumed(*incident, lease),
        })
    }

    fn stepped(&self, incident: IncidentId, port: IfIndex, done: Step) -> Event {
        let step = done.as_str();
        let event = self.of_loser(incident, port, |loser, address| {
            Event::new(
                Kind::EvictionStep,
                Severity::Info,
                format_args!("moving {loser} away from {address}: {step} is done"),
            )
        });
        event.with(Facts { step: Some(step), ..Facts::default() })
    }

    fn step_failed(&self, incident: IncidentId, domain: Domain, port: IfIndex, step: Step, failure: &str) -> Event {
        let step = step.as_str();
        let event = self.of_loser(incident, port, |loser, address| {
            let words = format_args!("{loser} is not moved away from {address} yet, which is tried again: {failure}")
                .to_string();
            Event::new(Kind::EvictionFailed, Severity::Warning, words)
        });
        let event = event.because(failure).with(Facts { step: Some(step), ..Facts::default() });
        Event { bridge: Some(domain.bridge), vlan: domain.vlan, ..event }
    }

    fn containment(
        &self,
        incident: Option<IncidentId>,
        domain: Domain,
        address: Ipv4Addr,
        port: IfIndex,
        drops: bool,
    ) -> Event {
        let (kind, words) = match drops {
            true => (Kind::Contained, "whatever it says of the address is dropped at its port"),
            false => (Kind::Lifted, "what it says of the address is not dropped any more"),
        };
        let tell = |who: &str| Event::new(kind, Severity::Info, format_args!("{who} and {address}: {words}"));
        let event = match incident {
            Some(incident) => self.of_loser(incident, port, |loser, _| tell(loser)),
            None => Event { port: Some(port), ..tell(&format!("port {port}")) },
        };
        event.at(domain, address)
    }

    /// An event of a loser, who is known from what was last told of the incident.
    fn of_loser(&self, incident: IncidentId, port: IfIndex, tell: impl Fn(&str, &str) -> Event) -> Event {
        let last = self.events.last_of(incident);
        let known = last.as_ref().and_then(|entry| entry.event.snapshot.as_deref());
        let event = match known.and_then(|known| Some((known, known.party(port)?))) {
            Some((known, loser)) => {
                tell(&At(loser).to_string(), &known.address.to_string()).at(known.domain, known.address).by(loser)
            }
            None => tell(&format!("the loser at port {port}"), "the contested address"),
        };
        Event { incident: Some(incident), port: Some(port), ..event }
    }
}

fn of(incident: &Incident, kind: Kind, message: impl std::fmt::Display) -> Event {
    Event::new(kind, Severity::of(incident), message).of(incident)
}

fn duplicate(incident: &Incident) -> Event {
    let facts = Facts { after_us: Some(micros(incident.time_to_name())), ..Facts::default() };
    of(incident, Kind::Duplicate, Parties(incident)).because(incident.first_evidence.as_str()).with(facts)
}

fn reopened(incident: &Incident) -> Event {
    let facts = Facts { count: Some(incident.times.into()), ..Facts::default() };
    of(incident, Kind::Reopened, format_args!("the duplicate is back: {}", Parties(incident))).with(facts)
}

fn address_joined(incident: &Incident, address: Ipv4Addr) -> Event {
    let Incident { domain, addresses, address: first, .. } = incident;
    let words = format_args!(
        "{address} on {domain} is contested too, by whoever contests {first}: {} addresses by now",
        addresses.len()
    )
    .to_string();
    let event = of(incident, Kind::AddressJoined, words);
    let event = match incident.claimant() {
        Some(claimant) => event.by(claimant),
        None => event,
    };
    Event { address: Some(address), ..event }
}

fn continues(incident: &Incident) -> Event {
    let facts = Facts { count: Some(incident.claims), ..Facts::default() };
    let words =
        format_args!("the duplicate goes on, after {} claims: {}", incident.claims, Parties(incident)).to_string();
    of(incident, Kind::Continues, words).with(facts)
}

fn judged(incident: &Incident) -> Event {
    let reason = incident.contest.as_ref().map(|contest| contest.reason.to_string()).unwrap_or_default();
    let words = incident.decision().unwrap_or_default();
    let event = Event::new(Kind::Judged, Severity::Info, words).of(incident).because(reason);
    match incident.winner() {
        Some(winner) => event.by(winner),
        None => event,
    }
}

fn held(incident: IncidentId, domain: Domain, address: Ipv4Addr, reason: Held) -> Event {
    let reason = reason.as_str();
    let event = Event::new(Kind::Held, Severity::Warning, format_args!("{address} is not healed: {reason}"));
    Event { incident: Some(incident), ..event.at(domain, address).because(reason) }
}

fn evicted(incident: &Incident, port: IfIndex) -> Event {
    let lease = incident.evictions.get(&port).and_then(|eviction| eviction.lease.as_ref());
    let new = lease.map(|lease| lease.address.to_string()).unwrap_or_default();
    let words = |who: &str| format!("{who} has {new} now, and {} no more", incident.address);
    let event = of_party(incident, port, |who| Event::new(Kind::Evicted, Severity::Info, words(who)));
    event.with(Facts {
        owner: lease.map(|lease| lease.owner.to_string()),
        new_address: lease.map(|of| of.address),
        ..Facts::default()
    })
}

fn given_up(incident: &Incident, port: IfIndex) -> Event {
    let failure = incident.evictions.get(&port).and_then(|eviction| eviction.failure.clone()).unwrap_or_default();
    let words = |who: &str| {
        format!(
            "{who} could not be moved away from {}, stays contained and is tried again later: {failure}",
            incident.address
        )
    };
    of_party(incident, port, |who| Event::new(Kind::GivenUp, Severity::Error, words(who))).because(&failure)
}

fn of_party(incident: &Incident, port: IfIndex, tell: impl Fn(&str) -> Event) -> Event {
    match incident.party(port) {
        Some(party) => tell(&At(party).to_string()).of(incident).by(party),
        None => tell(&format!("port {port}")).of(incident),
    }
}

fn paused(until: Option<Timestamp>) -> Event {
    match until {
        Some(_) => {
            Event::new(Kind::Paused, Severity::Warning, "paused: duplicates are told of, and nothing new is done")
        }
        None => Event::new(Kind::PauseEnded, Severity::Info, "the pause is over"),
    }
}

fn healed(incident: &Incident) -> Event {
    closed(incident, Event::new(Kind::Healed, Severity::Info, Moves(incident)))
}

fn gone(incident: &Incident) -> Event {
    let words = format_args!("{} has one owner again: the duplicate ended without dupip", incident.address).to_string();
    closed(incident, Event::new(Kind::Gone, Severity::Info, words))
}

/// Nobody in particular did it.
fn closed(incident: &Incident, event: Event) -> Event {
    let facts = Facts { after_us: incident.time_to_close().map(micros), ..Facts::default() };
    Event { port: None, port_name: None, mac: None, ..event.of(incident).with(facts) }
}

fn martian(domain: Domain, station: Station, address: Ipv4Addr, ether_source: Mac, reason: MartianReason) -> Event {
    let mac = station.mac;
    let words = match reason {
        MartianReason::EtherMismatch => {
            format!("a frame of {ether_source} says that {mac} has {address}")
        }
        _ => format!("{mac} claims {address}, which nobody on {domain} can have: {reason}"),
    };
    let facts = Facts { source_mac: Some(ether_source.to_string()), ..Facts::default() };
    let event = Event::new(Kind::Martian, Severity::Warning, words).at(domain, address).from(station);
    event.because(reason).with(facts)
}

fn kernel_martian(domain: Domain, martian: &KernelMartian, sender: &Party, incident: Option<IncidentId>) -> Event {
    let KernelMartian { source, target, device, .. } = martian;
    let words =
        format!("a kernel heard {} send from {source} to {target}, on its {device}, which cannot be", At(sender));
    let facts = Facts { target: Some(*target), device: Some(device.clone()), ..Facts::default() };
    let event = Event::new(Kind::Martian, Severity::Warning, words).at(domain, *source).by(sender);
    Event { incident, parties: vec![sender.clone()], ..event.because(MartianReason::Kernel).with(facts) }
}

fn moved(domain: Domain, address: Ipv4Addr, from: &Party, to: &Party) -> Event {
    let words = format!("{address} went from {} to {}", At(from), At(to));
    let event = Event::new(Kind::Moved, Severity::Info, words).at(domain, address).by(to);
    Event { parties: vec![from.clone(), to.clone()], ..event }
}

fn information(info: &Info) -> Event {
    let tell = |domain: Domain, address: Ipv4Addr, parties: &[Party], words: String| {
        let event = Event::new(Kind::Info, Severity::Info, words).at(domain, address).because(info.kind());
        let event = Event { parties: parties.to_vec(), ..event };
        match parties {
            [party] => event.by(party),
            _ => event,
        }
    };
    match info {
        Info::MacChanged { domain, address, from, party } => {
            let words = format!("{} has {address} with another hardware address than {from}", At(party));
            let facts = Facts { source_mac: Some(from.to_string()), ..Facts::default() };
            tell(*domain, *address, &[(**party).clone()], words).with(facts)
        }
        Info::SoftConflict { domain, address, parties } => {
            let words =
                format!("several look at one time whether {address} is free: {}", List(parties.iter().collect()));
            tell(*domain, *address, parties, words)
        }
        Info::ForeignSource { domain, address, party } => {
            tell(*domain, *address, &[(**party).clone()], format!("{} forwards a packet from {address}", At(party)))
        }
        Info::Lingers { domain, address, parties } => {
            let words =
                format!("{address} has a new owner, and was not yet let go of by {}", List(parties.iter().collect()));
            tell(*domain, *address, parties, words)
        }
    }
}

fn flooding(flood: &Flood) -> Event {
    let words = format!("port {} says more that is new than it may; the rest is only counted", flood.port_name);
    of_flood(flood, Event::new(Kind::Flood, Severity::Warning, words))
}

fn flood_ended(flood: &Flood) -> Event {
    let words = format!("the flood of port {} is over: {} claims were only counted", flood.port_name, flood.limited);
    of_flood(flood, Event::new(Kind::FloodEnded, Severity::Info, words))
}

fn of_flood(flood: &Flood, event: Event) -> Event {
    let Flood { port, port_name, bridge, limited } = flood;
    let event = event.with(Facts { count: Some(*limited), ..Facts::default() });
    Event { bridge: Some(*bridge), port: Some(*port), port_name: Some(port_name.clone()), ..event }
}

fn claims_refused(port: IfIndex, domain: Domain) -> Event {
    let words = "claims more addresses than are kept for one port; the rest is only counted";
    let event = Event::new(Kind::ClaimsRefused, Severity::Warning, words);
    Event { bridge: Some(domain.bridge), vlan: domain.vlan, port: Some(port), ..event }
}

fn not_adopted(domain: Domain, address: Ipv4Addr, failure: &str) -> Event {
    let words = format!("whoever has {address} does not hold it in the book: {failure}");
    Event::new(Kind::NotAdopted, Severity::Warning, words).at(domain, address).because(failure)
}

fn store_failed(domain: Domain, address: Ipv4Addr, failure: &str) -> Event {
    let words = format!("the lease database did not do its part for {address}: {failure}");
    Event::new(Kind::StoreFailed, Severity::Error, words).at(domain, address).because(failure)
}

fn move_waits(lease: &Lease) -> Event {
    let Lease { owner, address, .. } = lease;
    let words = format!("{owner} was being moved to {address} when the agent stopped, and is not moved on now");
    of_lease(lease, Event::new(Kind::MoveWaits, Severity::Warning, words))
}

fn resumed(incident: IncidentId, lease: &Lease) -> Event {
    let Lease { owner, address, .. } = lease;
    let words = format!("goes on moving {owner} to {address}, as when the agent stopped");
    let event = of_lease(lease, Event::new(Kind::MoveResumed, Severity::Info, words));
    Event { incident: Some(incident), ..event }
}

fn of_lease(lease: &Lease, event: Event) -> Event {
    let facts = Facts { owner: Some(lease.owner.to_string()), ..Facts::default() };
    event.at(lease.domain, lease.address).with(facts)
}

const fn micros(span: Span) -> u64 {
    span.as_nanos() / 1000
}

//! Every event: its log line and its counter.

use std::{fmt, net::Ipv4Addr};

use tracing::{debug, error, info, warn};

use super::{Telemetry, metrics::Feature};
use crate::{
    engine::{Finding, Flood, Held, Incident, IncidentId, Info, Party, Step},
    net::{BridgeName, Domain, IfIndex, MartianReason},
    time::Span,
};

impl Telemetry {
    /// Tells what the engine found.
    pub fn finding(&self, finding: &Finding) {
        match finding {
            Finding::Duplicate(incident) => self.duplicate(incident),
            Finding::PartyJoined(incident) => joined(incident),
            Finding::Judged(incident) => judged(incident),
            Finding::Held { incident, domain, address, reason } => held(*incident, *domain, address, *reason),
            Finding::Stepped { incident, port, done } => stepped(*incident, *port, *done),
            Finding::StepFailed { incident, port, step, failure, news, .. } => {
                self.step_failed(*incident, *port, *step, failure, *news);
            }
            Finding::Healed(incident) => self.healed(incident),
            Finding::Gone(incident) => gone(incident),
            Finding::Martian { .. } => self.martian(finding),
            Finding::Reopened(incident) => reopened(incident),
            Finding::AddressJoined { incident, address } => address_joined(incident, *address),
            Finding::Continues(incident) => continues(incident),
            Finding::KernelMartian { .. } => self.kernel_martian(finding),
            Finding::Moved { domain, address, from, to } => moved(*domain, *address, from, to),
            Finding::Info(info) => tell_info(info),
            Finding::Flood(flood) => flooding(flood),
            Finding::FloodEnded(flood) => flood_ended(flood),
            Finding::ClaimRefused { port, domain, news } => self.claim_refused(*port, domain.bridge, *news),
            Finding::NotAdopted { domain, address, failure } => {
                warn!(event = "not_adopted", %domain, %address, "whoever has {address} does not hold it in the book: {failure}");
            }
            Finding::StoreFailed { domain, address, failure } => {
                warn!(event = "store_failed", %domain, %address, "the lease database did not do its part for {address}: {failure}");
            }
            Finding::MoveWaits(lease) => {
                let (owner, address) = (&lease.owner, lease.address);
                warn!(event = "move_waits", %owner, %address, "{owner} was being moved to {address} when the agent stopped, and is not moved on now");
            }
            Finding::Resumed { incident, lease } => {
                let (owner, address) = (&lease.owner, lease.address);
                info!(event = "move_resumed", %incident, %owner, %address, "goes on moving {owner} to {address}, as when the agent stopped");
            }
        }
    }

    fn duplicate(&self, incident: &Incident) {
        self.duplicates.with_label_values(&[incident.domain.bridge.as_str()]).inc();
        self.detect.observe(incident.time_to_name().as_secs_f64());
        let (id, domain, address, after) = (incident.id, incident.domain, incident.address, incident.time_to_name());
        let by = incident.first_evidence.as_str();
        warn!(event = "duplicate", incident = %id, %domain, %address, evidence = by, %after, "{}", Parties(&incident.parties));
    }

    fn step_failed(&self, incident: IncidentId, port: IfIndex, step: Step, failure: &str, news: bool) {
        if news {
            self.evictions.with_label_values(&["failed"]).inc();
        }
        warn!(event = "eviction_failed", %incident, %port, step = step.as_str(), "the loser at port {port} is not moved yet, which is tried again: {failure}");
    }

    fn healed(&self, incident: &Incident) {
        let took = incident.time_to_close().unwrap_or_default();
        self.heal.observe(took.as_secs_f64());
        self.evictions.with_label_values(&["healed"]).inc_by(incident.evictions.len() as u64);
        let (id, domain, address) = (incident.id, incident.domain, incident.address);
        info!(event = "healed", incident = %id, %domain, %address, after = %took, "{}", Moves(incident));
    }

    fn martian(&self, finding: &Finding) {
        let Finding::Martian { domain, station, address, ether_source, reason, news } = finding else { return };
        self.martians.with_label_values(&[domain.bridge.as_str(), reason.as_str()]).inc();
        if *news {
            let (port, mac) = (station.port, station.mac);
            warn!(event = "martian", %domain, %address, %port, %mac, source = %ether_source, %reason, "a claim that cannot be true");
        }
    }

    fn kernel_martian(&self, finding: &Finding) {
        let Finding::KernelMartian { domain, martian, sender, incident, news } = finding else { return };
        let reason = MartianReason::Kernel;
        self.martians.with_label_values(&[domain.bridge.as_str(), reason.as_str()]).inc();
        if *news {
            let (source, target, device) = (martian.source, martian.target, &martian.device);
            let (sender, incident) = (sender.label(), incident.map(|id| id.0));
            warn!(event = "martian", %domain, address = %source, %reason, incident, "a kernel heard {sender} send from {source} to {target}, on its {device}, which cannot be");
        }
    }

    fn claim_refused(&self, port: IfIndex, bridge: BridgeName, news: bool) {
        self.refused.with_label_values(&[bridge.as_str()]).inc();
        if news {
            warn!(event = "claims_refused", %bridge, %port, "claims more addresses than are kept for one port; the rest is only counted");
        }
    }

    /// The tap could not report packets; they are asked for anew.
    pub fn lost(&self, bridge: BridgeName, count: u64) {
        self.count_lost(bridge, count);
        warn!(event = "events_lost", %bridge, count, "ARP packets were not reported; every known address is asked for");
    }

    /// A change was meant for a lease that is no more.
    ///
    /// It is counted where it is refused, in the store, whoever asked: see [`Telemetry::set_fenced`].
    pub fn tell_fenced(&self, op: &'static str, fence: impl fmt::Display) {
        warn!(event = "fenced", op, "refused a change for {fence}: the lease is not that one any more");
    }

    /// Something that the agent can do without has failed, or works again.
    pub fn degraded(&self, feature: Feature, reason: Option<&dyn fmt::Display>) {
        let gauge = self.degraded.with_label_values(&[feature.as_str()]);
        let before = gauge.get();
        gauge.set(i64::from(reason.is_some()));
        match reason {
            Some(reason) => error!(event = "degraded", feature = feature.as_str(), "{reason}"),
            None if before != 0 => info!(event = "restored", feature = feature.as_str(), "works again"),
            None => {}
        }
    }
}

fn reopened(incident: &Incident) {
    let (id, domain, address, times) = (incident.id, incident.domain, incident.address, incident.times);
    warn!(event = "reopened", incident = %id, %domain, %address, times, "the duplicate is back: {}", Parties(&incident.parties));
}

fn address_joined(incident: &Incident, address: Ipv4Addr) {
    let (id, domain, addresses) = (incident.id, incident.domain, incident.addresses.len());
    warn!(event = "address_joined", incident = %id, %domain, %address, addresses, "one more address is contested by the same party");
}

fn continues(incident: &Incident) {
    let (id, domain, address, claims) = (incident.id, incident.domain, incident.address, incident.claims);
    warn!(event = "continues", incident = %id, %domain, %address, claims, "the duplicate goes on: {}", Parties(&incident.parties));
}

fn moved(domain: Domain, address: Ipv4Addr, from: &Party, to: &Party) {
    info!(event = "moved", %domain, %address, "{address} went from {} to {}", At(from), At(to));
}

fn tell_info(info: &Info) {
    let kind = info.kind();
    match info {
        Info::MacChanged { domain, address, from, party } => {
            info!(event = "info", kind, %domain, %address, "{} has another hardware address than {from}", At(party));
        }
        Info::SoftConflict { domain, address, parties } => {
            info!(event = "info", kind, %domain, %address, "several look at one time whether {address} is free: {}", List(parties));
        }
        Info::ForeignSource { domain, address, party } => {
            info!(event = "info", kind, %domain, %address, "{} forwards a packet from {address}", At(party));
        }
        Info::Lingers { domain, address, parties } => {
            info!(event = "info", kind, %domain, %address, "{address} has a new owner, and was not yet let go of by {}", List(parties));
        }
    }
}

fn flooding(flood: &Flood) {
    let Flood { port_name, bridge, limited, .. } = flood;
    warn!(event = "flood", %bridge, port = port_name, limited, "says more that is new than it may; the rest is only counted");
}

fn flood_ended(flood: &Flood) {
    let Flood { port_name, bridge, limited, .. } = flood;
    info!(event = "flood_ended", %bridge, port = port_name, limited, "the flood is over");
}

fn joined(incident: &Incident) {
    let (id, domain, address) = (incident.id, incident.domain, incident.address);
    warn!(event = "party_joined", incident = %id, %domain, %address, "{}", Parties(&incident.parties));
}

fn judged(incident: &Incident) {
    let (id, domain, address) = (incident.id, incident.domain, incident.address);
    if let Some(contest) = &incident.contest {
        let winner = incident.winner().map_or_else(|| "nobody".to_owned(), Party::label);
        info!(event = "judged", incident = %id, %domain, %address, "{winner} keeps {address}: {}", contest.reason);
    }
}

fn held(incident: IncidentId, domain: Domain, address: &Ipv4Addr, reason: Held) {
    warn!(event = "held", %incident, %domain, %address, "{address} is not healed: {}", reason.as_str());
}

fn stepped(incident: IncidentId, port: IfIndex, done: Step) {
    debug!(event = "eviction_step", %incident, %port, step = done.as_str());
}

fn gone(incident: &Incident) {
    let (id, domain, address) = (incident.id, incident.domain, incident.address);
    let after: Span = incident.time_to_close().unwrap_or_default();
    info!(event = "gone", incident = %id, %domain, %address, %after, "the duplicate ended without dupip");
}

/// A party with where it is.
struct At<'a>(&'a Party);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (port {}, {})", self.0.label(), self.0.port_name, self.0.station.mac)
    }
}

/// Some parties.
struct List<'a>(&'a [Party]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, party) in self.0.iter().enumerate() {
            write!(f, "{}{}", if place == 0 { "" } else { " and " }, At(party))?;
        }
        Ok(())
    }
}

/// The parties of a duplicate in one line.
struct Parties<'a>(&'a [Party]);

impl fmt::Display for Parties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} use it", List(self.0), if self.0.len() > 2 { "all" } else { "both" })
    }
}

/// Who was moved where, in one line.
struct Moves<'a>(&'a Incident);

impl fmt::Display for Moves<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for eviction in self.0.evictions.values() {
            let to = eviction.lease.as_ref().map(|lease| lease.address.to_string()).unwrap_or_default();
            write!(f, "{} moved from {} to {to}; ", eviction.owner, self.0.address)?;
        }
        write!(f, "each address has one owner")
    }
}

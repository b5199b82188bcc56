//! Every metric, by name.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError, RwLock},
};

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

use super::{
    event::Kind, log::EventLog, repeats::Repeats, suppressed::Suppressed, tell::Reasons, unanswered::Unanswered,
};
use crate::{
    capture::Malformed,
    engine::{Evidence, Held},
    net::{BridgeName, ClaimKind, MartianReason},
    time::Span,
};

/// Seconds, from a twentieth of a millisecond to a minute: detection takes less than one of the first, healing less than
/// one of the middle, and trouble the rest.
const SECONDS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0, 60.0];

/// 1 for each feature that the agent cannot do fully.
const DEGRADED: &str = "dupip_degraded";
/// Addresses that can be leased.
pub(super) const POOL_SIZE: &str = "dupip_pool_size";
/// Leases by state, free ones not counted.
pub(super) const LEASES: &str = "dupip_leases";

/// The changes of leases that the store may refuse.
const FENCED: [&str; 5] = ["bind", "release", "retire", "discard", "quarantine"];

/// The features that an agent cannot do fully, by what it says on `/metrics`.
#[must_use]
pub fn degraded_in(metrics: &str) -> Vec<&str> {
    let of_features = metrics.lines().filter_map(|line| line.strip_prefix(DEGRADED)?.strip_prefix("{feature=\""));
    of_features.filter_map(|line| line.strip_suffix("\"} 1")).collect()
}

/// Something that the agent can do without, worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Looking into every sandbox's namespace.
    Inventory,
    /// The lease database.
    Store,
    /// A tap on every port.
    Taps,
    /// Reading the kernel's log for martians.
    KernelLog,
    /// Programs in the kernel.
    Ebpf,
    /// Seeing IPv4 packets from sources that were not claimed.
    Ipv4Watch,
    /// Entering sandboxes' namespaces, and knowing whose they are.
    Namespaces,
    /// Telling other programs what happened.
    Hooks,
    /// Dropping what losers say.
    Quarantine,
}

impl Feature {
    const ALL: [Self; 9] = [
        Self::Inventory,
        Self::Store,
        Self::Taps,
        Self::KernelLog,
        Self::Ebpf,
        Self::Ipv4Watch,
        Self::Namespaces,
        Self::Hooks,
        Self::Quarantine,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Store => "store",
            Self::Taps => "taps",
            Self::KernelLog => "kernel_log",
            Self::Ebpf => "ebpf",
            Self::Ipv4Watch => "ipv4_watch",
            Self::Namespaces => "namespaces",
            Self::Hooks => "hooks",
            Self::Quarantine => "quarantine",
        }
    }
}

/// The counters, gauges and histograms of one agent, and its events.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    pub(super) events: EventLog,
    pub(super) suppressed: RwLock<Vec<Suppressed>>,
    pub(super) reasons: Mutex<Reasons>,
    pub(super) repeats: Mutex<Repeats>,
    pub(super) told: IntCounterVec,
    pub(super) reopened: IntCounterVec,
    pub(super) floods: IntCounterVec,
    pub(super) moves: IntCounterVec,
    pub(super) duplicates: IntCounterVec,
    pub(super) martians: IntCounterVec,
    pub(super) evictions: IntCounterVec,
    pub(super) held: IntCounterVec,
    held_now: IntGaugeVec,
    pub(super) containments: IntCounterVec,
    pub(super) refused: IntCounterVec,
    pub(super) detect: Histogram,
    pub(super) heal: Histogram,
    pub(super) degraded: IntGaugeVec,
    pub(super) hooks: IntCounterVec,
    pub(super) paused: IntGauge,
    ready: IntGauge,
    pub(super) unanswered: IntCounterVec,
    fenced: IntCounterVec,
    active: IntGaugeVec,
    quarantined: IntGaugeVec,
    claims: IntCounterVec,
    malformed: IntCounterVec,
    lost: IntCounterVec,
    limited: IntCounterVec,
    absorbed: IntCounterVec,
    contained: IntCounterVec,
    reported: IntCounterVec,
    kernel_log_lost: IntCounter,
    unreadable: IntCounterVec,
    bindings: IntGaugeVec,
    ports: IntGaugeVec,
    pub(super) leases: IntGaugeVec,
    pub(super) pool_size: IntGaugeVec,
    allocate: Histogram,
    /// Held by whoever shows what is set, and by whoever takes some of it away to set it anew.
    pub(super) shown: RwLock<()>,
}

/// What is counted of a bridge when somebody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeGauges {
    /// Rows of the live table.
    pub bindings: usize,
    /// Addresses with more than one owner.
    pub duplicates: usize,
    /// Addresses that a port is kept from claiming; one for each such port.
    pub quarantined: usize,
}

impl Telemetry {
    /// A new set of metrics; each that has no label of its own making stands at 0.
    ///
    /// # Errors
    /// When two metrics have one name, which is a bug.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let at = &registry;
        let telemetry = Self {
            duplicates: counter(
                at,
                "duplicate_ip_total",
                "Addresses found with more than one live owner",
                &["bridge"],
            )?,
            active: gauge(at, "duplicate_ip_active", "Addresses that have more than one live owner now", &["bridge"])?,
            quarantined: gauge(
                at,
                "dupip_quarantined",
                "Claims that are dropped now: an address at a port, for each of both",
                &["bridge"],
            )?,
            reopened: counter(
                at,
                "dupip_incidents_reopened_total",
                "Duplicates that came back soon after they had ended",
                &["bridge"],
            )?,
            told: counter(at, "dupip_findings_total", "What was found, told or suppressed, by kind", &["kind"])?,
            moves: counter(at, "dupip_moves_total", "Addresses that went from one owner to another", &["bridge"])?,
            floods: counter(at, "dupip_floods_total", "Times that a port said more than it may", &["bridge"])?,
            limited: counter(
                at,
                "dupip_limited_total",
                "Claims only counted, since their port had more news than its share",
                &["bridge"],
            )?,
            absorbed: counter(
                at,
                "dupip_absorbed_total",
                "Claims that the tap knew already and did not report",
                &["bridge"],
            )?,
            contained: counter(
                at,
                "dupip_contained_frames_total",
                "Frames dropped at a port, since they claimed an address that is in quarantine there",
                &["bridge"],
            )?,
            kernel_log_lost: registered(
                at,
                IntCounter::new("dupip_kernel_log_lost_total", "Lines of the kernel's log that were gone unread")?,
            )?,
            martians: counter(at, "dupip_martian_total", "Claims that cannot be true", &["bridge", "reason"])?,
            reported: counter(
                at,
                "dupip_reported_total",
                "Claims that the tap told the agent; with the absorbed, the limited and the lost, these are all claims",
                &["bridge"],
            )?,
            claims: counter(
                at,
                "dupip_claims_total",
                "ARP packets seen, by form, and IPv4 packets whose source was not known at their port",
                &["bridge", "kind"],
            )?,
            malformed: counter(at, "dupip_malformed_total", "ARP packets that are none", &["bridge", "reason"])?,
            lost: counter(
                at,
                "dupip_lost_events_total",
                "Claims seen but not reported, for want of room",
                &["bridge"],
            )?,
            unreadable: counter(
                at,
                "dupip_unreadable_total",
                "Messages of the kernel passed over as not readable",
                &["source"],
            )?,
            refused: counter(at, "dupip_refused_claims_total", "Claims beyond what is kept for a port", &["bridge"])?,
            bindings: gauge(at, "dupip_bindings", "Rows of the live table", &["bridge"])?,
            ports: gauge(at, "dupip_ports", "Bridge ports with a tap", &["bridge"])?,
            detect: histogram(at, "dupip_detect_seconds", "From a duplicate's first contradiction to its name")?,
            heal: histogram(at, "dupip_heal_seconds", "From a duplicate's first contradiction to its end by dupip")?,
            evictions: counter(
                at,
                "dupip_evictions_total",
                "What became of losers: healed; failed at a step, once for each attempt; given up for now",
                &["result"],
            )?,
            held: counter(
                at,
                "dupip_held_total",
                "Times that something stood in the way of healing, by what; `brake` is too many evictions in a minute",
                &["reason"],
            )?,
            held_now: gauge(
                at,
                "dupip_held",
                "Duplicates that are open and not being healed now, by what stands in the way",
                &["reason"],
            )?,
            containments: counter(
                at,
                "dupip_containments_total",
                "Losers whose claims were dropped from some moment on",
                &["bridge"],
            )?,
            hooks: counter(
                at,
                "dupip_hooks_total",
                "Messages to hooks, by how that ended; `retried` counts attempts that failed and are made again",
                &["occasion", "result"],
            )?,
            paused: registered(at, IntGauge::new("dupip_paused", "1 while an operator has the agent do nothing new")?)?,
            unanswered: counter(
                at,
                "dupip_http_refused_total",
                "Requests and connections turned away before anybody looked at the question, by why",
                &["reason"],
            )?,
            ready: registered(
                at,
                IntGauge::new("dupip_ready", "1 once every port has a tap and every sandbox has been looked at")?,
            )?,
            pool_size: gauge(at, POOL_SIZE, "Addresses that can be leased, free or not", &["pool"])?,
            leases: gauge(at, LEASES, "Leases by domain and state", &["pool", "state"])?,
            allocate: histogram(at, "dupip_allocate_seconds", "How long a lease took to be on disk")?,
            fenced: counter(at, "dupip_fenced_total", "Changes meant for a lease that is no more", &["op"])?,
            degraded: gauge(at, DEGRADED, "1 for what the agent cannot do fully", &["feature"])?,
            events: EventLog::new(),
            suppressed: RwLock::default(),
            reasons: Mutex::default(),
            repeats: Mutex::default(),
            shown: RwLock::default(),
            registry,
        };
        telemetry.start_at_zero()?;
        Ok(telemetry)
    }

    /// From now on, neither logs nor streams these kinds of events, and no others; they are still counted.
    pub fn suppress(&self, kinds: Vec<Suppressed>) {
        *self.suppressed.write().unwrap_or_else(PoisonError::into_inner) = kinds;
    }

    /// The latest events.
    #[must_use]
    pub const fn events(&self) -> &EventLog {
        &self.events
    }

    fn start_at_zero(&self) -> prometheus::Result<()> {
        let build = gauge(&self.registry, "dupip_build_info", "1, with what was built", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Feature::ALL.iter().for_each(|feature| self.degraded.with_label_values(&[feature.as_str()]).set(0));
        ["healed", "failed", "given_up"].iter().for_each(|result| self.evictions.with_label_values(&[result]).reset());
        Held::ALL.iter().for_each(|held| self.held.with_label_values(&[held.word()]).reset());
        self.set_held(&BTreeMap::new());
        Kind::ALL.iter().for_each(|kind| self.told.with_label_values(&[kind.as_str()]).reset());
        ["netlink", "tap"].iter().for_each(|source| self.unreadable.with_label_values(&[source]).reset());
        Unanswered::ALL.iter().for_each(|reason| self.unanswered.with_label_values(&[reason.as_str()]).reset());
        Ok(())
    }

    /// Makes a bridge's metrics appear, at 0, so that an alert on their increase sees the first one.
    pub fn watch(&self, bridge: BridgeName) {
        let plain = [&self.duplicates, &self.lost, &self.refused, &self.limited, &self.absorbed, &self.reported];
        for plain in
            plain.into_iter().chain([&self.floods, &self.moves, &self.reopened, &self.contained, &self.containments])
        {
            plain.with_label_values(&[bridge.as_str()]);
        }
        for kind in ClaimKind::ALL {
            self.claims.with_label_values(&[bridge.as_str(), kind.as_str()]);
        }
        self.ipv4_claims(bridge, 0);
        for reason in MartianReason::ALL {
            self.martians.with_label_values(&[bridge.as_str(), reason.as_str()]);
        }
        for reason in Malformed::ALL {
            self.malformed(bridge, reason, 0);
        }
        self.set_ports(bridge, 0);
        self.set_bridge(bridge, BridgeGauges::default());
    }

    /// Counts an ARP packet that the tap reported.
    pub fn claim(&self, bridge: BridgeName, kind: ClaimKind) {
        self.claims_by_kind(bridge, kind, 1);
    }

    /// Counts ARP packets that the tap saw, reported or not.
    pub fn claims_by_kind(&self, bridge: BridgeName, kind: ClaimKind, count: u64) {
        self.claims.with_label_values(&[bridge.as_str(), kind.as_str()]).inc_by(count);
    }

    /// Counts IPv4 packets whose source the tap did not know at their port, reported or not.
    pub fn ipv4_claims(&self, bridge: BridgeName, count: u64) {
        self.claims.with_label_values(&[bridge.as_str(), Evidence::Ipv4.as_str()]).inc_by(count);
    }

    /// Counts claims that the tap told the agent.
    pub fn reported(&self, bridge: BridgeName, count: u64) {
        self.reported.with_label_values(&[bridge.as_str()]).inc_by(count);
    }

    /// Counts claims that the tap knew already and did not report.
    pub fn absorbed(&self, bridge: BridgeName, count: u64) {
        self.absorbed.with_label_values(&[bridge.as_str()]).inc_by(count);
    }

    /// Counts frames that the tap dropped, since they claimed what is in quarantine.
    pub fn contained(&self, bridge: BridgeName, count: u64) {
        self.contained.with_label_values(&[bridge.as_str()]).inc_by(count);
    }

    /// Counts claims that the tap only counted, since their port had more news than its share.
    pub fn limited(&self, bridge: BridgeName, count: u64) {
        self.limited.with_label_values(&[bridge.as_str()]).inc_by(count);
    }

    /// Counts lines of the kernel's log that were overwritten before they were read.
    pub fn kernel_log_lost(&self, count: u64) {
        self.kernel_log_lost.inc_by(count);
    }

    /// Counts ARP packets that the tap could not make sense of.
    pub fn malformed(&self, bridge: BridgeName, reason: Malformed, count: u64) {
        self.malformed.with_label_values(&[bridge.as_str(), reason.as_str()]).inc_by(count);
    }

    /// Brings the count of what could not be read from a source up to `total`. Anything but 0 is a fault of dupip.
    pub fn unreadable(&self, source: &'static str, total: u64) {
        let counter = self.unreadable.with_label_values(&[source]);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// Sets what is counted of a bridge only when somebody asks.
    pub fn set_bridge(&self, bridge: BridgeName, gauges: BridgeGauges) {
        let name = [bridge.as_str()];
        self.bindings.with_label_values(&name).set(as_gauge(gauges.bindings));
        self.active.with_label_values(&name).set(as_gauge(gauges.duplicates));
        self.quarantined.with_label_values(&name).set(as_gauge(gauges.quarantined));
    }

    /// Sets how many open duplicates are not being healed, by what stands in the way.
    pub fn set_held(&self, counts: &BTreeMap<Held, usize>) {
        for held in Held::ALL {
            let count = counts.get(&held).copied().unwrap_or_default();
            self.held_now.with_label_values(&[held.word()]).set(as_gauge(count));
        }
    }

    /// Sets whether the agent's word counts already.
    pub fn set_ready(&self, is_ready: bool) {
        self.ready.set(is_ready.into());
    }

    /// Sets how many ports of a bridge have a tap.
    pub fn set_ports(&self, bridge: BridgeName, count: usize) {
        self.ports.with_label_values(&[bridge.as_str()]).set(as_gauge(count));
    }

    /// Brings the counts of refused changes up to what the store has counted, for the agent and all other processes. They
    /// are of all the store's life, so there is none before it was read: else an increase would be seen that there was not.
    pub fn set_fenced(&self, counts: &BTreeMap<String, u64>) {
        for op in FENCED {
            self.fenced.with_label_values(&[op]);
        }
        for (op, total) in counts {
            let counter = self.fenced.with_label_values(&[op]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// Notes how long a lease took to be on disk.
    pub fn allocated(&self, took: Span) {
        self.allocate.observe(took.as_secs_f64());
    }

    /// Claims of a bridge that the tap could not report, so far.
    #[must_use]
    pub fn lost_on(&self, bridge: BridgeName) -> u64 {
        self.lost.with_label_values(&[bridge.as_str()]).get()
    }

    pub(super) fn count_lost(&self, bridge: BridgeName, count: u64) {
        self.lost.with_label_values(&[bridge.as_str()]).inc_by(count);
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric has no value at all, which is a bug.
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        let metrics = {
            let _whole = self.shown.read().unwrap_or_else(PoisonError::into_inner);
            self.registry.gather()
        };
        let mut text = Vec::new();
        TextEncoder::new().encode(&metrics, &mut text)?;
        Ok(text)
    }
}

pub(super) fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Histogram> {
    registered(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_degraded_can_be_read_back() {
        let telemetry = Telemetry::new().unwrap();
        let text = || String::from_utf8(telemetry.render().unwrap()).unwrap();
        assert_eq!(degraded_in(&text()), [""; 0]);
        telemetry.degraded(Feature::Store, Some(&"gone"));
        assert_eq!(degraded_in(&text()), ["store"]);
    }

    #[test]
    fn what_alerts_stand_on_is_there_from_the_first_scrape() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.watch("rt0".parse().unwrap());
        let text = String::from_utf8(telemetry.render().unwrap()).unwrap();
        for line in [
            "duplicate_ip_total{bridge=\"rt0\"} 0",
            "duplicate_ip_active{bridge=\"rt0\"} 0",
            "dupip_lost_events_total{bridge=\"rt0\"} 0",
            "dupip_martian_total{bridge=\"rt0\",reason=\"ether_mismatch\"} 0",
            "dupip_evictions_total{result=\"failed\"} 0",
            "dupip_held_total{reason=\"brake\"} 0",
            "dupip_held{reason=\"brake\"} 0",
            "dupip_containments_total{bridge=\"rt0\"} 0",
            "dupip_paused 0",
            "dupip_ready 0",
            "dupip_quarantined{bridge=\"rt0\"} 0",
            "dupip_degraded{feature=\"inventory\"} 0",
            "dupip_ports{bridge=\"rt0\"} 0",
            "dupip_heal_seconds_count 0",
            "dupip_unreadable_total{source=\"tap\"} 0",
            "dupip_martian_total{bridge=\"rt0\",reason=\"kernel\"} 0",
            "dupip_claims_total{bridge=\"rt0\",kind=\"probe\"} 0",
            "dupip_limited_total{bridge=\"rt0\"} 0",
            "dupip_absorbed_total{bridge=\"rt0\"} 0",
            "dupip_contained_frames_total{bridge=\"rt0\"} 0",
            "dupip_reported_total{bridge=\"rt0\"} 0",
            "dupip_claims_total{bridge=\"rt0\",kind=\"ipv4\"} 0",
            "dupip_floods_total{bridge=\"rt0\"} 0",
            "dupip_moves_total{bridge=\"rt0\"} 0",
            "dupip_incidents_reopened_total{bridge=\"rt0\"} 0",
            "dupip_kernel_log_lost_total 0",
            "dupip_findings_total{kind=\"info\"} 0",
            "dupip_degraded{feature=\"kernel_log\"} 0",
            "dupip_degraded{feature=\"ebpf\"} 0",
            "dupip_degraded{feature=\"ipv4_watch\"} 0",
            "dupip_degraded{feature=\"namespaces\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
    }

    #[test]
    fn refused_changes_are_not_shown_before_the_store_has_told_them() {
        let telemetry = Telemetry::new().unwrap();
        let shown = || {
            let text = String::from_utf8(telemetry.render().unwrap()).unwrap();
            text.lines().filter(|line| line.starts_with("dupip_fenced_total{")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(shown(), [""; 0]);
        telemetry.set_fenced(&[("release".to_owned(), 6)].into());
        assert_eq!(shown().len(), FENCED.len());
        for line in ["dupip_fenced_total{op=\"bind\"} 0", "dupip_fenced_total{op=\"release\"} 6"] {
            assert!(shown().iter().any(|shown| shown == line), "{line}");
        }
    }

    #[test]
    fn what_the_kernel_counts_is_added() {
        let (telemetry, bridge) = (Telemetry::new().unwrap(), "rt0".parse().unwrap());
        for count in [2, 3] {
            telemetry.claims_by_kind(bridge, ClaimKind::Probe, count);
            telemetry.ipv4_claims(bridge, count);
            telemetry.reported(bridge, count);
            telemetry.absorbed(bridge, count);
            telemetry.contained(bridge, count);
            telemetry.limited(bridge, count);
            telemetry.kernel_log_lost(count);
        }
        let text = String::from_utf8(telemetry.render().unwrap()).unwrap();
        for line in [
            "dupip_claims_total{bridge=\"rt0\",kind=\"probe\"} 5",
            "dupip_absorbed_total{bridge=\"rt0\"} 5",
            "dupip_contained_frames_total{bridge=\"rt0\"} 5",
            "dupip_reported_total{bridge=\"rt0\"} 5",
            "dupip_claims_total{bridge=\"rt0\",kind=\"ipv4\"} 5",
            "dupip_limited_total{bridge=\"rt0\"} 5",
            "dupip_kernel_log_lost_total 5",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
    }
}

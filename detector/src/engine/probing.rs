//! Who looks whether an address is free (RFC 5227, section 2.1.1). A probe claims nothing; but of two who look at one time,
//! only one can get the address.

use std::collections::BTreeMap;

use super::{
    Engine,
    bindings::{Binding, Key},
    finding::{Finding, Info},
    input::Evidence,
};
use crate::{
    net::{ClaimKind, IfIndex, Station},
    time::{Span, Timestamp},
};

/// From the first of three probes to the announcement (`PROBE_NUM`, `PROBE_MAX` and `ANNOUNCE_WAIT` of RFC 5227).
const PROBING: Span = Span::from_secs(6);
/// Addresses that are looked for at one time, at most; further ones are not compared.
const ADDRESSES: usize = 1024;

/// Who has looked for which address lately.
#[derive(Debug, Default)]
pub(super) struct Probing {
    by_key: BTreeMap<Key, Looking>,
}

#[derive(Debug, Default)]
struct Looking {
    stations: BTreeMap<Station, Timestamp>,
    told: bool,
}

impl Probing {
    fn forget_old(&mut self, now: Timestamp) {
        self.by_key.retain(|_, looking| {
            looking.stations.retain(|_, at| now.since(*at) < PROBING);
            !looking.stations.is_empty()
        });
    }

    pub(super) fn forget_port(&mut self, port: IfIndex) {
        self.by_key.values_mut().for_each(|looking| looking.stations.retain(|station, _| station.port != port));
        self.by_key.retain(|_, looking| !looking.stations.is_empty());
    }

    /// Whoever looks for the address at this time, if that has become more than one.
    fn note(&mut self, key: Key, station: Station, at: Timestamp) -> Option<Vec<Station>> {
        if !self.by_key.contains_key(&key) {
            if self.by_key.len() >= ADDRESSES {
                self.forget_old(at);
            }
            if self.by_key.len() >= ADDRESSES {
                return None;
            }
        }
        let looking = self.by_key.entry(key).or_default();
        looking.stations.retain(|_, before| at.since(*before) < PROBING);
        looking.told &= looking.stations.len() > 1;
        // Of one port, only the latest: it may have any hardware address, and any number of them.
        looking.stations.retain(|other, _| other.port != station.port);
        looking.stations.insert(station, at);
        let is_news = looking.stations.len() > 1 && !std::mem::replace(&mut looking.told, looking.stations.len() > 1);
        is_news.then(|| looking.stations.keys().copied().collect())
    }
}

impl Engine {
    /// A station asks for an address without claiming it. The host does so for the agent, and for whom it gives addresses;
    /// and whoever has the address will answer.
    pub(super) fn probed(&mut self, key: Key, station: Station, at: Timestamp) {
        if self.topology.host(station.port).is_some() || self.bindings.stations(key).next().is_some() {
            return;
        }
        if let Some(stations) = self.probing.note(key, station, at) {
            let binding = Binding::new(Evidence::Arp(ClaimKind::Probe), at, false);
            let parties = stations.iter().map(|station| self.describe(key, *station, &binding)).collect();
            let (domain, address) = key;
            self.findings.push_back(Finding::Info(Info::SoftConflict { domain, address, parties }));
        }
    }
}

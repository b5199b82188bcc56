//! Martian sources that kernels log: one sandbox's kernel hears its own address from somebody else.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    Engine,
    bindings::Key,
    finding::Finding,
    incident::{IncidentId, Sighting},
    input::KernelMartian,
};
use crate::{
    net::{Mac, Station},
    time::{Span, Timestamp},
};

/// For how long the same martian is no news.
const LATELY: Span = Span::from_secs(60);
/// How many are remembered.
const REMEMBERED: usize = 1024;

/// When a martian of a sender was last told of.
#[derive(Debug, Default)]
pub(super) struct ToldMartians(BTreeMap<(Mac, Ipv4Addr), Timestamp>);

impl ToldMartians {
    fn is_news(&mut self, mac: Mac, source: Ipv4Addr, now: Timestamp) -> bool {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, at| now.since(*at) < LATELY);
        }
        let before = self.0.get(&(mac, source)).copied();
        let is_news = before.is_none_or(|at| now.since(at) >= LATELY) && self.0.len() < REMEMBERED;
        if is_news {
            self.0.insert((mac, source), now);
        }
        is_news
    }
}

impl Engine {
    /// The log is one for all namespaces, so only a martian whose sender is known is one of ours.
    pub(super) fn kernel_martian(&mut self, martian: KernelMartian, now: Timestamp) {
        let Some(mac) = martian.mac else { return };
        let Some((key, station)) = self.sender(mac, martian.source) else { return };
        let Some(binding) = self.bindings.get(key, station) else { return };
        let sender = Box::new(self.describe(key, station, binding));
        let (domain, contested) = (key.0, (key.0, martian.source));
        let incident = self.open.get(&contested).copied();
        match incident {
            Some(id) => self.note_kernel_sighting(id, martian.source, station, now),
            // Whoever heard it has the address, too.
            None if key == contested => self.probe(domain, vec![martian.source]),
            None => {}
        }
        let news = self.told_martians.is_news(mac, martian.source, now);
        self.findings.push_back(Finding::KernelMartian { domain, martian, sender, incident, news });
    }

    /// Who has this hardware address; best, with this source.
    fn sender(&self, mac: Mac, source: Ipv4Addr) -> Option<(Key, Station)> {
        let is_sender = self.bindings.iter().filter(|(_, station, _)| station.mac == mac);
        is_sender.map(|(key, station, _)| (key, station)).max_by_key(|(key, _)| key.1 == source)
    }

    fn note_kernel_sighting(&mut self, id: IncidentId, address: Ipv4Addr, station: Station, at: Timestamp) {
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.saw(Sighting { at, address, station, evidence: None });
        }
    }
}

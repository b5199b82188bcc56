//! The live table, as it is shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{Binding, Engine, Held, IncidentId, Sandbox, bindings::Key};
use crate::net::{BridgeName, Domain, Reach, Station};

/// One row of the live table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub domain: Domain,
    /// Which address.
    pub address: Ipv4Addr,
    /// Who uses it.
    pub station: Station,
    /// The port's interface name.
    pub port_name: String,
    /// Who sits behind the port.
    pub sandbox: Sandbox,
    /// How far it could be looked behind the port; `None` of the host itself, and before anybody has looked.
    pub reach: Option<Reach>,
    /// Whether it is the runner itself.
    pub is_host: bool,
    /// Whether it is outside, beyond an uplink.
    pub is_external: bool,
    /// How it is known.
    pub binding: Binding,
    /// How it stands.
    pub state: RowState,
}

/// How a row of the live table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowState {
    /// One owner.
    Ok,
    /// More than one.
    Duplicate,
    /// Cannot be true.
    Martian,
}

impl RowState {
    /// The state in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Duplicate => "duplicate",
            Self::Martian => "martian",
        }
    }
}

impl Engine {
    /// The live table, ordered by domain, address and station.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.bindings.iter().map(|(key, station, binding)| self.row(key, station, binding))
    }

    /// At least so many rows that come after an address, or the first ones; fewer only at the end. All rows of an address
    /// are among them, or none.
    #[must_use]
    pub fn rows_after(&self, after: Option<(Domain, Ipv4Addr)>, at_least: usize) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (key, station, binding) in self.bindings.after(after) {
            if rows.len() >= at_least && rows.last().is_some_and(|row| (row.domain, row.address) != key) {
                break;
            }
            rows.push(self.row(key, station, binding));
        }
        rows
    }

    /// How many bindings a bridge has.
    #[must_use]
    pub fn binding_count(&self, bridge: BridgeName) -> usize {
        self.bindings.iter().filter(|((domain, _), _, _)| domain.bridge == bridge).count()
    }

    /// How many addresses of a bridge are contested.
    #[must_use]
    pub fn open_count(&self, bridge: BridgeName) -> usize {
        self.open.keys().filter(|(domain, _)| domain.bridge == bridge).count()
    }

    /// How many open incidents are not being healed, by what stands in the way.
    #[must_use]
    pub fn held_counts(&self) -> BTreeMap<Held, usize> {
        let open: BTreeSet<IncidentId> = self.open.values().copied().collect();
        let mut counts = BTreeMap::new();
        for held in open.iter().filter_map(|id| self.incidents.get(id)?.held) {
            *counts.entry(held).or_default() += 1;
        }
        counts
    }

    /// The rows of one address, ordered by station.
    pub fn rows_on(&self, domain: Domain, address: Ipv4Addr) -> impl Iterator<Item = Row> {
        let key = (domain, address);
        self.bindings.stations(key).map(move |(station, binding)| self.row(key, station, binding))
    }

    fn row(&self, key: Key, station: Station, binding: &Binding) -> Row {
        let party = self.describe(key, station, binding);
        Row {
            domain: key.0,
            address: key.1,
            station,
            port_name: party.port_name,
            sandbox: party.sandbox,
            reach: self.topology.ports.get(&station.port).and_then(|known| known.reach),
            is_host: party.is_host,
            is_external: party.is_external,
            binding: *binding,
            state: self.row_state(key, station, binding),
        }
    }

    /// A party of an open incident stays marked until it is verified to be away or proven silent.
    fn row_state(&self, key: Key, station: Station, binding: &Binding) -> RowState {
        let incident = self.open.get(&key).and_then(|id| self.incidents.get(id));
        match binding.martian {
            _ if incident.is_some_and(|incident| incident.party(station.port).is_some()) => RowState::Duplicate,
            Some(_) => RowState::Martian,
            None => RowState::Ok,
        }
    }
}

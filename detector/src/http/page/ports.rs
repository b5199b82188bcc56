//! Who is behind which port, with which addresses, and what is wrong there: the look as a person thinks of it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

use crate::{
    http::{
        api::{Eviction, Incident, Party, Quarantined, Row},
        look::Look,
    },
    telemetry::one_line,
};

/// A bridge and the interface index of a port on it.
pub(super) type At<'a> = (&'a str, u32);

/// What is behind one port.
#[derive(Debug, Default)]
pub(super) struct Port<'a> {
    pub(super) bridge: &'a str,
    pub(super) ifindex: u32,
    pub(super) name: &'a str,
    /// Its sandbox's name, if it is known.
    sandbox: Option<&'a str>,
    pub(super) is_host: bool,
    pub(super) is_external: bool,
    pub(super) macs: BTreeSet<&'a str>,
    /// What it has or says it has, what is wrong first.
    pub(super) addresses: Vec<Held<'a>>,
}

/// An address that somebody behind a port has or claims.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) address: Ipv4Addr,
    pub(super) vlan: Option<u16>,
    pub(super) standing: Standing<'a>,
    /// As it is in the live table, if it is there.
    pub(super) row: Option<&'a Row>,
}

/// How it stands with an address at a port. The worst comes first.
#[derive(Debug)]
pub(super) enum Standing<'a> {
    Contested(Contested<'a>),
    Martian,
    /// It was moved here from the contested address of an incident.
    MovedFrom(&'a Incident),
    Fine,
}

/// One side of an open incident.
#[derive(Debug)]
pub(super) struct Contested<'a> {
    pub(super) incident: &'a Incident,
    pub(super) party: &'a Party,
    /// If what it says of the address is dropped at its port.
    pub(super) contained: Option<&'a Quarantined>,
    pub(super) eviction: Option<&'a Eviction>,
}

impl Standing<'_> {
    const fn rank(&self) -> u8 {
        match self {
            Self::Contested(_) => 0,
            Self::Martian => 1,
            Self::Fine | Self::MovedFrom(_) => 2,
        }
    }
}

impl Port<'_> {
    pub(super) fn who(&self) -> String {
        let nameless = if self.is_external { "(outside)" } else { self.name };
        let name = if self.is_host { "the host" } else { self.sandbox.unwrap_or(nameless) };
        one_line(name).into_owned()
    }

    pub(super) fn contested(&self) -> impl Iterator<Item = &Contested<'_>> {
        self.addresses.iter().filter_map(|held| match &held.standing {
            Standing::Contested(of) => Some(of),
            _ => None,
        })
    }

    fn rank(&self) -> u8 {
        self.addresses.iter().map(|held| held.standing.rank()).min().unwrap_or(u8::MAX)
    }

    /// Whether one of its texts has `wanted` in it, which is in lower case.
    fn has(&self, wanted: &str) -> bool {
        let texts = [self.who(), self.name.to_owned()];
        let addresses = self.addresses.iter().map(|held| held.address.to_string());
        let macs = self.macs.iter().map(|mac| (*mac).to_owned());
        texts.into_iter().chain(addresses).chain(macs).any(|text| text.to_lowercase().contains(wanted))
    }
}

/// The ports of one page.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) ports: Vec<Port<'a>>,
    /// What was looked for.
    pub(super) find: String,
    /// How many were found, on all pages.
    pub(super) found: usize,
    /// How many come before these.
    pub(super) before: usize,
    /// From 1.
    pub(super) page: usize,
    pub(super) pages: usize,
    /// Whether every row of the live table was looked at.
    pub(super) is_whole: bool,
}

impl Shown<'_> {
    /// In the order of the page, the bridges by name.
    pub(super) fn by_bridge(&self) -> BTreeMap<&str, Vec<&Port<'_>>> {
        let mut bridges: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for port in &self.ports {
            bridges.entry(port.bridge).or_default().push(port);
        }
        bridges
    }
}

/// The ports that have `find` in them, `page` of them with `most` at most. A page that is not there is the last one.
pub(super) fn shown<'a>(look: &'a Look, find: &str, page: usize, most: usize) -> Shown<'a> {
    let wanted = find.trim().to_lowercase();
    let mut ports: Vec<_> = all(look).into_values().filter(|port| port.has(&wanted)).collect();
    ports.sort_by_cached_key(|port| {
        let first = port.contested().map(|of| of.incident.id).min().unwrap_or(u64::MAX);
        let address = port.addresses.iter().map(|held| held.address).min();
        (Reverse(port.is_host), port.rank(), first, port.bridge, address, port.ifindex)
    });
    let (found, pages) = (ports.len(), ports.len().div_ceil(most).max(1));
    let page = page.clamp(1, pages);
    let before = (page - 1) * most;
    let ports = ports.into_iter().skip(before).take(most).collect();
    Shown { ports, find: find.trim().to_owned(), found, before, page, pages, is_whole: look.is_whole }
}

/// An address at a port, which may be there in several VLANs.
type Place<'a> = (At<'a>, Ipv4Addr);

/// Everybody who is in the live table or in an open incident.
fn all(look: &Look) -> BTreeMap<At<'_>, Port<'_>> {
    let mut ports: BTreeMap<At<'_>, Port<'_>> = BTreeMap::new();
    // Where in its port's addresses each one is first. There may be very many behind one port.
    let mut known: HashMap<(Place<'_>, Option<u16>), usize> = HashMap::new();
    let quarantined = quarantined(look);
    for incident in open(look) {
        for party in &incident.parties {
            let at = (incident.bridge.as_str(), party.ifindex);
            let port = ports.entry(at).or_insert_with(|| of_party(incident, party));
            port.macs.insert(&party.mac);
            let mut evictions = incident.evictions.iter().chain(&incident.contained);
            let eviction = evictions.find(|eviction| eviction.port == party.port);
            for &address in &incident.addresses {
                known.entry(((at, address), incident.vlan)).or_insert(port.addresses.len());
                let contained = quarantined.get(&(at, address)).copied();
                let standing = Standing::Contested(Contested { incident, party, contained, eviction });
                port.addresses.push(Held { address, vlan: incident.vlan, standing, row: None });
            }
        }
    }
    let moved = moved(look);
    for row in &look.rows {
        let at = (row.bridge.as_str(), row.ifindex);
        let port = ports.entry(at).or_insert_with(|| of_row(row));
        port.macs.insert(&row.mac);
        let place = *known.entry(((at, row.address), row.vlan)).or_insert(port.addresses.len());
        match port.addresses.get_mut(place) {
            Some(held) => held.row = Some(row),
            None => port.addresses.push(of_table(row, &moved)),
        }
    }
    for port in ports.values_mut() {
        port.addresses.sort_by_key(|held| (held.standing.rank(), held.address, held.vlan));
    }
    ports
}

fn open(look: &Look) -> impl Iterator<Item = &Incident> {
    look.incidents.iter().filter(|incident| incident.status == "open")
}

fn of_party<'a>(incident: &'a Incident, party: &'a Party) -> Port<'a> {
    Port {
        bridge: &incident.bridge,
        ifindex: party.ifindex,
        name: &party.port,
        sandbox: party.sandbox.as_deref(),
        is_host: party.host,
        is_external: party.external,
        ..Port::default()
    }
}

fn of_row(row: &Row) -> Port<'_> {
    Port {
        bridge: &row.bridge,
        ifindex: row.ifindex,
        name: &row.port,
        sandbox: row.sandbox.as_deref(),
        is_host: row.host,
        is_external: row.external,
        ..Port::default()
    }
}

/// What is dropped where: of several VLANs at one port, the first.
fn quarantined(look: &Look) -> HashMap<Place<'_>, &Quarantined> {
    let mut quarantined = HashMap::new();
    for of in &look.quarantined {
        quarantined.entry(((of.bridge.as_str(), of.ifindex), of.address)).or_insert(of);
    }
    quarantined
}

/// Where losers of healed incidents were moved: the later incident if there are two.
fn moved(look: &Look) -> BTreeMap<Place<'_>, &Incident> {
    let healed = look.incidents.iter().filter(|incident| incident.healed);
    let moves = healed.flat_map(|incident| {
        let to =
            |party: &'_ Party| party.new_address.map(|address| ((incident.bridge.as_str(), party.ifindex), address));
        incident.parties.iter().filter_map(to).map(move |place| (place, incident))
    });
    moves.collect()
}

/// An address that nobody contests.
fn of_table<'a>(row: &'a Row, moved: &BTreeMap<Place<'a>, &'a Incident>) -> Held<'a> {
    let standing = match moved.get(&((row.bridge.as_str(), row.ifindex), row.address)) {
        _ if row.state == "martian" => Standing::Martian,
        Some(incident) => Standing::MovedFrom(incident),
        None => Standing::Fine,
    };
    Held { address: row.address, vlan: row.vlan, standing, row: Some(row) }
}

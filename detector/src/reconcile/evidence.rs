//! What shows addresses in use, at one time, and who that is.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::net::{BridgeName, Domain, Mac, Owner};

/// Everything that shows addresses in use, at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What was seen.
    pub sightings: Vec<Sighting>,
    /// What could not be looked at.
    pub gaps: Vec<Gap>,
}

/// In which domains something counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In any: it may be there, or get there.
    Anywhere,
    /// In every VLAN of a bridge: which one a port is in is not looked at.
    Bridge(BridgeName),
    /// In this one.
    Domain(Domain),
}

/// One thing that shows an address in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Where.
    pub reach: Reach,
    /// The address.
    pub address: Ipv4Addr,
    /// By what it was seen.
    pub by: Sense,
    /// The hardware address that uses it; zero if that is not known.
    pub mac: Mac,
    /// The inode of the network namespace that it is in, if that is known.
    pub netns: Option<u64>,
    /// Whether it is the host itself.
    pub host: bool,
    /// What to call whoever uses it.
    pub name: Option<String>,
    /// Every name that a lease of it may be in.
    pub owners: Vec<Owner>,
    /// The bridge port that it is behind.
    pub port: Option<String>,
}

/// How an address was seen in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    /// It is configured on an interface.
    Configured,
    /// The agent has it in its live table.
    LiveTable,
    /// Somebody answered a probe for it.
    Answered,
    /// The host has heard from it lately: a hint, which shows nobody alive, but keeps from saying that nobody is.
    Neighbour,
}

/// Something that could not be looked at, and where it keeps everything from being proven absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub reach: Reach,
    /// What it is, and why.
    pub what: String,
}

/// Somebody who uses an address: all that was seen of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// What to call it.
    pub name: Option<String>,
    /// The inode of its network namespace.
    pub netns: Option<u64>,
    /// The bridge port that it is behind.
    pub port: Option<String>,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Whether it is the host itself.
    pub host: bool,
    /// Every name that a lease of it may be in.
    pub known_as: BTreeSet<String>,
    /// What shows it.
    pub evidence: BTreeSet<Sense>,
}

impl Reach {
    /// Whether it counts in `domain`.
    #[must_use]
    pub fn covers(self, domain: Domain) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Bridge(bridge) => bridge == domain.bridge,
            Self::Domain(of) => of == domain,
        }
    }

    /// The bridge; none if it counts everywhere.
    #[must_use]
    pub const fn bridge(self) -> Option<BridgeName> {
        match self {
            Self::Anywhere => None,
            Self::Bridge(bridge) | Self::Domain(Domain { bridge, .. }) => Some(bridge),
        }
    }
}

impl Evidence {
    /// What shows `address` in use in `domain`.
    pub fn of(&self, domain: Domain, address: Ipv4Addr) -> impl Iterator<Item = &Sighting> {
        self.sightings.iter().filter(move |seen| seen.address == address && seen.reach.covers(domain))
    }

    /// What keeps it from being said that an address of `domain` is not in use.
    pub fn gaps_in(&self, domain: Domain) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(move |gap| gap.reach.covers(domain))
    }

    /// Everybody who uses `address` in `domain`, one for each sandbox. A hint is nobody.
    #[must_use]
    pub fn users_of(&self, domain: Domain, address: Ipv4Addr) -> Vec<User> {
        users(self.of(domain, address).collect())
    }

    /// As [`users_of`](Self::users_of), without those who have the address where it leads to no bridge.
    #[must_use]
    pub fn users_there(&self, domain: Domain, address: Ipv4Addr) -> Vec<User> {
        users(self.of(domain, address).filter(|seen| seen.reach.bridge().is_some()).collect())
    }
}

fn users(mut seen: Vec<&Sighting>) -> Vec<User> {
    seen.retain(|seen| seen.by != Sense::Neighbour);
    // What is known best comes first, so that the rest finds whom it belongs to.
    seen.sort_by_key(|seen| (seen.netns.is_none(), seen.port.is_none(), seen.by));
    let mut users: Vec<User> = Vec::new();
    for one in seen {
        match users.iter_mut().find(|user| user.is(one)) {
            Some(user) => user.add(one),
            None => users.push(User::of(one)),
        }
    }
    users
}

impl User {
    /// What to call it: its name, or what is known of it.
    #[must_use]
    pub fn called(&self) -> String {
        let netns = || self.netns.map(|inode| format!("net:[{inode}]"));
        let known = self.name.clone().or_else(netns).or_else(|| self.port.clone()).or_else(|| self.mac.clone());
        known.unwrap_or_else(|| "somebody".to_owned())
    }

    fn of(seen: &Sighting) -> Self {
        let mut user = Self {
            name: None,
            netns: None,
            port: None,
            mac: None,
            host: seen.host,
            known_as: BTreeSet::new(),
            evidence: BTreeSet::new(),
        };
        user.add(seen);
        user
    }

    /// Two namespaces are two sandboxes, whatever hardware addresses they have. Where the namespace is not known, the
    /// port tells, and where that is not known either, the hardware address.
    fn is(&self, seen: &Sighting) -> bool {
        if self.host || seen.host {
            return self.host == seen.host;
        }
        match (self.netns, seen.netns, self.port.as_ref(), seen.port.as_ref()) {
            (Some(one), Some(other), ..) => one == other,
            (_, _, Some(one), Some(other)) => one == other,
            _ => seen.mac != Mac::ZERO && self.mac.as_ref() == Some(&seen.mac.to_string()),
        }
    }

    fn add(&mut self, seen: &Sighting) {
        self.name = self.name.take().or_else(|| seen.name.clone());
        self.netns = self.netns.or(seen.netns);
        self.port = self.port.take().or_else(|| seen.port.clone());
        let mac = (seen.mac != Mac::ZERO).then(|| seen.mac.to_string());
        self.mac = self.mac.take().or(mac);
        self.known_as.extend(seen.owners.iter().map(ToString::to_string));
        self.evidence.insert(seen.by);
    }
}

impl Sense {
    /// The word for it, as reports have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::LiveTable => "live_table",
            Self::Answered => "answered",
            Self::Neighbour => "neighbour",
        }
    }
}

//! Looks for whatever shows addresses in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use super::{
    Evidence, Gap, Reach, Sense, Sighting,
    hidden::{self, Hidden},
};
use crate::{
    allocator::Unwitnessed,
    capture::Probing,
    http::{LiveTable, api},
    net::{BridgeName, Domain, Mac, Owner},
    netlink::{self, Everywhere, Host, Somewhere},
    sandbox::SandboxIdentity,
    witness::Wire,
};

/// What the host is called.
const HOST: &str = "the host";

/// Where an address is asked for, and which.
pub type Addresses = BTreeMap<Domain, BTreeSet<Ipv4Addr>>;

/// Somebody who can see what uses addresses.
pub trait Look {
    /// Looks for everything that uses an address in the domains of `asked`, and asks there for each of these.
    ///
    /// # Errors
    /// When nothing can be seen at all; what cannot be seen of it is a gap.
    fn look(&self, asked: &Addresses) -> Result<Evidence, LookError>;
}

/// Looks at the machine that it runs on.
#[derive(Debug)]
pub struct Looker {
    socket: PathBuf,
    probing: Probing,
}

/// Nothing at all can be seen.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The kernel does not tell.
    #[error("cannot look into the network namespaces: {0}")]
    Netlink(#[from] netlink::Error),
    /// The kernel cannot even be asked.
    #[error("cannot start timers: {0}")]
    Runtime(#[source] io::Error),
}

impl Looker {
    /// Asks the agent that answers on `socket`, if one does, and each bridge as `probing` says.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, probing: Probing) -> Self {
        Self { socket: socket.into(), probing }
    }

    /// Adds the agent's live table; the bridges that it has watched for long enough to know everybody there.
    fn ask_agent(&self, domains: &BTreeSet<Domain>, evidence: &mut Evidence) -> BTreeSet<BridgeName> {
        let table = match LiveTable::connect(&self.socket) {
            Ok(Some(table)) => table,
            // Without an agent nobody has a table; the other senses have to do.
            Ok(None) => return BTreeSet::new(),
            Err(Unwitnessed(why)) => {
                evidence.miss(Reach::Anywhere, format!("the agent's live table: {why}"));
                return BTreeSet::new();
            }
        };
        // What an agent knows that does not know everybody yet counts; what it does not know says nothing.
        let known = |domain: &&Domain| table.about().bridges.iter().any(|name| name == domain.bridge.as_str());
        for domain in domains.iter().filter(known) {
            match table.all(*domain) {
                Ok(rows) => evidence.sightings.extend(rows.iter().map(|row| in_table(*domain, row))),
                Err(Unwitnessed(why)) => {
                    evidence.miss(Reach::Domain(*domain), format!("the agent's live table: {why}"));
                }
            }
        }
        domains.iter().filter(|domain| table.watches(**domain)).map(|domain| domain.bridge).collect()
    }

    fn ask_bridge(&self, domain: Domain, addresses: &BTreeSet<Ipv4Addr>, evidence: &mut Evidence) {
        let addresses: Vec<_> = addresses.iter().copied().collect();
        match Wire::new(self.probing).users_of(domain, &addresses) {
            Ok(users) => {
                for (address, macs) in users {
                    evidence.add_answers(domain, address, macs);
                }
            }
            Err(Unwitnessed(why)) => evidence.miss(Reach::Domain(domain), format!("who answers on {domain}: {why}")),
        }
    }
}

impl Look for Looker {
    fn look(&self, asked: &Addresses) -> Result<Evidence, LookError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(LookError::Runtime)?;
        let mut evidence = Evidence::default();
        let domains: BTreeSet<Domain> = asked.keys().copied().collect();
        let bridges: BTreeSet<BridgeName> = domains.iter().map(|domain| domain.bridge).collect();
        let everywhere = runtime.block_on(async {
            let mut host = Host::open()?;
            let everywhere = host.everywhere().await?;
            for bridge in &bridges {
                evidence.add_neighbours(&mut host, *bridge).await;
            }
            Ok::<_, netlink::Error>(everywhere)
        })?;
        drop(runtime);
        evidence.add_configured(&everywhere, &bridges);
        evidence.add_hidden();
        let watched = self.ask_agent(&domains, &mut evidence);
        evidence.miss_open_ends(&everywhere, &watched);
        for (domain, addresses) in asked {
            self.ask_bridge(*domain, addresses, &mut evidence);
        }
        Ok(evidence)
    }
}

impl Evidence {
    fn miss(&mut self, reach: Reach, what: String) {
        self.gaps.push(Gap { reach, what });
    }

    /// A process that may not be looked at may be in a namespace that nothing else leads to.
    fn add_hidden(&mut self) {
        let hidden = match hidden::processes(Path::new("/proc")) {
            Ok(hidden) => hidden,
            Err(error) => return self.miss(Reach::Anywhere, format!("the machine's processes in /proc: {error}")),
        };
        for Hidden { name, addresses } in hidden {
            match addresses {
                Ok(addresses) => self.add_of_hidden(&name, &addresses),
                Err(error) => {
                    let what = format!("the namespace of {name}: {error}; dupip needs CAP_SYS_PTRACE for that");
                    self.miss(Reach::Anywhere, what);
                }
            }
        }
    }

    /// Most are in a namespace that was looked into, and have nothing new to show.
    fn add_of_hidden(&mut self, name: &str, addresses: &BTreeSet<Ipv4Addr>) {
        let known = |address| self.sightings.iter().any(|of| of.address == address && of.by == Sense::Configured);
        let new: Vec<_> = addresses.iter().copied().filter(|address| !known(*address)).collect();
        let seen = |address| Sighting {
            name: Some(name.to_owned()),
            ..bare(Reach::Anywhere, address, Sense::Configured, Mac::ZERO)
        };
        self.sightings.extend(new.into_iter().map(seen));
    }

    fn add_configured(&mut self, everywhere: &Everywhere, bridges: &BTreeSet<BridgeName>) {
        for (netns, error) in &everywhere.closed {
            self.miss(Reach::Anywhere, format!("namespace {}: {error}", called(&SandboxIdentity::of(netns))));
        }
        for (bridge, port) in &everywhere.blind {
            let what = format!("the namespace behind port {port} of {bridge}: nothing leads into it");
            self.miss(Reach::Bridge(*bridge), what);
        }
        let mut identities = BTreeMap::new();
        for somewhere in &everywhere.interfaces {
            let netns = &somewhere.netns;
            let identity = identities.entry(netns.id).or_insert_with(|| SandboxIdentity::of(netns));
            let own = netns.id == everywhere.own;
            self.sightings.extend(configured(somewhere, identity, own.then_some(bridges)));
        }
    }

    /// Behind taps and uplinks only the agent and the probes together are proof.
    fn miss_open_ends(&mut self, everywhere: &Everywhere, watched: &BTreeSet<BridgeName>) {
        for (bridge, port) in everywhere.open_ended.iter().filter(|(bridge, _)| !watched.contains(bridge)) {
            let what = format!("what is behind port {port} of {bridge}: no interface is, and no agent watches it");
            self.miss(Reach::Bridge(*bridge), what);
        }
    }

    async fn add_neighbours(&mut self, host: &mut Host, bridge: BridgeName) {
        let listed = async {
            let index = host.bridge(bridge).await?.index;
            host.neighbours(index).await
        };
        match listed.await {
            Ok(neighbours) => {
                let domain = Reach::Domain(Domain::untagged(bridge));
                let seen = |(address, mac)| bare(domain, address, Sense::Neighbour, mac);
                self.sightings.extend(neighbours.into_iter().map(seen));
            }
            // Also if there is no such bridge: dupip may look from the wrong namespace.
            Err(error) => self.miss(Reach::Bridge(bridge), format!("bridge {bridge}: {error}")),
        }
    }

    /// Whoever answers is known by name, if an interface with that hardware address was seen.
    fn add_answers(&mut self, domain: Domain, address: Ipv4Addr, macs: BTreeSet<Mac>) {
        let reach = Reach::Domain(domain);
        for mac in macs {
            let with_mac = |seen: &&Sighting| seen.mac == mac && seen.by == Sense::Configured;
            let elsewhere = || self.sightings.iter().filter(|seen| seen.reach.covers(domain)).find(with_mac);
            let known = self.of(domain, address).find(with_mac).or_else(elsewhere).cloned();
            let seen = known.map(|known| Sighting { reach, address, by: Sense::Answered, ..known });
            self.sightings.push(seen.unwrap_or_else(|| bare(reach, address, Sense::Answered, mac)));
        }
    }
}

/// The addresses of an interface. One whose other end is no port may be on its way to any bridge, and the host answers
/// on every bridge for whatever it has; loopback is nobody's.
fn configured(
    somewhere: &Somewhere,
    identity: &SandboxIdentity,
    bridges_of_host: Option<&BTreeSet<BridgeName>>,
) -> Vec<Sighting> {
    let interface = &somewhere.interface;
    let of_host = bridges_of_host.and_then(|bridges| bridges.iter().find(|name| name.as_str() == interface.name));
    let bridge = somewhere.port.as_ref().map(|(bridge, _)| *bridge).or(of_host.copied());
    let host = bridges_of_host.is_some();
    let names = identity.aliases.iter().filter(|_| !host);
    let owners = names.filter_map(|alias| alias.parse().ok()).collect::<Vec<Owner>>();
    let seen = |address| Sighting {
        reach: bridge.map_or(Reach::Anywhere, Reach::Bridge),
        address,
        by: Sense::Configured,
        mac: interface.mac,
        netns: Some(somewhere.netns.id.inode),
        host,
        name: if host { Some(HOST.to_owned()) } else { identity.name.clone() },
        owners: owners.clone(),
        port: somewhere.port.as_ref().map(|(_, port)| port.clone()),
    };
    interface.addresses.iter().map(|network| network.addr()).filter(|at| !at.is_loopback()).map(seen).collect()
}

fn in_table(domain: Domain, row: &api::Row) -> Sighting {
    Sighting {
        reach: Reach::Domain(domain),
        address: row.address,
        by: Sense::LiveTable,
        mac: row.mac.parse().unwrap_or(Mac::ZERO),
        netns: row.netns,
        host: row.host,
        name: row.sandbox.clone().or_else(|| row.host.then(|| HOST.to_owned())),
        owners: row.sandbox.iter().filter_map(|name| name.parse().ok()).collect(),
        port: Some(row.port.clone()),
    }
}

fn bare(reach: Reach, address: Ipv4Addr, by: Sense, mac: Mac) -> Sighting {
    Sighting { reach, address, by, mac, netns: None, host: false, name: None, owners: Vec::new(), port: None }
}

fn called(identity: &SandboxIdentity) -> String {
    identity.name.clone().or(identity.netns.map(|id| id.to_string())).unwrap_or_default()
}

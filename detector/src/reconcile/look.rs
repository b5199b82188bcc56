//! Looks for whatever shows addresses in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
};

use super::{Evidence, Gap, Sense, Sighting};
use crate::{
    allocator::Unwitnessed,
    capture::Probing,
    http::{LiveTable, api},
    net::{BridgeName, Domain, Mac, NetnsId, Owner},
    netlink::{self, Everywhere, Host, Somewhere},
    sandbox::SandboxIdentity,
    witness::Wire,
};

/// Where an address is asked for, and which.
pub type Addresses = BTreeMap<Domain, BTreeSet<Ipv4Addr>>;

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
    Runtime(#[source] std::io::Error),
}

impl Looker {
    /// Asks the agent that answers on `socket`, if one does, and each bridge as `probing` says.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, probing: Probing) -> Self {
        Self { socket: socket.into(), probing }
    }

    /// Looks for everything that uses an address in `domains`, and asks there for `asked`.
    ///
    /// # Errors
    /// When nothing can be seen at all; what cannot be seen of it is a gap.
    pub fn look(&self, asked: &Addresses) -> Result<Evidence, LookError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(LookError::Runtime)?;
        let mut evidence = Evidence::default();
        let domains: BTreeSet<Domain> = asked.keys().copied().collect();
        runtime.block_on(async {
            let mut host = Host::open()?;
            evidence.add_configured(&host.everywhere().await?);
            for domain in &domains {
                evidence.add_neighbours(&mut host, *domain).await;
            }
            Ok::<_, netlink::Error>(())
        })?;
        drop(runtime);
        self.ask_agent(&domains, &mut evidence);
        for (domain, addresses) in asked {
            self.ask_bridge(*domain, addresses, &mut evidence);
        }
        Ok(evidence)
    }

    fn ask_agent(&self, domains: &BTreeSet<Domain>, evidence: &mut Evidence) {
        let table = match LiveTable::connect(&self.socket) {
            Ok(Some(table)) => table,
            // Without an agent nobody has a table; the other senses have to do.
            Ok(None) => return,
            Err(Unwitnessed(why)) => return evidence.miss(None, format!("the agent's live table: {why}")),
        };
        for domain in domains.iter().filter(|domain| table.watches(**domain)) {
            match table.all(*domain) {
                Ok(rows) => evidence.sightings.extend(rows.iter().filter_map(|row| in_table(*domain, row))),
                Err(Unwitnessed(why)) => evidence.miss(Some(*domain), format!("the agent's live table: {why}")),
            }
        }
    }

    fn ask_bridge(&self, domain: Domain, addresses: &BTreeSet<Ipv4Addr>, evidence: &mut Evidence) {
        let addresses: Vec<_> = addresses.iter().copied().collect();
        match Wire::new(self.probing).users_of(domain, &addresses) {
            Ok(users) => {
                for (address, macs) in users {
                    evidence.add_answers(domain, address, macs);
                }
            }
            Err(Unwitnessed(why)) => evidence.miss(Some(domain), format!("who answers on {domain}: {why}")),
        }
    }
}

impl Evidence {
    fn miss(&mut self, domain: Option<Domain>, what: String) {
        self.gaps.push(Gap { domain, what });
    }

    fn add_configured(&mut self, everywhere: &Everywhere) {
        for (netns, error) in &everywhere.closed {
            self.miss(None, format!("namespace {}: {error}", called(&SandboxIdentity::of(netns))));
        }
        for (bridge, port) in &everywhere.blind {
            self.miss(Some(Domain::untagged(*bridge)), format!("nothing leads into the namespace behind port {port}"));
        }
        let mut identities = BTreeMap::new();
        for somewhere in &everywhere.interfaces {
            let netns = &somewhere.netns;
            let identity = identities.entry(netns.id).or_insert_with(|| SandboxIdentity::of(netns));
            let host = netns.id == everywhere.own;
            self.sightings.extend(configured(somewhere, identity, host));
        }
    }

    async fn add_neighbours(&mut self, host: &mut Host, domain: Domain) {
        let listed = async {
            let bridge = host.bridge(domain.bridge).await?;
            host.neighbours(bridge.index).await
        };
        match listed.await {
            Ok(neighbours) if domain.vlan.is_none() => {
                let seen = |(address, mac)| self::bare(Some(domain), address, Sense::Neighbour, mac);
                self.sightings.extend(neighbours.into_iter().map(seen));
            }
            Ok(_) | Err(netlink::Error::NoBridge(_)) => {}
            Err(error) => self.miss(Some(domain), format!("the host's neighbours on {}: {error}", domain.bridge)),
        }
    }

    /// Whoever answers is known by name, if an interface with that hardware address was seen.
    fn add_answers(&mut self, domain: Domain, address: Ipv4Addr, macs: BTreeSet<Mac>) {
        for mac in macs {
            let known = self.of(domain, address).find(|seen| seen.mac == mac && seen.by == Sense::Configured).cloned();
            let seen = known.map(|known| Sighting { domain: Some(domain), by: Sense::Answered, ..known });
            self.sightings.push(seen.unwrap_or_else(|| bare(Some(domain), address, Sense::Answered, mac)));
        }
    }
}

/// The addresses of an interface. One whose other end is no port may be on its way to any bridge; loopback is not.
fn configured(somewhere: &Somewhere, identity: &SandboxIdentity, host: bool) -> Vec<Sighting> {
    let interface = &somewhere.interface;
    let own_bridge: Option<BridgeName> = interface.name.parse().ok().filter(|_| host);
    let domain = somewhere.port.as_ref().map(|(bridge, _)| *bridge).or(own_bridge).map(Domain::untagged);
    let owners = identity.aliases.iter().filter_map(|alias| alias.parse().ok()).collect::<Vec<Owner>>();
    let seen = |address| Sighting {
        domain,
        address,
        by: Sense::Configured,
        mac: interface.mac,
        netns: Some(somewhere.netns.id),
        name: if host { Some("the host".to_owned()) } else { identity.name.clone() },
        owners: if host { Vec::new() } else { owners.clone() },
        port: somewhere.port.as_ref().map(|(_, port)| port.clone()),
    };
    interface.addresses.iter().map(|network| network.addr()).filter(|at| !at.is_loopback()).map(seen).collect()
}

fn in_table(domain: Domain, row: &api::Row) -> Option<Sighting> {
    let device = row.netns.map(|inode| NetnsId { device: 0, inode });
    Some(Sighting {
        domain: Some(domain),
        address: row.address,
        by: Sense::LiveTable,
        mac: row.mac.parse().ok()?,
        netns: device,
        name: row.sandbox.clone().or_else(|| row.host.then(|| "the host".to_owned())),
        owners: row.sandbox.iter().filter_map(|name| name.parse().ok()).collect(),
        port: Some(row.port.clone()),
    })
}

fn bare(domain: Option<Domain>, address: Ipv4Addr, by: Sense, mac: Mac) -> Sighting {
    Sighting { domain, address, by, mac, netns: None, name: None, owners: Vec::new(), port: None }
}

fn called(identity: &SandboxIdentity) -> String {
    identity.name.clone().or(identity.netns.map(|id| id.to_string())).unwrap_or_default()
}

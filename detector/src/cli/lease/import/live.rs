//! Who has which address behind a bridge's ports, as the kernel shows it now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use crate::{
    net::{BridgeName, NetnsId, Owner},
    netlink::{Error, Host, Inside, PortSurvey},
    sandbox::SandboxIdentity,
};

/// What is configured behind a bridge's ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) by_address: BTreeMap<Ipv4Addr, BTreeMap<NetnsId, Sandbox>>,
    /// The host's own addresses on the bridge.
    pub(super) host: BTreeSet<Ipv4Addr>,
    /// Ports behind which nothing could be seen, which is not that nothing is there.
    pub(super) hidden: Vec<String>,
}

/// A live sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sandbox {
    /// What to call it.
    pub(super) name: String,
    /// The names that it alone goes by on this bridge, best first.
    pub(super) owners: Vec<Owner>,
    /// The port that it is behind.
    pub(super) port: String,
}

impl Live {
    /// Looks behind every port of `bridge`.
    pub(super) async fn look(bridge: BridgeName) -> Result<Self, Error> {
        let survey = Host::open()?.survey(bridge).await?;
        let host = survey.addresses.iter().map(|network| network.addr()).collect();
        let mut live = Self { host, ..Self::default() };
        let names = names(&survey.ports);
        for port in &survey.ports {
            live.add(port, &names);
        }
        Ok(live)
    }

    /// Who has `address`; nobody that can be seen, if none.
    pub(super) fn of(&self, address: Ipv4Addr) -> Vec<&Sandbox> {
        self.by_address.get(&address).into_iter().flat_map(BTreeMap::values).collect()
    }

    fn add(&mut self, port: &PortSurvey, names: &BTreeMap<String, BTreeSet<NetnsId>>) {
        match (&port.inside, &port.netns) {
            (Inside::Seen(behind), Some(netns)) => {
                let sandbox = sandbox(&SandboxIdentity::of(netns), &port.port.name, names);
                for network in &behind.interface.addresses {
                    self.by_address.entry(network.addr()).or_default().insert(netns.id, sandbox.clone());
                }
            }
            _ => self.hidden.push(port.port.name.clone()),
        }
    }
}

/// Which namespaces go by each name.
fn names(ports: &[PortSurvey]) -> BTreeMap<String, BTreeSet<NetnsId>> {
    let mut names: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for netns in ports.iter().filter_map(|port| port.netns.as_ref()) {
        for alias in SandboxIdentity::of(netns).aliases {
            names.entry(alias).or_default().insert(netns.id);
        }
    }
    names
}

fn sandbox(identity: &SandboxIdentity, port: &str, names: &BTreeMap<String, BTreeSet<NetnsId>>) -> Sandbox {
    let alone = |alias: &&String| names.get(*alias).is_none_or(|of| of.len() == 1);
    let (mut best, others): (Vec<_>, Vec<_>) =
        identity.aliases.iter().filter(alone).partition(|alias| identity.name.as_ref() == Some(*alias));
    best.extend(others);
    let netns = identity.netns.map(|netns| format!("a sandbox in namespace {}", netns.inode));
    Sandbox {
        name: identity.name.clone().or(netns).unwrap_or_else(|| "a sandbox".to_owned()),
        owners: best.into_iter().filter_map(|alias| alias.parse().ok()).collect(),
        port: port.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_two_go_by_is_no_owners() {
        let id = |inode| NetnsId { device: 4, inode };
        let names = [("web", [id(1), id(2)].into()), ("4f6b", [id(1)].into())];
        let names = names.into_iter().map(|(name, of)| (name.to_owned(), of)).collect();
        let identity = SandboxIdentity {
            netns: Some(id(1)),
            name: Some("web".to_owned()),
            aliases: ["4f6b".to_owned(), "web".to_owned()].into(),
            ..SandboxIdentity::default()
        };
        let sandbox = sandbox(&identity, "veth0", &names);
        assert_eq!((sandbox.name.as_str(), sandbox.owners), ("web", vec!["4f6b".parse().unwrap()]));
    }
}

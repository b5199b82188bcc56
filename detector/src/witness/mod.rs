//! Looks on a bridge whether anybody uses an address, before it is handed out.
//!
//! Not being able to see is never the same as seeing nobody: whatever goes wrong here is an error, and nothing is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::Ipv4Addr,
};

use tokio::runtime;

use crate::{
    allocator::{Unwitnessed, User, Witness},
    capture::{Prober, Probing},
    net::{BridgeName, Domain, Mac, Owner},
    netlink::{Error, Host, Inside, Outside, PortSurvey},
    sandbox::SandboxIdentity,
};

/// Asks on the bridges of the calling thread's network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    probing: Probing,
}

impl Wire {
    /// Asks as `probing` says.
    #[must_use]
    pub const fn new(probing: Probing) -> Self {
        Self { probing }
    }

    /// Everybody who uses one of `addresses`; nobody, if there is no such bridge.
    ///
    /// # Errors
    /// When it cannot be seen.
    pub fn users_of(
        &self,
        domain: Domain,
        addresses: &[Ipv4Addr],
    ) -> Result<BTreeMap<Ipv4Addr, BTreeSet<Mac>>, Unwitnessed> {
        let Some(outside) = look(domain.bridge)? else { return Ok(BTreeMap::new()) };
        prober(&outside, BTreeSet::new())?.ask_many(addresses, domain.vlan, self.probing).map_err(unwitnessed)
    }
}

impl Witness for Wire {
    fn user_of(&self, domain: Domain, address: Ipv4Addr, owner: &Owner) -> Result<Option<User>, Unwitnessed> {
        let Some(outside) = look(domain.bridge)? else { return Ok(None) };
        // The host does not hear its own probes, and so does not answer them.
        if outside.addresses.iter().any(|network| network.addr() == address) {
            return Ok(Some(User { mac: outside.bridge.mac, shown_by: "is the host's own" }));
        }
        let ask = |own| prober(&outside, own)?.ask(address, domain.vlan, self.probing).map_err(unwitnessed);
        // Only who answers is looked behind, and then asked for again: the owner itself is no stranger.
        let stranger = match ask(BTreeSet::new())? {
            None => None,
            Some(mac) => match stations_of(domain.bridge, owner)? {
                own if own.contains(&mac) => ask(own)?,
                _ => Some(mac),
            },
        };
        Ok(stranger.map(|mac| User { mac, shown_by: "answered a probe" }))
    }
}

/// The hardware addresses behind the bridge's ports whose sandbox goes by the owner's name.
fn stations_of(bridge: BridgeName, owner: &Owner) -> Result<BTreeSet<Mac>, Unwitnessed> {
    let survey = wait_for(async { Host::open()?.survey(bridge).await })?.map_err(unwitnessed)?;
    let station = |port: PortSurvey| match (port.netns, port.inside) {
        (Some(netns), Inside::Seen(interface)) => {
            SandboxIdentity::of(&netns).aliases.contains(owner.as_str()).then_some(interface.mac)
        }
        _ => None,
    };
    Ok(survey.ports.into_iter().filter_map(station).collect())
}

/// The bridge; `None` if there is no such bridge, and so nobody on it.
fn look(bridge: BridgeName) -> Result<Option<Outside>, Unwitnessed> {
    match wait_for(async { Host::open()?.outside(bridge).await })? {
        Ok(outside) => Ok(Some(outside)),
        Err(Error::NoBridge(_)) => Ok(None),
        Err(error) => Err(unwitnessed(error)),
    }
}

/// Somebody to ask there. The host's ends of the ports are not strangers, nor are `own`.
fn prober(outside: &Outside, own: BTreeSet<Mac>) -> Result<Prober, Unwitnessed> {
    let own = outside.ports.iter().map(|port| port.mac).chain(own).collect();
    Prober::open(outside.bridge.index, outside.bridge.mac, own).map_err(unwitnessed)
}

fn unwitnessed(error: impl std::error::Error) -> Unwitnessed {
    Unwitnessed(error.to_string())
}

/// Waits for what only a runtime can wait for. Nobody calls this from within a task.
fn wait_for<T>(future: impl Future<Output = T>) -> Result<T, Unwitnessed> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Unwitnessed(format!("cannot start timers: {error}")))?;
    Ok(runtime.block_on(future))
}

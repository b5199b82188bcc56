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

/// How often to ask while the bridge changes.
const TRIES: usize = 4;

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
        let ask = |view: &View| {
            view.prober(BTreeSet::new())?.ask_many(addresses, domain.vlan, self.probing).map_err(unwitnessed)
        };
        Ok(while_it_stays(domain.bridge, ask)?.unwrap_or_default())
    }
}

impl Witness for Wire {
    fn user_of(&self, domain: Domain, address: Ipv4Addr, owner: &Owner) -> Result<Option<User>, Unwitnessed> {
        let ask = |view: &View| {
            // The host does not hear its own probes, and so does not answer them.
            if view.own.contains(&address) {
                return Ok(Some(User { mac: view.outside.bridge.mac, shown_by: "is the host's own" }));
            }
            let ask = |own| view.prober(own)?.ask(address, domain.vlan, self.probing).map_err(unwitnessed);
            // Only who answers is looked behind, and then asked for again: the owner itself is no stranger.
            let stranger = match ask(BTreeSet::new())? {
                None => None,
                Some(mac) => match stations_of(domain.bridge, owner)? {
                    own if own.contains(&mac) => ask(own)?,
                    _ => Some(mac),
                },
            };
            Ok(stranger.map(|mac| User { mac, shown_by: "answered a probe" }))
        };
        Ok(while_it_stays(domain.bridge, ask)?.flatten())
    }
}

/// The hardware addresses behind the bridge's ports whose sandbox goes by the owner's name.
fn stations_of(bridge: BridgeName, owner: &Owner) -> Result<BTreeSet<Mac>, Unwitnessed> {
    let survey = wait_for(async { Host::open()?.survey(bridge).await })?.map_err(unwitnessed)?;
    let station = |port: PortSurvey| match (port.netns, port.inside) {
        (Some(netns), Inside::Seen(behind)) => {
            SandboxIdentity::of(&netns).aliases.contains(owner.as_str()).then_some(behind.interface.mac)
        }
        _ => None,
    };
    Ok(survey.ports.into_iter().filter_map(station).collect())
}

/// A bridge, and what the host is there.
struct View {
    outside: Outside,
    own: BTreeSet<Ipv4Addr>,
}

impl View {
    /// The bridge; `None` if there is no such bridge, and so nobody on it.
    fn of(bridge: BridgeName) -> Result<Option<Self>, Unwitnessed> {
        let look = async {
            let mut host = Host::open()?;
            Ok(Self { outside: host.outside(bridge).await?, own: host.own_addresses().await? })
        };
        match wait_for(look)? {
            Ok(view) => Ok(Some(view)),
            Err(Error::NoBridge(_)) => Ok(None),
            Err(error) => Err(unwitnessed(error)),
        }
    }

    /// Somebody to ask there. The host's ends of the ports are not strangers, nor are `own`.
    fn prober(&self, own: BTreeSet<Mac>) -> Result<Prober, Unwitnessed> {
        let own = self.outside.ports.iter().map(|port| port.mac).chain(own).collect();
        Prober::open(self.outside.bridge.index, self.outside.bridge.mac, own).map_err(unwitnessed)
    }

    /// Whether it is still the bridge that was asked on, with the hardware address that the answers go to. It takes
    /// another one when a port comes or goes, unless it has been given one for good; an answer to the old one is lost.
    fn is_current(&self) -> Result<bool, Unwitnessed> {
        let then = self.outside.bridge;
        match wait_for(async { Host::open()?.bridge(then.name).await })? {
            Ok(now) => Ok((now.index, now.mac) == (then.index, then.mac)),
            Err(Error::NoBridge(_)) => Ok(false),
            Err(error) => Err(unwitnessed(error)),
        }
    }
}

/// What `ask` learns on `bridge`, asked again if the bridge changed meanwhile; `None` if there is no such bridge.
fn while_it_stays<T>(
    bridge: BridgeName,
    ask: impl Fn(&View) -> Result<T, Unwitnessed>,
) -> Result<Option<T>, Unwitnessed> {
    for _ in 0..TRIES {
        let Some(view) = View::of(bridge)? else { return Ok(None) };
        let learned = ask(&view)?;
        if view.is_current()? {
            return Ok(Some(learned));
        }
    }
    Err(Unwitnessed(format!(
        "the hardware address of {bridge} changed each time while waiting for answers: try again, or give the bridge one \
         for good (`ip link set dev {bridge} address …`)"
    )))
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

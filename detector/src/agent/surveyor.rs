//! Looks into sandboxes and changes addresses there, one errand after the other, so that the loop never waits for it.

use std::{
    collections::{BTreeSet, VecDeque},
    net::Ipv4Addr,
};

use tokio::sync::mpsc;

use super::clock;
use crate::{
    engine::{self, ActionId, Configured, Input, Outcome, Sandbox, Survey},
    net::{BridgeName, Domain, IfIndex, Ipv4Net, Mac},
    netlink::{
        self, Bridge, Destroyed, Host, Inside, LiveAddress, NetnsFile, Peer, Port, PortSurvey, Readdress,
        ReaddressError, Readdressed, VlanDevice,
    },
    sandbox::SandboxIdentity,
    time::Timestamp,
};

/// Something to look at or to change.
#[derive(Debug)]
pub(super) enum Errand {
    /// A bridge and everything behind its ports.
    Bridge(BridgeName),
    /// What is behind one port.
    Port(Port),
    /// An address in the namespace behind a port; its answer is the action's outcome.
    Readdress { id: ActionId, port: Port, change: Readdress },
    /// Addresses that are to be asked for, and those that the host's neighbour table knows of besides.
    Sweep { domain: Domain, bridge: IfIndex, addresses: BTreeSet<Ipv4Addr> },
    /// The host's own neighbour entry and, of whoever is behind a port, the bridge's table of hardware addresses; its
    /// answer is the action's outcome.
    Caches { id: ActionId, domain: Domain, bridge: IfIndex, address: Ipv4Addr, mac: Mac, port: Option<IfIndex> },
    /// The sockets behind a port that hang on an address; its answer is the action's outcome.
    DestroySockets { id: ActionId, port: Port, address: Ipv4Addr },
}

/// What came of an errand.
#[derive(Debug)]
pub(super) enum News {
    /// A bridge and everything behind its ports.
    Bridge(Found),
    /// A bridge that could not be looked at.
    NoBridge(BridgeName, netlink::Error),
    /// What is behind one port.
    Port(Seen),
    /// Addresses to ask for.
    Sweep(Domain, BTreeSet<Ipv4Addr>),
    /// Every tap that was ordered before this was asked for is in place.
    Tapped,
    /// Which networks of a bridge have a pool in the store.
    Pools(BridgeName, Vec<Ipv4Net>),
    /// The store works, after it could not be asked or had failed.
    StoreRestored,
    /// How an action ended, or something else that is an input as it is.
    Input(Input),
}

/// What a look at a bridge found.
#[derive(Debug)]
pub(super) struct Found {
    /// When the look began: what has gone since then may still be in it.
    pub(super) began: Timestamp,
    pub(super) bridge: Bridge,
    /// The host's addresses on it.
    pub(super) networks: Vec<Ipv4Net>,
    /// The host's interfaces in its VLANs.
    pub(super) vlans: Vec<VlanDevice>,
    pub(super) ports: Vec<Seen>,
}

/// What a look behind a port found.
#[derive(Debug)]
pub struct Seen {
    /// The port.
    pub port: Port,
    /// Why its addresses are not known, if there is a namespace that should have told.
    pub unreachable: Option<netlink::Error>,
    /// What the engine is told.
    pub survey: Survey,
}

/// Does errands until nobody can send any more.
pub(super) struct Surveyor {
    host: Host,
    errands: mpsc::UnboundedReceiver<Errand>,
    queue: VecDeque<Errand>,
    news: mpsc::UnboundedSender<News>,
}

impl Surveyor {
    /// A surveyor of the network namespace that the calling thread is in.
    pub(super) fn new(host: Host, errands: mpsc::UnboundedReceiver<Errand>, news: mpsc::UnboundedSender<News>) -> Self {
        Self { host, errands, queue: VecDeque::new(), news }
    }

    pub(super) async fn run(mut self) {
        while let Some(errand) = self.next().await {
            match errand {
                Errand::Bridge(name) => self.bridge(name).await,
                Errand::Port(port) => self.port(port).await,
                Errand::Readdress { id, port, change } => self.readdress(id, port, change).await,
                Errand::Sweep { domain, bridge, addresses } => self.sweep(domain, bridge, addresses).await,
                Errand::Caches { id, domain, bridge, address, mac, port } => {
                    let corrected = self.correct_caches(domain, bridge, (address, mac), port).await;
                    self.tell(News::Input(outcome(id, corrected.map_err(|error| error.to_string()))));
                }
                Errand::DestroySockets { id, port, address } => self.destroy_sockets(id, port, address).await,
            }
        }
    }

    /// The next errand. One look at a port does for all that were asked for before it began, so a storm of events about
    /// one sandbox does not pile up.
    async fn next(&mut self) -> Option<Errand> {
        if self.queue.is_empty() {
            self.queue.extend(self.errands.recv().await);
        }
        while let Ok(errand) = self.errands.try_recv() {
            self.queue.push_back(errand);
        }
        let errand = self.queue.pop_front()?;
        let Errand::Port(port) = errand else { return Some(errand) };
        let again = |errand: &Errand| matches!(errand, Errand::Port(other) if other.index == port.index);
        let newest = self.queue.iter().rev().find(|errand| again(errand)).map(|errand| match errand {
            Errand::Port(newest) => newest.clone(),
            _ => port.clone(),
        });
        self.queue.retain(|errand| !again(errand));
        Some(Errand::Port(newest.unwrap_or(port)))
    }

    /// Nobody listens any more only while the agent stops.
    fn tell(&self, news: News) {
        let _ = self.news.send(news);
    }

    async fn bridge(&mut self, name: BridgeName) {
        let began = clock::now();
        let news = match self.host.survey(name).await {
            Ok(netlink::Survey { bridge, addresses, vlans, ports }) => {
                let ports = ports.into_iter().map(|port| Seen::new(port, began)).collect();
                News::Bridge(Found { began, bridge, networks: addresses, vlans, ports })
            }
            Err(error) => News::NoBridge(name, error),
        };
        self.tell(news);
    }

    async fn port(&mut self, port: Port) {
        let began = clock::now();
        let found = self.host.survey_port(port).await;
        self.tell(News::Port(Seen::new(found, began)));
    }

    /// Looks behind the port again before it says that the address was changed.
    async fn readdress(&mut self, id: ActionId, port: Port, change: Readdress) {
        let changed = self.change_address(&port, change).await;
        self.port(port).await;
        if let Ok(Readdressed::Moved { rewritten, restored, without_default }) = changed {
            let Readdress { old, new, .. } = change;
            tracing::debug!(
                event = "readdressed", %old, %new, rewritten, restored, %without_default,
                "an address was changed in a sandbox"
            );
        }
        self.tell(News::Input(outcome(id, changed.map(drop))));
    }

    async fn change_address(&mut self, port: &Port, change: Readdress) -> Result<Readdressed, String> {
        let (netns, peer) = self.behind(port).await?;
        let changed = match netlink::readdress(&netns, peer.index, change).await {
            // The sandbox sees its network smaller or larger than the bridge does; its routes are made for that.
            Err(ReaddressError::OtherPrefix { found, .. }) => {
                let change = Readdress { prefix_len: found.prefix_len(), ..change };
                netlink::readdress(&netns, peer.index, change).await
            }
            other => other,
        };
        changed.map_err(|error| error.to_string())
    }

    /// The namespace behind a port, and the interface in there.
    async fn behind(&mut self, port: &Port) -> Result<(NetnsFile, Peer), String> {
        let peer = port.peer.ok_or("the port leads into no other namespace")?;
        let netns = self.host.netns(peer.nsid).await.map_err(|error| error.to_string())?;
        Ok((netns, peer))
    }

    /// That a kernel cannot destroy sockets fails nothing: their owners find out later.
    async fn destroy_sockets(&mut self, id: ActionId, port: Port, address: Ipv4Addr) {
        let destroyed = match self.behind(&port).await {
            Ok((netns, _)) => netlink::destroy_sockets(&netns, address).await.map_err(|error| error.to_string()),
            Err(failure) => Err(failure),
        };
        if let Ok(Destroyed { tcp, udp, listeners_left }) = destroyed {
            tracing::debug!(
                event = "sockets_destroyed", %address, tcp, udp, listeners_left,
                "the sockets on an address were destroyed"
            );
        }
        self.tell(News::Input(outcome(id, destroyed.map(drop))));
    }

    /// The neighbour table is a hint of who there may be: those in it are asked for, and nothing is believed.
    async fn sweep(&mut self, domain: Domain, bridge: IfIndex, mut addresses: BTreeSet<Ipv4Addr>) {
        if domain.vlan.is_none() {
            match self.host.neighbours(bridge).await {
                Ok(neighbours) => addresses.extend(neighbours.into_iter().map(|(address, _)| address)),
                Err(error) => {
                    tracing::debug!(event = "no_neighbours", "a sweep goes without the host's neighbours: {error}")
                }
            }
        }
        self.tell(News::Sweep(domain, addresses));
    }

    async fn correct_caches(
        &mut self,
        domain: Domain,
        bridge: IfIndex,
        (address, mac): (Ipv4Addr, Mac),
        port: Option<IfIndex>,
    ) -> Result<(), netlink::Error> {
        self.host.correct_neighbour(bridge, address, mac).await?;
        if let Some(port) = port {
            self.host.correct_fdb(bridge, port, mac, domain.vlan).await?;
        }
        Ok(())
    }
}

/// How an action without a yield ended.
pub(super) fn outcome(action: ActionId, result: Result<(), String>) -> Input {
    match result {
        Ok(()) => Input::Done { action, outcome: Outcome::Finished },
        Err(failure) => Input::Failed { action, failure },
    }
}

impl Seen {
    /// What a look that began at `at` has found.
    #[must_use]
    pub fn new(found: PortSurvey, at: Timestamp) -> Self {
        let PortSurvey { port, netns, inside, reach } = found;
        let sandbox = netns.as_ref().map(identify).unwrap_or_default();
        let unseen = Survey { at, sandbox, macs: BTreeSet::new(), reach, forwards: false, addresses: None };
        let (survey, unreachable) = match inside {
            Inside::Seen(behind) => {
                let addresses = Some(behind.live().map(configured).collect());
                (Survey { macs: behind.macs, forwards: behind.forwards, addresses, ..unseen }, None)
            }
            Inside::NoPeer => (unseen, None),
            Inside::Unreachable(error) => (unseen, Some(error)),
        };
        Self { port, unreachable, survey }
    }
}

/// A bridge with the host's networks on it and its VLAN devices, as the engine is told of it.
#[must_use]
pub fn bridge_told(bridge: Bridge, networks: Vec<Ipv4Net>, vlans: Vec<VlanDevice>) -> engine::Bridge {
    let Bridge { name, index: port, mac, pvid, .. } = bridge;
    let of_host = |VlanDevice { vlan, interface }: VlanDevice| {
        let networks = if interface.up { interface.addresses } else { Vec::new() };
        engine::VlanDevice { vlan, mac: interface.mac, networks }
    };
    engine::Bridge { name, port, mac, networks, pvid, vlans: vlans.into_iter().map(of_host).collect() }
}

fn configured(live: LiveAddress) -> Configured {
    Configured { tag: live.vlan, address: live.network.addr(), mac: live.mac }
}

/// Who lives in a namespace, under every name that a lease can be written to; the best comes first.
fn identify(netns: &netlink::Found) -> Sandbox {
    let SandboxIdentity { name, aliases, .. } = SandboxIdentity::of(netns);
    let (mut best, others): (Vec<_>, Vec<_>) = aliases.into_iter().partition(|alias| name.as_ref() == Some(alias));
    best.extend(others);
    Sandbox { netns: Some(netns.id), name, owners: best.iter().filter_map(|alias| alias.parse().ok()).collect() }
}

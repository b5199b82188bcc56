//! What a record is made of, each as plain numbers and texts.

use std::{net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Unreadable, words::Word};
use crate::{
    engine::{self, PartyKey, Sandbox},
    net::{self, Generation, IfIndex, Mac, NetnsId, VlanId},
    time::Timestamp,
};

/// One of those who claim the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Party {
    pub(super) ifindex: u32,
    mac: String,
    port: String,
    netns: Option<Netns>,
    sandbox: Option<String>,
    #[serde(default)]
    owners: Vec<String>,
    #[serde(default)]
    host: bool,
    #[serde(default)]
    external: bool,
    first_seen_ns: u64,
    evidence: String,
    #[serde(default)]
    configured: bool,
    #[serde(default)]
    initial: bool,
    /// With which of the contested addresses it came in.
    address: Ipv4Addr,
    key: Key,
}

/// A network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Netns {
    device: u64,
    inode: u64,
}

/// By what a party is told from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
enum Key {
    Netns { device: u64, inode: u64 },
    Behind { ifindex: u32 },
    Station { ifindex: u32, mac: String },
}

/// A claim as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sighting {
    at_ns: u64,
    address: Ipv4Addr,
    ifindex: u32,
    mac: String,
    /// Null if a kernel logged it as a martian.
    evidence: Option<String>,
}

/// Who keeps the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contest {
    /// The winner's port.
    pub(super) winner: Option<u32>,
    reason: Reason,
    #[serde(default)]
    losers: Vec<Holding>,
}

/// What a loser holds: an address and the lease's generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holding {
    ifindex: u32,
    lease: Option<(Ipv4Addr, u64)>,
}

/// What is to be done about a loser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    ifindex: u32,
    way: Option<String>,
    owner: Option<String>,
    held: Option<String>,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
enum Reason {
    HostAddress,
    External,
    Pinned { owner: String },
    LeaseHolder { owner: String, generation: u64 },
    NewerOfOwner { owner: String, generation: u64 },
    Incumbent { ahead_ns: u64 },
    NoClearOwner,
    SharedOwner { owner: String },
}

/// How far a loser has been moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Eviction {
    /// The loser's port.
    pub(super) ifindex: u32,
    #[serde(default = "readdress")]
    way: String,
    owner: Option<String>,
    #[serde(default)]
    strikes: u32,
    #[serde(default)]
    began_ns: u64,
    failed_at_ns: Option<u64>,
    step: String,
    lease: Option<Lease>,
    #[serde(default)]
    taken: Vec<Taken>,
    failure: Option<String>,
    #[serde(default)]
    attempts: u8,
}

/// The way of whoever wrote before there were others.
fn readdress() -> String {
    engine::Way::Readdress.as_str().to_owned()
}

/// A step that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    step: String,
    at_ns: u64,
}

/// A row of the allocator's book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    bridge: String,
    vlan: Option<u16>,
    address: Ipv4Addr,
    owner: String,
    interface: Option<String>,
    generation: u64,
    state: String,
    replaces: Option<Ipv4Addr>,
}

impl From<&engine::Party> for Party {
    fn from(party: &engine::Party) -> Self {
        let engine::Party {
            station,
            port_name,
            sandbox: Sandbox { netns, name, owners },
            is_host,
            is_external,
            first_seen,
            evidence,
            configured,
            initial,
            address,
            key,
        } = party;
        Self {
            ifindex: station.port.get(),
            mac: station.mac.to_string(),
            port: port_name.clone(),
            netns: netns.map(|NetnsId { device, inode }| Netns { device, inode }),
            sandbox: name.clone(),
            owners: owners.iter().map(ToString::to_string).collect(),
            host: *is_host,
            external: *is_external,
            first_seen_ns: first_seen.as_nanos(),
            evidence: evidence.word().to_owned(),
            configured: *configured,
            initial: *initial,
            address: *address,
            key: (*key).into(),
        }
    }
}

impl Party {
    pub(super) fn restored(&self) -> Result<engine::Party, Unreadable> {
        let netns = self.netns.map(|Netns { device, inode }| NetnsId { device, inode });
        let owners = self.owners.iter().map(|owner| text("owner", owner)).collect::<Result<_, _>>()?;
        Ok(engine::Party {
            station: station(self.ifindex, &self.mac)?,
            port_name: self.port.clone(),
            sandbox: Sandbox { netns, name: self.sandbox.clone(), owners },
            is_host: self.host,
            is_external: self.external,
            first_seen: Timestamp::from_nanos(self.first_seen_ns),
            evidence: Word::read(&self.evidence)?,
            configured: self.configured,
            initial: self.initial,
            address: self.address,
            key: self.key.restored()?,
        })
    }
}

impl From<PartyKey> for Key {
    fn from(key: PartyKey) -> Self {
        match key {
            PartyKey::Netns(NetnsId { device, inode }) => Self::Netns { device, inode },
            PartyKey::Behind(port) => Self::Behind { ifindex: port.get() },
            PartyKey::Station(station) => Self::Station { ifindex: station.port.get(), mac: station.mac.to_string() },
        }
    }
}

impl Key {
    fn restored(&self) -> Result<PartyKey, Unreadable> {
        Ok(match self {
            Self::Netns { device, inode } => PartyKey::Netns(NetnsId { device: *device, inode: *inode }),
            Self::Behind { ifindex } => PartyKey::Behind(port(*ifindex)?),
            Self::Station { ifindex, mac } => PartyKey::Station(station(*ifindex, mac)?),
        })
    }
}

impl From<&engine::Sighting> for Sighting {
    fn from(sighting: &engine::Sighting) -> Self {
        let engine::Sighting { at, address, station, evidence } = *sighting;
        Self {
            at_ns: at.as_nanos(),
            address,
            ifindex: station.port.get(),
            mac: station.mac.to_string(),
            evidence: evidence.map(|evidence| evidence.word().to_owned()),
        }
    }
}

impl Sighting {
    pub(super) fn restored(&self) -> Result<engine::Sighting, Unreadable> {
        Ok(engine::Sighting {
            at: Timestamp::from_nanos(self.at_ns),
            address: self.address,
            station: station(self.ifindex, &self.mac)?,
            evidence: self.evidence.as_deref().map(Word::read).transpose()?,
        })
    }
}

impl From<&engine::Contest> for Contest {
    fn from(contest: &engine::Contest) -> Self {
        let engine::Contest { winner, reason, losers } = contest;
        let losers = losers.iter().map(Into::into).collect();
        Self { winner: winner.map(IfIndex::get), reason: reason.into(), losers }
    }
}

impl Contest {
    pub(super) fn restored(&self) -> Result<engine::Contest, Unreadable> {
        let losers = self.losers.iter().map(Holding::restored).collect::<Result<_, _>>()?;
        Ok(engine::Contest { winner: self.winner.map(port).transpose()?, reason: self.reason.restored()?, losers })
    }
}

impl From<&engine::Holding> for Holding {
    fn from(holding: &engine::Holding) -> Self {
        let engine::Holding { port, lease } = *holding;
        Self { ifindex: port.get(), lease: lease.map(|(address, generation)| (address, generation.0)) }
    }
}

impl Holding {
    fn restored(&self) -> Result<engine::Holding, Unreadable> {
        let lease = self.lease.map(|(address, generation)| (address, Generation(generation)));
        Ok(engine::Holding { port: port(self.ifindex)?, lease })
    }
}

impl From<&engine::Plan> for Plan {
    fn from(plan: &engine::Plan) -> Self {
        let engine::Plan { port, way, owner, held } = plan;
        Self {
            ifindex: port.get(),
            way: way.map(|way| way.word().to_owned()),
            owner: owner.as_ref().map(ToString::to_string),
            held: held.map(|held| held.word().to_owned()),
        }
    }
}

impl Plan {
    pub(super) fn restored(&self) -> Result<engine::Plan, Unreadable> {
        Ok(engine::Plan {
            port: port(self.ifindex)?,
            way: self.way.as_deref().map(Word::read).transpose()?,
            owner: self.owner.as_deref().map(|owner| text("owner", owner)).transpose()?,
            held: self.held.as_deref().map(Word::read).transpose()?,
        })
    }
}

impl From<&engine::Reason> for Reason {
    fn from(reason: &engine::Reason) -> Self {
        use engine::Reason as Of;
        match reason {
            Of::HostAddress => Self::HostAddress,
            Of::External => Self::External,
            Of::Pinned { owner } => Self::Pinned { owner: owner.to_string() },
            Of::LeaseHolder { owner, generation } => {
                Self::LeaseHolder { owner: owner.to_string(), generation: generation.0 }
            }
            Of::NewerOfOwner { owner, generation } => {
                Self::NewerOfOwner { owner: owner.to_string(), generation: generation.0 }
            }
            Of::Incumbent { ahead } => Self::Incumbent { ahead_ns: ahead.as_nanos() },
            Of::NoClearOwner => Self::NoClearOwner,
            Of::SharedOwner { owner } => Self::SharedOwner { owner: owner.to_string() },
        }
    }
}

impl Reason {
    fn restored(&self) -> Result<engine::Reason, Unreadable> {
        use engine::Reason as Of;
        let owner = |owner: &String| text("owner", owner);
        Ok(match self {
            Self::HostAddress => Of::HostAddress,
            Self::External => Of::External,
            Self::Pinned { owner: of } => Of::Pinned { owner: owner(of)? },
            Self::LeaseHolder { owner: of, generation } => {
                Of::LeaseHolder { owner: owner(of)?, generation: Generation(*generation) }
            }
            Self::NewerOfOwner { owner: of, generation } => {
                Of::NewerOfOwner { owner: owner(of)?, generation: Generation(*generation) }
            }
            Self::Incumbent { ahead_ns } => {
                Of::Incumbent { ahead: Timestamp::from_nanos(*ahead_ns).since(Timestamp::default()) }
            }
            Self::NoClearOwner => Of::NoClearOwner,
            Self::SharedOwner { owner: of } => Of::SharedOwner { owner: owner(of)? },
        })
    }
}

impl From<(&IfIndex, &engine::Eviction)> for Eviction {
    fn from((port, eviction): (&IfIndex, &engine::Eviction)) -> Self {
        let engine::Eviction { way, owner, strikes, step, lease, began, taken, failure, attempts, failed_at, .. } =
            eviction;
        let of_step = |(step, at): &(engine::Step, Timestamp)| Taken { step: step.word().into(), at_ns: at.as_nanos() };
        Self {
            ifindex: port.get(),
            way: way.word().to_owned(),
            owner: owner.as_ref().map(ToString::to_string),
            strikes: *strikes,
            began_ns: began.as_nanos(),
            failed_at_ns: failed_at.map(Timestamp::as_nanos),
            step: step.word().to_owned(),
            lease: lease.as_ref().map(Into::into),
            taken: taken.iter().map(of_step).collect(),
            failure: failure.clone(),
            attempts: *attempts,
        }
    }
}

impl Eviction {
    pub(super) fn restored(&self) -> Result<(IfIndex, engine::Eviction), Unreadable> {
        let of_step =
            |taken: &Taken| Ok::<_, Unreadable>((Word::read(&taken.step)?, Timestamp::from_nanos(taken.at_ns)));
        let owner = self.owner.as_deref().map(|owner| text("owner", owner)).transpose()?;
        let began = Timestamp::from_nanos(self.began_ns);
        let eviction = engine::Eviction {
            strikes: self.strikes,
            step: Word::read(&self.step)?,
            lease: self.lease.as_ref().map(Lease::restored).transpose()?,
            taken: self.taken.iter().map(of_step).collect::<Result<_, _>>()?,
            failure: self.failure.clone(),
            attempts: self.attempts,
            failed_at: self.failed_at_ns.map(Timestamp::from_nanos),
            ..engine::Eviction::new(Word::read(&self.way)?, owner, began)
        };
        Ok((port(self.ifindex)?, eviction))
    }
}

impl From<&net::Lease> for Lease {
    fn from(lease: &net::Lease) -> Self {
        let net::Lease { domain, address, owner, interface, generation, state, replaces } = lease;
        Self {
            bridge: domain.bridge.to_string(),
            vlan: domain.vlan.map(VlanId::get),
            address: *address,
            owner: owner.to_string(),
            interface: interface.map(|name| name.to_string()),
            generation: generation.0,
            state: state.word().to_owned(),
            replaces: *replaces,
        }
    }
}

impl Lease {
    fn restored(&self) -> Result<net::Lease, Unreadable> {
        Ok(net::Lease {
            domain: domain(&self.bridge, self.vlan)?,
            address: self.address,
            owner: text("owner", &self.owner)?,
            interface: self.interface.as_deref().map(|name| text("interface", name)).transpose()?,
            generation: Generation(self.generation),
            state: Word::read(&self.state)?,
            replaces: self.replaces,
        })
    }
}

pub(super) fn domain(bridge: &str, vlan: Option<u16>) -> Result<net::Domain, Unreadable> {
    let tag = |id| VlanId::new(id).ok_or_else(|| Unreadable::no("VLAN", id));
    Ok(net::Domain { bridge: text("bridge", bridge)?, vlan: vlan.map(tag).transpose()? })
}

fn station(ifindex: u32, mac: &str) -> Result<net::Station, Unreadable> {
    Ok(net::Station { port: port(ifindex)?, mac: text::<Mac>("hardware address", mac)? })
}

fn port(ifindex: u32) -> Result<IfIndex, Unreadable> {
    IfIndex::new(ifindex).ok_or_else(|| Unreadable::no("interface index", ifindex))
}

fn text<T: FromStr>(what: &'static str, text: &str) -> Result<T, Unreadable> {
    text.parse().map_err(|_| Unreadable::no(what, text))
}

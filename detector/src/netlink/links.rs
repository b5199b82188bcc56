//! Bridges, their ports, and interfaces, as rtnetlink describes them.

use netlink_packet_core::DecodeError;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoKind, InfoPortKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage},
};
use rustix::io::Errno;

use super::{Error, netns::Nsid, route::Route};
use crate::net::{BridgeName, IfIndex, Ipv4Net, Mac};

/// A bridge in the agent's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its index.
    pub index: IfIndex,
    /// Its name.
    pub name: BridgeName,
    /// Its own hardware address.
    pub mac: Mac,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
}

/// A port of a bridge, in the agent's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its index.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// The hardware address of this end, not of what is behind it.
    pub mac: Mac,
    /// The bridge that it belongs to.
    pub bridge: IfIndex,
    /// What it is.
    pub kind: PortKind,
    /// The other end, if that is in another network namespace.
    pub peer: Option<Peer>,
}

/// What a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortKind {
    /// One end of a veth pair.
    Veth,
    /// A tap: a virtual machine's end is a file, not an interface.
    Tap,
    /// Anything else: a network card, a VLAN, a tunnel.
    Other,
}

/// The other end of a veth, in another network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The agent's id for that namespace (`IFLA_LINK_NETNSID`).
    pub nsid: Nsid,
    /// The interface's index there (`IFLA_LINK`); it means nothing here.
    pub index: IfIndex,
}

/// An interface in some network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index in that namespace.
    pub index: IfIndex,
    /// Its name there.
    pub name: String,
    /// Its hardware address; zero if it is not Ethernet.
    pub mac: Mac,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// Its IPv4 addresses with their prefix lengths, primary ones first, as the kernel lists them.
    pub addresses: Vec<Ipv4Net>,
}

impl Bridge {
    /// The bridge that `link` describes, if it is one.
    pub(super) fn of(link: &LinkMessage) -> Option<Self> {
        (kind(link) == Some(&InfoKind::Bridge)).then_some(())?;
        Some(Self { index: index(link)?, name: name(link)?.parse().ok()?, mac: mac(link), up: is_up(link) })
    }
}

impl Port {
    /// The port that `link` describes, if it belongs to a bridge.
    pub(super) fn of(link: &LinkMessage) -> Option<Self> {
        link_info(link).find(|info| matches!(info, LinkInfo::PortKind(InfoPortKind::Bridge)))?;
        let kind = PortKind::of(link);
        Some(Self {
            index: index(link)?,
            name: name(link)?.to_owned(),
            mac: mac(link),
            bridge: master(link)?,
            kind,
            peer: (kind == PortKind::Veth).then(|| peer(link)).flatten(),
        })
    }
}

impl PortKind {
    fn of(link: &LinkMessage) -> Self {
        match kind(link) {
            Some(InfoKind::Veth) => Self::Veth,
            Some(InfoKind::Tun) => Self::Tap,
            _ => Self::Other,
        }
    }
}

impl Interface {
    /// The interface that `link` describes, with `addresses`.
    fn of(link: &LinkMessage, addresses: Vec<Ipv4Net>) -> Option<Self> {
        let name = name(link)?.to_owned();
        Some(Self { index: index(link)?, name, mac: mac(link), up: is_up(link), addresses })
    }
}

/// Asks for the bridge called `bridge`.
pub(super) async fn bridge(route: &mut Route, bridge: BridgeName) -> Result<Bridge, Error> {
    let mut request = request();
    request.attributes.push(LinkAttribute::IfName(bridge.to_string()));
    match one(route, "read the bridge", request).await {
        Err(error) if error.errno() == Some(Errno::NODEV) => Err(Error::NoBridge(bridge)),
        Err(error) => Err(error),
        Ok(link) => Bridge::of(&link).ok_or(Error::NotABridge(bridge)),
    }
}

/// Asks for the ports of the bridge with the index `bridge`.
pub(super) async fn ports(route: &mut Route, bridge: IfIndex) -> Result<Vec<Port>, Error> {
    let mut request = request();
    request.attributes.push(LinkAttribute::Controller(bridge.get()));
    let answers = route.dump("list the bridge's ports", RouteNetlinkMessage::GetLink(request)).await?;
    // The kernel leaves the filter out where it is too old for it.
    Ok(answers.iter().filter_map(link).filter_map(Port::of).filter(|port| port.bridge == bridge).collect())
}

/// Asks for every bridge and every port of one.
pub(super) async fn bridges_and_ports(route: &mut Route) -> Result<(Vec<Bridge>, Vec<Port>), Error> {
    let answers = route.dump("list all links", RouteNetlinkMessage::GetLink(request())).await?;
    let links: Vec<_> = answers.iter().filter_map(link).collect();
    Ok((links.iter().copied().filter_map(Bridge::of).collect(), links.iter().copied().filter_map(Port::of).collect()))
}

/// Asks for every interface, with its addresses.
pub(super) async fn interfaces(route: &mut Route) -> Result<Vec<Interface>, Error> {
    let answers = route.dump("list all links", RouteNetlinkMessage::GetLink(request())).await?;
    let addresses = super::addresses::all(route).await?;
    let of = |link: &LinkMessage| {
        let own = addresses.iter().filter(|(at, _)| Some(*at) == index(link)).map(|(_, network)| *network);
        Interface::of(link, own.collect())
    };
    Ok(answers.iter().filter_map(link).filter_map(of).collect())
}

/// Asks for the interface with the index `interface`, and its addresses.
pub(super) async fn interface(route: &mut Route, interface: IfIndex) -> Result<Interface, Error> {
    let mut request = request();
    request.header.index = interface.get();
    let link = match one(route, "read the interface", request).await {
        Err(error) if error.errno() == Some(Errno::NODEV) => return Err(Error::NoInterface(interface)),
        other => other?,
    };
    let addresses = super::addresses::networks(route, interface).await?;
    Interface::of(&link, addresses).ok_or(Error::NoInterface(interface))
}

async fn one(route: &mut Route, what: &'static str, request: LinkMessage) -> Result<LinkMessage, Error> {
    match route.one(what, RouteNetlinkMessage::GetLink(request)).await? {
        Some(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        _ => Err(Error::Undecodable { what, source: DecodeError::from("no link in it") }),
    }
}

/// Statistics are most of what describes a link, and of no use here.
fn request() -> LinkMessage {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    request
}

fn link(message: &RouteNetlinkMessage) -> Option<&LinkMessage> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    }
}

/// Whether the message is about the link itself, not about what an address family (the bridge's own messages about its
/// ports have `AF_BRIDGE`) thinks of it.
pub(super) fn is_plain(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Unspec
}

/// The link's index.
pub(super) fn index(link: &LinkMessage) -> Option<IfIndex> {
    IfIndex::new(link.header.index)
}

/// The index of the link's master: a port's bridge.
pub(super) fn master(link: &LinkMessage) -> Option<IfIndex> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => IfIndex::new(*index),
        _ => None,
    })
}

/// The link's hardware address; zero if it has none of six bytes.
pub(super) fn mac(link: &LinkMessage) -> Mac {
    let address = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    });
    address.map_or(Mac::ZERO, Mac)
}

/// Whether the link is set up.
pub(super) fn is_up(link: &LinkMessage) -> bool {
    link.header.flags.contains(LinkFlags::Up)
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn peer(link: &LinkMessage) -> Option<Peer> {
    let nsid = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkNetNsId(nsid) if *nsid >= 0 => Some(Nsid(*nsid)),
        _ => None,
    })?;
    let index = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) => IfIndex::new(*index),
        _ => None,
    })?;
    Some(Peer { nsid, index })
}

fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    link_info(link).find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

fn link_info(link: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    link.attributes.iter().flat_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.as_slice(),
        _ => &[],
    })
}

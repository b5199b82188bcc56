//! Bridges, their ports, and interfaces, as rtnetlink describes them.

use netlink_packet_core::DecodeError;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecInet, AfSpecUnspec, InfoBridge, InfoData, InfoKind, InfoPortKind, InfoVlan, LinkAttribute,
        LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State,
    },
};
use rustix::io::Errno;

use super::{Error, netns::Nsid, route::Route};
use crate::net::{BridgeName, IfIndex, Ipv4Net, Mac, VlanId};

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
    /// Whether it keeps VLANs apart (`vlan_filtering`). Where it does not, a tag changes nothing for it, and all untagged
    /// frames are in one domain.
    pub vlan_filtering: bool,
    /// The VLAN that its own untagged frames go into (`bridge vlan … self`). None if it filters no VLANs, if it lets no
    /// untagged frame in, and in [events](super::Event), which do not tell.
    pub pvid: Option<VlanId>,
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
    /// The VLAN that untagged frames from it go into. None if its bridge filters no VLANs, if it lets no untagged frame in,
    /// and in [events](super::Event), which do not tell: [`Host::survey_port`](super::Host::survey_port) does.
    pub pvid: Option<VlanId>,
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

/// A VLAN device of the host on top of a bridge, such as `rt0.20`: the host itself in a tagged domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanDevice {
    /// The VLAN that its frames are tagged with.
    pub vlan: VlanId,
    /// The device. Its addresses' changes are told of under its own index.
    pub interface: Interface,
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
        Some(Self {
            index: index(link)?,
            name: name(link)?.parse().ok()?,
            mac: mac(link),
            up: is_up(link),
            vlan_filtering: filters_vlans(link),
            pvid: None,
        })
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
            pvid: None,
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
    /// The interface that `link` describes, with what it has of `addresses`.
    pub(super) fn of(link: &LinkMessage, addresses: &[(IfIndex, Ipv4Net)]) -> Option<Self> {
        let index = index(link)?;
        let own = addresses.iter().filter(|(at, _)| *at == index).map(|(_, network)| *network).collect();
        Some(Self { index, name: name(link)?.to_owned(), mac: mac(link), up: is_up(link), addresses: own })
    }
}

/// Whether the interface forwards IPv4 (`IPV4_DEVCONF_FORWARDING`). The kernel tells it with every link.
pub(super) fn forwards(link: &LinkMessage) -> bool {
    let families = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecUnspec(families) => Some(families),
        _ => None,
    });
    let settings = families.flatten().filter_map(|family| match family {
        AfSpecUnspec::Inet(settings) => Some(settings),
        _ => None,
    });
    settings.flatten().any(|setting| matches!(setting, AfSpecInet::DevConf(settings) if settings.forwarding != 0))
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

/// Asks for the link with the index `interface`.
pub(super) async fn at(route: &mut Route, interface: IfIndex) -> Result<LinkMessage, Error> {
    let mut request = request();
    request.header.index = interface.get();
    match one(route, "read the interface", request).await {
        Err(error) if error.errno() == Some(Errno::NODEV) => Err(Error::NoInterface(interface)),
        link => link,
    }
}

/// Asks for the link that is called `name` in the socket's namespace.
pub(super) async fn called(route: &mut Route, name: &str) -> Result<LinkMessage, Error> {
    let mut request = request();
    request.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match one(route, "read the interface", request).await {
        Err(error) if error.errno() == Some(Errno::NODEV) => Err(Error::NoLinkCalled(name.to_owned())),
        link => link,
    }
}

/// Asks for the VLAN devices on top of the interface with the index `below`, with their addresses.
pub(super) async fn vlan_devices(route: &mut Route, below: IfIndex) -> Result<Vec<VlanDevice>, Error> {
    let mut request = request();
    request.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan)]));
    let answers = route.dump("list the VLAN devices", RouteNetlinkMessage::GetLink(request)).await?;
    let on_top: Vec<_> = answers.iter().filter_map(link).filter(|link| lower(link) == Some(below)).collect();
    if on_top.is_empty() {
        return Ok(Vec::new());
    }
    let addresses = super::addresses::all(route, None).await?;
    let device = |link| Some(VlanDevice { vlan: vlan(link)?, interface: Interface::of(link, &addresses)? });
    Ok(on_top.into_iter().filter_map(device).collect())
}

/// Asks for every bridge and every port of one.
pub(super) async fn bridges_and_ports(route: &mut Route) -> Result<(Vec<Bridge>, Vec<Port>), Error> {
    let links = all(route, None).await?;
    Ok((links.iter().filter_map(Bridge::of).collect(), links.iter().filter_map(Port::of).collect()))
}

/// Asks for every interface, with its addresses.
pub(super) async fn interfaces(route: &mut Route) -> Result<Vec<Interface>, Error> {
    let links = all(route, None).await?;
    let addresses = super::addresses::all(route, None).await?;
    Ok(links.iter().filter_map(|link| Interface::of(link, &addresses)).collect())
}

/// Asks for every link in the socket's own namespace, or in the one that it calls `netns`.
pub(super) async fn all(route: &mut Route, netns: Option<Nsid>) -> Result<Vec<LinkMessage>, Error> {
    let mut request = request();
    request.attributes.extend(netns.map(|Nsid(id)| LinkAttribute::IfNetnsId(id)));
    let answers = route.dump("list all links", RouteNetlinkMessage::GetLink(request)).await?;
    let link = |answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(link).collect())
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

/// Whether frames get through (`IFLA_OPERSTATE`, `Documentation/networking/operstates.rst`).
pub(super) fn carries(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::OperState(State::Up)))
}

/// The link's hardware address, if it is one of Ethernet.
pub(super) fn ethernet(link: &LinkMessage) -> Option<Mac> {
    let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    is_ethernet.then(|| mac(link)).filter(|mac| *mac != Mac::ZERO)
}

/// The VLAN that a VLAN device tags its frames with.
pub(super) fn vlan(link: &LinkMessage) -> Option<VlanId> {
    link_info(link).find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => data.iter().find_map(|data| match data {
            InfoVlan::Id(id) => VlanId::new(*id),
            _ => None,
        }),
        _ => None,
    })
}

/// The interface that the link stands on, if that is in the same namespace.
pub(super) fn lower(link: &LinkMessage) -> Option<IfIndex> {
    let is_elsewhere = link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
    at_the_other_end(link).filter(|_| !is_elsewhere)
}

/// The interface that the link belongs together with, in whatever namespace (`IFLA_LINK`): the other one of a veth pair,
/// or the one below.
pub(super) fn at_the_other_end(link: &LinkMessage) -> Option<IfIndex> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) => IfIndex::new(*index),
        _ => None,
    })
}

/// Whether the link is a bridge that keeps VLANs apart.
pub(super) fn filters_vlans(link: &LinkMessage) -> bool {
    link_info(link).any(|info| match info {
        LinkInfo::Data(InfoData::Bridge(data)) => data.contains(&InfoBridge::VlanFiltering(true)),
        _ => false,
    })
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
    Some(Peer { nsid, index: at_the_other_end(link)? })
}

/// What kind of link it is.
pub(super) fn kind(link: &LinkMessage) -> Option<&InfoKind> {
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

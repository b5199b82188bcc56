//! Sandboxes to be thrown away: what a fire drill plants behind a bridge, and takes away again.
//!
//! All of one hangs on a name in `/run/netns`, as `ip netns add` makes it: without the name the kernel takes the namespace,
//! and with it both ends of its veth. So whoever is killed leaves nothing behind but a name, and all of these begin alike.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use netlink_packet_core::NLM_F_EXCL;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use nix::sched::{CloneFlags, unshare};
use rustix::{
    io::Errno,
    mount::{UnmountFlags, mount_bind, unmount},
};

use super::{
    Error, Events,
    error::already,
    links,
    netns::{self, NetnsFile},
    route::Route,
};
use crate::{
    capture::FrameSender,
    net::{ArpPacket, BridgeName, IfIndex, IfName, Ipv4Net, Mac},
};

/// Where names of namespaces are (`ip-netns(8)`).
const DIRECTORY: &str = "/run/netns";
/// What every name begins with. Others are not made here, and never removed.
pub const THROWAWAY_PREFIX: &str = "dupip-drill-";
/// Its only interface besides the loopback.
const INTERFACE: &str = "eth0";
/// How long a new link may take until it carries; the kernel needs some milliseconds.
const SETTLED: Duration = Duration::from_secs(5);
/// Whether interfaces that are made in the namespace speak IPv6, which nobody asked them to.
const NO_IPV6: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";

/// A sandbox behind a port of a bridge, with one address, in which nothing runs. Goes with the value.
#[derive(Debug)]
pub struct Throwaway {
    name: Name,
    interface: IfIndex,
    mac: Mac,
    address: Ipv4Net,
}

impl Throwaway {
    /// Makes the namespace `name`, which must begin with [`THROWAWAY_PREFIX`], and in it an interface with `address` behind
    /// the port `port`, a new one of `bridge`. It says nothing by itself, and one announcement if it is to `announce` its
    /// address. The kernel answers for the address from then on: when this returns the bridge forwards for the port, unless it
    /// speaks the spanning tree protocol and has not made up its mind.
    ///
    /// # Errors
    /// [`Error::Throwaway`] if the namespace cannot be made, for one because the name is in use; [`Error::NoBridge`] and
    /// [`Error::NotABridge`]; or what kept the kernel from making the interfaces. Nothing is left behind then.
    pub async fn make(
        bridge: BridgeName,
        name: &str,
        port: IfName,
        address: Ipv4Net,
        announce: bool,
    ) -> Result<Self, Error> {
        let name = Name::make(name).await?;
        let netns = NetnsFile::open(&name.0)?;
        let mut host = Route::open().map_err(Error::Open)?;
        let mut events = Events::open()?;
        let port = plug_in(&mut host, bridge, port, &netns).await?;
        let (interface, mac) = set_up(&netns).await?;
        let carries = tokio::time::timeout(SETTLED, until_it_carries(&mut host, &mut events, port)).await;
        carries.unwrap_or_else(|_| {
            Err(Error::Throwaway { path: name.0.clone(), source: io::ErrorKind::TimedOut.into() })
        })?;
        let sender = netns::inside(&netns, FrameSender::open).await?.map_err(Error::Announce)?;
        give(&netns, interface, address).await?;
        let made = Self { name, interface, mac, address };
        if announce {
            made.announce_by(&sender)?;
        }
        Ok(made)
    }

    /// The hardware address that goes with its address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Says once to everybody that the address is its own (a gratuitous ARP reply).
    ///
    /// # Errors
    /// [`Error::Enter`] if we are not let in, [`Error::Announce`] if the frame does not go out.
    pub async fn announce(&self) -> Result<(), Error> {
        let sender = netns::inside(&NetnsFile::open(&self.name.0)?, FrameSender::open).await?;
        self.announce_by(&sender.map_err(Error::Announce)?)
    }

    /// At once, since whoever heals may have moved it away from the address a few milliseconds after it came.
    fn announce_by(&self, sender: &FrameSender) -> Result<(), Error> {
        let frame = ArpPacket::announcement(self.mac, self.address.addr()).broadcast_frame(None);
        sender.send(self.interface, &frame).map_err(Error::Announce)
    }

    /// Removes it; the port is gone when this returns, which it need not be when the value is only dropped.
    ///
    /// # Errors
    /// What kept the kernel from removing it. The name goes in any case, as far as possible.
    pub async fn remove(self) -> Result<(), Error> {
        self.name.clear_away().await
    }

    /// Removes what others left behind who were killed, and says what it was, by name. To be called when no other drill is
    /// on the way.
    ///
    /// # Errors
    /// The first that kept the kernel from removing one of them; the others are removed all the same.
    pub async fn remove_leftovers() -> Result<Vec<String>, Error> {
        let (mut removed, mut failed) = (Vec::new(), Ok(()));
        for name in leftovers().map_err(|source| Error::Throwaway { path: DIRECTORY.into(), source })? {
            match Name(path_of(&name)?).clear_away().await {
                Ok(()) => removed.push(name),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed.map(|()| removed)
    }
}

/// A name of a namespace that is ours, and with it the namespace.
#[derive(Debug)]
struct Name(PathBuf);

impl Name {
    /// A new namespace of that name.
    async fn make(name: &str) -> Result<Self, Error> {
        let path = path_of(name)?;
        let name = path.clone();
        let made = netns::aside(move || bind_new(&name)).await.and_then(|made| made);
        // Only what was made is to be removed: an older one of this name is somebody else's.
        made.map(|()| Self(path.clone())).map_err(|source| Error::Throwaway { path, source })
    }

    /// Takes away what is in it, and then itself.
    async fn clear_away(self) -> Result<(), Error> {
        let unplugged = match NetnsFile::open(&self.0) {
            Ok(netns) => unplug(&netns).await,
            // Whoever was to make it was killed before there was more than a file.
            Err(_) => Ok(()),
        };
        let unbound = unbind(&self.0).map_err(|source| Error::Throwaway { path: self.0.clone(), source });
        unplugged.and(unbound)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // What is left then is found as a leftover.
        let _ = unbind(&self.0);
    }
}

/// Where `name` is, if it is one for what is thrown away.
fn path_of(name: &str) -> Result<PathBuf, Error> {
    let path = Path::new(DIRECTORY).join(name);
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, "not a name for what is thrown away");
    match name.starts_with(THROWAWAY_PREFIX) && !name.contains('/') {
        true => Ok(path),
        false => Err(Error::Throwaway { path, source: refused() }),
    }
}

/// Names of namespaces that a drill made.
fn leftovers() -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.filter(|name| name.as_ref().map_or(true, |name| name.starts_with(THROWAWAY_PREFIX))).collect()
}

/// Moves the calling thread, which is to end with this, into a new namespace, and binds that to `path`.
fn bind_new(path: &Path) -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    OpenOptions::new().write(true).create_new(true).open(path)?;
    let bound = unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from).and_then(|()| {
        // Where there is no IPv6, or settings are for reading only, it says a word more than it should; no harm in that.
        let _ = fs::write(NO_IPV6, "1");
        Ok(mount_bind("/proc/thread-self/ns/net", path)?)
    });
    bound.inspect_err(|_| drop(fs::remove_file(path)))
}

fn unbind(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        // `EINVAL`: nothing is mounted there.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts one end of a new veth into the bridge, as `port`, and the other into the namespace.
async fn plug_in(host: &mut Route, bridge: BridgeName, port: IfName, netns: &NetnsFile) -> Result<IfIndex, Error> {
    let bridge = links::bridge(host, bridge).await?;
    let mut inner = LinkMessage::default();
    inner.attributes.push(LinkAttribute::IfName(INTERFACE.to_owned()));
    inner.attributes.push(LinkAttribute::NetNsFd(netns.raw()));
    let mut outer = up(LinkMessage::default());
    outer.attributes.push(LinkAttribute::IfName(port.to_string()));
    outer.attributes.push(LinkAttribute::Controller(bridge.index.get()));
    let veth = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner)));
    outer.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), veth]));
    host.create("make a port for the drill", RouteNetlinkMessage::NewLink(outer), NLM_F_EXCL).await?;
    let made = links::called(host, port.as_str()).await?;
    links::index(&made).ok_or_else(|| Error::NoLinkCalled(port.to_string()))
}

/// The kernel notices by and by that a link carries, and only then the bridge lets frames through
/// (`br_port_carrier_check` in `net/bridge/br_if.c`).
async fn until_it_carries(host: &mut Route, events: &mut Events, port: IfIndex) -> Result<(), Error> {
    while !links::carries(&links::at(host, port).await?) {
        events.next().await?;
    }
    Ok(())
}

/// Sets the interface up, before it has an address: the other way round the kernel announces that if it is set to
/// (`arp_notify` in `ip-sysctl.rst`).
async fn set_up(netns: &NetnsFile) -> Result<(IfIndex, Mac), Error> {
    let mut route = netns::enter(netns).await?;
    let link = links::called(&mut route, INTERFACE).await?;
    let mac = links::mac(&link);
    for index in [1, link.header.index] {
        let mut link = up(LinkMessage::default());
        link.header.index = index;
        route.change("set the drill's interface up", RouteNetlinkMessage::SetLink(link), 0).await?;
    }
    links::index(&link).map(|interface| (interface, mac)).ok_or_else(|| Error::NoLinkCalled(INTERFACE.to_owned()))
}

async fn give(netns: &NetnsFile, interface: IfIndex, address: Ipv4Net) -> Result<(), Error> {
    let mut route = netns::enter(netns).await?;
    let mut new = AddressMessage::default();
    new.header.family = AddressFamily::Inet;
    new.header.index = interface.get();
    new.header.prefix_len = address.prefix_len();
    new.attributes.push(AddressAttribute::Local(address.addr().into()));
    new.attributes.push(AddressAttribute::Address(address.addr().into()));
    route.create("give the drill its address", RouteNetlinkMessage::NewAddress(new), NLM_F_EXCL).await.map(drop)
}

/// Takes the veth away, if there is one: with one end goes the other, and the port is gone when this returns.
async fn unplug(netns: &NetnsFile) -> Result<(), Error> {
    let mut route = netns::enter(netns).await?;
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(INTERFACE.to_owned()));
    let request = RouteNetlinkMessage::DelLink(link);
    already(Errno::NODEV, route.change("remove the drill's port", request, 0).await)
}

fn up(mut link: LinkMessage) -> LinkMessage {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

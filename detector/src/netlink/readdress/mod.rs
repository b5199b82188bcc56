//! Giving a sandbox's interface another address, with everything that hung on the old one.
//!
//! Deleting an interface's last address drops its routes, the default route first of all; deleting a primary address
//! drops those secondary to it, unless a sysctl says otherwise (`__inet_del_ifa` in `net/ipv4/devinet.c`). So before
//! the old address goes, the new one and each address that would go with the old one are *held*: put on the interface
//! a second time with a longer prefix, which makes each a primary address of its own. The list is then never empty, no
//! address is ever missing, and no route has to be made again: the default route stands all the time, and no sysctl is
//! touched.
//!
//! What is held bears a label that says so and all else that the address had, so the kernel itself remembers what is
//! left to do: whoever kills dupip at any point and runs [`readdress`] again gets the same outcome. Only a label of an
//! operator's own is not kept over that.

mod addresses;
mod routes;

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_EXCL};
use netlink_packet_route::{RouteNetlinkMessage, address::AddressMessage, route::RouteMessage};
use rustix::io::Errno;

use self::addresses::{Hold, held, is_held};
use super::{
    Error,
    error::already,
    links,
    netns::{self, NetnsFile},
    route::Route,
};
use crate::net::{IfIndex, Ipv4Net};

/// Which address takes the place of which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readdress {
    /// The address that goes.
    pub old: Ipv4Addr,
    /// The address that comes.
    pub new: Ipv4Addr,
    /// The prefix length of both, in bits.
    pub prefix_len: u8,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readdressed {
    /// Nothing: the new address is there and the old one is not.
    AlreadyDone,
    /// The new address is in the old one's place.
    Moved {
        /// Routes that had the old address for their source and have the new one now.
        rewritten: usize,
        /// Routes that were gone after the change, against all that is known of the kernel, and were made again.
        restored: usize,
    },
}

/// Why an interface did not get its new address. Calling again goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReaddressError {
    /// Neither address is there: not the interface that was meant.
    #[error("interface {interface} has neither {} nor {}; nothing was changed", net(change, change.old), net(change, change.new))]
    NotConfigured {
        /// The interface, in the sandbox's namespace.
        interface: IfIndex,
        /// What was asked for.
        change: Readdress,
    },
    /// The old address is there with another prefix length.
    #[error("interface {interface} has {found}, not {}; nothing was changed", net(change, change.old))]
    OtherPrefix {
        /// The interface, in the sandbox's namespace.
        interface: IfIndex,
        /// What was asked for.
        change: Readdress,
        /// What is there.
        found: Ipv4Net,
    },
    /// The kernel did not do it.
    #[error(transparent)]
    Netlink(#[from] Error),
}

fn net(change: &Readdress, address: Ipv4Addr) -> String {
    format!("{address}/{}", change.prefix_len)
}

/// Puts `change.new` in the place of `change.old` on the interface with the index `interface` in `netns`, with the same
/// scope, broadcast address, flags and label, and gives every route its source or its way back.
///
/// Idempotent, and safe to be killed at any point and called again with the same `change`. It does not announce the
/// address, and leaves policy rules (`ip rule`) as they are.
///
/// # Errors
/// See [`ReaddressError`].
pub async fn readdress(
    netns: &NetnsFile,
    interface: IfIndex,
    change: Readdress,
) -> Result<Readdressed, ReaddressError> {
    let route = netns::enter(netns).await?;
    match Move::begin(route, interface, change).await? {
        Some(mut change) => change.finish().await,
        None => Ok(Readdressed::AlreadyDone),
    }
}

/// A change of address on its way. Its steps come in the order in which they stand here; each may be repeated.
struct Move {
    route: Route,
    interface: IfIndex,
    change: Readdress,
    /// The interface's addresses as they were at the beginning.
    addresses: Vec<AddressMessage>,
    /// All routes of the namespace that the change could touch, as they were at the beginning.
    routes: Vec<RouteMessage>,
    /// Whether the kernel keeps a route to the address's network by itself, or would if the interface were up.
    connected: bool,
}

impl Move {
    /// Reads what is there; none if nothing is left to do.
    async fn begin(mut route: Route, interface: IfIndex, change: Readdress) -> Result<Option<Self>, ReaddressError> {
        let addresses = super::addresses::list(&mut route, interface).await?;
        let routes = routes::list(&mut route).await?;
        let up = links::is_up(&links::at(&mut route, interface).await?);
        let connected = !up || routes.iter().any(|route| routes::is_connected(route, interface, change));
        let routes = routes.iter().filter_map(|route| routes::to_keep(route, interface, change)).collect();
        let change = Self { route, interface, change, addresses, routes, connected };
        change.is_left_to_do().map(|left| left.then_some(change))
    }

    async fn finish(&mut self) -> Result<Readdressed, ReaddressError> {
        self.hold().await?;
        let rewritten = self.rewrite_routes().await?;
        self.drop_old().await?;
        self.settle().await?;
        self.let_go().await?;
        let restored = self.restore_routes().await?;
        Ok(Readdressed::Moved { rewritten, restored })
    }

    fn is_left_to_do(&self) -> Result<bool, ReaddressError> {
        let Self { interface, change, .. } = *self;
        let networks =
            || self.addresses.iter().filter(|address| !is_held(address)).filter_map(super::addresses::network);
        let has = |address| networks().any(|net| net.addr() == address && net.prefix_len() == change.prefix_len);
        let other = networks().find(|net| net.addr() == change.old && net.prefix_len() != change.prefix_len);
        if let Some(found) = other.filter(|_| change.old != change.new) {
            return Err(ReaddressError::OtherPrefix { interface, change, found });
        }
        let begun = self.addresses.iter().any(is_held);
        match (has(change.old) && change.old != change.new, has(change.new)) {
            (false, false) if !self.holds_new() => Err(ReaddressError::NotConfigured { interface, change }),
            (false, true) => Ok(begun),
            _ => Ok(true),
        }
    }

    /// Step 1: hold the new address, and those that would go with the old one.
    async fn hold(&mut self) -> Result<(), Error> {
        let Some(old) = self.old() else { return Ok(()) };
        let new = held(&self.moved(old), Hold::New);
        let kept: Vec<_> = self.dependants().map(|address| held(address, Hold::Kept)).collect();
        for address in std::iter::once(new).chain(kept) {
            self.add(address).await?;
        }
        Ok(())
    }

    /// Step 2: give each route with the old address for its source the new one; how many there were. The kernel's own
    /// route to the network is among them: deleted with the old address and made with the new one, it would be missing
    /// in between.
    ///
    /// The new route stands before the old one is deleted. It is appended, not put in place: "replace" takes the first
    /// route of the same destination and metric, which may be another one (`fib_table_insert` in `net/ipv4/fib_trie.c`).
    async fn rewrite_routes(&mut self) -> Result<usize, Error> {
        let from_old: Vec<_> =
            self.routes.iter().filter(|route| routes::source(route) == Some(self.change.old)).cloned().collect();
        for route in &from_old {
            self.add_route(routes::with_source(route, self.change.new)).await?;
            let gone = RouteNetlinkMessage::DelRoute(route.clone());
            already(Errno::SRCH, self.route.change("delete a route from the old address", gone, 0).await)?;
        }
        Ok(from_old.len())
    }

    /// Step 3: delete the old address. Those secondary to it go first, so that it is not up to a sysctl whether the
    /// kernel drops them or puts one of them in the old address's place.
    async fn drop_old(&mut self) -> Result<(), Error> {
        let Some(old) = self.old().cloned() else { return Ok(()) };
        let dependants: Vec<_> = self.dependants().cloned().collect();
        for address in dependants.into_iter().chain([old]) {
            self.delete(address).await?;
        }
        Ok(())
    }

    /// Step 4: put the new address where the old one was, and back what was secondary to it.
    async fn settle(&mut self) -> Result<(), Error> {
        let now = super::addresses::list(&mut self.route, self.interface).await?;
        let new = self.old().map(|old| self.moved(old)).or_else(|| self.new_of(&now));
        // Some of them may have been deleted before this began: then only what is held tells of them.
        let held = now.iter().filter_map(|address| self.released(address, Hold::Kept));
        let kept: Vec<_> = self.dependants().cloned().chain(held).collect();
        for address in new.into_iter().chain(kept) {
            self.add(address).await?;
        }
        Ok(())
    }

    /// Step 5: delete what was only held.
    async fn let_go(&mut self) -> Result<(), Error> {
        let now = super::addresses::list(&mut self.route, self.interface).await?;
        for address in now.into_iter().filter(is_held) {
            self.delete(address).await?;
        }
        Ok(())
    }

    /// Step 6: make again what is missing of the routes that were there at the beginning; how many that was. Routes to
    /// what is on the link come first, as the others' gateways are found through them.
    async fn restore_routes(&mut self) -> Result<usize, Error> {
        let Readdress { old, new, .. } = self.change;
        let now: Vec<_> = routes::list(&mut self.route).await?.iter().map(routes::lasting).collect();
        let mut missing: Vec<_> = self.routes.iter().map(|route| routes::moved(route, old, new)).collect();
        missing.retain(|route| !now.contains(route));
        missing.sort_by_key(|route| std::cmp::Reverse(u8::from(route.header.scope)));
        let count = missing.len();
        for route in missing {
            self.add_route(route).await?;
        }
        Ok(count)
    }

    fn old(&self) -> Option<&AddressMessage> {
        let Readdress { old, prefix_len, .. } = self.change;
        self.addresses.iter().find(|address| addresses::is(address, old, prefix_len) && !is_held(address))
    }

    /// The addresses that depend on the old one: secondary to it if it is a primary address.
    fn dependants(&self) -> impl Iterator<Item = &AddressMessage> {
        let old = self.old().filter(|old| !addresses::is_secondary(old));
        self.addresses.iter().filter(move |address| {
            old.is_some_and(|old| addresses::is_secondary_to(address, old))
                && super::addresses::local(address) != Some(self.change.new)
        })
    }

    fn holds_new(&self) -> bool {
        self.addresses.iter().any(|address| self.released(address, Hold::New).is_some())
    }

    /// The new address as it is to be, from what is held of it.
    fn new_of(&self, now: &[AddressMessage]) -> Option<AddressMessage> {
        now.iter().find_map(|address| self.released(address, Hold::New))
    }

    fn released(&self, address: &AddressMessage, hold: Hold) -> Option<AddressMessage> {
        let ours = hold == Hold::Kept || super::addresses::local(address) == Some(self.change.new);
        ours.then(|| addresses::released(address, hold, self.change.prefix_len)).flatten()
    }

    fn moved(&self, old: &AddressMessage) -> AddressMessage {
        addresses::moved(old, self.change, self.connected)
    }

    async fn add(&mut self, address: AddressMessage) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewAddress(address);
        already(Errno::EXIST, self.route.create("add an address in the sandbox", request, NLM_F_EXCL).await)
    }

    async fn delete(&mut self, address: AddressMessage) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelAddress(address);
        already(Errno::ADDRNOTAVAIL, self.route.change("delete an address in the sandbox", request, 0).await)
    }

    async fn add_route(&mut self, route: RouteMessage) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewRoute(route);
        already(Errno::EXIST, self.route.create("add a route in the sandbox", request, NLM_F_APPEND).await)
    }
}

#[cfg(test)]
mod tests;

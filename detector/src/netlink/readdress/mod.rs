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
//!
//! A sandbox that has the new address already, because it put the old one back or never used the new one for it, keeps it
//! as it is and only loses the old one. The way back is the same way: with the addresses swapped everything is as it was,
//! but for a `noprefixroute` flag where somebody had deleted the kernel's own route.

mod addresses;
mod defaults;
mod routes;

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_EXCL};
use netlink_packet_route::{RouteNetlinkMessage, address::AddressMessage, route::RouteMessage};
use rustix::io::Errno;

use self::{
    addresses::{Hold, held, is_held, is_held_as},
    defaults::Defaults,
};
use super::{
    Error,
    addresses::local,
    error::already,
    links,
    netns::{self, NetnsFile},
    route::Route,
};
use crate::{
    net::{IfIndex, Ipv4Net},
    time::Span,
};

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
        /// The longest time, at most, in which a routing table that had a default route had none. Zero if one stood all the
        /// time, as it does unless somebody else takes it away.
        without_default: Span,
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
    let (route, watched) = netns::open_inside(netns, || Ok((Route::open()?, defaults::listen()?))).await?;
    match Move::begin(route, watched, interface, change).await? {
        Some(mut change) => change.finish().await,
        None => Ok(Readdressed::AlreadyDone),
    }
}

/// A change of address on its way. Its steps come in the order in which they stand here; each may be repeated.
struct Move {
    route: Route,
    defaults: Defaults,
    interface: IfIndex,
    change: Readdress,
    /// The interface's addresses as they were at the beginning.
    addresses: Vec<AddressMessage>,
    /// All routes of the namespace that the change could touch, as they were at the beginning.
    routes: Vec<RouteMessage>,
    /// Whether the kernel keeps a route to the address's network by itself, or would if the interface were up.
    connected: bool,
    /// Whether the new address was there before, as one of the sandbox's own.
    new_was_there: bool,
}

impl Move {
    /// Reads what is there; none if nothing is left to do.
    async fn begin(
        mut route: Route,
        heard: netlink_sys::Socket,
        interface: IfIndex,
        change: Readdress,
    ) -> Result<Option<Self>, ReaddressError> {
        let addresses = super::addresses::list(&mut route, interface).await?;
        let all = super::addresses::all(&mut route, None).await?;
        let elsewhere = all.iter().any(|(index, net)| *index != interface && net.addr() == change.old);
        let routes = routes::list(&mut route).await?;
        let defaults = Defaults::standing(heard, &routes);
        let up = links::is_up(&links::at(&mut route, interface).await?);
        let connected = !up || routes.iter().any(|route| routes::is_connected(route, interface, change));
        let routes = routes.iter().filter_map(|route| routes::to_keep(route, interface, change, elsewhere)).collect();
        let is_own = |address: &AddressMessage| !is_held_as(address, Hold::New) && local(address) == Some(change.new);
        let new_was_there = addresses.iter().any(is_own);
        let change = Self { route, defaults, interface, change, addresses, routes, connected, new_was_there };
        change.is_left_to_do().map(|left| left.then_some(change))
    }

    async fn finish(&mut self) -> Result<Readdressed, ReaddressError> {
        self.hold().await?;
        let rewritten = self.rewrite_routes().await?;
        self.drop_old().await?;
        self.settle().await?;
        self.let_go().await?;
        let restored = self.restore_routes().await?;
        Ok(Readdressed::Moved { rewritten, restored, without_default: self.defaults.longest_gap() })
    }

    fn is_left_to_do(&self) -> Result<bool, ReaddressError> {
        let Self { interface, change, .. } = *self;
        let own = || self.addresses.iter().filter(|address| !is_held(address)).filter_map(super::addresses::network);
        let on = |address| own().filter(move |net| net.addr() == address && change.old != change.new);
        let has_old = on(change.old).any(|net| net.prefix_len() == change.prefix_len);
        if let Some(found) = on(change.old).next().filter(|_| !has_old) {
            return Err(ReaddressError::OtherPrefix { interface, change, found });
        }
        let has_new = own().any(|net| net.addr() == change.new);
        match (has_old, has_new) {
            (false, false) if !self.holds_new() => Err(ReaddressError::NotConfigured { interface, change }),
            (false, true) => Ok(self.addresses.iter().any(is_held)),
            _ => Ok(true),
        }
    }

    /// Step 1: hold the new address, and those that would go with the old one.
    async fn hold(&mut self) -> Result<(), Error> {
        let new = self.moved().map(|new| held(&new, Hold::New));
        let kept: Vec<_> = self.dependants().map(|address| held(address, Hold::Kept)).collect();
        for address in new.into_iter().chain(kept) {
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
        let from_old: Vec<_> = self.routes.iter().filter(|route| self.is_from_old(route)).cloned().collect();
        let mut rewritten = 0;
        for route in from_old {
            let Some(after) = self.after(&route) else { continue };
            self.add_route(after).await?;
            self.delete_route(route).await?;
            rewritten += 1;
        }
        Ok(rewritten)
    }

    /// Step 3: delete the old address. Those secondary to it go first, so that it is not up to a sysctl whether the
    /// kernel drops them or puts one of them in the old address's place.
    async fn drop_old(&mut self) -> Result<(), Error> {
        let Some(old) = self.old().cloned() else { return Ok(()) };
        self.defaults.at_risk();
        let dependants: Vec<_> = self.dependants().cloned().collect();
        for address in dependants.into_iter().chain([old]) {
            self.delete(address).await?;
        }
        Ok(())
    }

    /// Step 4: put the new address where the old one was, and back what was secondary to it.
    async fn settle(&mut self) -> Result<(), Error> {
        let now = super::addresses::list(&mut self.route, self.interface).await?;
        let new = self.moved().or_else(|| now.iter().find_map(|address| self.released(address, Hold::New)));
        // Some of them may have been deleted before this began: then only what is held tells of them, and of their order.
        let held = now.iter().filter_map(|address| self.released(address, Hold::Kept));
        let as_it_was = |held: AddressMessage| {
            let is_same = |address: &&AddressMessage| local(address) == local(&held);
            self.dependants().find(is_same).cloned().unwrap_or(held)
        };
        let kept: Vec<_> = held.map(as_it_was).chain(self.dependants().cloned()).collect();
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
        let now: Vec<_> = routes::list(&mut self.route).await?.iter().map(routes::lasting).collect();
        let mut missing: Vec<_> = self.routes.iter().filter_map(|route| self.after(route)).collect();
        missing.retain(|route| !now.contains(route));
        missing.sort_by_key(|route| std::cmp::Reverse(u8::from(route.header.scope)));
        let count = missing.len();
        missing.iter().for_each(|route| self.defaults.found_missing(route));
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
        self.addresses.iter().filter(move |address| old.is_some_and(|old| addresses::is_secondary_to(address, old)))
    }

    fn holds_new(&self) -> bool {
        self.addresses.iter().any(|address| is_held(address) && local(address) == Some(self.change.new))
    }

    fn released(&self, address: &AddressMessage, hold: Hold) -> Option<AddressMessage> {
        let ours = hold == Hold::Kept || local(address) == Some(self.change.new);
        ours.then(|| addresses::released(address, hold, self.change.prefix_len)).flatten()
    }

    /// The new address as it is to be in the old one's place. None if there is none to be made: the old address is gone, or
    /// the sandbox had the new one before and keeps it as it is.
    fn moved(&self) -> Option<AddressMessage> {
        let old = self.old().filter(|_| !self.new_was_there)?;
        Some(addresses::moved(old, self.change, self.connected))
    }

    fn is_from_old(&self, route: &RouteMessage) -> bool {
        routes::source(route) == Some(self.change.old)
    }

    /// What `route` is to be afterwards. None if it is to go with the old address.
    fn after(&self, route: &RouteMessage) -> Option<RouteMessage> {
        match self.is_from_old(route) {
            true => self.source_of(route).map(|source| routes::with_source(route, source)),
            false => Some(route.clone()),
        }
    }

    /// The source, afterwards, of a route that comes from the old address: the new one. The kernel's own route to the old
    /// address's network is another matter if the new address was there before: it goes to the next address of that network,
    /// and is not wanted any more if there is none and the new address has a network of its own.
    fn source_of(&self, route: &RouteMessage) -> Option<Ipv4Addr> {
        let kernels =
            self.old().is_some_and(addresses::has_network) && routes::is_connected(route, self.interface, self.change);
        if !self.new_was_there || !kernels {
            return Some(self.change.new);
        }
        let new = |address: &&AddressMessage| local(address) == Some(self.change.new);
        let has_network = self.addresses.iter().filter(new).any(addresses::has_network);
        self.dependants().find_map(local).or((!has_network).then_some(self.change.new))
    }

    async fn add(&mut self, address: AddressMessage) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewAddress(address);
        let done = self.route.create("add an address in the sandbox", request, NLM_F_EXCL).await;
        self.heard(Errno::EXIST, done)
    }

    async fn delete(&mut self, address: AddressMessage) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelAddress(address);
        let done = self.route.change("delete an address in the sandbox", request, 0).await;
        self.heard(Errno::ADDRNOTAVAIL, done)
    }

    async fn add_route(&mut self, route: RouteMessage) -> Result<(), Error> {
        let request = RouteNetlinkMessage::NewRoute(route);
        let done = self.route.create("add a route in the sandbox", request, NLM_F_APPEND).await;
        self.heard(Errno::EXIST, done)
    }

    async fn delete_route(&mut self, route: RouteMessage) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelRoute(route);
        let done = self.route.change("delete a route from the old address", request, 0).await;
        self.heard(Errno::SRCH, done)
    }

    /// Each change may have taken a default route away, or brought one back.
    fn heard(&mut self, so_already: Errno, done: Result<(), Error>) -> Result<(), Error> {
        self.defaults.hear();
        already(so_already, done)
    }
}

#[cfg(test)]
mod tests;

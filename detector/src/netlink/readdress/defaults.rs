//! How long a namespace was without a default route, as its kernel tells of it (`RTNLGRP_IPV4_ROUTE`).
//!
//! The kernel puts no time on what it tells, and tells before it answers the request that was the cause. So each request is
//! followed by a look at what was told, and whatever is found happened since the look before: a gap is never longer than it
//! is said to be.
//!
//! A route that goes with the last address of an interface, or with its own source, goes without a word
//! (`fib_table_flush` in `net/ipv4/fib_trie.c`). That is found when the routes are compared in the end, and the gap is taken
//! to have begun with the first address that was deleted.

use std::{collections::BTreeMap, io};

use netlink_packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::{super::wire::messages, routes};
use crate::{
    allocator::since_boot,
    time::{Span, Timestamp},
};

/// `RTNLGRP_IPV4_ROUTE` (`include/uapi/linux/rtnetlink.h`).
const ROUTES: u32 = 7;

/// The default routes of a namespace, by routing table.
pub(super) struct Defaults {
    heard: Socket,
    tables: BTreeMap<u32, Table>,
    /// All that happened until then has been heard.
    until: Timestamp,
    /// When the first address was to be deleted.
    at_risk: Option<Timestamp>,
    /// Since when something may have been missed.
    unsure: Option<Timestamp>,
    longest: Span,
}

#[derive(Default)]
struct Table {
    standing: Vec<RouteMessage>,
    /// Since when there is none.
    gap: Option<Timestamp>,
}

/// A socket that hears of the routes of the calling thread's namespace. Open it before they are listed.
pub(super) fn listen() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    socket.bind_auto()?;
    socket.add_membership(ROUTES)?;
    Ok(socket)
}

impl Defaults {
    /// Those among `routes`, and what `heard` tells from then on.
    pub(super) fn standing(heard: Socket, routes: &[RouteMessage]) -> Self {
        let now = since_boot();
        let (tables, longest) = (BTreeMap::new(), Span::ZERO);
        let mut defaults = Self { heard, tables, until: now, at_risk: None, unsure: None, longest };
        routes.iter().filter(|route| is_default(route)).for_each(|route| defaults.came(route, now));
        defaults
    }

    /// From now on addresses are deleted, and routes may go with them.
    pub(super) fn at_risk(&mut self) {
        self.at_risk.get_or_insert_with(since_boot);
    }

    /// Takes in what was told until now.
    pub(super) fn hear(&mut self) {
        let told = std::iter::from_fn(|| told(&self.heard)).collect::<Vec<_>>();
        let now = since_boot();
        for told in told {
            match told {
                Told::Came { route, in_place } => {
                    if in_place {
                        self.table(&route).standing.retain(|other| key(other) != key(&route));
                    }
                    self.came(&route, now);
                }
                Told::Gone(route) => self.gone(&route, self.until),
                Told::Lost => drop(self.unsure.get_or_insert(self.until)),
            }
        }
        self.until = now;
    }

    /// Takes in that `route` is not there, whether that was told or not.
    pub(super) fn found_missing(&mut self, route: &RouteMessage) {
        if is_default(route) {
            self.gone(route, self.at_risk.unwrap_or(self.until));
        }
    }

    /// The longest time, at most, that a table which had a default route was without one.
    pub(super) fn longest_gap(&mut self) -> Span {
        self.hear();
        let open = self.tables.values().filter_map(|table| table.gap).chain(self.unsure);
        open.map(|since| self.until.since(since)).fold(self.longest, Span::max)
    }

    fn came(&mut self, route: &RouteMessage, at: Timestamp) {
        let (lasting, table) = (routes::lasting(route), self.table(route));
        let gap = table.gap.take();
        if !table.standing.contains(&lasting) {
            table.standing.push(lasting);
        }
        self.longest = gap.map(|since| at.since(since)).map_or(self.longest, |gap| self.longest.max(gap));
    }

    fn gone(&mut self, route: &RouteMessage, since: Timestamp) {
        let (lasting, table) = (routes::lasting(route), self.table(route));
        let before = table.standing.len();
        table.standing.retain(|standing| *standing != lasting);
        if before > 0 && table.standing.is_empty() {
            table.gap = Some(since);
        }
    }

    fn table(&mut self, route: &RouteMessage) -> &mut Table {
        self.tables.entry(routes::table(route)).or_default()
    }
}

/// What was told of a default route.
enum Told {
    Came {
        route: RouteMessage,
        /// Whether another one went for it, of which nothing more is told.
        in_place: bool,
    },
    Gone(RouteMessage),
    /// There was more than the socket could hold, or something that cannot be read.
    Lost,
}

/// What a datagram tells; none if there is no datagram. Of each change the kernel makes one of its own.
fn told(heard: &Socket) -> Option<Told> {
    loop {
        let datagram = match heard.recv_from_full() {
            Ok((datagram, _)) => datagram,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Some(Told::Lost),
        };
        match messages(&datagram).next().and_then(|message| message.map_or(Some(Told::Lost), of)) {
            None => {}
            told => return told,
        }
    }
}

fn of(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Told> {
    let in_place = message.header.flags & NLM_F_REPLACE != 0;
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) if is_default(&route) => {
            Some(Told::Came { route, in_place })
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) if is_default(&route) => {
            Some(Told::Gone(route))
        }
        _ => None,
    }
}

fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

/// What two routes have in common if one can be put in the place of the other.
fn key(route: &RouteMessage) -> (u8, Option<u32>) {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    (route.header.tos, metric)
}

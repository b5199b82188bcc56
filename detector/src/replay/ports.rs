//! Whose frame it is that was recorded.
//!
//! The agent's tap sits where frames come in, so that the port names the sender. Recordings are not so kind: `tcpdump` on
//! a port has what goes out of it besides, a copy of what came in by another port. The first time that a frame is seen
//! says where it came from; what follows within moments at other places are copies, and are not judged.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
};

use super::{
    link::{Direction, Head},
    recording::{Frame, Place, Recording},
};
use crate::{
    engine::{Bridge, Port, Sandbox},
    net::{BridgeName, IfIndex, Ipv4Net, Mac},
    time::{Span, Timestamp},
};

/// How long after a frame its copies are on their way through a bridge, at most.
const ON_THE_WAY: Span = Span::from_millis(10);
/// Frames that are remembered to know their copies by; in a flood the oldest go.
const REMEMBERED: usize = 1 << 16;
/// The most ports. A bridge has 1,024; where each hardware address is one, a flood can have any number.
const MOST_PORTS: u32 = 1 << 14;
/// The bridge device's number: recordings have none that would serve all files.
const HOST: IfIndex = IfIndex::LOWEST;

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    /// The host, by the bridge device.
    Host,
    /// Whoever is behind a port that was recorded.
    Port(usize, Place),
    /// Whoever has a hardware address, at a port that is not known.
    Station(Mac),
}

/// What becomes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It came in by this port; whether that is new, and who is behind it if somebody has said so.
    Port(IfIndex),
    /// As `Port`, and nobody has heard of the port before.
    NewPort(Port, Sandbox),
    /// It is a copy of a frame that has been judged.
    Copy,
    /// There are too many ports already.
    Nowhere,
}

/// The ports of a recorded bridge.
#[derive(Debug)]
pub(super) struct Ports {
    bridge: BridgeName,
    networks: Vec<Ipv4Net>,
    /// The host's hardware address.
    host: Option<Mac>,
    /// Whether one file has it all, so that only hardware addresses tell senders apart.
    pub(super) by_station: bool,
    known: BTreeMap<Sender, IfIndex>,
    recent: BTreeMap<Head, (Timestamp, usize, Place)>,
    order: VecDeque<(Timestamp, Head)>,
}

impl Ports {
    pub(super) fn new(bridge: BridgeName, networks: Vec<Ipv4Net>, host: Option<Mac>) -> Self {
        Self {
            bridge,
            networks,
            host,
            by_station: false,
            known: [(Sender::Host, HOST)].into(),
            recent: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// The bridge itself.
    pub(super) fn bridge(&self) -> Bridge {
        Bridge {
            name: self.bridge,
            port: HOST,
            mac: self.host.unwrap_or_default(),
            networks: self.networks.clone(),
            pvid: None,
            vlans: Vec::new(),
        }
    }

    /// The host's hardware address, if it is known.
    pub(super) const fn host(&self) -> Option<Mac> {
        self.host
    }

    /// Looks at the first frame: if one file has the whole bridge in it, only hardware addresses tell senders apart.
    pub(super) fn settle(&mut self, recordings: &[Recording], first: &Frame) {
        self.by_station = match (recordings, first.place) {
            ([only], Place::Anywhere) => !only.is_named(),
            ([only], Place::Described(_)) => !only.is_named() && only.interfaces() < 2,
            _ => false,
        };
    }

    /// Where a frame came from.
    pub(super) fn origin(&mut self, number: usize, recording: &Recording, frame: &Frame) -> Origin {
        let Some(source) = frame.head.source() else { return Origin::Nowhere };
        match self.sender(number, recording, frame, source) {
            None => Origin::Copy,
            Some(sender) => self.port(sender, recording),
        }
    }

    fn sender(&mut self, number: usize, recording: &Recording, frame: &Frame, source: Mac) -> Option<Sender> {
        if self.by_station {
            return Some(self.station(source));
        }
        if self.is_copy(number, frame) {
            return None;
        }
        let is_bridge = self.name(recording, frame.place) == self.bridge.as_str();
        match (frame.direction, frame.place) {
            (Some(Direction::In), _) if !is_bridge => Some(Sender::Port(number, frame.place)),
            (Some(Direction::Out), _) if self.host == Some(source) => Some(Sender::Host),
            // All interfaces were recorded, so what nobody sent in was sent by the host.
            (Some(Direction::Out), Place::Index(_)) if self.host.is_none() => {
                self.host = Some(source);
                Some(Sender::Host)
            }
            (Some(Direction::Out), _) => None,
            _ if is_bridge || self.host == Some(source) => Some(self.station(source)),
            _ => Some(Sender::Port(number, frame.place)),
        }
    }

    fn station(&self, mac: Mac) -> Sender {
        if self.host == Some(mac) { Sender::Host } else { Sender::Station(mac) }
    }

    /// Whether the frame was seen a moment ago at another place. Remembers it, if not.
    fn is_copy(&mut self, number: usize, frame: &Frame) -> bool {
        self.forget(frame.at);
        let head = frame.head.without_destination();
        if let Some((_, file, place)) = self.recent.get(&head) {
            return (*file, *place) != (number, frame.place);
        }
        self.recent.insert(head, (frame.at, number, frame.place));
        self.order.push_back((frame.at, head));
        false
    }

    fn forget(&mut self, now: Timestamp) {
        let is_old = |at: Timestamp| now.since(at) > ON_THE_WAY;
        while self.order.front().is_some_and(|(at, _)| is_old(*at) || self.order.len() >= REMEMBERED) {
            let old = self.order.pop_front();
            old.map(|(_, head)| self.recent.remove(&head));
        }
    }

    fn port(&mut self, sender: Sender, recording: &Recording) -> Origin {
        if let Some(port) = self.known.get(&sender) {
            return Origin::Port(*port);
        }
        let number = u32::try_from(self.known.len() + 1).ok().filter(|number| *number <= MOST_PORTS);
        let Some(index) = number.and_then(IfIndex::new) else { return Origin::Nowhere };
        self.known.insert(sender, index);
        let (name, sandbox) = self.called(sender, recording);
        Origin::NewPort(Port { index, name, bridge: self.bridge, pvid: None }, sandbox)
    }

    /// What a port is called, and who is behind it: whoever names a file says so.
    fn called(&self, sender: Sender, recording: &Recording) -> (String, Sandbox) {
        match sender {
            Sender::Host => (self.bridge.to_string(), Sandbox::default()),
            Sender::Station(mac) => (mac.to_string(), Sandbox::default()),
            Sender::Port(_, place) => {
                let name = self.name(recording, place);
                let named = Some(name.clone()).filter(|_| recording.is_named());
                let owners = named.iter().filter_map(|name| name.parse().ok()).collect();
                (name, Sandbox { netns: None, name: named, owners })
            }
        }
    }

    fn name(&self, recording: &Recording, place: Place) -> String {
        match place {
            Place::Described(number) if recording.interfaces() > 1 => {
                recording.interface(number).map_or_else(|| recording.name(), str::to_owned)
            }
            Place::Anywhere | Place::Described(_) => recording.name(),
            Place::Index(index) => format!("if{index}"),
        }
    }

    /// Whether the source of an IPv4 packet is the sender's own word for its address: it is not if the sender is the host,
    /// which sends on for others, or may be.
    pub(super) fn is_own(&self, port: IfIndex, source: Ipv4Addr, frame: &Frame) -> bool {
        let is_from_a_port = frame.direction == Some(Direction::In) && !self.by_station;
        let is_at_home = self.networks.iter().any(|network| network.contains(&source));
        port != HOST && (is_from_a_port || (self.host.is_some() && (is_at_home || !self.by_station)))
    }

    /// Learns who the host is, where nothing else says so: whoever first claims its address.
    pub(super) fn learn_host(&mut self, mac: Mac, address: Ipv4Addr, frame: &Frame) -> bool {
        let is_its = self.networks.iter().any(|network| network.addr() == address);
        let learns = is_its && self.host.is_none() && frame.direction.is_none() && frame.head.source() == Some(mac);
        if learns {
            self.host = Some(mac);
        }
        learns
    }
}

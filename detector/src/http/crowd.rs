//! Who is being served, so that no peer takes all the room there is.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Connections that a peer beyond loopback may have at a time, of those that a socket serves.
pub(super) const PER_PEER: usize = 16;

/// Who has how many connections on one socket. There are never more entries than connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of a peer.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Crowd,
    peer: IpAddr,
}

impl Crowd {
    /// Room for one more connection of a peer, if it has not had its share.
    pub(super) fn seat(&self, peer: IpAddr) -> Option<Seat> {
        let peer = neighbourhood(peer);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(peer).or_default();
        (*count < PER_PEER).then(|| {
            *count += 1;
            Seat { crowd: self.clone(), peer }
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&self.peer).map_or(0, |count| count.saturating_sub(1));
        match left {
            0 => drop(taken.remove(&self.peer)),
            _ => drop(taken.insert(self.peer, left)),
        }
    }
}

/// Whoever has one IPv6 address has its whole /64 to choose from.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(peer) => Ipv6Addr::from_bits(peer.to_bits() & !u128::from(u64::MAX)).into(),
        peer => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_share_and_no_more() {
        let crowd = Crowd::default();
        let seat = |peer: &str| crowd.seat(peer.parse().unwrap());
        let mut seats: Vec<_> = (0..PER_PEER).map(|_| seat("192.0.2.1").unwrap()).collect();
        assert!(seat("192.0.2.1").is_none() && seat("::ffff:192.0.2.1").is_none());
        let other = seat("192.0.2.2").unwrap();
        seats.pop();
        seats.push(seat("192.0.2.1").unwrap());
        let near: Vec<_> = (0..PER_PEER).map(|last| seat(&format!("2001:db8::{last}")).unwrap()).collect();
        assert!(seat("2001:db8::ffff").is_none() && seat("2001:db8:0:1::1").is_some());
        drop((seats, other, near));
        assert!(crowd.0.lock().unwrap().is_empty());
    }
}

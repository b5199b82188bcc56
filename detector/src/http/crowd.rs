//! Who is being served on one socket, so that nobody takes all the room there is.
//!
//! Whoever connects is a stranger, until it has said all that it wants and, beyond loopback, who it is. Strangers are few,
//! and the oldest has to go when there is one too many: an honest client says what it wants within milliseconds. Whoever
//! is known has a place until it is answered, which nobody takes from it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Extension, extract::Request, middleware::Next, response::Response};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

/// Connections that a peer beyond loopback may have at a time.
pub(super) const PER_PEER: usize = 16;
/// Those who are known that one socket serves at a time; more wait.
pub(super) const PLACES: u32 = 64;
/// Strangers at a time, where only this machine connects, and where others do, who take more time to say who they are.
const STRANGERS_NEAR: usize = 128;
pub(super) const STRANGERS_FAR: usize = 32;

/// The connections of one socket. There are never more than strangers and places together, and strangers who have become
/// known and wait for a place, since nobody is let in before them.
#[derive(Clone, Debug)]
pub(super) struct Crowd(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    strangers: usize,
    places: Arc<Semaphore>,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    /// How many there ever were.
    count: u64,
    /// By age, the oldest first.
    present: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    /// Who it is with, where that is told apart.
    peer: Option<IpAddr>,
    /// Where a stranger is told to go; nothing for who is known.
    go: Option<oneshot::Sender<()>>,
    /// What it holds until it ends.
    held: Vec<OwnedSemaphorePermit>,
}

/// One connection, for as long as it lasts.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Crowd,
    number: u64,
}

/// Says when a stranger has to go. It breaks off when it is none any more.
pub(super) type Go = oneshot::Receiver<()>;

impl Crowd {
    /// On this machine only.
    pub(super) fn near() -> Self {
        Self::of(STRANGERS_NEAR)
    }

    /// From other machines, too.
    pub(super) fn far() -> Self {
        Self::of(STRANGERS_FAR)
    }

    fn of(strangers: usize) -> Self {
        let places = Arc::new(Semaphore::new(PLACES as usize));
        Self(Arc::new(Shared { strangers, places, connections: Mutex::default() }))
    }

    /// Waits until somebody who connects could have a place.
    pub(super) async fn room(&self) {
        drop(self.0.places.acquire().await);
    }

    /// Waits until nobody who is known is there any more, and nobody can become known.
    pub(super) async fn gone(&self, patience: Duration) {
        let _ = timeout(patience, self.0.places.acquire_many(PLACES)).await;
    }

    /// One stranger more, for whom another may have to go; unless its peer has its share of those that are known.
    pub(super) fn enter(&self, peer: Option<IpAddr>) -> Option<(Arc<Seat>, Go)> {
        let peer = peer.map(neighbourhood);
        let mut connections = self.connections();
        let of_peer = |of: &Connection| peer.is_some() && of.peer == peer;
        if connections.count(of_peer) >= PER_PEER {
            connections.let_go(of_peer).then_some(())?;
        }
        if connections.count(Connection::is_stranger) >= self.0.strangers {
            connections.let_go(|_| true);
        }
        let (go, gone) = oneshot::channel();
        connections.count += 1;
        let number = connections.count;
        connections.present.insert(number, Connection { peer, go: Some(go), held: Vec::new() });
        Some((Arc::new(Seat { crowd: self.clone(), number }), gone))
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn count(&self, of: impl Fn(&Connection) -> bool) -> usize {
        self.present.values().filter(|connection| of(connection)).count()
    }

    /// Has the oldest of these strangers go, if there is one.
    fn let_go(&mut self, of: impl Fn(&Connection) -> bool) -> bool {
        let mut strangers = self.present.iter().filter(|(_, found)| found.is_stranger() && of(found));
        let oldest = strangers.next().map(|(number, _)| *number).and_then(|number| self.present.remove(&number));
        // Who is at its end already does not listen.
        oldest.and_then(|oldest| oldest.go).map(|go| go.send(())).is_some()
    }
}

impl Connection {
    const fn is_stranger(&self) -> bool {
        self.go.is_some()
    }
}

impl Seat {
    /// It is known who this is and what it wants: waits for its place.
    pub(super) async fn take_place(&self) {
        self.change(|connection| connection.go = None);
        if let Ok(place) = Arc::clone(&self.crowd.0.places).acquire_owned().await {
            self.hold(place);
        }
    }

    /// Holds this until the connection ends: who does not read its answer has it all the while.
    pub(super) fn hold(&self, permit: OwnedSemaphorePermit) {
        self.change(|connection| connection.held.push(permit));
    }

    /// Whoever had to go is not there any more.
    fn change(&self, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.crowd.connections().present.get_mut(&self.number) {
            change(connection);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let ended = self.crowd.connections().present.remove(&self.number);
        drop(ended);
    }
}

/// Answers who has said what it wants, where nothing more is asked of it.
pub(super) async fn known(Extension(seat): Extension<Arc<Seat>>, request: Request, next: Next) -> Response {
    seat.take_place().await;
    next.run(request).await
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

    fn peer(peer: &str) -> Option<IpAddr> {
        Some(peer.parse().unwrap())
    }

    fn must_go((_, go): &mut (Arc<Seat>, Go)) -> bool {
        go.try_recv().is_ok()
    }

    #[tokio::test]
    async fn each_peer_has_its_share_and_no_more() {
        let crowd = Crowd::far();
        let mut seats = Vec::new();
        for _ in 0..PER_PEER {
            let seat = crowd.enter(peer("192.0.2.1")).unwrap();
            seat.0.take_place().await;
            seats.push(seat);
        }
        assert!(crowd.enter(peer("192.0.2.1")).is_none() && crowd.enter(peer("::ffff:192.0.2.1")).is_none());
        let other = crowd.enter(peer("192.0.2.2")).unwrap();
        seats.pop();
        let mut stranger = crowd.enter(peer("192.0.2.1")).unwrap();
        let another = crowd.enter(peer("192.0.2.1")).unwrap();
        assert!(must_go(&mut stranger), "it was one of too many of its peer, and a stranger");
        drop((seats, other, another, stranger));
        let near: Vec<_> = (0..PER_PEER).map(|last| crowd.enter(peer(&format!("2001:db8::{last}"))).unwrap()).collect();
        let mut near = near.into_iter();
        let mut first = near.next().unwrap();
        let far = crowd.enter(peer("2001:db8:0:1::1")).unwrap();
        assert!(!must_go(&mut first));
        let next = crowd.enter(peer("2001:db8::ffff")).unwrap();
        assert!(must_go(&mut first));
        drop((first, near, far, next));
        assert!(crowd.connections().present.is_empty());
    }

    #[tokio::test]
    async fn the_oldest_stranger_goes_and_nobody_who_is_known() {
        let crowd = Crowd::far();
        let mut known = crowd.enter(None).unwrap();
        known.0.take_place().await;
        let mut strangers: Vec<_> = (0..STRANGERS_FAR).map(|_| crowd.enter(None).unwrap()).collect();
        assert!(!strangers.iter_mut().any(must_go));
        let late = crowd.enter(None).unwrap();
        let gone: Vec<_> = strangers.iter_mut().map(must_go).collect();
        assert!(gone[0] && !gone[1..].contains(&true) && !must_go(&mut known), "{gone:?}");
        // That it says what it wants in this very moment does not bring it back.
        strangers[0].0.take_place().await;
        assert_eq!(crowd.0.places.available_permits(), PLACES as usize - 1);
        drop((known, strangers, late));
        assert_eq!(crowd.0.places.available_permits(), PLACES as usize);
    }
}

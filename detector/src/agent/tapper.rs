//! Attaches and detaches the tap, beside the loop: the kernel takes some ten milliseconds for each interface (it waits
//! until no CPU runs the old set of programs any more), and the loop has claims to read meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::mpsc::UnboundedSender;

use super::surveyor::News;
use crate::{
    capture::{CaptureError, Kind, Listener, Malformed, Post, Side, TapCounters},
    engine::Input,
    net::{BridgeName, ClaimKind, IfIndex},
    telemetry::{Feature, Telemetry, with_causes},
};

/// How many orders wait when taps are put in place for the time being first, and settled when there is nothing else to do: at
/// the start on a bridge with very many ports. So many fewer take half a second.
const MANY: usize = 32;
/// How long the kernel is left alone before the next tap is settled: it keeps others from changes of the network meanwhile, such as
/// the start of a sandbox.
const PAUSE: Duration = Duration::from_millis(50);

/// What the tapper is told to do, in this order.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Listen at an interface, and count what is heard there for this bridge.
    Attach(IfIndex, Post, BridgeName),
    /// Listen there no longer.
    Detach(IfIndex),
    /// Guard what is in quarantine at an interface from now on, or no longer; see [`Listener::guard`].
    Guard(IfIndex, bool),
    /// Read what the taps have counted, and try again where one could not be attached.
    Count,
    /// Tell when every tap is in place.
    Tell,
}

/// The thread that works on orders. Dropped, it has detached everything.
pub(super) struct Tapper {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Tapper {
    pub(super) fn start(
        listener: Listener,
        telemetry: Arc<Telemetry>,
        news: UnboundedSender<News>,
    ) -> std::io::Result<Self> {
        let (orders, received) = mpsc::channel();
        let work = Work {
            listener,
            telemetry,
            news,
            counted: BTreeMap::new(),
            deaf: BTreeMap::new(),
            unguarded: BTreeMap::new(),
            waiting: VecDeque::new(),
            unsettled: BTreeSet::new(),
            asked: false,
        };
        let thread = thread::Builder::new().name("dupip-tapper".to_owned()).spawn(move || work.run(&received))?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    pub(super) fn order(&self, order: Order) {
        // The thread ends only when there is nobody to give orders.
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }
}

impl Drop for Tapper {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Work {
    listener: Listener,
    telemetry: Arc<Telemetry>,
    news: UnboundedSender<News>,
    /// Where the tap listens: for which bridge, and what was counted when it was last read.
    counted: BTreeMap<IfIndex, Listening>,
    /// Where it should listen and could not be made to.
    deaf: BTreeMap<IfIndex, (Post, BridgeName)>,
    /// Where it should guard, or no longer, and could not be made to.
    unguarded: BTreeMap<IfIndex, bool>,
    /// Orders that have come and were not worked on yet.
    waiting: VecDeque<Order>,
    /// Where the tap is in place for the time being.
    unsettled: BTreeSet<IfIndex>,
    /// Whether somebody waits to be told that every tap is in place.
    asked: bool,
}

/// An interface with a tap.
#[derive(Clone, Copy)]
struct Listening {
    post: Post,
    bridge: BridgeName,
    /// What had been counted when it was last read.
    before: TapCounters,
}

impl Work {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        while let Some(order) = self.next(orders) {
            match order {
                Order::Attach(interface, post, bridge) => self.attach(interface, post, bridge),
                Order::Detach(interface) => self.detach(interface),
                Order::Guard(interface, is_guarded) => self.guard(interface, is_guarded),
                Order::Count => {
                    self.try_again();
                    self.count();
                }
                Order::Tell => self.asked = true,
            }
            self.tell_if_complete();
        }
    }

    /// The next order; taps are settled while there is none. `None` if there will be none.
    fn next(&mut self, orders: &mpsc::Receiver<Order>) -> Option<Order> {
        loop {
            self.waiting.extend(orders.try_iter());
            if let Some(order) = self.waiting.pop_front() {
                return Some(order);
            }
            if self.unsettled.is_empty() {
                return orders.recv().ok();
            }
            match orders.recv_timeout(PAUSE) {
                Ok(order) => self.waiting.push_back(order),
                Err(RecvTimeoutError::Timeout) => self.settle_one(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn settle_one(&mut self) {
        if let Some(interface) = self.unsettled.pop_first() {
            self.settle(interface);
        }
    }

    /// A tap that cannot be settled listens all the same.
    fn settle(&mut self, interface: IfIndex) {
        if let Err(error) = self.listener.settle(interface) {
            tracing::debug!(event = "not_settled", %interface, "{}", with_causes(&error));
        }
    }

    fn tell_if_complete(&mut self) {
        if self.asked && self.deaf.is_empty() {
            self.asked = false;
            self.tell(News::Tapped);
        }
    }

    fn try_again(&mut self) {
        for (interface, (post, bridge)) in self.deaf.clone() {
            self.listen(interface, post, bridge);
        }
        for (interface, is_guarded) in self.unguarded.clone() {
            self.guard(interface, is_guarded);
        }
    }

    /// Nobody listens any more only while the agent stops.
    fn tell(&self, news: News) {
        let _ = self.news.send(news);
    }

    fn attach(&mut self, interface: IfIndex, post: Post, bridge: BridgeName) {
        if !self.switch(interface, post, bridge) {
            self.detach(interface);
            self.listen(interface, post, bridge);
        }
    }

    /// Has a tap that is there listen for something else, if that is all: what it guards stays guarded.
    fn switch(&mut self, interface: IfIndex, post: Post, bridge: BridgeName) -> bool {
        let Some(listening) = self.counted.get_mut(&interface).filter(|listening| listening.bridge == bridge) else {
            return false;
        };
        let switched = self.listener.switch(interface, post).unwrap_or_else(|error| {
            tracing::debug!(event = "not_switched", %interface, "{}", with_causes(&error));
            false
        });
        if switched {
            listening.post = post;
        }
        switched
    }

    /// What cannot be guarded is tried again.
    fn guard(&mut self, interface: IfIndex, is_guarded: bool) {
        match self.listener.guard(interface, is_guarded) {
            Ok(()) => {
                self.unguarded.remove(&interface);
                self.tell_if_whole();
            }
            Err(error) if self.unguarded.insert(interface, is_guarded).is_some() => {
                tracing::debug!(event = "still_unguarded", %interface, "{}", with_causes(&error));
            }
            Err(error) => self.telemetry.degraded(Feature::Taps, Some(&with_causes(&error))),
        }
    }

    /// Once nothing has to be tried again.
    fn tell_if_whole(&self) {
        if self.deaf.is_empty() && self.unguarded.is_empty() {
            self.telemetry.degraded(Feature::Taps, None);
        }
    }

    fn listen(&mut self, interface: IfIndex, post: Post, bridge: BridgeName) {
        let attached = if self.waiting.len() < MANY {
            self.listener.attach(interface, post)
        } else {
            self.unsettled.insert(interface);
            self.listener.attach_at_once(interface, post)
        };
        match attached {
            Ok(()) => {
                self.not_deaf(interface);
                self.counted.insert(interface, Listening { post, bridge, before: TapCounters::default() });
                self.tell_ports(bridge);
            }
            // That it is gone is told by the kernel next.
            Err(CaptureError::Gone { .. }) => self.not_deaf(interface),
            Err(error) if self.deaf.insert(interface, (post, bridge)).is_some() => {
                tracing::debug!(event = "still_deaf", %interface, "{}", with_causes(&error));
            }
            Err(error) => self.telemetry.degraded(Feature::Taps, Some(&with_causes(&error))),
        }
    }

    fn not_deaf(&mut self, interface: IfIndex) {
        if self.deaf.remove(&interface).is_some() {
            self.tell_if_whole();
        }
    }

    fn detach(&mut self, interface: IfIndex) {
        self.not_deaf(interface);
        self.unsettled.remove(&interface);
        let Some(Listening { bridge, before, .. }) = self.counted.remove(&interface) else { return };
        match self.listener.detach(interface) {
            Ok(last) => self.tell_counted(interface, bridge, &last.unwrap_or(before).since(&before)),
            Err(error) => self.telemetry.degraded(Feature::Taps, Some(&with_causes(&error))),
        }
        self.tell_ports(bridge);
    }

    fn tell_ports(&self, bridge: BridgeName) {
        let is_port = |at: &&Listening| at.bridge == bridge && at.post.side == Side::Ingress;
        self.telemetry.set_ports(bridge, self.counted.values().filter(is_port).count());
    }

    fn count(&mut self) {
        let mut news = Vec::new();
        for (interface, Listening { bridge, before, .. }) in &mut self.counted {
            let counted = self.listener.counters(*interface);
            // Of a thousand ports most were silent for a second.
            if let Some(now) = counted.filter(|now| now != before) {
                news.push((*interface, *bridge, now.since(before)));
                *before = now;
            }
        }
        for (interface, bridge, counted) in news {
            self.tell_counted(interface, bridge, &counted);
        }
    }

    /// What was lost, and what was more than a port's share, must be asked for.
    fn tell_counted(&self, port: IfIndex, bridge: BridgeName, counted: &TapCounters) {
        for kind in ClaimKind::ALL {
            self.telemetry.claims_by_kind(bridge, kind, counted.kind(tapped(kind)));
        }
        self.telemetry.ipv4_claims(bridge, counted.ipv4());
        self.telemetry.reported(bridge, counted.all_reported());
        self.telemetry.absorbed(bridge, counted.absorbed);
        self.telemetry.contained(bridge, counted.contained);
        for reason in Malformed::ALL {
            self.telemetry.malformed(bridge, reason, counted.malformed(reason));
        }
        if counted.all_lost() > 0 {
            self.telemetry.lost(bridge, counted.all_lost());
            self.tell(News::Input(Input::ClaimsLost(bridge)));
        }
        if counted.all_limited() > 0 {
            self.telemetry.limited(bridge, counted.all_limited());
            self.tell(News::Input(Input::Limited { port, count: counted.all_limited() }));
        }
    }
}

/// As the tap calls it.
const fn tapped(kind: ClaimKind) -> Kind {
    match kind {
        ClaimKind::Request => Kind::Request,
        ClaimKind::Reply => Kind::Reply,
        ClaimKind::GratuitousRequest => Kind::GratuitousRequest,
        ClaimKind::GratuitousReply => Kind::GratuitousReply,
        ClaimKind::Probe => Kind::Probe,
    }
}

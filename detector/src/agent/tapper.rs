//! Attaches and detaches the tap, beside the loop: the kernel takes some ten milliseconds for each interface (it waits
//! until no CPU runs the old set of programs any more), and the loop has claims to read meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use tokio::sync::mpsc::UnboundedSender;

use super::surveyor::News;
use crate::{
    capture::{CaptureError, Malformed, Side, Tap, TapCounters},
    engine::Input,
    net::{BridgeName, IfIndex},
    telemetry::{Feature, Telemetry},
};

/// What the tapper is told to do, in this order.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Listen at an interface, and count what is heard there for this bridge.
    Attach(IfIndex, Side, BridgeName),
    /// Listen there no longer.
    Detach(IfIndex),
    /// Read what the taps have counted.
    Count,
    /// Tell when everything ordered before is done.
    Tell,
}

/// The thread that works on orders. Dropped, it has detached everything.
pub(super) struct Tapper {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Tapper {
    pub(super) fn start(tap: Tap, telemetry: Arc<Telemetry>, news: UnboundedSender<News>) -> std::io::Result<Self> {
        let (orders, received) = mpsc::channel();
        let work = Work { tap, telemetry, news, counted: BTreeMap::new(), deaf: BTreeSet::new() };
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
    tap: Tap,
    telemetry: Arc<Telemetry>,
    news: UnboundedSender<News>,
    /// Where the tap listens: for which bridge, and what was counted when it was last read.
    counted: BTreeMap<IfIndex, (BridgeName, TapCounters)>,
    /// Where it should listen and could not be made to.
    deaf: BTreeSet<IfIndex>,
}

impl Work {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        for order in orders {
            match order {
                Order::Attach(interface, side, bridge) => self.attach(interface, side, bridge),
                Order::Detach(interface) => self.detach(interface),
                Order::Count => self.count(),
                Order::Tell => self.tell(News::Tapped),
            }
        }
    }

    /// Nobody listens any more only while the agent stops.
    fn tell(&self, news: News) {
        let _ = self.news.send(news);
    }

    fn attach(&mut self, interface: IfIndex, side: Side, bridge: BridgeName) {
        self.detach(interface);
        match self.tap.attach(interface, side) {
            Ok(()) => {
                self.counted.insert(interface, (bridge, TapCounters::default()));
            }
            // That it is gone is told by the kernel next.
            Err(CaptureError::Gone { .. }) => {}
            Err(error) => {
                self.deaf.insert(interface);
                self.telemetry.degraded(Feature::Taps, Some(&error));
            }
        }
    }

    fn detach(&mut self, interface: IfIndex) {
        if self.deaf.remove(&interface) && self.deaf.is_empty() {
            self.telemetry.degraded(Feature::Taps, None);
        }
        let Some((bridge, before)) = self.counted.remove(&interface) else { return };
        match self.tap.detach(interface) {
            Ok(last) => self.tell_counted(bridge, last.unwrap_or(before).since(&before)),
            Err(error) => self.telemetry.degraded(Feature::Taps, Some(&error)),
        }
    }

    fn count(&mut self) {
        let mut news = Vec::new();
        for (interface, (bridge, before)) in &mut self.counted {
            if let Some(now) = self.tap.counters(*interface) {
                news.push((*bridge, now.since(before)));
                *before = now;
            }
        }
        news.into_iter().for_each(|(bridge, counted)| self.tell_counted(bridge, counted));
    }

    /// What was lost must be asked for.
    fn tell_counted(&self, bridge: BridgeName, counted: TapCounters) {
        for reason in Malformed::ALL {
            self.telemetry.malformed(bridge, reason, counted.malformed(reason));
        }
        if counted.lost > 0 {
            self.telemetry.lost(bridge, counted.lost);
            self.tell(News::Input(Input::FramesLost(bridge)));
        }
    }
}

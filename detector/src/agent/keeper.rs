//! Writes incidents down, beside the loop. What has come in while it wrote is written next, in one commit; of several
//! states of one incident the last.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{
    clock,
    surveyor::{News, outcome},
};
use crate::{
    allocator::{Kept, Store},
    engine::{ActionId, Incident},
    evidence::kept,
};

/// An incident as it stands, and the action that waits for it to be on disk.
type Order = (ActionId, Box<Incident>);

/// The thread that writes. Dropped, it has written everything that it was given.
pub(super) struct Keeper {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(store: Arc<dyn Store>, boot: String, news: UnboundedSender<News>) -> std::io::Result<Self> {
        let (orders, received) = mpsc::channel();
        let work = Work { store, boot, news };
        let thread = thread::Builder::new().name("dupip-keeper".to_owned()).spawn(move || work.run(&received))?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    pub(super) fn keep(&self, id: ActionId, incident: Box<Incident>) {
        // The thread ends only when there is nobody to give orders.
        let _ = self.orders.as_ref().map(|orders| orders.send((id, incident)));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Work {
    store: Arc<dyn Store>,
    boot: String,
    news: UnboundedSender<News>,
}

impl Work {
    fn run(self, orders: &mpsc::Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            self.write([order].into_iter().chain(orders.try_iter()).collect());
        }
    }

    fn write(&self, orders: Vec<Order>) {
        let wall = clock::wall_offset();
        let of = |(_, incident): &Order| (incident.id, kept(incident, &self.boot, wall));
        let records: BTreeMap<_, Kept> = orders.iter().map(of).collect();
        let written = self.store.keep(&records.into_values().collect::<Vec<_>>());
        let written = written.map_err(|error| error.to_string());
        for (id, _) in orders {
            // Nobody listens any more only while the agent stops.
            let _ = self.news.send(News::Input(outcome(id, written.clone())));
        }
    }
}

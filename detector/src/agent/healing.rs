//! What is done about losers: the tap drops what they claim, and what must reach beyond the runner is told to hooks.

use std::net::Ipv4Addr;

use super::{
    run::Agent,
    surveyor::{Errand, News, outcome},
    tapper::Order,
    told,
};
use crate::{
    engine::{ActionId, Incident, Input},
    net::{Contained, IfIndex},
};

impl Agent {
    pub(super) fn contain(&mut self, id: ActionId, entries: &[Contained]) {
        let contained = entries.iter().try_for_each(|entry| {
            self.quarantine.contain(entry).map_err(|error| error.to_string())?;
            self.tapper.order(Order::Guard(entry.port, true));
            Ok(())
        });
        self.answer(outcome(id, contained));
    }

    pub(super) fn lift(&mut self, id: ActionId, entries: &[Contained]) {
        let lifted = entries.iter().try_for_each(|entry| {
            self.quarantine.release(entry).map_err(|error| error.to_string())?;
            self.unguard(entry.port);
            Ok(())
        });
        self.answer(outcome(id, lifted));
    }

    fn unguard(&self, port: IfIndex) {
        if !self.quarantine.is_any_at(port) {
            self.tapper.order(Order::Guard(port, false));
        }
    }

    /// Nothing is kept from a port that is gone: its index may become another's.
    pub(super) fn forget_contained(&mut self, port: IfIndex) {
        if let Err(error) = self.quarantine.release_port(port) {
            tracing::warn!(event = "not_lifted", %port, "{error}");
        }
    }

    /// What an agent before this one has left contained.
    pub(super) fn tell_left_contained(&mut self) {
        match self.quarantine.list() {
            Ok(entries) if entries.is_empty() => {}
            Ok(entries) => {
                let entries: Vec<Contained> = entries.into_iter().map(|(entry, _)| entry).collect();
                self.tell(Input::LeftContained(entries));
            }
            Err(error) => tracing::warn!(event = "quarantine_unreadable", "{error}"),
        }
    }

    pub(super) fn recycle(&self, id: ActionId, incident: &Incident, port: IfIndex) {
        let news = self.news.clone();
        self.hooks.ask(&told::recycle(incident, port), move |done| {
            // Nobody listens any more only while the agent stops.
            let _ = news.send(News::Input(outcome(id, done.map_err(|error| error.to_string()))));
        });
    }

    pub(super) fn destroy_sockets(&self, id: ActionId, port: IfIndex, address: Ipv4Addr) {
        match self.ports.get(&port).cloned() {
            Some(port) => self.send_errand(Errand::DestroySockets { id, port, address }),
            None => self.answer(Input::Failed { action: id, failure: "the port is gone".to_owned() }),
        }
    }
}

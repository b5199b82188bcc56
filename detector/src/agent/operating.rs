//! What an operator asks of the running agent: who is in quarantine, to let somebody go, and to do nothing new for a while.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use humantime::format_rfc3339_millis;

use super::{
    clock,
    handle::{AskError, Handle, Query},
    restoring::PAUSED_UNTIL,
    run::Agent,
};
use crate::{
    allocator::StoreError,
    engine::{Config, Containment, Engine, Input},
    net::{Contained, IfName, VlanId},
    time::{Span, Timestamp},
};

/// Who is kept from saying what, and how often it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Who, and what.
    pub containment: Containment,
    /// How many frames were dropped since; `None` if the tap cannot be read.
    pub dropped: Option<u64>,
}

/// Which port is to be let say an address again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The port's interface name.
    pub port: IfName,
    /// The address.
    pub address: Ipv4Addr,
    /// The VLAN that it is contained in; `None` is any, if it is one only.
    pub vlan: Option<VlanId>,
}

/// What a pause came to.
#[derive(Debug)]
pub struct Pause {
    /// Until when nothing new is done; `None` if the agent goes on.
    pub until: Option<Timestamp>,
    /// Why the next agent will not know of it, if that is so.
    pub forgotten: Option<StoreError>,
}

/// Why nobody was let go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLifted {
    /// It is not in quarantine.
    #[error("{} is not in quarantine at {}{}; `dupip quarantine list` shows what is", .0.address, .0.port, in_vlan(.0))]
    NotContained(Release),
    /// It is, in more than one VLAN.
    #[error("{} is in quarantine at {} in several VLANs: name one with --vlan", .0.address, .0.port)]
    Several(Release),
    /// The kernel refused.
    #[error("{} stays in quarantine at {}: the tap does not let it go, as the log says; it is tried again", .0.address, .0.port)]
    Stays(Release),
}

fn in_vlan(release: &Release) -> String {
    release.vlan.map(|vlan| format!(" in VLAN {}", vlan.get())).unwrap_or_default()
}

impl Release {
    /// What is meant, of all that is contained.
    pub(super) fn find(self, engine: &Engine) -> Result<Containment, NotLifted> {
        let is_meant = |of: &Containment| {
            (of.port_name.as_str(), of.address) == (self.port.as_str(), self.address)
                && (self.vlan.is_none() || self.vlan == of.domain.vlan)
        };
        let mut found = engine.contained().filter(is_meant);
        match (found.next(), found.next()) {
            (None, _) => Err(NotLifted::NotContained(self)),
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => Err(NotLifted::Several(self)),
        }
    }
}

impl Agent {
    /// Does nothing new until then, or goes on. What an earlier agent has written down of it counts no more.
    pub(super) fn pause(&mut self, until: Option<Timestamp>) {
        self.pause_told = true;
        self.tell(Input::Paused { until });
    }

    /// Judges and acts by this from now on.
    pub(super) fn reconfigure(&mut self, engine: Config) {
        self.settings.send_modify(|settings| Arc::make_mut(settings).engine.clone_from(&engine));
        self.tell(Input::Reconfigured(Box::new(engine)));
    }

    pub(super) fn quarantined(&self) -> Vec<Quarantined> {
        let counts = self.drops();
        let of =
            |containment| Quarantined { dropped: counts.as_ref().map(|of| dropped(of, &containment)), containment };
        self.engine.contained().map(of).collect()
    }

    /// Lets somebody go, and tells whether the tap did.
    pub(super) fn release(&mut self, release: Release) -> Result<Quarantined, NotLifted> {
        let containment = release.clone().find(&self.engine)?;
        let dropped = self.drops().as_ref().map(|of| dropped(of, &containment));
        containment.entries.iter().for_each(|entry| self.tell(Input::Lifted(*entry)));
        self.settle();
        match containment.entries.iter().any(|entry| self.quarantine.is_contained(entry)) {
            true => Err(NotLifted::Stays(release)),
            false => Ok(Quarantined { containment, dropped }),
        }
    }

    fn drops(&self) -> Option<BTreeMap<Contained, u64>> {
        let counts = self.quarantine.list();
        counts
            .inspect_err(|error| tracing::warn!(event = "quarantine_unreadable", "{error}"))
            .map(|counts| counts.into_iter().collect())
            .ok()
    }
}

fn dropped(counts: &BTreeMap<Contained, u64>, containment: &Containment) -> u64 {
    containment.entries.iter().filter_map(|entry| counts.get(entry)).sum()
}

impl Handle {
    /// Who is in quarantine, by domain, address and port.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn quarantined(&self) -> Result<Vec<Quarantined>, AskError> {
        self.ask(Query::Quarantined).await
    }

    /// Lets a port say an address again. It is not contained anew while the incident is open. Returns who was let go.
    ///
    /// # Errors
    /// When it is not in quarantine, or the agent is stopping.
    pub async fn release_contained(&self, release: Release) -> Result<Quarantined, AskError> {
        Ok(self.ask(|reply| Query::Release(release, reply)).await??)
    }

    /// Until when nothing new is done.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn paused_until(&self) -> Result<Option<Timestamp>, AskError> {
        self.ask(Query::PausedUntil).await
    }

    /// Has the agent do nothing new for so long, or go on, and then writes it down for the next one. If that fails, it is
    /// so for this agent all the same.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn pause(&self, span: Option<Span>) -> Result<Pause, AskError> {
        let until = span.map(|span| clock::now() + span);
        self.ask(|reply| Query::Pause(until, reply)).await?;
        // Of several that are asked for at one time, whoever writes last writes what holds.
        let _alone = self.pausing.lock().await;
        let holds = self.paused_until().await?.map(|at| format_rfc3339_millis(clock::wall(at)).to_string());
        let written = self.with_store(move |store| store.set(PAUSED_UNTIL, holds.as_deref())).await?;
        Ok(Pause { until, forgotten: written.err() })
    }
}

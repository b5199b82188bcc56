//! How the rest of the process asks the running agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot};

use super::{clock, readiness::Readiness};
use crate::{
    allocator::{AdoptError, AllocateError, Change, Fence, Store, StoreError},
    engine::{Incident, Row},
    net::{Domain, Lease, Owner},
    telemetry::{Feature, Telemetry},
};

/// A question to the agent's loop, answered between two inputs.
#[derive(Debug)]
pub(super) enum Query {
    Table(oneshot::Sender<Vec<Row>>),
    Incidents(oneshot::Sender<Vec<Incident>>),
    Addresses(Domain, oneshot::Sender<Vec<Ipv4Addr>>),
    /// Brings the metrics up to date that nobody keeps while nobody looks.
    Gauges(oneshot::Sender<()>),
}

/// A row of the live table with what the allocator says of its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// What is seen.
    pub row: Row,
    /// What is written; `None` if nobody has a lease on the address.
    pub lease: Option<Lease>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The agent is shutting down.
    #[error("the agent is stopping")]
    Stopping,
    /// The lease database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No lease was given.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    /// An address was not adopted.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The metrics cannot be written down, which is a bug.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Asks the agent; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) queries: mpsc::Sender<Query>,
    pub(super) store: Arc<dyn Store>,
    pub(super) readiness: Readiness,
    pub(super) telemetry: Arc<Telemetry>,
}

impl Handle {
    /// The live table, by domain, address and station, each row with the lease on its address.
    ///
    /// # Errors
    /// When the agent is stopping or the store cannot be read.
    pub async fn table(&self) -> Result<Vec<TableRow>, AskError> {
        let rows = self.ask(Query::Table).await?;
        let leases = self.leases().await?.into_iter().map(|lease| ((lease.domain, lease.address), lease));
        let leases: BTreeMap<_, _> = leases.collect();
        let lease_of = |row: &Row| leases.get(&(row.domain, row.address)).cloned();
        Ok(rows.into_iter().map(|row| TableRow { lease: lease_of(&row), row }).collect())
    }

    /// The incidents, open and lately closed, oldest first.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn incidents(&self) -> Result<Vec<Incident>, AskError> {
        self.ask(Query::Incidents).await
    }

    /// Every lease, by domain and address.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn leases(&self) -> Result<Vec<Lease>, AskError> {
        Ok(self.with_store(|store| store.leases(None)).await??)
    }

    /// The owner's lease in the domain, a new one if it holds none. Never an address that the live table shows in use.
    ///
    /// # Errors
    /// When no lease can be given, the store fails, or the agent is stopping.
    pub async fn allocate(&self, domain: Domain, owner: Owner) -> Result<Lease, AskError> {
        let in_use: BTreeSet<_> = self.ask(|reply| Query::Addresses(domain, reply)).await?.into_iter().collect();
        let began = clock::now();
        let lease = self.with_store(move |store| store.allocate(domain, &owner, &in_use)).await??;
        self.telemetry.allocated(clock::now().since(began));
        Ok(lease)
    }

    /// Writes down whose an address is that is in use already.
    ///
    /// # Errors
    /// When somebody else holds the address, the owner holds another, the address is in no pool, or the store fails.
    pub async fn adopt(&self, domain: Domain, address: Ipv4Addr, owner: Owner) -> Result<Lease, AskError> {
        Ok(self.with_store(move |store| store.adopt(domain, address, &owner)).await??)
    }

    /// Gives a lease back, if it is still the one that is named.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn release(&self, fence: Fence) -> Result<Change, AskError> {
        let named = format!("{} at {}", fence.owner, fence.address);
        let change = self.with_store(move |store| store.release(&fence)).await??;
        if matches!(change, Change::Fenced { .. }) {
            self.telemetry.fenced("release", named);
        }
        Ok(change)
    }

    /// Every metric as of now, in Prometheus' text format. A store that cannot be read takes only its own gauge with it.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn metrics(&self) -> Result<Vec<u8>, AskError> {
        self.ask(Query::Gauges).await?;
        match self.leases().await {
            Ok(leases) => self.telemetry.set_leases(&leases),
            Err(error) => self.telemetry.degraded(Feature::Store, Some(&error)),
        }
        Ok(self.telemetry.render()?)
    }

    /// What the agent has still to do before its word counts.
    #[must_use]
    pub const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.queries.send(query(reply)).await.map_err(|_| AskError::Stopping)?;
        answer.await.map_err(|_| AskError::Stopping)
    }

    /// The store waits for the disk, so it is asked where waiting blocks nobody.
    async fn with_store<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Store) -> T + Send + 'static,
    ) -> Result<T, AskError> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || ask(store.as_ref())).await.map_err(|_| AskError::Stopping)
    }
}

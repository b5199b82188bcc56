//! What the running agent sees, for those who hand addresses out beside it.

use std::{fs, future::Future, io, net::Ipv4Addr, path::Path};

use tokio::runtime;

use super::{
    Client, ClientError,
    api::{About, Row},
    encoded,
};
use crate::{
    allocator::{Unwitnessed, User, Witness},
    capture::Probing,
    net::{Domain, InvalidMac, Owner},
    witness::Wire,
};

/// The live table of the agent that answers on a socket.
#[derive(Debug)]
pub struct LiveTable {
    client: Client,
    about: About,
}

impl LiveTable {
    /// Asks who answers on `socket`; `None` if nobody listens there.
    ///
    /// # Errors
    /// When somebody does and does not answer as an agent should.
    pub fn connect(socket: &Path) -> Result<Option<Self>, Unwitnessed> {
        // That there is no socket at all is found out in less time than it takes to make a runtime.
        if fs::metadata(socket).is_err_and(|error| is_nobody(&error)) {
            return Ok(None);
        }
        let client = Client::new(socket);
        match wait_for(client.ask("/api/v1/about"))? {
            Ok(about) => Ok(Some(Self { client, about })),
            Err(ClientError::Unreachable { source, .. }) if is_nobody(&source) => Ok(None),
            Err(error) => Err(Unwitnessed(error.to_string())),
        }
    }

    /// Which agent it is.
    #[must_use]
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// Whether the agent knows of every claim in `domain`. It does not before it has seen every sandbox once.
    #[must_use]
    pub fn watches(&self, domain: Domain) -> bool {
        let About { bridges, waits_for, .. } = &self.about;
        waits_for.is_empty() && bridges.iter().any(|bridge| *bridge == domain.bridge.as_str())
    }

    /// The rows of `address` in `domain`.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn rows(&self, domain: Domain, address: Ipv4Addr) -> Result<Vec<Row>, Unwitnessed> {
        let bridge = encoded(domain.bridge.as_str());
        let vlan = domain.vlan.map(|vlan| format!("&vlan={}", vlan.get())).unwrap_or_default();
        self.ask(&format!("/api/v1/table?bridge={bridge}{vlan}&address={address}"))
    }

    /// Every row of `domain`.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn all(&self, domain: Domain) -> Result<Vec<Row>, Unwitnessed> {
        let bridge = encoded(domain.bridge.as_str());
        let vlan = domain.vlan.map(|vlan| format!("&vlan={}", vlan.get())).unwrap_or_default();
        self.ask(&format!("/api/v1/table?bridge={bridge}{vlan}"))
    }

    fn ask(&self, path: &str) -> Result<Vec<Row>, Unwitnessed> {
        wait_for(self.client.ask(path))?.map_err(|error| Unwitnessed(error.to_string()))
    }
}

impl Witness for LiveTable {
    fn user_of(&self, domain: Domain, address: Ipv4Addr, owner: &Owner) -> Result<Option<User>, Unwitnessed> {
        let rows = self.rows(domain, address)?;
        let foreign = rows.iter().find(|row| row.sandbox.as_deref() != Some(owner.as_str()));
        let mac = |row: &Row| row.mac.parse().map_err(|error: InvalidMac| Unwitnessed(error.to_string()));
        let mac = foreign.map(mac).transpose()?;
        Ok(mac.map(|mac| User { mac, shown_by: "is in the live table" }))
    }
}

/// The agent and the wire, as far as each can be asked.
#[derive(Debug)]
pub struct Witnesses {
    table: Option<LiveTable>,
    wire: Wire,
    /// Whether to ask on the wire even where an agent watches.
    always_probe: bool,
}

impl Witnesses {
    /// The agent that answers on `socket`, if one does, and the wire, asked as `probing` says: where no agent watches,
    /// and if it is to `always_probe` everywhere.
    ///
    /// # Errors
    /// When an agent is there and does not answer as it should.
    pub fn beside(socket: &Path, probing: Probing, always_probe: bool) -> Result<Self, Unwitnessed> {
        Ok(Self { table: LiveTable::connect(socket)?, wire: Wire::new(probing), always_probe })
    }
}

impl Witness for Witnesses {
    fn user_of(&self, domain: Domain, address: Ipv4Addr, owner: &Owner) -> Result<Option<User>, Unwitnessed> {
        let table = self.table.as_ref().filter(|table| table.watches(domain));
        match table.map_or(Ok(None), |table| table.user_of(domain, address, owner))? {
            None if table.is_none() || self.always_probe => self.wire.user_of(domain, address, owner),
            known => Ok(known),
        }
    }
}

/// Whether there is nobody to ask. Any other failure may have an agent behind it.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Waits for what only a runtime can wait for. Nobody calls this from within a task.
fn wait_for<T>(future: impl Future<Output = T>) -> Result<T, Unwitnessed> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Unwitnessed(format!("cannot start timers: {error}")))?;
    Ok(runtime.block_on(future))
}

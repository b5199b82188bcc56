//! Which bridges there are.

use super::{Bridge, Error, host::Host, links};

impl Host {
    /// Every bridge in the namespace of the host, in the order of their names.
    ///
    /// # Errors
    /// What kept the kernel from listing them.
    pub async fn bridges(&mut self) -> Result<Vec<Bridge>, Error> {
        let (mut bridges, _) = links::bridges_and_ports(&mut self.route).await?;
        bridges.sort_by_key(|bridge| bridge.name);
        Ok(bridges)
    }
}

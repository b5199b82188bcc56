//! Bridges of a runner.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use pnet::util::MacAddr;

use crate::{
    Plan, Runner, Sandbox,
    wire::{self, Arp},
};

/// How long an owner may take to answer a probe. The kernel of a sandbox does it within the sender's own system call.
const ANSWER: Duration = Duration::from_millis(250);

/// A bridge with the gateway of its sandboxes on it.
#[derive(Clone, Debug)]
pub struct Bridge {
    runner: Runner,
    name: String,
    address: Ipv4Net,
}

impl Bridge {
    pub(crate) fn new(runner: &Runner, name: &str, address: &str) -> Result<Self> {
        let parsed = address.parse().with_context(|| format!("`{address}` is no address with a prefix length"))?;
        runner.run(["ip", "link", "add", name, "type", "bridge"])?;
        runner.run(["ip", "address", "add", address, "dev", name])?;
        runner.run(["ip", "link", "set", name, "up"])?;
        Ok(Self { runner: runner.clone(), name: name.to_owned(), address: parsed })
    }

    /// The runner that it is on.
    #[must_use]
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bridge's own address, which is the sandboxes' gateway.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.address.addr()
    }

    /// The subnet that the sandboxes have their addresses from.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Net {
        self.address.trunc()
    }

    /// The hardware address. A bridge takes the lowest of its ports', so it may change with them.
    ///
    /// # Errors
    /// If the bridge is gone.
    pub fn mac(&self) -> Result<MacAddr> {
        self.runner.place().mac(&self.name)
    }

    /// The names of the ports.
    ///
    /// # Errors
    /// If the bridge is gone.
    pub fn ports(&self) -> Result<BTreeSet<String>> {
        let ports = format!("/sys/class/net/{}/brif", self.name);
        let names =
            self.runner.inside(|| fs::read_dir(&ports)?.map(|port| Ok(port?.file_name())).collect::<Result<Vec<_>>>());
        Ok(names?.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())
    }

    /// Plans a sandbox behind a new port.
    pub fn sandbox(&self, name: &str) -> Plan {
        Plan::new(self, name)
    }

    /// Two sandboxes with one `address`, such as `10.8.64.2/24`, set up as those of the incident were: their kernels log
    /// martian sources. Nothing is sent yet.
    ///
    /// # Errors
    /// If one of them cannot be made.
    pub fn duplicate(&self, names: [&str; 2], address: &str) -> Result<[Sandbox; 2]> {
        let [first, second] = names.map(|name| self.sandbox(name).address(address).logs_martians().start());
        Ok([first?, second?])
    }

    /// Who answers for `address`: the hardware addresses of all that reply to one probe from the runner (RFC 5227,
    /// section 2.1.1).
    ///
    /// # Errors
    /// If the bridge is gone.
    pub fn owners(&self, address: Ipv4Addr) -> Result<BTreeSet<MacAddr>> {
        let probe = Arp::probe(self.mac()?, address);
        self.runner.inside(|| wire::answers(&self.name, &probe, ANSWER))
    }
}

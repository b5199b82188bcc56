//! Sandboxes that nobody on the runner can enter.

use anyhow::{Context as _, Result};
use pnet::util::MacAddr;

use crate::{Bridge, NamespaceId, host::Place, plan, wire};

/// A sandbox without a name and without a process: only a file that this process has open keeps its network namespace
/// alive. The runner sees the port, and that there is a namespace behind it; no path leads there.
///
/// It lives as long as this value. No process of the runner is ever in it: whatever is to be done inside is done by threads
/// of this process, and by an `ip` that the runner cannot see.
#[derive(Debug)]
pub struct Sealed {
    port: String,
    place: Place,
    bridge: Bridge,
}

impl Sealed {
    pub(crate) fn new(bridge: &Bridge, addresses: &[&str]) -> Result<Self> {
        let sealed =
            Self { port: plan::random_port(), place: bridge.runner().place().sealed()?, bridge: bridge.clone() };
        let addresses: Vec<_> = addresses.iter().map(|address| (*address).to_owned()).collect();
        sealed.furnish(&addresses).context("cannot make the sealed sandbox")?;
        Ok(sealed)
    }

    /// The runner cannot name the namespace, so the pair is made from the inside.
    fn furnish(&self, addresses: &[String]) -> Result<()> {
        let runner = self.bridge.runner().holder();
        self.place.ip([format!("link add eth0 type veth peer name {} netns {runner}", self.port)])?;
        self.bridge.plug(&self.port)?;
        self.place.ip(plan::furniture(&self.bridge, addresses, false))?;
        self.bridge.wait_forwarding(&self.port)
    }

    /// The port's name on the runner: `veth` and eight hexadecimal digits.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }

    /// The hardware address of `eth0`.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn mac(&self) -> Result<MacAddr> {
        self.place.mac("eth0")
    }

    /// The identity of the network namespace, as `net:[…]` shows it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn netns(&self) -> Result<NamespaceId> {
        NamespaceId::of(&self.place.netns()?)
    }

    /// Gives `eth0` one more address, such as `10.8.64.2/24`.
    ///
    /// # Errors
    /// If it cannot be read, or is there already.
    pub fn address(&self, address: &str) -> Result<()> {
        self.place.ip([format!("address add {address} dev eth0")])
    }

    /// Takes an address from `eth0`.
    ///
    /// # Errors
    /// If it is not there.
    pub fn remove_address(&self, address: &str) -> Result<()> {
        self.place.ip([format!("address delete {address} dev eth0")])
    }

    /// Does `work` in a thread that sees the sandbox's network and the runner's files.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.place.inside(work)
    }

    /// Puts a frame on the wire as it is, whatever it says.
    ///
    /// # Errors
    /// If the link is down.
    pub fn send_frame(&self, frame: &[u8]) -> Result<()> {
        self.inside(|| wire::send("eth0", frame))
    }

    /// Removes the sandbox and waits until its port is gone from the bridge.
    ///
    /// # Errors
    /// If the port stays.
    pub fn remove(self) -> Result<()> {
        let Self { port, place, bridge } = self;
        drop(place);
        bridge.wait_unplugged(&port)
    }
}

//! Bridges of a runner.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use pnet::util::MacAddr;

use crate::{
    Plan, Runner, Sandbox, Sealed, Tap, plan, wait_until,
    wire::{self, Arp},
};

/// How long an owner may take to answer a probe. The kernel of a sandbox does it within the sender's own system call.
const ANSWER: Duration = Duration::from_millis(250);

/// How long the kernel may take to dismantle a port, or to bring one up. It is far less unless many are made at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// `BR_STATE_FORWARDING` in `include/uapi/linux/if_bridge.h`.
const FORWARDING: &str = "3";

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
        let bridge = Self { runner: runner.clone(), name: name.to_owned(), address: parsed };
        bridge.make()?;
        Ok(bridge)
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

    /// Makes many sandboxes at once, in far fewer processes than one by one: 200 take about a second of two cores.
    ///
    /// # Errors
    /// If one of them cannot be made; those that could stay until the runner ends.
    pub fn start_all(&self, plans: impl IntoIterator<Item = Plan>) -> Result<Vec<Sandbox>> {
        plan::start_all(self, plans.into_iter().collect()).context("cannot make the sandboxes")
    }

    /// A station behind a tap, as a micro VM is.
    ///
    /// # Errors
    /// If the name is taken, or there is no `/dev/net/tun`.
    pub fn tap(&self, name: &str) -> Result<Tap> {
        Tap::new(self, name)
    }

    /// A sandbox that nobody can enter, with these addresses, such as `10.8.64.2/24`.
    ///
    /// # Errors
    /// If an address cannot be read or the kernel refuses.
    pub fn sealed(&self, addresses: &[&str]) -> Result<Sealed> {
        Sealed::new(self, addresses)
    }

    /// A host of somebody else's beyond an uplink: a namespace with these addresses of its own behind a port of that name.
    ///
    /// # Errors
    /// If the port's name is taken, or the address cannot be read.
    pub fn uplink(&self, port: &str, address: &str) -> Result<Sandbox> {
        self.sandbox(&format!("beyond-{port}")).port(port).address(address).start()
    }

    /// Deletes the bridge. Its ports stay, plugged in nowhere.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn delete(&self) -> Result<()> {
        self.runner.run(["ip", "link", "delete", &self.name]).map(drop)
    }

    /// Makes the bridge anew after [`Bridge::delete`], with its name and its address, and no ports.
    ///
    /// # Errors
    /// If it is still there.
    pub fn make(&self) -> Result<()> {
        self.runner.place().ip([
            format!("link add {} type bridge", self.name),
            format!("address add {} dev {}", self.address, self.name),
            format!("link set {} up", self.name),
        ])
    }

    /// Makes an interface of the runner a port and brings it up.
    ///
    /// # Errors
    /// If there is no such interface, or the bridge is gone.
    pub fn plug(&self, interface: &str) -> Result<()> {
        self.runner.run(["ip", "link", "set", interface, "master", &self.name, "up"]).map(drop)
    }

    /// Has the bridge keep VLANs apart. Every port is in VLAN 1 then, until told otherwise.
    ///
    /// # Errors
    /// If this kernel's bridges cannot (`CONFIG_BRIDGE_VLAN_FILTERING`); see [`Bridge::knows_vlans`].
    pub fn filter_vlans(&self) -> Result<()> {
        let set = self.runner.run(["ip", "link", "set", &self.name, "type", "bridge", "vlan_filtering", "1"]);
        set.map(drop).context("the bridge keeps no VLANs apart: it takes CONFIG_BRIDGE_VLAN_FILTERING")
    }

    /// Whether this kernel's bridges can keep VLANs apart. Those that cannot pass tagged frames on as they are.
    ///
    /// # Errors
    /// If the bridge is gone.
    pub fn knows_vlans(&self) -> Result<bool> {
        let file = format!("/sys/class/net/{}/bridge/vlan_filtering", self.name);
        self.runner.inside(|| Ok(Path::new(&file).exists()))
    }

    /// Makes a port an access port: what comes untagged belongs to `vlan`, and leaves untagged.
    ///
    /// # Errors
    /// If the bridge does not filter VLANs, or has no such port.
    pub fn access(&self, port: &str, vlan: u16) -> Result<()> {
        let vlan = vlan.to_string();
        self.runner.run(["bridge", "vlan", "delete", "dev", port, "vid", "1"])?;
        self.runner.run(["bridge", "vlan", "add", "dev", port, "vid", &vlan, "pvid", "untagged"]).map(drop)
    }

    /// Lets tagged frames of `vlan` through a port, tagged.
    ///
    /// # Errors
    /// If the bridge does not filter VLANs, or has no such port.
    pub fn trunk(&self, port: &str, vlan: u16) -> Result<()> {
        self.runner.run(["bridge", "vlan", "add", "dev", port, "vid", &vlan.to_string()]).map(drop)
    }

    /// Gives the runner a device on the bridge's VLAN, such as `rt0.20`, with an address; returns its name.
    ///
    /// # Errors
    /// If this kernel has no VLAN devices (`CONFIG_VLAN_8021Q`), or the address cannot be read.
    pub fn vlan_device(&self, vlan: u16, address: &str) -> Result<String> {
        let name = format!("{}.{vlan}", self.name);
        self.runner.place().ip([
            format!("link add link {} name {name} type vlan id {vlan}", self.name),
            format!("link set {name} up"),
            format!("address add {address} dev {name}"),
        ])?;
        if self.knows_vlans()? {
            self.runner.run(["bridge", "vlan", "add", "dev", &self.name, "vid", &vlan.to_string(), "self"])?;
        }
        Ok(name)
    }

    /// Waits until the bridge passes on what comes from this port and goes to it. The kernel tells it that the link is up
    /// a moment after the link is.
    pub(crate) fn wait_forwarding(&self, port: &str) -> Result<()> {
        let file = format!("/sys/class/net/{port}/brport/state");
        let forwards = || self.runner.inside(|| Ok((fs::read_to_string(&file)?.trim() == FORWARDING).then_some(())));
        wait_until(PATIENCE, &format!("the port {port} to forward"), forwards)
    }

    /// Waits until there is no interface of that name on the runner any more.
    pub(crate) fn wait_unplugged(&self, port: &str) -> Result<()> {
        let path = Path::new("/sys/class/net").join(port);
        let gone = || self.runner.inside(|| Ok((!path.exists()).then_some(())));
        wait_until(PATIENCE, &format!("the port {port} to go"), gone)
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

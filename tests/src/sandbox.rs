//! Sandboxes: network namespaces behind a port of a bridge.

use std::{
    ffi::OsStr,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use pnet::util::MacAddr;
use serde_json::Value;

use crate::{Bridge, Command, NamespaceId, Wire, host::Place, wire};

/// A sandbox: its `eth0` is one end of a veth pair, the other is a port of the bridge; or a macvlan child of such an `eth0`.
///
/// This is a handle: the sandbox lives until it is removed or the runner ends.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    port: String,
    /// Whether the port goes with this sandbox.
    is_alone: bool,
    place: Place,
    bridge: Bridge,
}

impl Sandbox {
    pub(crate) fn new(name: &str, port: &str, is_alone: bool, place: Place, bridge: &Bridge) -> Self {
        Self { name: name.to_owned(), port: port.to_owned(), is_alone, place, bridge: bridge.clone() }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The bridge that it is plugged into.
    #[must_use]
    pub fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// The name it was planned under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port's name on the runner: `veth` and eight hexadecimal digits unless planned otherwise. A macvlan child is
    /// behind its parent's.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }

    /// The hardware address of `eth0`.
    ///
    /// # Errors
    /// If the sandbox is gone.
    pub fn mac(&self) -> Result<MacAddr> {
        self.place.mac("eth0")
    }

    /// The identity of the network namespace, as `net:[…]` shows it.
    ///
    /// # Errors
    /// If the sandbox is gone.
    pub fn netns(&self) -> Result<NamespaceId> {
        NamespaceId::of(&self.place.netns()?)
    }

    /// Runs a command to its end and returns its standard output; see [`Command::run`].
    ///
    /// # Errors
    /// If the command cannot be started or fails.
    pub fn run<S: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = S>) -> Result<String> {
        self.place.run(line)
    }

    /// A command that will run here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(&self.place, program)
    }

    /// Does `work` in a thread that sees the sandbox's network and the runner's files.
    ///
    /// # Errors
    /// Those of `work`, or if the sandbox is gone.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.place.inside(work)
    }

    /// Sets a kernel parameter of the sandbox's network.
    ///
    /// # Errors
    /// If there is no such parameter or it does not take the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.place.sysctl(name, value)
    }

    /// Gives `eth0` an address, such as `10.8.64.2/24`, and the default route by the bridge if it leads there.
    ///
    /// # Errors
    /// If the address is there already, or the sandbox is gone.
    pub fn address(&self, address: &str) -> Result<()> {
        self.add_address(address)?;
        self.route_by_the_bridge()
    }

    /// The IPv4 addresses of `eth0` with their prefix lengths, the primary one first.
    ///
    /// # Errors
    /// If the sandbox is gone.
    pub fn addresses(&self) -> Result<Vec<String>> {
        let links: Value = serde_json::from_str(&self.run(["ip", "-j", "-4", "address", "show", "dev", "eth0"])?)?;
        let addresses = links.pointer("/0/addr_info").and_then(Value::as_array).into_iter().flatten();
        let text = |entry: &Value| Some(format!("{}/{}", entry.get("local")?.as_str()?, entry.get("prefixlen")?));
        Ok(addresses.filter_map(text).collect())
    }

    /// The IPv4 routes, as `ip route` writes them.
    ///
    /// # Errors
    /// If the sandbox is gone.
    pub fn routes(&self) -> Result<Vec<String>> {
        Ok(self.run(["ip", "-4", "route", "show"])?.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// Forgets all neighbours, so that the next packet starts with a question to everybody.
    ///
    /// # Errors
    /// If the sandbox is gone.
    pub fn flush_neighbours(&self) -> Result<()> {
        self.run(["ip", "neighbour", "flush", "dev", "eth0"]).map(drop)
    }

    /// Adds a macvlan child of `eth0` (mode bridge) to the sandbox's own namespace, with an address such as
    /// `10.8.64.7/24`, and returns its hardware address. The kernel answers for each of its addresses on every interface
    /// of the namespace, as it always does, unless `net.ipv4.conf.all.arp_ignore` is set.
    ///
    /// # Errors
    /// If the name is taken, the address cannot be read, or the sandbox is gone.
    pub fn macvlan(&self, name: &str, address: &str) -> Result<MacAddr> {
        self.child(name, "type macvlan mode bridge", address)?;
        self.place.mac(name)
    }

    /// Adds a VLAN device of `eth0` (802.1Q), such as `eth0.20`, with an address, and returns its name.
    ///
    /// # Errors
    /// If this kernel has no VLAN devices (`CONFIG_VLAN_8021Q`), the address cannot be read, or the sandbox is gone.
    pub fn vlan(&self, id: u16, address: &str) -> Result<String> {
        let name = format!("eth0.{id}");
        self.child(&name, &format!("type vlan id {id}"), address)?;
        Ok(name)
    }

    fn child(&self, name: &str, kind: &str, address: &str) -> Result<()> {
        self.place.ip([
            format!("link add link eth0 name {name} {kind}"),
            format!("link set {name} up"),
            format!("address add {address} dev {name}"),
        ])
    }

    /// Puts a frame on the wire as it is, whatever it says.
    ///
    /// # Errors
    /// If the sandbox is gone or the link is down.
    pub fn send_frame(&self, frame: &[u8]) -> Result<()> {
        self.inside(|| wire::send("eth0", frame))
    }

    /// A way onto the wire that stays open, for whoever wants to send at a moment of their own.
    ///
    /// # Errors
    /// If the sandbox is gone.
    pub fn wire(&self) -> Result<Wire> {
        self.inside(|| Wire::open("eth0"))
    }

    /// Puts frames on the wire as fast as one socket can, and returns how many the kernel took. It is done when the
    /// iterator is: 200,000 frames take well under a second of one core.
    ///
    /// # Errors
    /// If the sandbox is gone or the link is down.
    pub fn flood(&self, frames: impl IntoIterator<Item = Vec<u8>> + Send) -> Result<usize> {
        self.inside(|| wire::flood("eth0", frames))
    }

    /// Removes the sandbox and waits until its port is gone from the bridge; a macvlan child leaves its parent's.
    ///
    /// # Errors
    /// If something keeps the network namespace alive, such as a process that was started there.
    pub fn remove(self) -> Result<()> {
        if !self.is_alone {
            // Nobody else sees the child go, so it goes before the namespace is dismantled.
            self.run(["ip", "link", "delete", "eth0"])?;
        }
        match self.place.netns_process() {
            Some(pid) => self.place.host.end(pid)?,
            None => self.bridge.runner().run(["ip", "netns", "delete", &self.name]).map(drop)?,
        }
        if self.is_alone { self.bridge.wait_unplugged(&self.port) } else { Ok(()) }
    }

    fn add_address(&self, address: &str) -> Result<()> {
        self.run(["ip", "address", "add", address, "dev", "eth0"]).map(drop)
    }

    /// A sandbox none of whose addresses is in the bridge's subnet has no way there.
    fn route_by_the_bridge(&self) -> Result<()> {
        let gateway = self.bridge.gateway();
        let reaches = |address: &String| address.parse::<Ipv4Net>().is_ok_and(|net| net.contains(&gateway));
        if self.addresses()?.iter().any(reaches) {
            self.run(["ip", "route", "replace", "default", "via", &gateway.to_string(), "dev", "eth0"])?;
        }
        Ok(())
    }

    pub(crate) fn join_cgroup(&self, path: &Path) -> Result<()> {
        let pid = self.place.netns_process().context("only a process can be in a cgroup")?;
        let mut cgroup = PathBuf::from(format!("/sys/fs/cgroup/lab-{}", self.place.host.pid()));
        self.make_cgroup(&cgroup)?;
        for part in path {
            cgroup.push(part);
            self.make_cgroup(&cgroup)?;
        }
        self.inside(|| fs::write(cgroup.join("cgroup.procs"), pid.to_string()).context("the cgroup takes no process"))
    }

    fn make_cgroup(&self, cgroup: &Path) -> Result<()> {
        match self.inside(|| Ok(fs::create_dir(cgroup)))? {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot make {}", cgroup.display())),
            Ok(()) => self.place.host.remove_at_the_end(cgroup),
        }
    }
}

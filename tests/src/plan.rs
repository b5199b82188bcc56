//! Plans of sandboxes, and how one or many are made of them.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::PathBuf,
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use pnet::util::MacAddr;

use crate::{Bridge, Sandbox, host::Place};

/// How many sandboxes are furnished at once. Most of the time goes to starting `ip` in each.
const HANDS: usize = 4;

/// How a sandbox is to be made. Unless told otherwise: a named network namespace, random hardware addresses as the kernel
/// deals them out, the link up before it has an address, so that nothing is announced.
#[derive(Clone, Debug)]
#[must_use = "a plan makes nothing until it is started"]
pub struct Plan {
    bridge: Bridge,
    name: String,
    link: Link,
    addresses: Vec<String>,
    sysctls: Vec<(&'static str, &'static str)>,
    mac: Option<MacAddr>,
    cgroup: Option<PathBuf>,
    anonymous: bool,
    address_first: bool,
}

/// What `eth0` is.
#[derive(Clone, Debug)]
enum Link {
    /// One end of a veth pair, whose other end is this port of the bridge; in this VLAN if it is told.
    Port { name: String, vlan: Option<u16> },
    /// A macvlan child of another sandbox's `eth0`, behind the same port.
    Child { parent: Place, port: String },
}

impl Plan {
    pub(crate) fn new(bridge: &Bridge, name: &str) -> Self {
        Self {
            bridge: bridge.clone(),
            name: name.to_owned(),
            link: Link::Port { name: random_port(), vlan: None },
            addresses: Vec::new(),
            sysctls: Vec::new(),
            mac: None,
            cgroup: None,
            anonymous: false,
            address_first: false,
        }
    }

    /// Gives `eth0` an address, such as `10.8.64.2/24`, and a default route by the bridge.
    pub fn address(mut self, address: &str) -> Self {
        self.addresses.push(address.to_owned());
        self
    }

    /// Gives `eth0` this hardware address.
    pub fn mac(mut self, mac: MacAddr) -> Self {
        self.mac = Some(mac);
        self
    }

    /// Gives the port this name, as an uplink would have (`up0`), instead of `veth` and eight hexadecimal digits.
    pub fn port(mut self, name: &str) -> Self {
        self.link = Link::Port { name: name.to_owned(), vlan: None };
        self
    }

    /// Makes the port an access port of this VLAN before its link comes up; see [`Bridge::access`].
    pub fn vlan(mut self, id: u16) -> Self {
        if let Link::Port { vlan, .. } = &mut self.link {
            *vlan = Some(id);
        }
        self
    }

    /// Makes `eth0` a macvlan child (mode bridge) of `parent`'s `eth0`: a station with a hardware address of its own
    /// behind the same port.
    pub fn macvlan_of(mut self, parent: &Sandbox) -> Self {
        self.link = Link::Child { parent: parent.place().clone(), port: parent.port().to_owned() };
        self
    }

    /// Gives the network namespace no name: only a process in it holds it, as container runtimes do.
    pub fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }

    /// Puts the process that holds the anonymous namespace into a cgroup, such as `kubepods/pod7/cri-containerd-ab12`,
    /// below one of the lab's own.
    pub fn cgroup(mut self, path: &str) -> Self {
        self.cgroup = Some(PathBuf::from(path));
        self.anonymous()
    }

    /// Has the kernel announce the address when the link comes up, which takes an address that is there before.
    pub fn announced(mut self) -> Self {
        self.address_first = true;
        self.sysctl("net.ipv4.conf.all.arp_notify", "1")
    }

    /// Has the kernel log martian sources. It looks at those in ARP requests for others only if it forwards.
    pub fn logs_martians(self) -> Self {
        self.sysctl("net.ipv4.ip_forward", "1").sysctl("net.ipv4.conf.all.log_martians", "1")
    }

    /// Spares the bridge what IPv6 says to everybody when a link comes up. Of 200 sandboxes at once it is so much that the
    /// kernel's queue (`net.core.netdev_max_backlog`) overflows and ARP is lost with it.
    pub fn without_ipv6(self) -> Self {
        self.sysctl("net.ipv6.conf.all.disable_ipv6", "1").sysctl("net.ipv6.conf.default.disable_ipv6", "1")
    }

    /// Sets a kernel parameter of the sandbox's network before the link comes up.
    pub fn sysctl(mut self, name: &'static str, value: &'static str) -> Self {
        self.sysctls.push((name, value));
        self
    }

    /// Makes the sandbox.
    ///
    /// # Errors
    /// If the kernel refuses, for instance because the name is taken; the error shows the step that failed.
    pub fn start(self) -> Result<Sandbox> {
        let (bridge, what) = (self.bridge.clone(), format!("cannot make the sandbox {}", self.name));
        let made = start_all(&bridge, vec![self]).and_then(|made| made.into_iter().next().context("nothing was made"));
        made.context(what)
    }

    fn sandbox(&self) -> Result<Sandbox> {
        let runner = self.bridge.runner().place();
        let place = if self.anonymous { runner.anonymous()? } else { runner.named(&self.name) };
        let (port, is_alone) = match &self.link {
            Link::Port { name, .. } => (name, true),
            Link::Child { port, .. } => (port, false),
        };
        Ok(Sandbox::new(&self.name, port, is_alone, place, &self.bridge))
    }

    /// What must be there before the link: its own parameters are copied from the defaults when it is made.
    fn prepare(&self, sandbox: &Sandbox) -> Result<()> {
        if let Some(path) = &self.cgroup {
            sandbox.join_cgroup(path)?;
        }
        self.sysctls.iter().try_for_each(|(name, value)| sandbox.sysctl(name, value))
    }

    /// The veth pair, made from the runner's side and plugged into the bridge.
    fn port_lines(&self, sandbox: &Sandbox) -> Result<Vec<String>> {
        let Link::Port { name: port, .. } = &self.link else { return Ok(Vec::new()) };
        let netns = sandbox.place().netns_word()?.context("no word for the network namespace")?;
        let pair = format!("link add {port} type veth peer name eth0{} netns {netns}", self.mac_words());
        Ok(vec![pair, format!("link set {port} master {} up", self.bridge.name())])
    }

    /// What only this sandbox's own namespace, or its parent's, can do.
    fn furnish(&self, sandbox: &Sandbox) -> Result<()> {
        match &self.link {
            Link::Port { name, vlan: Some(vlan) } => self.bridge.access(name, *vlan)?,
            Link::Port { vlan: None, .. } => {}
            Link::Child { parent, .. } => {
                let netns = sandbox.place().netns_word()?.context("no word for the network namespace")?;
                let mac = self.mac_words();
                parent.ip([format!("link add link eth0 name eth0{mac} netns {netns} type macvlan mode bridge")])?;
            }
        }
        sandbox.place().ip(furniture(&self.bridge, &self.addresses, self.address_first))?;
        self.bridge.wait_forwarding(sandbox.port())
    }

    fn mac_words(&self) -> String {
        self.mac.map(|mac| format!(" address {mac}")).unwrap_or_default()
    }
}

/// Brings up the links of a namespace and gives `eth0` its addresses, and the default route if one of them leads there:
/// what has no address in the bridge's subnet has no way to the gateway.
pub(crate) fn furniture(bridge: &Bridge, addresses: &[String], address_first: bool) -> Vec<String> {
    let gateway = bridge.gateway();
    let mut lines: Vec<_> = addresses.iter().map(|address| format!("address add {address} dev eth0")).collect();
    lines.insert(if address_first { lines.len() } else { 0 }, "link set eth0 up".to_owned());
    lines.insert(0, "link set lo up".to_owned());
    let reaches = |address: &String| address.parse::<Ipv4Net>().is_ok_and(|net| net.contains(&gateway));
    if addresses.iter().any(reaches) {
        lines.push(format!("route replace default via {gateway} dev eth0"));
    }
    lines
}

/// Makes many sandboxes in few processes: one `ip` for all namespaces, one for all ports, one in each namespace.
pub(crate) fn start_all(bridge: &Bridge, plans: Vec<Plan>) -> Result<Vec<Sandbox>> {
    let runner = bridge.runner().place();
    runner.ip(plans.iter().filter(|plan| !plan.anonymous).map(|plan| format!("netns add {}", plan.name)))?;
    let made: Vec<_> = plans.iter().map(Plan::sandbox).collect::<Result<_>>()?;
    let pairs: Vec<_> = plans.iter().zip(&made).collect();
    pairs.iter().try_for_each(|(plan, sandbox)| plan.prepare(sandbox))?;
    let lines = pairs.iter().map(|(plan, sandbox)| plan.port_lines(sandbox)).collect::<Result<Vec<_>>>()?;
    runner.ip(lines.into_iter().flatten())?;
    with_many_hands(&pairs, |(plan, sandbox)| plan.furnish(sandbox).with_context(|| format!("in {}", plan.name)))?;
    Ok(made)
}

/// Does `work` on each of `items`, some at a time. The first error is told, once all hands have stopped.
fn with_many_hands<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let rest = Mutex::new(items.iter());
    let next = || rest.lock().ok().and_then(|mut rest| rest.next());
    let hand = || {
        while let Some(item) = next() {
            work(item)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let hands: Vec<_> = (0..HANDS.min(items.len())).map(|_| scope.spawn(hand)).collect();
        hands.into_iter().try_for_each(|hand| hand.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// As container runtimes call the host's end of a pair: `veth` and eight hexadecimal digits.
pub(crate) fn random_port() -> String {
    format!("veth{:08x}", RandomState::new().build_hasher().finish() >> 32)
}

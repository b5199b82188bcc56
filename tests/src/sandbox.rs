//! Sandboxes: network namespaces behind a port of a bridge.

use std::{
    ffi::OsStr,
    fmt, fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::ErrorKind,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Error, Result};
use ipnet::Ipv4Net;
use pnet::util::MacAddr;
use rustix::process::Signal;
use serde_json::Value;

use crate::{Bridge, Command, NamespaceId, Process, host::Place, wait_until, wire};

/// How long a ping waits for the last answer, in seconds. A sandbox answers at once or never.
const PATIENCE: &str = "1";

/// How long the kernel may take to dismantle a network namespace, and `ping` to write its summary.
const REMOVAL: Duration = Duration::from_secs(5);

/// A sandbox: its `eth0` is one end of a veth pair, the other is a port of the bridge.
///
/// This is a handle: the sandbox lives until it is removed or the runner ends.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    port: String,
    place: Place,
    bridge: Bridge,
}

/// How a sandbox is to be made. Unless told otherwise: a named network namespace, random hardware addresses as the kernel
/// deals them out, the link up before it has an address, so that nothing is announced.
#[derive(Clone, Debug)]
#[must_use = "a plan makes nothing until it is started"]
pub struct Plan {
    bridge: Bridge,
    name: String,
    addresses: Vec<String>,
    sysctls: Vec<(&'static str, &'static str)>,
    mac: Option<MacAddr>,
    cgroup: Option<PathBuf>,
    anonymous: bool,
    address_first: bool,
}

/// Pings that go on in the background.
#[derive(Debug)]
pub struct Ping {
    process: Process,
}

/// What became of some pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Replies that came back.
    pub received: u32,
}

impl Plan {
    pub(crate) fn new(bridge: &Bridge, name: &str) -> Self {
        Self {
            bridge: bridge.clone(),
            name: name.to_owned(),
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
        let place = self.namespace()?;
        let port = format!("veth{:08x}", RandomState::new().build_hasher().finish() >> 32);
        let sandbox = Sandbox { name: self.name.clone(), port, place, bridge: self.bridge.clone() };
        self.furnish(&sandbox).with_context(|| format!("cannot make the sandbox {}", self.name))?;
        Ok(sandbox)
    }

    fn namespace(&self) -> Result<Place> {
        let runner = self.bridge.runner();
        if self.anonymous {
            return runner.place().anonymous();
        }
        runner.run(["ip", "netns", "add", &self.name])?;
        Ok(runner.place().named(&self.name))
    }

    fn furnish(&self, sandbox: &Sandbox) -> Result<()> {
        if let Some(path) = &self.cgroup {
            sandbox.join_cgroup(path)?;
        }
        for (name, value) in &self.sysctls {
            sandbox.sysctl(name, value)?;
        }
        sandbox.run(["ip", "link", "set", "lo", "up"])?;
        sandbox.plug_in(self.mac)?;
        let up = || sandbox.run(["ip", "link", "set", "eth0", "up"]).map(drop);
        let add = || self.addresses.iter().try_for_each(|address| sandbox.add_address(address));
        if self.address_first { add().and_then(|()| up()) } else { up().and_then(|()| add()) }?;
        sandbox.route_by_the_bridge()
    }
}

impl Sandbox {
    /// The name it was planned under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port's name on the runner: `veth` and eight hexadecimal digits.
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

    /// Pings `count` times, ten times a second.
    ///
    /// # Errors
    /// If the requests cannot be sent. That no reply comes is an answer, not an error.
    pub fn ping(&self, address: Ipv4Addr, count: u32) -> Result<PingReport> {
        let output = self.ping_command(address).args(["-c", &count.to_string()]).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        said.parse().with_context(|| {
            format!("{} cannot ping {address}: {}", self.name, String::from_utf8_lossy(&output.stderr).trim())
        })
    }

    /// Pings ten times a second until stopped.
    ///
    /// # Errors
    /// If `ping` cannot be started.
    pub fn keep_pinging(&self, address: Ipv4Addr) -> Result<Ping> {
        Ok(Ping { process: self.ping_command(address).spawn()? })
    }

    fn ping_command(&self, address: Ipv4Addr) -> Command {
        self.command("ping").args(["-n", "-q", "-i", "0.1", "-W", PATIENCE]).arg(address.to_string())
    }

    /// Puts a frame on the wire as it is, whatever it says.
    ///
    /// # Errors
    /// If the sandbox is gone or the link is down.
    pub fn send_frame(&self, frame: &[u8]) -> Result<()> {
        self.inside(|| wire::send("eth0", frame))
    }

    /// Removes the sandbox and waits until its port is gone from the bridge.
    ///
    /// # Errors
    /// If something keeps the network namespace alive, such as a process that was started there.
    pub fn remove(self) -> Result<()> {
        let runner = self.bridge.runner();
        match self.place.netns_process() {
            Some(pid) => self.place.host.end(pid)?,
            None => runner.run(["ip", "netns", "delete", &self.name]).map(drop)?,
        }
        let port = Path::new("/sys/class/net").join(&self.port);
        let gone = || runner.inside(|| Ok((!port.exists()).then_some(())));
        wait_until(REMOVAL, &format!("the port of {} to go", self.name), gone)
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

    /// Makes the veth pair, from the inside: the other end goes to the runner, where the first process lives.
    fn plug_in(&self, mac: Option<MacAddr>) -> Result<()> {
        let mac = mac.map(|mac| mac.to_string());
        let address = mac.iter().flat_map(|mac| ["address", mac]);
        let pair = ["type", "veth", "peer", "name", &self.port, "netns", "1"];
        self.run(["ip", "link", "add", "eth0"].into_iter().chain(address).chain(pair))?;
        self.bridge.runner().run(["ip", "link", "set", &self.port, "master", self.bridge.name(), "up"])?;
        Ok(())
    }

    fn join_cgroup(&self, path: &Path) -> Result<()> {
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

impl Ping {
    /// Stops pinging.
    ///
    /// # Errors
    /// If `ping` never got a request out, or does not stop.
    pub fn stop(mut self) -> Result<PingReport> {
        self.process.signal(Signal::INT)?;
        self.process.wait(REMOVAL)?;
        self.process.log()?.parse().map_err(|error| self.process.explain(error))
    }
}

impl PingReport {
    /// Requests without a reply.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.received)
    }
}

impl FromStr for PingReport {
    type Err = Error;

    /// Reads the summary that `ping` from iputils ends with.
    fn from_str(said: &str) -> Result<Self> {
        let summary = said.lines().find(|line| line.contains(" packets transmitted, ")).context("no summary")?;
        let mut numbers = summary.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok());
        let (sent, received) = numbers.next().zip(numbers.next()).context("no numbers in the summary")?;
        Ok(Self { sent, received })
    }
}

impl fmt::Display for PingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} answered", self.received, self.sent)
    }
}

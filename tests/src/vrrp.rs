//! keepalived in a sandbox: a real program that moves a real address.

use std::{fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use pnet::util::MacAddr;
use rustix::process::{Pid, Signal, kill_process};

use crate::{Process, Sandbox, wait_until};

/// How long keepalived may take to start, to change its state or to end. Its own clock is a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// One virtual router (RFC 5798): all its keepaliveds have the same one. The address is on `eth0` of the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vrrp {
    /// The virtual router's number, from 1.
    pub id: u8,
    /// The address that moves, which gets a prefix length of 24.
    pub address: Ipv4Addr,
    /// Whether the address moves along with the virtual router's own hardware address, on a macvlan child of `eth0`
    /// called `vrrp.` and the number.
    pub virtual_mac: bool,
}

/// A running keepalived, killed when this value goes.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
}

impl Vrrp {
    /// The virtual router's own hardware address (RFC 5798, section 7.3).
    #[must_use]
    pub fn mac(&self) -> MacAddr {
        MacAddr(0, 0, 0x5e, 0, 1, self.id)
    }

    /// Starts keepalived in a sandbox, as backup: who hears no better priority for some tenths of a second is master.
    ///
    /// # Errors
    /// If it does not start; the error shows its log.
    pub fn start(&self, sandbox: &Sandbox, priority: u8) -> Result<Keepalived> {
        let file = |kind: &str| PathBuf::from(format!("/run/lab/keepalived-{}-{}.{kind}", sandbox.name(), self.id));
        sandbox.inside(|| Ok(fs::write(file("conf"), self.configuration(sandbox.name(), priority))?))?;
        let run = sandbox.command("keepalived").args(["--dont-fork", "--log-console", "--no-syslog", "--vrrp"]);
        let run = run.arg("--use-file").arg(file("conf")).arg("--pid").arg(file("pid"));
        let mut process = run.arg("--vrrp_pid").arg(file("vrrp-pid")).spawn()?;
        process.wait_for_line("Entering BACKUP STATE (init)", PATIENCE)?;
        Ok(Keepalived { process })
    }

    fn configuration(&self, name: &str, priority: u8) -> String {
        let Self { id, address, .. } = self;
        let virtual_mac = if self.virtual_mac { format!("use_vmac vrrp.{id}") } else { String::new() };
        format!(
            "global_defs {{\n router_id {name}\n vrrp_version 3\n}}\n\
             vrrp_instance lab {{\n state BACKUP\n interface eth0\n virtual_router_id {id}\n priority {priority}\n \
             advert_int 0.1\n {virtual_mac}\n virtual_ipaddress {{\n {address}/24\n }}\n}}\n"
        )
    }
}

impl Keepalived {
    /// Waits until this one is master.
    ///
    /// # Errors
    /// If it is not in time; the error shows its log.
    pub fn wait_master(&mut self) -> Result<()> {
        self.process.wait_for_line("Entering MASTER STATE", PATIENCE).map(drop)
    }

    /// Ends it as an operator does: it takes the address away and says that it goes.
    ///
    /// # Errors
    /// If it does not end; the error shows its log.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(PATIENCE).map(drop)
    }

    /// Kills it with its child, so that nobody tidies up: the address stays on its interface, and the kernel goes on to
    /// answer for it while the other takes over.
    ///
    /// # Errors
    /// If one of the two cannot be killed.
    pub fn kill9(mut self) -> Result<()> {
        // A parent that runs would put a new child in place, and one that ends would have the child tidy up.
        self.process.signal(Signal::STOP)?;
        for child in self.children()? {
            kill_process(child, Signal::KILL)?;
            let gone = || Ok(is_dead(child).then_some(()));
            wait_until(PATIENCE, "keepalived's child to end", gone)?;
        }
        self.process.kill()
    }

    fn children(&self) -> Result<Vec<Pid>> {
        let pid = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        children.split_whitespace().map(|pid| Pid::from_raw(pid.parse()?).context("0 is no process")).collect()
    }
}

/// Whether the process is gone, or waits for its parent to ask after it (state Z in proc_pid_stat(5)).
fn is_dead(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
}

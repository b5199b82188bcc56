//! The programs that a user would take instead, each as its authors would have it run for this purpose.
//!
//! All of them tell of a duplicate by a line on standard output. Their lines are read here the moment they are written,
//! by the same reader for all, and unbuffered as far as the program can be brought to it.

mod heard;
mod listening;

use std::{collections::HashMap, env, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{Bridge, Command, Process, Runner, Stream, wait_until};

pub(super) use heard::Heard;

/// How long a program may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that hears ARP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Names a change of the hardware address, and every change back.
    Arpwatch,
    /// Names an address that comes from another hardware address, if it knows both. Its flood guard is raised.
    Arpalert,
    /// Names nothing, but prints every new pair of addresses: whoever compares them finds the duplicates.
    Addrwatch,
    /// Names duplicates by its display filter.
    Tshark,
    /// Only stores what it hears.
    Tcpdump,
}

/// Reads a program's lines, one after the other: which address each of them names a duplicate.
type Listener = Box<dyn FnMut(&str) -> Option<Ipv4Addr> + Send>;

/// A peer that listens, killed when this value goes.
#[derive(Debug)]
pub(super) struct Running {
    process: Process,
    heard: Heard,
}

impl Peer {
    /// The program's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Arpwatch => "arpwatch",
            Self::Arpalert => "arpalert",
            Self::Addrwatch => "addrwatch",
            Self::Tshark => "tshark",
            Self::Tcpdump => "tcpdump",
        }
    }

    /// Whether the program is there. All but addrwatch are Debian's.
    pub(super) fn is_installed(self) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|directory| directory.join(self.name()).is_file())
    }

    /// Starts it where it hears most for the least: on the bridge's own device, in promiscuous mode, where it gets each
    /// frame once. It listens when this returns.
    ///
    /// # Errors
    /// When it is not there, or does not listen in time.
    pub(super) fn start(self, bridge: &Bridge) -> Result<Running> {
        self.start_on(bridge, &[bridge.name()])
    }

    /// Starts it on these interfaces of the bridge's runner. Only arpalert, addrwatch and tshark take more than one.
    ///
    /// # Errors
    /// When it is not there, or does not listen in time.
    pub(super) fn start_on(self, bridge: &Bridge, interfaces: &[&str]) -> Result<Running> {
        let command = self.command(bridge.runner(), interfaces)?;
        let mut running = Running::start(command, self.listener())?;
        running.wait_until_it_listens(interfaces.len())?;
        Ok(running)
    }

    fn command(self, runner: &Runner, interfaces: &[&str]) -> Result<Command> {
        let on = |flag| interfaces.iter().flat_map(move |interface| [flag, *interface]);
        let scratch = runner.dir().to_string_lossy();
        let files = |kind: &str| new_file(runner, &format!("{}{kind}", self.name()));
        // Those that write to a pipe by the block do it by the line.
        let by_the_line = || runner.command("stdbuf").args(["-oL", self.name()]);
        Ok(match self {
            Self::Arpwatch => by_the_line().args(["-d", "-N", "-f"]).arg(files(".dat")?).args(on("-i")),
            Self::Arpalert => {
                let config = files(".conf")?;
                runner.command("tee").arg(&config).input(&arpalert_config(&scratch))?.run()?;
                by_the_line().arg("-f").arg(config).args(["-F", "-P", "-i", &interfaces.join(",")])
            }
            Self::Addrwatch => by_the_line().args(interfaces),
            Self::Tshark => runner
                .command("tshark")
                .env("TMPDIR", &*scratch)
                .args(["-l", "-n", "-f", "arp"])
                .args(on("-i"))
                .args(["-Y", "arp.duplicate-address-detected"]),
            Self::Tcpdump => {
                // By root: its own user may not write here.
                let listen = runner.command("tcpdump").args(["-n", "-Z", "root"]).args(on("-i"));
                listen.arg("-w").arg(files(".pcap")?).arg("arp")
            }
        })
    }

    /// Finds in its lines, one after the other, the addresses that are named duplicates.
    fn listener(self) -> Listener {
        match self {
            Self::Arpwatch => Box::new(arpwatch),
            Self::Arpalert => Box::new(arpalert),
            Self::Addrwatch => {
                let mut known = HashMap::new();
                Box::new(move |line| {
                    let (address, station) = addrwatch(line)?;
                    let before = known.insert(address, station.to_owned());
                    before.is_some_and(|before| before != station).then_some(address)
                })
            }
            Self::Tshark => Box::new(tshark),
            Self::Tcpdump => Box::new(|_| None),
        }
    }
}

impl Running {
    /// Starts a program whose lines name addresses as `named` reads them.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(
        command: Command,
        named: impl FnMut(&str) -> Option<Ipv4Addr> + Send + 'static,
    ) -> Result<Self> {
        let (process, lines) = command.spawn_piped(Stream::Output)?;
        Ok(Self { process, heard: Heard::of(lines, named) })
    }

    /// What it has named.
    pub(super) fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Its process id, as the machine counts.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Has it end, and returns what it wrote to standard error: tcpdump and tshark tell there what they lost.
    ///
    /// # Errors
    /// When it does not end.
    pub(super) fn stop(self) -> Result<String> {
        self.process.last_words(PATIENCE)
    }

    fn wait_until_it_listens(&mut self, interfaces: usize) -> Result<()> {
        let listens = || {
            ensure!(self.process.is_running()?, "it has ended: {}", self.process.log()?);
            Ok((listening::sockets(self.process.pid())? >= interfaces).then_some(()))
        };
        wait_until(PATIENCE, "it to listen", listens)
    }
}

/// An empty file on the runner.
fn new_file(runner: &Runner, name: &str) -> Result<PathBuf> {
    let file = runner.dir().join(name);
    runner.command("truncate").args(["-s", "0"]).arg(&file).run().context("no scratch file")?;
    Ok(file)
}

/// All that it can say is said, on standard output, and no flood makes it deaf. What is not named here is as it is by
/// default.
fn arpalert_config(scratch: &str) -> String {
    format!(
        "maclist file = /dev/null\n\
         maclist alert file = /dev/null\n\
         maclist leases file = {scratch}/arpalert.leases\n\
         lock file = {scratch}/arpalert.pid\n\
         use syslog = false\n\
         log level = 6\n\
         user = root\n\
         daemon = false\n\
         dump inter = 3600\n\
         catch only arp = true\n\
         anti flood interval = 0\n\
         anti flood global = 100000000\n\
         max request = 100000000\n\
         max entry = 1000000\n\
         log new address = true\n\
         log ip change = true\n\
         log mac change = true\n\
         log flood = true\n"
    )
}

/// `Subject: changed ethernet address (10.8.3.48) rt0`, one line of a report.
fn arpwatch(line: &str) -> Option<Ipv4Addr> {
    let (what, rest) = line.strip_prefix("Subject: ")?.split_once(" (")?;
    let (address, _) = rest.split_once(')')?;
    ["changed ethernet address", "flip flop"].contains(&what).then(|| address.parse().ok())?
}

/// `Nov  26 16:05:44 arpalert: seq=150, mac=02:00:00:02:00:31, ip=10.8.3.49, reference=, type=mac_change, dev=rt0, …`
fn arpalert(line: &str) -> Option<Ipv4Addr> {
    let (_, fields) = line.split_once("arpalert: ")?;
    let field = |name: &str| fields.split(", ").find_map(|field| field.strip_prefix(name));
    (field("type=")? == "mac_change").then(|| field("ip=")?.parse().ok())?
}

/// `1764173144 rt0 0 02:00:00:02:00:31 10.8.3.49 ARP_REQ`: time, interface, VLAN, the pair, by what.
fn addrwatch(line: &str) -> Option<(Ipv4Addr, &str)> {
    let mut fields = line.split(' ').skip(3);
    let (station, address) = (fields.next()?, fields.next()?);
    Some((address.parse().ok()?, station))
}

/// `… ARP 42 ARP Announcement for 10.8.3.1 (duplicate use of 10.8.3.1 detected!)`
fn tshark(line: &str) -> Option<Ipv4Addr> {
    let (_, rest) = line.split_once("(duplicate use of ")?;
    rest.split_once(" detected!")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a peer finds in lines of its own.
    fn found(peer: Peer, lines: &[&str]) -> Vec<Ipv4Addr> {
        let mut listener = peer.listener();
        lines.iter().filter_map(|line| listener(line)).collect()
    }

    #[test]
    fn arpwatch_names_changes_and_no_new_stations() {
        let lines = [
            "Subject: new station (10.8.3.0) rt0",
            "          ip address: 10.8.3.0",
            "Subject: changed ethernet address (10.8.3.48) rt0",
            "Subject: flip flop (10.8.3.49) rt0",
        ];
        assert_eq!(found(Peer::Arpwatch, &lines), [[10, 8, 3, 48], [10, 8, 3, 49]].map(Ipv4Addr::from));
    }

    #[test]
    fn arpalert_names_changes_of_who_has_an_address() {
        let lines = [
            "Nov  26 16:03:56 arpalert: Selected device: v1",
            "Nov  26 16:04:02 arpalert: seq=7, mac=02:00:00:00:00:02, ip=10.8.3.1, type=new, dev=v1, vendor=\"(null)\"",
            "Nov  26 16:04:02 arpalert: seq=8, mac=02:00:00:00:00:02, ip=10.8.3.2, reference=, type=mac_change, dev=v1, vendor=\"(null)\"",
            "Nov  26 16:04:02 arpalert: seq=12, mac=02:00:00:00:00:02, ip=10.8.3.3, reference=10.8.3.1, type=ip_change, dev=v2, vendor=\"(null)\"",
        ];
        assert_eq!(found(Peer::Arpalert, &lines), [Ipv4Addr::new(10, 8, 3, 2)]);
    }

    #[test]
    fn tshark_names_duplicates_in_what_it_says_of_a_frame() {
        let lines = [
            "    3 2.244828726 02:00:00:00:00:02 → ff:ff:ff:ff:ff:ff ARP 42 ARP Announcement for 10.8.3.1 (duplicate use of 10.8.3.1 detected!)",
            "    4 2.244913162 02:00:00:00:00:02 → ff:ff:ff:ff:ff:ff ARP 42 ARP Announcement for 10.8.3.2",
        ];
        assert_eq!(found(Peer::Tshark, &lines), [Ipv4Addr::new(10, 8, 3, 1)]);
    }

    #[test]
    fn of_what_addrwatch_prints_a_second_station_is_a_duplicate() {
        let lines = ["1", "2"].map(|end| format!("1764173144 rt0 0 02:00:00:02:00:3{end} 10.8.3.49 ARP_REQ"));
        let [one, two] = [&*lines[0], &*lines[1]];
        assert_eq!(found(Peer::Addrwatch, &[one, one]), <[Ipv4Addr; 0]>::default());
        assert_eq!(found(Peer::Addrwatch, &[one, two]), [Ipv4Addr::new(10, 8, 3, 49)]);
    }
}

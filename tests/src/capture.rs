//! Captures of what really stood on the wire, and what other programs say of them.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::{Command, Process, Runner, Sandbox, wait_until};

/// How long a capturing program may take to listen, to write and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A capture that goes on until it is stopped. Its file is in the runner's directory and goes with the runner.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
    runner: Runner,
}

impl Runner {
    /// Captures on an interface of the runner into a pcap file: a port, the bridge, or `any` (which the kernel gives a
    /// link header of its own, LINUX_SLL2). From when this returns, nothing is missed.
    ///
    /// # Errors
    /// If there is no such interface, or no tcpdump.
    pub fn capture(&self, interface: &str) -> Result<Capture> {
        Capture::tcpdump(self, self.command("tcpdump"), interface)
    }

    /// Captures on several interfaces into one pcapng file, which names the interface of each frame.
    ///
    /// # Errors
    /// If there is no such interface, or no dumpcap.
    pub fn capture_ports(&self, interfaces: &[&str]) -> Result<Capture> {
        Capture::dumpcap(self, interfaces)
    }

    /// What arpwatch says of a capture (a path on the runner), one line each. First its reports, such as
    /// `flip flop 10.8.64.2 42:39:61:f3:09:34 32:a5:9b:76:39:26` (what, the address, its hardware address, the one before);
    /// then what it only logs, such as `ignored 0.0.0.0 42:39:61:f3:09:34`. It starts with an empty memory.
    ///
    /// # Errors
    /// If arpwatch cannot read the file.
    pub fn arpwatch(&self, capture: &Path) -> Result<Vec<String>> {
        let memory = new_file(self, "dat");
        self.run(["touch".as_ref(), memory.as_os_str()])?;
        let output = self.command("arpwatch").arg("-d").arg("-r").arg(capture).arg("-f").arg(&memory).output()?;
        let [said, logged] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        ensure!(output.status.success(), "arpwatch fails with {}: {logged}", output.status);
        let logged = logged.lines().map(|line| line.trim_start_matches("arpwatch: ").trim_end_matches(" (from file)"));
        Ok(reports(&said).into_iter().chain(logged.map(str::to_owned)).collect())
    }

    /// Writes a capture of this runner anew as pcapng, and returns the new path on the runner.
    ///
    /// # Errors
    /// If `editcap` cannot read it.
    pub fn pcapng(&self, capture: &Path) -> Result<PathBuf> {
        let file = new_file(self, "pcapng");
        self.command("editcap").args(["-F", "pcapng"]).arg(capture).arg(&file).run()?;
        Ok(file)
    }

    /// How many frames of a capture (a path on the runner) pass a filter such as `arp`.
    ///
    /// # Errors
    /// If tcpdump cannot read the file or the filter.
    pub fn count(&self, capture: &Path, filter: &str) -> Result<usize> {
        let listed = self.command("tcpdump").args(["-n", "-t", "-r"]).arg(capture).arg(filter).run()?;
        Ok(listed.lines().count())
    }
}

impl Sandbox {
    /// Captures on `eth0` into a pcap file, as [`Runner::capture`] does.
    ///
    /// # Errors
    /// If there is no tcpdump.
    pub fn capture(&self) -> Result<Capture> {
        Capture::tcpdump(self.bridge().runner(), self.command("tcpdump"), "eth0")
    }
}

impl Capture {
    fn tcpdump(runner: &Runner, tcpdump: Command, interface: &str) -> Result<Self> {
        let file = new_file(runner, "pcap");
        // Each frame is written when it comes, by root: tcpdump's own user may not write here.
        let listen = tcpdump.args(["-n", "-U", "--immediate-mode", "-Z", "root", "-B", "16384", "-i", interface, "-w"]);
        let mut process = listen.arg(&file).spawn()?;
        process.wait_for_line("listening on", PATIENCE)?;
        Ok(Self { process, file, runner: runner.clone() })
    }

    fn dumpcap(runner: &Runner, interfaces: &[&str]) -> Result<Self> {
        let file = new_file(runner, "pcapng");
        let named = interfaces.iter().flat_map(|interface| ["-i", interface]);
        let mut process = runner.command("dumpcap").args(["-q"]).args(named).arg("-w").arg(&file).spawn()?;
        process.wait_for_line("File: ", PATIENCE)?;
        Ok(Self { process, file, runner: runner.clone() })
    }

    /// The file, on the runner: what programs there are to be given.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Waits until at least so many frames that pass `filter` are in the file, and returns how many there are.
    ///
    /// # Errors
    /// If there are fewer after `deadline`.
    pub fn wait_for(&self, filter: &str, frames: usize, deadline: Duration) -> Result<usize> {
        wait_until(deadline, &format!("{frames} frames of `{filter}`"), || {
            // A file that is being written may end within a frame: that is no frame yet.
            let count = self.runner.count(&self.file, filter).unwrap_or_default();
            Ok((count >= frames).then_some(count))
        })
    }

    /// Stops and returns the file's path on the runner; [`Runner::outside`] tells where the machine sees it, as long as
    /// there is the runner.
    ///
    /// # Errors
    /// If the program does not end, or has lost frames; the error shows what it says.
    pub fn stop(mut self) -> Result<PathBuf> {
        self.process.signal(Signal::INT)?;
        self.process.wait(PATIENCE)?;
        let log = self.process.log()?;
        let lost = log.lines().find(|line| line.ends_with("dropped by kernel") && !line.starts_with("0 "));
        ensure!(lost.is_none(), "the capture is not whole: {log}");
        Ok(self.file)
    }
}

/// A path in the runner's directory that nothing has yet.
fn new_file(runner: &Runner, kind: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    runner.dir().join(format!("capture-{}.{kind}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// arpwatch writes a mail for each report: headers, an empty line, and a field on each line.
fn reports(said: &str) -> Vec<String> {
    let field =
        |mail: &str, name: &str| Some(mail.lines().find_map(|line| line.trim_start().strip_prefix(name))?.to_owned());
    let report = |mail: &str| {
        let subject = mail.split(" (").next().map(str::to_owned);
        let fields = ["ip address: ", "ethernet address: ", "old ethernet address: "].map(|name| field(mail, name));
        [subject].into_iter().chain(fields).flatten().collect::<Vec<_>>().join(" ")
    };
    said.split("Subject: ").skip(1).map(report).collect()
}

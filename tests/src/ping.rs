//! Pings, and what became of them.

use std::{fmt, net::Ipv4Addr, str::FromStr, time::Duration};

use anyhow::{Context as _, Error, Result};
use rustix::process::Signal;

use crate::{Command, Process, Sandbox};

/// How long a ping waits for the last answer, in seconds. A sandbox answers at once or never.
const PATIENCE: &str = "1";

/// How long `ping` may take to write its summary.
const SUMMARY: Duration = Duration::from_secs(5);

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

impl Sandbox {
    /// Pings `count` times, ten times a second.
    ///
    /// # Errors
    /// If the requests cannot be sent. That no reply comes is an answer, not an error.
    pub fn ping(&self, address: Ipv4Addr, count: u32) -> Result<PingReport> {
        let output = self.ping_command(address).args(["-c", &count.to_string()]).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        said.parse().with_context(|| {
            format!("{} cannot ping {address}: {}", self.name(), String::from_utf8_lossy(&output.stderr).trim())
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
}

impl Ping {
    /// Stops pinging.
    ///
    /// # Errors
    /// If `ping` never got a request out, or does not stop.
    pub fn stop(mut self) -> Result<PingReport> {
        self.process.signal(Signal::INT)?;
        self.process.wait(SUMMARY)?;
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

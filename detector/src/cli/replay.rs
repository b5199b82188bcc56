//! `dupip replay`: recorded frames, judged as the agent would have judged them.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    conflicts, events,
    exit::{self, Exit, Failure, note},
    policy::PolicyArgs,
    render::{Format, Look, Output, json, print},
};
use crate::{
    allocator::read_leases,
    engine::Finding,
    http::{
        Wall,
        api::{Event, Incident},
        incident, told,
    },
    net::{BridgeName, Ipv4Net, Mac},
    replay::{Merged, Recording, Replay, Settings, Source, Summary, Unreadable},
    telemetry::Telemetry,
    time::Timestamp,
};

const EXAMPLES: &str = "\
Examples:
  dupip replay bridge.pcap --network 10.8.64.1/24        one file for the whole bridge
  dupip replay vethA.pcap vethB.pcap rt0.pcap --bridge rt0 --network 10.8.64.1/24
  dupip replay sportsagent=a.pcap reviewagent=b.pcap --leases leases.db
  dupip replay any.pcap --network 10.8.64.1/24 -o json | jq '.incidents[]'

How to record, best first:
  tcpdump -i any -w any.pcap arp          each interface is a port, named if and its index
  tcpdump -i vethA -Q in -w vethA.pcap    one file for each port, named as the port
  tcpdump -i rt0 -w bridge.pcap           one file for the bridge: each hardware address is taken
                                          for a port of its own, and replies between two sandboxes
                                          are not in it

Files may be pcap or pcapng, with microseconds or nanoseconds; the interfaces of a pcapng file
are ports each. Frames of all files are judged in the order of their times. Of a frame that a
bridge has sent on, the first copy counts. Whoever first claims the host's address is taken for
the host, unless --host-mac says who it is.

Exit codes: 0 nothing found, 1 a duplicate or a martian was found, 2 no capture, 65 a file is
damaged or cut off; what comes before the damage is judged and shown.";

/// Findings that are kept for JSON; more than that are only counted.
const KEPT: usize = 100_000;
/// After how many frames to look at the clock.
const ROUND: u64 = 1 << 14;
/// How long nobody needs to be told how far it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Judge recorded frames as the agent would have: pcap and pcapng files
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The captures; PORT=FILE names the port, or who is behind it
    #[arg(value_name = "[PORT=]FILE", required = true)]
    sources: Vec<Source>,
    /// The host's address on the bridge, with its subnet; may be given more than once
    #[arg(long = "network", value_name = "ADDRESS/LEN", value_delimiter = ',')]
    networks: Vec<Ipv4Net>,
    /// What to call the bridge; a file or interface of this name is the bridge device
    #[arg(long, value_name = "NAME", default_value = "bridge")]
    bridge: BridgeName,
    /// The host's hardware address on the bridge
    #[arg(long, value_name = "MAC")]
    host_mac: Option<Mac>,
    /// The lease database of that time, which is only read
    #[arg(long, value_name = "PATH")]
    leases: Option<PathBuf>,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    format: Format,
}

/// What was found, as JSON.
#[derive(Debug, Serialize)]
struct Answer {
    incidents: Vec<Incident>,
    findings: Vec<Event>,
    /// Findings that were too many to be kept.
    more_findings: u64,
    summary: Counts,
}

/// What was replayed, as JSON.
#[derive(Debug, Serialize)]
struct Counts {
    #[serde(flatten)]
    summary: Summary,
    from: Option<String>,
    to: Option<String>,
    /// Who was taken for the host.
    host: Option<String>,
    /// Whether only hardware addresses told senders apart.
    by_mac: bool,
    /// What is wrong with the files.
    flaws: Vec<String>,
}

impl Args {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let settings = self.settings()?;
        let recordings = self.sources.into_iter().map(Recording::open).collect::<Result<_, _>>()?;
        let telemetry = Telemetry::new().map_err(|error| Failure::new(Exit::Bug, error))?;
        let (mut merged, mut replay) = (Merged::new(recordings), Replay::new(settings));
        let (mut teller, mut progress) = (Teller::new(telemetry, &self.format), Progress::new());
        while replay.step(&mut merged, &mut |at, finding| teller.tell(at, finding)) {
            teller.flush()?;
            progress.tell(replay.summary().frames, &merged);
        }
        progress.end();
        teller.finish(&replay, &merged)?;
        end(&replay, &merged)
    }

    fn settings(&self) -> Result<Settings, Failure> {
        if self.networks.is_empty() {
            note("no --network is given: it is not known which addresses are the host's, or at home on the bridge");
        }
        Ok(Settings {
            bridge: self.bridge,
            networks: self.networks.clone(),
            host: self.host_mac,
            policy: self.policy.policy()?,
            leases: self.leases.as_deref().map(read_leases).transpose()?.unwrap_or_default(),
        })
    }
}

/// Shows findings as they come, or keeps them for JSON.
struct Teller {
    telemetry: Telemetry,
    output: Output,
    look: Look,
    wall: Wall,
    lines: String,
    findings: Vec<Event>,
    count: u64,
}

impl Teller {
    fn new(telemetry: Telemetry, format: &Format) -> Self {
        let (lines, findings) = (String::new(), Vec::new());
        let (output, look) = (format.output, format.look());
        Self { telemetry, output, look, wall: Wall::recorded(), lines, findings, count: 0 }
    }

    fn tell(&mut self, at: Timestamp, finding: &Finding) {
        let Some(event) = self.telemetry.event(finding) else { return };
        self.count += 1;
        let event = told(&event, self.count, at, self.wall);
        match self.output {
            Output::Json if self.findings.len() < KEPT => self.findings.push(event),
            Output::Json => {}
            _ => self.lines += &events::line(&event, self.look),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.lines.is_empty() { Ok(()) } else { print(std::mem::take(&mut self.lines)) }
    }

    fn finish(self, replay: &Replay, merged: &Merged) -> Result<(), Failure> {
        let wall = self.wall;
        let incidents: Vec<_> = replay.incidents().map(|of| incident(of, wall)).collect();
        let counts = Counts::of(replay, merged, wall);
        if self.output != Output::Json {
            let told: String = incidents.iter().map(|of| conflicts::tell(of, self.look) + "\n").collect();
            let gap = if self.count == 0 { "" } else { "\n" };
            return print(format!("{gap}{told}{}", counts.text()));
        }
        let more_findings = self.count - self.findings.len() as u64;
        print(json(&Answer { incidents, findings: self.findings, more_findings, summary: counts })?)
    }
}

impl Counts {
    fn of(replay: &Replay, merged: &Merged, wall: Wall) -> Self {
        let summary = replay.summary().clone();
        Self {
            from: summary.span.map(|(first, _)| wall.text(first)),
            to: summary.span.map(|(_, last)| wall.text(last)),
            summary,
            host: replay.host().map(|mac| mac.to_string()),
            by_mac: replay.is_by_station(),
            flaws: merged.flaws().map(|(file, flaw)| format!("{} {flaw}", file.path().display())).collect(),
        }
    }

    /// What was replayed, in a few lines. What did not happen is not told.
    fn text(&self) -> String {
        let Summary { frames, copies, foreign, out_of_order, passed_on, unplaced, ports, .. } = &self.summary;
        let time = self.from.iter().zip(&self.to).map(|(from, to)| format!(", {from} to {to}")).collect::<String>();
        let mut lines = vec![format!("{frames} frames of {ports} ports{time}")];
        lines.extend(self.summary.claims.iter().map(|(kind, count)| format!("  claims by {kind}: {count}")));
        lines.extend(self.summary.malformed.iter().map(|(reason, count)| format!("  malformed ({reason}): {count}")));
        lines.extend(self.summary.martians.iter().map(|(reason, count)| format!("  martian ({reason}): {count}")));
        for (count, what) in [
            (copies, "copies of frames that were judged already"),
            (foreign, "not Ethernet, and so not judged"),
            (out_of_order, "behind later frames in their file"),
            (passed_on, "IPv4 packets that may come from far behind their sender"),
            (unplaced, "of more ports than are told apart, and so not judged"),
        ] {
            lines.extend((*count > 0).then(|| format!("  {what}: {count}")));
        }
        lines.extend(
            self.by_mac.then(|| "  one file for the bridge: each hardware address is taken for a port".to_owned()),
        );
        lines.extend(self.host.as_ref().map(|mac| format!("  the host is {mac}")));
        lines.join("\n") + "\n"
    }
}

/// What was found is the answer, unless something could not be read.
fn end(replay: &Replay, merged: &Merged) -> Result<Exit, Failure> {
    let flaws: Vec<_> = merged.flaws().map(|(file, flaw)| format!("{} {flaw}", file.path().display())).collect();
    if !flaws.is_empty() {
        return Err(Failure::new(Exit::Damaged, flaws.join("; ")).hint("what comes before that was judged"));
    }
    let found = replay.incidents().next().is_some() || !replay.summary().martians.is_empty();
    Ok(if found { Exit::No } else { Exit::Fine })
}

/// How far it is, for whoever sits before a terminal and waits.
struct Progress {
    begun: Instant,
    is_wanted: bool,
    is_shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { begun: Instant::now(), is_wanted: io::stderr().is_terminal(), is_shown: false }
    }

    fn tell(&mut self, frames: u64, merged: &Merged) {
        if !self.is_wanted || !frames.is_multiple_of(ROUND) || self.begun.elapsed() < PATIENCE {
            return;
        }
        let (len, read) = merged.progress();
        let percent = (read * 100).checked_div(len).unwrap_or_default();
        self.is_shown = write!(io::stderr(), "\r{frames} frames, {percent} %").is_ok();
    }

    fn end(&self) {
        if self.is_shown {
            // Nothing helps if even that cannot be written to.
            let _ = write!(io::stderr(), "\r{:40}\r", "");
        }
    }
}

impl From<Unreadable> for Failure {
    fn from(error: Unreadable) -> Self {
        let exit = match &error {
            Unreadable::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => exit::of_io(source),
            _ => Exit::Usage,
        };
        Self::new(exit, error)
    }
}

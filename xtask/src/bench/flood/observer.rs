//! Who watches a flood, and what it knows in the end.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result};
use lab::{Agent, Dupip, Mode};

use super::scene::{CLAIMS, CONTESTED, Owner, Scene, is_claimed};
use crate::bench::{
    Bench,
    cpu::{CpuTime, Resident},
    peers::{Heard, Peer, Running},
};

/// How long an observer may take to learn what it is taught.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to come to rest after a flood, and how little it does then: one part in a hundred of a core.
const AFTERMATH: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(200);
const REST: Duration = Duration::from_millis(2);

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observer {
    /// The sender's own pace.
    Nobody,
    /// As it is unless an operator says otherwise.
    Guarded,
    /// Without a limit on what is new, and with room for all of it.
    Unguarded,
    /// Another program.
    Peer(Peer),
}

/// An observer that listens, gone when this value is.
pub(super) enum Watching {
    Nobody,
    Dupip(Agent, Heard),
    Peer(Peer, Running, PathBuf),
}

/// What an observer has missed of a flood.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Missed {
    /// Frames that it says it has lost, if it says so.
    pub(super) lost: Option<f64>,
    /// Claims of the flood that are not in what it keeps.
    pub(super) claims: Option<f64>,
}

impl Missed {
    /// The worse of two.
    pub(super) fn or_worse(self, other: Self) -> Self {
        let worse = |one: Option<f64>, other: Option<f64>| one.into_iter().chain(other).reduce(f64::max);
        Self { lost: worse(self.lost, other.lost), claims: worse(self.claims, other.claims) }
    }
}

impl Observer {
    pub(super) const ALL: [Self; 7] = [
        Self::Nobody,
        Self::Guarded,
        Self::Unguarded,
        Self::Peer(Peer::Tcpdump),
        Self::Peer(Peer::Addrwatch),
        Self::Peer(Peer::Arpwatch),
        Self::Peer(Peer::Arpalert),
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Guarded => "dupip, guard on",
            Self::Unguarded => "dupip, guard off",
            Self::Peer(Peer::Tcpdump) => "tcpdump -w",
            Self::Peer(peer) => peer.name(),
        }
    }

    /// Whether it is there.
    pub(super) fn is_installed(self) -> bool {
        match self {
            Self::Peer(peer) => peer.is_installed(),
            _ => true,
        }
    }

    pub(super) fn is_dupip(self) -> bool {
        matches!(self, Self::Guarded | Self::Unguarded)
    }

    /// Whether it tells of duplicates.
    pub(super) fn names(self) -> bool {
        !matches!(self, Self::Nobody | Self::Peer(Peer::Tcpdump))
    }

    /// Starts it. It knows everybody but the flooder when this returns.
    ///
    /// # Errors
    /// When it does not start or does not learn.
    pub(super) fn watch(self, bench: &Bench, scene: &Scene) -> Result<Watching> {
        let mut watching = match self {
            Self::Nobody => Watching::Nobody,
            Self::Guarded => dupip(bench, scene, &[])?,
            Self::Unguarded => {
                let room = (CLAIMS + CONTESTED).to_string();
                dupip(bench, scene, &["--claims-per-second", "0", "--claims-per-port", &room])?
            }
            Self::Peer(peer) => {
                let directory = scene.bridge.runner().outside(scene.bridge.runner().dir());
                Watching::Peer(peer, peer.start(&scene.bridge)?, directory)
            }
        };
        let owner = if matches!(self, Self::Peer(_)) { Owner::Stations } else { Owner::Sandbox };
        scene.teach(owner)?;
        watching.learn()?;
        Ok(watching)
    }
}

fn dupip(bench: &Bench, scene: &Scene, args: &[&str]) -> Result<Watching> {
    let database = bench.scratch.fresh("flood")?.join("leases.db");
    let dupip = Dupip::at(&scene.bridge, &bench.programs.dupip)?.keeping(&database.to_string_lossy()).logging("info");
    let (agent, log) = dupip.start_piped(Mode::Observe, args)?;
    Ok(Watching::Dupip(agent, Heard::of(log, duplicate)))
}

/// The address that a line of dupip's log names as a duplicate.
fn duplicate(line: &str) -> Option<Ipv4Addr> {
    let (_, fields) = line.split_once(r#" event="duplicate" "#)?;
    fields.split(' ').find_map(|field| field.strip_prefix("address="))?.parse().ok()
}

impl Watching {
    fn pid(&self) -> Option<u32> {
        match self {
            Self::Nobody => None,
            Self::Dupip(agent, _) => Some(agent.pid()),
            Self::Peer(_, running, _) => Some(running.pid()),
        }
    }

    /// What it has named; nothing if it is nobody.
    pub(super) fn heard(&self) -> Heard {
        match self {
            Self::Nobody => Heard::default(),
            Self::Dupip(_, heard) => heard.clone(),
            Self::Peer(_, running, _) => running.heard().clone(),
        }
    }

    pub(super) fn cpu(&self) -> Result<Option<CpuTime>> {
        self.pid().map(CpuTime::of).transpose()
    }

    pub(super) fn resident(&self) -> Result<Option<Resident>> {
        self.pid().map(Resident::of).transpose()
    }

    /// Waits until it has done what it had to do.
    pub(super) fn rest(&self) -> Result<()> {
        let mut before = self.cpu()?;
        for _ in 0..AFTERMATH.as_millis() / LOOK.as_millis() {
            let Some(last) = before else { return Ok(()) };
            thread::sleep(LOOK);
            before = self.cpu()?;
            if before.is_none_or(|now| now.since(last).total() < REST) {
                break;
            }
        }
        Ok(())
    }

    /// Waits until it knows what it was taught.
    fn learn(&mut self) -> Result<()> {
        if let Self::Dupip(agent, _) = self {
            let taught = f64::from(2 * CONTESTED);
            let knows = |agent: &Agent| agent.metric(r#"dupip_bindings{bridge="rt0"}"#);
            let all = |agent: &mut Agent| Ok(knows(agent)?.filter(|bindings| *bindings >= taught));
            agent.wait_until(PATIENCE, "the agent to know everybody", all)?;
        }
        self.rest()
    }

    /// Has it end, and asks what it has missed of so many claims.
    ///
    /// # Errors
    /// When it does not answer or does not end.
    pub(super) fn missed(self, claims: u32) -> Result<Missed> {
        let missing = |known: u32| Some(f64::from(claims) - f64::from(known));
        match self {
            Self::Nobody => Ok(Missed::default()),
            Self::Dupip(agent, _) => {
                let lost = agent.metric(r#"dupip_lost_events_total{bridge="rt0"}"#)?;
                let table = agent.dupip().command(["table", "--filter", "address=10.9.0.0/16", "-o", "csv"]).run()?;
                Ok(Missed { lost, claims: missing(claimed(&table)) })
            }
            Self::Peer(peer, running, directory) => {
                let said = running.stop()?;
                let kept = |file: &str| fs::read_to_string(directory.join(file)).with_context(|| format!("no {file}"));
                let claims = match peer {
                    Peer::Arpwatch => missing(claimed(&kept("arpwatch.dat")?)),
                    Peer::Arpalert => missing(claimed(&kept("arpalert.leases")?)),
                    _ => None,
                };
                Ok(Missed { lost: dropped(&said), claims })
            }
        }
    }
}

/// How many different addresses of the flood stand in what an observer keeps, whatever else does.
fn claimed(text: &str) -> u32 {
    let words = text.split([' ', '\t', '\n', ',']).filter_map(|word| word.parse().ok());
    let all: BTreeSet<Ipv4Addr> = words.filter(|address| is_claimed(*address)).collect();
    u32::try_from(all.len()).unwrap_or(u32::MAX)
}

/// `19 packets dropped by kernel`, which tcpdump says at the end.
fn dropped(said: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.ends_with("dropped by kernel"))?;
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_dupips_log_names_a_duplicate() {}

    #[test]
    fn what_is_kept_of_a_flood_is_counted_once() {
        let arpwatch = "2:9:0:0:0:1\t10.9.0.1\t1764173144\t\trt0\n2:9:0:0:0:1\t10.9.0.1\t1764173140\t\trt0\n\
                        2:1:0:0:0:1\t10.8.16.1\t1764173144\t\trt0\n";
        assert_eq!(claimed(arpwatch), 1);
        assert_eq!(claimed("rt0,10.9.0.1,02:09:00:00:00:01,veth1\nrt0,10.9.0.2,02:09:00:00:00:02,veth1\n"), 2);
        assert_eq!(claimed(""), 0);
    }

    #[test]
    fn tcpdump_says_what_the_kernel_dropped() {
        let said = "tcpdump: listening on rt0, link-type EN10MB (Ethernet), snapshot length 262144 bytes\n\
                    1000000 packets captured\n1000021 packets received by filter\n21 packets dropped by kernel\n";
        assert_eq!((dropped(said), dropped("")), (Some(21.0), None));
    }
}

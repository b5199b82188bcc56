//! The same captures through arpwatch and through `dupip replay`: what the two say differently, and why.
//!
//! Each case is traffic that is captured live. What either program says of it is put into the same words: an address and a
//! verdict. What both say stands in [`AGREED`], what only one of them says in [`DIFFERENCES`], with the reason. Nothing may
//! be said that stands in neither, and nothing may stand there that is not said.
//!
//! Left out is what no program judges: arpwatch's `new station` (its inventory, as `dupip table` is the agent's), and who
//! keeps an address, which only dupip says. arpwatch reports a flip-flop each time; dupip has one incident that counts.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use lab::{Arp, Bridge, Dupip, MacAddr, Sandbox};
use serde_json::Value;

use super::{DEADLINE, runner, text};

const A: MacAddr = MacAddr(2, 0, 0, 0, 0, 0x0a);
const B: MacAddr = MacAddr(2, 0, 0, 0, 0, 0x0b);
const OTHER: MacAddr = MacAddr(2, 0, 0, 0, 0, 0x0c);
/// A virtual router's (RFC 5798, section 7.3).
const ROUTER: MacAddr = MacAddr(0, 0, 0x5e, 0, 1, 7);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Arpwatch,
    Dupip,
}

use By::{Arpwatch, Dupip as ByDupip};

/// What both say: in which case, of which address, and what.
const AGREED: &[(&str, &str, &str)] = &[
    ("flip-flop", "10.8.64.5", "contested"),
    ("gratuitous replies", "10.8.64.5", "contested"),
    ("a known sender, spoofed", "10.8.64.2", "forged"),
    ("an unknown sender, spoofed", "10.8.64.2", "forged"),
    ("the broadcast address as sender", "10.8.64.2", "forged"),
    ("a reply from nowhere", "0.0.0.0", "martian"),
];

/// What only one of them says, and why.
const DIFFERENCES: &[(&str, By, &str, &str, &str)] = &[
    ("probes", Arpwatch, "0.0.0.0", "martian", "takes each probe for a wrong sender; by RFC 5227 it claims nothing"),
    ("probes", ByDupip, "10.8.64.2", "soft_conflict", "two look for one free address, and arpwatch sees neither"),
    ("a known sender, spoofed", ByDupip, "10.8.64.2", "contested", "arpwatch drops the frame; it says who uses it"),
    ("an unknown sender, spoofed", ByDupip, "10.8.64.2", "contested", "arpwatch drops the frame; it says who uses it"),
    ("martians", ByDupip, "192.0.2.1", "martian", "arpwatch knows no subnet when it reads a file"),
    ("martians", ByDupip, "10.8.64.0", "martian", "the network's own address is a station to arpwatch"),
    ("martians", ByDupip, "10.8.64.255", "martian", "and so is the subnet's broadcast address"),
    ("martians", ByDupip, "255.255.255.255", "martian", "and the broadcast address"),
    ("martians", ByDupip, "127.0.0.1", "martian", "and the loopback address"),
    ("martians", ByDupip, "224.0.0.1", "martian", "and a group's address"),
    ("one VLAN", ByDupip, "10.8.64.7", "contested", "arpwatch does not look behind a tag"),
    ("a priority tag", ByDupip, "10.8.64.7", "contested", "nor behind one that names no VLAN (802.1Q, VID 0)"),
    ("another hardware address", Arpwatch, "10.8.64.6", "contested", "the one before has been silent for minutes"),
    ("another hardware address", ByDupip, "10.8.64.6", "moved", "and the address has changed hands since"),
    ("the gateway's address", ByDupip, "10.8.64.1", "contested", "arpwatch has not heard whose it is"),
    ("no such operation", ByDupip, "", "malformed: operation", "arpwatch passes over it and says nothing"),
];

type Frames = Vec<(MacAddr, Vec<u8>)>;

/// The cases: who sends what. A second part is two minutes later.
fn cases() -> Vec<(&'static str, Frames, Frames)> {
    let ip = |host| Ipv4Addr::new(10, 8, 64, host);
    let says = |mac, host| (mac, Arp::announcement(mac, ip(host)).frame());
    let replies = |mac, host| (mac, Arp { operation: 2, ..Arp::announcement(mac, ip(host)) }.frame());
    let asks = |mac, from, to| (mac, Arp::request(mac, ip(from), ip(to)).frame());
    let probes = |mac, host| (mac, Arp::probe(mac, ip(host)).frame());
    let sends = |source, sender, host| (source, Arp { source, ..Arp::announcement(sender, ip(host)) }.frame());
    let tagged = |mac, vlan| (mac, Arp::announcement(mac, ip(7)).tagged(vlan));
    // Nobody has the target, so nobody answers.
    let claims = |sender: [u8; 4]| (A, Arp::request(A, sender.into(), ip(99)).frame());
    let from_nowhere = Arp { destination: MacAddr::broadcast(), ..Arp::reply(A, Ipv4Addr::UNSPECIFIED, B, ip(3)) };
    let odd = Arp { operation: 9, ..Arp::announcement(A, ip(2)) };
    let martians = [[192, 0, 2, 1], [10, 8, 64, 0], [10, 8, 64, 255], [255; 4], [127, 0, 0, 1], [224, 0, 0, 1]];
    let at_once = |name, frames| (name, frames, Vec::new());
    vec![
        at_once("traffic", vec![says(A, 2), says(B, 3), asks(A, 2, 3), asks(B, 3, 2), replies(A, 2), says(A, 2)]),
        at_once("probes", vec![probes(A, 2), probes(A, 2), probes(B, 2), says(A, 2)]),
        at_once("flip-flop", vec![says(A, 5), says(B, 5), says(A, 5), says(B, 5), says(A, 5)]),
        at_once("gratuitous replies", vec![replies(A, 5), replies(B, 5)]),
        at_once("a known sender, spoofed", vec![says(A, 2), sends(B, A, 2)]),
        at_once("an unknown sender, spoofed", vec![says(A, 2), sends(B, OTHER, 2)]),
        at_once("the broadcast address as sender", vec![sends(A, MacAddr::broadcast(), 2)]),
        at_once("a reply from nowhere", vec![(A, from_nowhere.frame())]),
        at_once("martians", martians.map(claims).to_vec()),
        at_once("two VLANs", vec![tagged(A, 20), tagged(B, 30)]),
        at_once("one VLAN", vec![tagged(A, 20), tagged(B, 20)]),
        at_once("a priority tag", vec![tagged(A, 0), says(B, 7)]),
        at_once("a virtual router", [A, B].map(|from| (from, Arp::announcement(ROUTER, ip(8)).frame())).to_vec()),
        at_once("the gateway's address", vec![says(A, 1)]),
        at_once("no such operation", vec![(A, odd.frame())]),
        ("another hardware address", vec![says(A, 6)], vec![says(B, 6)]),
    ]
}

struct Scene {
    bridge: Bridge,
    dupip: Dupip,
    a: Sandbox,
    b: Sandbox,
}

impl Scene {
    fn new() -> Result<Self> {
        let (bridge, dupip) = runner()?;
        // Their kernels have no address, so they say nothing by themselves.
        let start = |(name, mac)| bridge.sandbox(name).without_ipv6().mac(mac).start();
        let [a, b] = [("a", A), ("b", B)].map(start);
        Ok(Self { a: a?, b: b?, bridge, dupip })
    }

    /// Captures what the two say on the bridge: what goes to everybody is heard there once.
    fn capture(&self, frames: &Frames) -> Result<PathBuf> {
        let capture = self.bridge.runner().capture(self.bridge.name())?;
        for (sender, frame) in frames {
            let sandbox = if *sender == A { &self.a } else { &self.b };
            sandbox.send_frame(frame)?;
        }
        capture.wait_for("arp or vlan", frames.len(), DEADLINE)?;
        capture.stop()
    }

    /// One file with both parts, the second of them two minutes later than it was.
    fn record(&self, first: &Frames, later: &Frames) -> Result<PathBuf> {
        let first = self.capture(first)?;
        if later.is_empty() {
            return Ok(first);
        }
        let later = self.capture(later)?;
        let [shifted, all] = ["shifted", "all"].map(|kind| first.with_extension(kind));
        let runner = self.bridge.runner();
        runner.command("editcap").args(["-F", "pcap", "-t", "120"]).arg(&later).arg(&shifted).run()?;
        runner.command("mergecap").args(["-F", "pcap", "-w"]).arg(&all).arg(&first).arg(&shifted).run()?;
        Ok(all)
    }

    fn arpwatch(&self, file: &Path) -> Result<BTreeSet<(String, String)>> {
        Ok(self.bridge.runner().arpwatch(file)?.iter().filter_map(|line| by_arpwatch(line)).collect())
    }

    fn replay(&self, file: &Path) -> Result<BTreeSet<(String, String)>> {
        let (file, mac) = (file.to_str().context("a path that is no text")?, self.bridge.mac()?.to_string());
        let network = ["--bridge", "rt0", "--network", "10.8.64.1/24", "--host-mac", &mac, "-o", "json"];
        let outcome = self.dupip.outcome(&[&["replay", file], &network[..]].concat())?;
        let found: Value = serde_json::from_str(&outcome.output).with_context(|| outcome.complaint.clone())?;
        let findings =
            found.get("findings").and_then(Value::as_array).context("no findings")?.iter().filter_map(by_dupip);
        let malformed = found.pointer("/summary/malformed").and_then(Value::as_object).context("no summary")?;
        let malformed = malformed.keys().map(|reason| (String::new(), format!("malformed: {reason}")));
        Ok(findings.chain(malformed).collect())
    }
}

/// What a line of arpwatch says. What is not known is kept as it is, and fails the test.
fn by_arpwatch(line: &str) -> Option<(String, String)> {
    const SAYS: [(&str, &str); 7] = [
        ("changed ethernet address ", "contested"),
        ("flip flop ", "contested"),
        ("reused old ethernet address ", "contested"),
        ("ethernet mismatch ", "forged"),
        ("ethernet broadcast ", "forged"),
        ("bogon ", "martian"),
        ("ignored ", "martian"),
    ];
    if line.starts_with("new station ") {
        return None;
    }
    let known = SAYS.iter().find_map(|(start, verdict)| Some((line.strip_prefix(start)?, *verdict)));
    let (rest, verdict) = known.unwrap_or((line, "unknown"));
    let address = if verdict == "unknown" { Some(rest) } else { rest.split(' ').next() };
    Some((address.unwrap_or_default().to_owned(), verdict.to_owned()))
}

/// What a finding of dupip says.
fn by_dupip(event: &Value) -> Option<(String, String)> {
    let verdict = match (text(event, "kind"), text(event, "reason")) {
        ("duplicate", _) => "contested",
        ("martian", "ether_mismatch") => "forged",
        ("judged" | "held", _) => return None,
        ("info", reason) => reason,
        (kind, _) => kind,
    };
    Some((text(event, "address").to_owned(), verdict.to_owned()))
}

#[test]
fn every_difference_to_arpwatch_has_its_reason() -> Result<()> {
    let scene = Scene::new()?;
    let (mut agreed, mut different) = (BTreeSet::new(), BTreeSet::new());
    for (case, first, later) in cases() {
        let file = scene.record(&first, &later)?;
        let (arpwatch, dupip) = (scene.arpwatch(&file)?, scene.replay(&file)?);
        agreed.extend(arpwatch.intersection(&dupip).cloned().map(|(address, verdict)| (case, address, verdict)));
        for (by, said, other) in [(Arpwatch, &arpwatch, &dupip), (ByDupip, &dupip, &arpwatch)] {
            different.extend(said.difference(other).cloned().map(|(address, verdict)| (case, by, address, verdict)));
        }
    }
    let table = AGREED.iter().map(|(case, address, verdict)| (*case, (*address).to_owned(), (*verdict).to_owned()));
    is_the_table(&agreed, &table.collect());
    let table = DIFFERENCES.iter().map(|(case, by, address, verdict, because)| {
        assert!(!because.is_empty());
        (*case, *by, (*address).to_owned(), (*verdict).to_owned())
    });
    is_the_table(&different, &table.collect());
    Ok(())
}

fn is_the_table<T: Clone + std::fmt::Debug + Ord>(found: &BTreeSet<T>, table: &BTreeSet<T>) {
    let (new, gone) = (found - table, table - found);
    assert!(new.is_empty() && gone.is_empty(), "not in the table: {new:#?}; in the table and not said: {gone:#?}");
}

//! Recordings made byte by byte, and what is found in them.

use std::{collections::BTreeMap, io::Cursor, path::PathBuf};

use proptest::prelude::*;

use super::{Flaw, Merged, Recording, Replay, Settings, Source, Summary, Unreadable, properties::replayed};
use crate::{
    engine::{Finding, Incident, Policy},
    net::{ArpPacket, Domain, Generation, Ipv4Net, Lease, LeaseState, Mac, Operation},
    time::Timestamp,
};

const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const HOST: Mac = Mac([2, 0, 0, 0, 0, 1]);
const GATEWAY: [u8; 4] = [10, 8, 64, 1];
const CONTESTED: [u8; 4] = [10, 8, 64, 2];
const SECOND: u64 = 1_000_000_000;
/// 2026-06-12, in nanoseconds since 1970.
const DAY: u64 = 1_781_222_400 * SECOND;

/// Who-has the gateway, from `mac` at `sender`: MIR-1238's only frames.
fn request(mac: Mac, sender: [u8; 4]) -> Vec<u8> {
    let packet = ArpPacket {
        operation: Operation::Request,
        sender_mac: mac,
        sender: sender.into(),
        target_mac: Mac::ZERO,
        target: GATEWAY.into(),
    };
    packet.broadcast_frame(None)
}

/// How a pcap file is written.
#[derive(Clone, Copy)]
struct Pcap {
    big: bool,
    nanos: bool,
    link: u32,
}

const PLAIN: Pcap = Pcap { big: false, nanos: false, link: 1 };

impl Pcap {
    fn number(self, number: u32) -> [u8; 4] {
        if self.big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn file(self, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let magic = if self.nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let version = if self.big { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
        let header =
            [self.number(magic), version, [0; 4], [0; 4], self.number(262_144), self.number(self.link)].concat();
        let unit = if self.nanos { 1 } else { 1000 };
        let frame = |(at, bytes): &(u64, Vec<u8>)| {
            let len = self.number(u32::try_from(bytes.len()).unwrap());
            let time = [at / SECOND, at % SECOND / unit].map(|part| self.number(u32::try_from(part).unwrap()));
            [&time.concat()[..], &len, &len, bytes].concat()
        };
        [header, frames.iter().flat_map(frame).collect()].concat()
    }
}

/// A block of a pcapng file in little endian.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = [body, &vec![0; body.len().next_multiple_of(4) - body.len()]].concat();
    let len = u32::try_from(padded.len() + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes()[..], &len, &padded, &len].concat()
}

fn section() -> Vec<u8> {
    block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat())
}

/// An interface of link type Ethernet that counts in `10^-resolution` seconds.
fn interface(name: &str, resolution: u8) -> Vec<u8> {
    let option = |code: u16, value: &[u8]| {
        let len = u16::try_from(value.len()).unwrap();
        let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
        [&code.to_le_bytes()[..], &len.to_le_bytes(), value, &padding].concat()
    };
    block(1, &[&[1, 0, 0, 0], &[0; 4][..], &option(2, name.as_bytes()), &option(9, &[resolution]), &[0; 4]].concat())
}

fn packet(interface: u32, ticks: u64, frame: &[u8]) -> Vec<u8> {
    let time = [u32::try_from(ticks >> 32).unwrap(), (ticks & 0xffff_ffff) as u32].map(u32::to_le_bytes).concat();
    let len = u32::try_from(frame.len()).unwrap().to_le_bytes();
    block(6, &[&interface.to_le_bytes()[..], &time, &len, &len, frame].concat())
}

/// A frame behind the header of `tcpdump -i any`, at the interface of index `index`.
fn cooked(index: u8, outgoing: bool, frame: &[u8]) -> Vec<u8> {
    let kind = if outgoing { 4 } else { 1 };
    [&[frame[12], frame[13], 0, 0, 0, 0, 0, index, 0, 1, kind, 6][..], &frame[6..12], &[0, 0], &frame[14..]].concat()
}

struct Replayed {
    summary: Summary,
    incidents: Vec<Incident>,
    findings: Vec<(u64, Finding)>,
    flaws: Vec<Flaw>,
    host: Option<Mac>,
}

fn settings() -> Settings {
    Settings {
        bridge: "rt0".parse().unwrap(),
        networks: vec!["10.8.64.1/24".parse::<Ipv4Net>().unwrap()],
        host: None,
        policy: Policy::default(),
        leases: Vec::new(),
    }
}

fn open(name: &str, bytes: Vec<u8>) -> Result<Recording, Unreadable> {
    let source: Source = name.parse().unwrap();
    let len = bytes.len() as u64;
    Recording::read(source, Cursor::new(bytes), len)
}

fn replay_with(settings: Settings, files: Vec<(&str, Vec<u8>)>) -> Replayed {
    let recordings = files.into_iter().map(|(name, bytes)| open(name, bytes).unwrap()).collect();
    let (mut merged, mut replay, mut findings) = (Merged::new(recordings), Replay::new(settings), Vec::new());
    while replay
        .step(&mut merged, &mut |at: Timestamp, finding: &Finding| findings.push((at.as_nanos(), finding.clone())))
    {
    }
    Replayed {
        summary: replay.summary().clone(),
        incidents: replay.incidents().cloned().collect(),
        findings,
        flaws: merged.flaws().map(|(_, flaw)| flaw).collect(),
        host: replay.host(),
    }
}

fn replay(files: Vec<(&str, Vec<u8>)>) -> Replayed {
    replay_with(settings(), files)
}

fn incident(replayed: &Replayed) -> (&Incident, Vec<(&str, Mac)>) {
    let [incident] = replayed.incidents.as_slice() else { panic!("{:?}", replayed.incidents) };
    (incident, incident.parties.iter().map(|party| (party.port_name.as_str(), party.station.mac)).collect())
}

fn both() -> Vec<(u64, Vec<u8>)> {
    vec![(DAY, request(A, CONTESTED)), (DAY + SECOND / 4, request(B, CONTESTED))]
}

#[test]
fn the_incident_is_found_in_every_kind_of_pcap() {
    for (big, nanos) in [(false, false), (false, true), (true, false), (true, true)] {
        let replayed = replay(vec![("bridge.pcap", Pcap { big, nanos, link: 1 }.file(&both()))]);
        let (incident, parties) = incident(&replayed);
        assert_eq!(parties, [("02:00:00:00:00:0a", A), ("02:00:00:00:00:0b", B)]);
        assert_eq!((incident.address.octets(), incident.first_evidence.as_str()), (CONTESTED, "request"));
        assert_eq!(incident.first_at.as_nanos(), DAY + SECOND / 4);
        assert_eq!((replayed.summary.frames, replayed.summary.ports, replayed.flaws.len()), (2, 2, 0));
    }
}

#[test]
fn one_file_for_each_port_and_the_copies_that_a_bridge_makes() {
    let [(at, a), (later, b)] = both().try_into().unwrap();
    let files = vec![
        ("vethA.pcap", PLAIN.file(&[(at, a.clone()), (later + 20_000, b.clone())])),
        ("vethB.pcap", PLAIN.file(&[(at + 10_000, a.clone()), (later, b.clone())])),
        ("rt0.pcap", PLAIN.file(&[(at + 5_000, a), (later + 5_000, b)])),
    ];
    let replayed = replay(files);
    assert_eq!(incident(&replayed).1, [("vethA", A), ("vethB", B)]);
    assert_eq!((replayed.summary.frames, replayed.summary.copies), (6, 4));
}

#[test]
fn who_names_a_file_says_who_is_behind_the_port() {
    let [(at, a), b] = both().try_into().unwrap();
    // Who had the address before may be slow to leave; who speaks again has not left.
    let a = [(at, a.clone()), (at + 5 * SECOND, a)];
    let lease = Lease {
        domain: Domain::untagged("rt0".parse().unwrap()),
        address: CONTESTED.into(),
        owner: "reviewagent".parse().unwrap(),
        interface: None,
        generation: Generation(9),
        state: LeaseState::Bound,
        replaces: None,
    };
    let files = vec![("sportsagent=a.pcap", PLAIN.file(&a)), ("reviewagent=b.pcap", PLAIN.file(&[b]))];
    let replayed = replay_with(Settings { leases: vec![lease], ..settings() }, files);
    let (incident, parties) = incident(&replayed);
    assert_eq!(parties.into_iter().collect::<BTreeMap<_, _>>(), [("sportsagent", A), ("reviewagent", B)].into());
    let winner = incident.winner().map(crate::engine::Party::label);
    assert_eq!(winner.as_deref(), Some("reviewagent"), "{:?}", incident.contest);
}

#[test]
fn any_interface_at_once_tells_ports_and_the_host_apart() {
    let [(at, a), (later, b)] = both().try_into().unwrap();
    let host = request(HOST, GATEWAY);
    let frames = [
        (at, cooked(7, false, &a)),
        (at, cooked(3, false, &a)),
        (at + 9_000, cooked(9, true, &a)),
        (at + 100_000, cooked(3, true, &host)),
        (at + 101_000, cooked(7, true, &host)),
        (at + 102_000, cooked(9, true, &host)),
        (later, cooked(9, false, &b)),
        (later, cooked(3, false, &b)),
        (later + 9_000, cooked(7, true, &b)),
    ];
    let replayed = replay(vec![("any.pcap", Pcap { link: 276, ..PLAIN }.file(&frames))]);
    assert_eq!(incident(&replayed).1, [("if7", A), ("if9", B)]);
    assert_eq!((replayed.host, replayed.summary.copies), (Some(HOST), 6));
}

#[test]
fn interfaces_of_a_pcapng_file_are_ports_each_with_its_own_clock() {
    let [(at, a), (later, b)] = both().try_into().unwrap();
    let file = [
        section(),
        interface("vethA", 9),
        interface("vethB", 6),
        packet(0, at, &a),
        block(0x0bad_0bad, &[1, 2, 3]),
        packet(1, later / 1000, &b),
        packet(7, later / 1000, &b),
    ]
    .concat();
    let replayed = replay(vec![("ports.pcapng", file)]);
    let (incident, parties) = incident(&replayed);
    assert_eq!(parties, [("vethA", A), ("vethB", B)]);
    assert_eq!(incident.first_at.as_nanos(), later);
    assert_eq!(replayed.summary.foreign, 1, "of an interface that nothing describes");
}

#[test]
fn whoever_first_claims_the_hosts_address_is_the_host() {
    let frames = [(DAY, request(HOST, GATEWAY)), (DAY + SECOND, request(A, GATEWAY))];
    let replayed = replay(vec![("bridge.pcap", PLAIN.file(&frames))]);
    assert_eq!(replayed.host, Some(HOST));
    assert_eq!(incident(&replayed).1, [("rt0", HOST), ("02:00:00:00:00:0a", A)]);
    let told = replay_with(Settings { host: Some(A), ..settings() }, vec![("b.pcap", PLAIN.file(&frames))]);
    assert_eq!(told.host, Some(A));
}

#[test]
fn a_lone_owner_is_no_duplicate_and_time_may_be_strange() {
    for times in [[0, 1], [1, 0], [DAY, 5], [0, 4_000_000_000 * SECOND]] {
        let frames = times.map(|at| (at, request(A, CONTESTED)));
        let replayed = replay(vec![("b.pcap", PLAIN.file(&frames))]);
        assert_eq!((replayed.incidents.len(), replayed.summary.frames), (0, 2), "{times:?}");
        assert_eq!(replayed.summary.out_of_order, u64::from(times[0] > times[1] + 999), "{times:?}");
    }
}

#[test]
fn a_clock_that_is_set_back_hides_nothing() {
    let frames = [(DAY, request(A, CONTESTED)), (DAY - 3600 * SECOND, request(B, CONTESTED))];
    let replayed = replay(vec![("b.pcap", PLAIN.file(&frames))]);
    assert_eq!((incident(&replayed).1.len(), replayed.summary.out_of_order), (2, 1));
}

#[test]
fn what_comes_before_the_damage_is_judged() {
    let whole = PLAIN.file(&both());
    let cut = [&whole[..], &PLAIN.file(&both())[24..50]].concat();
    let replayed = replay(vec![("cut.pcap", cut)]);
    assert_eq!(replayed.flaws, [Flaw::CutOff { at: whole.len() as u64 }]);
    assert_eq!(replayed.incidents.len(), 1);

    let huge = [&whole[..], &[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0], &vec![0; 40 << 20]].concat();
    let replayed = replay(vec![("huge.pcap", huge)]);
    assert_eq!(replayed.flaws, [Flaw::TooLarge { at: whole.len() as u64 }]);
    assert_eq!(replayed.incidents.len(), 1);

    let file =
        [section(), interface("v", 6), packet(0, 1, &request(A, CONTESTED)), vec![6, 0, 0, 0, 3, 0, 0, 0, 9, 9, 9, 9]];
    let replayed = replay(vec![("odd.pcapng", file.concat())]);
    assert_eq!((replayed.flaws.len(), replayed.summary.frames), (1, 1), "{:?}", replayed.flaws);
}

#[test]
fn what_is_no_capture_is_refused_by_its_kind() {
    assert!(matches!(open("e.pcap", Vec::new()), Err(Unreadable::Empty { .. })));
    assert!(matches!(open("t.pcap", b"#!/bin/sh\necho no capture at all".to_vec()), Err(Unreadable::NoCapture { .. })));
    assert!(matches!(open("c.pcap", PLAIN.file(&[])[..20].to_vec()), Err(Unreadable::NoCapture { .. })));
    let raw = open("raw.pcap", Pcap { link: 101, ..PLAIN }.file(&[]));
    assert!(matches!(raw, Err(Unreadable::Link { link: 101, .. })), "{:?}", raw.err());
    let missing = Recording::open("/nonexistent/x.pcap".parse().unwrap());
    assert!(matches!(missing, Err(Unreadable::Io { .. })));
    let directory = Recording::open(Source { name: None, path: PathBuf::from("/") });
    assert!(matches!(directory, Err(Unreadable::Io { .. })));
}

#[test]
fn malformed_arp_and_martians_are_counted_by_reason() {
    let mut odd = request(A, CONTESTED);
    odd[18] = 5;
    let frames = [(DAY, odd), (DAY, request(A, [10, 9, 9, 9])), (DAY, request(A, [127, 0, 0, 1]))];
    let replayed = replay(vec![("b.pcap", PLAIN.file(&frames))]);
    assert_eq!(replayed.summary.malformed, [("hardware_length", 1)].into());
    assert_eq!(replayed.summary.martians, [("loopback", 1), ("outside_subnet", 1)].into());
    let martians = replayed.findings.iter().filter(|(_, finding)| matches!(finding, Finding::Martian { .. }));
    assert_eq!(martians.map(|(at, _)| *at).collect::<Vec<_>>(), [DAY, DAY]);
}

#[test]
fn a_source_is_a_file_or_a_port_and_a_file() {
    let source = |text: &str| text.parse::<Source>();
    assert_eq!(source("a/b=c.pcap"), Ok(Source { name: None, path: "a/b=c.pcap".into() }));
    assert_eq!(
        source("vethA=/tmp/x=y.pcap"),
        Ok(Source { name: Some("vethA".to_owned()), path: "/tmp/x=y.pcap".into() })
    );
    assert!(source("=x").is_err() && source("x=").is_err());
}

/// Files that begin as some kind of capture does, and go on as they like.
fn begun() -> impl Strategy<Value = Vec<u8>> {
    let starts = vec![
        Vec::new(),
        PLAIN.file(&[]),
        Pcap { big: true, nanos: true, link: 276 }.file(&[]),
        Pcap { link: 113, ..PLAIN }.file(&[]),
        [0x34, 0xcd, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0].to_vec(),
        section(),
        [section(), interface("v", 6)].concat(),
        [section(), interface("v", 0x85), interface("", 19), packet(0, u64::MAX, &request(A, CONTESTED))].concat(),
    ];
    (prop::sample::select(starts), prop::collection::vec(any::<u8>(), 0..200))
        .prop_map(|(start, rest)| [start, rest].concat())
}

/// A good file with some of its bytes changed.
fn spoilt() -> impl Strategy<Value = Vec<u8>> {
    let good = [
        section(),
        interface("vethA", 9),
        packet(0, DAY, &request(A, CONTESTED)),
        interface("vethB", 6),
        packet(1, DAY / 1000 + 1, &request(B, CONTESTED)),
    ];
    let good =
        prop::sample::select(vec![good.concat(), PLAIN.file(&both()), Pcap { big: true, ..PLAIN }.file(&both())]);
    (good, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)).prop_map(|(mut good, changes)| {
        changes.into_iter().for_each(|(at, byte)| *at.get_mut(&mut good) = byte);
        good
    })
}

proptest! {
    #[test]
    fn any_bytes_are_replayed_without_a_panic(files in prop::collection::vec(prop_oneof![begun(), spoilt()], 1..4)) {
        let names = ["a.pcap", "rt0=b.pcap", "c.pcap"];
        replayed(names.into_iter().zip(files).collect());
    }
}

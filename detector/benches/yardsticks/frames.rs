//! Frames that the kernel runs through a program again and again, without a network (`BPF_PROG_TEST_RUN`).

use std::time::Instant;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, PerCpuArray, PerCpuValues, RingBuf},
    programs::{TestRun as _, TestRunOptions},
    util::nr_cpus,
};
use detector_ebpf::{
    ARP_PROGRAM, Claim, EDITION, EVENTS, Edition, IPV4_PROGRAM, KNOWN, Kind, KnownKey, KnownUse, Limit, NEWS_LIMIT,
    PORT_SLOTS, TapCounters, TappedPort,
};

use super::{EMPTY, YARDSTICKS, classifier};

static TAP: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/arp_tap"));

/// Does as much as looking at the EtherType.
const ETHERTYPE: &str = "yardstick_ethertype";

/// Where a frame comes from that the kernel is handed without an interface: the loopback device (`bpf_prog_test_run_skb` in
/// the kernel's `net/bpf/test_run.c`), which has this index in every network namespace.
const LOOPBACK: u32 = 1;

/// Enough for every frame of a run to be reported: as many records of 40 bytes, with their headers, as are asked for at most.
const RING_BYTES: u32 = 64 << 20;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SENDER: [u8; 4] = [10, 8, 64, 2];
const STRANGER: [u8; 4] = [10, 8, 64, 9];
const TARGET: [u8; 4] = [10, 8, 64, 1];

/// The tap as the agent has it, with one claim that is known.
struct Tap {
    loaded: Ebpf,
    ring: RingBuf<aya::maps::MapData>,
}

/// Prints `FRAME PROGRAM NANOSECONDS` for each frame and program, in turns, in every round.
pub(super) fn run(rounds: usize, times: u32) -> Result<()> {
    let mut tap = Tap::load()?;
    let mut yardsticks = EbpfLoader::new().btf(None).load(YARDSTICKS)?;
    for name in [EMPTY, ETHERTYPE] {
        classifier(&mut yardsticks, name)?.load()?;
    }
    for _ in 0..rounds {
        for (what, frame) in &frames() {
            for (name, program) in [("empty", EMPTY), ("ethertype", ETHERTYPE)] {
                println!("{what} {name} {:.2}", nanos(&mut yardsticks, program, frame, times)?);
            }
            for (name, program) in [("arp_tap", ARP_PROGRAM), ("ipv4_tap", IPV4_PROGRAM)] {
                println!("{what} {name} {:.2}", tap.nanos(program, what, frame, times)?);
            }
        }
    }
    Ok(())
}

/// What one run of the program costs, by the time that so many of them take together.
fn nanos(loaded: &mut Ebpf, program: &str, frame: &[u8], times: u32) -> Result<f64> {
    let program = classifier(loaded, program)?;
    let options = || TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::default() };
    let began = Instant::now();
    program.test_run(options())?;
    Ok(began.elapsed().as_secs_f64() * 1e9 / f64::from(times))
}

impl Tap {
    fn load() -> Result<Self> {
        let unlimited = Limit::OFF.to_words();
        let mut loader = EbpfLoader::new();
        loader.btf(None).map_max_entries(EVENTS, RING_BYTES).override_global(NEWS_LIMIT, &unlimited, true);
        let mut loaded = loader.load(TAP)?;
        for name in [ARP_PROGRAM, IPV4_PROGRAM] {
            classifier(&mut loaded, name)?.load()?;
        }
        let ring = loaded.take_map(EVENTS).context("no ring buffer")?.try_into()?;
        let mut tap = Self { loaded, ring };
        tap.watch_loopback()?;
        Ok(tap)
    }

    fn watch_loopback(&mut self) -> Result<()> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let mut slots: PerCpuArray<_, [u64; TappedPort::WORDS]> = self.map(PORT_SLOTS)?.try_into()?;
        let on_each = PerCpuValues::try_from(vec![TappedPort::new(LOOPBACK, LOOPBACK).to_words(); cpus])?;
        slots.set(TappedPort::slot(LOOPBACK), on_each, 0)?;
        let mut edition: Array<_, u64> = self.map(EDITION)?.try_into()?;
        edition.set(0, Edition { epoch: 1, removals: 0 }.to_word(), 0)?;
        let claim = Claim { kind: Kind::Request, tag: 0, ether_source: MAC, mac: MAC, address: SENDER };
        let mut known: HashMap<_, [u8; size_of::<KnownKey>()], [u64; KnownUse::WORDS]> = self.map(KNOWN)?.try_into()?;
        Ok(known.insert(KnownKey::new(LOOPBACK, &claim).to_bytes(), [0; KnownUse::WORDS], 0)?)
    }

    fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.loaded.map_mut(name).with_context(|| format!("there is no map {name}"))
    }

    /// Does so, and looks that the tap made of the frame what it is to make.
    fn nanos(&mut self, program: &str, what: &str, frame: &[u8], times: u32) -> Result<f64> {
        let before = self.counters()?;
        let nanos = nanos(&mut self.loaded, program, frame, times)?;
        let since = self.counters()?.since(&before);
        let mut told = 0;
        while self.ring.next().is_some() {
            told += 1;
        }
        let malformed = since.seen() - since.reported - since.absorbed - since.limited - since.lost;
        let of = match what {
            "known_claim" => since.absorbed,
            "new_claim" => since.reported.min(told),
            "malformed" => malformed,
            _ => u64::from(times) - since.seen() - since.ipv4() - told,
        };
        anyhow::ensure!(of == u64::from(times), "{what}: {of} of {times} went the way that is measured: {since:?}");
        Ok(nanos)
    }

    fn counters(&mut self) -> Result<TapCounters> {
        let slots: PerCpuArray<_, [u64; TappedPort::WORDS]> = self.map(PORT_SLOTS)?.try_into()?;
        let mut sum = TapCounters::default();
        let all = slots.get(&TappedPort::slot(LOOPBACK), 0)?;
        all.iter().for_each(|words| sum += TappedPort::from_words(*words).counters);
        Ok(sum)
    }
}

/// Each kind of frame that a port sees, by name.
fn frames() -> [(&'static str, Vec<u8>); 5] {
    let ethernet = |ethertype: [u8; 2], packet: Vec<u8>| [&[0xff; 6], &MAC[..], &ethertype, &packet].concat();
    let arp = |sender: [u8; 4], hardware: u8| {
        let fields: [&[u8]; 6] = [&[0, hardware, 8, 0, 6, 4, 0, 1], &MAC, &sender, &[0; 6], &TARGET, &[0; 18]];
        ethernet([8, 6], fields.concat())
    };
    let mut tcp4 = vec![0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0];
    tcp4.extend([SENDER, TARGET].concat());
    tcp4.resize(60, 0);
    let mut tcp6 = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
    tcp6.resize(60, 0);
    [
        ("ipv4_tcp", ethernet([8, 0], tcp4)),
        ("ipv6", ethernet([0x86, 0xdd], tcp6)),
        ("known_claim", arp(SENDER, 1)),
        ("new_claim", arp(STRANGER, 1)),
        ("malformed", arp(SENDER, 7)),
    ]
}

//! What `cargo xtask bench` runs: other programs in the tap's place, and frames through the tap and through them.
//!
//! ```text
//! attach (empty | reader) INTERFACE...   at the ingress of each, until killed; a reader prints each claim that it hears
//! frames ROUNDS TIMES                    what each frame costs in each program, in nanoseconds
//! ```

#[path = "yardsticks/frames.rs"]
mod frames;

use std::{
    env,
    fmt::Write as _,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, RingBuf},
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use detector_ebpf::ClaimEvent;
use rustix::event::{PollFd, PollFlags, poll};

static YARDSTICKS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/yardsticks"));

/// Tells of every ARP frame.
const READER: &str = "yardstick_reader";
/// Does nothing.
const EMPTY: &str = "yardstick_empty";

fn main() -> Result<()> {
    let words: Vec<_> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["attach", "empty", ref interfaces @ ..] => rest(&attach(EMPTY, interfaces)?),
        ["attach", "reader", ref interfaces @ ..] => read(attach(READER, interfaces)?),
        ["frames", rounds, times] => frames::run(rounds.parse()?, times.parse()?),
        _ => {
            eprintln!("this is a part of `cargo xtask bench`, which builds it, runs it and makes sense of it");
            Ok(())
        }
    }
}

/// Runs the program at the ingress of every interface for as long as the answer lives.
fn attach(name: &str, interfaces: &[&str]) -> Result<Ebpf> {
    let mut loaded = EbpfLoader::new().btf(None).load(YARDSTICKS)?;
    let program = classifier(&mut loaded, name)?;
    program.load()?;
    for interface in interfaces {
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        program.attach_with_options(interface, TcAttachType::Ingress, first)?;
    }
    Ok(loaded)
}

fn classifier<'a>(loaded: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = loaded.program_mut(name).with_context(|| format!("there is no program {name}"))?;
    Ok(program.try_into()?)
}

/// Stays until it is killed.
fn rest(_attached: &Ebpf) -> Result<()> {
    println!("ready");
    Ok(poll(&mut [], None).map(drop)?)
}

/// Prints each claim as soon as it is told, and stays until it is killed.
fn read(mut attached: Ebpf) -> Result<()> {
    let heard = attached.take_map("HEARD").context("there is no ring buffer")?;
    let mut ring: RingBuf<MapData> = heard.try_into()?;
    println!("ready");
    loop {
        let mut lines = String::new();
        while let Some(event) = ring.next() {
            line(&mut lines, &event)?;
        }
        io::stdout().write_all(lines.as_bytes())?;
        io::stdout().flush()?;
        poll(&mut [PollFd::new(&ring, PollFlags::IN)], None)?;
    }
}

/// `claim 02:00:00:00:00:02 10.8.64.2`
fn line(lines: &mut String, event: &[u8]) -> Result<()> {
    let claim = ClaimEvent::from_bytes(event).and_then(|event| event.claim()).context("a record that is none")?;
    let [a, b, c, d] = claim.address;
    let mac = claim.mac.map(|byte| format!("{byte:02x}")).join(":");
    Ok(writeln!(lines, "claim {mac} {a}.{b}.{c}.{d}")?)
}

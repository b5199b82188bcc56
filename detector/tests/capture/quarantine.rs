//! What the tap does not let on.

use std::{
    fs,
    io::ErrorKind,
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use detector::{
    capture::{CaptureError, FrameSender, Hook, Loaded, Post, Quarantine, Side, Tap, TapSettings},
    engine::KnownClaim,
    net::{ArpPacket, Contained, IfIndex, Mac, Operation, VlanId},
};
use detector_ebpf::{ARP_PROGRAM, GUARD_PROGRAM, IPV4_PROGRAM};
use pnet::datalink::{Channel, Config, DataLinkReceiver, channel, interfaces};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::lab::*;

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 3);

/// Three ports of one bridge. What is said at the first two arrives at the third, in order.
pub(crate) struct Lan {
    pub(crate) first: IfIndex,
    pub(crate) second: IfIndex,
    third: Box<dyn DataLinkReceiver>,
}

impl Lan {
    pub(crate) fn new() -> Self {
        // Each processor has a queue of its own, in which the frames of another could overtake.
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here).unwrap();
        ip("link add br0 type bridge\nlink set br0 up\n");
        // Where the bridge calls iptables, it cuts off what comes after an IPv4 packet, and drops what has no checksum.
        match fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0") {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        let [first, second, _] = [("s1", "p1"), ("s2", "p2"), ("s3", "p3")].map(|(sandbox, port)| {
            let index = wire(sandbox, port);
            // What a frame says of its sender is not to decide where others go.
            ip(&format!("link set {port} master br0\nlink set {port} type bridge_slave learning off\n"));
            index
        });
        let mut lan = Self { first, second, third: ear_at("s3") };
        ["s1", "s2"].iter().for_each(|sandbox| lan.await_forwarding(sandbox));
        lan.arrive(&[]);
        lan
    }

    /// The kernel tells nobody when a bridge has taken notice that a port has a carrier.
    fn await_forwarding(&mut self, sandbox: &str) {
        let start = Instant::now();
        while {
            say(sandbox, &numbered(&nothing(), 0));
            self.next_number() != Some(0)
        } {
            assert!(start.elapsed() < DEADLINE, "nothing is forwarded");
        }
        while self.next_number().is_some() {}
    }

    /// The number of the next frame of ours; `None` if none comes for a while.
    fn next_number(&mut self) -> Option<u8> {
        loop {
            match self.third.next() {
                Ok(frame) => {
                    if let Some(number) = number_of(frame) {
                        return Some(number);
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
                    return None;
                }
            }
        }
    }

    /// Says each frame with its number, and returns the numbers of those that arrive.
    pub(crate) fn arrive(&mut self, frames: &[(&str, u8, Vec<u8>)]) -> Vec<u8> {
        const LAST: u8 = 0xff;
        frames.iter().for_each(|(sandbox, number, frame)| say(sandbox, &numbered(frame, *number)));
        ["s1", "s2"].iter().for_each(|sandbox| say(sandbox, &numbered(&nothing(), LAST)));
        let (mut arrived, mut ended, start) = (Vec::new(), 0, Instant::now());
        while ended < 2 {
            match self.next_number() {
                Some(LAST) => ended += 1,
                Some(number) => arrived.push(number),
                None => assert!(start.elapsed() < DEADLINE, "the last frame does not arrive"),
            }
        }
        arrived
    }
}

fn ear_at(name: &str) -> Box<dyn DataLinkReceiver> {
    let interface = interfaces().into_iter().find(|interface| interface.name == name).unwrap();
    let config = Config { read_timeout: Some(Duration::from_millis(20)), ..Config::default() };
    match channel(&interface, config).unwrap() {
        Channel::Ethernet(_, receiver) => receiver,
        _ => unreachable!("it is Ethernet"),
    }
}

/// What ends a frame of ours; the frame's number follows.
const TRAILER: [u8; 4] = *b"lab!";

/// A frame that is nobody's business: of an EtherType for experiments (IEEE 802, 9.2.3).
fn nothing() -> Vec<u8> {
    [&BOB.0[..], &ALICE.0, &[0x88, 0xb5]].concat()
}

pub(crate) fn numbered(frame: &[u8], number: u8) -> Vec<u8> {
    [frame, &TRAILER, &[number]].concat()
}

fn number_of(frame: &[u8]) -> Option<u8> {
    let (number, rest) = frame.split_last()?;
    rest.ends_with(&TRAILER).then_some(*number)
}

/// Claims ADDRESS at the first port by packets, as fast as it goes and on every processor, while `work` is done. Returns how
/// many there were.
pub(crate) fn flood_while(work: impl FnOnce()) -> u64 {
    const MOST: u64 = 10_000_000;
    let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let flood = || {
        let mut everywhere = CpuSet::new();
        (0..CpuSet::MAX_CPU).for_each(|cpu| everywhere.set(cpu));
        sched_setaffinity(None, &everywhere).unwrap();
        let (sender, index, frame) = (FrameSender::open().unwrap(), index("s1"), numbered(&packet_from(ADDRESS), 1));
        while !stop.load(Ordering::Acquire) && sent.load(Ordering::Relaxed) < MOST {
            send(&sender, index, &frame);
            sent.fetch_add(1, Ordering::Release);
        }
    };
    thread::scope(|scope| {
        scope.spawn(flood);
        while sent.load(Ordering::Acquire) == 0 {
            thread::yield_now();
        }
        work();
        stop.store(true, Ordering::Release);
    });
    let sent = sent.into_inner();
    assert!(sent < MOST, "the flood ended before the work");
    sent
}

/// Waits until `sent` frames were dropped: had one slipped through, there would never be as many.
pub(crate) async fn all_are_dropped(quarantine: &Quarantine, entry: Contained, sent: u64) {
    until("every frame is dropped", || quarantine.list().unwrap() == [(entry, sent)]).await;
}

pub(crate) fn contained(port: IfIndex) -> Contained {
    Contained { port, tag: None, address: ADDRESS }
}

fn load(hook: Hook) -> Loaded {
    Tap::load(&TapSettings { hook, ..TapSettings::default() }).unwrap()
}

fn contain(tap: &mut Tap, quarantine: &mut Quarantine, entry: Contained) {
    quarantine.contain(&entry).unwrap();
    tap.guard(entry.port, true).unwrap();
}

/// Every way to claim ADDRESS without a tag, by `sandbox`, from `number` on.
fn claims_of_all_kinds(sandbox: &str, number: u8) -> Vec<(&str, u8, Vec<u8>)> {
    let mut masked = request().broadcast_frame(None);
    masked[6..12].copy_from_slice(&BOB.0);
    let forms = [
        request().broadcast_frame(None),
        packet(Operation::Reply, ADDRESS, GATEWAY).broadcast_frame(None),
        packet(Operation::Reply, ADDRESS, Ipv4Addr::UNSPECIFIED).broadcast_frame(None),
        packet(Operation::Request, ADDRESS, ADDRESS).broadcast_frame(None),
        ArpPacket::announcement(ALICE, ADDRESS).broadcast_frame(None),
        masked,
        packet_from(ADDRESS),
    ];
    (number..).zip(forms).map(|(number, frame)| (sandbox, number, frame)).collect()
}

/// What says nothing of ADDRESS being whose port this is, in the untagged domain.
fn others(sandbox: &str) -> Vec<(&str, u8, Vec<u8>)> {
    vec![
        (sandbox, 50, ArpPacket::probe(ALICE, ADDRESS).broadcast_frame(None)),
        (sandbox, 51, packet(Operation::Request, OTHER, ADDRESS).broadcast_frame(None)),
        (sandbox, 52, packet(Operation::Reply, OTHER, ADDRESS).broadcast_frame(None)),
        (sandbox, 53, packet_from(OTHER)),
    ]
}

fn in_vlan_7(sandbox: &str) -> Vec<(&str, u8, Vec<u8>)> {
    let twice = [(0x88a8, 7), (0x8100, 8)];
    vec![
        (sandbox, 70, request().broadcast_frame(VlanId::new(7))),
        (sandbox, 71, with_tags(&packet_from(ADDRESS), &[(0x8100, 7)])),
        (sandbox, 72, tagged(&request(), &twice)),
        (sandbox, 73, with_tags(&packet_from(ADDRESS), &twice)),
    ]
}

fn numbers(frames: &[(&str, u8, Vec<u8>)]) -> Vec<u8> {
    frames.iter().map(|(_, number, _)| *number).collect()
}

#[test]
fn what_is_contained_goes_nowhere_and_everything_else_does() {
    for hook in [Hook::Tcx, Hook::Clsact] {
        for watch_ipv4 in [true, false] {
            alone(async move || {
                let mut lan = Lan::new();
                let Loaded { mut tap, mut claims, mut quarantine, .. } = load(hook);
                let post = Post { watch_ipv4, ..at(Side::Ingress) };
                [lan.first, lan.second].iter().for_each(|port| tap.attach(*port, post).unwrap());
                let frames =
                    [claims_of_all_kinds("s1", 1), others("s1"), in_vlan_7("s1"), claims_of_all_kinds("s2", 20)];
                let frames = frames.concat();
                assert_eq!(lan.arrive(&frames), numbers(&frames), "before");
                let reported = 8 + 7 + 2 + if watch_ipv4 { 1 + 1 + 1 + 2 } else { 0 };
                let before: Vec<_> = hear(&mut claims, reported).await.iter().map(said).collect();

                let entry = contained(lan.first);
                assert!(quarantine.can_contain() && !quarantine.is_any_at(lan.first));
                contain(&mut tap, &mut quarantine, entry);
                assert!(quarantine.is_any_at(lan.first) && !quarantine.is_any_at(lan.second));
                let want = [numbers(&others("s1")), numbers(&in_vlan_7("s1")), numbers(&claims_of_all_kinds("s2", 20))];
                assert_eq!(lan.arrive(&frames), want.concat(), "while it is contained");
                let during: Vec<_> = hear(&mut claims, reported).await.iter().map(said).collect();
                assert_eq!(during, before, "what is dropped is told of as before");
                let counters = [lan.first, lan.second].map(|port| tap.counters(port).unwrap());
                assert_eq!(counters.map(|counted| counted.contained), [7, 0]);
                quarantine.contain(&entry).unwrap();
                assert_eq!(quarantine.list().unwrap(), [(entry, 7)], "to contain it again changes nothing");

                let in_7 = Contained { tag: VlanId::new(7), ..entry };
                contain(&mut tap, &mut quarantine, in_7);
                assert!(quarantine.release(&entry).unwrap() && !quarantine.release(&entry).unwrap());
                let want: Vec<_> = numbers(&frames).into_iter().filter(|number| !(70..80).contains(number)).collect();
                assert_eq!(lan.arrive(&frames), want, "while it is contained in a VLAN");
                assert_eq!(quarantine.list().unwrap(), [(in_7, 4)]);

                quarantine.release_port(lan.first).unwrap();
                assert!(quarantine.is_empty());
                tap.guard(lan.first, false).unwrap();
                assert_eq!(lan.arrive(&frames), numbers(&frames), "afterwards");
            });
        }
    }
}

/// Kernels take `ar$hrd` 6 for Ethernet; it is malformed all the same.
#[test]
fn what_is_contained_does_not_get_by_in_disguise() {
    alone(async || {
        let mut lan = Lan::new();
        let Loaded { mut tap, mut quarantine, .. } = load(Hook::Auto);
        tap.attach(lan.first, at(Side::Ingress)).unwrap();
        let disguised = |number, address, hardware_type| {
            let mut frame = packet(Operation::Reply, address, GATEWAY).broadcast_frame(None);
            frame[15] = hardware_type;
            ("s1", number, frame)
        };
        let frames = [disguised(1, ADDRESS, 6), disguised(2, OTHER, 6), disguised(3, ADDRESS, 7)];
        assert_eq!(lan.arrive(&frames), [1, 2, 3]);
        contain(&mut tap, &mut quarantine, contained(lan.first));
        assert_eq!(lan.arrive(&frames), [2, 3], "7 is no Ethernet to anybody");
        let counted = tap.counters(lan.first).unwrap();
        assert_eq!(counted.malformed(detector_ebpf::Malformed::HardwareType), 6);
    });
}

#[test]
fn a_port_is_guarded_by_another_program_only_where_sources_are_not_watched() {
    for hook in [Hook::Tcx, Hook::Clsact] {
        alone(async move || {
            let (port, watched) = (wire("s1", "p1"), wire("s2", "p2"));
            let Loaded { mut tap, mut claims, .. } = load(hook);
            tap.guard(port, true).unwrap();
            tap.attach(port, at(Side::Ingress)).unwrap();
            tap.attach(watched, Post { watch_ipv4: true, ..at(Side::Ingress) }).unwrap();
            tap.guard(watched, true).unwrap();
            let runs = |interface| [ARP_PROGRAM, IPV4_PROGRAM, GUARD_PROGRAM].map(|name| programs(interface, name));
            assert_eq!([runs("p1"), runs("p2")], [[0, 0, 1], [0, 1, 0]]);
            say("s1", &request().broadcast_frame(None));
            say("s1", &packet_from(ADDRESS));
            hear(&mut claims, 1).await;
            for _ in 0..2 {
                tap.guard(port, false).unwrap();
                assert_eq!(runs("p1"), [1, 0, 0]);
            }
            assert!(tap.switch(port, Post { watch_ipv4: true, ..at(Side::Ingress) }).unwrap());
            assert_eq!(runs("p1"), [0, 1, 0]);
            say("s1", &packet_from(ADDRESS));
            hear(&mut claims, 1).await;
            let counters = tap.counters(port).unwrap();
            assert_eq!((counters.reported, counters.ipv4_reported), (1, 1), "the counts go on");
            assert!(!tap.switch(port, at(Side::Egress)).unwrap(), "that is another place");

            ip("link del p1\n");
            assert!(!tap.switch(port, at(Side::Ingress)).unwrap());
            tap.guard(port, true).unwrap();
            tap.detach(port).unwrap();
            assert!(!tap.switch(port, at(Side::Ingress)).unwrap());
        });
    }
}

/// Whatever runs at the port meanwhile, some program guards it.
#[test]
fn no_frame_slips_through_while_programs_change() {
    for hook in [Hook::Tcx, Hook::Clsact] {
        alone(async move || {
            let mut lan = Lan::new();
            let Loaded { mut tap, mut quarantine, .. } =
                Tap::load(&TapSettings { hook, rate: 1, ..TapSettings::default() }).unwrap();
            tap.attach(lan.first, at(Side::Ingress)).unwrap();
            contain(&mut tap, &mut quarantine, contained(lan.first));
            let sent = flood_while(|| {
                for change in 1..=100 {
                    let post = Post { watch_ipv4: change % 2 == 1, ..at(Side::Ingress) };
                    assert!(tap.switch(lan.first, post).unwrap());
                }
            });
            all_are_dropped(&quarantine, contained(lan.first), sent).await;
            assert_eq!(lan.arrive(&[("s2", 2, packet_from(ADDRESS))]), [2]);
        });
    }
}

#[test]
fn who_floods_is_contained_as_well() {
    alone(async || {
        let mut lan = Lan::new();
        let settings = TapSettings { rate: 1, burst: 1, ..TapSettings::default() };
        let Loaded { mut tap, mut quarantine, .. } = Tap::load(&settings).unwrap();
        tap.attach(lan.first, at(Side::Ingress)).unwrap();
        contain(&mut tap, &mut quarantine, contained(lan.first));
        let flood: Vec<_> = (0..200).map(|number| ("s1", number, request().broadcast_frame(None))).collect();
        assert_eq!(lan.arrive(&flood), [0; 0]);
        let counters = tap.counters(lan.first).unwrap();
        assert_eq!((counters.contained, counters.seen(), counters.reported + counters.limited), (200, 200, 200));
        assert!(counters.limited > 0);
    });
}

/// The agent sees to it that this is never so. It shows that known frames are not looked up.
#[test]
fn what_is_known_is_not_looked_for_in_quarantine() {
    alone(async || {
        let mut lan = Lan::new();
        let Loaded { mut tap, mut quarantine, mut known, .. } = load(Hook::Auto);
        tap.attach(lan.first, Post { watch_ipv4: true, ..at(Side::Ingress) }).unwrap();
        contain(&mut tap, &mut quarantine, contained(lan.first));
        let claim = KnownClaim { port: lan.first, tag: None, mac: ALICE, address: ADDRESS };
        known.absorb(&claim, bridge()).unwrap();
        let frames = [("s1", 1, request().broadcast_frame(None)), ("s1", 2, packet_from(ADDRESS))];
        assert_eq!(lan.arrive(&frames), [1, 2]);
        known.forget(&claim).unwrap();
        assert_eq!(lan.arrive(&frames), [0; 0]);
    });
}

#[test]
fn a_full_quarantine_says_so() {
    alone(async || {
        let port = wire("s1", "p1");
        let Loaded { mut quarantine, .. } = load(Hook::Auto);
        let entry = |number: usize| Contained {
            address: (0x0a00_0000 + u32::try_from(number).unwrap()).into(),
            ..contained(port)
        };
        (0..Quarantine::MAX).for_each(|number| quarantine.contain(&entry(number)).unwrap());
        let error = quarantine.contain(&entry(Quarantine::MAX)).unwrap_err();
        assert!(matches!(error, CaptureError::QuarantineFull) && error.to_string().contains("16384"), "{error}");
        quarantine.contain(&entry(5)).unwrap();
        assert_eq!((quarantine.len(), quarantine.list().unwrap().len()), (Quarantine::MAX, Quarantine::MAX));
        assert!(quarantine.release(&entry(5)).unwrap());
        quarantine.contain(&entry(Quarantine::MAX)).unwrap();
        let elsewhere = IfIndex::new(port.get() + 1).unwrap();
        quarantine.release_port(elsewhere).unwrap();
        assert_eq!(quarantine.len(), Quarantine::MAX);
        quarantine.release_port(port).unwrap();
        assert_eq!((quarantine.len(), quarantine.list().unwrap()), (0, Vec::new()));
    });
}

/// Frames that a stack sends by itself, not bytes that we made.
#[test]
fn a_real_stack_is_contained_by_its_first_word() {
    alone(async || {
        let mut lan = Lan::new();
        ip(&format!(
            "link set s1 address {ALICE}\naddr add {ADDRESS}/24 dev s1\nneigh add {GATEWAY} lladdr {} dev s1\n",
            Mac([2, 0, 0, 0, 0, 1])
        ));
        let Loaded { mut tap, mut quarantine, .. } = load(Hook::Auto);
        tap.attach(lan.first, at(Side::Ingress)).unwrap();
        contain(&mut tap, &mut quarantine, contained(lan.first));
        let payload = [&TRAILER[..], &[9]].concat();
        let socket = std::net::UdpSocket::bind((ADDRESS, 0)).unwrap();
        socket.send_to(&payload, (GATEWAY, 9)).unwrap();
        assert_eq!(lan.arrive(&[]), [0; 0]);
        assert_eq!(quarantine.list().unwrap(), [(contained(lan.first), 1)]);
        assert!(quarantine.release(&contained(lan.first)).unwrap());
        socket.send_to(&payload, (GATEWAY, 9)).unwrap();
        assert_eq!(lan.arrive(&[]), [9]);
    });
}

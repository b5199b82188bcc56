//! A network namespace per test, wires in it, and frames to put on them.

use std::{
    io::{ErrorKind, Write as _},
    net::Ipv4Addr,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType};
use detector::{
    capture::{Claims, FrameSender, Hook, Known, Loaded, Post, SendError, Side, Tap, TapSettings},
    engine::{Claim, Evidence},
    net::{ArpPacket, ClaimKind, IfIndex, Mac, Operation},
    time::Timestamp,
};
use nix::sched::{CloneFlags, unshare};
use rustix::{
    net::{AddressFamily, SocketType, netdevice::name_to_index, socket},
    time::{ClockId, clock_gettime},
};

/// Long enough for any machine; only a test that fails waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const ALICE: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
pub(crate) const BOB: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 1);

/// Runs `test` in a network namespace of its own, which is gone when its thread has ended.
pub(crate) fn alone(test: impl AsyncFnOnce() + Send + 'static) {
    assert!(rustix::process::geteuid().is_root(), "this test loads eBPF programs and makes namespaces: run it as root");
    let namespace = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    namespace.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Runs `ip` with `commands`, one a line.
pub(crate) fn ip(commands: &str) {
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success(), "{commands}");
}

/// A veth pair, up: whoever speaks at `sandbox` is heard at `port`. The port is up first, so that the sandbox's end has
/// a carrier from its first moment on.
pub(crate) fn wire(sandbox: &str, port: &str) -> IfIndex {
    ip(&format!("link add {sandbox} type veth peer name {port}\nlink set {port} up\nlink set {sandbox} up\n"));
    index(port)
}

/// Has each interface of this namespace answer for its own addresses only.
pub(crate) fn answer_strictly() {
    std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1").unwrap();
}

pub(crate) fn index(name: &str) -> IfIndex {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
    IfIndex::new(name_to_index(socket, name).unwrap()).unwrap()
}

pub(crate) fn load(hook: Hook) -> (Tap, Claims) {
    let (tap, claims, _) = load_with(TapSettings { hook, ..TapSettings::default() });
    (tap, claims)
}

pub(crate) fn load_with(settings: TapSettings) -> (Tap, Claims, Known) {
    let Loaded { tap, claims, known, .. } = Tap::load(&settings).unwrap();
    (tap, claims, known)
}

/// The bridge that every port is said to be of.
pub(crate) fn bridge() -> IfIndex {
    IfIndex::new(70_000).unwrap()
}

/// Where ARP is heard.
pub(crate) fn at(side: Side) -> Post {
    Post { bridge: bridge(), side, watch_ipv4: false }
}

pub(crate) fn now() -> Timestamp {
    let now = clock_gettime(ClockId::Boottime);
    Timestamp::from_nanos((now.tv_sec * 1_000_000_000 + now.tv_nsec).try_into().unwrap())
}

pub(crate) fn say(interface: &str, frame: &[u8]) {
    FrameSender::open().unwrap().send(index(interface), frame).unwrap();
}

pub(crate) fn say_often(interface: &str, frame: &[u8], count: usize) {
    let (sender, index) = (FrameSender::open().unwrap(), index(interface));
    (0..count).for_each(|_| send(&sender, index, frame));
}

/// Sends, as soon as there is room for it.
pub(crate) fn send(sender: &FrameSender, index: IfIndex, frame: &[u8]) {
    while let Err(error) = sender.send(index, frame) {
        assert!(matches!(&error, SendError::Refused(io) if io.kind() == ErrorKind::WouldBlock), "{error:?}");
        thread::yield_now();
    }
}

/// The next `count` claims, in order.
pub(crate) async fn hear(claims: &mut Claims, count: usize) -> Vec<Claim> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let batch = tokio::time::timeout(DEADLINE, claims.next_batch()).await;
        heard.extend(batch.unwrap_or_else(|_| panic!("{} claims of {count}: {heard:?}", heard.len())).unwrap());
    }
    assert_eq!(heard.len(), count, "{heard:?}");
    heard
}

/// Waits for what the kernel gives no event for.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "never came true: {what}");
        tokio::task::yield_now().await;
    }
}

/// What a claim says, and how.
pub(crate) type Said = (Evidence, Mac, Ipv4Addr);

pub(crate) fn said(claim: &Claim) -> Said {
    (claim.evidence, claim.mac, claim.address)
}

/// What the claim of `packet` has to say.
pub(crate) fn says(packet: &ArpPacket) -> Said {
    let address = if packet.kind() == ClaimKind::Probe { packet.target } else { packet.sender };
    (Evidence::Arp(packet.kind()), packet.sender_mac, address)
}

pub(crate) fn packet(operation: Operation, sender: Ipv4Addr, target: Ipv4Addr) -> ArpPacket {
    ArpPacket { operation, sender_mac: ALICE, sender, target_mac: BOB, target }
}

pub(crate) fn request() -> ArpPacket {
    packet(Operation::Request, ADDRESS, GATEWAY)
}

/// The frame of `packet` with VLAN `tags` in it, each as type and id.
pub(crate) fn tagged(packet: &ArpPacket, tags: &[(u16, u16)]) -> Vec<u8> {
    with_tags(&packet.broadcast_frame(None), tags)
}

pub(crate) fn with_tags(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let tags = tags.iter().flat_map(|(kind, id)| [kind.to_be_bytes(), id.to_be_bytes()]).flatten();
    [frame[..12].to_vec(), tags.collect(), frame[12..].to_vec()].concat()
}

/// A UDP packet from `source` in a frame of ALICE's.
pub(crate) fn packet_from(source: Ipv4Addr) -> Vec<u8> {
    let header = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    [&BOB.0[..], &ALICE.0, &[8, 0], &header, &source.octets(), &GATEWAY.octets(), &[0, 9, 0, 9, 0, 8, 0, 0]].concat()
}

/// The names of the programs that run at an interface by TCX.
pub(crate) fn tcx_programs(interface: &str, side: TcAttachType) -> Vec<String> {
    let (_, programs) = SchedClassifier::query_tcx(interface, side).unwrap();
    programs.iter().map(|program| program.name_as_str().unwrap().to_owned()).collect()
}

/// What `tc` shows of the filters at an interface's ingress.
pub(crate) fn filters(interface: &str) -> String {
    let shown = Command::new("tc").args(["filter", "show", "dev", interface, "ingress"]).output().unwrap();
    String::from_utf8(shown.stdout).unwrap()
}

/// How many programs called `name` run at an interface's ingress, by whichever hook.
pub(crate) fn programs(interface: &str, name: &str) -> usize {
    let tcx = tcx_programs(interface, TcAttachType::Ingress);
    tcx.iter().filter(|program| *program == name).count()
        + filters(interface).matches(&format!("{name} direct-action")).count()
}

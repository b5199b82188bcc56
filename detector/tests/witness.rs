//! Whether somebody uses an address, asked on real bridges, on runners of their own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what a test needs and does not get fails the test")]

mod runner;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::Ipv4Addr,
    os::unix::net::{UnixListener, UnixStream},
    process::{Command, Stdio},
    slice::from_ref,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use detector::{
    allocator::{AllocateError, Clock, Pool, SqliteStore, Store, Terms, User, Wish, Witness as _, hand_out},
    capture::{FrameSender, ProbeError, Prober, Probing, SendError},
    http::Witnesses,
    net::{ArpPacket, Domain, IfIndex, Ipv4Range, LeaseState, Mac, Operation, Owner, VlanId},
    time::Span,
    witness::Wire,
};
use nix::sched::{CloneFlags, setns};
use runner::{ip, on_a_runner};

const ALICE: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const BOB: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 3);

const SOCKET: &str = "/run/dupip.sock";

/// Long enough for any machine; only a test that fails waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

/// For a test that waits for an answer: it comes long before, or not at all.
const PATIENT: Probing = Probing { count: 1, interval: DEADLINE };

/// Runs `test` on a runner with a bridge, in a thread where blocking is allowed.
fn on_a_bridge(test: impl FnOnce() + Send + 'static) {
    on_a_runner(async || {
        ip("link add rt0 type bridge");
        ip("addr add 10.8.64.1/24 dev rt0");
        ip("link set rt0 up");
        tokio::task::spawn_blocking(test).await.unwrap();
    });
}

/// A sandbox behind a port of rt0, reachable; it has no address yet.
fn make_sandbox(name: &str, mac: Mac) {
    ip(&format!("netns add {name}"));
    ip(&format!("link add p-{name} type veth peer name eth0 address {mac} netns {name}"));
    ip(&format!("-n {name} link set eth0 up"));
    ip(&format!("link set p-{name} master rt0 up"));
    // The bridge lets nothing through before it has been told of the carrier.
    until("the port forwards", || ip(&format!("-d link show p-{name}")).contains("state forwarding"));
}

/// A sandbox with [`ADDRESS`].
fn make_user(name: &str, mac: Mac) {
    make_sandbox(name, mac);
    ip(&format!("-n {name} addr add {ADDRESS}/24 dev eth0"));
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "never came true: {what}");
        thread::yield_now();
    }
}

fn rt0() -> Domain {
    Domain::untagged("rt0".parse().unwrap())
}

fn sports() -> Owner {
    "sports".parse().unwrap()
}

fn vlan(id: u16) -> Option<VlanId> {
    VlanId::new(id)
}

fn link(shown: &str) -> (IfIndex, Mac) {
    let (index, rest) = shown.split_once(':').unwrap();
    let mac = rest.split_once("link/ether ").unwrap().1.split_whitespace().next().unwrap();
    (IfIndex::new(index.parse().unwrap()).unwrap(), mac.parse().unwrap())
}

fn prober() -> Prober {
    let (index, mac) = link(&ip("link show rt0"));
    Prober::open(index, mac, BTreeSet::new()).unwrap()
}

/// Does `work` in a thread of the sandbox `name`.
fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        setns(File::open(format!("/run/netns/{name}")).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

/// Says `frames` in the sandbox `name`, over and over, every `pause`, for as long as `meanwhile` takes.
fn while_saying<T: Send>(name: &str, frames: &[Vec<u8>], pause: Duration, meanwhile: impl FnOnce() -> T) -> (T, u64) {
    let (over, said) = (AtomicBool::new(false), AtomicU64::new(0));
    let talk = || {
        let port = link(&ip(&format!("-n {name} link show eth0"))).0;
        inside(name, || {
            let (sender, start) = (FrameSender::open().unwrap(), Instant::now());
            while !over.load(Ordering::Relaxed) && start.elapsed() < DEADLINE {
                for frame in frames {
                    // A flood may find its own queue full.
                    said.fetch_add(sender.send(port, frame).is_ok().into(), Ordering::Relaxed);
                }
                thread::sleep(pause);
            }
        });
    };
    let result = thread::scope(|scope| {
        let talker = scope.spawn(talk);
        until("the sandbox speaks", || said.load(Ordering::Relaxed) > 0 || talker.is_finished());
        let result = meanwhile();
        over.store(true, Ordering::Relaxed);
        result
    });
    (result, said.into_inner())
}

#[test]
fn whoever_has_an_address_is_seen_at_once_and_nobody_after_the_last_interval() {
    on_a_bridge(|| {
        make_user("s1", ALICE);
        let (prober, start) = (prober(), Instant::now());
        assert_eq!(prober.ask(ADDRESS, None, PATIENT).unwrap(), Some(ALICE));
        assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
        let (start, slow) = (Instant::now(), Probing { count: 2, interval: Duration::from_millis(200) });
        assert_eq!(prober.ask(OTHER, None, slow).unwrap(), None);
        assert!((Duration::from_millis(400)..Duration::from_secs(2)).contains(&start.elapsed()), "{start:?}");
        assert_eq!(prober.ask(ADDRESS, None, Probing::default()).unwrap(), Some(ALICE), "the same prober, again");
    });
}

#[test]
fn a_claim_or_a_probe_of_somebody_else_is_use() {
    on_a_bridge(|| {
        make_sandbox("s1", ALICE);
        let request = |sender, target| ArpPacket {
            operation: Operation::Request,
            sender_mac: BOB,
            sender,
            target_mac: Mac::ZERO,
            target,
        };
        for packet in [
            ArpPacket::probe(BOB, ADDRESS),
            ArpPacket::announcement(BOB, ADDRESS),
            request(ADDRESS, ADDRESS),
            request(ADDRESS, OTHER),
        ] {
            let prober = prober();
            let frames = [packet.broadcast_frame(None)];
            let ask = || prober.ask(ADDRESS, None, PATIENT).unwrap();
            assert_eq!(while_saying("s1", &frames, Duration::from_millis(1), ask).0, Some(BOB), "{packet:?}");
        }
        let prober = prober();
        let question = [request(OTHER, ADDRESS).broadcast_frame(None)];
        let ask = || prober.ask(ADDRESS, None, Probing::default()).unwrap();
        let (user, said) = while_saying("s1", &question, Duration::from_millis(1), ask);
        assert_eq!(user, None, "whoever asks for an address does not use it ({said} times)");
    });
}

/// The kernel of a test need not have VLAN interfaces, so it is the test that answers in the VLAN.
#[test]
fn an_address_in_a_vlan_is_used_in_that_vlan_only() {
    on_a_bridge(|| {
        make_sandbox("s1", ALICE);
        let prober = prober();
        let plain = ArpPacket::announcement(BOB, ADDRESS).broadcast_frame(None);
        let priority = [&plain[..12], &[0x81, 0, 0xe0, 0], &plain[12..]].concat();
        let tagged = ArpPacket::announcement(BOB, ADDRESS).broadcast_frame(vlan(7));
        for (claimed, claim) in [(vlan(7), tagged), (None, plain), (None, priority)] {
            for asked in [None, vlan(7), vlan(8)] {
                let ask = || prober.ask(ADDRESS, asked, Probing::default()).unwrap();
                let (user, said) = while_saying("s1", from_ref(&claim), Duration::from_millis(1), ask);
                let expected = (claimed == asked).then_some(BOB);
                assert_eq!(user, expected, "{said} times {claim:x?}, asked in {asked:?}");
            }
        }
    });
}

#[test]
fn a_probe_in_a_vlan_bears_its_tag() {
    on_a_bridge(|| {
        make_sandbox("s1", ALICE);
        let mut ears = Command::new("ip")
            .args(["netns", "exec", "s1", "tcpdump", "-n", "-e", "-l", "-c", "2", "-i", "eth0", "arp or vlan"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut listening = BufReader::new(ears.stderr.take().unwrap());
        while !said.contains("listening on") {
            assert_ne!(listening.read_line(&mut said).unwrap(), 0, "tcpdump: {said}");
        }
        assert_eq!(prober().ask(ADDRESS, vlan(7), Probing::default()).unwrap(), None);
        let heard = String::from_utf8(ears.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(heard.matches("vlan 7, p 0, ethertype ARP").count(), 2, "{heard}");
        assert_eq!(heard.matches("who-has 10.8.64.2 tell 0.0.0.0").count(), 2, "{heard}");
    });
}

#[test]
fn the_host_is_no_stranger_to_itself() {
    on_a_bridge(|| {
        make_sandbox("s1", ALICE);
        let (first, second) = (prober(), prober());
        let (own, over) = ("10.8.64.1".parse().unwrap(), AtomicBool::new(false));
        let probing = Probing { count: 1, interval: Duration::from_millis(1) };
        let others_ask = || {
            let start = Instant::now();
            while !over.load(Ordering::Relaxed) && start.elapsed() < DEADLINE {
                assert_eq!(second.ask(ADDRESS, None, probing).unwrap(), None);
            }
        };
        thread::scope(|scope| {
            scope.spawn(others_ask);
            let user = first.ask(ADDRESS, None, Probing::default()).unwrap();
            over.store(true, Ordering::Relaxed);
            assert_eq!(user, None, "probes of our own");
        });
        assert_eq!(first.ask(own, None, Probing::default()).unwrap(), None, "we do not answer ourselves");
        let user = Wire::new(Probing::default()).user_of(rt0(), own, &sports()).unwrap();
        assert_eq!(user, Some(User { mac: link(&ip("link show rt0")).1, shown_by: "is the host's own" }));
    });
}

#[test]
fn an_address_that_the_host_has_elsewhere_is_its_own_since_it_answers_for_it() {
    on_a_bridge(|| {
        make_sandbox("s1", ALICE);
        ip("link add elsewhere type veth peer name far");
        ip(&format!("addr add {ADDRESS}/32 dev elsewhere"));
        let user = Wire::new(Probing::default()).user_of(rt0(), ADDRESS, &sports()).unwrap();
        assert_eq!(user.map(|user| user.shown_by), Some("is the host's own"));
        assert_eq!(Wire::new(Probing::default()).user_of(rt0(), OTHER, &sports()).unwrap(), None);
    });
}

#[test]
fn what_is_heard_on_a_bridge_that_changes_meanwhile_does_not_count() {
    on_a_bridge(|| {
        let over = AtomicBool::new(false);
        let change = || {
            let start = Instant::now();
            for n in 0_u16.. {
                let mac = {
                    let [high, low] = n.to_be_bytes();
                    Mac([2, 0, 0, 1, high, low])
                };
                ip(&format!("link set rt0 address {mac}"));
                if over.load(Ordering::Relaxed) || start.elapsed() > DEADLINE {
                    break;
                }
            }
        };
        let wire = Wire::new(Probing { count: 1, interval: Duration::from_millis(300) });
        let error = thread::scope(|scope| {
            scope.spawn(change);
            let answer = wire.user_of(rt0(), ADDRESS, &sports());
            over.store(true, Ordering::Relaxed);
            answer.unwrap_err().to_string()
        });
        assert!(error.starts_with("the hardware address of rt0 changed"), "{error}");
        assert_eq!(wire.user_of(rt0(), ADDRESS, &sports()).unwrap(), None);
    });
}

#[test]
fn garbage_and_floods_neither_hide_a_user_nor_hold_anybody_up() {
    on_a_bridge(|| {
        make_sandbox("flood", BOB);
        let claims = (0..64).map(|n| ArpPacket::announcement(BOB, [10, 8, 65, n].into()).broadcast_frame(None));
        let garbage = [0, 1, 7, 27].into_iter().map(|len| {
            let frame = ArpPacket::announcement(BOB, ADDRESS).broadcast_frame(None);
            frame[..14 + len].to_vec()
        });
        let frames: Vec<_> = claims.chain(garbage).collect();
        let (prober, start) = (prober(), Instant::now());
        let ask = || (0..10).map(|_| prober.ask(ADDRESS, None, Probing::default())).collect::<Vec<_>>();
        let (answers, said) = while_saying("flood", &frames, Duration::ZERO, ask);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?} for ten questions", start.elapsed());
        assert!(said > 1000, "{said} frames are no flood");
        for answer in answers {
            assert!(matches!(answer, Ok(None) | Err(ProbeError::Flooded(_))), "{answer:?}");
        }
        make_user("s1", ALICE);
        let ask = || (0..10).map(|_| prober.ask(ADDRESS, None, Probing::default())).collect::<Vec<_>>();
        for answer in while_saying("flood", &frames, Duration::ZERO, ask).0 {
            assert!(matches!(answer, Ok(Some(ALICE)) | Err(ProbeError::Flooded(_))), "{answer:?}");
        }
    });
}

#[test]
fn a_bridge_that_cannot_be_asked_is_an_error_and_one_without_anybody_is_none() {
    on_a_bridge(|| {
        let wire = Wire::new(Probing::default());
        assert_eq!(wire.user_of(rt0(), ADDRESS, &sports()).unwrap(), None, "no port, and so no carrier");
        let prober = prober();
        ip("link set rt0 down");
        let error = prober.ask(ADDRESS, None, Probing::default()).unwrap_err();
        assert!(matches!(error, ProbeError::Send(SendError::Down { .. })), "{error}");
        let error = wire.user_of(rt0(), ADDRESS, &sports()).unwrap_err();
        assert!(error.to_string().ends_with("is down"), "{error}");
        ip("link del rt0");
        let error = prober.ask(ADDRESS, None, Probing::default()).unwrap_err();
        assert!(matches!(error, ProbeError::Send(SendError::Gone { .. })), "{error}");
        assert_eq!(wire.user_of(rt0(), ADDRESS, &sports()).unwrap(), None, "nobody is on a bridge that is not there");
        ip("link add rt0 type veth peer name far");
        wire.user_of(rt0(), ADDRESS, &sports()).unwrap_err();
    });
}

#[test]
fn a_bridge_that_goes_while_it_is_asked_is_an_error() {
    for end in ["link set rt0 down", "link del rt0"] {
        on_a_bridge(move || {
            make_sandbox("s1", ALICE);
            let prober = prober();
            thread::scope(|scope| {
                let asked = scope.spawn(|| prober.ask(ADDRESS, None, PATIENT));
                ip(end);
                let error = asked.join().unwrap().unwrap_err();
                assert!(matches!(error, ProbeError::Send(_)), "{error:?}");
            });
        });
    }
}

#[test]
fn without_the_capability_it_says_which_one() {
    on_a_bridge(|| {
        let (index, mac) = link(&ip("link show rt0"));
        caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_RAW).unwrap();
        let error = Prober::open(index, mac, BTreeSet::new()).unwrap_err().to_string();
        assert!(error.contains("CAP_NET_RAW"), "{error}");
        let error = Wire::new(Probing::default()).user_of(rt0(), ADDRESS, &sports()).unwrap_err().to_string();
        assert!(error.contains("CAP_NET_RAW"), "{error}");
    });
}

#[test]
fn two_hundred_addresses_are_asked_for_together_and_all_who_have_one_are_told() {
    on_a_bridge(|| {
        make_user("s1", ALICE);
        make_user("s2", BOB);
        let all: Vec<_> = (2..202).map(|host| Ipv4Addr::new(10, 8, 64, host)).collect();
        let lines: String = all[1..].iter().map(|a| format!("addr add {a}/24 dev eth0\n")).collect();
        fs::write("/run/batch", lines).unwrap();
        ip("-n s1 -batch /run/batch");
        let asked: Vec<_> = (1..=254).map(|host| Ipv4Addr::new(10, 8, 64, host)).collect();
        let mut users = prober().ask_many(&asked, None, Probing::default()).unwrap();
        assert_eq!(users.keys().copied().collect::<Vec<_>>(), all);
        assert_eq!(users.remove(&ADDRESS).unwrap(), [ALICE, BOB].into());
        assert!(users.values().all(|macs| *macs == [ALICE].into()), "{users:?}");
    });
}

#[test]
fn an_address_that_a_stranger_answers_for_is_quarantined_and_the_next_one_given() {
    on_a_bridge(|| {
        make_user("stranger", BOB);
        let store = SqliteStore::open("/run/dupip.db".as_ref(), "test", Clock::system().unwrap()).unwrap();
        let gateway = Some("10.8.64.1".parse().unwrap());
        store.ensure_pool(&Pool::new(rt0(), "10.8.64.0/24".parse().unwrap(), gateway, Span::ZERO).unwrap()).unwrap();
        let terms = Terms { quarantine: Span::from_millis(300), ..Terms::default() };
        let wire = Wire::new(Probing::default());
        let lease = hand_out(&store, &Wish::new(rt0(), sports()), &wire, terms).unwrap();
        assert_eq!((lease.address, lease.state), (OTHER, LeaseState::Bound));
        let quarantined = || {
            let standings = store.standings(Some(rt0())).unwrap();
            standings.into_iter().find(|standing| standing.lease.address == ADDRESS).unwrap()
        };
        let standing = quarantined();
        assert_eq!(standing.lease.state, LeaseState::Quarantined);
        assert_eq!(standing.quarantine, Some((BOB, format!("{BOB} answered a probe"))));
        // It is not taken for free when the quarantine is over, but asked for again.
        let this_one = Wish { within: vec![Ipv4Range::from(ADDRESS)], ..Wish::new(rt0(), "review".parse().unwrap()) };
        until("the quarantine is over", || quarantined().left.is_none_or(|left| left == Span::ZERO));
        let error = hand_out(&store, &this_one, &wire, terms).unwrap_err();
        assert!(matches!(error, AllocateError::Exhausted { ready_in: Some(_), .. }), "{error}");
        assert!(quarantined().lease.generation > standing.lease.generation, "asked again");
        ip("-n stranger addr flush dev eth0");
        until("the second quarantine is over", || quarantined().left.is_none_or(|left| left == Span::ZERO));
        let lease = hand_out(&store, &this_one, &wire, terms).unwrap();
        assert_eq!((lease.address, lease.state), (ADDRESS, LeaseState::Bound));
    });
}

#[test]
fn the_owner_is_no_stranger_and_hides_none() {
    on_a_bridge(|| {
        let wire = Wire::new(Probing::default());
        make_user("sports", ALICE);
        assert_eq!(wire.user_of(rt0(), ADDRESS, &sports()).unwrap(), None);
        make_user("review", BOB);
        let stranger = Some(User { mac: BOB, shown_by: "answered a probe" });
        assert_eq!(wire.user_of(rt0(), ADDRESS, &sports()).unwrap(), stranger);
    });
}

/// An agent that answers `answer` to whatever it is asked, `times` times.
fn answering(answer: &'static str, times: usize) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(SOCKET).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().take(times) {
            let mut stream = stream.unwrap();
            let mut asked = [0; 4096];
            assert_ne!(stream.read(&mut asked).unwrap(), 0);
            let head = "Content-Type: application/json\r\nConnection: close\r\n";
            let len = answer.len();
            write!(stream, "HTTP/1.1 503 No\r\n{head}Content-Length: {len}\r\n\r\n{answer}").unwrap();
        }
    })
}

#[test]
fn where_no_agent_answers_the_wire_is_asked_and_where_one_cannot_nobody_is_taken_for_absent() {
    on_a_bridge(|| {
        make_user("s1", ALICE);
        let beside = || Witnesses::beside(SOCKET.as_ref(), Probing::default(), false);
        let seen = |witnesses: Witnesses| witnesses.user_of(rt0(), ADDRESS, &sports()).unwrap().unwrap().mac;
        assert_eq!(seen(beside().unwrap()), ALICE, "no socket");
        for answer in ["{}", "garbage", ""] {
            let agent = answering(answer, 1);
            beside().unwrap_err();
            agent.join().unwrap();
            // A command that another test starts has the socket, too, until it is its own process.
            until("nobody listens", || UnixStream::connect(SOCKET).is_err());
            assert_eq!(seen(beside().unwrap()), ALICE, "a socket where nobody listens");
            fs::remove_file(SOCKET).unwrap();
        }
    });
}

#[test]
fn what_cannot_be_seen_is_not_given() {
    on_a_bridge(|| {
        let store = SqliteStore::open("/run/dupip.db".as_ref(), "test", Clock::system().unwrap()).unwrap();
        let gateway = Some("10.8.64.1".parse().unwrap());
        store.ensure_pool(&Pool::new(rt0(), "10.8.64.0/24".parse().unwrap(), gateway, Span::ZERO).unwrap()).unwrap();
        ip("link set rt0 down");
        let wish = Wish::new(rt0(), sports());
        let error = hand_out(&store, &wish, &Wire::new(Probing::default()), Terms::default()).unwrap_err();
        assert!(matches!(error, AllocateError::Unwitnessed(..)), "{error}");
        let states: Vec<_> = store.leases(None).unwrap().iter().map(|lease| lease.state).collect();
        assert_eq!(states, [LeaseState::Draining], "the reservation is given back");
    });
}

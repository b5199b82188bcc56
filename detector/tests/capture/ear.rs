//! Without eBPF.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use detector::{
    capture::{CaptureError, Claims, Ear, Hook, Kind, Listener, Malformed, Post, Side, Started, TapSettings},
    engine::{Claim, KnownClaim},
    net::{ArpPacket, IfIndex, Operation},
};

use crate::lab::*;

fn open() -> (Ear, Claims) {
    let ear = Ear::open(&TapSettings::default()).unwrap();
    let claims = ear.claims().unwrap();
    (ear, claims)
}

/// Everything about a claim but its time.
fn timeless(claim: &Claim) -> Claim {
    Claim { at: Default::default(), ..*claim }
}

#[test]
fn it_hears_what_the_tap_hears() {
    alone(async || {
        let (port, speaker) = (wire("s1", "p1"), index("s1"));
        let (mut tap, mut tapped) = load(Hook::Auto);
        let (mut ear, mut heard) = open();
        for (interface, side) in [(port, Side::Ingress), (speaker, Side::Egress)] {
            tap.attach(interface, at(side)).unwrap();
            ear.attach(interface, at(side)).unwrap();
        }
        let mut masked = request().broadcast_frame(None);
        masked[6..12].copy_from_slice(&BOB.0);
        let mut frames = vec![masked];
        for packet in [
            request(),
            packet(Operation::Reply, ADDRESS, GATEWAY),
            packet(Operation::Request, ADDRESS, ADDRESS),
            ArpPacket::announcement(ALICE, ADDRESS),
            ArpPacket::probe(ALICE, ADDRESS),
        ] {
            for tags in [&[][..], &[(0x8100, 12)], &[(0x8100, 0xe000)], &[(0x88a8, 5), (0x8100, 7)]] {
                frames.push(tagged(&packet, tags));
            }
        }
        let before = now();
        frames.iter().for_each(|frame| say("s1", frame));
        let (by_tap, by_ear) = (hear(&mut tapped, 2 * frames.len()).await, hear(&mut heard, 2 * frames.len()).await);
        for interface in [port, speaker] {
            let of = |claims: &[Claim]| -> Vec<_> {
                claims.iter().filter(|claim| claim.port == interface).map(timeless).collect()
            };
            assert_eq!(of(&by_ear), of(&by_tap));
            assert_eq!(of(&by_ear).len(), frames.len());
            let (tapped, heard) = (tap.counters(interface).unwrap(), ear.counters(interface).unwrap());
            assert_eq!(tapped, heard);
            assert_eq!(Kind::ARP.map(|kind| heard.kind(kind)), [5, 4, 4, 4, 4]);
        }
        assert!(by_ear.iter().all(|claim| before <= claim.at && claim.at <= now()), "{by_ear:?}");
    });
}

#[test]
fn it_counts_what_is_malformed_as_the_tap_does() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, mut tapped) = load(Hook::Auto);
        let (mut ear, mut heard) = open();
        tap.attach(port, at(Side::Ingress)).unwrap();
        ear.attach(port, at(Side::Ingress)).unwrap();
        let good = request().broadcast_frame(None);
        for (offset, byte) in [(15, 6), (17, 1), (18, 8), (19, 16), (21, 3), (13, 0)] {
            let mut bad = good.clone();
            bad[offset] = byte;
            say("s1", &bad);
        }
        say("s1", &good[..14]);
        say("s1", &tagged(&request(), &[(0x8100, 7)])[..45]);
        say("s1", &good);
        hear(&mut tapped, 1).await;
        hear(&mut heard, 1).await;
        let counted = ear.counters(port).unwrap();
        assert_eq!(Some(counted), tap.counters(port));
        assert_eq!(Malformed::ALL.map(|reason| counted.malformed(reason)), [2, 1, 1, 1, 1, 1]);
    });
}

#[test]
fn at_a_port_it_hears_the_sandbox_and_at_the_bridge_the_host() {
    alone(async || {
        answer_strictly();
        ip("link add rt0 type bridge\naddr add 10.8.64.1/24 dev rt0\nlink set rt0 up\n");
        let ports = [wire("s1", "p1"), wire("s2", "p2")];
        ip("link set p1 master rt0\nlink set p2 master rt0\n");
        let (mut ear, mut heard) = open();
        ports.iter().for_each(|port| ear.attach(*port, at(Side::Ingress)).unwrap());
        ear.attach(index("rt0"), at(Side::Egress)).unwrap();
        // The broadcast goes up to the host and out of the other port, and the host answers.
        say("s1", &request().broadcast_frame(None));
        let claims: BTreeSet<_> = hear(&mut heard, 2).await.iter().map(|claim| (claim.port, claim.address)).collect();
        assert_eq!(claims, [(ports[0], ADDRESS), (index("rt0"), GATEWAY)].into());
        assert_eq!(ear.counters(ports[1]).unwrap().seen(), 0);
    });
}

#[test]
fn a_flood_is_bounded_and_another_port_is_heard() {
    alone(async || {
        let (noisy, quiet) = (wire("s1", "p1"), wire("s2", "p2"));
        let mut ear = Ear::open(&TapSettings { rate: 1, burst: 10, ..TapSettings::default() }).unwrap();
        let mut heard = ear.claims().unwrap();
        ear.attach(noisy, at(Side::Ingress)).unwrap();
        ear.attach(quiet, at(Side::Ingress)).unwrap();
        // More than the socket has room for before somebody reads.
        say_often("s1", &request().broadcast_frame(None), 20_000);
        say("s2", &request().broadcast_frame(None));
        let mut claims = Vec::new();
        while !claims.iter().any(|claim: &Claim| claim.port == quiet) {
            claims.extend(tokio::time::timeout(DEADLINE, heard.next_batch()).await.unwrap().unwrap());
        }
        until("all are counted", || {
            ear.listen(Instant::now()).unwrap();
            ear.counters(noisy).unwrap().seen() == 20_000
        })
        .await;
        let counted = ear.counters(noisy).unwrap();
        assert!(counted.lost > 0 && counted.limited > 0 && counted.reported >= 10, "{counted:?}");
        assert_eq!(counted.reported + counted.limited + counted.lost, 20_000);
        assert_eq!(ear.counters(quiet).unwrap().seen(), 1);
    });
}

/// The kernel begins to stamp packets soon after it was asked to.
#[test]
fn a_claim_is_as_old_as_its_frame_and_not_as_young_as_its_reader() {
    alone(async || {
        let port = wire("s1", "p1");
        let mut ear = Ear::open(&TapSettings { rate: 0, ..TapSettings::default() }).unwrap();
        ear.attach(port, at(Side::Ingress)).unwrap();
        until("a claim is older than the look at it", || {
            let said = now();
            say("s1", &request().broadcast_frame(None));
            let looked = now();
            let claims = ear.listen(Instant::now() + DEADLINE).unwrap();
            assert!(claims.iter().all(|claim| said <= claim.at && claim.at <= now()), "{said:?}: {claims:?}");
            claims.iter().all(|claim| claim.at < looked)
        })
        .await;
    });
}

#[test]
fn a_scan_may_wait_for_it_without_a_runtime() {
    alone(async || {
        answer_strictly();
        let (port, next) = (wire("s1", "p1"), wire("s2", "p2"));
        ip("addr add 10.8.64.2/24 dev s1\n");
        let mut ear = Ear::open(&TapSettings::default()).unwrap();
        ear.attach(port, at(Side::Ingress)).unwrap();
        ear.attach(next, at(Side::Ingress)).unwrap();
        assert_eq!(ear.listen(Instant::now()).unwrap(), []);
        say("p1", &ArpPacket::probe(BOB, ADDRESS).broadcast_frame(None));
        say("p2", &ArpPacket::probe(BOB, ADDRESS).broadcast_frame(None));
        let answers = ear.listen(Instant::now() + DEADLINE).unwrap();
        assert_eq!(answers.iter().map(|claim| (claim.port, claim.address)).collect::<Vec<_>>(), [(port, ADDRESS)]);
        assert_eq!(ear.listen(Instant::now() + Duration::from_millis(1)).unwrap(), []);
    });
}

#[test]
fn a_port_that_went_down_or_away_is_heard_again_when_it_is_back() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut ear, mut heard) = open();
        ear.attach(port, at(Side::Ingress)).unwrap();
        ip("link set p1 down\nlink set p1 up\n");
        // The other end has its carrier back only after a moment, and says nothing until then.
        until("it is heard again", || {
            say("s1", &request().broadcast_frame(None));
            !ear.listen(Instant::now()).unwrap().is_empty()
        })
        .await;

        ip(&format!("link del p1\nlink add p2 index {port} type veth peer name s2\nlink set p2 up\nlink set s2 up\n"));
        assert!(ear.detach(port).unwrap().reported > 0);
        assert_eq!((ear.detach(port), ear.counters(port)), (None, None));
        ear.attach(port, at(Side::Ingress)).unwrap();
        say("s2", &request().broadcast_frame(None));
        assert_eq!(hear(&mut heard, 1).await[0].port, port);
        assert_eq!(ear.counters(port).unwrap().seen(), 1);

        let never = IfIndex::new(70_000).unwrap();
        let error = ear.attach(never, at(Side::Ingress)).unwrap_err();
        assert_eq!(error.to_string(), "interface 70000 is gone");
        assert_eq!(ear.counters(never), None);
    });
}

/// Gives up whatever this thread may do but these.
fn keep(capabilities: &[caps::Capability]) {
    caps::set(None, caps::CapSet::Effective, &capabilities.iter().copied().collect()).unwrap();
}

#[test]
fn it_stands_in_for_a_tap_that_may_not_be() {
    alone(async || {
        let port = wire("s1", "p1");
        let sender = detector::capture::FrameSender::open().unwrap();
        keep(&[caps::Capability::CAP_NET_RAW]);
        let Started { mut listener, mut claims, mut known, refused, quarantine } =
            Listener::start(&TapSettings::default()).unwrap();
        assert!(matches!(refused, Some(CaptureError::NotPermitted)), "{refused:?}");
        assert_eq!((listener.hook(), quarantine.can_contain()), (None, false));
        assert!(matches!(listener.guard(port, true), Err(CaptureError::CannotContain)));
        listener.guard(port, false).unwrap();
        listener.attach(port, Post { watch_ipv4: true, ..at(Side::Ingress) }).unwrap();
        let claim = KnownClaim { port, tag: None, mac: ALICE, address: ADDRESS };
        known.absorb(&claim, bridge()).unwrap();
        assert_eq!(known.len(), 0);
        sender.send(index("s1"), &request().broadcast_frame(None)).unwrap();
        assert_eq!(said(&hear(&mut claims, 1).await[0]), says(&request()), "it absorbs nothing");
        assert_eq!(known.read(now()).unwrap(), []);
        known.forget(&claim).unwrap();
        assert_eq!(listener.counters(port).unwrap().reported, 1);
        assert_eq!(listener.detach(port).unwrap().unwrap().reported, 1);
    });
}

#[test]
fn where_there_can_be_a_tap_it_is_the_tap() {
    alone(async || {
        let port = wire("s1", "p1");
        let Started { mut listener, mut claims, refused, .. } = Listener::start(&TapSettings::default()).unwrap();
        assert!(refused.is_none() && listener.hook().is_some(), "{refused:?}");
        listener.attach(port, at(Side::Ingress)).unwrap();
        say("s1", &request().broadcast_frame(None));
        hear(&mut claims, 1).await;
        assert_eq!(listener.counters(port), listener.detach(port).unwrap());
    });
}

#[test]
fn with_neither_or_with_a_hook_that_was_asked_for_it_says_why_there_is_no_tap() {
    alone(async || {
        keep(&[caps::Capability::CAP_NET_RAW]);
        let by_hook = Listener::start(&TapSettings { hook: Hook::Clsact, ..TapSettings::default() });
        assert!(matches!(by_hook.err(), Some(CaptureError::NotPermitted)));
        keep(&[]);
        let neither = Listener::start(&TapSettings::default());
        assert!(matches!(neither.err(), Some(CaptureError::NotPermitted)));
        let error = Ear::open(&TapSettings::default()).unwrap_err();
        assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
    });
}

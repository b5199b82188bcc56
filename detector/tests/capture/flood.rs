//! One port that says too much.

use std::{net::Ipv4Addr, thread};

use detector::{
    capture::{FrameSender, Hook, Kind, Post, Side, TapSettings},
    engine::{Claim, KnownClaim},
    net::{ArpPacket, IfIndex, VlanId},
};

use crate::lab::*;

const FLOOD: u32 = 200_000;

/// So many claims, each to another address, said as fast as one can.
fn flood(interface: &'static str, count: u32) -> thread::JoinHandle<()> {
    let index = index(interface);
    let sender = FrameSender::open().unwrap();
    thread::spawn(move || {
        for number in 0..count {
            let claim = ArpPacket { sender: Ipv4Addr::from(0x0a80_0000 + number), ..request() };
            send(&sender, index, &claim.broadcast_frame(None));
        }
    })
}

/// Takes claims until `is_last` is among them.
async fn hear_until(claims: &mut detector::capture::Claims, is_last: impl Fn(&Claim) -> bool) -> Vec<Claim> {
    let mut heard = Vec::new();
    while !heard.iter().any(&is_last) {
        let batch = tokio::time::timeout(DEADLINE, claims.next_batch()).await;
        heard.extend(batch.expect("not heard in time").unwrap());
    }
    heard
}

#[test]
fn what_is_sent_is_reported_absorbed_limited_or_lost() {
    for hook in [Hook::Tcx, Hook::Clsact] {
        alone(async move || {
            let (noisy, quiet) = (wire("s1", "p1"), wire("s2", "p2"));
            let settings =
                TapSettings { hook, ring_bytes: 64 << 10, rate: 1_000_000, burst: 5_000, ..TapSettings::default() };
            let (mut tap, mut claims, mut known) = load_with(settings);
            tap.attach(noisy, at(Side::Ingress)).unwrap();
            tap.attach(quiet, at(Side::Ingress)).unwrap();
            for number in 0..1000 {
                let address = Ipv4Addr::from(0x0a80_0000 + 7 * number);
                known.absorb(&KnownClaim { port: noisy, tag: None, mac: ALICE, address }, bridge()).unwrap();
            }
            let flooding = flood("s1", FLOOD);
            until("all are counted", || tap.counters(noisy).unwrap().seen() >= u64::from(FLOOD)).await;
            flooding.join().unwrap();
            let counted = tap.counters(noisy).unwrap();
            assert_eq!(
                counted.reported + counted.absorbed + counted.limited + counted.lost,
                u64::from(FLOOD),
                "{counted:?}"
            );
            assert_eq!((counted.absorbed, counted.kind(Kind::Request)), (1000, u64::from(FLOOD)));
            assert!(counted.lost > 0, "the ring is small: {counted:?}");
            let heard = known.read(now()).unwrap();
            assert_eq!((heard.len(), heard.iter().map(|heard| heard.hits).sum::<u64>()), (1000, 1000));
            let reported = usize::try_from(counted.reported).unwrap();
            assert!(hear(&mut claims, reported).await.iter().all(|claim| claim.port == noisy));
            say("s2", &request().broadcast_frame(None));
            assert_eq!(hear(&mut claims, 1).await[0].port, quiet);
        });
    }
}

#[test]
fn another_port_is_heard_amid_a_flood() {
    alone(async || {
        let (noisy, quiet) = (wire("s1", "p1"), wire("s2", "p2"));
        let (mut tap, mut claims, _known) = load_with(TapSettings::default());
        tap.attach(noisy, at(Side::Ingress)).unwrap();
        tap.attach(quiet, at(Side::Ingress)).unwrap();
        let flooding = flood("s1", FLOOD);
        until("the flood is more than its share", || tap.counters(noisy).unwrap().limited > 0).await;
        say("s2", &ArpPacket::announcement(BOB, ADDRESS).broadcast_frame(None));
        let mut heard = hear_until(&mut claims, |claim| claim.port == quiet).await;
        flooding.join().unwrap();
        until("all are counted", || tap.counters(noisy).unwrap().seen() == u64::from(FLOOD)).await;
        let counted = tap.counters(noisy).unwrap();
        assert_eq!((counted.reported + counted.limited, counted.lost), (u64::from(FLOOD), 0));
        assert_eq!(tap.counters(quiet).unwrap().reported, 1);
        while heard.len() <= usize::try_from(counted.reported).unwrap() {
            heard.extend(tokio::time::timeout(DEADLINE, claims.next_batch()).await.unwrap().unwrap());
        }
        assert_eq!(heard.iter().filter(|claim| claim.port == noisy).count() as u64, counted.reported);
    });
}

/// Hardly anything.
fn one_each() -> TapSettings {
    TapSettings { rate: 1, burst: 1, ..TapSettings::default() }
}

#[test]
fn whoever_floods_cannot_hide_a_contradiction() {
    alone(async || {
        let (liar, owner) = (wire("s1", "p1"), wire("s2", "p2"));
        let (mut tap, _claims, mut known) = load_with(one_each());
        tap.attach(liar, at(Side::Ingress)).unwrap();
        let elsewhere = IfIndex::new(80_000).unwrap();
        let (own, on_another_bridge) = (GATEWAY, Ipv4Addr::new(10, 8, 64, 9));
        let owned = KnownClaim { port: owner, tag: None, mac: BOB, address: ADDRESS };
        known.absorb(&owned, bridge()).unwrap();
        known.absorb(&KnownClaim { port: liar, address: own, ..owned }, bridge()).unwrap();
        known.absorb(&KnownClaim { address: on_another_bridge, ..owned }, elsewhere).unwrap();

        // Says it a hundred times, and tells how often it was reported and limited.
        let say_hundred_times = async |address, vlan| {
            let before = tap.counters(liar).unwrap();
            let frame = ArpPacket { sender: address, ..request() }.broadcast_frame(vlan);
            say_often("s1", &frame, 100);
            until("all are counted", || tap.counters(liar).unwrap().seen() == before.seen() + 100).await;
            let since = tap.counters(liar).unwrap().since(&before);
            (since.reported, since.limited)
        };
        for (address, vlan) in [(own, None), (on_another_bridge, None), (ADDRESS, VlanId::new(7))] {
            let (_, limited) = say_hundred_times(address, vlan).await;
            assert!(limited > 0, "{address} is nobody else's there");
        }
        assert_eq!(say_hundred_times(ADDRESS, None).await, (100, 0));
        known.forget(&owned).unwrap();
        assert!(say_hundred_times(ADDRESS, None).await.1 > 0, "it is nobody's any more");
    });
}

#[test]
fn even_contradictions_have_a_limit() {
    alone(async || {
        let (liar, owner) = (wire("s1", "p1"), wire("s2", "p2"));
        let (mut tap, _claims, mut known) = load_with(one_each());
        tap.attach(liar, at(Side::Ingress)).unwrap();
        known.absorb(&KnownClaim { port: owner, tag: None, mac: BOB, address: ADDRESS }, bridge()).unwrap();
        say_often("s1", &request().broadcast_frame(None), 20_000);
        until("all are counted", || tap.counters(liar).unwrap().seen() == 20_000).await;
        let counted = tap.counters(liar).unwrap();
        assert!(counted.reported >= 256 && counted.limited > 0, "{counted:?}");
        assert_eq!(counted.reported + counted.limited, 20_000);
    });
}

#[test]
fn packets_share_the_ports_share_and_are_counted_apart() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, mut claims, _known) = load_with(one_each());
        tap.attach(port, Post { watch_ipv4: true, ..at(Side::Ingress) }).unwrap();
        let mut packet = [&BOB.0[..], &ALICE.0, &[8, 0, 0x45], &[0; 19]].concat();
        packet[26..30].copy_from_slice(&ADDRESS.octets());
        say_often("s1", &packet, 1000);
        say("s1", &[0; 60]);
        until("all are counted", || {
            let counted = tap.counters(port).unwrap();
            counted.ipv4_reported + counted.ipv4_limited == 1000
        })
        .await;
        let counted = tap.counters(port).unwrap();
        assert!(counted.ipv4_limited > 0 && counted.ipv4_reported > 0, "{counted:?}");
        assert_eq!((counted.seen(), counted.ipv4_lost), (0, 0));
        hear(&mut claims, usize::try_from(counted.ipv4_reported).unwrap()).await;
    });
}

#[test]
fn without_a_rate_there_is_no_limit() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, mut claims, _known) = load_with(TapSettings { rate: 0, ..TapSettings::default() });
        tap.attach(port, at(Side::Ingress)).unwrap();
        // As many claims as are remembered of one domain, before anybody reads.
        flood("s1", 65_536).join().unwrap();
        until("all are counted", || tap.counters(port).unwrap().seen() == 65_536).await;
        assert_eq!(tap.counters(port).unwrap().reported, 65_536);
        hear(&mut claims, 65_536).await;
    });
}

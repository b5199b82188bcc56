//! What the tap hears, and what it counts instead.

use std::{
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd as _,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use detector::{
    capture::{Claims, Hook, Kind, Malformed, Side, TapSettings},
    engine::{Claim, Evidence},
    net::{ArpPacket, ClaimKind, Operation, VlanId},
};

use crate::lab::*;

async fn every_form_is_heard(hook: Hook) {
    let port = wire("s1", "p1");
    let (mut tap, mut claims) = load(hook);
    tap.attach(port, at(Side::Ingress)).unwrap();
    let forms = [
        request(),
        packet(Operation::Reply, ADDRESS, GATEWAY),
        packet(Operation::Request, ADDRESS, ADDRESS),
        ArpPacket::announcement(ALICE, ADDRESS),
        ArpPacket::probe(ALICE, ADDRESS),
        packet(Operation::Reply, ADDRESS, Ipv4Addr::UNSPECIFIED),
    ];
    let before = now();
    forms.iter().for_each(|packet| say("s1", &packet.broadcast_frame(None)));
    let heard = hear(&mut claims, forms.len()).await;
    assert_eq!(heard.iter().map(said).collect::<Vec<_>>(), forms.iter().map(says).collect::<Vec<_>>());
    for claim in &heard {
        assert_eq!((claim.port, claim.tag), (port, None));
        assert_eq!(claim.ether_source, ALICE);
    }
    let times: Vec<_> = [before].into_iter().chain(heard.iter().map(|claim| claim.at)).chain([now()]).collect();
    assert!(times.is_sorted(), "{times:?}");
    let counters = tap.counters(port).unwrap();
    assert_eq!((counters.reported, counters.seen(), claims.unreadable()), (6, 6, 0));
    assert_eq!(Kind::ARP.map(|kind| counters.kind(kind)), [1, 2, 1, 1, 1]);
}

#[test]
fn every_form_is_heard_by_tcx() {
    alone(async || every_form_is_heard(Hook::Tcx).await);
}

#[test]
fn every_form_is_heard_by_clsact() {
    alone(async || every_form_is_heard(Hook::Clsact).await);
}

#[test]
fn tcx_is_the_hook_where_there_is_tcx() {
    alone(async || assert_eq!(load(Hook::Auto).0.hook(), Hook::Tcx));
}

#[test]
fn a_frame_source_other_than_the_sender_is_heard_as_it_is() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, mut claims) = load(Hook::Auto);
        tap.attach(port, at(Side::Ingress)).unwrap();
        let mut frame = request().broadcast_frame(None);
        frame[..6].copy_from_slice(&ALICE.0);
        frame[6..12].copy_from_slice(&BOB.0);
        say("s1", &frame);
        let heard = hear(&mut claims, 1).await[0];
        assert_eq!((heard.ether_source, heard.mac), (BOB, ALICE));
    });
}

/// The kernel takes a received frame's outermost tag out before the tap sees it, and leaves the tags of a sent frame in.
#[test]
fn the_vlan_is_known_wherever_its_tag_is() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, mut claims) = load(Hook::Auto);
        tap.attach(port, at(Side::Ingress)).unwrap();
        tap.attach(index("s1"), at(Side::Egress)).unwrap();
        for (tags, tag) in [
            (&[][..], None),
            (&[(0x8100, 12)], VlanId::new(12)),
            (&[(0x8100, 0xe00c)], VlanId::new(12)),
            (&[(0x8100, 0xe000)], None),
            (&[(0x88a8, 5), (0x8100, 7)], VlanId::new(5)),
        ] {
            say("s1", &tagged(&request(), tags));
            let heard = hear(&mut claims, 2).await;
            assert_eq!(heard.iter().map(|claim| claim.port).collect::<Vec<_>>(), [index("s1"), port]);
            let is_as_said = |claim: &Claim| claim.tag == tag && said(claim) == says(&request());
            assert!(heard.iter().all(is_as_said), "{tags:?}: {heard:?}");
        }
        // Behind more than two tags within the frame nobody looks.
        say("s1", &tagged(&request(), &[(0x88a8, 5), (0x8100, 7), (0x8100, 8)]));
        let heard = hear(&mut claims, 1).await[0];
        assert_eq!((heard.port, heard.tag), (port, VlanId::new(5)));
    });
}

#[test]
fn malformed_arp_is_counted_by_its_reason_and_not_reported() {
    alone(async || {
        let (port, quiet) = (wire("s1", "p1"), wire("s2", "p2"));
        let (mut tap, mut claims) = load(Hook::Auto);
        tap.attach(port, at(Side::Ingress)).unwrap();
        tap.attach(quiet, at(Side::Ingress)).unwrap();
        let good = request().broadcast_frame(None);
        let bad = |offset: usize, byte| {
            let mut frame = good.clone();
            frame[offset] = byte;
            frame
        };
        say("s1", &good[..41]);
        say("s1", &good[..14]);
        say("s1", &tagged(&request(), &[(0x8100, 7)])[..45]);
        [(15, 6), (17, 1), (18, 8), (19, 16), (21, 3), (20, 1), (21, 0)]
            .iter()
            .for_each(|(offset, byte)| say("s1", &bad(*offset, *byte)));
        // Here, IPv4 is not the tap's business.
        say("s1", &bad(13, 0));
        say("s1", &good);
        hear(&mut claims, 1).await;
        let counters = tap.counters(port).unwrap();
        assert_eq!(Malformed::ALL.map(|reason| counters.malformed(reason)), [3, 1, 1, 1, 1, 3]);
        assert_eq!((counters.reported, counters.lost, counters.seen()), (1, 0, 11));
        assert_eq!(tap.counters(quiet).unwrap().seen(), 0);
    });
}

#[test]
fn a_full_ring_loses_nothing_uncounted_and_charges_the_port_that_was_not_heard() {
    alone(async || {
        let (noisy, quiet) = (wire("s1", "p1"), wire("s2", "p2"));
        let (mut tap, mut claims, _) = load_with(TapSettings { ring_bytes: 4096, ..TapSettings::default() });
        tap.attach(noisy, at(Side::Ingress)).unwrap();
        tap.attach(quiet, at(Side::Ingress)).unwrap();
        (0..500).for_each(|_| say("s1", &request().broadcast_frame(None)));
        until("all frames are counted", || tap.counters(noisy).unwrap().seen() == 500).await;
        let counters = tap.counters(noisy).unwrap();
        // A record takes 32 bytes and a header of 8.
        assert_eq!((counters.reported, counters.lost), (102, 398));
        assert_eq!(tap.counters(quiet).unwrap().seen(), 0);

        say("s2", &request().broadcast_frame(None));
        until("the other port's frame is lost", || tap.counters(quiet).unwrap().lost == 1).await;
        assert!(hear(&mut claims, 102).await.iter().all(|claim| claim.port == noisy));
        say("s2", &request().broadcast_frame(None));
        assert_eq!(hear(&mut claims, 1).await[0].port, quiet);
        assert_eq!((tap.counters(quiet).unwrap().reported, tap.counters(noisy).unwrap().lost), (1, 398));
    });
}

#[test]
fn a_batch_is_bounded_and_the_rest_is_not_forgotten() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, mut claims) = load(Hook::Auto);
        tap.attach(port, at(Side::Ingress)).unwrap();
        (0..600).for_each(|_| say("s1", &request().broadcast_frame(None)));
        until("all frames are counted", || tap.counters(port).unwrap().reported == 600).await;
        let mut batches = Vec::new();
        while batches.iter().sum::<usize>() < 600 {
            let batch = tokio::time::timeout(DEADLINE, claims.next_batch()).await.unwrap().unwrap();
            batches.push(batch.len());
        }
        let (last, full) = batches.split_last().unwrap();
        assert_eq!((*last, full), (600 % Claims::BATCH, &[Claims::BATCH; 600 / Claims::BATCH][..]));
    });
}

#[test]
fn the_bridge_shows_what_the_host_says() {
    alone(async || {
        ip("link add rt0 type bridge\naddr add 10.8.64.1/24 dev rt0\nlink set rt0 up\n");
        let port = wire("s1", "p1");
        ip("link set p1 master rt0\n");
        let (mut tap, mut claims) = load(Hook::Auto);
        tap.attach(port, at(Side::Ingress)).unwrap();
        tap.attach(index("rt0"), at(Side::Egress)).unwrap();
        let socket = UdpSocket::bind((GATEWAY, 0)).unwrap();
        socket.send_to(b"?", (ADDRESS, 9)).unwrap();
        let asked = hear(&mut claims, 1).await[0];
        assert_eq!((asked.port, asked.evidence), (index("rt0"), Evidence::Arp(ClaimKind::Request)));
        assert_eq!((asked.address, asked.mac), (GATEWAY, asked.ether_source));
    });
}

/// Both ends are tapped at both sides, and the kernel behind them still asks and answers.
#[test]
fn the_stack_behind_the_tap_hears_the_same() {
    for hook in [Hook::Tcx, Hook::Clsact] {
        alone(async move || {
            let port = wire("s1", "p1");
            ip("addr add 10.8.64.1/24 dev p1\n");
            let (mut tap, mut claims) = load(hook);
            tap.attach(port, at(Side::Ingress)).unwrap();
            tap.attach(index("s1"), at(Side::Ingress)).unwrap();
            say("s1", &request().broadcast_frame(None));
            let heard = hear(&mut claims, 2).await;
            assert_eq!((heard[0].port, said(&heard[0])), (port, says(&request())));
            assert_eq!((heard[1].port, heard[1].evidence), (index("s1"), Evidence::Arp(ClaimKind::Reply)));
            assert_eq!(heard[1].address, GATEWAY);
        });
    }
}

/// The programs as they are in the object, logging and all.
#[test]
fn no_frame_is_changed_or_stopped() {
    alone(async || {
        let mut ebpf = EbpfLoader::new().load(OBJECT).unwrap();
        for name in detector_ebpf::PROGRAMS {
            let program = program(&mut ebpf, name);
            let arp = request().broadcast_frame(None);
            let ipv4 = [&arp[..12], &[8, 0], &[0x45; 40]].concat();
            let (short, ipv6) = (arp[..20].to_vec(), [&arp[..12], &[0x86, 0xdd], &[0x60; 40]].concat());
            for frame in
                [arp.clone(), tagged(&request(), &[(0x8100, 7)]), with_tags(&ipv4, &[(0x8100, 7)]), short, ipv4, ipv6]
            {
                let mut after = vec![0; 128];
                let options =
                    TestRunOptions { data_in: Some(&frame), data_out: Some(&mut after), ..TestRunOptions::new() };
                let result = program.test_run(options).unwrap();
                assert_eq!(result.return_value.cast_signed(), -1, "TC_ACT_UNSPEC, which is TCX_NEXT");
                assert_eq!(after[..result.data_size_out.try_into().unwrap()], frame);
            }
            assert!(program.fd().unwrap().as_fd().try_clone_to_owned().is_ok());
        }
    });
}

pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/arp_tap"));

/// The program of this name, loaded into the kernel.
pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
    program.load().unwrap();
    program
}

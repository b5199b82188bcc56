//! What the tap absorbs.

use detector::{
    capture::{Hook, Known, Side, Tap, TapSettings},
    engine::{Claim, Heard, KnownClaim},
    net::{ArpPacket, IfIndex, Mac, Operation, VlanId},
};

use crate::lab::*;

fn known_as(claim: &Claim) -> KnownClaim {
    KnownClaim { port: claim.port, tag: claim.tag, mac: claim.mac, address: claim.address }
}

fn hook(hook: Hook) -> TapSettings {
    TapSettings { hook, ..TapSettings::default() }
}

/// Waits until `port` has seen `seen` frames, and says what it did with them: reported and absorbed.
async fn done(tap: &Tap, port: IfIndex, seen: u64) -> (u64, u64) {
    until("all frames are counted", || tap.counters(port).unwrap().seen() == seen).await;
    let counters = tap.counters(port).unwrap();
    (counters.reported, counters.absorbed)
}

#[test]
fn a_known_claim_is_absorbed_in_every_form_until_it_is_forgotten() {
    for by in [Hook::Tcx, Hook::Clsact] {
        alone(async move || {
            let port = wire("s1", "p1");
            let (mut tap, mut claims, mut known) = load_with(hook(by));
            tap.attach(port, at(Side::Ingress)).unwrap();
            say("s1", &request().broadcast_frame(None));
            let claim = known_as(&hear(&mut claims, 1).await[0]);
            known.absorb(&claim, bridge()).unwrap();
            assert_eq!(known.len(), 1);
            assert_eq!(known.read(now()).unwrap(), [], "nothing was made since");

            let before = now();
            let forms = [
                request(),
                packet(Operation::Reply, ADDRESS, GATEWAY),
                packet(Operation::Request, ADDRESS, ADDRESS),
                ArpPacket::announcement(ALICE, ADDRESS),
            ];
            forms.iter().for_each(|packet| say("s1", &packet.broadcast_frame(None)));
            assert_eq!(done(&tap, port, 5).await, (1, 4));
            let heard = known.read(now()).unwrap();
            let Heard { claim: which, last_arp, last_ipv4, hits } = heard[0];
            assert_eq!((heard.len(), which, last_ipv4, hits), (1, claim, None, 4));
            assert!(before <= last_arp.unwrap() && last_arp.unwrap() <= now());

            known.forget(&claim).unwrap();
            known.forget(&claim).unwrap();
            assert_eq!((known.is_empty(), known.read(now()).unwrap().len()), (true, 0));
            say("s1", &request().broadcast_frame(None));
            assert_eq!(known_as(&hear(&mut claims, 1).await[0]), claim);
            assert_eq!(done(&tap, port, 6).await, (2, 4));
        });
    }
}

#[test]
fn whatever_differs_is_news() {
    alone(async || {
        let (port, other) = (wire("s1", "p1"), wire("s2", "p2"));
        let (mut tap, mut claims, mut known) = load_with(TapSettings::default());
        tap.attach(port, at(Side::Ingress)).unwrap();
        tap.attach(other, at(Side::Ingress)).unwrap();
        let claim = KnownClaim { port, tag: None, mac: ALICE, address: ADDRESS };
        known.absorb(&claim, bridge()).unwrap();
        let by_bob = ArpPacket { sender_mac: BOB, ..request() };
        let elsewhere = ArpPacket { sender: GATEWAY, ..request() };
        let mut masked = request().broadcast_frame(None);
        masked[6..12].copy_from_slice(&BOB.0);
        say("s1", &request().broadcast_frame(None));
        say("s1", &by_bob.broadcast_frame(None));
        say("s1", &elsewhere.broadcast_frame(None));
        say("s1", &request().broadcast_frame(VlanId::new(7)));
        say("s1", &ArpPacket::probe(ALICE, ADDRESS).broadcast_frame(None));
        say("s1", &masked);
        say("s2", &request().broadcast_frame(None));
        let heard: Vec<_> =
            hear(&mut claims, 6).await.iter().map(|claim| (known_as(claim), claim.ether_source)).collect();
        assert_eq!(
            heard,
            [
                // Said last, and read first, since it contradicts.
                (KnownClaim { port: other, ..claim }, ALICE),
                (KnownClaim { mac: BOB, ..claim }, BOB),
                (KnownClaim { address: GATEWAY, ..claim }, ALICE),
                (KnownClaim { tag: VlanId::new(7), ..claim }, ALICE),
                (claim, ALICE),
                (claim, BOB),
            ]
        );
        assert_eq!(done(&tap, port, 6).await, (5, 1));
        assert_eq!(done(&tap, other, 1).await, (1, 0));
    });
}

#[test]
fn a_known_claim_in_a_vlan_is_absorbed_there() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, mut claims, mut known) = load_with(TapSettings::default());
        tap.attach(port, at(Side::Ingress)).unwrap();
        let claim = KnownClaim { port, tag: VlanId::new(7), mac: ALICE, address: ADDRESS };
        known.absorb(&claim, bridge()).unwrap();
        say("s1", &request().broadcast_frame(VlanId::new(7)));
        say("s1", &tagged(&request(), &[(0x88a8, 7), (0x8100, 8)]));
        say("s1", &request().broadcast_frame(None));
        assert_eq!(hear(&mut claims, 1).await[0].tag, None);
        assert_eq!(done(&tap, port, 3).await, (1, 2));
    });
}

/// What goes away with a port must not vouch for whoever gets its index next.
#[test]
fn an_index_that_went_to_another_interface_knows_nothing() {
    alone(async || {
        let (port, next) = (wire("s1", "p1"), wire("s2", "p2"));
        let (mut tap, mut claims, mut known) = load_with(TapSettings::default());
        let claim = |port, mac| KnownClaim { port, tag: None, mac, address: ADDRESS };
        let post = detector::capture::Post { watch_ipv4: true, ..at(Side::Ingress) };
        tap.attach(port, post).unwrap();
        tap.attach(next, post).unwrap();
        for at in [port, next] {
            known.absorb(&claim(at, ALICE), bridge()).unwrap();
            known.absorb(&claim(at, BOB), bridge()).unwrap();
        }
        ip(&format!("link del p1\nlink add p3 index {port} type veth peer name s3\nlink set p3 up\nlink set s3 up\n"));
        tap.detach(port).unwrap();
        known.forget_port(port).unwrap();
        assert_eq!(known.len(), 2);
        tap.attach(port, post).unwrap();
        assert_eq!(index("p3"), port);
        say("s3", &request().broadcast_frame(None));
        let heard = hear(&mut claims, 1).await[0];
        assert_eq!((heard.port, heard.mac), (port, ALICE));
        assert_eq!(done(&tap, port, 1).await, (1, 0));
        say("s2", &request().broadcast_frame(None));
        assert_eq!(done(&tap, next, 1).await, (0, 1), "the other port's are still known");
    });
}

#[test]
fn as_many_as_can_be_are_known_read_and_forgotten() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, _claims, mut known) = load_with(TapSettings::default());
        tap.attach(port, at(Side::Ingress)).unwrap();
        let claim = |number: u32| KnownClaim { port, tag: None, mac: ALICE, address: (0x0a00_0000 + number).into() };
        let most = u32::try_from(Known::MAX).unwrap();
        (0..most).for_each(|number| known.absorb(&claim(number), bridge()).unwrap());
        let error = known.absorb(&claim(most), bridge()).unwrap_err();
        assert!(error.to_string().contains("131072"), "{error}");
        assert_eq!(known.len(), Known::MAX);

        let made = [0, 5, 4095, 4096, most - 1];
        for number in made {
            let packet = ArpPacket { sender: claim(number).address, ..request() };
            say("s1", &packet.broadcast_frame(None));
        }
        assert_eq!(done(&tap, port, 5).await, (0, 5));
        let mut heard: Vec<_> = known.read(now()).unwrap().iter().map(|heard| (heard.claim, heard.hits)).collect();
        heard.sort();
        assert_eq!(heard, made.map(|number| (claim(number), 1)));

        known.forget_port(port).unwrap();
        assert_eq!(known.len(), 0);
        known.absorb(&claim(most), bridge()).unwrap();
        let foreign = IfIndex::new(port.get() + 1000).unwrap();
        known.forget(&KnownClaim { port: foreign, mac: Mac::ZERO, ..claim(0) }).unwrap();
        assert_eq!(known.len(), 1);
    });
}

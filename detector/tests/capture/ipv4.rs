//! What the tap makes of IPv4 packets.

use std::net::Ipv4Addr;

use detector::{
    capture::{Hook, Post, Side, TapSettings},
    engine::{Evidence, KnownClaim},
    net::VlanId,
};

use crate::lab::*;

fn watching() -> Post {
    Post { watch_ipv4: true, ..at(Side::Ingress) }
}

fn known_at(port: detector::net::IfIndex) -> KnownClaim {
    KnownClaim { port, tag: None, mac: ALICE, address: ADDRESS }
}

#[test]
fn an_unknown_source_is_news_and_a_known_one_is_silent() {
    for hook in [Hook::Tcx, Hook::Clsact] {
        alone(async move || {
            let port = wire("s1", "p1");
            let (mut tap, mut claims, mut known) = load_with(TapSettings { hook, ..TapSettings::default() });
            tap.attach(port, watching()).unwrap();
            say("s1", &packet_from(ADDRESS));
            let heard = hear(&mut claims, 1).await[0];
            assert_eq!((heard.port, heard.tag, heard.ether_source), (port, None, ALICE));
            assert_eq!(said(&heard), (Evidence::Ipv4, ALICE, ADDRESS));

            known.absorb(&known_at(port), bridge()).unwrap();
            assert_eq!(known.read(now()).unwrap(), []);
            say("s1", &packet_from(ADDRESS));
            // What comes next by the same wire was seen later.
            say("s1", &packet_from(GATEWAY));
            assert_eq!(hear(&mut claims, 1).await[0].address, GATEWAY);
            let asked = now();
            let heard = known.read(asked).unwrap();
            assert_eq!((heard.len(), heard[0].claim, heard[0].hits), (1, known_at(port), 0));
            assert_eq!((heard[0].last_arp, heard[0].last_ipv4), (None, Some(asked)));
            let counters = tap.counters(port).unwrap();
            assert_eq!((counters.ipv4_reported, counters.seen()), (2, 0));
        });
    }
}

#[test]
fn a_claim_by_arp_is_known_by_its_packets_too_and_the_other_way_round() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, _claims, mut known) = load_with(TapSettings::default());
        tap.attach(port, watching()).unwrap();
        known.absorb(&known_at(port), bridge()).unwrap();
        say("s1", &packet_from(ADDRESS));
        say("s1", &request().broadcast_frame(None));
        until("the request is absorbed", || tap.counters(port).unwrap().absorbed == 1).await;
        let first = now();
        let heard = known.read(first).unwrap()[0];
        assert_eq!((heard.hits, heard.last_ipv4), (1, Some(first)));

        // Silent from now on: twice more it is told of at most, and of the packets no later time than was possible.
        let later: Vec<_> = (0..4).map(|_| known.read(now()).unwrap()).collect();
        assert!(later.iter().flatten().all(|heard| heard.last_ipv4 == Some(first)), "{later:?}");
        say("s1", &request().broadcast_frame(None));
        until("the request is absorbed", || tap.counters(port).unwrap().absorbed == 2).await;
        let heard = known.read(now()).unwrap()[0];
        assert_eq!((heard.hits, heard.last_ipv4), (2, Some(first)));
    });
}

#[test]
fn no_address_yet_and_no_header_are_no_claim() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, mut claims, _known) = load_with(TapSettings::default());
        tap.attach(port, watching()).unwrap();
        say("s1", &packet_from(Ipv4Addr::UNSPECIFIED));
        say("s1", &packet_from(ADDRESS)[..33]);
        let mut ipv6_in_disguise = packet_from(ADDRESS);
        ipv6_in_disguise[14] = 0x60;
        say("s1", &ipv6_in_disguise);
        say("s1", &packet_from(ADDRESS));
        assert_eq!(hear(&mut claims, 1).await[0].address, ADDRESS);
        let counters = tap.counters(port).unwrap();
        assert_eq!((counters.ipv4_reported, counters.ipv4_limited, counters.ipv4_lost), (1, 0, 0));
    });
}

#[test]
fn the_tag_is_part_of_what_is_known_wherever_it_is() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, mut claims, mut known) = load_with(TapSettings::default());
        tap.attach(port, watching()).unwrap();
        let in_7 = KnownClaim { tag: VlanId::new(7), ..known_at(port) };
        for tags in [&[(0x8100, 7)][..], &[(0x88a8, 7), (0x8100, 8)]] {
            let frame = with_tags(&packet_from(ADDRESS), tags);
            say("s1", &frame);
            let heard = hear(&mut claims, 1).await[0];
            assert_eq!((heard.tag, said(&heard)), (VlanId::new(7), (Evidence::Ipv4, ALICE, ADDRESS)));
            known.absorb(&in_7, bridge()).unwrap();
            say("s1", &frame);
            say("s1", &packet_from(ADDRESS));
            assert_eq!(hear(&mut claims, 1).await[0].tag, None);
            assert_eq!(known.read(now()).unwrap()[0].claim, in_7);
            known.forget(&in_7).unwrap();
        }
    });
}

#[test]
fn switched_off_at_a_port_or_everywhere_nothing_is_heard() {
    alone(async || {
        for (watch_ipv4, post) in [(true, at(Side::Ingress)), (false, watching())] {
            let port = wire("s1", "p1");
            let (mut tap, mut claims, _known) = load_with(TapSettings { watch_ipv4, ..TapSettings::default() });
            tap.attach(port, post).unwrap();
            say("s1", &packet_from(ADDRESS));
            say("s1", &with_tags(&packet_from(ADDRESS), &[(0x88a8, 7), (0x8100, 8)]));
            say("s1", &request().broadcast_frame(None));
            assert_eq!(said(&hear(&mut claims, 1).await[0]), says(&request()));
            assert_eq!(tap.counters(port).unwrap().ipv4_reported, 0);
            ip("link del p1\n");
        }
    });
}

/// A real stack that never says a word of ARP: it has its peer's address by hand.
#[test]
fn a_silent_owner_is_heard_by_its_first_packet() {
    alone(async || {
        let port = wire("s1", "p1");
        ip(&format!(
            "link set s1 address {ALICE}\naddr add {ADDRESS}/24 dev s1\nneigh add {GATEWAY} lladdr {BOB} dev s1\n"
        ));
        let (mut tap, mut claims, _known) = load_with(TapSettings::default());
        tap.attach(port, watching()).unwrap();
        std::net::UdpSocket::bind((ADDRESS, 0)).unwrap().send_to(b"!", (GATEWAY, 9)).unwrap();
        assert_eq!(said(&hear(&mut claims, 1).await[0]), (Evidence::Ipv4, ALICE, ADDRESS));
        assert_eq!(tap.counters(port).unwrap().seen(), 0);
    });
}

//! What is a duplicate, what is martian, and what is nothing.

use super::*;

#[test]
fn contradicting_replies_of_two_opaque_ports_are_a_duplicate_from_the_first_on() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "vm-a", &[CONTESTED]);
    world.opaque(3, "vm-b", &[CONTESTED]);
    world.says(2, Operation::Reply, CONTESTED, HOST);
    assert_eq!(world.duplicates(), 0);
    world.says(3, Operation::Reply, CONTESTED, HOST);
    assert_eq!(world.duplicates(), 1);
    let ports: Vec<&str> = world.incident().parties.iter().map(|party| party.port_name.as_str()).collect();
    assert_eq!(ports, ["veth2", "veth3"]);
    assert_eq!(world.states(CONTESTED), [RowState::Duplicate, RowState::Duplicate]);
}

#[test]
fn the_sender_fields_of_two_requests_are_enough() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "sportsagent", &[]);
    world.opaque(3, "reviewagent", &[]);
    world.says(2, Operation::Request, CONTESTED, HOST);
    world.says(3, Operation::Request, CONTESTED, HOST);
    assert_eq!(world.duplicates(), 1);
    assert_eq!(world.incident().first_evidence, Evidence::Arp(ClaimKind::Request));
    assert!(world.incident().time_to_name() < Span::from_millis(2));
}

#[test]
fn a_used_address_configured_in_silence_is_a_duplicate_before_any_packet() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!((world.duplicates(), world.incident().first_evidence), (1, Evidence::Configured));
    assert_eq!(world.held(), [Held::Observing]);
    assert_eq!(world.asked("reallocate") + world.asked("readdress"), 0);
}

#[test]
fn whoever_claims_the_gateway_loses_to_the_host() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "a", &[HOST]);
    world.pass(Span::from_secs(1));
    assert_eq!(world.duplicates(), 1);
    assert_eq!(world.incident().contest.as_ref().unwrap().reason, Reason::HostAddress);
    assert_eq!((world.at(2), world.incident().status), (vec![address(10)], Status::Healed));
}

#[test]
fn a_look_does_not_speak_for_others_behind_the_port() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "parent", &[address(2)]);
    let child = Mac([2, 9, 9, 9, 9, 9]);
    world.announces(2, child, address(3));
    world.reconfigure(2, &[address(2), address(4)]);
    assert_eq!(world.states(address(3)), [RowState::Ok]);
    world.sandbox(3, "newcomer", &[address(3)]);
    world.pass(Span::from_millis(500));
    assert_eq!(world.duplicates(), 1);
}

#[test]
fn a_third_party_is_news_of_the_same_incident() {
    let mut world = World::running(Mode::Observe);
    for at in 2..5 {
        world.sandbox(at, "x", &[CONTESTED]);
    }
    assert_eq!(world.duplicates(), 1);
    assert_eq!(world.count(|finding| matches!(finding, Finding::PartyJoined(_))), 1);
    for _ in 0..50 {
        world.says(2, Operation::Reply, CONTESTED, HOST);
        world.says(3, Operation::Reply, CONTESTED, HOST);
    }
    assert_eq!((world.duplicates(), world.incident().parties.len()), (1, 3));
}

#[test]
fn martians_are_told_each_by_its_own_reason() {
    use MartianReason::*;
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    for sender in ["192.0.2.1", "10.8.64.0", "10.8.64.255", "127.0.0.1", "0.1.1.1", "224.0.0.5", "240.0.0.1"] {
        world.says(2, Operation::Request, sender.parse().unwrap(), HOST);
    }
    assert_eq!(world.martians(), [OutsideSubnet, Network, Broadcast, Loopback, ThisNetwork, Multicast, Reserved]);
    assert_eq!(world.states("192.0.2.1".parse().unwrap()), [RowState::Martian]);
    world.opaque(3, "b", &[]);
    world.says(3, Operation::Request, "192.0.2.1".parse().unwrap(), HOST);
    assert_eq!(world.duplicates(), 0, "what cannot be true cannot be contested");
}

#[test]
fn a_forged_source_is_martian_and_still_a_claim() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    world.opaque(3, "b", &[]);
    world.says_as(2, mac(99), Operation::Reply, CONTESTED, HOST);
    assert_eq!(world.martians(), [MartianReason::EtherMismatch]);
    world.says(3, Operation::Reply, CONTESTED, HOST);
    assert_eq!(world.duplicates(), 1);
}

#[test]
fn a_repeated_martian_is_counted_and_is_news_once() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    for _ in 0..10 {
        world.says(2, Operation::Request, "192.0.2.1".parse().unwrap(), HOST);
    }
    assert_eq!(world.martians().len(), 10);
    assert_eq!(world.count(|finding| matches!(finding, Finding::Martian { news: true, .. })), 1);
}

#[test]
fn probes_and_announcements_of_ones_own_are_nothing() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[address(3)]);
    world.says(2, Operation::Request, Ipv4Addr::UNSPECIFIED, CONTESTED);
    world.says(3, Operation::Request, Ipv4Addr::UNSPECIFIED, CONTESTED);
    for _ in 0..20 {
        world.says(2, Operation::Request, CONTESTED, CONTESTED);
        world.says(2, Operation::Reply, CONTESTED, CONTESTED);
        world.says(2, Operation::Reply, CONTESTED, Ipv4Addr::UNSPECIFIED);
    }
    assert_eq!(world.findings, []);
}

#[test]
fn a_silent_opaque_station_is_asked_before_it_counts() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "was-here", &[]);
    world.opaque(3, "is-here", &[CONTESTED]);
    world.says(2, Operation::Reply, CONTESTED, HOST);
    world.pass(Span::from_secs(30));
    world.says(3, Operation::Reply, CONTESTED, HOST);
    world.pass(Span::from_secs(2));
    assert_eq!((world.duplicates(), world.states(CONTESTED)), (0, vec![RowState::Ok]), "the first is forgotten");

    world.opaque(4, "still-here", &[address(7)]);
    world.opaque(5, "newcomer", &[address(7)]);
    world.says(4, Operation::Reply, address(7), HOST);
    world.pass(Span::from_secs(30));
    world.says(5, Operation::Reply, address(7), HOST);
    assert_eq!(world.duplicates(), 1, "the first answers at once");
}

#[test]
fn the_host_may_say_what_is_true_of_others() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "a", &[CONTESTED]);
    world.says(BRIDGE_PORT, Operation::Request, HOST, CONTESTED);
    world.announces(BRIDGE_PORT, mac(2), CONTESTED);
    assert_eq!(world.findings, []);
}

/// Scenario 26, where the host answers with its own hardware address for whoever is asked for.
#[test]
fn the_host_may_answer_for_everybody() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "a", &[CONTESTED]);
    world.says(BRIDGE_PORT, Operation::Reply, CONTESTED, address(3));
    world.says(BRIDGE_PORT, Operation::Reply, address(4), address(3));
    world.sandbox(4, "b", &[address(4)]);
    world.says(BRIDGE_PORT, Operation::Reply, HOST, address(3));
    world.pass(Span::from_secs(120));
    assert_eq!(world.findings, []);
    let mut stations = [CONTESTED, address(4), HOST].into_iter().flat_map(|address| world.states(address));
    assert!(stations.by_ref().take(3).eq([RowState::Ok; 3]) && stations.next().is_none());
    world.says(4, Operation::Reply, HOST, address(3));
    assert_eq!(world.duplicates(), 1, "its own address is still its own");
}

#[test]
fn the_host_may_ask_with_any_of_its_addresses() {
    let mut world = World::running(Mode::Enforce);
    world.says(BRIDGE_PORT, Operation::Request, Ipv4Addr::new(192, 0, 2, 1), CONTESTED);
    assert_eq!(world.findings, []);
}

#[test]
fn equal_addresses_in_two_vlans_are_nothing() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    world.opaque(3, "b", &[]);
    for (at, vlan) in [(2, 10), (3, 20)] {
        world.frame(at, VlanId::new(vlan), mac(at), ArpPacket::announcement(mac(at), CONTESTED));
    }
    assert_eq!(world.findings, []);
}

#[test]
fn several_stations_of_one_sandbox_are_one_party() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "macvlan", &[]);
    for last in [1, 2, 3] {
        world.announces(2, Mac([2, 9, 9, 9, 9, last]), CONTESTED);
    }
    assert_eq!(world.findings, []);
}

#[test]
fn one_link_local_gateway_everywhere_is_nothing() {
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    let mut world = World::running(Mode::Observe);
    for at in [2, 3] {
        world.opaque(at, "x", &[]);
        world.announces(at, Mac([0xee; 6]), gateway);
    }
    assert_eq!(world.findings, []);
}

#[test]
fn what_a_frame_said_before_the_last_look_does_not_come_back() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[address(3)]);
    let late = claim(world.now, 3, ArpPacket::announcement(mac(3), CONTESTED));
    world.survey(3);
    world.claim(late);
    assert_eq!(world.findings, []);
}

#[test]
fn lost_frames_are_asked_for() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[CONTESTED]);
    world.says(2, Operation::Reply, CONTESTED, HOST);
    world.opaque(3, "b", &[CONTESTED]);
    assert_eq!(world.duplicates(), 0);
    world.tell(Input::ClaimsLost(rt0()));
    assert_eq!(world.duplicates(), 1);
}

#[test]
fn a_bridge_that_is_made_anew_is_watched_again() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.tell(Input::BridgeDown(rt0()));
    assert_eq!((world.engine.rows().count(), world.engine.topology.ports.len()), (0, 0));
    let networks = vec![Ipv4Net::new(HOST, 24).unwrap()];
    world.tell(Input::BridgeUp(bridge(50, networks)));
    world.sandbox(6, "a", &[CONTESTED]);
    world.sandbox(7, "b", &[CONTESTED]);
    assert_eq!(world.duplicates(), 1);
}

#[test]
fn a_port_that_claims_everything_is_bounded_and_blinds_nobody() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "noisy", &[]);
    for claim in 0..5000u32 {
        world.announces(2, mac(2), Ipv4Addr::from(0x0a08_4002 + (claim % 250) + (claim / 250) * 256));
    }
    assert!(world.engine.rows().count() <= bindings::CLAIMS_PER_PORT + 1);
    assert_eq!(world.count(|finding| matches!(finding, Finding::ClaimRefused { news: true, .. })), 1);
    world.sandbox(3, "a", &[address(252)]);
    world.sandbox(4, "b", &[address(252)]);
    assert_eq!(world.duplicates(), 1);
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let play = || {
        let mut world = World::running(Mode::Enforce);
        world.lease(CONTESTED, "a");
        for (at, name) in [(2, "a"), (3, "b"), (4, "c")] {
            world.sandbox(at, name, &[CONTESTED]);
        }
        world.pass(Span::from_secs(5));
        (format!("{:?}", world.findings), world.asked)
    };
    assert_eq!(play(), play());
}

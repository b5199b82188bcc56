//! Those who claim nothing, and those who look before they do.

use super::*;

fn infos(world: &World) -> Vec<(&'static str, Vec<String>)> {
    let names = |parties: &[Party]| parties.iter().map(|party| party.port_name.clone()).collect();
    let info = |finding: &Finding| match finding {
        Finding::Info(Info::SoftConflict { parties, .. }) => Some(("soft_conflict", names(parties))),
        Finding::Info(Info::ForeignSource { party, .. }) => Some(("foreign_source", vec![party.port_name.clone()])),
        _ => None,
    };
    world.findings.iter().filter_map(info).collect()
}

/// What the tap absorbs of a port's claim to the contested address.
fn known(at: u32) -> KnownClaim {
    KnownClaim { port: port(at), tag: None, mac: mac(at), address: CONTESTED }
}

/// Scenario 5.
#[test]
fn the_source_of_a_packet_contradicts_the_owner() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "owner", &[CONTESTED]);
    world.opaque(3, "silent", &[]);
    world.sends_from(3, CONTESTED);
    assert_eq!((world.duplicates(), world.incident().first_evidence), (1, Evidence::Ipv4));
}

#[test]
fn a_silent_station_that_answers_nothing_is_kept_while_it_sends() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "silent", &[]);
    world.sends_from(2, CONTESTED);
    let claim = known(2);
    assert!(world.known.contains(&claim));
    for _ in 0..10 {
        world.pass(Span::from_secs(30));
        let last_ipv4 = Some(world.now);
        world.tell(Input::Heard(vec![Heard { claim, last_arp: None, last_ipv4, hits: 0 }]));
    }
    assert_eq!(world.states(CONTESTED), [RowState::Ok]);
    world.pass(Span::from_secs(120));
    assert_eq!(world.states(CONTESTED), [], "it has stopped, and does not answer");
    assert!(!world.known.contains(&claim), "what is forgotten is reported when it comes back");
}

#[test]
fn what_a_sandbox_passes_on_it_does_not_claim() {
    let mut world = World::running(Mode::Enforce);
    world.forwards.insert(3);
    world.sandbox(2, "client", &[CONTESTED]);
    world.sandbox(3, "router", &[address(3)]);
    for _ in 0..3 {
        world.sends_from(3, CONTESTED);
    }
    assert_eq!(infos(&world), [("foreign_source", vec!["veth3".to_owned()])]);
    assert_eq!((world.findings.len(), world.asked("ignore_ipv4")), (1, 1));
}

#[test]
fn what_a_sandbox_that_does_not_forward_sends_it_claims() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "owner", &[CONTESTED]);
    world.sandbox(3, "spoofer", &[address(3)]);
    world.sends_from(3, CONTESTED);
    assert_eq!((world.duplicates(), world.held()), (1, vec![Held::Newcomer]));
}

/// Scenario 7.
#[test]
fn two_who_look_for_one_address_at_one_time_are_a_soft_conflict() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[]);
    world.sandbox(3, "b", &[]);
    for _ in 0..3 {
        world.probes_for(2, CONTESTED);
        world.probes_for(3, CONTESTED);
    }
    assert_eq!(infos(&world), [("soft_conflict", vec!["veth2".to_owned(), "veth3".to_owned()])]);
    assert_eq!((world.duplicates(), world.findings.len()), (0, 1));
    world.pass(Span::from_secs(60));
    world.probes_for(2, CONTESTED);
    assert_eq!(world.findings.len(), 1, "one after the other is nothing");
}

#[test]
fn probes_are_remembered_of_a_bounded_number_of_addresses() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    world.opaque(3, "b", &[]);
    (0..5000).for_each(|number| world.probes_for(2, Ipv4Addr::from(0x0a08_0000 + number)));
    world.pass(Span::from_secs(10));
    world.probes_for(2, CONTESTED);
    world.probes_for(3, CONTESTED);
    assert_eq!(infos(&world).len(), 1, "those of long ago have made room");
}

#[test]
fn what_the_agent_asks_for_is_no_conflict() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    world.probes_for(BRIDGE_PORT, CONTESTED);
    world.probes_for(2, CONTESTED);
    assert_eq!(world.findings, []);
}

#[test]
fn a_known_claim_is_absorbed_until_there_is_doubt() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[CONTESTED]);
    world.announces(2, mac(2), CONTESTED);
    let claim = known(2);
    assert!(world.known.contains(&claim));
    let last_arp = Some(world.now + Span::from_secs(7));
    world.tell(Input::Heard(vec![Heard { claim, last_arp, last_ipv4: None, hits: 41 }]));
    let binding = world.engine.rows_on(Domain::untagged(rt0()), CONTESTED).next().unwrap().binding;
    assert_eq!((binding.hits, Some(binding.last_seen)), (42, last_arp));
    world.opaque(3, "b", &[]);
    world.announces(3, mac(3), CONTESTED);
    assert_eq!((world.duplicates(), world.known.contains(&claim)), (1, false), "every word of either is heard now");
    world.leave(3);
    world.announces(2, mac(2), CONTESTED);
    assert_eq!((world.engine.open_count(rt0()), world.known.contains(&claim)), (0, true));
}

#[test]
fn what_the_tap_absorbs_and_nobody_knows_of_is_reported_again() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    let claim = known(2);
    world.known.insert(claim);
    world.tell(Input::Heard(vec![Heard { claim, last_arp: Some(world.now), last_ipv4: None, hits: 3 }]));
    assert!(!world.known.contains(&claim));
}

#[test]
fn what_is_configured_is_absorbed_before_it_is_said() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    assert!(world.known.contains(&known(2)));
    world.sandbox(3, "b", &[CONTESTED]);
    assert!(!world.known.contains(&known(2)) && !world.known.contains(&known(3)));
    world.reconfigure(3, &[]);
    world.reconfigure(2, &[CONTESTED, address(9)]);
    assert!(world.known.contains(&known(2)), "once there is no doubt");
}

#[test]
fn martians_in_arp_are_counted_one_by_one_and_in_packets_once() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[]);
    let outside = Ipv4Addr::new(192, 0, 2, 1);
    (0..5).for_each(|_| world.announces(2, mac(2), outside));
    (0..5).for_each(|_| world.sends_from(2, Ipv4Addr::new(198, 51, 100, 1)));
    assert_eq!(world.martians().len(), 6);
}

/// One look after lost events finds both, and so nobody came before the other.
#[test]
fn of_two_that_came_at_one_moment_nobody_lingers() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "b");
    for (at, name) in [(2, "a"), (3, "b")] {
        world.behind.insert(at, Behind { name, addresses: [CONTESTED].into(), readable: true, answers: true });
        world.port_up(at, None);
    }
    let now = world.now;
    for at in [2, 3] {
        let survey = Survey { at: now, ..world.look(at) };
        world.tell(Input::Surveyed { port: port(at), survey });
    }
    world.pass(Span::from_secs(5));
    assert_eq!((world.duplicates(), world.at(2), world.at(3)), (1, vec![address(10)], vec![CONTESTED]));
}

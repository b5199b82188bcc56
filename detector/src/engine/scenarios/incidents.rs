//! Incidents that spread, go on, end and come back.

use super::*;

fn count_of(world: &World, kind: &str) -> usize {
    let is = |finding: &Finding| match finding {
        Finding::AddressJoined { .. } => kind == "address_joined",
        Finding::Continues(_) => kind == "continues",
        Finding::Reopened(_) => kind == "reopened",
        Finding::PartyJoined(_) => kind == "party_joined",
        _ => false,
    };
    world.count(is)
}

/// Scenario 12.
#[test]
fn whoever_answers_for_everybody_is_one_incident() {
    let mut world = World::running(Mode::Enforce);
    let victims = 10_u8..60;
    for host in victims.clone() {
        world.lease(address(host), "victim");
        world.sandbox(host.into(), "victim", &[address(host)]);
    }
    world.sandbox(2, "proxy", &[address(2)]);
    for host in victims.clone() {
        world.says(2, Operation::Reply, address(host), HOST);
    }
    assert_eq!((world.duplicates(), count_of(&world, "address_joined")), (1, 9), "2 to 8, 16, 32");
    assert_eq!(world.incident().addresses.len(), 50);
    assert_eq!(world.engine.incidents().count(), 1);
    assert_eq!(world.engine.open_count(rt0()), 50, "contested addresses");
    world.pass(Span::from_secs(200));
    assert_eq!(world.asked("reallocate") + world.asked("readdress"), 0, "nobody is moved");
    assert_eq!(victims.map(|host| world.at(host.into())).filter(|at| at.len() != 1).count(), 0);
    assert_eq!(world.incident().status, Status::Gone, "it has stopped");
}

#[test]
fn what_two_have_configured_is_an_incident_each() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[address(2), address(3)]);
    world.sandbox(3, "b", &[address(2), address(3)]);
    assert_eq!(world.duplicates(), 2);
}

/// Scenario 11.
#[test]
fn whoever_claims_what_is_the_hosts_is_a_spoofer() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "liar", &[]);
    world.says(2, Operation::Reply, HOST, CONTESTED);
    assert_eq!((world.duplicates(), world.incident().verdict()), (1, Verdict::Spoof));
    assert!(world.incident().winner().unwrap().is_host);
}

#[test]
fn whoever_only_says_that_it_has_what_another_holds_is_a_spoofer() {
    let mut world = World::running(Mode::Observe);
    world.lease(CONTESTED, "holder");
    world.sandbox(2, "holder", &[CONTESTED]);
    world.sandbox(3, "liar", &[address(3)]);
    world.says(3, Operation::Reply, CONTESTED, HOST);
    assert_eq!((world.duplicates(), world.incident().verdict()), (1, Verdict::Spoof));
    world.reconfigure(3, &[address(3), CONTESTED]);
    assert_eq!(world.incident().verdict(), Verdict::Duplicate, "it has it, too");
}

/// Scenario 14.
#[test]
fn a_storm_is_one_incident_with_a_rising_count_and_few_words() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "a", &[CONTESTED]);
    world.opaque(3, "b", &[CONTESTED]);
    for _ in 0..300 {
        world.announces(2, mac(2), CONTESTED);
        world.announces(3, mac(3), CONTESTED);
        world.pass(Span::from_millis(990));
    }
    assert_eq!((world.duplicates(), count_of(&world, "continues")), (1, 4));
    assert!(world.incident().claims >= 598, "{}", world.incident().claims);
    assert_eq!(world.incident().sightings.len(), 32);
    let before = world.findings.len();
    world.opaque(4, "c", &[]);
    world.announces(4, mac(4), CONTESTED);
    assert_eq!((count_of(&world, "party_joined"), world.findings.len()), (1, before + 1), "a third is news");
}

#[test]
fn a_duplicate_that_is_back_soon_is_the_same_incident() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.reconfigure(3, &[address(3)]);
    assert_eq!(world.incident().status, Status::Gone);
    world.pass(Span::from_secs(60));
    world.reconfigure(3, &[address(3), CONTESTED]);
    let incident = world.incident();
    assert_eq!((incident.id.0, incident.status, incident.times), (1, Status::Open, 2));
    assert_eq!((world.duplicates(), count_of(&world, "reopened")), (1, 1));
    assert_eq!(world.states(CONTESTED), [RowState::Duplicate; 2]);
}

#[test]
fn a_healed_duplicate_that_is_back_and_ends_by_itself_is_gone() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(1));
    assert_eq!(world.incident().status, Status::Healed);
    let moved_to = world.at(3)[0];
    world.leases.remove(&CONTESTED);
    world.reconfigure(3, &[moved_to, CONTESTED]);
    assert_eq!((world.incident().status, world.incident().times), (Status::Open, 2));
    world.reconfigure(3, &[moved_to]);
    world.pass(Span::from_secs(120));
    assert_eq!((world.incident().status, world.duplicates()), (Status::Gone, 1));
}

#[test]
fn a_duplicate_that_is_back_late_or_with_others_is_another_incident() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.reconfigure(3, &[address(3)]);
    world.sandbox(4, "c", &[CONTESTED]);
    assert_eq!((world.duplicates(), world.incident().id.0), (2, 2));
    world.leave(4);
    world.pass(Span::from_secs(600));
    world.reconfigure(3, &[address(3), CONTESTED]);
    assert_eq!((world.duplicates(), world.incident().id.0), (3, 3));
}

/// Scenario 27, on a bridge that tells VLANs apart.
#[test]
fn ports_in_different_vlans_of_one_bridge_are_in_different_domains() {
    let mut world = World::running(Mode::Observe);
    let networks = vec![Ipv4Net::new(HOST, 24).unwrap()];
    let in_twenty = VlanDevice { vlan: VlanId::new(20).unwrap(), mac: mac(1), networks: networks.clone() };
    let pvid = VlanId::new(1);
    let told = Bridge { pvid, vlans: vec![in_twenty], ..bridge(BRIDGE_PORT, networks) };
    world.tell(Input::BridgeUp(told));
    for (at, vlan) in [(2, 1), (3, 20), (4, 30)] {
        world.behind.insert(at, Behind { name: "x", addresses: [CONTESTED].into(), readable: true, answers: true });
        world.port_up(at, VlanId::new(vlan));
        world.survey(at);
    }
    assert_eq!(world.duplicates(), 0);
    let domains: Vec<String> = world.engine.rows().map(|row| format!("{} {}", row.domain, row.address)).collect();
    let want = ["rt0 10.8.64.1", "rt0 10.8.64.2", "rt0.20 10.8.64.1", "rt0.20 10.8.64.2", "rt0.30 10.8.64.2"];
    assert_eq!(domains, want);
    // Tagged by the sandbox itself, or by the bridge for it: the same VLAN.
    world.opaque(5, "trunk", &[]);
    world.frame(5, VlanId::new(20), mac(5), ArpPacket::announcement(mac(5), HOST));
    assert_eq!((world.duplicates(), world.incident().verdict()), (1, Verdict::Spoof));
    world.frame(5, VlanId::new(1), mac(5), ArpPacket::announcement(mac(5), CONTESTED));
    assert_eq!(world.duplicates(), 2, "what is tagged as the bridge's own VLAN is in its untagged domain");
}

#[test]
fn a_port_that_changes_its_vlan_takes_nothing_along() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.port_up(2, VlanId::new(20));
    assert_eq!(world.states(CONTESTED), []);
    world.survey(2);
    let domains: Vec<String> = world.engine.rows().map(|row| row.domain.to_string()).collect();
    assert_eq!(domains, ["rt0", "rt0.20"]);
}

#[test]
fn an_ignored_port_is_not_heard() {
    let policy = Policy { ignored: vec!["veth3".parse().unwrap()], ..Policy::default() };
    let mut world = World::running_with(Config { policy, ..Config::default() });
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.says(3, Operation::Reply, CONTESTED, HOST);
    assert_eq!((world.findings.len(), world.states(CONTESTED)), (0, vec![RowState::Ok]));
}

#[test]
fn a_network_that_an_operator_has_added_is_at_home() {
    let policy = Policy { networks: vec!["192.0.2.0/24".parse().unwrap()], ..Policy::default() };
    let mut world = World::running_with(Config { policy, ..Config::default() });
    world.opaque(2, "a", &[]);
    world.announces(2, mac(2), Ipv4Addr::new(192, 0, 2, 1));
    world.announces(2, mac(2), Ipv4Addr::new(192, 0, 2, 255));
    world.announces(2, mac(2), Ipv4Addr::new(198, 51, 100, 1));
    assert_eq!(world.martians(), [MartianReason::Broadcast, MartianReason::OutsideSubnet]);
}

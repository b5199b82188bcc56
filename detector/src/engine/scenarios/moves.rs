//! Addresses that change hands, as they may, and those that are handed over more slowly than that.

use super::*;

fn moves(world: &World) -> Vec<(String, String)> {
    let moved = |finding: &Finding| match finding {
        Finding::Moved { from, to, .. } => Some((from.port_name.clone(), to.port_name.clone())),
        _ => None,
    };
    world.findings.iter().filter_map(moved).collect()
}

fn infos(world: &World) -> Vec<&'static str> {
    let info = |finding: &Finding| match finding {
        Finding::Info(info) => Some(info.kind()),
        _ => None,
    };
    world.findings.iter().filter_map(info).collect()
}

fn from_to(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

/// Scenario 22.
#[test]
fn an_address_that_comes_back_on_a_new_port_has_moved() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "a", &[CONTESTED]);
    world.leave(2);
    world.sandbox(3, "a", &[CONTESTED]);
    world.pass(Span::from_secs(120));
    assert_eq!(moves(&world), [from_to("veth2", "veth3")]);
    assert_eq!((world.findings.len(), world.asked("announce")), (1, 1), "caches learn the new hardware address");
}

#[test]
fn an_address_that_comes_back_to_the_same_station_has_not_moved() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "a", &[CONTESTED]);
    world.reconfigure(2, &[]);
    world.reconfigure(2, &[CONTESTED]);
    assert_eq!((world.findings, world.asked.get("announce")), (vec![], None));
}

#[test]
fn who_had_an_address_long_ago_is_forgotten() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.leave(2);
    world.pass(Span::from_secs(1000));
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!(moves(&world), []);
}

#[test]
fn moves_are_remembered_of_a_bounded_number_of_addresses() {
    let mut world = World::running(Mode::Observe);
    for number in 0..6000_u32 {
        let address = Ipv4Addr::from(0x0a08_0000 + number);
        world.behind.insert(2, Behind { name: "a", addresses: [address].into(), readable: true, answers: true });
        world.port_up(2, None);
        world.survey(2);
        world.leave(2);
    }
    world.sandbox(3, "b", &[Ipv4Addr::from(0x0a08_0000), Ipv4Addr::from(0x0a08_0000 + 5999)]);
    assert_eq!(moves(&world), [from_to("veth2", "veth3")], "the latest is remembered, the first is not");
}

/// Scenario 23.
#[test]
fn whoever_lingers_in_silence_is_no_party() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "old", &[CONTESTED]);
    world.pass(Span::from_secs(10));
    world.lease(CONTESTED, "new");
    world.sandbox(3, "new", &[CONTESTED]);
    world.says(3, Operation::Request, CONTESTED, CONTESTED);
    world.pass(Span::from_secs(1));
    assert_eq!((world.duplicates(), infos(&world)), (0, vec!["lingers"]));
    world.leave(2);
    world.pass(Span::from_secs(60));
    assert_eq!((world.duplicates(), moves(&world)), (0, vec![from_to("veth2", "veth3")]));
}

#[test]
fn whoever_lingers_and_speaks_is_a_party() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "old", &[CONTESTED]);
    world.lease(CONTESTED, "new");
    world.sandbox(3, "new", &[CONTESTED]);
    world.pass(Span::from_secs(1));
    assert_eq!(world.duplicates(), 0);
    world.sends_from(2, CONTESTED);
    assert_eq!(world.duplicates(), 1);
    world.pass(Span::from_secs(5));
    assert_eq!((world.at(2), world.at(3)), (vec![address(10)], vec![CONTESTED]));
}

/// Scenario 9, with an orphan that says nothing by itself.
#[test]
fn whoever_lingers_on_is_asked_and_then_is_a_party() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "orphan", &[CONTESTED]);
    world.lease(CONTESTED, "holder");
    world.sandbox(3, "holder", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    assert_eq!((world.duplicates(), world.incident().status), (1, Status::Healed));
    assert_eq!((world.at(2), world.at(3)), (vec![address(10)], vec![CONTESTED]));
}

#[test]
fn whoever_comes_while_another_lingers_is_no_less_a_party() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "old", &[CONTESTED]);
    world.lease(CONTESTED, "holder");
    world.sandbox(3, "holder", &[CONTESTED]);
    assert_eq!((world.duplicates(), infos(&world)), (0, vec!["lingers"]));
    world.sandbox(4, "third", &[CONTESTED]);
    assert_eq!((world.duplicates(), world.incident().winner().map(Party::label)), (1, Some("holder".to_owned())));
}

#[test]
fn whoever_lingers_on_and_does_not_even_answer_is_no_party() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "old", &[CONTESTED]);
    world.behind.get_mut(&2).unwrap().answers = false;
    world.lease(CONTESTED, "new");
    world.sandbox(3, "new", &[CONTESTED]);
    world.pass(Span::from_secs(120));
    assert_eq!((world.duplicates(), world.at(2)), (0, vec![CONTESTED]));
    assert!(world.asked("probe") > 3, "it is asked now and then");
}

#[test]
fn a_newcomer_without_the_lease_has_nobody_linger() {
    let mut world = World::running(Mode::Observe);
    world.lease(CONTESTED, "holder");
    world.sandbox(2, "holder", &[CONTESTED]);
    world.sandbox(3, "newcomer", &[CONTESTED]);
    assert_eq!((world.duplicates(), infos(&world)), (1, vec![]));
}

/// Scenario 24.
#[test]
fn another_hardware_address_at_the_same_port_is_told_and_no_duplicate() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    let other = Mac([2, 7, 7, 7, 7, 7]);
    // The kernel announces the new one before anybody has looked, and does not go by the old one any more.
    world.behind.get_mut(&2).unwrap().answers = false;
    world.announces(2, other, CONTESTED);
    assert_eq!(world.duplicates(), 0);
    let addresses = Some(vec![Configured { tag: None, address: CONTESTED, mac: other }]);
    let sandbox = world.engine.topology.ports[&port(2)].sandbox.clone();
    let survey =
        Survey { at: world.now, sandbox, macs: [other].into(), reach: Reach::Netns, forwards: false, addresses };
    world.tell(Input::Surveyed { port: port(2), survey });
    world.pass(Span::from_secs(120));
    assert_eq!((world.duplicates(), infos(&world)), (0, vec!["mac_changed"]));
}

/// A virtual router advertises itself with its own hardware address and the sandbox's.
#[test]
fn a_second_hardware_address_of_a_sandbox_that_falls_silent_is_nothing() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "a", &[CONTESTED]);
    let router = Mac([0, 0, 0x5e, 0, 1, 7]);
    world.announces(2, router, CONTESTED);
    world.pass(Span::from_millis(10));
    let survey = Survey { macs: [mac(2), router].into(), ..world.look(2) };
    world.tell(Input::Surveyed { port: port(2), survey });
    assert_eq!(world.states(CONTESTED), [RowState::Ok]);
    assert_eq!((world.findings, world.asked.get("announce")), (vec![], None));
}

#[test]
fn an_address_that_two_stations_of_a_sandbox_let_go_of_at_once_has_not_moved_between_them() {
    let mut world = World::running(Mode::Enforce);
    let router = Mac([0, 0, 0x5e, 0, 1, 7]);
    world.sandbox(2, "a", &[address(3)]);
    let addresses = Some(vec![Configured { tag: None, address: CONTESTED, mac: router }]);
    let macs = || [mac(2), router].into();
    let survey = Survey { macs: macs(), addresses, ..world.look(2) };
    world.tell(Input::Surveyed { port: port(2), survey });
    world.sends_from(2, CONTESTED);
    world.pass(Span::from_secs(1));
    assert_eq!(world.states(CONTESTED), [RowState::Ok; 2]);
    let survey = Survey { macs: macs(), ..world.look(2) };
    world.tell(Input::Surveyed { port: port(2), survey });
    assert_eq!((world.states(CONTESTED), &world.findings), (vec![], &vec![]));
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!(moves(&world), [from_to("veth2", "veth3")]);
}

#[test]
fn another_hardware_address_behind_an_opaque_port_is_believed_when_the_first_is_silent() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "vm", &[]);
    world.announces(2, mac(2), CONTESTED);
    world.announces(2, Mac([2, 7, 7, 7, 7, 7]), CONTESTED);
    world.pass(Span::from_secs(5));
    assert_eq!((world.duplicates(), infos(&world)), (0, vec!["mac_changed"]));
}

/// Scenario 28.
#[test]
fn the_same_address_twice_behind_one_port_is_a_duplicate() {
    let mut world = World::running(Mode::Enforce);
    world.opaque(2, "host-of-two", &[CONTESTED]);
    let child = Mac([2, 7, 7, 7, 7, 7]);
    world.announces(2, mac(2), CONTESTED);
    world.announces(2, child, CONTESTED);
    world.announces(2, child, CONTESTED);
    world.pass(Span::from_secs(1));
    assert_eq!(world.duplicates(), 1, "the first was asked, and answers");
    let macs: Vec<Mac> = world.incident().parties.iter().map(|party| party.station.mac).collect();
    assert_eq!(macs, [mac(2), child]);
    assert_eq!(world.asked("reallocate"), 0, "there is no port to tell them apart by");
}

#[test]
fn a_child_with_the_address_of_the_sandbox_that_it_is_behind_is_a_duplicate() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "parent", &[CONTESTED]);
    world.announces(2, Mac([2, 7, 7, 7, 7, 7]), CONTESTED);
    assert_eq!(world.duplicates(), 1, "the parent was asked, and answers");
}

#[test]
fn one_namespace_that_answers_on_all_its_interfaces_is_one_party() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    let second = Mac([2, 7, 7, 7, 7, 7]);
    let sandbox = world.engine.topology.ports[&port(2)].sandbox.clone();
    let addresses = Some(vec![Configured { tag: None, address: CONTESTED, mac: mac(2) }]);
    let survey = Survey {
        at: world.now,
        sandbox,
        macs: [mac(2), second].into(),
        reach: Reach::Netns,
        forwards: false,
        addresses,
    };
    world.tell(Input::Surveyed { port: port(2), survey });
    for _ in 0..5 {
        world.announces(2, second, CONTESTED);
        world.says(2, Operation::Reply, CONTESTED, HOST);
    }
    assert_eq!(world.findings, []);
}

fn sharing() -> World {
    let policy = Policy { shared: vec!["10.8.64.2/32".parse().unwrap()], ..Policy::default() };
    World::running_with(Config { mode: Mode::Enforce, policy, ..Config::default() })
}

/// Scenario 25.
#[test]
fn a_shared_address_moves_and_is_no_duplicate() {
    let mut world = sharing();
    world.sandbox(2, "a", &[CONTESTED, address(3)]);
    world.sandbox(3, "b", &[address(4)]);
    world.reconfigure(3, &[address(4), CONTESTED]);
    world.pass(Span::from_secs(2));
    world.reconfigure(2, &[address(3)]);
    world.pass(Span::from_secs(60));
    assert_eq!((world.duplicates(), moves(&world)), (0, vec![from_to("veth2", "veth3")]));
}

#[test]
fn a_shared_address_with_two_holders_for_long_is_told_and_nobody_is_moved() {
    for leased in [true, false] {
        let mut world = sharing();
        if leased {
            world.lease(CONTESTED, "a");
        }
        world.sandbox(2, "a", &[CONTESTED]);
        world.sandbox(3, "b", &[CONTESTED]);
        world.pass(Span::from_secs(4));
        assert_eq!(world.duplicates(), 0);
        world.pass(Span::from_secs(4));
        assert_eq!((world.duplicates(), world.held(), world.asked("reallocate")), (1, vec![Held::Shared], 0));
        let plan: Vec<_> = world.incident().plan.iter().map(|plan| (plan.way, plan.held)).collect();
        assert_eq!(plan, vec![(None, Some(Held::Shared)); plan.len()]);
        assert!(!leased || plan.len() == 1);
    }
}

#[test]
fn a_virtual_router_that_is_taken_over_is_no_duplicate() {
    let router = Mac([0, 0, 0x5e, 0, 1, 51]);
    let mut world = World::running(Mode::Enforce);
    world.opaque(2, "a", &[]);
    world.opaque(3, "b", &[]);
    world.announces(2, router, CONTESTED);
    world.announces(3, router, CONTESTED);
    world.pass(Span::from_secs(200));
    assert_eq!(world.duplicates(), 0);
}

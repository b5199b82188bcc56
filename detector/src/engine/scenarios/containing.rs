//! Who is contained and who is not, in which way a duplicate is resolved, and what stops an eviction.

use super::*;

fn at(at: u32) -> Contained {
    Contained { port: port(at), tag: None, address: CONTESTED }
}

/// Of `a`, which holds the lease, and `b`, which does not.
pub(super) fn two(config: Config) -> World {
    let mut world = World::running_with(config);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world
}

fn enforce() -> Config {
    Config { mode: Mode::Enforce, ..Config::default() }
}

fn with_policy(policy: Policy) -> Config {
    Config { policy, ..enforce() }
}

fn with_way(way: Way) -> Config {
    with_policy(Policy { ways: Ways { default: way, ..Ways::default() }, ..Policy::default() })
}

#[test]
fn the_loser_is_contained_before_anything_else_and_set_free_at_the_end() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("reallocate", 1);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!(world.contained, [at(3)].into());
    assert_eq!((world.asked("announce"), world.asked("readdress")), (1, 0), "the winner is announced at once");
    world.pass(Span::from_secs(1));
    assert_eq!((world.incident().status, world.contained.len()), (Status::Healed, 0));
    assert_eq!([world.asked("contain"), world.asked("lift"), world.asked("destroy_sockets")], [1; 3]);
}

#[test]
fn sockets_stay_if_an_operator_wants_them_to() {
    let mut world = two(Config { destroys_sockets: false, ..enforce() });
    world.pass(Span::from_secs(1));
    assert_eq!((world.incident().status, world.asked("destroy_sockets")), (Status::Healed, 0));
}

#[test]
fn sockets_that_cannot_be_ended_keep_nobody_from_being_moved() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("destroy_sockets", usize::MAX);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(1));
    assert_eq!((world.incident().status, world.asked("destroy_sockets")), (Status::Healed, 1));
}

#[test]
fn without_a_tap_that_can_drop_the_loser_is_moved_all_the_same() {
    let mut world = two(Config { can_contain: false, ..enforce() });
    world.pass(Span::from_secs(1));
    assert_eq!((world.incident().status, world.asked("contain")), (Status::Healed, 0));
}

/// Scenario 11.
#[test]
fn whoever_claims_the_hosts_address_is_contained_at_once() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "liar", &[address(5)]);
    world.says(2, Operation::Reply, HOST, address(9));
    let spoof = Contained { port: port(2), tag: None, address: HOST };
    assert_eq!((world.contained.clone(), world.held()), ([spoof].into(), vec![Held::OnlyOnTheWire]));
    assert_eq!(world.incident().verdict(), Verdict::Spoof);
    world.pass(Span::from_secs(300));
    assert_eq!((world.incident().status, world.contained.len()), (Status::Gone, 0), "it has fallen silent");
}

/// Scenario 15.
#[test]
fn without_a_lease_the_newcomer_is_contained_and_moved_only_if_allowed() {
    for moves_newcomers in [false, true] {
        let mut world = World::running_with(with_policy(Policy { moves_newcomers, ..Policy::default() }));
        world.sandbox(2, "a", &[CONTESTED]);
        world.pass(Span::from_secs(1));
        world.sandbox(3, "b", &[CONTESTED]);
        assert_eq!(world.contained, [at(3)].into());
        world.pass(Span::from_secs(5));
        let moved = world.incident().status == Status::Healed && world.at(3) == [address(10)];
        assert_eq!((moved, world.asked("readdress")), (moves_newcomers, usize::from(moves_newcomers)));
        assert_eq!(world.at(2), [CONTESTED]);
    }
}

#[test]
fn whoever_is_contained_only_and_comes_back_is_contained_again() {
    let mut world = two(with_way(Way::Contain));
    for times in 1..=3 {
        assert_eq!((world.contained.clone(), world.incident().times), ([at(3)].into(), times));
        world.reconfigure(3, &[address(5)]);
        world.pass(Span::from_secs(1));
        assert_eq!((world.incident().status, world.contained.len()), (Status::Gone, 0));
        world.reconfigure(3, &[address(5), CONTESTED]);
        world.pass(Span::from_secs(1));
    }
}

#[test]
fn of_two_that_were_there_before_nobody_is_contained() {
    let mut world = World::new(Mode::Enforce);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.tell(Input::InventoryDone);
    world.pass(Span::from_secs(5));
    assert_eq!((world.asked("contain"), world.held()), (0, vec![Held::Unsettled]));
}

#[test]
fn whoever_turns_out_to_be_the_holder_is_set_free() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "a", &[CONTESTED]);
    world.pass(Span::from_secs(1));
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!(world.contained, [at(3)].into());
    world.lease(CONTESTED, "b");
    world.pass(Span::from_secs(60));
    assert_eq!((world.at(2), world.at(3)), (vec![address(10)], vec![CONTESTED]));
    assert_eq!((world.incident().status, world.contained.len()), (Status::Healed, 0));
}

#[test]
fn observing_plans_and_does_nothing() {
    let world = two(Config::default());
    let plan = &world.incident().plan;
    let want = Plan { port: port(3), way: Some(Way::Readdress), owner: Some("b".parse().unwrap()), held: None };
    assert_eq!((plan.as_slice(), world.held()), (&[want][..], vec![Held::Observing]));
    assert_eq!((world.asked("contain"), world.asked("reallocate")), (0, 0));
    let decision = world.incident().decision().unwrap();
    assert_eq!(decision, "a keeps 10.8.64.2: holds lease generation 1; b has none");
}

#[test]
fn behind_a_protected_port_nothing_is_done() {
    let mut world = two(with_policy(Policy { protected: vec!["veth3".parse().unwrap()], ..Policy::default() }));
    world.pass(Span::from_secs(60));
    assert_eq!((world.held(), world.asked("contain"), world.at(3)), (vec![Held::Protected], 0, vec![CONTESTED]));
}

#[test]
fn a_pause_stops_what_is_new_and_ends_by_itself() {
    let mut world = World::running(Mode::Enforce);
    let until = world.now + Span::from_secs(600);
    world.tell(Input::Paused { until: Some(until) });
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(590));
    assert_eq!((world.held(), world.asked("contain"), world.duplicates()), (vec![Held::Paused], 0, 1));
    world.pass(Span::from_secs(20));
    assert_eq!((world.incident().status, world.at(3)), (Status::Healed, vec![address(10)]));
    assert_eq!(world.count(|finding| matches!(finding, Finding::Paused { .. })), 2);
}

#[test]
fn a_pause_is_ended_by_the_operator_and_what_is_under_way_is_finished() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("reallocate", 2);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    let until = Some(world.now + Span::from_secs(600));
    world.tell(Input::Paused { until });
    world.pass(Span::from_secs(2));
    assert_eq!(world.incident().status, Status::Healed);
    world.sandbox(4, "c", &[CONTESTED]);
    assert_eq!(world.at(4), [CONTESTED]);
    world.tell(Input::Paused { until: None });
    world.pass(Span::from_secs(1));
    assert_eq!(world.at(4), [address(11)]);
}

/// Scenario 40.
#[test]
fn whoever_puts_its_old_address_back_too_often_is_only_contained() {
    let mut world = two(Config { evictions_per_minute: 100, ..enforce() });
    for strike in 0..3 {
        world.pass(Span::from_secs(5));
        assert_eq!((world.at(3), world.incident().status), (vec![address(10)], Status::Healed), "strike {strike}");
        assert_eq!(world.incident().evictions[&port(3)].strikes, strike);
        world.reconfigure(3, &[CONTESTED, address(10)]);
    }
    world.pass(Span::from_secs(30));
    assert_eq!((world.at(3), world.asked("readdress")), (vec![CONTESTED, address(10)], 3));
    assert_eq!((world.contained.clone(), world.held()), ([at(3)].into(), vec![Held::Strikes]));
    assert_eq!((world.duplicates(), world.generation), (1, 2), "one incident, one new lease");
    world.pass(Span::from_secs(3700));
    assert_eq!(world.at(3), [address(10)], "an hour later it is forgotten");
}

#[test]
fn nobody_is_blamed_for_who_had_the_number_of_its_namespace_before() {
    let mut world = two(Config { evictions_per_minute: 100, ..enforce() });
    for moved in 1..=5 {
        world.pass(Span::from_secs(5));
        assert_eq!((world.asked("readdress"), world.held()), (moved, vec![]), "the kernel gives the same number again");
        world.leave(3);
        world.sandbox(3, "b", &[CONTESTED]);
    }
}

#[test]
fn over_the_brake_nobody_is_even_contained() {
    let mut world = two(Config { evictions_per_minute: 0, ..enforce() });
    world.pass(Span::from_secs(120));
    assert_eq!((world.held(), world.asked("contain")), (vec![Held::Brake], 0));
    assert_eq!(world.engine.held_counts(), [(Held::Brake, 1)].into(), "and it still holds");
    world.leave(3);
    assert_eq!(world.engine.held_counts(), [].into(), "it is over");
}

#[test]
fn a_loser_that_is_to_be_contained_only_stays_where_it_is() {
    let mut world = two(with_way(Way::Contain));
    world.pass(Span::from_secs(600));
    assert_eq!((world.contained.clone(), world.held()), ([at(3)].into(), vec![Held::ContainOnly]));
    assert_eq!((world.asked("contain"), world.at(3)), (1, vec![CONTESTED]));
    world.leave(3);
    assert_eq!((world.incident().status, world.contained.len()), (Status::Gone, 0));
}

#[test]
fn a_loser_is_recycled_by_the_orchestrator() {
    let mut world = two(with_way(Way::Recycle));
    assert_eq!((world.contained.clone(), world.asked("recycle")), ([at(3)].into(), 1));
    assert_eq!(world.incident().evictions[&port(3)].step, Step::AwaitGone);
    world.pass(Span::from_secs(30));
    world.leave(3);
    assert_eq!((world.incident().status, world.contained.len()), (Status::Healed, 0));
    assert_eq!((world.asked("recycle"), world.asked("reallocate")), (1, 0));
}

#[test]
fn an_orchestrator_that_does_nothing_is_asked_again_and_then_given_up() {
    let mut world = two(with_way(Way::Recycle));
    world.pass(Span::from_secs(520));
    assert_eq!(world.asked("recycle"), usize::from(eviction::ATTEMPTS));
    assert_eq!(world.count(|finding| matches!(finding, Finding::GivenUp { .. })), 1);
    assert!(world.held().contains(&Held::GivenUp));
    assert_eq!(world.contained, [at(3)].into());
}

/// Scenario 38.
#[test]
fn what_fails_for_good_is_given_up_and_the_loser_stays_contained() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("readdress", usize::MAX);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(30));
    assert_eq!((world.asked("readdress"), world.asked("give_back")), (8, 1));
    assert_eq!(world.count(|finding| matches!(finding, Finding::GivenUp { .. })), 1);
    assert_eq!((world.held(), world.contained.clone()), (vec![Held::GivenUp], [at(3)].into()));
    assert_eq!(world.incident().evictions[&port(3)].failure.as_deref(), Some("broken"));
    let is_attempt =
        |finding: &Finding| matches!(finding, Finding::StepFailed { step: Step::Readdress, is_tried_again: true, .. });
    assert_eq!(world.count(is_attempt), 8, "each attempt counts");
    world.break_next("readdress", 0);
    world.pass(Span::from_secs(120));
    assert_eq!((world.incident().status, world.contained.len()), (Status::Healed, 0));
}

#[test]
fn a_loser_that_cannot_be_contained_is_not_moved_either() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("contain", usize::MAX);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(30));
    assert_eq!((world.asked("contain"), world.asked("reallocate")), (8, 0));
    assert_eq!((world.contained.len(), world.held()), (0, vec![Held::GivenUp]));
}

#[test]
fn a_record_that_cannot_be_written_stops_the_step_that_would_follow() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("keep", usize::MAX);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    assert_eq!((world.contained.clone(), world.asked("reallocate")), ([at(3)].into(), 0));
    world.break_next("keep", 0);
    world.tell(Input::StoreRestored);
    world.pass(Span::from_secs(1));
    assert_eq!(world.incident().status, Status::Healed);
    assert_eq!(world.kept[&world.incident().id].status, Status::Healed);
}

#[test]
fn an_answer_that_never_comes_is_a_failure() {
    let mut world = World::running(Mode::Enforce);
    world.lost.insert("readdress", 1);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    assert_eq!(world.incident().status, Status::Open);
    world.pass(Span::from_secs(10));
    assert_eq!((world.incident().status, world.asked("readdress"), world.generation), (Status::Healed, 2, 2));
}

#[test]
fn an_operator_lifts_a_containment_for_as_long_as_the_incident_lasts() {
    let mut world = two(with_way(Way::Contain));
    world.tell(Input::Lifted(at(3)));
    assert_eq!(world.incident().held, Some(Held::Spared));
    world.pass(Span::from_secs(300));
    assert_eq!((world.contained.len(), world.held()), (0, vec![Held::ContainOnly, Held::Spared]));
    assert_eq!(world.incident().status, Status::Open);
    world.reconfigure(3, &[address(5)]);
    world.reconfigure(3, &[CONTESTED]);
    assert_eq!(world.contained, [at(3)].into(), "when it comes again, it is contained again");
}

/// Scenario 12.
#[test]
fn whoever_claims_what_others_have_is_contained_at_each_of_their_addresses_and_at_none_of_its_own() {
    let mut world = World::running(Mode::Enforce);
    world.lease(address(9), "vm");
    world.opaque(9, "vm", &[address(9)]);
    for host in 3..6u8 {
        world.lease(address(host), ["x", "y", "z"][usize::from(host) - 3]);
        world.sandbox(host.into(), ["x", "y", "z"][usize::from(host) - 3], &[address(host)]);
    }
    for host in 3..6u8 {
        world.says(9, Operation::Reply, address(host), HOST);
    }
    let entries = (3..6u8).map(|host| Contained { port: port(9), tag: None, address: address(host) });
    assert_eq!(world.contained, entries.collect());
    world.pass(Span::from_secs(5));
    assert_eq!((world.duplicates(), world.asked("readdress")), (1, 0));
    world.leave(9);
    assert_eq!(world.contained.len(), 0);
}

#[test]
fn an_owner_of_an_address_that_joins_an_incident_is_not_contained_there() {
    let mut world = World::running(Mode::Enforce);
    world.lease(address(3), "x");
    world.sandbox(3, "x", &[address(3)]);
    // It can be told by its name, but not looked into.
    world.lease(address(9), "vm");
    world.port_up(9, None);
    let sandbox = Sandbox { netns: None, name: None, owners: vec!["vm".parse().unwrap()] };
    let survey =
        Survey { at: world.now, sandbox, macs: BTreeSet::new(), reach: Reach::Netns, forwards: false, addresses: None };
    world.tell(Input::Surveyed { port: port(9), survey });
    world.says(9, Operation::Reply, address(3), HOST);
    world.says(9, Operation::Reply, address(9), HOST);
    world.opaque(8, "other", &[]);
    world.says(8, Operation::Reply, address(9), HOST);
    let of_vm = Contained { port: port(9), tag: None, address: address(9) };
    assert!(!world.contained.contains(&of_vm), "{:?}", world.contained);
}

#[test]
fn an_incident_goes_by_an_address_that_is_contested_still() {
    let mut world = World::running(Mode::Enforce);
    for (host, name) in [(3, "x"), (4, "y")] {
        world.lease(address(host), name);
        world.sandbox(host.into(), name, &[address(host)]);
    }
    world.opaque(9, "liar", &[address(3), address(4)]);
    world.says(9, Operation::Reply, address(3), HOST);
    world.says(9, Operation::Reply, address(4), HOST);
    world.leave(3);
    world.pass(Span::from_secs(2));
    let incident = world.incident();
    assert_eq!((incident.address, incident.addresses.len(), incident.status), (address(4), 1, Status::Open));
    assert_eq!(incident.winner().unwrap().station.port, port(4));
    assert_eq!(world.contained, [Contained { port: port(9), tag: None, address: address(4) }].into());
    world.leave(4);
    assert_eq!((world.incident().status, world.contained.len()), (Status::Gone, 0));
}

//! An operator decides otherwise while the agent runs.

use super::{containing::two, *};

fn reconfigured(world: &mut World, config: Config) {
    world.tell(Input::Reconfigured(Box::new(config)));
    world.pass(Span::from_secs(2));
}

fn mode(mode: Mode) -> Config {
    Config { mode, ..Config::default() }
}

fn contain_only() -> Config {
    let ways = Ways { default: Way::Contain, ..Ways::default() };
    Config { policy: Policy { ways, ..Policy::default() }, ..mode(Mode::Enforce) }
}

#[test]
fn what_was_only_observed_is_healed_as_soon_as_it_may_be() {
    let mut world = two(mode(Mode::Observe));
    assert_eq!((world.held(), world.at(3)), (vec![Held::Observing], vec![CONTESTED]));
    world.sandbox(4, "c", &[address(20)]);
    reconfigured(&mut world, mode(Mode::Enforce));
    assert_eq!(
        (world.incident().status, world.at(3), world.at(2)),
        (Status::Healed, vec![address(10)], vec![CONTESTED])
    );
    assert_eq!(
        world.leases.get(&address(20)).map(|lease| lease.owner.as_str()),
        Some("c"),
        "who is there is written down"
    );
}

#[test]
fn whoever_ceases_to_act_lets_those_go_who_are_contained_for_good() {
    let mut world = two(contain_only());
    world.pass(Span::from_secs(2));
    assert_eq!(world.contained.len(), 1);
    reconfigured(&mut world, Config { mode: Mode::Observe, ..contain_only() });
    assert_eq!((world.contained.len(), world.incident().status), (0, Status::Open));
    assert_eq!(world.held().last(), Some(&Held::Observing));
    reconfigured(&mut world, contain_only());
    assert_eq!((world.contained.len(), world.asked("contain")), (1, 2), "and contains them again when it acts again");
}

#[test]
fn a_move_that_is_under_way_is_finished() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("reallocate", 2);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    reconfigured(&mut world, mode(Mode::Observe));
    assert_eq!((world.incident().status, world.at(3)), (Status::Healed, vec![address(10)]));
    assert!(world.contained.is_empty());
    world.sandbox(4, "c", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    assert_eq!(world.at(4), [CONTESTED], "and nothing new is begun");
}

#[test]
fn a_pin_and_another_way_count_at_once() {
    let mut world = two(contain_only());
    world.pass(Span::from_secs(2));
    let pins = [(CONTESTED, "b".parse().unwrap())].into();
    reconfigured(&mut world, Config { policy: Policy { pins, ..Policy::default() }, ..mode(Mode::Enforce) });
    assert_eq!((world.at(2), world.at(3)), (vec![address(10)], vec![CONTESTED]), "b is pinned, so a is moved");
    assert!(world.contained.is_empty());
}

#[test]
fn an_address_that_is_declared_shared_is_left_alone() {
    let mut world = two(contain_only());
    let shared = vec!["10.8.64.2/32".parse().unwrap()];
    reconfigured(&mut world, Config { policy: Policy { shared, ..contain_only().policy }, ..mode(Mode::Enforce) });
    assert!(world.contained.is_empty(), "nobody stays contained at an address that several may have");
    assert_eq!(world.held().last(), Some(&Held::Shared));
}

#[test]
fn a_port_that_is_protected_from_now_on_is_left_alone() {
    let mut world = two(contain_only());
    let protected = vec!["veth3".parse().unwrap()];
    reconfigured(&mut world, Config { policy: Policy { protected, ..contain_only().policy }, ..mode(Mode::Enforce) });
    assert_eq!((world.contained.len(), world.held().last()), (0, Some(&Held::Protected)));
}

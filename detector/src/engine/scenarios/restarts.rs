//! An agent that was killed, and the one after it: the same incident goes on.

use super::*;

/// As `World`, before an agent was killed and after: the sandboxes, the book and the records are what is left.
fn killed(before: World, restored: Vec<Incident>) -> World {
    let World { now, behind, leases, generation, .. } = before;
    let last_incident = restored.iter().map(|incident| incident.id.0).max().unwrap_or_default();
    let mut world = World::with(Config { mode: Mode::Enforce, last_incident, ..Config::default() });
    (world.now, world.leases, world.generation) = (now, leases, generation);
    restored.into_iter().for_each(|incident| world.tell(Input::Restored(Box::new(incident))));
    let pending: Vec<Lease> = world.leases.values().filter(|lease| lease.replaces.is_some()).cloned().collect();
    pending.into_iter().for_each(|lease| world.tell(Input::MovePending(lease)));
    for (at, behind) in behind {
        world.behind.insert(at, behind);
        world.port_up(at, None);
        world.survey(at);
    }
    world.tell(Input::InventoryDone);
    world
}

/// Scenario 37.
#[test]
fn killed_at_any_step_the_next_agent_ends_what_was_begun() {
    // Before and after the step: what was asked for last has not been done, or has, and nobody heard of it.
    for done in [false, true] {
        for step in ["contain", "reallocate", "readdress", "announce", "destroy_sockets", "bind", "lift"] {
            let mut world = World::running(Mode::Enforce);
            world.lost.insert(step, usize::MAX);
            world.lost_after = done;
            world.lease(CONTESTED, "a");
            world.sandbox(2, "a", &[CONTESTED]);
            world.sandbox(3, "b", &[CONTESTED]);
            world.pass(Span::from_millis(100));
            assert!(world.asked(step) > 0, "{step}");
            let records: Vec<Incident> = world.kept.values().cloned().collect();
            let mut world = killed(world, records);
            world.pass(Span::from_secs(2));
            let (at, leases) = ((world.at(2), world.at(3)), world.leases.len());
            assert_eq!((at, leases), ((vec![CONTESTED], vec![address(10)]), 2), "{step}, {done}");
            let lease = &world.leases[&address(10)];
            assert_eq!((lease.state, lease.replaces), (LeaseState::Bound, None), "{step}, {done}");
            assert_eq!((world.duplicates() <= 1, world.incident().id), (true, IncidentId(1)), "{step}, {done}");
            assert_eq!(
                (world.engine.incidents().count(), world.incident().status),
                (1, Status::Healed),
                "{step}, {done}"
            );
            assert_eq!((world.contained.len(), world.generation), (0, 2), "{step}, {done}");
        }
    }
}

#[test]
fn a_duplicate_that_ended_meanwhile_is_gone() {
    let mut world = World::running(Mode::Enforce);
    world.lost.insert("contain", 1);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    let records = world.kept.values().cloned().collect();
    world.behind.get_mut(&3).unwrap().addresses = [address(5)].into();
    let mut world = killed(world, records);
    world.pass(Span::from_secs(6));
    assert_eq!((world.incident().status, world.engine.open_count(rt0())), (Status::Gone, 0));
    assert_eq!((world.at(3), world.asked("reallocate")), (vec![address(5)], 0));
}

#[test]
fn numbers_and_strikes_go_on() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(1));
    assert_eq!(world.incident().status, Status::Healed);
    let records = world.kept.values().cloned().collect();
    let mut world = killed(world, records);
    world.reconfigure(3, &[CONTESTED, address(10)]);
    world.pass(Span::from_secs(1));
    assert_eq!(
        (world.incident().id, world.incident().times, world.incident().status),
        (IncidentId(1), 2, Status::Healed)
    );
    assert_eq!(world.incident().evictions[&port(3)].strikes, 1);
    world.lease(address(7), "x");
    world.sandbox(6, "x", &[address(7)]);
    world.sandbox(7, "y", &[address(7)]);
    assert_eq!(world.incident().id, IncidentId(2));
}

#[test]
fn what_an_agent_left_contained_is_lifted_unless_it_is_contested_still() {
    let left = Contained { port: port(3), tag: None, address: CONTESTED };
    for is_contested in [false, true] {
        let way = Ways { default: Way::Contain, ..Ways::default() };
        let policy = Policy { ways: way, ..Policy::default() };
        let mut world = World::with(Config { mode: Mode::Enforce, policy, ..Config::default() });
        world.contained.insert(left);
        world.tell(Input::LeftContained(vec![left]));
        world.lease(CONTESTED, "a");
        world.sandbox(2, "a", &[CONTESTED]);
        world.sandbox(3, "b", &[if is_contested { CONTESTED } else { address(5) }]);
        world.tell(Input::InventoryDone);
        world.pass(Span::from_secs(1));
        assert!(world.contained.contains(&left));
        world.pass(Span::from_secs(60));
        assert_eq!(world.contained.contains(&left), is_contested);
    }
}

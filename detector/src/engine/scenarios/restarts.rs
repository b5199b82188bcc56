//! An agent that was killed, and the one after it: the same incident goes on.

use super::*;

/// As `World`, before an agent was killed and after: the sandboxes, the book and the records are what is left.
fn killed(before: World, restored: Vec<Incident>) -> World {
    killed_with(Config { mode: Mode::Enforce, ..Config::default() }, before, restored, &[])
}

/// As [`killed`], with a configuration, and with the first action of certain kinds going unanswered.
fn killed_with(config: Config, before: World, restored: Vec<Incident>, lost: &[&'static str]) -> World {
    let World { now, behind, leases, generation, .. } = before;
    let last_incident = restored.iter().map(|incident| incident.id.0).max().unwrap_or_default();
    let mut world = World::with(Config { last_incident, ..config });
    world.lost.extend(lost.iter().map(|action| (*action, 1)));
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

#[test]
fn who_is_known_only_by_what_it_says_has_time_to_say_it() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.opaque(3, "vm", &[CONTESTED]);
    world.says(3, Operation::Reply, CONTESTED, HOST);
    world.pass(Span::from_secs(1));
    let records: Vec<Incident> = world.kept.values().cloned().collect();
    assert_eq!((records.len(), world.held()), (1, vec![Held::OutOfReach]));
    let mut world = killed(world, records);
    world.pass(Span::from_secs(10));
    assert_eq!(world.count(|finding| matches!(finding, Finding::Gone(_) | Finding::Reopened(_))), 0);
    assert_eq!((world.incident().status, world.engine.incidents().count()), (Status::Open, 1));
}

#[test]
fn a_move_whose_sandbox_stays_away_is_given_back() {
    let mut world = World::new(Mode::Enforce);
    let mut lease = world.lease(address(10), "b");
    lease.replaces = Some(CONTESTED);
    world.tell(Input::MovePending(lease));
    world.tell(Input::InventoryDone);
    world.pass(Span::from_secs(50));
    assert_eq!(world.asked("give_back"), 0);
    world.pass(Span::from_secs(20));
    assert_eq!(world.asked("give_back"), 1);
}

#[test]
fn what_is_told_late_and_is_this_agents_own_changes_nothing() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    let own = world.kept[&IncidentId(1)].clone();
    world.tell(Input::Restored(Box::new(own)));
    assert_eq!((world.incident().status, world.engine.open_count(rt0())), (Status::Open, 1));
}

#[test]
fn of_two_records_of_one_address_the_older_is_over() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.opaque(3, "vm", &[CONTESTED]);
    world.says(3, Operation::Reply, CONTESTED, HOST);
    let record = world.kept[&IncidentId(1)].clone();
    let records = vec![record.clone(), Incident { id: IncidentId(2), ..record }];
    let mut world = killed(world, records);
    world.pass(Span::from_secs(10));
    let statuses: Vec<Status> = world.kept.values().map(|incident| incident.status).collect();
    assert_eq!(statuses, [Status::Gone, Status::Open]);
}

/// Of `a`, which holds the lease, and `b`, which is contained only.
fn contained_only() -> (Config, World) {
    let policy = Policy { ways: Ways { default: Way::Contain, ..Ways::default() }, ..Policy::default() };
    let config = Config { mode: Mode::Enforce, policy, ..Config::default() };
    let mut world = World::running_with(config.clone());
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(1));
    (config, world)
}

/// The store answers when it can, and that may be after everybody was looked at.
#[test]
fn a_book_that_answers_late_closes_no_incident_that_goes_on() {
    let (config, world) = contained_only();
    let records = world.kept.values().cloned().collect();
    let mut world = killed_with(config, world, records, &["look_up"]);
    assert_eq!(world.engine.open_count(rt0()), 0, "it is not known yet");
    world.pass(Span::from_secs(1));
    assert_eq!((world.engine.incidents().count(), world.incident().id, world.incident().times), (1, IncidentId(1), 1));
    assert_eq!((world.incident().status, world.contained.len()), (Status::Open, 1));
}

#[test]
fn a_suspicion_that_comes_to_nothing_closes_the_incident() {
    let (config, world) = contained_only();
    let records = world.kept.values().cloned().collect();
    let mut world = killed_with(config, world, records, &["look_up"]);
    world.reconfigure(3, &[address(5)]);
    world.pass(Span::from_secs(20));
    assert_eq!((world.incident().id, world.incident().status), (IncidentId(1), Status::Gone));
}

#[test]
fn whoever_is_contained_only_is_contained_by_the_next_agent_too() {
    let (config, world) = contained_only();
    assert_eq!(world.contained.len(), 1);
    let records = world.kept.values().cloned().collect();
    let mut world = killed_with(config, world, records, &[]);
    world.pass(Span::from_secs(1));
    assert_eq!((world.incident().status, world.contained.len()), (Status::Open, 1));
}

#[test]
fn whoever_lets_go_while_no_agent_is_there_and_comes_back_is_contained_again() {
    let (config, mut world) = contained_only();
    let records = world.kept.values().cloned().collect();
    world.behind.get_mut(&3).unwrap().addresses = [address(5)].into();
    let mut world = killed_with(config, world, records, &[]);
    world.pass(Span::from_secs(20));
    assert_eq!((world.incident().status, world.contained.len()), (Status::Gone, 0));
    world.reconfigure(3, &[address(5), CONTESTED]);
    world.pass(Span::from_secs(1));
    assert_eq!((world.incident().id, world.incident().status, world.contained.len()), (IncidentId(1), Status::Open, 1));
}

/// What it was given was given back, so it is not moved to that.
#[test]
fn whoever_was_given_up_is_contained_and_tried_again_by_the_next_agent() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("readdress", usize::MAX);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(40));
    assert_eq!(world.incident().evictions[&port(3)].step, Step::Failed);
    let records: Vec<Incident> = world.kept.values().cloned().collect();
    let mut world = killed(world, records);
    assert_eq!(world.contained.len(), 1);
    world.pass(Span::from_secs(2));
    assert_eq!((world.incident().status, world.contained.len()), (Status::Healed, 0));
    let lease = world.leases.values().find(|lease| lease.owner.as_str() == "b").unwrap();
    assert_eq!((world.at(3), lease.state), (vec![lease.address], LeaseState::Bound));
}

#[test]
fn of_several_losers_none_is_forgotten_while_one_is_moved_on() {
    let mut world = World::running(Mode::Enforce);
    world.lost.insert("bind", usize::MAX);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.opaque(4, "vm", &[CONTESTED]);
    world.says(4, Operation::Reply, CONTESTED, HOST);
    world.pass(Span::from_millis(100));
    let records = world.kept.values().cloned().collect();
    let mut world = killed(world, records);
    world.says(4, Operation::Reply, CONTESTED, HOST);
    world.pass(Span::from_secs(10));
    assert_eq!(
        (world.at(3), world.incident().id, world.incident().status),
        (vec![address(10)], IncidentId(1), Status::Open)
    );
    let vm = Contained { port: port(4), tag: None, address: CONTESTED };
    assert_eq!(world.contained, [vm].into());
}

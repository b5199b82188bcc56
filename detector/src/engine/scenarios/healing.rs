//! Who keeps the address, who is moved, and what becomes of the leases.

use super::*;

#[test]
fn what_was_there_before_the_agent_is_reported_once_and_the_healthy_silently() {
    let mut world = World::new(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.sandbox(4, "c", &[address(3)]);
    world.tell(Input::InventoryDone);
    world.pass(Span::from_secs(120));
    assert_eq!(world.duplicates(), 1);
    let of_c = world.count(|finding| format!("{finding:?}").contains("10.8.64.3"));
    assert_eq!(of_c, 0);
    assert_eq!(world.asked("sweep"), 1, "everybody is asked once");
    assert_eq!(world.incident().contest.as_ref().unwrap().reason, Reason::NoClearOwner);
}

#[test]
fn the_orphan_without_a_lease_is_moved_and_the_holder_is_not_touched() {
    let mut world = World::new(Mode::Enforce);
    world.sandbox(2, "sportsagent", &[CONTESTED]);
    world.sandbox(4, "calagent", &[address(3)]);
    world.lease(address(3), "calagent");
    let lease = world.lease(CONTESTED, "reviewagent");
    world.sandbox(3, "reviewagent", &[CONTESTED]);
    world.tell(Input::InventoryDone);
    world.pass(Span::from_secs(1));

    assert_eq!((world.at(2), world.at(3)), (vec![address(10)], vec![CONTESTED]));
    assert_eq!(world.incident().status, Status::Healed);
    let reason = &world.incident().contest.as_ref().unwrap().reason;
    assert_eq!(*reason, Reason::LeaseHolder { owner: "reviewagent".parse().unwrap(), generation: lease.generation });
    assert_eq!(world.leases[&address(10)].state, LeaseState::Bound);
    assert_eq!([world.asked("reallocate"), world.asked("readdress"), world.asked("bind")], [1, 1, 1]);
    assert_eq!(world.states(CONTESTED), [RowState::Ok]);
}

#[test]
fn the_new_lease_is_on_disk_before_the_sandbox_is_touched() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("reallocate", 1);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!((world.asked("reallocate"), world.asked("readdress")), (1, 0));
    assert_eq!(world.count(|finding| matches!(finding, Finding::StepFailed { step: Step::Reallocate, .. })), 1);
    world.pass(Span::from_secs(1));
    assert_eq!((world.asked("readdress"), world.incident().status), (1, Status::Healed));
    let steps: Vec<Step> = world.incident().evictions[&port(3)].taken.iter().map(|(step, _)| *step).collect();
    let order = [
        Step::Contain,
        Step::Reallocate,
        Step::Readdress,
        Step::AnnounceNew,
        Step::AnnounceKept,
        Step::DestroySockets,
        Step::Verify,
        Step::Bind,
        Step::Release,
    ];
    assert_eq!(steps, order);
}

#[test]
fn every_step_is_tried_again_until_it_succeeds() {
    for step in ["look_up", "reallocate", "readdress", "announce", "bind"] {
        let mut world = World::running(Mode::Enforce);
        world.break_next(step, 3);
        world.lease(CONTESTED, "a");
        world.sandbox(2, "a", &[CONTESTED]);
        world.sandbox(3, "b", &[CONTESTED]);
        world.pass(Span::from_secs(5));
        assert_eq!(world.incident().status, Status::Healed, "{step}");
        assert_eq!((world.at(2), world.at(3)), (vec![CONTESTED], vec![address(10)]), "{step}");
        assert_eq!(world.generation, 2, "{step}: one new lease and no second");
    }
}

#[test]
fn a_lost_probe_is_not_taken_for_an_answer() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.break_next("probe", 2);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(1));
    assert_eq!(world.incident().status, Status::Healed);
    assert_eq!(world.asked("readdress"), 1);
}

#[test]
fn a_new_address_that_nobody_answers_for_is_not_called_healed() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.behind.insert(3, Behind { name: "b", addresses: [CONTESTED].into(), readable: true, answers: false });
    world.port_up(3, None);
    world.survey(3);
    world.pass(Span::from_secs(10));
    assert_eq!(world.incident().status, Status::Open);
    assert!(world.count(|finding| matches!(finding, Finding::StepFailed { step: Step::Verify, .. })) >= 2);
    world.behind.get_mut(&3).unwrap().answers = true;
    world.pass(Span::from_secs(60));
    assert_eq!(world.incident().status, Status::Healed);
}

#[test]
fn an_eviction_ends_where_the_contest_is_decided_otherwise() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("reallocate", 1);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!(world.asked("reallocate"), 1);
    // While the eviction waits for its next attempt, the lease goes to the one that was to be moved.
    world.lease(CONTESTED, "b");
    world.sandbox(4, "c", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    assert_eq!([world.at(3), world.at(2), world.at(4)].concat(), [CONTESTED, address(10), address(11)]);
    assert_eq!(world.incident().status, Status::Healed);
}

#[test]
fn who_is_left_alone_with_the_address_is_not_moved() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("readdress", 3);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!(world.asked("readdress"), 1);
    world.leave(2);
    world.pass(Span::from_secs(120));
    assert_eq!((world.at(3), world.incident().status), (vec![CONTESTED], Status::Gone));
    assert_eq!((world.asked("give_back"), world.leases.contains_key(&address(10))), (1, false));
}

#[test]
fn a_loser_that_gives_the_address_up_by_itself_is_left_alone() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("reallocate", usize::MAX);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.reconfigure(3, &[address(77)]);
    assert_eq!((world.incident().status, world.states(CONTESTED)), (Status::Gone, vec![RowState::Ok]));
    world.pass(Span::from_secs(120));
    assert_eq!((world.at(3), world.asked("readdress")), (vec![address(77)], 0));
}

#[test]
fn a_loser_that_takes_the_address_back_at_the_last_moment_is_contested_again() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("bind", 1);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_millis(60));
    assert_eq!(world.asked("bind"), 1);
    world.reconfigure(3, &[CONTESTED, address(10)]);
    world.pass(Span::from_secs(30));
    assert_eq!((world.at(3), world.incident().status), (vec![address(10)], Status::Healed));
    assert_eq!(world.engine.open_count(rt0()), 0);
}

#[test]
fn a_name_that_several_go_by_holds_no_lease_and_gets_none() {
    let mut world = World::new(Mode::Enforce);
    world.sandbox(2, "unit.service", &[address(2)]);
    world.sandbox(3, "unit.service", &[address(3)]);
    world.tell(Input::InventoryDone);
    assert_eq!(world.asked("adopt"), 0);
    world.lease(address(9), "w");
    world.sandbox(4, "w", &[address(9)]);
    world.reconfigure(3, &[address(9)]);
    world.pass(Span::from_secs(5));
    assert_eq!((world.held(), world.asked("reallocate")), (vec![Held::Nameless], 0));
}

#[test]
fn what_the_loser_alone_has_is_not_in_use_for_it() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.lease(address(77), "b");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[address(77), CONTESTED]);
    world.pass(Span::from_secs(5));
    assert_eq!((world.at(3), world.incident().status), (vec![address(77)], Status::Healed));
}

#[test]
fn martians_beyond_what_is_kept_for_a_port_are_only_counted() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "noisy", &[]);
    for claim in 0..3000u32 {
        let packet = ArpPacket::announcement(mac(2), Ipv4Addr::from(0xc000_0200 + claim));
        world.frame(2, None, mac(2), packet);
    }
    assert_eq!(world.martians().len(), 3000);
    let news = world.count(|finding| matches!(finding, Finding::Martian { news: true, .. }));
    assert_eq!(news, bindings::CLAIMS_PER_PORT);
}

#[test]
fn a_released_address_rests_when_nothing_shows_it_in_use() {
    let mut world = World::running(Mode::Observe);
    let lease = Lease { state: LeaseState::Draining, ..world.lease(CONTESTED, "a") };
    let told = |world: &mut World| (0..5).for_each(|_| world.tell(Input::Draining(vec![lease.clone()])));
    let swept = world.asked("probe");
    world.sandbox(2, "a", &[CONTESTED]);
    told(&mut world);
    assert_eq!((world.asked("probe"), world.asked("retire")), (swept, 0), "it is configured");
    world.leave(2);
    world.opaque(3, "vm", &[CONTESTED]);
    told(&mut world);
    assert_eq!((world.asked("probe"), world.asked("retire")), (swept + 1, 0), "somebody answers");
    world.leave(3);
    let sandbox = Sandbox { netns: Some(NetnsId { device: 4, inode: 9 }), ..Sandbox::default() };
    world.port_up(4, None);
    let survey =
        Survey { at: world.now, sandbox, macs: BTreeSet::new(), reach: Reach::Netns, forwards: false, addresses: None };
    world.tell(Input::Surveyed { port: port(4), survey });
    told(&mut world);
    assert_eq!(world.asked("retire"), 0, "a namespace that cannot be read may have it");
    world.tell(Input::PortDown { port: port(4) });
    world.tell(Input::Draining(vec![lease.clone()]));
    world.tell(Input::Draining(vec![lease.clone()]));
    assert_eq!(world.asked("retire"), 0, "one lost probe, or two, prove nothing");
    told(&mut world);
    assert!(world.asked("retire") > 0);
}

#[test]
fn without_a_lease_the_incumbent_is_named_and_nobody_is_moved() {
    let mut world = World::running(Mode::Enforce);
    world.sandbox(2, "first", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    world.sandbox(3, "second", &[CONTESTED]);
    world.pass(Span::from_secs(60));
    assert_eq!(world.incident().winner().unwrap().label(), "first");
    assert_eq!((world.held(), world.asked("reallocate")), (vec![Held::Newcomer], 0));
    world.lease(CONTESTED, "second");
    world.pass(Span::from_secs(60));
    assert_eq!((world.at(2), world.at(3)), (vec![address(10)], vec![CONTESTED]), "a lease settles it");
}

#[test]
fn what_is_contested_is_adopted_by_nobody_and_no_move_away_from_it_is_moot() {
    let mut world = World::new(Mode::Enforce);
    let mut lease = world.lease(address(10), "b");
    (lease.state, lease.replaces) = (LeaseState::Reserved, Some(CONTESTED));
    world.engine.handle(Input::MovePending(lease), world.now);
    for at in [2, 3] {
        let name = if at == 2 { "a" } else { "b" };
        world.behind.insert(at, Behind { name, addresses: [CONTESTED].into(), readable: true, answers: true });
        world.engine.handle(
            Input::PortUp(Port { index: port(at), name: name.to_owned(), bridge: rt0(), pvid: None }),
            world.now,
        );
        let survey = world.look(at);
        world.engine.handle(Input::Surveyed { port: port(at), survey }, world.now);
    }
    // The book has not answered yet.
    world.engine.handle(Input::InventoryDone, world.now);
    let actions: Vec<Action> = std::iter::from_fn(|| world.engine.next_action()).collect();
    let changes = |action: &&Action| matches!(action, Action::Adopt { .. } | Action::GiveBack { .. });
    assert_eq!(actions.iter().filter(changes).count(), 0, "{actions:?}");
}

/// Scenario 10.
#[test]
fn of_two_by_the_lease_holders_name_the_older_must_go() {
    let mut world = World::running(Mode::Enforce);
    let lease = world.lease(CONTESTED, "task");
    world.sandbox(2, "task", &[CONTESTED]);
    world.sandbox(3, "task", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    let (owner, generation) = (lease.owner, lease.generation);
    let want = Contest::new(Some(port(3)), Reason::NewerOfOwner { owner, generation });
    assert!(world.duplicates() == 1 && world.incident().contest.as_ref().unwrap().says_the_same(&want));
    assert_eq!((world.held(), world.asked("reallocate")), (vec![Held::Nameless], 0), "a lease would be either's");
}

#[test]
fn of_two_by_the_lease_holders_name_that_were_there_before_the_port_made_later_is_the_newer() {
    let mut world = World::new(Mode::Observe);
    world.lease(CONTESTED, "task");
    world.sandbox(3, "task", &[CONTESTED]);
    world.sandbox(2, "task", &[CONTESTED]);
    world.tell(Input::InventoryDone);
    assert_eq!(world.incident().contest.as_ref().unwrap().winner, Some(port(3)));
}

#[test]
fn a_name_that_is_not_what_both_are_called_settles_nothing() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "unit.service");
    for at in [2, 3] {
        world.sandbox(at, "one-of-many", &[]);
        let owners = vec![format!("own{at}").parse().unwrap(), "unit.service".parse().unwrap()];
        let sandbox = Sandbox { netns: Some(NetnsId { device: 4, inode: at.into() }), name: None, owners };
        let addresses = Some(vec![Configured { tag: None, address: CONTESTED, mac: mac(at) }]);
        let survey =
            Survey { at: world.now, sandbox, macs: [mac(at)].into(), reach: Reach::Netns, forwards: false, addresses };
        world.tell(Input::Surveyed { port: port(at), survey });
        world.says(at, Operation::Reply, CONTESTED, HOST);
    }
    world.says(2, Operation::Reply, CONTESTED, HOST);
    assert_eq!(world.incident().contest.as_ref().unwrap().winner, None);
    assert_eq!(world.asked("reallocate"), 0);
}

/// Scenario 13.
#[test]
fn whoever_is_outside_cannot_be_moved_so_ours_is() {
    let policy = Policy { external: vec!["veth9".parse().unwrap()], ..Policy::default() };
    let mut world = World::running_with(Config { mode: Mode::Enforce, policy, ..Config::default() });
    world.lease(CONTESTED, "ours");
    world.sandbox(2, "ours", &[CONTESTED]);
    world.opaque(9, "uplink", &[CONTESTED]);
    world.says(9, Operation::Reply, CONTESTED, HOST);
    world.pass(Span::from_secs(5));
    let contest = world.incident().contest.as_ref().unwrap();
    assert_eq!((contest.winner, &contest.reason), (Some(port(9)), &Reason::External));
    let outside = world.incident().winner().unwrap();
    assert!(outside.is_external && outside.port_name == "veth9" && outside.station.mac == mac(9));
    assert_eq!((world.at(2), world.incident().status), (vec![address(10)], Status::Healed));
    assert_eq!(world.asked("set_aside"), 1, "and the address is given to nobody here");
}

#[test]
fn a_pin_beats_a_lease() {
    let policy = Policy { pins: [(CONTESTED, "pinned".parse().unwrap())].into(), ..Policy::default() };
    let mut world = World::running_with(Config { mode: Mode::Enforce, policy, ..Config::default() });
    world.lease(CONTESTED, "holder");
    world.sandbox(2, "holder", &[CONTESTED]);
    world.sandbox(3, "pinned", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    assert_eq!((world.at(2), world.at(3)), (vec![address(10)], vec![CONTESTED]));
}

#[test]
fn who_cannot_be_reached_is_not_moved_and_that_is_said() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.opaque(3, "vm", &[CONTESTED]);
    world.says(3, Operation::Reply, CONTESTED, HOST);
    assert_eq!((world.duplicates(), world.held()), (1, vec![Held::OutOfReach]));
    world.sandbox(4, "liar", &[address(4)]);
    world.says(4, Operation::Reply, CONTESTED, HOST);
    assert!(world.held().contains(&Held::OnlyOnTheWire));
    assert_eq!((world.duplicates(), world.asked("readdress")), (1, 0));
}

#[test]
fn who_is_heard_before_it_is_looked_at_is_moved_as_soon_as_it_has_been() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.behind.insert(3, Behind { name: "b", addresses: [CONTESTED].into(), readable: true, answers: true });
    world.port_up(3, None);
    world.announces(3, mac(3), CONTESTED);
    assert_eq!((world.duplicates(), world.held(), world.asked("readdress")), (1, vec![Held::OutOfReach], 0));
    let contained = world.incident().evictions[&port(3)].taken.clone();
    world.survey(3);
    assert_eq!((world.asked("readdress"), world.at(3)), (1, vec![address(10)]), "without waiting for another contest");
    let names: Vec<_> = world.incident().parties.iter().map(Party::label).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((contained.len(), world.asked("contain")), (1, 1), "contained once, and since then");
    assert_eq!(world.incident().evictions[&port(3)].taken[..1], contained);
    world.pass(Span::from_secs(1));
    assert_eq!((world.incident().status, world.duplicates()), (Status::Healed, 1));
}

#[test]
fn a_duplicate_that_ends_by_itself_is_gone_and_not_healed() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.reconfigure(3, &[address(5)]);
    assert_eq!(world.incident().status, Status::Gone);
    world.sandbox(4, "c", &[CONTESTED]);
    world.leave(4);
    assert_eq!((world.duplicates(), world.incident().status), (2, Status::Gone));
}

#[test]
fn a_loser_that_goes_away_while_it_is_moved_ends_the_incident() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("readdress", usize::MAX);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(1));
    assert_eq!(world.incident().status, Status::Open);
    world.leave(3);
    assert_eq!(world.incident().status, Status::Gone);
    assert_eq!((world.asked("give_back"), world.leases.contains_key(&address(10))), (1, false));
    world.pass(Span::from_secs(300));
    assert_eq!(world.engine.open_count(rt0()), 0);
}

#[test]
fn a_loser_that_goes_away_after_it_was_moved_keeps_its_new_lease() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("announce", usize::MAX);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!((world.at(3), world.incident().status), (vec![address(10)], Status::Open));
    world.leave(3);
    assert_eq!((world.asked("bind"), world.asked("give_back")), (1, 0));
    let lease = &world.leases[&address(10)];
    assert_eq!((lease.state, lease.replaces, world.engine.open_count(rt0())), (LeaseState::Bound, None, 0));
}

/// Scenario 34.
#[test]
fn a_lease_that_is_written_when_its_loser_has_gone_is_given_back() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.behind.insert(3, Behind { name: "b", addresses: [CONTESTED].into(), readable: true, answers: true });
    world.port_up(3, None);
    let survey = world.look(3);
    world.engine.handle(Input::Surveyed { port: port(3), survey }, world.now);
    let mut asked = Vec::new();
    while let Some(action) = world.engine.next_action() {
        match action {
            Action::LookUpLeases { id, contested, owners, .. } => {
                let outcome = world.look_up(contested, &owners);
                world.engine.handle(Input::Done { action: id, outcome }, world.now);
            }
            Action::Keep { id, .. } | Action::Contain { id, .. } | Action::Announce { id, .. } => {
                world.engine.handle(Input::Done { action: id, outcome: Outcome::Finished }, world.now);
            }
            Action::Reallocate { .. } => asked.push(action),
            other => world.carry_out(other),
        }
    }
    world.contained.insert(Contained { port: port(3), tag: None, address: CONTESTED });
    world.leave(3);
    assert_eq!((asked.len(), world.incident().status), (1, Status::Gone));
    asked.into_iter().for_each(|action| world.carry_out(action));
    assert_eq!((world.asked("give_back"), world.leases.keys().collect::<Vec<_>>()), (1, vec![&CONTESTED]));
}

#[test]
fn evictions_are_braked() {
    let mut world = World::running(Mode::Enforce);
    let holders = ["h", "i", "j", "k", "l", "m", "n", "o"];
    let newcomers = ["a", "b", "c", "d", "e", "f", "g", "p"];
    for (host, (holder, newcomer)) in (0..8u8).zip(holders.into_iter().zip(newcomers)) {
        let at = u32::from(host) * 2 + 10;
        world.lease(address(100 + host), holder);
        world.sandbox(at, holder, &[address(100 + host)]);
        world.sandbox(at + 1, newcomer, &[address(100 + host)]);
    }
    assert_eq!((world.duplicates(), world.asked("reallocate")), (8, 5));
    assert_eq!(world.count(|finding| matches!(finding, Finding::Held { reason: Held::Brake, .. })), 3);
    world.pass(Span::from_secs(150));
    assert_eq!((world.asked("reallocate"), world.engine.open_count(rt0())), (8, 0), "the rest follow a minute later");
}

#[test]
fn a_silent_opaque_station_is_forgotten_and_a_speaking_one_is_kept() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "gone", &[]);
    world.opaque(3, "there", &[address(7)]);
    world.says(2, Operation::Reply, address(6), HOST);
    world.says(3, Operation::Reply, address(7), HOST);
    world.pass(Span::from_secs(300));
    assert_eq!((world.states(address(6)), world.states(address(7))), (vec![], vec![RowState::Ok]));
}

#[test]
fn a_party_that_changes_its_hardware_address_stays_the_party_it_was() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("look_up", 1);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    let other = Mac([2, 7, 7, 7, 7, 7]);
    let sandbox = world.engine.rows().find(|row| row.station.port == port(2)).unwrap().sandbox;
    let addresses = Some(vec![Configured { tag: None, address: CONTESTED, mac: other }]);
    world.tell(Input::Surveyed {
        port: port(2),
        survey: Survey {
            at: world.now,
            sandbox,
            macs: [other].into(),
            reach: Reach::Netns,
            forwards: false,
            addresses,
        },
    });
    world.pass(Span::from_millis(50));
    let macs: Vec<Mac> = world.incident().parties.iter().map(|party| party.station.mac).collect();
    assert_eq!((world.duplicates(), macs), (1, vec![other, mac(3)]));
    world.pass(Span::from_millis(100));
    assert_eq!(world.asked("readdress"), 1, "and the contest is held all the same");
}

#[test]
fn a_look_that_failed_frees_nothing_and_evicts_nobody() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    let sandbox = Sandbox { netns: Some(NetnsId { device: 4, inode: 2 }), ..Sandbox::default() };
    let survey =
        Survey { at: world.now, sandbox, macs: BTreeSet::new(), reach: Reach::Netns, forwards: false, addresses: None };
    world.tell(Input::Surveyed { port: port(2), survey });
    assert_eq!((world.states(CONTESTED), world.findings.len()), (vec![RowState::Ok], 0));
}

#[test]
fn a_killed_agent_goes_on_with_the_same_lease() {
    let mut world = World::new(Mode::Enforce);
    let mut lease = world.lease(address(10), "b");
    (lease.state, lease.replaces) = (LeaseState::Reserved, Some(CONTESTED));
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    // Killed after the old address was taken and before the new one was verified.
    world.sandbox(3, "b", &[address(10)]);
    world.tell(Input::MovePending(lease));
    world.tell(Input::InventoryDone);
    world.pass(Span::from_secs(1));
    assert_eq!(world.incident().status, Status::Healed);
    assert_eq!((world.asked("reallocate"), world.asked("bind"), world.duplicates()), (0, 1, 0));
}

#[test]
fn a_move_whose_sandbox_is_away_waits() {
    let mut world = World::new(Mode::Enforce);
    let mut lease = world.lease(address(10), "b");
    lease.replaces = Some(CONTESTED);
    world.tell(Input::MovePending(lease.clone()));
    world.tell(Input::InventoryDone);
    assert_eq!(world.findings, [Finding::MoveWaits(lease)]);
}

#[test]
fn an_adoption_that_fails_is_told_once_and_tried_again_while_it_is_due() {
    for (gone, asked) in [(false, 3), (true, 1)] {
        let mut world = World::new(Mode::Enforce);
        world.sandbox(2, "a", &[address(5)]);
        world.break_next("adopt", 2);
        world.tell(Input::InventoryDone);
        assert!(matches!(world.findings[..], [Finding::NotAdopted { .. }]), "{:?}", world.findings);
        if gone {
            world.tell(Input::PortDown { port: port(2) });
        }
        world.pass(Span::from_secs(20));
        assert_eq!((world.asked("adopt"), world.leases.len()), (asked, usize::from(!gone)));
        assert_eq!(world.findings.len(), 1, "{:?}", world.findings);
    }
}

#[test]
fn those_found_alive_are_adopted_in_enforce_alone() {
    for (mode, adopted) in [(Mode::Enforce, 1), (Mode::Observe, 0)] {
        let mut world = World::new(mode);
        world.sandbox(2, "a", &[address(5), Ipv4Addr::new(192, 0, 2, 1)]);
        world.sandbox(3, "b", &[CONTESTED]);
        world.sandbox(4, "c", &[CONTESTED]);
        world.tell(Input::InventoryDone);
        assert_eq!(world.asked("adopt"), adopted);
    }
}

/// Scenario 39.
#[test]
fn without_the_store_a_duplicate_is_named_and_nobody_is_moved_until_it_is_back() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.break_next("look_up", usize::MAX);
    world.sandbox(2, "a", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(300));
    assert_eq!((world.duplicates(), world.asked("reallocate"), world.at(3)), (1, 0, vec![CONTESTED]));
    world.break_next("look_up", 0);
    world.tell(Input::StoreRestored);
    world.pass(Span::from_millis(200));
    assert_eq!((world.incident().status, world.at(2), world.duplicates()), (Status::Healed, vec![CONTESTED], 1));
}

/// Scenario 39, with a disk that can be read.
#[test]
fn a_lease_that_could_not_be_written_is_written_as_soon_as_the_store_is_back() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.break_next("reallocate", usize::MAX);
    world.sandbox(2, "a", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(300));
    assert_eq!(world.at(3), [CONTESTED]);
    world.break_next("reallocate", 0);
    world.tell(Input::StoreRestored);
    world.pass(Span::from_millis(200));
    assert_eq!((world.incident().status, world.at(3)), (Status::Healed, vec![address(10)]));
}

#[test]
fn an_adoption_that_was_given_up_is_due_again_when_the_store_is_back_and_newcomers_are_not_adopted() {
    let mut world = World::new(Mode::Enforce);
    world.sandbox(2, "a", &[address(5)]);
    world.break_next("adopt", usize::MAX);
    world.tell(Input::InventoryDone);
    world.sandbox(3, "late", &[address(6)]);
    world.pass(Span::from_secs(600));
    assert_eq!((world.asked("adopt"), world.leases.len()), (5, 0));
    world.tell(Input::StoreRestored);
    world.break_next("adopt", 0);
    world.tell(Input::StoreRestored);
    world.pass(Span::from_secs(600));
    assert_eq!((world.asked("adopt"), world.leases.keys().copied().collect::<Vec<_>>()), (7, vec![address(5)]));
    assert_eq!(world.findings.len(), 1, "told once: {:?}", world.findings);
    world.tell(Input::StoreRestored);
    assert_eq!(world.asked("adopt"), 7, "nothing is left to do");
}

#[test]
fn a_move_that_the_store_tells_of_late_goes_on() {
    for early in [false, true] {
        let mut world = World::new(Mode::Enforce);
        let mut lease = world.lease(address(10), "b");
        (lease.state, lease.replaces) = (LeaseState::Reserved, Some(CONTESTED));
        world.lease(CONTESTED, "a");
        world.sandbox(2, "a", &[CONTESTED]);
        world.sandbox(3, "b", &[address(10)]);
        let restored = [Input::MovePending(lease), Input::StoreRestored];
        let done = [Input::InventoryDone];
        let inputs = if early { [&restored[..], &done[..]] } else { [&done[..], &restored[..]] };
        inputs.concat().into_iter().for_each(|input| world.tell(input));
        world.pass(Span::from_secs(1));
        assert_eq!(world.incident().status, Status::Healed, "early: {early}");
        assert_eq!((world.asked("reallocate"), world.asked("bind")), (0, 1), "early: {early}");
    }
}

#[test]
fn a_new_address_that_somebody_unknown_has_is_given_to_nobody() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.opaque(9, "vm", &[address(10)]);
    world.sandbox(3, "b", &[CONTESTED]);
    world.pass(Span::from_secs(5));
    assert_eq!((world.at(3), world.incident().status), (vec![address(11)], Status::Healed));
    assert_eq!((world.asked("give_back"), world.asked("readdress"), world.duplicates()), (1, 1, 1));
}

#[test]
fn a_loser_of_two_addresses_is_moved_once_and_then_again() {
    let mut world = World::running(Mode::Enforce);
    for (at, name, host) in [(2, "a", 2), (4, "c", 3)] {
        world.lease(address(host), name);
        world.sandbox(at, name, &[address(host)]);
    }
    world.pass(Span::from_secs(5));
    world.sandbox(3, "b", &[address(2), address(3)]);
    world.pass(Span::from_secs(5));
    assert_eq!((world.at(3), world.engine.open_count(rt0())), (vec![address(10)], 0));
    assert_eq!((world.generation, world.leases[&address(10)].state), (3, LeaseState::Bound));
}

#[test]
fn an_answer_that_comes_when_all_is_done_takes_no_lease_away() {
    let mut world = World::running(Mode::Enforce);
    world.lost.insert("reallocate", 1);
    world.lost_after = true;
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    let unheard: Vec<ActionId> = world.engine.in_flight.keys().copied().collect();
    let given = world.leases[&address(10)].clone();
    world.pass(Span::from_secs(15));
    assert_eq!((world.incident().status, world.at(3)), (Status::Healed, vec![address(10)]));
    unheard.into_iter().for_each(|action| world.tell(Input::Done { action, outcome: Outcome::Lease(given.clone()) }));
    assert_eq!((world.asked("give_back"), world.leases[&address(10)].state), (0, LeaseState::Bound));
}

#[test]
fn a_lease_that_could_not_be_given_back_is_given_back_later() {
    for restored in [false, true] {
        let mut world = World::running(Mode::Enforce);
        world.break_next("readdress", 3);
        world.break_next("give_back", if restored { usize::MAX } else { 2 });
        world.lease(CONTESTED, "a");
        world.sandbox(2, "a", &[CONTESTED]);
        world.sandbox(3, "b", &[CONTESTED]);
        world.leave(2);
        assert!(world.leases.contains_key(&address(10)));
        world.pass(Span::from_secs(120));
        if restored {
            assert!(world.asked("give_back") < 10 && world.leases.contains_key(&address(10)));
            world.break_next("give_back", 0);
            world.tell(Input::StoreRestored);
        }
        assert!(!world.leases.contains_key(&address(10)), "restored: {restored}");
        assert_eq!(world.count(|finding| matches!(finding, Finding::StoreFailed { .. })), 1, "told once");
    }
}

/// A frame that was under way when the address was changed.
#[test]
fn what_the_loser_said_last_is_not_held_against_it() {
    let mut world = World::running(Mode::Enforce);
    world.break_next("announce", 2);
    world.lease(CONTESTED, "a");
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!(world.at(3), [address(10)]);
    world.says(3, Operation::Reply, CONTESTED, HOST);
    world.pass(Span::from_secs(1));
    assert_eq!((world.incident().status, world.asked("contain"), world.contained.len()), (Status::Healed, 1, 0));
}

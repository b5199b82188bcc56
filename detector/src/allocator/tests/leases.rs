//! One lease's way through its states.

use super::*;
use crate::net::Mac;

#[test]
fn an_owner_that_asks_again_gets_the_same_lease() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let lease = store.give("web");
    assert_eq!((lease.address, lease.generation, lease.state), (ip(2), Generation(1), LeaseState::Bound));
    assert_eq!((lease.domain, lease.owner.as_str(), lease.replaces), (rt0(), "web", None));
    assert_eq!(store.give("web"), lease);
    assert_eq!(home.open().give("web"), lease);
    assert_eq!(store.leases(None).unwrap(), [lease]);
}

#[test]
fn what_an_owner_holds_is_its_own_even_if_the_wire_shows_it_in_use() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let lease = store.give("web");
    assert_eq!(store.allocate(&wish(rt0(), &owner("web"), &[lease.address].into())).unwrap(), lease);
}

#[test]
fn fresh_addresses_go_first_and_then_the_longest_rested() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/29");
    let [a, b, c] = ["a", "b", "c"].map(|name| store.give(name));
    assert_eq!([a.address, b.address, c.address], [ip(2), ip(3), ip(4)]);
    for lease in [&b, &a] {
        store.put_to_rest(lease);
        home.time.pass(Span::from_secs(1));
    }
    home.time.pass(COOLDOWN);
    let next = ["d", "e", "f", "g"].map(|name| store.give(name).address);
    assert_eq!(next, [ip(5), ip(6), ip(3), ip(2)], "5 and 6 were never used, 3 has rested longer than 2");
}

#[test]
fn those_that_began_to_rest_at_one_moment_go_in_the_order_they_did() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/29");
    let leases = ["a", "b", "c", "d", "e"].map(|name| store.give(name));
    for at in [3, 0, 4, 2, 1] {
        store.put_to_rest(&leases[at]);
    }
    home.time.pass(COOLDOWN);
    assert_eq!(["v", "w", "x", "y", "z"].map(|name| store.give(name).address), [ip(5), ip(2), ip(6), ip(4), ip(3)]);
}

#[test]
fn an_address_in_use_is_passed_over_and_not_lost() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/29");
    let get = |name, avoid: &[u8]| {
        store
            .allocate(&wish(rt0(), &owner(name), &avoid.iter().map(|&last| ip(last)).collect()))
            .map(|lease| lease.address)
    };
    assert_eq!(get("a", &[2, 3]).unwrap(), ip(4));
    assert_eq!(get("b", &[2]).unwrap(), ip(3));
    assert_eq!(get("c", &[]).unwrap(), ip(2), "it is quiet now");
    assert_eq!(get("d", &[5]).unwrap(), ip(6));
    store.put_to_rest(&store.lease(rt0(), ip(2)).unwrap().unwrap());
    home.time.pass(COOLDOWN);
    let error = get("e", &[2, 5]).unwrap_err();
    assert!(matches!(error, AllocateError::Exhausted { ready_in: None, in_use: 2, .. }), "{error:?}");
    assert_eq!(get("e", &[5]).unwrap(), ip(2));
}

/// Scenario 45.
#[test]
fn a_pool_that_rests_says_when_it_has_rested() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/30");
    let lease = store.give("a");
    let exhausted = || match store.allocate(&wish(rt0(), &owner("b"), &nothing())) {
        Err(AllocateError::Exhausted { ready_in, in_use: 0, .. }) => ready_in,
        other => panic!("{other:?}"),
    };
    assert_eq!(exhausted(), None);
    applied(store.release(&Fence::from(&lease)).unwrap());
    assert_eq!(exhausted(), None, "no one knows when a draining lease is out of use");
    applied(store.retire(&Fence::from(&lease)).unwrap());
    home.time.pass(Span::from_secs(59));
    assert_eq!(exhausted(), Some(Span::from_secs(1)));
    let text = store.allocate(&wish(rt0(), &owner("b"), &nothing())).unwrap_err().to_string();
    assert_eq!(text, "rt0 has no address left: the next one has rested in 1000.0 ms");
    home.time.pass(Span::from_secs(1));
    assert_eq!(store.give("b").generation, Generation(2));
}

#[test]
fn a_domain_without_a_pool_gives_nothing() {
    let home = Home::new();
    let store = home.open();
    let error = store.allocate(&wish(rt0(), &owner("a"), &nothing())).unwrap_err();
    assert!(matches!(error, AllocateError::NoPool(domain) if domain == rt0()), "{error:?}");
    assert!(matches!(store.reallocate(rt0(), &owner("a"), ip(2), &nothing()), Err(AllocateError::NoPool(_))));
    assert!(matches!(store.adopt(rt0(), ip(2), &owner("a"), None), Err(AdoptError::NotInPool { .. })));
}

#[test]
fn equal_addresses_in_two_domains_are_two_leases() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let tagged = Domain { vlan: VlanId::new(12), ..rt0() };
    store.ensure_pool(&pool(tagged, "10.8.64.0/24")).unwrap();
    let one = store.give("web");
    let two = store.allocate(&wish(tagged, &owner("web"), &nothing())).unwrap();
    assert_eq!((one.address, one.generation), (two.address, two.generation));
    applied(store.release(&Fence::from(&two)).unwrap());
    assert_eq!(store.lease(rt0(), ip(2)).unwrap().unwrap(), one);
    assert_eq!(store.leases(Some(rt0())).unwrap(), [one]);
    assert_eq!(store.leases(None).unwrap().iter().map(|lease| lease.domain).collect::<Vec<_>>(), [rt0(), tagged]);
}

/// Scenario 42.
#[test]
fn a_release_that_comes_twice_or_late_changes_nothing() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/30");
    let first = store.give("a");
    let fence = Fence::from(&first);
    let drained = applied(store.release(&fence).unwrap());
    assert_eq!(drained, Lease { state: LeaseState::Draining, ..first.clone() });
    assert_eq!(store.release(&fence).unwrap(), Change::Fenced { current: Some(drained.clone()) });
    assert_eq!(store.bind(&fence).unwrap(), Change::Fenced { current: Some(drained) });

    let rested = applied(store.retire(&fence).unwrap());
    assert_eq!(rested.state, LeaseState::Cooldown);
    assert_eq!(store.retire(&fence).unwrap(), Change::Fenced { current: Some(rested) });

    home.time.pass(COOLDOWN);
    let second = store.give("b");
    assert_eq!(second.address, first.address);
    assert_eq!(store.release(&fence).unwrap(), Change::Fenced { current: Some(second.clone()) });
    assert_eq!(store.retire(&fence).unwrap(), Change::Fenced { current: Some(second.clone()) });
    assert_eq!(store.leases(None).unwrap(), [second]);
    let ops = home.sql("SELECT op, owner, generation, from_state, to_state, actor FROM journal WHERE op <> 'pool'");
    assert_eq!(
        ops[1..],
        [
            "allocate a 1 - bound test",
            "release a 1 bound draining test",
            "release a 1 draining - test",
            "bind a 1 draining - test",
            "retire a 1 draining cooldown test",
            "retire a 1 cooldown - test",
            "allocate b 2 cooldown bound test",
            "release a 1 bound - test",
            "retire a 1 bound - test",
        ]
    );
}

/// Scenario 42.
#[test]
fn the_generation_tells_an_owner_from_its_successor_of_the_same_name() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/30");
    let old = store.give("web");
    store.put_to_rest(&old);
    home.time.pass(COOLDOWN);
    let new = store.give("web");
    assert_eq!((new.address, &new.owner), (old.address, &old.owner));
    assert!(new.generation > old.generation);
    assert_eq!(store.release(&Fence::from(&old)).unwrap(), Change::Fenced { current: Some(new.clone()) });
    assert_eq!(store.give("web"), new);
}

#[test]
fn a_fence_with_nothing_behind_it_is_written_down() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let lease = store.give("a");
    for fence in [
        Fence { address: ip(99), ..Fence::from(&lease) },
        Fence { domain: Domain::untagged("rt7".parse().unwrap()), ..Fence::from(&lease) },
    ] {
        assert_eq!(store.release(&fence).unwrap(), Change::Fenced { current: None });
    }
    let stranger = Fence { owner: owner("b"), ..Fence::from(&lease) };
    assert_eq!(store.release(&stranger).unwrap(), Change::Fenced { current: Some(lease) });
    assert_eq!(
        home.sql("SELECT domain, owner, reason FROM journal WHERE op = 'release'"),
        ["rt0 a there is no lease", "rt7 a there is no lease", "rt0 b the address has another lease"]
    );
}

#[test]
fn a_retired_lease_must_have_been_given_back() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let lease = store.give("a");
    assert_eq!(store.retire(&Fence::from(&lease)).unwrap(), Change::Fenced { current: Some(lease.clone()) });
    assert_eq!(store.give("a"), lease);
}

#[test]
fn a_move_closes_the_old_lease_and_gives_a_new_one() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let old = store.give("review");
    let new = store.reallocate(rt0(), &owner("review"), old.address, &nothing()).unwrap();
    assert_eq!((new.address, new.state, new.replaces), (ip(3), LeaseState::Reserved, Some(ip(2))));
    assert!(new.generation > old.generation);
    assert_eq!(store.lease(rt0(), ip(2)).unwrap(), Some(Lease { state: LeaseState::Draining, ..old }));
    assert_eq!(store.pending_moves().unwrap(), std::slice::from_ref(&new));

    let again = home.open().reallocate(rt0(), &owner("review"), ip(2), &nothing()).unwrap();
    assert_eq!(again, new, "one who resumes after a crash gets the same");
    assert_eq!(store.give("review"), new);

    let bound = applied(store.bind(&Fence::from(&new)).unwrap());
    assert_eq!(bound, Lease { state: LeaseState::Bound, replaces: None, ..new });
    assert_eq!(store.bind(&Fence::from(&bound)).unwrap(), Change::Applied(bound));
    assert_eq!(store.pending_moves().unwrap(), []);
}

#[test]
fn the_loser_of_a_double_claim_moves_without_the_winner_noticing() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let winner = store.give("sports");
    let moved = store.reallocate(rt0(), &owner("review"), winner.address, &[winner.address].into()).unwrap();
    assert_eq!((moved.address, moved.replaces), (ip(3), Some(ip(2))));
    assert_eq!(store.lease(rt0(), ip(2)).unwrap(), Some(winner));
}

#[test]
fn an_owner_that_holds_another_address_is_moved_to_that_one() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let lease = store.give("review");
    let moved = store.reallocate(rt0(), &owner("review"), ip(9), &nothing()).unwrap();
    assert_eq!(moved, Lease { state: LeaseState::Reserved, replaces: Some(ip(9)), ..lease });
    assert_eq!(store.pending_moves().unwrap(), std::slice::from_ref(&moved));
    assert_eq!(store.leases(None).unwrap(), [moved]);
}

#[test]
fn nobody_is_moved_to_where_others_are_though_it_holds_the_lease() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let lease = store.give("review");
    let error = store.reallocate(rt0(), &owner("review"), ip(9), &[lease.address].into()).unwrap_err();
    assert!(matches!(&error, AllocateError::HoldsUseless(held) if **held == lease), "{error}");
    assert_eq!(store.leases(None).unwrap(), [lease]);
}

#[test]
fn a_move_stays_within_the_network() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    store.ensure_pool(&pool(rt0(), "10.9.0.0/24")).unwrap();
    let contested = Ipv4Addr::new(10, 9, 0, 5);
    let moved = store.reallocate(rt0(), &owner("a"), contested, &nothing()).unwrap();
    assert_eq!(moved.address.octets()[..3], [10, 9, 0]);
    assert_eq!(store.give("b").address, ip(2), "who is not moved gets the lowest there is");
    let error = store.reallocate(rt0(), &owner("b"), contested, &nothing()).unwrap_err();
    assert!(matches!(error, AllocateError::HoldsUseless(_)), "{error}");
    let nowhere = store.reallocate(rt0(), &owner("c"), [192, 0, 2, 1].into(), &nothing()).unwrap_err();
    assert!(matches!(nowhere, AllocateError::NoPool(_)), "{nowhere}");
}

#[test]
fn the_contested_address_is_not_the_way_out() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/29");
    let moved = store.reallocate(rt0(), &owner("stray"), ip(2), &nothing()).unwrap();
    assert_eq!(moved.address, ip(3), "2 is free, but it is what the owner has to leave");
}

#[test]
fn a_move_for_which_there_is_no_address_leaves_the_lease_as_it_was() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/30");
    let lease = store.give("a");
    let error = store.reallocate(rt0(), &owner("a"), lease.address, &nothing()).unwrap_err();
    assert!(matches!(error, AllocateError::Exhausted { .. }), "{error:?}");
    assert_eq!(store.leases(None).unwrap(), [lease]);
    assert_eq!(home.sql("SELECT count(*) FROM journal WHERE op = 'reallocate'"), ["0"]);
}

#[test]
fn a_reservation_can_be_given_back() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let new = store.reallocate(rt0(), &owner("a"), ip(2), &nothing()).unwrap();
    let drained = applied(store.release(&Fence::from(&new)).unwrap());
    assert_eq!((drained.state, drained.replaces), (LeaseState::Draining, None));
    assert_eq!(store.pending_moves().unwrap(), []);
    assert_eq!(store.give("a").address, ip(2));
}

#[test]
fn what_is_alive_and_not_in_the_book_is_adopted() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let lease = store.adopt(rt0(), ip(7), &owner("old"), None).unwrap();
    assert_eq!((lease.address, lease.generation, lease.state), (ip(7), Generation(1), LeaseState::Bound));
    assert_eq!(store.adopt(rt0(), ip(7), &owner("old"), None).unwrap(), lease);
    assert_eq!(store.give("old"), lease);
    let others: Vec<_> = (0..6).map(|n| store.give(&format!("n{n}")).address).collect();
    assert_eq!(others, [ip(2), ip(3), ip(4), ip(5), ip(6), ip(8)]);

    store.put_to_rest(&lease);
    let again = store.adopt(rt0(), ip(7), &owner("other"), None).unwrap();
    assert_eq!((again.generation, again.owner.as_str()), (Generation(8), "other"), "it rested, but was found alive");
}

#[test]
fn what_differs_from_the_book_is_not_adopted() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let (a, b) = (store.give("a"), store.give("b"));
    let refused = |address, name| match store.adopt(rt0(), address, &owner(name), None).unwrap_err() {
        AdoptError::Leased(lease) => ("leased", Some(*lease)),
        AdoptError::HoldsAnother(lease) => ("holds another", Some(*lease)),
        AdoptError::NotInPool { .. } => ("not in pool", None),
        AdoptError::Store(error) => panic!("{error}"),
    };
    assert_eq!(refused(a.address, "c"), ("leased", Some(a.clone())));
    assert_eq!(refused(a.address, "b"), ("holds another", Some(b.clone())));
    assert_eq!(refused(ip(77), "b"), ("holds another", Some(b.clone())));
    for address in [ip(0), ip(1), ip(255), Ipv4Addr::new(10, 8, 65, 7)] {
        assert_eq!(refused(address, "c"), ("not in pool", None), "{address}");
    }
    let draining = applied(store.release(&Fence::from(&a)).unwrap());
    assert_eq!(refused(a.address, "c"), ("leased", Some(draining.clone())));
    assert_eq!(refused(a.address, "a"), ("leased", Some(draining.clone())));
    assert_eq!(
        store.adopt(rt0(), ip(2), &owner("c"), None).unwrap_err().to_string(),
        "10.8.64.2 cannot be adopted: a (generation 1) gave it back, but may still use it"
    );
    assert_eq!(store.leases(None).unwrap(), [draining, b]);
}

#[test]
fn a_reboot_begins_every_cooldown_anew_and_once() {
    let home = Home::new();
    home.time.set(Span::from_secs(1_000_000));
    let store = home.with_pool("10.8.64.0/30");
    store.put_to_rest(&store.give("a"));
    home.time.pass(Span::from_secs(59));
    let ready_in = |store: &SqliteStore| match store.allocate(&wish(rt0(), &owner("b"), &nothing())) {
        Err(AllocateError::Exhausted { ready_in, .. }) => ready_in,
        other => panic!("{other:?}"),
    };
    assert_eq!(ready_in(&store), Some(Span::from_secs(1)));
    drop(store);

    home.time.set(Span::from_secs(5));
    assert_eq!(ready_in(&home.open_in("boot-2")), Some(COOLDOWN));
    home.time.pass(Span::from_secs(20));
    assert_eq!(ready_in(&home.open_in("boot-2")), Some(Span::from_secs(40)), "the same boot goes on counting");
    home.time.pass(Span::from_secs(40));
    assert_eq!(home.open_in("boot-2").give("b").address, ip(2));
}

#[test]
fn a_cooldown_that_has_begun_is_not_cut_short() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/30");
    store.put_to_rest(&store.give("a"));
    let short = Pool { cooldown: Span::from_secs(1), ..pool(rt0(), "10.8.64.0/30") };
    store.ensure_pool(&short).unwrap();
    home.time.pass(Span::from_secs(2));
    let early = home.open_in("boot-2").allocate(&wish(rt0(), &owner("b"), &nothing()));
    assert!(matches!(early, Err(AllocateError::Exhausted { ready_in: Some(COOLDOWN), .. })), "{early:?}");
}

#[test]
fn an_endless_cooldown_is_a_very_long_one() {
    let home = Home::new();
    let store = home.open();
    let forever = Pool { cooldown: Span::from_secs(u64::MAX), ..pool(rt0(), "10.8.64.0/30") };
    store.ensure_pool(&forever).unwrap();
    home.time.set(Span::from_secs(1_000_000_000));
    store.put_to_rest(&store.give("a"));
    home.time.pass(Span::from_secs(1_000_000_000));
    assert!(matches!(
        home.open_in("boot-2").allocate(&wish(rt0(), &owner("b"), &nothing())),
        Err(AllocateError::Exhausted { ready_in: Some(_), .. })
    ));
}

/// Scenario 51: whoever reserved it and died may have handed it on already.
#[test]
fn a_reservation_that_nobody_confirmed_drains_and_is_not_free_at_once() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/30");
    let reserved = store.reserve(&Wish::new(rt0(), owner("a")), Span::from_secs(30)).unwrap();
    drop(store);
    let store = home.open();
    home.time.pass(Span::from_secs(29));
    assert_eq!(store.draining().unwrap(), []);
    home.time.pass(Span::from_secs(1));
    let drained = Lease { state: LeaseState::Draining, ..reserved.clone() };
    assert_eq!(store.draining().unwrap(), std::slice::from_ref(&drained));
    assert_eq!(store.bind(&Fence::from(&reserved)).unwrap(), Change::Fenced { current: Some(drained) });
    for name in ["a", "b"] {
        let none = store.allocate(&Wish::new(rt0(), owner(name)));
        assert!(matches!(none, Err(AllocateError::Exhausted { ready_in: None, .. })), "{none:?}");
    }
}

#[test]
fn a_quarantine_frees_nothing_that_drains_and_cuts_no_rest_short() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/30");
    let lease = store.give("a");
    let brief = Quarantine { mac: Mac([2; 6]), reason: "answered".to_owned(), lasts: Span::from_secs(1) };
    let drained = applied(store.release(&Fence::from(&lease)).unwrap());
    let fenced = store.quarantine(&Fence::from(&lease), &brief).unwrap();
    assert_eq!(fenced, Change::Fenced { current: Some(drained) });
    applied(store.retire(&Fence::from(&lease)).unwrap());
    applied(store.quarantine(&Fence::from(&lease), &brief).unwrap());
    assert_eq!(store.standings(None).unwrap()[0].left, Some(COOLDOWN));
}

#[test]
fn an_owner_of_two_interfaces_is_not_moved_to_the_address_of_the_other_one() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/29");
    let of = |name: &str| Wish { interface: Some(name.parse().unwrap()), ..Wish::new(rt0(), owner("a")) };
    let [first, second] = ["eth0", "eth1"].map(|name| store.allocate(&of(name)).unwrap());
    let moved = store.reallocate(rt0(), &owner("a"), second.address, &nothing()).unwrap();
    assert_eq!((moved.address, moved.interface), (ip(4), second.interface));
    assert_eq!(store.reallocate(rt0(), &owner("a"), second.address, &nothing()).unwrap(), moved);
    assert_eq!(store.lease(rt0(), first.address).unwrap(), Some(first));
}

#[test]
fn a_reservation_that_is_found_alive_does_not_run_out() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/29");
    let reserved = store.reserve(&Wish::new(rt0(), owner("a")), Span::from_secs(30)).unwrap();
    let adopted = store.adopt(rt0(), reserved.address, &owner("a"), None).unwrap();
    assert_eq!(adopted, Lease { state: LeaseState::Bound, ..reserved });
    home.time.pass(Span::from_secs(31));
    assert_eq!(store.draining().unwrap(), []);
}

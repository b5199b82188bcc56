//! What there is to give.

use super::*;

fn with_gateway(subnet: &str, gateway: u8) -> Pool {
    Pool::new(rt0(), subnet.parse().unwrap(), Some(ip(gateway)), COOLDOWN).unwrap()
}

/// Scenario 53: network, broadcast and gateway are not among them. Subnets with host bits are tried in `pool.rs`.
#[test]
fn a_pool_gives_each_of_its_addresses_once() {
    let home = Home::new();
    let store = home.open();
    store.ensure_pool(&with_gateway("10.8.64.0/28", 9)).unwrap();
    let given: Vec<_> = (0..13).map(|n| store.give(&format!("n{n}")).address).collect();
    assert_eq!(given, (1..15).filter(|&last| last != 9).map(ip).collect::<Vec<_>>());
    assert!(matches!(store.allocate(&wish(rt0(), &owner("x"), &nothing())), Err(AllocateError::Exhausted { .. })));
}

#[test]
fn a_pool_that_is_there_stays_as_it_is() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    let lease = store.give("a");
    let entries = home.sql("SELECT count(*) FROM journal");
    home.open().ensure_pool(&pool(rt0(), "10.8.64.0/24")).unwrap();
    assert_eq!(home.sql("SELECT count(*) FROM journal"), entries);
    assert_eq!((store.give("a"), store.give("b").address), (lease, ip(3)));
}

/// Scenario 53.
#[test]
fn pools_of_one_domain_do_not_overlap() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/24");
    for subnet in ["10.8.64.128/25", "10.8.0.0/16", "10.8.64.0/25"] {
        let error = store.ensure_pool(&pool(rt0(), subnet)).unwrap_err();
        assert!(matches!(error, PoolError::Overlap { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("pool {subnet} overlaps 10.8.64.0/24, which rt0 has already: give it a subnet of its own")
        );
    }
    store.ensure_pool(&pool(rt0(), "10.8.65.0/24")).unwrap();
    store.ensure_pool(&pool(Domain::untagged("rt1".parse().unwrap()), "10.8.0.0/16")).unwrap();
    assert_eq!(home.sql("SELECT domain, prefix FROM pool"), ["rt0 24", "rt0 24", "rt1 16"]);
}

#[test]
fn a_second_pool_takes_over_when_the_first_is_full() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/30");
    store.ensure_pool(&pool(rt0(), "10.8.64.8/30")).unwrap();
    assert_eq!(["a", "b"].map(|name| store.give(name).address), [ip(2), ip(10)]);
}

#[test]
fn another_gateway_is_taken_from_the_pool_and_the_old_one_put_into_it() {
    let home = Home::new();
    let store = home.with_pool("10.8.64.0/29");
    let lease = store.give("a");
    let error = store.ensure_pool(&with_gateway("10.8.64.0/29", 2)).unwrap_err();
    assert_eq!(error.to_string(), "10.8.64.2 cannot be taken out of the pool: a holds it (generation 1, bound)");
    let rested = store.give("b");
    store.put_to_rest(&rested);
    home.time.pass(COOLDOWN);
    store.ensure_pool(&with_gateway("10.8.64.0/29", 3)).unwrap();
    assert_eq!(["c", "d", "e"].map(|name| store.give(name).address), [ip(1), ip(4), ip(5)]);
    store.ensure_pool(&with_gateway("10.8.64.0/29", 6)).unwrap();
    assert_eq!((store.give("f").address, store.give("a")), (ip(3), lease));
    assert!(matches!(store.allocate(&wish(rt0(), &owner("g"), &nothing())), Err(AllocateError::Exhausted { .. })));
}

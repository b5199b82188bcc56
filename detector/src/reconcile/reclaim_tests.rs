use std::{
    cell::Cell,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tempfile::TempDir;

use super::*;
use crate::{
    allocator::{Clock, Pool, SqliteStore, Wish},
    net::{Domain, LeaseState, Mac, Owner},
    reconcile::{Evidence, LookError, Observation, Reach, Report, Sense, Sighting},
    time::Timestamp,
};

struct Lab {
    _directory: TempDir,
    store: SqliteStore,
    seconds: Arc<AtomicU64>,
}

/// Does something at each look, and sees what that gives.
struct Scripted<F>(F, Cell<u32>);

impl<F: Fn(u32) -> Vec<Sighting>> Look for Scripted<F> {
    fn look(&self, _asked: &Addresses) -> Result<Evidence, LookError> {
        let sightings = self.0(self.1.get());
        self.1.set(self.1.get() + 1);
        Ok(Evidence { sightings, gaps: Vec::new() })
    }
}

fn scripted<F: Fn(u32) -> Vec<Sighting>>(script: F) -> Scripted<F> {
    Scripted(script, Cell::new(0))
}

fn domain() -> Domain {
    Domain::untagged("rt0".parse().unwrap())
}

fn owner(name: &str) -> Owner {
    name.parse().unwrap()
}

fn lab() -> Lab {
    let (directory, seconds) = (TempDir::new().unwrap(), Arc::new(AtomicU64::new(1000)));
    let now = Arc::clone(&seconds);
    let now = move || Timestamp::from_nanos(now.load(Ordering::Relaxed) * 1_000_000_000);
    let path = directory.path().join("leases.db");
    let store = SqliteStore::open(&path, "test", Clock::new("boot", now)).unwrap();
    let subnet = "10.8.64.0/24".parse().unwrap();
    store.ensure_pool(&Pool::new(domain(), subnet, None, Span::from_secs(60)).unwrap()).unwrap();
    Lab { _directory: directory, store, seconds }
}

fn used(address: Ipv4Addr) -> Vec<Sighting> {
    vec![Sighting {
        reach: Reach::Domain(domain()),
        address,
        by: Sense::Answered,
        mac: Mac([2, 0, 0, 0, 0, 9]),
        netns: None,
        host: false,
        name: None,
        owners: Vec::new(),
        port: None,
    }]
}

fn nobody(_look: u32) -> Vec<Sighting> {
    Vec::new()
}

fn observed(lab: &Lab, look: &dyn Look) -> Observation {
    Observation::take(&lab.store, look).unwrap()
}

fn report(lab: &Lab, look: &dyn Look) -> Vec<Row> {
    let (first, second) = (observed(lab, look), observed(lab, look));
    Report::of([&first, &second], "leases.db".as_ref(), Span::ZERO).unwrap().rows
}

fn reclaimed(lab: &Lab, look: &dyn Look, rows: &[Row]) -> Vec<Deed> {
    let outcomes = reclaim(&lab.store, look, rows, Span::ZERO, false, drop).unwrap();
    outcomes.into_iter().map(|outcome| outcome.deed).collect()
}

fn state(lab: &Lab, address: Ipv4Addr) -> LeaseState {
    lab.store.lease(domain(), address).unwrap().unwrap().state
}

#[test]
fn a_reservation_whose_maker_died_is_taken_back_when_its_time_is_over_and_rests() {
    let lab = lab();
    let lease = lab.store.reserve(&Wish::new(domain(), owner("a")), Span::from_secs(30)).unwrap();
    let early = report(&lab, &scripted(nobody));
    assert_eq!(early.iter().filter(|row| row.reclaimable).count(), 0, "{early:?}");
    lab.seconds.fetch_add(31, Ordering::Relaxed);
    let rows = report(&lab, &scripted(nobody));
    assert!(rows.len() == 1 && rows[0].reclaimable, "{rows:?}");
    assert_eq!(reclaimed(&lab, &scripted(nobody), &rows), [Deed::Reclaimed]);
    assert_eq!(state(&lab, lease.address), LeaseState::Cooldown);
}

#[test]
fn a_lease_that_is_given_while_users_are_listed_is_not_one_that_nobody_uses() {
    let lab = lab();
    let look = scripted(|_| {
        lab.store.allocate(&Wish::new(domain(), owner("a"))).unwrap();
        Vec::new()
    });
    assert_eq!(observed(&lab, &look).standings, []);
}

#[test]
fn what_only_one_of_the_two_looks_proves_is_not_reclaimable() {
    let lab = lab();
    let lease = lab.store.allocate(&Wish::new(domain(), owner("a"))).unwrap();
    for used_at in [0, 1] {
        let look = scripted(|look| if look == used_at { used(lease.address) } else { Vec::new() });
        let rows = report(&lab, &look);
        assert_eq!(rows.iter().filter(|row| row.reclaimable).count(), 0, "{rows:?}");
    }
    let both = report(&lab, &scripted(nobody));
    let given_between = scripted(|look| {
        if look == 0 {
            lab.store.allocate(&Wish::new(domain(), owner("b"))).unwrap();
        }
        Vec::new()
    });
    let rows = report(&lab, &given_between);
    assert_eq!((both.len(), rows.len()), (1, 2));
    assert_eq!(rows.iter().map(|row| row.reclaimable).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_lease_drains_if_its_owner_shows_right_after_it_was_given_back() {
    let lab = lab();
    let lease = lab.store.allocate(&Wish::new(domain(), owner("a"))).unwrap();
    let rows = report(&lab, &scripted(nobody));
    let late = scripted(|look| if look == 0 { Vec::new() } else { used(lease.address) });
    assert_eq!(reclaimed(&lab, &late, &rows), [Deed::Drains]);
    assert_eq!(state(&lab, lease.address), LeaseState::Draining);
    assert_eq!(reclaimed(&lab, &scripted(nobody), &rows), [Deed::LeftAlone], "the report says bound");
    let again = report(&lab, &scripted(nobody));
    assert_eq!(reclaimed(&lab, &scripted(nobody), &again), [Deed::Reclaimed]);
    assert_eq!(state(&lab, lease.address), LeaseState::Cooldown);
}

#[test]
fn a_lease_that_changes_hands_at_the_very_last_moment_survives() {
    let lab = lab();
    let lease = lab.store.allocate(&Wish::new(domain(), owner("a"))).unwrap();
    let rows = report(&lab, &scripted(nobody));
    let taken = scripted(|_| {
        lab.store.discard(&Fence::from(&lease)).unwrap();
        lab.store.adopt(domain(), lease.address, &owner("b"), None).unwrap();
        Vec::new()
    });
    assert_eq!(reclaimed(&lab, &taken, &rows), [Deed::LeftAlone]);
    let now = lab.store.lease(domain(), lease.address).unwrap().unwrap();
    assert_eq!((now.owner, now.state), (owner("b"), LeaseState::Bound));
}

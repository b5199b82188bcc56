use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::{
    allocator::Pool,
    net::Mac,
    reconcile::{Gap, Reach, Sense, Sighting},
};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);
const OLD: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 3);
const HOUR: Span = Span::from_secs(3600);

fn domain() -> Domain {
    Domain::untagged("rt0".parse().unwrap())
}

fn standing(state: LeaseState) -> Standing {
    let (owner, generation) = ("a".parse().unwrap(), Generation(7));
    let lease = Lease { domain: domain(), address: ADDRESS, owner, interface: None, generation, state, replaces: None };
    Standing { lease, since: HOUR, left: None, quarantine: None }
}

fn sighting(name: &str, by: Sense) -> Sighting {
    let netns = Some(u64::from(name.as_bytes()[0]));
    Sighting {
        reach: Reach::Bridge(domain().bridge),
        address: ADDRESS,
        by,
        mac: Mac([2, 0, 0, 0, 0, name.as_bytes()[0]]),
        netns,
        host: false,
        name: Some(name.to_owned()),
        owners: vec![name.parse().unwrap()],
        port: Some(format!("veth-{name}")),
    }
}

fn seen(standings: Vec<Standing>, sightings: Vec<Sighting>) -> Observation {
    let pool = Pool::new(domain(), "10.8.64.0/24".parse().unwrap(), Some([10, 8, 64, 1].into()), HOUR).unwrap();
    let evidence = Evidence { sightings, gaps: Vec::new() };
    Observation { taken: SystemTime::UNIX_EPOCH, standings, pools: vec![pool], evidence }
}

fn found(seen: &Observation) -> Vec<(Kind, bool)> {
    compare(seen, Span::from_secs(60)).into_iter().map(|row| (row.kind, row.reclaimable)).collect()
}

#[test]
fn what_fits_is_not_listed() {
    let own = sighting("a", Sense::Configured);
    assert_eq!(found(&seen(vec![standing(LeaseState::Bound)], vec![own.clone()])), []);
    let nameless = Sighting { owners: Vec::new(), name: None, ..own.clone() };
    assert_eq!(found(&seen(vec![standing(LeaseState::Bound)], vec![nameless])), []);
    let unplugged = Sighting { reach: Reach::Anywhere, port: None, ..own };
    assert_eq!(found(&seen(vec![standing(LeaseState::Bound)], vec![unplugged])), []);
    let gateway = Sighting { address: [10, 8, 64, 1].into(), host: true, ..sighting("h", Sense::Configured) };
    assert_eq!(found(&seen(Vec::new(), vec![gateway])), []);
}

#[test]
fn each_thing_that_does_not_fit_has_its_word() {
    let by = |name| vec![sighting(name, Sense::Configured)];
    let bound = || vec![standing(LeaseState::Bound)];
    assert_eq!(found(&seen(bound(), Vec::new())), [(Kind::LeaseWithoutUser, true)]);
    assert_eq!(found(&seen(bound(), by("b"))), [(Kind::UsedByAnother, false)]);
    assert_eq!(found(&seen(Vec::new(), by("b"))), [(Kind::InUseWithoutLease, false)]);
    assert_eq!(found(&seen(bound(), [by("a"), by("b")].concat())), [(Kind::SeveralOwners, false); 2]);
    assert_eq!(found(&seen(vec![standing(LeaseState::Cooldown)], by("b"))), [(Kind::InUseWithoutLease, false)]);
    let draining = || vec![standing(LeaseState::Draining)];
    assert_eq!(found(&seen(draining(), Vec::new())), [(Kind::Draining, true)]);
    assert_eq!(found(&seen(draining(), by("a"))), [(Kind::Draining, false)]);
    assert_eq!(found(&seen(vec![standing(LeaseState::Cooldown)], Vec::new())), []);
}

#[test]
fn a_reservation_is_stale_when_its_time_is_over_or_its_sandbox_gone() {
    let reserved = |left| vec![Standing { left, ..standing(LeaseState::Reserved) }];
    assert_eq!(found(&seen(reserved(Some(Span::ZERO)), Vec::new())), [(Kind::StaleReservation, true)]);
    assert_eq!(found(&seen(reserved(Some(HOUR)), Vec::new())), [(Kind::LeaseWithoutUser, false)]);
    let mut moved = standing(LeaseState::Reserved);
    moved.lease.replaces = Some(OLD);
    let at_old = |name| vec![Sighting { address: OLD, ..sighting(name, Sense::Configured) }];
    assert_eq!(found(&seen(vec![moved.clone()], Vec::new())), [(Kind::StaleReservation, true)]);
    let kinds = |sightings| found(&seen(vec![moved.clone()], sightings));
    assert_eq!(kinds(at_old("a")), [(Kind::InUseWithoutLease, false)], "it is still to be moved");
    let winner_stays = [(Kind::StaleReservation, true), (Kind::InUseWithoutLease, false)];
    assert_eq!(kinds(at_old("b")), winner_stays);
}

#[test]
fn all_that_is_seen_of_a_sandbox_is_one_user_and_twins_are_two() {
    let told = Sighting { netns: None, name: None, owners: Vec::new(), ..sighting("a", Sense::LiveTable) };
    let answered = Sighting { port: None, by: Sense::Answered, ..told.clone() };
    let own = sighting("a", Sense::Configured);
    let evidence = |sightings| Evidence { sightings, gaps: Vec::new() };
    let one = evidence(vec![answered.clone(), told, own.clone()]).users_of(domain(), ADDRESS);
    assert_eq!((one.len(), one[0].evidence.len(), one[0].called()), (1, 3, "a".to_owned()));
    let twin = Sighting { mac: own.mac, ..sighting("b", Sense::Configured) };
    assert_eq!(evidence(vec![own, twin, answered]).users_of(domain(), ADDRESS).len(), 2);
}

#[test]
fn a_lease_is_not_taken_back_in_the_wrong_vlan() {
    let mut tagged = standing(LeaseState::Bound);
    tagged.lease.domain.vlan = VlanId::new(7);
    let at_port = seen(vec![tagged.clone()], vec![sighting("a", Sense::Configured)]);
    assert_eq!(compare(&at_port, HOUR).iter().filter(|row| row.reclaimable).count(), 0);
    let untagged = Sighting { reach: Reach::Domain(domain()), ..sighting("b", Sense::Answered) };
    let elsewhere = compare(&seen(vec![tagged], vec![untagged]), HOUR);
    assert!(elsewhere.iter().any(|row| row.vlan == Some(7) && row.reclaimable), "{elsewhere:?}");
}

fn any_state() -> impl Strategy<Value = LeaseState> {
    prop::sample::select(LeaseState::ALL.to_vec())
}

fn any_reach() -> impl Strategy<Value = Reach> {
    let other: Domain = Domain::untagged("rt1".parse().unwrap());
    let all = [Reach::Anywhere, Reach::Bridge(domain().bridge), Reach::Domain(domain()), Reach::Domain(other)];
    prop::sample::select(all.to_vec())
}

fn any_sighting() -> impl Strategy<Value = Sighting> {
    let senses = [Sense::Configured, Sense::LiveTable, Sense::Answered, Sense::Neighbour];
    let names = prop::sample::select(vec!["a", "b", "c"]);
    (names, prop::sample::select(senses.to_vec()), any_reach(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(name, by, reach, here, known, host)| {
            let seen = sighting(name, by);
            let address = if here { ADDRESS } else { OLD };
            let netns = seen.netns.filter(|_| known);
            Sighting { reach, address, host, netns, ..seen }
        },
    )
}

proptest! {
    #[test]
    fn nothing_is_reclaimable_that_anything_shows_in_use_or_that_was_not_looked_at(
        state in any_state(),
        sightings in prop::collection::vec(any_sighting(), 0..5),
        gap in prop::option::of(any_reach()),
        replaces in prop::option::of(Just(OLD)),
        left in prop::option::of(0..3_u64),
        since in 0..120_u64,
    ) {
        let mut standing = standing(state);
        standing.lease.replaces = replaces;
        standing.left = left.map(Span::from_secs);
        standing.since = Span::from_secs(since);
        let mut seen = seen(vec![standing], sightings);
        seen.evidence.gaps.extend(gap.map(|reach| Gap { reach, what: "something".to_owned() }));
        let shown = seen.evidence.of(domain(), ADDRESS).next().is_some();
        let blind = seen.evidence.gaps_in(domain()).next().is_some();
        for row in compare(&seen, Span::from_secs(60)).iter().filter(|row| row.reclaimable) {
            prop_assert!(!shown && !blind && since >= 60, "{row:?}");
            prop_assert!(matches!(state, LeaseState::Reserved | LeaseState::Bound | LeaseState::Draining));
            prop_assert!(row.user.is_none() && row.fence().is_some());
        }
    }
}

//! What is said of a contest, whatever its reason.

use super::*;
use crate::engine::{Contest, Holding, Reason};

/// What is said if `winner` keeps the address from the rest of sandboxes `a` (at port 2), `b` and the uplink.
fn said(winner: Option<u32>, reason: Reason, losers: &[(u32, Option<(Ipv4Addr, u64)>)]) -> String {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.pass(Span::from_secs(1));
    world.sandbox(3, "b", &[CONTESTED]);
    let mut incident = world.incident().clone();
    incident.parties[1].is_external = winner == Some(3);
    let lease = |(address, generation)| (address, Generation(generation));
    let losers = losers.iter().map(|(at, held)| Holding { port: port(*at), lease: held.map(lease) }).collect();
    incident.contest = Some(Contest { winner: winner.map(port), reason, losers });
    incident.decision().unwrap()
}

#[test]
fn every_reason_makes_a_sentence() {
    let owner = || "a".parse().unwrap();
    let generation = Generation(17);
    let holder = || Reason::LeaseHolder { owner: owner(), generation };
    let ahead = Span::from_secs(90);
    for (winner, reason, losers, want) in [
        (Some(2), Reason::HostAddress, &[][..], "a keeps 10.8.64.2: it is the host's own address"),
        (
            Some(3),
            Reason::External,
            &[],
            "whoever is beyond veth3 keeps 10.8.64.2: it is outside, where nobody can be moved",
        ),
        (
            Some(2),
            Reason::Pinned { owner: owner() },
            &[(3, None)],
            "a keeps 10.8.64.2: an operator has pinned the address to a",
        ),
        (Some(2), holder(), &[(3, None)], "a keeps 10.8.64.2: holds lease generation 17; b has none"),
        (
            Some(2),
            holder(),
            &[(3, Some((CONTESTED, 4)))],
            "a keeps 10.8.64.2: holds lease generation 17; b had lease generation 4 of it",
        ),
        (
            Some(2),
            holder(),
            &[(3, Some((Ipv4Addr::new(10, 8, 64, 9), 4))), (77, None)],
            "a keeps 10.8.64.2: holds lease generation 17; b holds lease generation 4 on 10.8.64.9; port 77 has none",
        ),
        (
            Some(2),
            Reason::NewerOfOwner { owner: owner(), generation },
            &[],
            "a keeps 10.8.64.2: more than one goes by the name a, which holds lease generation 17, and it came last",
        ),
        (
            Some(2),
            Reason::Incumbent { ahead },
            &[],
            "a keeps 10.8.64.2: was there 90 s before anybody else, and none of them holds a lease",
        ),
        (
            None,
            Reason::NoClearOwner,
            &[],
            "nobody is known to have a right to 10.8.64.2: none of them holds a lease, and it is not known who was first",
        ),
        (
            None,
            Reason::SharedOwner { owner: owner() },
            &[],
            "nobody is known to have a right to 10.8.64.2: it is a's, and more than one sandbox goes by that name",
        ),
    ] {
        assert_eq!(said(winner, reason, losers), want);
    }
}

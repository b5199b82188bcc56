//! The engine and the real allocator in a model of the network, with everything that may go wrong: claims, leases, failures,
//! late answers, and agents that are killed at any point and begun anew.
//!
//! What must hold of each action is asked when the engine wants it, and what must hold in the end when nothing fails any
//! more and time has passed: see `rules`. The same lives are lived each time, so that a change is to blame for a failure;
//! `DUPIP_HEALING_CASES` lives so many others.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test needs and does not get fails the test"
)]

mod acts;
mod deeds;
mod names;
mod rules;
mod trace;
mod world;

use std::env;

use proptest::{prelude::*, test_runner::RngSeed};

use acts::{acts, fates};
use world::World;

/// As many as take half a minute without optimisation.
const CASES: u32 = 256;

/// How many lives, and which.
fn lives() -> (u32, RngSeed) {
    let name = "DUPIP_HEALING_CASES";
    let Ok(text) = env::var(name) else { return (CASES, RngSeed::Fixed(1238)) };
    (text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")), RngSeed::Random)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: lives().0,
        rng_seed: lives().1,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_fails_no_winner_is_touched_and_in_the_end_each_address_has_one_owner(
        acts in acts(),
        fates in fates(),
    ) {
        let mut world = World::new(fates);
        for (act, pause) in acts {
            world.act(act);
            world.pass(pause);
        }
        world.calm_down();
        world.check_rest();
    }
}

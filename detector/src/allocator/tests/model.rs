//! Random acts, against a model that is too simple to be wrong, with processes that die at every boundary of a commit.
//!
//! The acts are grown from a seed. `DUPIP_MODEL_SEED` names another, `DUPIP_MODEL_OPS` says how many; a failure prints
//! both as they bring it back, and the few acts that are enough for it.

mod book;
mod call;
mod pair;
mod rules;

use std::{
    env,
    str::FromStr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use book::Answer;
use call::{Act, act};
use pair::Pair;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

/// The acts that are done to one book; then another is begun, with the next seed. More would only make its journal long.
const LIFE: usize = 2_000;

/// After so many acts it is told how far it has come.
const PART: usize = 100_000;

/// How many acts there are if nobody says: as many as take some 15 seconds without optimisation.
const ACTS: usize = 10_000;

/// How often which kind of answer was given, and how often a process died before it could commit.
#[derive(Debug, Default)]
struct Tally {
    leases: AtomicU64,
    fenced: AtomicU64,
    refused: AtomicU64,
    exhausted: AtomicU64,
    undone: AtomicU64,
}

impl Tally {
    fn count(&self, answer: Option<&Answer>) {
        let counted = match answer {
            None | Some(Answer::Done | Answer::Leases(_)) => return,
            Some(Answer::Lease(_)) => &self.leases,
            Some(Answer::Fenced(_)) => &self.fenced,
            Some(Answer::Exhausted { .. }) => &self.exhausted,
            Some(Answer::Failed(_)) => &self.undone,
            Some(_) => &self.refused,
        };
        counted.fetch_add(1, Ordering::Relaxed);
    }
}

fn from_environment<T: FromStr>(name: &str, otherwise: T) -> T {
    env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The acts of the life that `seed` stands for. Of two lengths the shorter is the beginning of the longer.
fn acts_of(seed: u64, len: usize) -> Vec<Act> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_le_bytes().repeat(4));
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    prop::collection::vec(act(), len).new_tree(&mut runner).unwrap().current()
}

/// Does them to a new book. An error says at which act, counted from 1, it was found.
fn live(acts: &[Act], tally: &Tally) -> Result<(), (usize, TestCaseError)> {
    let mut pair = Pair::new();
    for (number, act) in (1..).zip(acts) {
        let answer = pair.act(act).map_err(|error| (number, error))?;
        tally.count(answer.as_ref());
    }
    Ok(())
}

/// Lives the life of `seed` up to its act `len`, and panics with all that is needed to live it again.
fn live_through(seed: u64, len: usize, tally: &Tally) {
    let acts = acts_of(seed, len);
    let Err((number, error)) = live(&acts, tally) else { return };
    let fewest: String = fewest(acts[..number].to_vec()).iter().map(|act| format!("\n  {act:?}")).collect();
    panic!(
        "act {number} of seed {seed}: {error}\nDUPIP_MODEL_SEED={seed} DUPIP_MODEL_OPS={number} brings it back. \
         These acts are enough for something to go wrong:{fewest}"
    );
}

/// Lives lives, of which each has nothing to do with another, on every processor there is.
fn live_side_by_side(lives: &[(u64, usize)], tally: &Tally) {
    let next = AtomicUsize::new(0);
    let live = || {
        while let Some(&(seed, len)) = lives.get(next.fetch_add(1, Ordering::Relaxed)) {
            live_through(seed, len, tally);
        }
    };
    let processors = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| (0..processors).for_each(|_| drop(scope.spawn(live))));
}

/// Of acts that go wrong as many as are needed for that: leaves out half of them, a quarter, and so on down to one.
fn fewest(mut acts: Vec<Act>) -> Vec<Act> {
    let mut piece = acts.len().div_ceil(2);
    while piece > 0 {
        let mut from = 0;
        while from < acts.len() {
            let mut fewer = acts.clone();
            fewer.drain(from..acts.len().min(from + piece));
            match live(&fewer, &Tally::default()) {
                Err((number, _)) => acts = fewer[..number].to_vec(),
                Ok(()) => from += piece,
            }
        }
        piece /= 2;
    }
    acts
}

/// Scenario 54, and with it 41, 42, 45, 47, 51 and 53: after each act the answer, every row and the pools are the
/// model's, and the four rules hold.
#[test]
fn whatever_is_done_and_whoever_dies_the_store_does_what_the_model_does() {
    let seed = from_environment("DUPIP_MODEL_SEED", 54_u64);
    let acts = from_environment("DUPIP_MODEL_OPS", ACTS);
    let tally = Tally::default();
    let lives: Vec<_> = (seed..).zip((0..acts).step_by(LIFE).map(|begun| LIFE.min(acts - begun))).collect();
    for (part, lives) in (1..).zip(lives.chunks(PART / LIFE)) {
        live_side_by_side(lives, &tally);
        println!("{} acts, from seed {seed} on: {tally:?}", acts.min(part * PART));
    }
    assert_eq!(
        format!("{:?}", acts_of(seed, 9)),
        format!("{:?}", &acts_of(seed, 99)[..9]),
        "a shorter life is another"
    );
    // So that it is seen if the acts come to nothing.
    let Tally { leases, fenced, refused, exhausted, undone } = &tally;
    assert!(
        acts < LIFE
            || [leases, fenced, refused, exhausted, undone].iter().all(|count| count.load(Ordering::Relaxed) > 0)
    );
}

//! What may happen, and how what the engine wants may end.

use detector::{engine::Way, time::Span};
use proptest::prelude::*;

use crate::names::SANDBOXES;

/// Something that happens on the runner.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A sandbox is made, or made anew behind another port, with these addresses.
    Arrive(u8, Vec<u8>),
    Leave(u8),
    /// A sandbox has these addresses from now on.
    Configure(u8, Vec<u8>),
    /// It announces each of its addresses.
    Speak(u8),
    /// It says on the wire, from now on and whoever asks, that it has an address.
    Lie(u8, u8),
    /// Whether it answers probes.
    Answers(u8, bool),
    /// An operator says whose an address is.
    Adopt(u8, u8),
    /// An operator gives back whatever lease is on an address.
    Release(u8),
    /// An operator lifts one of the containments.
    Lift(usize),
    Pause(Option<u64>),
    StoreRestored,
    Restart(Restart),
}

/// How an agent ends and another begins.
#[derive(Clone, Debug)]
pub(crate) struct Restart {
    /// What is done about losers from then on.
    pub(crate) way: Way,
    /// Whether the tap keeps what is contained.
    pub(crate) keeps: bool,
    /// Whether the store can be read only a while after the start.
    pub(crate) blind: bool,
    /// What is configured where, and who is gone, by then.
    pub(crate) meanwhile: Vec<(u8, Option<Vec<u8>>)>,
}

/// How something that the engine wants ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Done,
    /// After so many milliseconds.
    Late(u64),
    /// At once, but the answer comes so late.
    AnsweredLate(u64),
    Fails,
    /// It is done, and then something fails.
    FailsDone,
    /// The agent is killed before it.
    KilledBefore,
    /// The agent is killed after it, and before it hears of it.
    KilledAfter,
}

fn hosts() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![20 => 2u8..6, 1 => Just(1u8), 1 => 6u8..12], 0..3)
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![4 => Just(Way::Readdress), 1 => Just(Way::Contain), 1 => Just(Way::Recycle)]
}

fn restart() -> impl Strategy<Value = Restart> {
    let change = (0..SANDBOXES, prop::option::weighted(0.7, hosts()));
    let meanwhile = prop::collection::vec(change, 0..2);
    (way(), any::<bool>(), prop::bool::weighted(0.1), meanwhile).prop_map(|(way, keeps, blind, meanwhile)| Restart {
        way,
        keeps,
        blind,
        meanwhile,
    })
}

fn act() -> impl Strategy<Value = Act> {
    let at = 0..SANDBOXES;
    let host = || prop_oneof![12 => 2u8..6, 1 => Just(1u8), 2 => 6u8..12];
    prop_oneof![
        8 => (at.clone(), hosts()).prop_map(|(at, hosts)| Act::Arrive(at, hosts)),
        2 => at.clone().prop_map(Act::Leave),
        6 => (at.clone(), hosts()).prop_map(|(at, hosts)| Act::Configure(at, hosts)),
        4 => at.clone().prop_map(Act::Speak),
        2 => (at.clone(), host()).prop_map(|(at, host)| Act::Lie(at, host)),
        1 => (at.clone(), any::<bool>()).prop_map(|(at, answers)| Act::Answers(at, answers)),
        6 => (at, host()).prop_map(|(at, host)| Act::Adopt(at, host)),
        2 => host().prop_map(Act::Release),
        1 => any::<usize>().prop_map(Act::Lift),
        1 => prop::option::of(0u64..20_000).prop_map(Act::Pause),
        1 => Just(Act::StoreRestored),
        3 => restart().prop_map(Act::Restart),
    ]
}

fn pause() -> impl Strategy<Value = Span> {
    let millis = prop_oneof![4 => Just(0u64), 4 => 0u64..100, 4 => 0u64..3_000, 2 => 0u64..20_000, 1 => 0u64..120_000];
    millis.prop_map(Span::from_millis)
}

/// Acts, each with the time that passes after it.
pub(crate) fn acts() -> impl Strategy<Value = Vec<(Act, Span)>> {
    prop::collection::vec((act(), pause()), 1..40)
}

/// How the first actions that are wanted end; all others are done at once.
pub(crate) fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        20 => Just(Fate::Done),
        4 => (0u64..300).prop_map(Fate::Late),
        1 => (0u64..15_000).prop_map(Fate::AnsweredLate),
        4 => Just(Fate::Fails),
        1 => Just(Fate::FailsDone),
        1 => Just(Fate::KilledBefore),
        1 => Just(Fate::KilledAfter),
    ];
    prop::collection::vec(fate, 0..80)
}

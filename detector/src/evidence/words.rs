//! The engine's words, as a record spells them.

use super::Unreadable;
use crate::{
    engine::{Evidence, Held, Status, Step, Way},
    net::{ClaimKind, LeaseState},
};

/// A value that is one word in a record.
pub(super) trait Word: Copy + 'static {
    /// What such a word says.
    const WHAT: &'static str;
    /// Every value.
    const ALL: &'static [Self];

    fn word(self) -> &'static str;

    fn read(text: &str) -> Result<Self, Unreadable> {
        let found = Self::ALL.iter().find(|value| value.word() == text);
        found.copied().ok_or_else(|| Unreadable::no(Self::WHAT, text))
    }
}

/// An enum with what its words say, how it spells them, and its variants: that none is forgotten, the compiler sees to.
macro_rules! words {
    ($type:ident, $what:literal, $word:expr, $($variant:ident),+ $(,)?) => {
        impl Word for $type {
            const WHAT: &'static str = $what;
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant)|+ => $word(self),
                }
            }
        }
    };
}

words!(Status, "status of an incident", Self::as_str, Open, Healed, Gone);
words!(
    Step,
    "step of an eviction",
    Self::as_str,
    Contain,
    Contained,
    Failed,
    Recycle,
    AwaitGone,
    Reallocate,
    Readdress,
    AnnounceNew,
    AnnounceKept,
    DestroySockets,
    Verify,
    Bind,
    Release,
    Done,
);
words!(Way, "way to resolve a duplicate", Self::as_str, Readdress, Recycle, Contain);
words!(
    Held,
    "hindrance",
    Self::word,
    Observing,
    Unsettled,
    Newcomer,
    Paused,
    Protected,
    Spared,
    Outside,
    Strikes,
    ContainOnly,
    GivenUp,
    Brake,
    OutOfReach,
    Nameless,
    OnlyOnTheWire,
    NoNetwork,
    Shared
);
words!(LeaseState, "state of a lease", Self::as_str, Reserved, Bound, Draining, Cooldown, Quarantined);

impl Word for Evidence {
    const WHAT: &'static str = "evidence";
    const ALL: &'static [Self] = &[
        Self::Configured,
        Self::Arp(ClaimKind::Request),
        Self::Arp(ClaimKind::Reply),
        Self::Arp(ClaimKind::GratuitousRequest),
        Self::Arp(ClaimKind::GratuitousReply),
        Self::Arp(ClaimKind::Probe),
        Self::Ipv4,
    ];

    fn word(self) -> &'static str {
        self.as_str()
    }
}

//! The engine's words, as a record spells them.

use super::Unreadable;
use crate::{
    engine::{Evidence, Held, Status, Step},
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
words!(Step, "step of an eviction", Self::as_str, Reallocate, Readdress, AnnounceNew, AnnounceKept, Verify, Bind, Done,);
words!(
    Held,
    "hindrance",
    hindrance,
    Observing,
    Unsettled,
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

const fn hindrance(held: Held) -> &'static str {
    match held {
        Held::Observing => "observing",
        Held::Unsettled => "unsettled",
        Held::Brake => "brake",
        Held::OutOfReach => "out_of_reach",
        Held::Nameless => "nameless",
        Held::OnlyOnTheWire => "only_on_the_wire",
        Held::NoNetwork => "no_network",
        Held::Shared => "shared",
    }
}

//! What keeps an incident from being healed.

/// What keeps an incident from being healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// The agent only observes.
    Observing,
    /// Nobody's right to the address is sure enough to move another.
    Unsettled,
    /// Nobody holds a lease: whoever came later is contained and not moved.
    Newcomer,
    /// An operator has paused the agent.
    Paused,
    /// The loser's port is one behind which nothing is done.
    Protected,
    /// An operator has lifted the loser's containment.
    Spared,
    /// The loser is outside, where nothing can be done.
    Outside,
    /// The loser was moved away too often, and came back.
    Strikes,
    /// An operator wants losers like this one to be contained only.
    ContainOnly,
    /// It was tried and given up.
    GivenUp,
    /// So many evictions in the last minute that something else must be wrong.
    Brake,
    /// A loser's addresses cannot be changed from here: no namespace behind its port, or one that cannot be read.
    OutOfReach,
    /// The loser has no name that a lease could be written to.
    Nameless,
    /// The loser says on the wire that it has the address, but its kernel does not have it configured.
    OnlyOnTheWire,
    /// The address belongs to no network of the bridge, so there is nothing to lease from.
    NoNetwork,
    /// The address is one that several may have, so nobody is moved.
    Shared,
}

impl Held {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::Observing,
        Self::Unsettled,
        Self::Newcomer,
        Self::Paused,
        Self::Protected,
        Self::Spared,
        Self::Outside,
        Self::Strikes,
        Self::ContainOnly,
        Self::GivenUp,
        Self::Brake,
        Self::OutOfReach,
        Self::Nameless,
        Self::OnlyOnTheWire,
        Self::NoNetwork,
        Self::Shared,
    ];

    /// The reason in one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Observing => "observing",
            Self::Unsettled => "unsettled",
            Self::Newcomer => "newcomer",
            Self::Paused => "paused",
            Self::Protected => "protected",
            Self::Spared => "spared",
            Self::Outside => "outside",
            Self::Strikes => "strikes",
            Self::ContainOnly => "contain_only",
            Self::GivenUp => "given_up",
            Self::Brake => "brake",
            Self::OutOfReach => "out_of_reach",
            Self::Nameless => "nameless",
            Self::OnlyOnTheWire => "only_on_the_wire",
            Self::NoNetwork => "no_network",
            Self::Shared => "shared",
        }
    }

    /// The reason as a sentence's end.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observing => "the agent observes and does not act (run with --mode enforce to heal)",
            Self::Unsettled => {
                "no party holds a lease for it, so nobody is moved; say whose it is with `dupip lease adopt`"
            }
            Self::Newcomer => {
                "no party holds a lease for it, so whoever came later is contained and not moved; say whose it is with \
                 `dupip lease adopt`"
            }
            Self::Paused => "the agent is paused; go on with `dupip pause --end`",
            Self::Protected => "the loser's port is protected, so nothing is done there",
            Self::Spared => "an operator has lifted the loser's containment",
            Self::Outside => "the loser is outside, where nothing can be done",
            Self::Strikes => "the loser was moved away too often and came back, so it is contained and not moved again",
            Self::ContainOnly => "losers like this one are contained only",
            Self::GivenUp => "the loser could not be dealt with and stays contained; it is tried again after a minute",
            Self::Brake => "too many evictions in the last minute; it is tried again when the minute is over",
            Self::OutOfReach => "the loser's network namespace cannot be entered from here",
            Self::Nameless => "the loser has no name that a lease could be written to",
            Self::OnlyOnTheWire => "the loser only says so on the wire; the address is not configured in its namespace",
            Self::NoNetwork => "the bridge has no network that the address belongs to",
            Self::Shared => "the address is declared as shared, so nobody is moved",
        }
    }
}

//! Who asks over HTTP and is turned away before anybody looks at the question.

use super::Telemetry;

/// Why a request or a connection was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Its peer has as many connections as one may have, or it did not say what it wants, and who it is, before many others
    /// came.
    Crowd,
    /// No keys were agreed on, or not in time.
    Handshake,
    /// It was longer than a request may be, or no HTTP.
    Malformed,
    /// It was not said, or its answer not taken, in time.
    Slow,
    /// On loopback, it asked for another machine than this one.
    Host,
    /// It bore no token, or not the right one.
    Token,
}

impl Unanswered {
    pub(super) const ALL: [Self; 6] =
        [Self::Crowd, Self::Handshake, Self::Malformed, Self::Slow, Self::Host, Self::Token];

    /// Its name on `/metrics`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crowd => "crowd",
            Self::Handshake => "handshake",
            Self::Malformed => "malformed",
            Self::Slow => "slow",
            Self::Host => "host",
            Self::Token => "token",
        }
    }
}

impl Telemetry {
    /// Counts a request or a connection that was turned away.
    pub fn unanswered(&self, reason: Unanswered) {
        self.unanswered.with_label_values(&[reason.as_str()]).inc();
    }
}
